r"""Pseudo-observations by regression on draws, for PyTensor variables and NumPy arrays alike.

For Gaussian data, the slope of the log density in :math:`\theta` is :math:`c (m - \theta)`. The
remainder of the gradient at the draws shows how c and m have to change. This is exact for Gaussian
data. For others, by Stein's lemma, c becomes the mean precision of the data.
"""

from collections.abc import Sequence

import numpy as np

from pymc_isomix.backend.arrays import Values, operations

TINY = 1e-30
RIDGE = 0.01  # of the information in the draws
LEAST_RATIO, LARGEST_RATIO = 0.1, 100.0  # of a precision, per regression
LARGEST_MOVE = 3.0  # of m, in typical standard deviations of theta
LARGEST_LOG_PRECISION = 14.0  # of either sign


def least_squares(
    slope: tuple[Values, Values, Values],
    log_precision: Values,
    draw_weights: Values,
    noise: float | np.ndarray = 1.0,
) -> tuple[Values, Values, Values]:
    r"""Regress the remaining slope of the log likelihood on :math:`\theta`.

    Parameters
    ----------
    slope : left, weight and theta, each (S, n)
        The slope times the weight; the weight, the variance of :math:`\theta` given the rest;
        and :math:`\theta` - m.
    log_precision : (n,)
        Log c.
    noise : (n,), optional
        The typical one. Where pseudo-observations are precise in its units, the weight is the
        variance divided by the square of the noise at the draw.

    Returns
    -------
    change, move, variance : (n,)
        Changes of log c and of m, and the mean weight.
    """
    left, weight, theta = slope
    ops = operations(left)
    precision, weight = ops.exp(log_precision) / noise**2, weight * noise**2
    total = draw_weights @ weight + TINY
    centre = draw_weights @ (weight * theta) / total
    apart = theta - centre
    b = -(draw_weights @ (left * apart)) / (
        draw_weights @ (weight * apart**2) + RIDGE * total**2 + TINY
    )
    ratio = ops.clip(1 + b / precision, LEAST_RATIO, LARGEST_RATIO)
    a = draw_weights @ left / total + precision * (ratio - 1) * centre
    return ops.log(ratio), a / (precision * ratio + RIDGE / total), total


def newton_step(
    slope: tuple[np.ndarray, np.ndarray, np.ndarray],
    own: Sequence,
    damping: float,
    noise: float | np.ndarray = 1.0,
    distance: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Take a damped and bounded step of log c and m, with arrays (n,).

    m may move by the ``distance`` (n,) in addition.
    """
    n_draws = len(slope[0])
    change, move, variance = least_squares(slope, own[0], np.full(n_draws, 1 / n_draws), noise)
    return bounded(own, change, move, variance, damping, distance)


def bounded(
    own: Sequence,
    change: np.ndarray,
    move: np.ndarray,
    variance: np.ndarray,
    damping: float,
    distance: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Add part of a change of log c and m, within bounds."""
    largest = LARGEST_MOVE * np.sqrt(variance) + distance
    new = np.clip(own[0] + damping * change, -LARGEST_LOG_PRECISION, LARGEST_LOG_PRECISION)
    return new, own[1] + damping * np.clip(move, -largest, largest)
