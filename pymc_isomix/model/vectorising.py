"""From expressions of one point to those of many: at once, in chunks, or one by one."""

import logging
import math
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.linalg.decomposition.cholesky import Cholesky
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type import TensorType

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.jax_ops import InChunks

logger = logging.getLogger(__name__)

CACHE = 2**20  # bytes for the matrices of the points that are evaluated at once
CACHE_OF_TERMS = 2**21  # bytes for the largest term of the log density at these points


def batch(outputs: list[Values], point: Values, points: Values) -> list:
    """Turn stabilised expressions of one point (d,) into those of many (S, d)."""
    if any(isinstance(node.op, Scan) for node in toposort(outputs)):
        logger.info(
            "The log density contains a scan, which cannot be vectorised: it is evaluated one draw "
            "at a time."
        )
        return _evaluate_one_by_one(outputs, point, points)
    return [
        batched if batched.type.ndim > output.type.ndim else _repeated(batched, points)
        for output, batched in zip(outputs, vectorize_graph(outputs, {point: points}), strict=True)
    ]


def batch_in_chunks(outputs: list[Values], point: Values, points: Values) -> list:
    """Do the same on JAX, in chunks if the matrices of all points fill the cache.

    A step of a Gaussian process of 100 points takes 60 ms of computing instead of 155.
    """
    import jax

    if jax.default_backend() != "cpu":
        return batch(outputs, point, points)
    n_points = points.type.shape[0]
    nodes = list(ancestors(outputs))
    roots, terms = (max(map(size, nodes), default=0) for size in (_bytes_of_root, _bytes_of_term))
    least = n_points * max(roots / CACHE, terms / CACHE_OF_TERMS)
    divisors = (n for n in range(1, n_points) if n_points % n == 0)
    n_chunks = next((n for n in divisors if n >= least), 1)
    if n_chunks == 1:
        return batch(outputs, point, points)
    chunk = pt.matrix(shape=(n_points // n_chunks, points.type.shape[1]), dtype=points.dtype)
    inner, batched, outside = closed(batch(outputs, point, chunk), chunk)
    chunks: Any = InChunks([chunk, *inner], batched, n_chunks)(points, *outside, return_list=True)
    return chunks


def _bytes_of_root(variable):
    """Bytes of a Cholesky factor of known size; zero for other Ops."""
    op = variable.owner.op if variable.owner else None
    op = op.core_op if isinstance(op, Blockwise) else op
    if not isinstance(op, Cholesky) or None in variable.type.shape:
        return 0
    return _bytes(variable)


def _bytes_of_term(variable):
    """Bytes of an elementwise result of known size; zero for other Ops."""
    is_elementwise = variable.owner and isinstance(variable.owner.op, Elemwise)
    known = bool(is_elementwise) and None not in variable.type.shape
    return _bytes(variable) if known else 0


def _bytes(variable):
    return math.prod(variable.type.shape) * np.dtype(variable.dtype).itemsize


def _repeated(output, points):
    """Repeat values that do not depend on the point."""
    return pt.alloc(output, points.shape[0], *output.shape)


def _evaluate_one_by_one(outputs, point, points):
    """Wrap the graph as one Op, looped over (or vmapped, on JAX) by Blockwise."""
    inner, replaced, outside = closed(outputs, point)
    signature = ",".join(
        [
            "(d)",
            *(
                f"({','.join(f'i{i}_{axis}' for axis in range(v.ndim))})"
                for i, v in enumerate(outside)
            ),
        ]
    )
    op = OpFromGraph([point, *inner], replaced)
    results = ",".join(
        "(d)" if i == 1 else f"({','.join(f'o{i}_{axis}' for axis in range(output.ndim))})"
        for i, output in enumerate(outputs)
    )
    return Blockwise(op, signature=f"{signature}->{results}")(points, *outside, return_list=True)


def closed(outputs: list[Values], point: Values) -> tuple[Any, list[Values], Any]:
    """Close a graph over its inputs: (other inputs, outputs, originals of the inputs).

    Values that do not depend on the point, for example a minibatch, are computed once outside and
    passed in.
    """
    outside = _boundary(point, list(toposort(outputs)))
    inner = [variable.type() for variable in outside]
    replaced = graph_replace(outputs, dict(zip(outside, inner, strict=True)), strict=False)
    return inner, replaced, outside


def _boundary(point, nodes):
    """Variable tensors that do not depend on the point and feed nodes that do.

    ``nodes`` are the graph's, in topological order.
    """
    depends, varies = {point}, set()
    for node in nodes:
        if not depends.isdisjoint(node.inputs):
            if isinstance(node.op, RandomVariable):
                raise NotImplementedError(
                    f"a log density that draws random numbers given its own variables ({node.op}) "
                    "cannot be batched; remove the random draw from the model's log density"
                )
            depends.update(node.outputs)
        elif any(v in varies or _is_varying_root(v) for v in node.inputs):
            varies.update(node.outputs)
    boundary: dict = {}
    waiting = [v for node in nodes if not depends.isdisjoint(node.inputs) for v in node.inputs]
    while waiting:
        variable = waiting.pop()
        if variable in depends or not (variable in varies or _is_varying_root(variable)):
            continue
        if isinstance(variable.type, TensorType):
            boundary[variable] = None
        else:  # a scalar or a slice: its inputs
            waiting.extend(variable.owner.inputs)
    return list(boundary)


def _is_varying_root(variable):
    return variable.owner is None and not isinstance(variable, Constant)
