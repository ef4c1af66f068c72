r"""The shape of coordinates: a monotone map of each coordinate, with a left and a right tail.

.. math:: t = \frac{y - a}{b}, \qquad w = \operatorname{asinh} t, \qquad
    v = \alpha w + \beta \left(\sqrt{1 + w^2} - 1\right), \qquad
    x = a + \frac{b}{\alpha} \sinh v

with :math:`\alpha \pm \beta = e^{\text{right}}, e^{\text{left}}`. Far out x grows as
:math:`t^{e^{\text{right}}}` to the right and as :math:`|t|^{e^{\text{left}}}` to the left. An
exponent above 1 makes a tail of a Gaussian heavier, one below 1 makes it lighter. At 0 and 0 the
map is the identity. At the centre a it always keeps place and slope.

Functions take and return NumPy arrays or PyTensor variables. The map of Jones and Pewsey (2009) has
one exponent for both tails.

References
----------
.. [1] Jones and Pewsey (2009), Sinh-arcsinh distributions, Biometrika 96, 761-780.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from pymc_isomix.backend.arrays import Values, operations

LOG_2 = math.log(2)


class Shape(NamedTuple):
    """Parameters of the map, each (d,); left and right are 0 where a coordinate has no shape."""

    centre: Any  # a
    width: Any  # b, positive
    left: Any  # logarithm of the exponent of the left tail
    right: Any  # of the right tail


def identity(n_dim: int, dtype: Any = "float64") -> Shape:
    """Return the identity, as NumPy arrays."""
    zero, one = np.zeros(n_dim, dtype), np.ones(n_dim, dtype)
    return Shape(zero, one, zero, zero)


def is_shaped(shape: Shape) -> Values:
    """Tell which coordinates have a shape, (d,) booleans."""
    ops = operations(shape.left)
    return ops.not_equal(shape.left, 0) | ops.not_equal(shape.right, 0)


def bend(points: Values, shape: Shape) -> tuple[Values, Values, Values]:
    r"""Map coordinates y to x, with the logarithm of the slope of the map, and its own slope.

    Parameters
    ----------
    points : (S, d) array or TensorVariable
        Coordinates y.

    Returns
    -------
    bent : (S, d)
        Coordinates x.
    log_slope : (S, d)
        :math:`\log dx_i / dy_i`, finite as long as y is.
    slope_of_log_slope : (S, d)
        :math:`d \log (dx_i / dy_i) / dy_i`.
    """
    if (places := _few_shaped(points, shape)) is not None:
        found = points.copy(), np.zeros_like(points), np.zeros_like(points)
        for whole, part in zip(found, bend(points[..., places], _at(shape, places)), strict=True):
            whole[..., places] = part
        return found
    ops = operations(points)
    at = _Place(ops, (points - shape.centre) / shape.width, shape)
    log_slope = at.log_cosh + at.log_rate - ops.log(at.alpha) - 0.5 * at.log_square
    slope_of_log_slope = (
        (ops.tanh(at.v) * at.rate + at.bow / at.rate) * at.by_t - at.t * at.by_t**2
    ) / shape.width
    bent = shape.centre + shape.width * ops.sinh(at.v) / at.alpha
    shaped = is_shaped(shape)
    return (
        ops.where(shaped, bent, points),
        ops.where(shaped, log_slope, 0.0 * points),
        ops.where(shaped, slope_of_log_slope, 0.0 * points),
    )


def straighten(bent: Values, shape: Shape) -> Values:
    """Map coordinates x (S, d) to y (S, d), the inverse of :func:`bend`."""
    if (places := _few_shaped(bent, shape)) is not None:
        points = bent.copy()
        points[..., places] = straighten(bent[..., places], _at(shape, places))
        return points
    ops = operations(bent)
    alpha, beta, product = _exponents(ops, shape)
    v = ops.arcsinh(alpha * (bent - shape.centre) / shape.width)
    # the root of a quadratic, 0 at 0, in a form without cancellation
    shifted = v + beta
    root = ops.sqrt(shifted**2 + product)
    cancels = shifted * beta > 0
    safe = ops.where(cancels, alpha * shifted + beta * root, 1.0)
    w = ops.where(
        cancels,
        v * (v + 2 * beta) / safe,
        (alpha * shifted - beta * root) / product,
    )
    return ops.where(is_shaped(shape), shape.centre + shape.width * ops.sinh(w), bent)


def log_density_and_gradient(
    log_density: Values, gradient: Values, log_slope: Values, slope_of_log_slope: Values
) -> tuple[Values, Values]:
    r"""Turn log density (S,) and gradient (S, d) in x into those in y.

    .. math:: \log p_y(y) = \log p_x(x) + \sum_i \log \frac{dx_i}{dy_i}, \qquad
        \nabla_y \log p_y = \frac{dx}{dy} \nabla_x \log p_x + \nabla_y \sum_i \log \frac{dx_i}{dy_i}
    """
    ops = operations(log_slope)
    slope = ops.exp(log_slope)
    return log_density + log_slope.sum(axis=1), gradient * slope + slope_of_log_slope


def directions(points: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the moves of y that have the effect of a change of the parameters on x.

    .. math:: h_\phi = \frac{\partial x}{\partial \phi} \Big/ \frac{\partial x}{\partial y}, \qquad
        \phi \in \{\text{left}, \text{right}, a, \log b\}

    Parameters
    ----------
    points : (S, d) array
        Coordinates y.

    Returns
    -------
    directions : (4, S, d) array
        In units of y; that of the centre a is a number, per unit of a.
    derivatives : (4, S, d) array
        :math:`dh_\phi / dy`.
    """
    ops = operations(points)
    at = _Place(ops, (points - shape.centre) / shape.width, shape)
    tanh = ops.tanh(at.v)
    slope_of_log_slope = (tanh * at.rate + at.bow / at.rate) * at.by_t - at.t * at.by_t**2
    half = 0.5 * ops.exp(shape.left), 0.5 * ops.exp(shape.right)
    moves, derivatives = [], []
    for by_alpha, by_beta in ((half[0], -half[0]), (half[1], half[1])):
        dv = by_alpha * at.w + by_beta * at.arch
        d_rate = by_alpha + by_beta * at.w / at.root
        # sinh(v) / cosh(v), without overflow
        h = (dv - tanh * by_alpha / at.alpha) / (at.rate * at.by_t)
        d_log_slope = tanh * dv + d_rate / at.rate - by_alpha / at.alpha
        moves.append(shape.width * h)
        derivatives.append(d_log_slope - h * slope_of_log_slope)
    by_slope = 1 / (at.rate * at.by_t)
    inverse = at.alpha * ops.exp(-at.log_cosh) * by_slope  # of the slope of the map
    beyond = tanh * by_slope  # distance of x from the centre, divided by slope and width
    moves += [inverse - 1, shape.width * (beyond - at.t)]
    derivatives += [
        -inverse * slope_of_log_slope / shape.width,
        -beyond * slope_of_log_slope,
    ]
    return np.stack(moves), np.stack(derivatives)


def _few_shaped(points, shape):
    """Places of the shaped coordinates, for arrays of which some have no shape; else None."""
    if not isinstance(points, np.ndarray):
        return None
    places = np.flatnonzero(is_shaped(shape))
    return places if len(places) < points.shape[-1] else None


def _at(shape, places):
    return Shape(*(part[places] for part in shape))


class _Place:
    """Values at t that :func:`bend` and :func:`directions` share."""

    def __init__(self, ops, t, shape):
        self.alpha, beta, _ = _exponents(ops, shape)
        self.t, self.w = t, ops.arcsinh(t)
        self.root = ops.sqrt(1 + self.w**2)
        self.arch = self.w**2 / (1 + self.root)  # sqrt(1 + w^2) - 1
        self.v = self.alpha * self.w + beta * self.arch
        self.rate = self.alpha + beta * self.w / self.root  # dv / dw
        self.bow = beta / self.root**3  # its slope
        # log cosh v and log sqrt(1 + t^2), whatever their size
        self.log_cosh = abs(self.v) + ops.log1p(ops.exp(-2 * abs(self.v))) - LOG_2
        self.log_square = 2 * (abs(self.w) + ops.log1p(ops.exp(-2 * abs(self.w))) - LOG_2)
        self.log_rate = ops.log(self.rate)
        self.by_t = ops.exp(-0.5 * self.log_square)  # dw / dt


def _exponents(ops, shape):
    left, right = ops.exp(shape.left), ops.exp(shape.right)
    return 0.5 * (right + left), 0.5 * (right - left), left * right
