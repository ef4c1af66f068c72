"""Less noise from minibatches: what they say at a point where all the data are known."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad


@dataclass(frozen=True, eq=False)
class Anchor:
    r"""Control variate of the log density of a minibatch, in shared variables.

    .. math:: \log \hat p(y) + [\log p - \log \hat p](y_0)
        + (y - y_0) \cdot [\nabla \log p - \nabla \log \hat p](y_0)

    has the expectation of the minibatch's :math:`\log \hat p(y)` and little of its noise where y is
    near :math:`y_0`. Coordinates y, whose log Jacobian is part of both densities; the anchor itself
    stays where it is in unconstrained space while the coordinates are learned.

    Parameters
    ----------
    point : (d,)
        The anchor :math:`z_0`, unconstrained space.
    log_density : scalar
        Of all the data, at the anchor.
    gradient : (d,)
        Its gradient in z.
    is_set : scalar
        0 until there is an anchor, then 1.

    References
    ----------
    .. [1] Johnson and Zhang (2013), Accelerating stochastic gradient descent using predictive
       variance reduction.
    """

    point: Any
    log_density: Any
    gradient: Any
    is_set: Any

    @classmethod
    def allocate(cls, n_dim, dtype):
        """Make the shared variables, of no anchor yet."""
        shapes = {"point": (n_dim,), "log_density": (), "gradient": (n_dim,), "is_set": ()}
        return cls(
            **{
                field.name: pytensor.shared(
                    np.zeros(shapes[field.name], dtype), field.name, shape=shapes[field.name]
                )
                for field in fields(cls)
            }
        )

    def move(self, point, log_density, gradient):
        """Put the anchor elsewhere, unless something there is not finite."""
        values = {"point": point, "log_density": log_density, "gradient": gradient, "is_set": 1.0}
        if not all(np.isfinite(value).all() for value in values.values()):
            return
        for name, value in values.items():
            shared = getattr(self, name)
            shared.set_value(np.asarray(value, dtype=shared.dtype))

    def at(self, coordinates, pseudo):
        """Return the anchor y (d,), and log density and gradient (d,) of all the data there."""
        if not coordinates:
            return self.point, self.log_density, self.gradient
        values, *_ = coordinates.backward(self.point, pseudo)
        point = disconnected_grad(_flat(coordinates, values))
        values, log_determinant, _ = coordinates.forward(point, pseudo)
        rest = log_determinant + _flat(coordinates, values) @ self.gradient
        return point, self.log_density + log_determinant, pytensor.grad(rest, point)

    def correct(self, points, at_anchor, log_density, gradient):
        """Correct values of a minibatch at points y (S, d) and, behind them, the anchor."""
        anchor, level, slope = at_anchor
        is_set = pt.gt(self.is_set, 0)
        slope = pt.switch(is_set, slope - gradient[-1], 0.0)
        level = pt.switch(is_set, level - log_density[-1], 0.0)
        return log_density[:-1] + level + (points - anchor) @ slope, gradient[:-1] + slope


def _flat(coordinates, values):
    return pt.concatenate([values[name].ravel() for name in coordinates.space.ordering])
