"""Thin tails are mended by weights of stretched draws."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix.family import shape as shapes
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.shear import Shear
from pymc_isomix.fitting import tails
from pymc_isomix.fitting.tails import Fitted


@pytest.fixture(params=["dense", "diag", "sheared"])
def fitted(request):
    """Two components in three dimensions, of which the second has a shape."""
    rng = np.random.default_rng(1)
    metric = np.tril(rng.normal(size=(3, 3)), -1) * 0.3 + np.diag([0.7, 1.3, 1.0])
    mixture = Mixture(
        means=rng.normal(size=(2, 3)),
        log_variances=np.array([0.1, -0.4]),
        log_weights=np.log([0.3, 0.7]),
        metric=metric if request.param == "dense" else np.diagonal(metric).copy(),
    )
    shape = shapes.identity(3)
    shape.left[1], shape.right[1], shape.centre[1] = 0.4, -0.2, 0.3
    shear = None
    if request.param == "sheared":
        shear = Shear(np.array([0, 1]), np.array([[0.0, 0.0], [0.6, 0.0], [-0.3, 0.5]]))
    return Fitted(mixture, shape, shear)


def straightened(fitted, x):
    """Return y and the log slopes at x."""
    bent = shapes.straighten(x, fitted.shape)
    y = fitted.shear.undo(bent) if fitted.shear else bent
    return y, shapes.bend(bent, fitted.shape)[1].sum(axis=1)


def log_density(fitted, x):
    y, log_slope = straightened(fitted, x)
    return fitted.mixture.log_density(y) - log_slope


def root_of_sheared(fitted):
    return fitted.sheared(fitted.mixture.root.T).T


def covariance(fitted):
    """Of what the shape bends."""
    mixture, root = fitted.mixture, root_of_sheared(fitted)
    apart = fitted.sheared(mixture.means - mixture.mean)
    within = mixture.weights @ np.exp(mixture.log_variances)
    return within * root @ root.T + (mixture.weights * apart.T) @ apart


def test_the_density_of_stretched_draws_is_that_of_the_formula(fitted):
    chosen = np.array([0, 2])
    stretched = tails._Stretched(fitted, chosen)
    noise = stretched.draw(50, np.random.default_rng(2))
    cov, root = covariance(fitted), root_of_sheared(fitted)
    offsets = noise @ root.T
    inverse = np.linalg.inv(root)

    def density(offsets):
        return np.exp(fitted.mixture.whitened.log_density(offsets @ inverse.T))

    parts = [2 * density(offsets)]
    for i in chosen:
        matrix = np.eye(3) + (tails.STRETCH - 1) * np.outer(cov[:, i], np.eye(3)[i]) / cov[i, i]
        back = offsets @ np.linalg.inv(matrix).T
        parts.append(density(back) / np.linalg.det(matrix))
    expected = np.log(np.sum(parts, axis=0) / 4)
    np.testing.assert_allclose(stretched.log_density(noise), expected, rtol=1e-10)


def test_whitened_coordinates_have_the_density_of_the_mixture(fitted):
    mixture, noise = fitted.mixture, np.random.default_rng(2).normal(size=(10, 3))
    y = mixture.mean + mixture.unwhiten(noise)
    _, log_volume = np.linalg.slogdet(mixture.root)
    expected = mixture.log_density(y) + log_volume
    np.testing.assert_allclose(mixture.whitened.log_density(noise), expected, rtol=1e-10)


def test_stretched_draws_have_their_density(fitted):
    """E_r[q / r] = 1, and a second moment, within four standard errors."""
    stretched = tails._Stretched(fitted, np.array([1]))
    noise = stretched.draw(4000, np.random.default_rng(3))
    ratio = np.exp(stretched.white.log_density(noise) - stretched.log_density(noise))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))
    of_square = ratio * noise[:, 0] ** 2
    plain = fitted.mixture.whitened.draw(100_000, np.random.default_rng(4))[0][:, 0] ** 2
    error = np.hypot(of_square.std() / np.sqrt(len(ratio)), plain.std() / np.sqrt(len(plain)))
    assert abs(of_square.mean() - plain.mean()) < 4 * error


def test_the_gradient_of_a_change_is_that_of_differences(fitted):
    rng = np.random.default_rng(5)
    noise = fitted.mixture.whitened.draw(20, rng)[0]
    change = tails._Change(fitted, np.array([0, 1]), noise)
    at = 0.2 * rng.normal(size=(6, 2))
    _, gradient = change.evaluate(at)
    for place in np.ndindex(6, 2):
        step = np.zeros((6, 2))
        step[place] = 1e-5
        difference = change.evaluate(at + step)[0] - change.evaluate(at - step)[0]
        np.testing.assert_allclose(gradient[:, *place], difference / 2e-5, rtol=1e-5, atol=1e-6)


def test_a_change_is_applied_to_mixture_and_shape(fitted):
    """The density of the changed mixture is that by which the change was chosen."""
    rng = np.random.default_rng(6)
    mixture, chosen = fitted.mixture, np.array([0, 1])
    noise = mixture.whitened.draw(20, rng)[0]
    change, at = tails._Change(fitted, chosen, noise), 0.2 * rng.normal(size=(6, 2))
    y = mixture.mean + mixture.unwhiten(noise)
    x = shapes.bend(fitted.sheared(y), fitted.shape)[0]
    changed = change.applied(at, fitted)
    gained = log_density(changed, x) - log_density(fitted, x)
    expected = change.evaluate(at)[0] - change.evaluate(np.zeros((6, 2)))[0]
    np.testing.assert_allclose(gained, expected, rtol=1e-9, atol=1e-9)
    assert not shapes.is_shaped(changed.shape)[2]


def test_an_exact_mixture_stays_the_same(fitted):
    n_points = 0

    def evaluate(x):
        nonlocal n_points
        n_points += len(x)
        bent = shapes.straighten(x, fitted.shape)
        _, log_slope, slope = shapes.bend(bent, fitted.shape)
        y, _ = straightened(fitted, x)
        log_q, score = fitted.mixture.log_density_and_score(y)
        score = fitted.shear.push(score) if fitted.shear else score
        return log_q - log_slope.sum(axis=1), (score - slope) / np.exp(log_slope)

    assert tails.mend(evaluate, fitted, np.random.default_rng(7)) is fitted
    assert n_points == tails.N_LOOKED_AT


def test_the_tail_of_the_logarithm_of_a_scale_is_mended():
    """z = log x, x exponential, beside a normal coordinate that depends on it."""

    def evaluate(x):
        z, normal = x[:, 0], x[:, 1] - 0.5 * x[:, 0]
        log_p = z - np.exp(z) - 0.5 * normal**2
        return log_p, np.column_stack([1 - np.exp(z) + 0.5 * normal, -normal])

    deviation = 1.0  # of the Gaussian of least KL(q || p), whose mean is -1/2
    root = np.array([[deviation, 0], [0.5 * deviation, 1]])
    start = Mixture(np.array([[-0.5, -0.25]]), np.zeros(1), np.zeros(1), root)
    fitted = Fitted(start, shapes.identity(2))
    mended = tails.mend(evaluate, fitted, np.random.default_rng(8))
    levels = np.array([0.005, 0.05, 0.5, 0.95])
    exact = np.log(stats.expon.ppf(levels))
    y, _ = mended.mixture.draw(100_000, np.random.default_rng(9))
    z = shapes.bend(y, mended.shape)[0][:, 0]
    errors = np.quantile(z, levels) - exact
    # the start is 2.2, .83, .13 and .05 off; twenty seeds leave .46 +- .12, .18 +- .06, 0 +- .03
    # and -.01 +- .02, of which these bounds are three standard deviations away
    assert np.all(abs(errors) < [0.85, 0.36, 0.09, 0.08]), errors


@pytest.mark.parametrize("nothing", [-np.inf, np.nan])
def test_a_density_that_is_nowhere_finite_changes_nothing(fitted, nothing):
    def evaluate(x):
        return np.full(len(x), nothing), np.full(x.shape, 1.0)

    assert tails.mend(evaluate, fitted, np.random.default_rng(1)) is fitted
    draws = (fitted, np.arange(2), 1000, np.random.default_rng(1))
    with np.errstate(all="ignore"):
        assert tails._mend_at(evaluate, *draws) is fitted


@pytest.fixture(scope="module")
def heavy_fit():
    """A fit of one component to heavy tails, which KL(q || p) makes too thin."""
    with pm.Model():
        b = pm.StudentT("b", nu=3, mu=0, sigma=2, shape=2)
        pm.Bernoulli("y", logit_p=b[0] + b[1] * np.array([-1.0, 0, 1, 2]), observed=[0, 0, 1, 1])
        inference = pmi.IsoMix(1, random_seed=1)
        approx = inference.fit(2000, progressbar=False)
    return inference, approx


def test_a_default_fit_mends_tails(heavy_fit):
    _, approx = heavy_fit
    assert approx.history.n_gradients["tails"] > tails.N_LOOKED_AT
    report = approx.diagnostics(progressbar=False)
    assert report.verdict == "good"
    drift = report["log_sd_drift"].values
    assert np.all(abs(drift) < 0.12 + 2 * report["log_sd_drift_se"].values)


def test_refine_goes_on_in_the_new_coordinates(heavy_fit):
    inference, approx = heavy_fit
    n_steps = len(approx.hist)
    inference.refine(5, progressbar=False)
    assert len(approx.hist) == n_steps + 5
    assert np.isfinite(approx.hist[-5:]).all()


@pytest.mark.slow
def test_refine_compiles_again_if_a_shape_is_new(monkeypatch):
    """The step of the mixture was compiled in coordinates without a shape."""

    def mend(evaluate, fitted, rng, *, among):
        left = np.full(2, 0.1)
        return Fitted(fitted.mixture, fitted.shape._replace(left=left))

    monkeypatch.setattr(tails, "mend", mend)
    with pm.Model():
        x = pm.Normal("x", 0, 1, shape=2)
        pm.Potential("star", -((x[0] * x[1]) ** 4))
        inference = pmi.IsoMix(5, random_seed=1)
        approx = inference.fit(2000, progressbar=False)
    assert "exploring" in approx.history.phase
    assert approx.coordinates.map.has_shape
    inference.refine(5, progressbar=False)
    assert np.isfinite(approx.hist[-5:]).all()
