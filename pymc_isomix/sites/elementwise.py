r"""Sites: coordinates in which the effects of a hierarchy do not depend on their scale.

A site is a block z of unconstrained space whose effect :math:`\theta` has, given the rest, a prior
with known location and scale: :math:`\theta = f + g \zeta` elementwise, or :math:`\theta = f + G
\zeta`, with :math:`\zeta` standardised. A *pseudo-observation* of each element of :math:`\theta` is
a value m with precision c, both learned. y is :math:`\zeta` standardised by its mean and standard
deviation given the pseudo-observations. c = 0 is the non-centred parametrisation, and :math:`c \to
\infty` the centred one.

Pure functions of PyTensor variables, for one point or, with leading axes, many.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values, operations
from pymc_isomix.backend.jax_ops import compute_once
from pymc_isomix.backend.linalg import diagonal, solve
from pymc_isomix.sites.forms import Form
from pymc_isomix.sites.regression import TINY, newton_step


class Elementwise(Form):
    r"""Independent elements, :math:`\theta = f + g \zeta`.

    .. math:: \zeta = \frac{c g (m - f)}{1 + c g^2} + \frac{y}{\sqrt{1 + c g^2}},
        \qquad z = a + b \zeta

    What is given of each element, arrays (..., n): ``location`` f and ``scale`` g of
    :math:`\theta`, and ``prior_location`` a and ``prior_scale`` b of z: equal to f and g in a
    centred model, and 0 and 1 in a non-centred one.

    Parameters
    ----------
    n : int
        Elements.
    """

    is_elementwise = True
    n_learned_from = 2  # number of given values that a regression needs

    def __init__(self, n: int) -> None:
        self.n_dim = self.n_pseudo = n

    def to_unconstrained(
        self, y: Values, given: Sequence, log_precision: Values, value: Values
    ) -> tuple[Values, Values]:
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        _, _, prior_location, prior_scale = given
        shift, root, _ = self._posterior(given, log_precision, value)
        log_determinant = pt.log(pt.abs(prior_scale / root)).sum(axis=-1)
        return prior_location + prior_scale * (shift + y / root), log_determinant

    def to_coordinates(
        self, z: Values, given: Sequence, log_precision: Values, value: Values
    ) -> Values:
        """Map z (..., n) back to y (..., n)."""
        _, _, prior_location, prior_scale = given
        shift, root, _ = self._posterior(given, log_precision, value)
        return ((z - prior_location) / prior_scale - shift) * root

    def share(self, given: Sequence, log_precision: Values, value: Values) -> Values:
        r"""Share of the pseudo-observation, :math:`c g^2 / (1 + c g^2)`; 0 is non-centred."""
        return self._posterior(given, log_precision, value)[2]

    def deviation(self, given: Sequence, log_precision: Values, value: Values) -> Values:
        r"""Return the standard deviation of :math:`\theta` given the pseudo-observation."""
        return pt.abs(given[1]) / self._posterior(given, log_precision, value)[1]

    def typical(self, given: Sequence) -> tuple[np.ndarray, np.ndarray]:
        """Typical location and log scale of the elements, (n,) arrays each, from K points."""
        location, scale = np.asarray(given[0]), np.abs(np.asarray(given[1]))
        return np.median(location, axis=0), np.median(np.log(np.maximum(scale, TINY)), axis=0)

    def pullback(
        self, y: Values, given: Sequence, log_precision: Values, value: Values, cotangent: Values
    ) -> tuple[Values, Values]:
        r"""Gradient of :math:`\langle` cotangent, y(z) :math:`\rangle` in log c and m, z fixed.

        .. math:: \partial y / \partial \log c = \tfrac12 s y - \zeta_0 / r, \qquad
            \partial y / \partial m = -s r / g

        with the share s, the mean :math:`\zeta_0` of :math:`\zeta`, and :math:`r = \sqrt{1 + c
        g^2}`. Summed over all axes but the last.
        """
        shift, root, share = self._posterior(given, log_precision, value)
        by_log_precision = cotangent * (0.5 * share * y - shift / root)
        # s r / g = c g / r, which is finite at g = 0
        by_value = -cotangent * pt.exp(log_precision) * given[1] / root
        return by_log_precision.sum(axis=0), by_value.sum(axis=0)

    def slope(
        self, y: Values, gradient: Values, given: Sequence, log_precision: Values, value: Values
    ) -> tuple[Values, Values, Values]:
        r"""Return the slope of the data without the pseudo-observations, for a regression.

        The remainder :math:`e = \nabla_y \log p + y` shows how the slope of the log likelihood in
        :math:`\theta` differs from :math:`c (m - \theta)`: :math:`e = (g / r) (a - b (\theta -
        m))`, with a and b by least squares. c then becomes c + b, and m moves by a / (c + b).

        Returns
        -------
        left, weight, theta : (S, n)
            The slope times the variance of :math:`\theta`; that variance; and :math:`\theta` - m.
        """
        location, scale = given[:2]
        _, root, _ = self._posterior(given, log_precision, value)
        unit = scale / root  # unit of y, in theta
        return unit * (gradient + y), unit**2, (location - value) / root**2 + unit * y

    def learn(
        self,
        y: np.ndarray,
        gradient: np.ndarray,
        given: Sequence,
        own: Sequence,
        damping: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Learn log c and m, (n,) arrays, from draws y (S, n); all are NumPy arrays."""
        return newton_step(self.slope(y, gradient, given, *own), own, damping)

    def moved(self, y: np.ndarray, given: Sequence, old: Sequence, new: Sequence) -> np.ndarray:
        """Map y (S, n), an array, to y of the same z under other pseudo-observations."""
        shift, root, _ = self._posterior(given, *old)
        new_shift, new_root, _ = self._posterior(given, *new)
        return (shift + y / root - new_shift) * new_root

    def unit_change(self, given: Sequence, old: Sequence, new: Sequence) -> np.ndarray:
        """Typical factor (n,) by which the unit of y shrinks, with arrays."""
        before, after = (self._posterior(given, *own)[1] for own in (old, new))
        return np.median(after / before, axis=0)

    def _posterior(self, given, log_precision, value):
        location, scale = given[:2]
        ops = operations(log_precision)
        precise = ops.exp(log_precision) * scale
        odds = precise * scale
        shift = precise * (value - location) / (1 + odds)
        return shift, ops.sqrt(1 + odds), odds / (1 + odds)


class Rotated(Elementwise):
    r"""Correlated elements that are independent in a constant basis.

    In :math:`\theta = f + s A \zeta`, the matrix :math:`A = U S V^T` is constant and s is a scale.
    In the basis of U, :math:`\theta` is elementwise, with location :math:`U^T f` and scale s S. z
    is rotated back by V, or by U if z is :math:`\theta` itself. A field on a graph, or a Gaussian
    process with a known length scale, costs one matrix product.

    Parameters
    ----------
    basis : (n, n) array
        Its columns are directions of z.
    inverse : (n, n) array, optional
        Inverse of the basis; its transpose by default, for an orthogonal basis.
    """

    pseudo_names = "direction"

    def __init__(self, basis: np.ndarray, inverse: Any = None) -> None:
        super().__init__(len(basis))
        self.basis = basis
        self.inverse = basis.T if inverse is None else inverse
        self.log_determinant = 0.0 if inverse is None else np.linalg.slogdet(basis)[1]

    def to_unconstrained(
        self, y: Values, given: Sequence, log_precision: Values, value: Values
    ) -> tuple[Values, Values]:
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        rotated, log_determinant = super().to_unconstrained(y, given, log_precision, value)
        log_determinant += np.asarray(self.log_determinant, dtype=y.dtype)
        # an XLA kernel with more than the product in it is slower than two kernels
        rotated = compute_once(rotated)
        return compute_once(rotated @ self.basis.T.astype(y.dtype)), log_determinant

    def to_coordinates(
        self, z: Values, given: Sequence, log_precision: Values, value: Values
    ) -> Values:
        """Map z (..., n) back to y (..., n)."""
        rotated = z @ self.inverse.T.astype(z.dtype)
        return super().to_coordinates(rotated, given, log_precision, value)


class Whitened(Rotated):
    r"""Correlated elements z = f + G :math:`\zeta` with elementwise noise in a constant basis.

    In addition to the values of an elementwise site, ``mean`` f (..., n) and ``factor`` G (..., n,
    n), lower triangular, are given. It costs as much as a matrix site without its Cholesky factor.
    """

    def to_unconstrained(
        self, y: Values, given: Sequence, log_precision: Values, value: Values
    ) -> Any:
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        *own, mean, factor = given
        zeta, log_determinant = super().to_unconstrained(y, own, log_precision, value)
        log_determinant += pt.log(pt.abs(diagonal(factor))).sum(axis=-1)
        return mean + (factor @ zeta[..., None])[..., 0], log_determinant

    def to_coordinates(
        self, z: Values, given: Sequence, log_precision: Values, value: Values
    ) -> Any:
        """Map z (..., n) back to y (..., n)."""
        *own, mean, factor = given
        return super().to_coordinates(solve(factor, z - mean), own, log_precision, value)
