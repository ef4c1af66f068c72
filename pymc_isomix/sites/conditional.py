r"""The Gaussian conditional of a matrix site as one Op, with a cheap gradient.

.. math:: P = I + G^T C G = L L^T, \quad H = G L^{-T}, \quad t = H^T C (m - f), \quad
    \zeta = L^{-T} (t + y)

with :math:`C = \operatorname{diag} c`. The gradient through the Cholesky factor and the triangular
solves costs a dozen operations of order n^3. Here it costs two products, because the cotangents of
L have rank one. Products are several times as fast as triangular solves, so :math:`L^{-1}` is
formed once. This is safe because P has no eigenvalue below one.
"""

from functools import cache

import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import DisconnectedType, disconnected_type

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.jax_ops import compute_once
from pymc_isomix.backend.linalg import GAUSSIAN_MAP, inverse_of_root, lower_half, transposed


def gaussian_map(
    y: Values, location: Values, factor: Values, log_precision: Values, value: Values
) -> list[Values]:
    """Map y (B, n) of one point to the standardised effects.

    Parameters
    ----------
    y : (B, n) TensorVariable
    location : (B, r) TensorVariable
        f.
    factor : (B, r, n) TensorVariable
        G.
    log_precision, value : (B, r) TensorVariable
        Log c and m.

    Returns
    -------
    effects : (B, n)
        Zeta.
    log_determinant : scalar
        Of their map.
    inverse, pull, whitened : (B, n, n), (B, n), (B, r, n)
        The inverse of L, t and H, without a gradient, for other uses at the same point.
    """
    inputs = [y, location, factor, log_precision, value]
    return _op(tuple(variable.type for variable in inputs))(*inputs)


@cache
def _op(types):
    inputs = [type() for type in types]
    outputs = _forward(*inputs)
    return OpFromGraph(inputs, outputs, inline=True, pullback=_backward, name=GAUSSIAN_MAP)


def _forward(y, location, factor, log_precision, value):
    precision, n = pt.exp(log_precision), factor.type.shape[-1]
    weighted = compute_once(transposed(factor) * precision[..., None, :])
    inverse = inverse_of_root(compute_once(pt.eye(n) + weighted @ factor))
    whitened = factor @ inverse.mT
    pull = _times(whitened.mT, precision * (value - location))
    log_determinant = pt.log(pt.diagonal(inverse, axis1=-2, axis2=-1)).sum()
    return [_times(inverse.mT, pull + y), log_determinant, inverse, pull, whitened]


def _backward(inputs, outputs, cotangents):
    y, location, _, log_precision, value = inputs
    _, _, inverse, _, whitened = outputs
    precision, residual = pt.exp(log_precision), value - location
    q, inner = _of_root(y, outputs, cotangents)
    product = compute_once(whitened @ inner)
    of_factor = 2 * precision[..., None] * (product @ inverse)
    of_factor += _outer(precision * residual, _times(inverse.mT, q))
    seen = _times(whitened, q)
    of_precision = precision * ((product * whitened).sum(axis=-1) + residual * seen)
    if isinstance(cotangents[0].type, DisconnectedType):  # the determinant does not depend on these
        nothing = disconnected_type()
        return [nothing, nothing, of_factor, of_precision, nothing]
    return [q, -precision * seen, of_factor, of_precision, precision * seen]


def _of_root(y, outputs, cotangents):
    """Cotangents of y, and of P between the inverses of L."""
    inverse, pull = outputs[2:4]
    of_effects, of_determinant = (
        pt.zeros_like(output) if isinstance(cotangent.type, DisconnectedType) else cotangent
        for output, cotangent in zip(outputs[:2], cotangents[:2], strict=True)
    )
    q = _times(inverse, of_effects)
    n = inverse.type.shape[-1]
    half = lower_half(_outer(y, q)) + _outer(q, pull)
    inner = half + half.mT + of_determinant * pt.eye(n)
    return q, -inner / 2


def conditional_map(y: Values, precision: Values, pull: Values) -> list[Values]:
    r"""Map y (B, n) of one point, given the information of the pseudo-observations on zeta.

    Parameters
    ----------
    y : (B, n) TensorVariable
    precision : (B, n, n) TensorVariable
        :math:`G^T C G`.
    pull : (B, n) TensorVariable
        :math:`G^T C (m - f)`.

    Returns
    -------
    effects, log_determinant, inverse, pull : as of :func:`gaussian_map`
    """
    inputs = [y, precision, pull]
    return _conditional_op(tuple(variable.type for variable in inputs))(*inputs)


@cache
def _conditional_op(types):
    y, precision, pull = inputs = [type() for type in types]
    n = precision.type.shape[-1]
    inverse = inverse_of_root(compute_once(pt.eye(n) + precision))
    pull = _times(inverse, pull)
    log_determinant = pt.log(pt.diagonal(inverse, axis1=-2, axis2=-1)).sum()
    outputs = [_times(inverse.mT, pull + y), log_determinant, inverse, pull]
    return OpFromGraph(
        inputs, outputs, inline=True, pullback=_conditional_backward, name=f"{GAUSSIAN_MAP}_given"
    )


def _conditional_backward(inputs, outputs, cotangents):
    inverse = outputs[2]
    q, inner = _of_root(inputs[0], outputs, cotangents)
    of_precision = compute_once(transposed(inverse) @ inner) @ inverse
    if isinstance(cotangents[0].type, DisconnectedType):
        return [disconnected_type(), of_precision, disconnected_type()]
    return [q, of_precision, _times(inverse.mT, q)]


def for_pullback(y: Values, pull: Values, whitened: Values) -> tuple[Values, Values, Values]:
    r"""Prepare values for :func:`gaussian_pullback`, and the variances of the effects.

    The sums over matrices are made here, for one point at a time, except for the cotangent: with
    :math:`\Phi` the lower triangle with half of the diagonal, :math:`h^T \Phi(y s^T) h` is linear
    in s.

    Parameters
    ----------
    y, pull : (B, n) TensorVariable
    whitened : (B, r, n) TensorVariable
        H, a row h for each effect.

    Returns
    -------
    variance, fitted : (B, r)
        The variances :math:`|h|^2` of the effects, and their means minus the location, H t.
    of_root : (B, r, n)
        The coefficients of s.
    """
    n = whitened.type.shape[-1]
    below = lower_half(pt.ones((n, n), dtype=whitened.dtype))
    # an XLA kernel with more than the product in it is ten times as slow
    of_root = whitened * compute_once(compute_once(whitened * y[..., None, :]) @ below)
    return (whitened**2).sum(axis=-1), _times(whitened, pull), of_root


def gaussian_pullback(
    location: Values,
    log_precision: Values,
    value: Values,
    whitened: Values,
    prepared: list[Values],
    cotangent: Values,
) -> tuple[Values, Values]:
    r"""Gradient of :math:`\langle` cotangent, y :math:`\rangle` in log c and m, at fixed zeta.

    Parameters
    ----------
    location : (..., B, r) TensorVariable
    log_precision, value : (B, r) TensorVariable
    whitened : (..., B, r, n) TensorVariable
        H.
    prepared : tuple of TensorVariable
        From :func:`for_pullback`.
    cotangent : (..., B, n) TensorVariable

    Returns
    -------
    (..., B, r) TensorVariable, two of them
    """
    _, fitted, of_root = prepared
    precision, seen = pt.exp(log_precision), _times(whitened, cotangent)
    of_mean = seen * (fitted - (value - location))
    return precision * (_times(of_root, cotangent) + of_mean), -precision * seen


def _times(matrix, vector):
    return (matrix @ vector[..., None])[..., 0]


def _outer(left, right):
    return left[..., None] * right[..., None, :]
