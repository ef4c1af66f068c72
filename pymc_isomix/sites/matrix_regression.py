r"""Pseudo-observations of sites with matrices, by regression on a batch of draws, in NumPy.

With :math:`\theta = f + G \zeta`, :math:`H = G L^{-T}` and :math:`L L^T = I + G^T C G`, the
remainder of the gradient is

.. math:: \nabla_y \log p + y = H^T (a - b \circ (\theta - m))

for data that are Gaussian and independent in :math:`\theta`. Least squares give a and b of all rows
together; c becomes c + b, and m moves by a / (c + b). For elementwise sites see
:mod:`pymc_isomix.sites.regression`.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.sites.regression import (
    LARGEST_LOG_PRECISION,
    LARGEST_MOVE,
    LARGEST_RATIO,
    LEAST_RATIO,
    RIDGE,
    TINY,
    bounded,
)

LEAST_SHARE = 1e-3  # of the precision of a row of a predictor: what its data add at least
MOST_ROWS = 1000  # of a matrix: above, joint equations of all rows would cost too much


class Conditional(NamedTuple):
    """The Gaussian conditional of the standardised effects at S draws, of B blocks."""

    root: np.ndarray  # (S, B, n, n) L
    mean: np.ndarray  # (S, B, n) of zeta

    @classmethod
    def of(
        cls, location: np.ndarray, factor: np.ndarray, log_precision: np.ndarray, value: np.ndarray
    ) -> "Conditional":
        """Condition on pseudo-observations (B, r), given f (S, B, r) and G (S, B, r, n).

        All is NaN where G at a draw is so large that rounding makes the precision singular.
        """
        weighted = factor.mT * np.exp(log_precision)[:, None, :]
        pull = weighted @ (value - location)[..., None]
        return cls.from_information(weighted @ factor, pull[..., 0])

    @classmethod
    def from_information(cls, precision: np.ndarray, pull: np.ndarray) -> "Conditional":
        """Condition on the information G^T C G (S, B, n, n) and G^T C (m - f) (S, B, n)."""
        precision = np.eye(precision.shape[-1]) + precision
        try:
            root = np.linalg.cholesky(precision)
        except np.linalg.LinAlgError:
            return cls(np.full_like(precision, np.nan), np.full_like(pull, np.nan))
        return cls(root, np.linalg.solve(precision, pull[..., None])[..., 0])

    def effect(self, y: np.ndarray) -> np.ndarray:
        """Map y (S, B, n) to the standardised effects."""
        return self.mean + np.linalg.solve(self.root.mT, y[..., None])[..., 0]

    def coordinates(self, effect: Any) -> Any:
        """Map standardised effects (S, B, n) back to y."""
        return (self.root.mT @ (effect - self.mean)[..., None])[..., 0]


def learn(
    y: Any, gradient: np.ndarray, location: Any, factor: Any, own: Any, damping: float = 1.0
) -> Any:
    """Regress the gradient of a site's log density on its rows.

    Parameters
    ----------
    location : (S, B, r) array
        f.
    factor : (S, B, r, n) array
        G.

    Returns
    -------
    log_precision, value : (B, r) array
        The new pseudo-observations.
    """
    log_precision, value = own
    given = Conditional.of(location, factor, *own)
    theta = location + (factor @ given.effect(y)[..., None])[..., 0] - value  # minus m
    half = np.linalg.solve(given.root, factor.mT)  # (S, B, n, r), H^T
    left = gradient + y
    new = [
        _of_block(half[:, b], theta[:, b], left[:, b], (log_precision[b], value[b]), damping)
        for b in range(len(value))
    ]
    return np.stack([part[0] for part in new]), np.stack([part[1] for part in new])


def _of_block(half, theta, left, own, damping):
    """Solve the least squares of one block: half (S, n, r), theta (S, r) and left (S, n)."""
    n_draws, n_columns, n_rows = half.shape
    design = half.reshape(-1, n_rows)
    sloped = -design * np.repeat(theta, n_columns, axis=0)
    both = np.concatenate([design, sloped], axis=1)  # of a and of b
    normal = both.T @ both / n_draws
    total = np.diagonal(normal)[:n_rows] + TINY  # mean variance of theta
    ridge = np.concatenate([RIDGE * total, RIDGE * total**2]) + TINY
    normal[np.diag_indices_from(normal)] += ridge
    solved = scipy.linalg.solve(normal, both.T @ left.ravel() / n_draws, assume_a="pos")
    a, b = solved[:n_rows], solved[n_rows:]
    precision, centre = np.exp(own[0]), theta.mean(axis=0)
    ratio = np.clip(1 + b / precision, LEAST_RATIO, LARGEST_RATIO)
    # if b is bounded, the slope at the centre stays
    a = a + (precision * (ratio - 1) - b) * centre
    move = a / (precision * ratio + RIDGE / total)
    return bounded(own, np.log(ratio), move, total, damping)


def moved(y: Any, location: Any, factor: Any, old: Any, new: Any) -> Any:
    """Map y (S, B, n) of old pseudo-observations (log c, m) to y of the same z with new ones."""
    effect = Conditional.of(location, factor, *old).effect(y)
    return Conditional.of(location, factor, *new).coordinates(effect)


def unit_change(location: Any, factor: Any, old: Any, new: Any) -> Any:
    """Typical factor (B, n) by which the unit of y shrinks from old to new pseudo-observations."""
    before, after = (Conditional.of(location, factor, *own).root for own in (old, new))
    diagonals = [np.diagonal(root, axis1=-2, axis2=-1) for root in (before, after)]
    return np.median(diagonals[1] / diagonals[0], axis=0)


def learn_rows(
    theta: np.ndarray, slope: np.ndarray, own: tuple[np.ndarray, np.ndarray], damping: float
) -> tuple[np.ndarray, np.ndarray]:
    """Regress the slope of the log likelihood in each row on the row itself.

    Parameters
    ----------
    theta, slope : (S, B, r) array
    own : (B, r) arrays
        Log c and m.

    Returns
    -------
    log_precision, value : (B, r) array
        The new pseudo-observations. A row on which the data have no slope keeps its own.
    """
    log_precision, value = own
    centre, variance = theta.mean(axis=0), theta.var(axis=0)
    precision = -(slope * (theta - centre)).mean(axis=0) / (variance + TINY)
    precision = np.maximum(precision, LEAST_SHARE / (variance + TINY))
    change = np.log(np.clip(precision / np.exp(log_precision), LEAST_RATIO, LARGEST_RATIO))
    move = centre + slope.mean(axis=0) / precision - value
    is_row = variance > 0
    change, move = (damping * np.where(is_row, part, 0.0) for part in (change, move))
    new = np.clip(log_precision + change, -LARGEST_LOG_PRECISION, LARGEST_LOG_PRECISION)
    # of one row, whose data lie farther from it than all data together
    largest = LARGEST_MOVE * np.exp(-0.5 * new)
    return new, value + np.clip(move, -largest, largest)
