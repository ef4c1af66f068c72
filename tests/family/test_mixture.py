"""A mixture as numbers, isotropic or diagonal, under every kind of metric."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.modes import within_mode_covariance

N_COMPONENTS, N_DIM = 3, 4
STANDARD_ERRORS = 5
LOWER = np.tril(np.random.default_rng(0).normal(size=(N_DIM, N_DIM)), -1) + np.diag([1, 2, 0.5, 1])
METRICS = {"identity": np.array(1.3), "diag": np.diagonal(LOWER), "dense": LOWER}


def mixture(metric, variances):
    rng = np.random.default_rng(1)
    shape = (N_COMPONENTS, N_DIM)[: 1 + (variances == "diagonal")]
    return Mixture(
        means=3 * rng.normal(size=(N_COMPONENTS, N_DIM)),
        log_variances=rng.normal(size=shape),
        log_weights=np.log([0.2, 0.5, 0.3]),
        metric=METRICS[metric],
    )


def covariances(values):
    """Of each component, (K, d, d)."""
    diagonals = np.exp(values.log_variances.reshape(N_COMPONENTS, -1)) * np.ones(N_DIM)
    return np.stack([values.root @ np.diag(eps) @ values.root.T for eps in diagonals])


every_kind = [
    pytest.mark.parametrize("metric", METRICS),
    pytest.mark.parametrize("variances", ["isotropic", "diagonal"]),
]


def of_every_kind(test):
    for mark in every_kind:
        test = mark(test)
    return test


@of_every_kind
def test_log_density_is_scipy_s(metric, variances):
    values = mixture(metric, variances)
    points = 3 * np.random.default_rng(2).normal(size=(6, N_DIM))
    parts = zip(values.weights, values.means, covariances(values), strict=True)
    terms = [np.log(w) + stats.multivariate_normal(m, c).logpdf(points) for w, m, c in parts]
    log_density, responsibilities = values.evaluate(points)
    np.testing.assert_allclose(log_density, logsumexp(terms, axis=0), rtol=1e-10)
    np.testing.assert_allclose(responsibilities.T, np.exp(terms - log_density), rtol=1e-8)


@of_every_kind
def test_a_variance_for_each_dimension_changes_no_density(metric, variances):
    isotropic = mixture(metric, variances)
    diagonal = isotropic.with_diagonal_variances()
    assert diagonal.log_variances.shape == (N_COMPONENTS, N_DIM)
    points = np.random.default_rng(2).normal(size=(5, N_DIM))
    found, expected = (values.evaluate(points)[0] for values in (diagonal, isotropic))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@of_every_kind
def test_deviations_are_roots_of_the_covariances(metric, variances):
    values = mixture(metric, variances)
    expected = np.sqrt(np.diagonal(covariances(values), axis1=1, axis2=2))
    np.testing.assert_allclose(values.standard_deviations, expected)
    typical = values.replace(metric=values.typical_metric).root
    mean = np.einsum("k,kij->ij", values.weights, covariances(values))
    np.testing.assert_allclose(typical @ typical.T, mean, atol=1e-14)


@of_every_kind
def test_draws_have_the_moments_of_their_components(metric, variances):
    values = mixture(metric, variances)
    points, component = values.draw(60_000, np.random.default_rng(3))
    for k, covariance in enumerate(covariances(values)):
        own = points[component == k] - values.means[k]
        error = np.sqrt(np.diag(covariance) / len(own))
        assert np.all(np.abs(own.mean(axis=0)) < STANDARD_ERRORS * error)
        spread = np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2
        error = np.sqrt(spread / len(own))
        assert np.all(np.abs(own.T @ own / len(own) - covariance) < STANDARD_ERRORS * error)


@of_every_kind
def test_covariance_within_modes(metric, variances):
    values = mixture(metric, variances)
    mode_mean = (0.2 * values.means[0] + 0.5 * values.means[1]) / 0.7
    offsets = values.means - np.stack([mode_mean, mode_mean, values.means[2]])
    expected = np.einsum("k,kij->ij", values.weights, covariances(values))
    expected += np.einsum("k,ki,kj->ij", values.weights, offsets, offsets)
    got = within_mode_covariance(values, np.array([0, 0, 1]))
    np.testing.assert_allclose(got, expected if metric == "dense" else np.diag(expected))
