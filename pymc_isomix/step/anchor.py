"""Less noise from minibatches: what they say at a point where all the data are known."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt


@dataclass(frozen=True, eq=False)
class Anchor:
    r"""Control variate of the log density of a minibatch, in shared variables.

    .. math:: \log \hat p(z) + [\log p - \log \hat p](z_0)
        + (z - z_0) \cdot [\nabla \log p - \nabla \log \hat p](z_0)

    has the expectation of the minibatch's :math:`\log \hat p(z)` and little of its noise where z is
    near :math:`z_0`.

    Parameters
    ----------
    point : (d,)
        The anchor :math:`z_0`, unconstrained space.
    log_density : scalar
        Of all the data, at the anchor.
    gradient : (d,)
        Its gradient.
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

    def lift(self):
        """Forget the anchor."""
        for field in fields(self):
            shared = getattr(self, field.name)
            shared.set_value(np.zeros_like(shared.get_value()))

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

    def correct(self, points, log_density, gradient):
        """Correct values of the same minibatch at points (S, d) and, behind them, the anchor."""
        is_set = pt.gt(self.is_set, 0)
        slope = pt.switch(is_set, self.gradient - gradient[-1], 0.0)
        level = pt.switch(is_set, self.log_density - log_density[-1], 0.0)
        return log_density[:-1] + level + (points - self.point) @ slope, gradient[:-1] + slope
