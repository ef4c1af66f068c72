r"""A shear of coordinates, which holds correlations of a few of them with each other and with all.

.. math:: x = G y = y + W y_g

g are n places, and W (d, n) is strictly lower triangular in their rows. No volume changes.
Functions take and return NumPy arrays or PyTensor variables.
"""

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.linalg import solve


class Shear(NamedTuple):
    """The map, and what it does to a Gaussian with a diagonal metric."""

    places: np.ndarray  # g, (n,) integers
    matrix: Any  # W, (d, n)

    def apply(self, points: Values) -> Values:
        """Map y (..., d) to x."""
        return points + points[..., self.places] @ self.matrix.T

    def undo(self, points: Values) -> Values:
        """Map x (..., d) to y."""
        own = self._own(points.dtype)
        if isinstance(points, np.ndarray):
            straight = np.linalg.solve(own, points[..., self.places].T).T
        else:
            straight = solve(own, points[..., self.places])
        return points - straight @ self.matrix.T

    def pull_back(self, gradient: Values) -> Values:
        """Turn a gradient in x (S, d) into that in y."""
        return _added(gradient, self.places, gradient @ self.matrix)

    def push(self, gradient: Values) -> Values:
        """Turn a gradient in y (S, d), an array, into that in x."""
        of_places = np.linalg.solve(self._own(gradient.dtype).T, (gradient @ self.matrix).T).T
        return _added(gradient, self.places, -of_places)

    def deviations(self, scales: Values) -> Values:
        """Return standard deviations (d,) of x, given those of independent y."""
        return np.sqrt(scales**2 + self.matrix**2 @ scales[self.places] ** 2)

    def precisions(self, scales: Values) -> Values:
        """Diagonal (d,) of the precision of x, given standard deviations of independent y."""
        columns = -self.matrix @ np.linalg.inv(self._own(scales.dtype))
        columns[self.places] += np.eye(len(self.places))
        precisions = 1 / scales**2
        precisions[self.places] = (columns**2 / scales[:, None] ** 2).sum(axis=0)
        return precisions

    def scaled(self, factors: Values) -> "Shear":
        """Return the shear W' for which x with rows scaled by factors (d,) has scaled y, too."""
        return self._replace(matrix=factors[:, None] * self.matrix / factors[self.places])

    def _own(self, dtype):
        return self.matrix[self.places] + np.eye(len(self.places), dtype=dtype)


def _added(values, places, more):
    """Add to some columns."""
    if not isinstance(values, np.ndarray):
        return pt.inc_subtensor(values[:, places], more)
    values = values.copy()
    values[:, places] += more
    return values
