"""The exact references of the benchmark of chains, against dense matrices and quadrature."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from problems import kalman

SEEN = np.array([0.3, np.nan, 1.2, 0.4, -0.8, -0.1, 0.5])
N_TIME = len(SEEN)
LAGS = np.array([1.1, -0.4])


def second_order(step, noise):
    """An AR(2) from two values of variance 4, seen with noise."""
    transition = [LAGS, [1.0, 0.0]]
    return kalman.gaussian_steps(
        transition, [0, 0], [step**2, 0.0], [0, 0], [4.0, 4.0], [1.0, 0.0], noise**2
    )


def covariance(step):
    system = np.eye(N_TIME) - LAGS[0] * np.eye(N_TIME, k=-1) - LAGS[1] * np.eye(N_TIME, k=-2)
    system[:2] = np.eye(2, N_TIME)
    root = np.linalg.solve(system, np.diag([2.0, 2.0, *[step] * (N_TIME - 2)]))
    return root @ root.T


def dense(step, noise):
    here = np.isfinite(SEEN)
    prior = covariance(step)
    of_data = prior[np.ix_(here, here)] + noise**2 * np.eye(here.sum())
    gain = np.linalg.solve(of_data, prior[here]).T
    log_likelihood = stats.multivariate_normal(np.zeros(here.sum()), of_data).logpdf(SEEN[here])
    return log_likelihood, gain @ SEEN[here], np.diag(prior - gain @ prior[here])


def test_the_smoother_is_that_of_dense_matrices():
    points = [(0.5, 0.3), (1.5, 0.8)]
    system = second_order(*map(np.array, zip(*points, strict=True)))
    found = kalman.smooth(system, SEEN, 1, range(N_TIME))
    expected = [dense(*point) for point in points]
    for values, wanted in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(values.T, np.array(wanted), rtol=1e-9)


def test_parameters_are_those_of_quadrature():
    """Evidence within a tenth of a nat, quantiles within five standard errors of 1000 points."""
    parameters = {"step": kalman.positive(1), "noise": kalman.positive(1)}
    space = kalman.StateSpace(lambda theta: second_order(*theta), parameters, SEEN[None], first=1)
    u, log_evidence = space.sample(1000)
    grid = np.linspace(-6, 1.5, 76)
    points = np.stack(np.meshgrid(grid, grid, indexing="ij")).reshape(2, -1)
    density = sum(space.log_densities(points))
    total = np.logaddexp.reduce(density) + 2 * np.log(grid[1] - grid[0])
    assert log_evidence == pytest.approx(total, abs=0.1)
    weights = np.exp(density - np.logaddexp.reduce(density))
    for own, at in zip(u, points, strict=True):
        mean = weights @ at
        deviation = np.sqrt(weights @ (at - mean) ** 2)
        assert own.mean() == pytest.approx(mean, abs=5 * deviation / 1000**0.5)
