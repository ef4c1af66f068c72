"""Bounds of a step: of a dense metric with few draws, of scales that many elements share."""

import numpy as np
import pytensor.tensor as pt
import pytest

from pymc_isomix.step.bounds import MAX_MEAN_SHIFT, MAX_METRIC_CHANGE, METRIC_STEP, StepRule


@pytest.mark.parametrize("enough", [0.5, 1.0])
def test_noise_off_the_diagonal_does_not_hold_the_diagonal_back(enough):
    """With half a draw a dimension; with one or more a single bound serves the whole metric."""
    noise = np.random.default_rng(1).normal(size=(3, 3)) * 1e3
    gradient = noise + noise.T
    np.fill_diagonal(gradient, 1.0)
    options = {"draws_a_dimension": enough}
    new = StepRule().new_metric(pt.eye(3), pt.as_tensor(gradient), 0.3, **options).eval()
    change = -np.log(np.diag(new))
    assert (np.abs(change - METRIC_STEP * 0.3) < 1e-9).all() == (enough < 1)
    assert np.abs(new - np.diag(np.diag(new))).max() <= 2 * MAX_METRIC_CHANGE


@pytest.mark.parametrize("parts", [True, False])
def test_scales_go_no_further_for_the_many_elements_that_pull_at_them(parts):
    """All of the gradient in one scale: its bound is that of one dimension, not of 101."""
    elements, gradient = np.arange(101) > 0, np.zeros((2, 101))
    gradient[:, 0] = 1e6
    start, log_variances = np.zeros((2, 101)), np.log([0.04, 1.0])
    inputs = [pt.as_tensor(x) for x in (start, gradient, log_variances, np.full(101, 2.0))]
    options = {"elements": elements} if parts else {}
    new = StepRule().new_means(*inputs, 0.3, **options).eval()
    widths = 2 * np.exp(log_variances / 2)  # of the components in z
    expected = -MAX_MEAN_SHIFT * widths * (1 if parts else np.sqrt(101))
    np.testing.assert_allclose(new[:, 0], expected)
    np.testing.assert_array_equal(new[:, 1:], 0)
    small = 1e-3 * np.random.default_rng(1).normal(size=(2, 101))  # what is short is not cut
    inputs[1] = pt.as_tensor(small)
    new = StepRule().new_means(*inputs, 0.3, **options).eval()
    np.testing.assert_allclose(new, -0.3 * 2 * np.exp(log_variances)[:, None] * small)
