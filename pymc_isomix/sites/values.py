"""Parts of the model's graph in terms of value variables, and their values at the start."""

from typing import NamedTuple

import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable

from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.backend.upstream import MinibatchOp


class Given(NamedTuple):
    """Expressions in value variables, with the names of these."""

    expressions: tuple
    parents: frozenset


def in_values(space, expressions, shapes, *, flat=False):
    """Express in flat value variables; None if that is impossible."""
    model = space.model
    expressions = model.replace_rvs_by_values(expressions)
    above = list(ancestors(expressions))
    if any(v.owner and isinstance(v.owner.op, RandomVariable | MinibatchOp) for v in above):
        return None
    data: dict = {v: pt.as_tensor(v.get_value()) for v in above if isinstance(v, SharedVariable)}
    space.data_read.update((variable, constant.data) for variable, constant in data.items())
    expressions = graph_replace(expressions, data, strict=False) if data else expressions
    names = {v.name for v in ancestors(expressions) if v in set(model.value_vars)}
    if not names <= set(space.ordering):
        return None  # of another group
    if shapes is not None:
        if not all(_fits(e, shape) for e, shape in zip(expressions, shapes, strict=True)):
            return None
        expressions = [pt.broadcast_to(e, s) for e, s in zip(expressions, shapes, strict=True)]
    if flat:
        expressions = [e.ravel() for e in expressions]
    return Given(tuple(expressions), frozenset(names))


def _fits(expression, shape):
    """Tell whether an expression broadcasts to a shape, as far as known."""
    known = expression.type.shape
    return len(known) <= len(shape) and all(
        length in (None, 1, wanted)
        for length, wanted in zip(known[::-1], shape[::-1], strict=False)
    )


def n_rows(space, matrix):
    """Return the number of rows of a matrix in the model's graph, at the start."""
    if (rows := matrix.type.shape[0]) is not None:
        return rows
    found = at_start(space, matrix.shape[0])
    return None if found is None else int(found)


def at_start(space, expression):
    """Evaluate an expression in the model's graph at the initial point; None if that fails."""
    found = in_values(space, [expression], None)
    if found is None:
        return None
    initial = space.model.initial_point(0)
    values = {v: pt.as_tensor(initial[v.name]) for v in space.model.value_vars}
    return graph_replace(found.expressions[0], values, strict=False).eval(mode=CHEAP)
