"""Coordinates of a chain, with a shear and a shape of the rest: everything goes through both."""

import numpy as np
import pymc as pm
import pytensor
import pytest
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.sites.coordinates import SHAPE, SHEAR, Coordinates

N_TIME = 4
N_DIM = N_TIME + 2


def walk():
    with pm.Model() as model:
        step = pm.HalfNormal("step")
        x = pm.GaussianRandomWalk("x", 0, step, init_dist=pm.Normal.dist(), shape=N_TIME)
        pm.Normal("y", x, pm.HalfNormal("noise"), observed=[0.3, 1.0, 0.0, -0.5])
    return model


@pytest.fixture(scope="module")
def approx():
    """Not fitted: its parameters are random numbers."""
    options = {"metric": "diag", "component_variances": "isotropic", "random_seed": 1}
    approx = pmi.IsoMix(2, model=walk(), **options).approx
    [group], rng = approx.groups, np.random.default_rng(3)
    group.mixture = Mixture(
        means=0.3 * rng.normal(size=(2, N_DIM)),
        log_variances=np.array([-1.0, -0.5]),
        log_weights=np.log([0.3, 0.7]),
        metric=np.exp(0.3 * rng.normal(size=N_DIM)),
    )
    before = group.coordinates
    assert before.map.sheared.tolist() == [0, N_DIM - 1]
    shear = 0.5 * rng.normal(size=(N_DIM, 2))
    shear[[0, -1]] = [[0.0, 0.0], [0.6, 0.0]]
    shape = [np.zeros(N_DIM), np.ones(N_DIM), *rng.uniform(-0.3, 0.3, (2, N_DIM))]
    parameters = before.parameters | dict(zip(SHAPE.values(), shape, strict=True))
    group.coordinates = Coordinates(before.map.with_shape(), parameters | {SHEAR: shear})
    return approx


@pytest.fixture
def points():
    return 0.3 * np.random.default_rng(0).normal(size=(5, N_DIM))


def test_draws_have_the_density(approx):
    """The mean of p / q over draws of q is 1 for any density p, here a normal one."""
    z, _ = approx.draw_unconstrained(40_000, np.random.default_rng(0))
    mean, covariance = z.mean(axis=0), np.cov(z.T)
    log_p = stats.multivariate_normal.logpdf(z, mean, 0.3 * covariance)
    ratio = np.exp(log_p - approx.log_density(z))
    assert ratio.mean() == pytest.approx(1, abs=6 * ratio.std() / np.sqrt(len(z)))
    error = z.std(axis=0) / np.sqrt(len(z))
    function = pytensor.function([], [approx.mean, approx.std], mode="FAST_COMPILE")
    # a quadrature of forty draws per component
    np.testing.assert_allclose(
        function()[0], mean, atol=0.1 * z.std(axis=0).max() + 6 * error.max()
    )


def test_files_keep_the_shear(approx, points, tmp_path):
    approx.save(tmp_path / "fit.nc")
    with walk():
        again = pmi.load(tmp_path / "fit.nc")
    for name, value in approx.coordinates.parameters.items():
        np.testing.assert_array_equal(again.coordinates.parameters[name], value)
    np.testing.assert_allclose(again.log_density(points), approx.log_density(points))


def test_joined_fits_keep_the_shear(approx, points, tmp_path):
    joined = pmi.join([approx], random_seed=1)
    np.testing.assert_allclose(joined.log_density(points), approx.log_density(points))
    joined.save(tmp_path / "joined.nc")
    with walk():
        again = pmi.load(tmp_path / "joined.nc")
    np.testing.assert_allclose(again.log_density(points), approx.log_density(points))


def test_a_prior_has_the_shear(approx):
    z, _ = approx.draw_unconstrained(4000, np.random.default_rng(2))
    with pm.Model():
        prior = pmi.as_prior(approx, ["noise", "x"])
        draws = pm.draw([prior["noise"], prior["x"]], 4000, random_seed=1)
    # below 1.63 * sqrt(2 / n) for 99 % of samples of one distribution
    for one, other in ((np.log(draws[0]), z[:, -1]), (draws[1][:, -1], z[:, N_DIM - 2])):
        assert stats.ks_2samp(one, other).statistic < 2 * 1.63 * np.sqrt(2 / 4000)
    # each may be right where both are not: their product
    here, there = np.log(draws[0]) * draws[1][:, -1], z[:, -1] * z[:, N_DIM - 2]
    assert stats.ks_2samp(here, there).statistic < 2 * 1.63 * np.sqrt(2 / 4000)
