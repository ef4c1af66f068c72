"""Less noise from minibatches, by their error at a point where all data are evaluated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from pymc_isomix.backend.arrays import Values, shared_arrays
from pymc_isomix.family import metric as metrics

MEMORY = 0.9  # of the running products that decide whether the correction helps


@dataclass(frozen=True, eq=False)
class Anchor:
    r"""Control variate of the log density of a minibatch, in shared variables.

    .. math:: \log \hat p(y) + [\log p - \log \hat p](y_0)
        + (y - y_0) \cdot [\nabla \log p - \nabla \log \hat p](y_0)

    has the expectation of the minibatch's :math:`\log \hat p(y)` and little of its noise if y is
    near :math:`y_0`. In a strongly curved model, such as a neural network, the errors of the
    minibatch at the draws and at :math:`y_0` differ, and the correction would add noise. It is made
    only if it removes noise: if the gradients at the draws contain more than half of the error at
    the anchor, :math:`\delta = [\nabla \log \hat p - \nabla \log p](y_0)`, which means
    :math:`\langle \nabla \log \hat p(y), \delta \rangle > \tfrac12 \langle \delta, \delta \rangle`
    in whitened coordinates, on average over earlier steps. Earlier steps leave the expectation
    unchanged.

    The formula is in coordinates y, whose log Jacobian is part of both densities. The anchor itself
    stays fixed in unconstrained space while the coordinates are learned.

    Parameters
    ----------
    point : (d,)
        The anchor :math:`z_0`, unconstrained space.
    log_density : scalar
        Log density of all data at the anchor.
    gradient : (d,)
        Its gradient in z.
    is_set : scalar
        0 until there is an anchor, then 1.
    products : (2,)
        Running means of both inner products; 0 before the first step.

    References
    ----------
    .. [1] Johnson and Zhang (2013), Accelerating stochastic gradient descent using predictive
       variance reduction.
    """

    point: Any
    log_density: Any
    gradient: Any
    is_set: Any
    products: Any

    @classmethod
    def allocate(cls, n_dim: int, dtype: str) -> "Anchor":
        """Make the shared variables, without an anchor yet."""
        of_point, one = np.zeros(n_dim, dtype), np.zeros((), dtype)
        first = {"point": of_point, "log_density": one, "gradient": of_point, "is_set": one}
        return cls(**shared_arrays({**first, "products": np.zeros(2, dtype)}))

    def move(self, point: np.ndarray, log_density: float, gradient: np.ndarray) -> None:
        """Move the anchor, unless something there is not finite."""
        values: dict = {
            "point": point,
            "log_density": log_density,
            "gradient": gradient,
            "is_set": 1.0,
        }
        if not all(np.isfinite(value).all() for value in values.values()):
            return
        for name, value in values.items():
            shared = getattr(self, name)
            shared.set_value(np.asarray(value, dtype=shared.dtype))

    def at(self, coordinates: Any, parameters: Any) -> tuple[Values, Values, Values]:
        """Return the anchor y (d,), and the log density and gradient (d,) of all data there."""
        if not coordinates:
            return self.point, self.log_density, self.gradient
        values, *_ = coordinates.backward(self.point, parameters)
        point = disconnected_grad(_flat(coordinates, values))
        values, log_determinant, _ = coordinates.forward(point, parameters)
        rest = log_determinant + _flat(coordinates, values) @ self.gradient
        return point, self.log_density + log_determinant, pytensor.grad(rest, point)

    def correct(
        self,
        points: Values,
        at_anchor: tuple[Values, Values, Values],
        log_density: Values,
        gradient: Values,
        metric: Values,
    ) -> tuple[Values, Values, dict]:
        """Correct the values of a minibatch at points y (S, d), the last of which is the anchor.

        Returns
        -------
        log_density, gradient : (S,) and (S, d)
        updates : dict of shared variable to TensorVariable
        """
        anchor, level, slope = at_anchor
        is_set = pt.gt(self.is_set, 0)
        slope = pt.switch(is_set, slope - gradient[-1], 0.0)
        level = pt.switch(is_set, level - log_density[-1], 0.0)
        both = pt.stack(
            [gradient[:-1].mean(axis=0), -slope]
        )  # at the draws, and the error at the anchor
        both = metrics.whiten_gradient(metric, both)
        now = both @ both[1]
        known = is_set & pt.isfinite(now).all()
        products = pt.switch(known, MEMORY * self.products + (1 - MEMORY) * now, self.products)
        helps = pt.ge(self.products[0], 0.5 * self.products[1])
        level, slope = pt.switch(helps, level, 0.0), pt.switch(helps, slope, 0.0)
        corrected = log_density[:-1] + level + (points - anchor) @ slope
        return corrected, gradient[:-1] + slope, {self.products: products}


def _flat(coordinates, values):
    return pt.concatenate([values[name].ravel() for name in coordinates.space.ordering])
