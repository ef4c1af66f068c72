"""Posterior mass that an approximation misses, where it is known."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from pymc_isomix import IsoMix, IsotropicMixture
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.modes import squared_distances
from pymc_isomix.results import missing_mass

PLACES, SCALES = np.array([[0.0, 0.0], [60.0, -30.0], [-40.0, 80.0]]), np.array([1.0, 5.0])
MASSES = np.array([0.6, 0.3, 0.1])


@pytest.fixture(scope="module")
def three_modes():
    """Mixture of three Gaussians under an improper prior; its evidence is 1."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        terms = [
            pm.math.log(mass) + pm.logp(pm.Normal.dist(place, SCALES), x).sum()
            for mass, place in zip(MASSES, PLACES, strict=True)
        ]
        pm.Potential("density", pt.logsumexp(pm.math.stack(terms)))
    return model


def on(model, which):
    """Fit exactly on some of the modes."""
    params = {
        "means": PLACES[which],
        "log_variances": np.zeros(len(which)),
        "log_weights": np.log(MASSES[which] / MASSES[which].sum()),
        "metric": SCALES,
    }
    return IsotropicMixture(params=params, model=model, random_seed=1)


@pytest.mark.parametrize("which", [[0], [1, 2], [0, 1], [0, 1, 2]])
def test_missing_mass(three_modes, which, monkeypatch):
    approx = on(three_modes, which)
    rng = np.random.default_rng(1)
    near = PLACES[rng.integers(3, size=20)] + 3 * SCALES * rng.normal(size=(20, 2))
    monkeypatch.setattr(missing_mass, "_spread_starts", lambda *_: near)
    missing, n_ascents, n_reached = missing_mass.missing_mass(
        approx.compiled_model(),
        approx.density,
        np.log(MASSES[which].sum()),
        20,
        rng,
    )
    assert n_reached == n_ascents >= 20
    # 500 draws around each mode, whose weights vary little
    assert missing == pytest.approx(1 - MASSES[which].sum(), abs=0.03)


def test_curvature_of_a_mode():
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])

    def evaluate(points):
        away = points - [1.0, -1.0]
        return -0.5 * np.einsum("si,ij,sj->s", away, precision, away), -away @ precision

    around = missing_mass._student_around(evaluate, np.zeros(2))
    np.testing.assert_allclose(around.loc, [1.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(around.shape, np.linalg.inv(precision), rtol=1e-5)


def test_no_mode_no_student():
    def rising(points):  # without bound
        return points.sum(axis=1), np.ones_like(points)

    def saddle(points):
        return points[:, 1] ** 2 - points[:, 0] ** 2, points * [-2.0, 2.0]

    def broken(points):
        return np.full(len(points), np.nan), np.full_like(points, np.nan)

    def thin(points):  # steep beyond what a matrix can hold
        return -0.5 * (points**2 @ [1.0, 1e22]), -points * [1.0, 1e22]

    for evaluate in (rising, saddle, broken, thin):
        assert missing_mass._student_around(evaluate, np.zeros(2)) is None


def test_an_unknown_evidence_is_not_probed():
    values = Mixture(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.ones(2))
    assert np.isnan(missing_mass.missing_mass(None, values, -np.inf, 5, None).share)


@pytest.mark.parametrize(("apart", "expected"), [(30.0, 0.5), (0.0, 0.0)])
def test_many_dimensions(apart, expected):
    """Two modes of equal shape, whose masses are equal, in more dimensions than have Hessians."""
    n_dim = missing_mass.LARGEST_DIMENSION + 1
    other = np.r_[apart, np.zeros(n_dim - 1)]
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        terms = [-0.5 * ((x - place) ** 2).sum() for place in (0.0, other)]
        pm.Potential("density", pm.math.logsumexp(pm.math.stack(terms)))
    params = {
        "means": np.zeros((1, n_dim)),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.ones(n_dim),
    }
    approx = IsotropicMixture(params=params, model=model, random_seed=1)
    mass = 0.5 * n_dim * np.log(2 * np.pi) + (np.log(2) if not apart else 0.0)
    found = missing_mass.missing_mass(
        approx.compiled_model(), approx.density, mass, 20, np.random.default_rng(1)
    )
    assert found.share == pytest.approx(expected, abs=0.01)
    assert found.n_reached == 20


def test_starts_are_prior_draws_where_there_is_a_prior():
    with pm.Model() as model:
        pm.Normal("x", 0.0, 50.0)
    approx = IsotropicMixture(model=model, random_seed=1)
    starts = missing_mass._spread_starts(
        approx.compiled_model(), approx.mixture, 200, np.random.default_rng(1)
    )
    # a hundredth of the Kolmogorov distribution's tail
    assert stats.kstest(starts[:, 0] / 50, "norm").pvalue > 0.01


def test_chains_start_where_prior_draws_of_the_rest_expect_them():
    """A chain itself has standard coordinates there."""
    with pm.Model() as model:
        rho, scale = pm.Normal("rho", 0, 0.3, shape=2), pm.HalfNormal("scale", 3)
        first = pm.Normal.dist(0, 1, shape=2)
        x = pm.AR("x", rho, sigma=scale, init_dist=first, shape=300)
        pm.Normal("y", x, 1, observed=np.zeros(300))
    approx = IsoMix(2, model=model, random_seed=1).approx
    compiled = approx.compiled_model()
    rng = np.random.default_rng(1)
    starts = missing_mass._spread_starts(compiled, approx.mixture, 100, rng)
    of_chains = compiled.coordinates.map.of_chains
    # a hundredth of the Kolmogorov distribution's tail
    assert stats.kstest(starts[:, of_chains].ravel(), "norm").pvalue > 0.01
    values = compiled.constrained(compiled.to_unconstrained(starts)[0])
    assert stats.kstest(values["rho"].ravel() / 0.3, "norm").pvalue > 0.01
    assert stats.kstest(values["scale"] / 3, "halfnorm").pvalue > 0.01
    assert np.isfinite(compiled.log_density(starts)).all()


def test_distances_need_no_square_of_dimensions():
    means = np.arange(6000.0).reshape(3, 2000)
    values = Mixture(means, np.zeros(3), np.full(3, -np.log(3)), np.full(2000, 10.0))
    np.testing.assert_allclose(
        np.sqrt(squared_distances(values, lambda own, other: 1.0)[0, 1]), 200 * np.sqrt(2000)
    )


def test_a_poor_fit_of_one_mode_misses_none():
    """As with minibatches: q lies beside the only mode, and takes the evidence for too small."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        pm.Potential("density", pm.logp(pm.Normal.dist(0.0, [1.0, 2.0]), x).sum())
    params = {
        "means": np.array([[6.0, 0.0], [6.5, 1.0]]),
        "log_variances": np.zeros(2),
        "log_weights": np.zeros(2),
        "metric": np.array([0.5, 1.0]),
    }
    approx = IsotropicMixture(params=params, model=model, random_seed=1)
    found = missing_mass.missing_mass(
        approx.compiled_model(), approx.density, -12.0, 10, np.random.default_rng(1)
    )
    assert found.share == 0.0
    assert found.n_reached == found.n_ascents >= 10


def test_silent_on_overflow(monkeypatch):
    """Of starts so far away that squares overflow, no warning (they are errors here)."""
    with pm.Model() as model:
        pm.Normal("x")
    approx = IsotropicMixture(model=model, random_seed=1)
    far = np.array([[1e200], [0.5]])
    monkeypatch.setattr(missing_mass, "_spread_starts", lambda *_: far)
    found = missing_mass.missing_mass(
        approx.compiled_model(), approx.density, 0.0, 2, np.random.default_rng(1)
    )
    assert found.n_reached == found.n_ascents - 1 >= 1


def test_modes_far_away_are_found_under_an_improper_prior(three_modes):
    approx = on(three_modes, [0])
    rng = np.random.default_rng(1)
    found = missing_mass.missing_mass(approx.compiled_model(), approx.density, np.log(0.6), 20, rng)
    assert found.share == pytest.approx(0.4, abs=0.03)


def test_hot_chains_reach_what_spread_starts_do_not(monkeypatch):
    """A mode of a fifth of the width, eight standard deviations from where all starts are."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        terms = [
            np.log(mass) + pm.logp(pm.Normal.dist(place, scale), x).sum()
            for mass, place, scale in ((0.7, 0.0, 1.0), (0.3, 6.0, 0.2))
        ]
        pm.Potential("density", pt.logsumexp(pt.stack(terms)))
    params = {
        "means": np.zeros((1, 2)),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.ones(2),
    }
    approx = IsotropicMixture(params=params, model=model, random_seed=1)
    monkeypatch.setattr(missing_mass, "_spread_starts", lambda *_: np.zeros((20, 2)))
    found = missing_mass.missing_mass(
        approx.compiled_model(), approx.density, np.log(0.7), 20, np.random.default_rng(1)
    )
    # 500 draws of a Student t, whose weights vary by a third: a standard error of .005
    assert found.share == pytest.approx(0.3, abs=0.03)
