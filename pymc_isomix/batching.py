"""A model's log density and its gradient at many points at once."""

import logging

import pytensor.tensor as pt

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import toposort
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.random.op import RandomVariable

logger = logging.getLogger(__name__)


def batched_log_density(model, ordering, points, *, more_replacements=None):
    """Build the model's log joint density and gradient at a batch of unconstrained points.

    One vectorised graph serves all points, so that draws share what does not depend on them: a minibatch above all,
    which keeps its ``total_size`` scale. A graph that contains a scan has no vectorised form; there, each point is
    evaluated by itself.

    Parameters
    ----------
    model : pymc.Model
    ordering : mapping of value variable name to (name, slice, shape, dtype)
        Place of each variable in a flat point, as in ``pymc.variational.opvi.Group.ordering``.
    points : (S, d) TensorVariable
        Unconstrained points z.
    more_replacements : dict, optional
        Applied to the model's log density first.

    Returns
    -------
    log_density : (S,) TensorVariable
        Including the log Jacobian of the transforms, and potentials.
    gradient : (S, d) TensorVariable
    """
    point = pt.vector("point", shape=(points.type.shape[1],), dtype=points.dtype)
    values = {value.name: value for value in model.value_vars}
    replacements = {
        values[name]: point[place].reshape(shape).astype(dtype)
        for name, place, shape, dtype in ordering.values()
    }
    log_density = model.logp()
    if more_replacements:
        log_density = graph_replace(log_density, more_replacements, strict=False)
    log_density = graph_replace(log_density, replacements, strict=False).astype(points.dtype)
    outputs = [log_density, pt.grad(log_density, point)]

    nodes = list(toposort(outputs))
    if any(isinstance(node.op, Scan) for node in nodes):
        logger.info(
            "The log density contains a scan, which has no vectorised form: it is evaluated draw by draw."
        )
        return _evaluate_one_by_one(outputs, point, points, nodes)
    return vectorize_graph(outputs, {point: points})


def _evaluate_one_by_one(outputs, point, points, nodes):
    """Wrap the graph as one Op, looped over (or vmapped, on JAX) by Blockwise.

    What does not depend on the point is computed once, outside, and passed in.
    """
    depends = {point}
    outside = []
    for node in nodes:
        if any(variable in depends for variable in node.inputs):
            depends.update(node.outputs)
            if isinstance(node.op, RandomVariable):
                raise NotImplementedError(
                    f"a log density that draws random numbers from its own variables ({node.op}) cannot be batched; "
                    "remove the random draw from the model's log density"
                )
            outside.extend(v for v in node.inputs if v not in depends and not isinstance(v, Constant))
    outside = list(dict.fromkeys(v for v in outside if v not in depends))
    inner = [v.type() for v in outside]
    op = OpFromGraph(
        [point, *inner], graph_replace(outputs, dict(zip(outside, inner, strict=True)), strict=False)
    )
    core = ",".join(
        f"({','.join(f'i{i}_{axis}' for axis in range(v.ndim))})" for i, v in enumerate(outside)
    )
    signature = f"(d){',' + core if core else ''}->(),(d)"
    return Blockwise(op, signature=signature)(points, *outside)
