"""A model's log density, with or without its gradient, at many points at once."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import DisconnectedGrad, GradClip, GradScale, ZeroGrad
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    indices_from_subtensor,
)
from pytensor.tensor.variable import TensorVariable

from pymc_isomix.backend import upstream
from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import CompiledApart, compiling
from pymc_isomix.backend.jax_ops import compute_clipped_once
from pymc_isomix.backend.linalg import GAUSSIAN_MAP, ROOT, use_quick_cholesky
from pymc_isomix.model.model_cache import cached, graph_key
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.model.vectorising import batch, batch_in_chunks, closed

logger = logging.getLogger(__name__)

STOPS_GRADIENT = (DisconnectedGrad, ZeroGrad, GradClip, GradScale)


class PointTarget(NamedTuple):
    """A model's log density at one point y (d,), in the coordinates of the fit."""

    point: TensorVariable  # (d,)
    parameters: dict  # symbolic parameters of the coordinates, by name
    log_density: TensorVariable  # log p(z) + log |dz/dy|
    outputs: list  # log density, gradient, and what is given at the sites; finite far out
    given: list  # what is given at each site, tuples
    unconstrained: list  # z (d,) and log |dz/dy|, with sites


class BatchedTarget(NamedTuple):
    """A model's log density at a batch of points (S, d)."""

    log_density: TensorVariable  # (S,)
    gradient: TensorVariable  # (S, d) in y
    given: list  # tuples of (S, ...)


def batched_log_density(
    space: FlatSpace,
    points: Values,
    *,
    coordinates: Any = None,
    parameters: dict | None = None,
    more_replacements: dict | None = None,
    mode: str | None = None,
    on_jax: bool = False,
) -> BatchedTarget:
    """Build the model's log joint density and gradient at a batch of points.

    One vectorised graph serves all points, which share everything that does not depend on them,
    above all a minibatch, with its ``total_size`` scale. A graph with a scan cannot be vectorised,
    so each point is evaluated separately.

    Parameters
    ----------
    points : (S, d) TensorVariable
        Coordinates y; unconstrained points z without sites.
    coordinates : CoordinateMap, optional
        The sites, if there are any.
    parameters : dict of TensorVariable, optional
        Parameters of the coordinates, by name.
    more_replacements : dict, optional
        Applied to the model's log density first.
    mode : Mode or str, optional
        Compile log density and gradient with this mode, as one Op without a gradient.
    on_jax : bool
        Whether JAX compiles the graph. Large matrices are then made for a few points at a time.

    Returns
    -------
    BatchedTarget
        The log density includes the log Jacobian of the transforms, and potentials.
    """
    parameters = parameters or {}
    bent = coordinates if coordinates and coordinates.is_bent else None
    if bent:
        # the model depends on neither shape nor shear, so its compiled functions serve any
        points, *slopes = bent.bend(points, parameters)
        coordinates = bent.straight
    of_sites = coordinates.parameter_shapes if coordinates else {}
    if more_replacements:
        target = _target_at_point(space, points.dtype, coordinates, more_replacements)
    else:
        target = target_at_point(space, points.dtype, coordinates)
    outputs, point = target.outputs, target.point
    if of_sites:
        given = {target.parameters[name]: parameters[name] for name in of_sites}
        outputs = graph_replace(outputs, given, strict=False)
    batched: Any
    if mode is None:
        batched = (
            batch_in_chunks(outputs, point, points) if on_jax else batch(outputs, point, points)
        )
    else:
        inside = points.type()
        inner, apart, outside = closed(batch(outputs, point, inside), inside)
        batched = CompiledApart([inside, *inner], apart, mode)(points, *outside, return_list=True)
    log_density, gradient, *flat = batched
    if bent:
        log_density, gradient = bent.pull_back(log_density, gradient, slopes, parameters)
    return BatchedTarget(
        log_density, gradient, coordinates.by_site(flat, target.given) if coordinates else []
    )


def target_at_point(space: FlatSpace, dtype: str, coordinates: Any = None) -> PointTarget:
    """Build the model's log joint density and gradient at one point; cached with the model."""
    key = "target", dtype, coordinates.key if coordinates else None, graph_key(space)
    return cached(space.model, key, lambda: _target_at_point(space, dtype, coordinates))


@compiling(cxx="")  # otherwise constants would be computed by compiled C
def _target_at_point(space, dtype, coordinates, more_replacements=None):
    point = pt.vector("point", shape=(space.n_dim,), dtype=dtype)
    values, unconstrained, given, parameters = space.unflatten(point), [], [], {}
    if coordinates:
        parameters = coordinates.variables(dtype)
        values, log_determinant, given = coordinates.forward(point, parameters)
        unconstrained = [space.flatten(values), log_determinant]
    replacements = {**space.constants(), **(more_replacements or {})}
    log_density = space.model.logp()
    if replacements:
        log_density = graph_replace(log_density, replacements, strict=False)
    flat: Any = graph_replace(log_density, space.replacements(values), strict=False)
    if coordinates:
        flat = flat + log_determinant
    flat = _stable_gradient(flat.astype(dtype), space.model.check_bounds)
    quick = dfs_rewriter(use_quick_cholesky, compute_clipped_once)
    parts = [*unconstrained, *(part for here in given for part in here)]
    rewritten: Any = rewrite_graph([flat, *parts], include=(), custom_rewrite=quick)
    flat, *parts = rewritten
    log_density, gradient, *parts = stabilise([flat, pt.grad(flat, point), *parts])
    unconstrained, parts = parts[: len(unconstrained)], parts[len(unconstrained) :]
    outputs = [log_density, gradient, *parts]
    return PointTarget(point, parameters, flat, outputs, given, unconstrained)


def _stable_gradient(log_density, check_bounds):
    """Rewrite a log density so that its gradient is finite as far out as it is."""
    # as pm.compile does; otherwise a check that fails at one point would fail at all
    checks = (
        upstream.local_check_parameter_to_ninf_switch
        if check_bounds
        else upstream.local_remove_check_parameter
    )
    flat: Any = rewrite_graph(log_density, include=(), custom_rewrite=dfs_rewriter(checks))
    if any(v.owner and isinstance(v.owner.op, STOPS_GRADIENT) for v in ancestors([flat])):
        return flat  # the rewrites would remove it
    # far out the gradient of log(1 - sigmoid(x)) is 0/0; that of softplus is not
    return upstream.rewrite_pregrad(flat)


def stabilise(outputs: Sequence[Values]) -> Any:
    """Rewrite expressions to stay finite as far out as PyMC's own functions do.

    log(1 - sigmoid(x)) becomes softplus, a softmax subtracts its maximum, and so on. Cheap modes
    skip these rewrites, and vectorised graphs have other forms than the rewrites look for.
    Expressions of shapes are folded while they are plain constants. Batched shapes would be
    tensors, which neither JAX nor the rewrites resolve.
    """
    outputs = inline_own_gradients(outputs)  # of sites, after the gradient
    # an Op with an inner graph, such as the softmax, would be compiled separately
    last = dfs_rewriter(upstream.inline_symbolic_for_fusion, constant_mask_to_indices)
    rewrites = {"include": upstream.STABLE, "exclude": [upstream.SYMMETRY]}
    rewritten: Any = rewrite_graph(outputs, custom_rewrite=last, clone=True, **rewrites)
    for variable in ancestors(rewritten):
        if variable.owner or isinstance(variable, Constant):
            # with each switch of equal branches that is removed later, a constant's doubles
            variable.tag.trace = []
    return rewritten


def inline_own_gradients(outputs: Sequence[Values]) -> Any:
    """Replace Ops that exist only for their gradient by their graphs."""
    if not any(v.owner and _has_own_gradient(v.owner.op) for v in ancestors(outputs)):
        return outputs
    inline = dfs_rewriter(node_rewriter([OpFromGraph])(_inline_own_gradient))
    return rewrite_graph(outputs, include=(), custom_rewrite=inline, clone=True)


def _inline_own_gradient(fgraph, node):
    return upstream.inline_ofg_node(node) if _has_own_gradient(node.op) else None


def _has_own_gradient(op):
    return isinstance(op, OpFromGraph) and (op.name or "").startswith((GAUSSIAN_MAP, ROOT))


@node_rewriter([AdvancedSubtensor, AdvancedIncSubtensor])
def constant_mask_to_indices(fgraph: Any, node: Any) -> list[Values] | None:
    """Turn constant boolean masks into indices, which stay constant for JAX."""
    is_update = isinstance(node.op, AdvancedIncSubtensor)
    array, *inputs = node.inputs
    update = inputs.pop(0) if is_update else None
    given = indices_from_subtensor(inputs, node.op.idx_list)
    indices: list[Any] = []
    for index in given:
        if isinstance(index, Constant) and index.type.dtype == "bool" and index.type.ndim:
            indices.extend(np.nonzero(index.data))
        else:
            indices.append(index)
    if len(indices) == len(given) and all(a is b for a, b in zip(indices, given, strict=True)):
        return None
    part = array[tuple(indices)]
    if not is_update:
        return [part]
    return [part.set(update) if node.op.set_instead_of_inc else part.inc(update)]
