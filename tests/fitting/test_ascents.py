"""Ascents from many starts."""

import numpy as np
from scipy import stats

from pymc_isomix.fitting.ascents import ascend

CENTRE, PRECISION = np.array([1.0, -2.0, 0.5]), np.diag([1.0, 100.0, 0.01])


def gaussian(points):
    apart = points - CENTRE
    return -0.5 * np.einsum("si,ij,sj->s", apart, PRECISION, apart), -apart @ PRECISION


def two_modes(points):
    """Normals at -5 and 5, in one dimension."""
    log_p = np.logaddexp(stats.norm.logpdf(points, -5), stats.norm.logpdf(points, 5))
    right = np.exp(stats.norm.logpdf(points, 5) - log_p)
    return log_p[:, 0], -(points + 5) * (1 - right) - (points - 5) * right


def test_all_reach_the_top_of_a_quadratic():
    starts = np.random.default_rng(0).normal(size=(20, 3)) * 10
    ends, heights = ascend(gaussian, starts)
    deviations = 1 / np.sqrt(np.diag(PRECISION))
    assert np.abs((ends - CENTRE) / deviations).max() < 1.0  # the last rises are small
    np.testing.assert_allclose(heights, gaussian(ends)[0])
    assert heights.min() > -0.5


def test_each_climbs_its_own_mode():
    starts = np.array([[-8.0], [-3.0], [3.0], [9.0]])
    ends, _ = ascend(two_modes, starts)
    np.testing.assert_allclose(ends, [[-5.0], [-5.0], [5.0], [5.0]], atol=0.2)


def test_heights_never_fall():
    starts = np.random.default_rng(1).normal(size=(10, 3)) * 3
    _, heights = ascend(gaussian, starts, most=1)
    assert (heights >= gaussian(starts)[0]).all()


def test_a_start_outside_the_support_stays_there():
    def half(points):
        log_p, gradients = gaussian(points)
        return np.where(points[:, 0] > 0, log_p, np.nan), gradients

    ends, heights = ascend(half, np.array([[-1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(ends[0], [-1.0, 0.0, 0.0])
    assert heights[0] == -np.inf
    assert heights[1] > -0.05


def test_only_ascents_that_still_go_are_evaluated():
    rows = []

    def counted(points):
        rows.append(len(points))
        return gaussian(points)

    ascend(counted, np.concatenate([CENTRE[None], CENTRE[None] + 20]))
    assert rows[0] == 2
    assert rows[-1] == 1
