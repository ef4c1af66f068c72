"""Bounds of a step: what a dense metric does with few draws."""

import numpy as np
import pytensor.tensor as pt
import pytest

from pymc_isomix.step.bounds import MAX_METRIC_CHANGE, METRIC_STEP, StepRule


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
