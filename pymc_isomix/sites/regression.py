r"""Pseudo-observations by regression on a batch of draws, in NumPy.

Of Gaussian data the slope of the log density in :math:`\theta` is :math:`c (m - \theta)`. What the
gradient at the draws leaves of that tells how c and m have to change, exactly where the data are
Gaussian; else, by Stein's lemma, c becomes the mean precision of the data. The same regression
as :func:`pymc_isomix.sites.learning.regression` has for one step, with the step of Newton.
"""

import numpy as np

from pymc_isomix.sites.elementwise import TINY

RIDGE = 0.01  # of the information that the draws have
LEAST_RATIO, LARGEST_RATIO = 0.1, 100.0  # of a precision, in one regression
LARGEST_MOVE = 3.0  # of m, in typical standard deviations of theta
LARGEST_LOG_PRECISION = 14.0  # of either sign


def learn(y, gradient, given, own, damping=1.0):
    """Regress the gradient of an elementwise site's log density on its elements.

    Parameters
    ----------
    y, gradient : (S, n) array
        Draws in coordinates y, and the gradient of the log density there.
    given : tuple of arrays
        What is given at the site: location f and scale g of its elements, (S, n) or (n,), first.
    own : log c and m, (n,) arrays
    damping : float
        Part of the step that is taken, 0 to 1.

    Returns
    -------
    log_precision, value : (n,) array
        The new pseudo-observations.
    """
    location, scale = (np.broadcast_to(part, y.shape) for part in given[:2])
    log_precision, value = own
    precision = np.exp(log_precision)
    odds = precision * scale**2
    unit = scale / np.sqrt(1 + odds)  # of theta, that of y
    theta = (location - value) / (1 + odds) + unit * y  # less m
    return least_squares(unit * (gradient + y), unit**2, theta, own, damping)


def least_squares(left, weight, theta, own, damping=1.0):
    r"""Regress what is left of the slope of the log likelihood on :math:`\theta`.

    Parameters
    ----------
    left, weight, theta : (S, n) array
        The slope times the weight; the weight; and :math:`\theta` - m.
    own : log c and m, (n,) arrays
    damping : float
        Part of the step that is taken, 0 to 1.

    Returns
    -------
    log_precision, value : (n,) array
        The new pseudo-observations.
    """
    log_precision, value = own
    precision = np.exp(log_precision)
    total = weight.mean(axis=0) + TINY
    centre = (weight * theta).mean(axis=0) / total
    apart = theta - centre
    slope = (left * apart).mean(axis=0)
    b = -slope / ((weight * apart**2).mean(axis=0) + RIDGE * total**2 + TINY)
    ratio = np.clip(1 + b / precision, LEAST_RATIO, LARGEST_RATIO)
    a = left.mean(axis=0) / total + precision * (ratio - 1) * centre
    typical = np.sqrt(total)
    move = np.clip(
        a / (precision * ratio + RIDGE / total), -LARGEST_MOVE * typical, LARGEST_MOVE * typical
    )
    new = np.clip(
        log_precision + damping * np.log(ratio), -LARGEST_LOG_PRECISION, LARGEST_LOG_PRECISION
    )
    return new, value + damping * move


def moved(y, given, old, new):
    """Map y (S, n) of old pseudo-observations (log c, m) to y of the same z under new ones."""
    shift, root = _posterior(given, *old)
    new_shift, new_root = _posterior(given, *new)
    return (shift + y / root - new_shift) * new_root


def unit_change(given, old, new):
    """Typical factor (n,) by which the unit of y shrinks from old to new pseudo-observations."""
    return np.median(_posterior(given, *new)[1] / _posterior(given, *old)[1], axis=0)


def _posterior(given, log_precision, value):
    """Mean, and inverse standard deviation, of the standardised elements given c and m."""
    location, scale = given[:2]
    precise = np.exp(log_precision) * scale
    odds = precise * scale
    return precise * (value - location) / (1 + odds), np.sqrt(1 + odds)
