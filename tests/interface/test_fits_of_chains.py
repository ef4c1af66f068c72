"""Fits of chains in time, against Kalman smoothers written with dense matrices."""

import numpy as np
import pymc as pm
import pytest

from pymc_isomix import IsoMix

QUIET = {"progressbar": False}


def smoothed(system, scales, offset, seen, data, noise):
    """Posterior mean and standard deviation of x, where system x = offset + scales * noise."""
    prior = system.T @ (system / scales[:, None] ** 2)
    precision = prior + seen.T @ seen / noise**2
    covariance = np.linalg.inv(precision)
    told = system.T @ (offset / scales**2) + seen.T @ data / noise**2
    return covariance @ told, np.sqrt(np.diag(covariance))


@pytest.mark.slow
def test_a_long_walk_with_missing_steps_is_exact_at_every_time():
    """1100 steps under a diagonal metric. Means within five standard errors of 4000 draws."""
    rng, n_time, scale, noise = np.random.default_rng(0), 1100, 0.3, 0.7
    here = np.flatnonzero(rng.random(n_time) < 0.7)
    here = here[(here < 400) | (here > 450)]  # with a long gap
    data = np.cumsum(scale * rng.normal(size=n_time))[here] + noise * rng.normal(size=len(here))
    with pm.Model() as model:
        first = pm.Normal.dist(0, 1)
        x = pm.GaussianRandomWalk("x", sigma=scale, init_dist=first, shape=n_time)
        pm.Normal("y", x[here], noise, observed=data)
    scales = np.array([1.0] + [scale] * (n_time - 1))
    system = np.eye(n_time) - np.eye(n_time, k=-1)
    mean, deviation = smoothed(system, scales, np.zeros(n_time), np.eye(n_time)[here], data, noise)
    approx = IsoMix(random_seed=1, model=model).fit(**QUIET)
    draws = approx.sample(4000, random_seed=2).posterior["x"].values[0]
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=5 * deviation.max() / 4000**0.5)
    np.testing.assert_allclose(draws.std(axis=0) / deviation, 1, atol=5 / 8000**0.5)


@pytest.mark.slow
def test_scales_of_an_autoregression_are_those_of_its_marginal_likelihood():
    """Two scales by quadrature of the likelihood in which the chain is integrated out."""
    rng, n_time, lags = np.random.default_rng(1), 60, np.array([0.5, 0.3])
    system = np.eye(n_time)
    for k, lag in enumerate(lags):
        system -= lag * np.eye(n_time, k=-k - 1)
    system[:2, :2] = np.eye(2)
    free = np.arange(n_time) > 1
    noises = rng.normal(size=(2, n_time))
    data = np.linalg.solve(system, np.where(free, 0.6, 1.0) * noises[0]) + 0.5 * noises[1]
    with pm.Model() as model:
        s, e = pm.HalfNormal("s", 1), pm.HalfNormal("e", 1)
        x = pm.AR("x", lags, sigma=s, init_dist=pm.Normal.dist(0, 1), shape=n_time)
        pm.Normal("y", x, e, observed=data)
    grid = np.linspace(-3.0, 1.0, 81)  # of the logarithms
    log_density = np.empty((81, 81))
    inverse = np.linalg.inv(system)
    for i, log_s in enumerate(grid):
        root = inverse * np.where(free, np.exp(log_s), 1.0)
        for j, log_e in enumerate(grid):
            covariance = root @ root.T + np.exp(2 * log_e) * np.eye(n_time)
            _, log_determinant = np.linalg.slogdet(covariance)
            log_density[i, j] = -0.5 * (log_determinant + data @ np.linalg.solve(covariance, data))
            log_density[i, j] += log_s + log_e - 0.5 * (np.exp(2 * log_s) + np.exp(2 * log_e))
    weights = np.exp(log_density - log_density.max())
    approx = IsoMix(random_seed=1, model=model).fit(**QUIET)
    posterior = approx.sample(4000, random_seed=2).posterior
    for name, marginal in (("s", weights.sum(axis=1)), ("e", weights.sum(axis=0))):
        marginal = marginal / marginal.sum()
        mean = marginal @ grid
        deviation = np.sqrt(marginal @ (grid - mean) ** 2)
        draws = np.log(posterior[name].values[0])
        assert draws.mean() == pytest.approx(mean, abs=0.1 * deviation)
        assert draws.std() == pytest.approx(deviation, rel=0.2)  # with a long tail to the left


def short_walk():
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        first = pm.Normal.dist(0, 1)
        x = pm.GaussianRandomWalk("x", sigma=scale, init_dist=first, shape=4)
        pm.Normal("y", x, 1, observed=np.arange(4.0))
    return model


def test_elements_of_a_chain_share_a_variance_in_each_component():
    """One for each of thousands would be noise."""
    method = IsoMix(3, model=short_walk(), schedule="constant", random_seed=1)
    log_variances = method.fit(5, **QUIET).mixture.log_variances
    scale, *elements = log_variances.T
    np.testing.assert_allclose(elements, np.broadcast_to(elements[0], (4, 3)), rtol=1e-12)
    assert (np.abs(scale - elements[0]) > 1e-3).all()


def test_components_beside_a_chain_are_diagonal_by_default():
    """One variance would be that of the chain's elements, which are standard in any case."""
    model = short_walk()
    with pm.Model() as plain:
        pm.Normal("x", shape=5)

    def n_variances(inference):
        return np.shape(inference.approx.groups[0].mixture.log_variances[0])

    assert n_variances(IsoMix(3, model=model)) == (5,)
    assert n_variances(IsoMix(3, model=plain)) == ()
    for inference in (
        IsoMix(3, model=model, component_variances="isotropic"),
        IsoMix(3, model=model, coordinates="affine"),
        IsoMix.paper(3, model=model),
    ):
        assert n_variances(inference) == ()
