"""Parts of the model's graph in terms of value variables, and their values at the start."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable

from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.backend.upstream import MinibatchOp
from pymc_isomix.model.space import FlatSpace


class Given(NamedTuple):
    """Expressions in value variables, with the names of these."""

    expressions: tuple
    parents: frozenset


class ModelGraph:
    """The graph of a model, whose parts can be expressed in value variables.

    Parameters
    ----------
    space : FlatSpace

    Attributes
    ----------
    data : dict of shared variable to array
        Data that expressions hold as constants.
    """

    def __init__(self, space: FlatSpace) -> None:
        self.space = space
        self.data: dict = {}

    def in_values(
        self, expressions: Sequence, shapes: Sequence | None, *, flat: bool = False
    ) -> Given | None:
        """Express in value variables, broadcast to shapes; None if that is impossible."""
        model = self.space.model
        expressions = model.replace_rvs_by_values(expressions)
        above = list(ancestors(expressions))
        if any(v.owner and isinstance(v.owner.op, RandomVariable | MinibatchOp) for v in above):
            return None
        shared = [v for v in above if isinstance(v, SharedVariable)]
        data: dict = {v: pt.as_tensor(v.get_value()) for v in shared}
        self.data.update((variable, constant.data) for variable, constant in data.items())
        expressions = graph_replace(expressions, data, strict=False) if data else expressions
        names = {v.name for v in ancestors(expressions) if v in set(model.value_vars)}
        if not names <= set(self.space.ordering):
            return None  # of another group
        if shapes is not None:
            if not all(_fits(e, shape) for e, shape in zip(expressions, shapes, strict=True)):
                return None
            expressions = [pt.broadcast_to(e, s) for e, s in zip(expressions, shapes, strict=True)]
        if flat:
            expressions = [pt.as_tensor(e).ravel() for e in expressions]
        return Given(tuple(expressions), frozenset(names))

    def n_rows(self, matrix: Any) -> int | None:
        """Return the number of rows of a matrix, at the start."""
        if (rows := matrix.type.shape[0]) is not None:
            return rows
        found = self.at_start(matrix.shape[0])
        return None if found is None else int(found)

    def at_start(self, expression: Any) -> np.ndarray | None:
        """Evaluate an expression at the model's initial point; None if that fails."""
        found = self.in_values([expression], None)
        if found is None:
            return None
        initial = self.space.model.initial_point(0)
        values = {v: pt.as_tensor(initial[v.name]) for v in self.space.model.value_vars}
        return graph_replace(found.expressions[0], values, strict=False).eval(mode=CHEAP)


def _fits(expression, shape):
    """Tell whether an expression broadcasts to a shape, as far as known."""
    known = expression.type.shape
    return len(known) <= len(shape) and all(
        length in (None, 1, wanted)
        for length, wanted in zip(known[::-1], shape[::-1], strict=False)
    )
