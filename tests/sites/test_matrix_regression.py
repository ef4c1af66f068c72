"""Pseudo-observations of matrix sites by regression: exact where data are Gaussian."""

import numpy as np
import pytest

from pymc_isomix.sites import matrix_regression

B, R, N, S = 2, 5, 3, 60
RNG = np.random.default_rng(0)
TRUE = np.log(RNG.uniform(0.5, 5.0, (B, R))), RNG.normal(size=(B, R))
MATRIX = RNG.normal(size=(B, R, N))


def draws(own, seed=1):
    """Draws y, the gradient of log p(y) for Gaussian data, and what is given."""
    rng = np.random.default_rng(seed)
    factor = np.exp(0.5 * rng.normal(size=(S, 1, 1, 1))) * MATRIX
    location = rng.normal(size=(S, B, R))
    y = rng.normal(size=(S, B, N))
    gradient = np.empty_like(y)
    for s in range(S):
        for b in range(B):
            f, G = location[s, b], factor[s, b]
            c, m = np.exp(own[0][b]), own[1][b]
            precision = np.eye(N) + G.T @ np.diag(c) @ G
            back = np.linalg.inv(np.linalg.cholesky(precision)).T
            zeta = np.linalg.solve(precision, G.T @ (c * (m - f))) + back @ y[s, b]
            theta = f + G @ zeta
            # prior of zeta and the data, through zeta(y), written out
            slope = -zeta + G.T @ (np.exp(TRUE[0][b]) * (TRUE[1][b] - theta))
            gradient[s, b] = back.T @ slope
    return y, gradient, location, factor


def test_the_truth_stays():
    learned = matrix_regression.learn(*draws(TRUE), TRUE)
    np.testing.assert_allclose(learned, TRUE, atol=1e-9)


@pytest.mark.parametrize(("log_precision", "value"), [(0.0, 0.0), (-3.0, 1.0), (3.0, -1.0)])
def test_gaussian_data_leave_a_standard_normal(log_precision, value):
    """Three columns do not tell all values of five rows; what they tell is found."""
    learned = np.full((B, R), log_precision), np.full((B, R), value)
    for i in range(15):  # each within its bounds, and by a ridge of one per cent
        learned = matrix_regression.learn(*draws(learned, seed=i), learned)
    y, gradient, *_ = draws(learned, seed=99)
    assert np.sqrt(((gradient + y) ** 2).mean()) < 0.02


def test_points_stay_where_they_are():
    old = np.zeros((B, R)), np.zeros((B, R))
    y, _, location, factor = draws(old)
    there = matrix_regression.moved(y, location, factor, old, TRUE)
    np.testing.assert_allclose(matrix_regression.moved(there, location, factor, TRUE, old), y)
    effects = [
        matrix_regression.Conditional.of(location, factor, *own).effect(points)
        for own, points in ((old, y), (TRUE, there))
    ]
    np.testing.assert_allclose(*effects)


def test_units_shrink_by_the_roots_of_the_posterior():
    vague = np.full((B, R), -30.0), np.zeros((B, R))
    _, _, location, factor = (part[:1] for part in draws(TRUE))
    expected = np.stack(
        [
            np.diagonal(np.linalg.cholesky(np.eye(N) + G.T @ np.diag(np.exp(log_c)) @ G))
            for G, log_c in zip(factor[0], TRUE[0], strict=True)
        ]
    )
    found = matrix_regression.unit_change(location, factor, vague, TRUE)
    np.testing.assert_allclose(found, expected)
