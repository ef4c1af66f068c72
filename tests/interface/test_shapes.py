"""A default fit of skewed coordinates: they get a shape, and everything goes through it."""

import numpy as np
import pymc as pm
import pytensor
import pytest
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix.family import shape as shapes
from pymc_isomix.sites.coordinates import SHAPE

N_DIM = 5


def half_normals():
    with pm.Model() as model:
        pm.HalfNormal("scale", shape=N_DIM)
    return model


@pytest.fixture(scope="module")
def fitted():
    """Nothing observed: the exact evidence is 1, and the draws are half normal."""
    with half_normals():
        return pm.fit(method=pmi.IsoMix(2, random_seed=1), progressbar=False)


def test_skewed_scales_are_nearly_exact(fitted):
    assert fitted.coordinates.map.has_shape
    report = fitted.diagnostics(10_000, random_seed=1, n_probes=0)
    # five standard errors of the ELBO
    assert report["elbo"].item() > -0.02 - 5 * report["elbo_se"].item()
    assert report.verdict == "good"
    draws = fitted.sample(4000, random_seed=1).posterior["scale"].values.reshape(-1, N_DIM)
    for column in draws.T:
        # Kolmogorov-Smirnov: below 1.63 / sqrt(n) for 99 % of exact samples
        assert stats.kstest(column, stats.halfnorm.cdf).statistic < 2 * 1.63 / np.sqrt(len(column))


def test_densities_and_moments_go_through_the_shape(fitted):
    rng = np.random.default_rng(0)
    z, _ = fitted.draw_unconstrained(20_000, rng)
    # exact density of the logarithm of a half normal
    exact = (z - 0.5 * np.exp(2 * z) + 0.5 * np.log(2 / np.pi)).sum(axis=1)
    ratio = np.exp(exact - fitted.log_density(z))
    assert ratio.mean() == pytest.approx(1, abs=6 * ratio.std() / np.sqrt(len(z)))
    error = z.std(axis=0) / np.sqrt(len(z))
    mean, std = pytensor.function([], [fitted.mean, fitted.std], mode="FAST_COMPILE")()
    np.testing.assert_allclose(mean, z.mean(axis=0), atol=6 * error.max())
    np.testing.assert_allclose(std, z.std(axis=0), rtol=0.05)


def test_files_keep_the_shape(fitted, tmp_path):
    fitted.save(tmp_path / "fit.nc")
    with half_normals():
        again = pmi.load(tmp_path / "fit.nc")
    for name, value in fitted.coordinates.parameters.items():
        np.testing.assert_array_equal(again.coordinates.parameters[name], value)
    z = np.random.default_rng(0).normal(size=(5, N_DIM))
    np.testing.assert_allclose(again.log_density(z), fitted.log_density(z))


def test_joined_fits_keep_the_shape(fitted, tmp_path):
    joined = pmi.join([fitted], random_seed=1)
    z = np.random.default_rng(0).normal(size=(5, N_DIM))
    np.testing.assert_allclose(joined.log_density(z), fitted.log_density(z))
    joined.save(tmp_path / "joined.nc")
    with half_normals():
        again = pmi.load(tmp_path / "joined.nc")
    np.testing.assert_allclose(again.log_density(z), fitted.log_density(z))


def test_a_prior_has_the_shape(fitted):
    with pm.Model():
        prior = pmi.as_prior(fitted, ["scale"])
        draws = pm.draw(prior["scale"], 4000, random_seed=1)
    for column in draws.T:
        assert stats.kstest(column, stats.halfnorm.cdf).statistic < 2 * 1.63 / np.sqrt(len(column))


def test_nuts_starts_and_moves_in_coordinates_with_the_shape(fitted):
    with half_normals():
        trace = fitted.sample_nuts(
            draws=300,
            tune=100,
            chains=1,
            random_seed=1,
            progressbar=False,
            compute_convergence_checks=False,
        )
    draws = np.log(trace.posterior["scale"].values.reshape(-1, N_DIM))
    exact = np.log(stats.halfnorm.ppf([0.05, 0.5, 0.95]))
    got = np.quantile(draws, [0.05, 0.5, 0.95])
    np.testing.assert_allclose(got, exact, atol=0.3)


def test_steps_of_a_mixture_go_on_from_the_shape(fitted, tmp_path):
    """On with steps: the shape stays, the ELBO too."""
    fitted.save(tmp_path / "fit.nc")
    with half_normals():
        again = pmi.load(tmp_path / "fit.nc")
    pmi.resume(again, schedule="constant").fit(20, progressbar=False)
    assert np.mean(again.hist[-20:]) == pytest.approx(0.01, abs=0.1)
    for name in SHAPE.values():
        expected = fitted.coordinates.parameters[name]
        np.testing.assert_array_equal(again.coordinates.parameters[name], expected)


def test_a_regression_gets_no_shape():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3))
    with pm.Model():
        mean = x @ pm.Normal("slope", shape=3)
        pm.Normal("y", mean, 1, observed=x.sum(axis=1) + rng.normal(size=200))
        approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
    assert not approx.coordinates
    assert not approx.coordinates.parameters


def test_affine_coordinates_get_no_shape():
    with half_normals():
        method = pmi.IsoMix(random_seed=1, coordinates="affine")
        approx = pm.fit(50, method=method, progressbar=False)
    assert not approx.coordinates


def test_the_shape_is_that_of_a_half_normal(fitted):
    """Heavy to the left, light to the right, for every coordinate."""
    shape = fitted.coordinates.map.shape(fitted.coordinates.parameters)
    assert shapes.is_shaped(shape).all()
    assert (shape.left > 0.2).all()
    assert (shape.right < -0.2).all()
