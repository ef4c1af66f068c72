"""Linear maps in the model graph: a matrix times a standardised variable."""

import math
from typing import Any, NamedTuple

import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.math import Dot
from pytensor.tensor.random import basic

from pymc_isomix.backend.arrays import Values
from pymc_isomix.sites.usage import Effect, best, clients_of, constant_of, varies, ways


class LinearMap(NamedTuple):
    """An effect f + s A zeta with f (B, r), s (B, r) and A (r, n), in the model's graph.

    ``f`` and ``s`` broadcast; ``varying`` says whether A depends on other free variables.
    """

    location: Any
    scale: Any
    matrix: Any
    batch: int
    columns: int
    centred: bool
    last: bool  # whether blocks are the last axis of the variable
    varying: bool
    prior: tuple = (0.0, 1.0)  # location and scale that standardise zeta
    basis: Any = None  # the constant matrix and its column scales (n,), if A is their product
    column_scales: Any = None


class Use(NamedTuple):
    """A node that a variable enters, and the variable as its input."""

    node: Any
    place: int
    before: Effect


def linear_map(model: pm.Model, rv: Values, shape: tuple) -> LinearMap | None:
    """Return the linear map of a random variable, by its family or its use, or None."""
    return _of_family(model, rv, shape) or _of_use(model, rv, shape)


def _of_family(model, rv, shape):
    """Return the linear map of the variable's family."""
    op, free = rv.owner.op, set(model.free_RVs)
    if len(shape) == 0 or model.rvs_to_transforms[rv] is not None:
        return None
    *batch_shape, n = shape
    batch = math.prod(batch_shape)
    if isinstance(op, basic.MvNormalRV):
        mean, covariance = map(pt.as_tensor, op.dist_params(rv.owner))
        if any(not b for b in covariance.type.broadcastable[:-2]):
            return None
        # a new root, because the model's root may not be triangular
        covariance = covariance.squeeze(axis=tuple(range(covariance.ndim - 2)))
        factor = pt.linalg.cholesky(covariance, lower=True)
        return LinearMap(
            location=mean,
            scale=pt.ones(()),
            matrix=factor,
            batch=batch,
            columns=n,
            centred=True,
            last=False,
            varying=varies(factor, free, rv),
        )
    return None


def _of_use(model, rv, shape):
    """Return the map of the first matrix product that the variable enters."""
    if not isinstance(rv.owner.op, basic.NormalRV) or model.rvs_to_transforms[rv] is not None:
        return None
    if not 1 <= len(shape) <= 2:
        return None
    clients = clients_of(model)
    for before, variable, _ in ways(rv, Effect(tuple(range(rv.ndim))), clients, rv.ndim):
        if not before.whole:
            continue
        for node, i in clients.get(variable, ()):
            found = _of_node(Use(node, i, before), model, rv, shape, clients)
            if found is not None:
                return found
    return None


def _of_node(use, model, rv, shape, clients):
    """Return the map of one node that the variable enters."""
    (node, i, before), free = use, set(model.free_RVs)
    prior = rv.owner.op.dist_params(rv.owner)
    if _is_product(node.op) and node.outputs[0].ndim == 2:
        matrix = node.inputs[0] if i == 1 else node.inputs[1].T  # (r, n)
        inner, outer = before.axes if i == 1 else before.axes[::-1]
        rows, blocks = (0, 1) if i == 1 else (1, 0)
    else:
        return None
    if not isinstance(inner, int) or isinstance(outer, str) or (len(shape) == 2 and outer is None):
        return None
    mean, sd = prior
    added, scales = before.added, sd if before.factor is None else before.factor * sd
    if constant_of(mean) != 0:
        shift = mean if before.factor is None else before.factor * mean
        added = shift if added is None else added + shift
    common = None
    if all(scales.type.broadcastable):  # one scale for all columns: the matrix stays as it is
        common, scales = scales.ravel()[0], pt.ones(())
    scales = _along(scales, inner, outer, shape)
    shift = None if added is None else _along(added, inner, outer, shape)
    if scales is None or (added is not None and shift is None):
        return None
    own = None if shift is None else matrix @ shift
    basis, matrix = matrix, matrix if common is not None else matrix * scales
    output = node.outputs[0]
    after = best(ways(output, Effect(tuple(range(output.ndim))), clients, output.ndim))
    location, scale = (
        None if part is None else _by_block(part, rows, blocks)
        for part in (after.added, after.factor)
    )
    scale = pt.ones(()) if scale is None else scale
    own = None if own is None else scale * own
    scale = scale if common is None else scale * common
    location = pt.zeros((1, 1)) if location is None else location
    if own is not None:
        location = location + own
    if not any(varies(part, free, rv) for part in (matrix, scale)):
        return None
    return LinearMap(
        location,
        scale,
        matrix,
        1 if outer is None else shape[outer],
        shape[inner],
        False,
        outer is not None and outer > inner,
        varies(matrix, free, rv),
        prior,
        basis=None if varies(basis, free, rv) else basis,
        column_scales=scales,
    )


def _along(part, inner, outer, shape):
    """Return an expression along one axis of a variable; None if it also varies elsewhere."""
    if part.ndim < len(shape):
        part = part.dimshuffle(*["x"] * (len(shape) - part.ndim), *range(part.ndim))
    if outer is not None:
        if not part.type.broadcastable[outer]:
            return None
        part = part.squeeze(axis=outer)
    return pt.broadcast_to(part, (shape[inner],))


def _is_product(op):
    return isinstance(op, Dot) or (isinstance(op, Blockwise) and isinstance(op.core_op, Dot))


def _by_block(part, rows, blocks):
    """Arrange an expression of the elements of a product as (B, r)."""
    return part.dimshuffle("x", rows) if blocks is None else part.dimshuffle(blocks, rows)
