"""The dependence of expressions in a model's graph on some of its variables: affine or not."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pytensor.compile.ops import ViewOp
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Add, Cast, Identity, Mul, Neg, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Alloc, Join, MakeVector
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.einsum import Einsum
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.signal.conv import Convolve1d
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
)

from pymc_isomix.backend.arrays import Values

# linear in their first input, given the others
MOVES = (
    Alloc,
    CheckAndRaise,
    DimShuffle,
    JoinDims,
    Reshape,
    SpecifyShape,
    SplitDims,
    Subtensor,
    AdvancedSubtensor,
    ViewOp,
)
JOINS = (Join, MakeVector)  # linear in all inputs together
WRITES = (IncSubtensor, AdvancedIncSubtensor)  # linear in the first two together
PRODUCTS = (Dot, Einsum, Convolve1d)  # linear in each input, given the others


class Dependence(NamedTuple):
    """The dependence of an expression on leaves.

    Parameters
    ----------
    degree : int
        0 for no dependence, 1 if it is jointly affine in all leaves, else 2.
    varies : bool
        Whether the coefficients of the leaves depend on other random variables.
    random : bool
        Whether the expression depends on other random variables.
    """

    degree: int
    varies: bool
    random: bool


class Affine:
    """Dependences of a graph's expressions on leaves, cached.

    Parameters
    ----------
    leaves : sequence of Variable
    free : set of Variable
        The free random variables.
    known : set of Variable
        Free random variables that count as constants.
    """

    def __init__(self, leaves: Any, free: set, known: Any = frozenset()) -> None:
        self.leaves, self.free, self.known = set(leaves), free, known
        self.found: dict = {}

    def __call__(self, variable: Values) -> Dependence:
        """Return the :class:`Dependence` of a variable."""
        stack = [variable]  # a graph may be deeper than Python's stack
        while stack:
            one = stack[-1]
            waiting = [v for v in self._inputs(one) if v not in self.found]
            if one not in self.found and waiting:
                stack += waiting
                continue
            self.found.setdefault(stack.pop(), self._of(one))
        return self.found[variable]

    def _inputs(self, variable):
        is_end = variable in self.leaves or variable in self.free or variable.owner is None
        return [] if is_end else variable.owner.inputs

    def _of(self, variable):
        if variable in self.leaves:
            return Dependence(1, False, False)
        if variable in self.free or variable.owner is None:
            return Dependence(0, False, variable in self.free and variable not in self.known)
        parts = [self.found[v] for v in variable.owner.inputs]
        op, random = variable.owner.op, any(part.random for part in parts)
        if all(part.degree == 0 for part in parts) or isinstance(op, Shape | Shape_i):
            return Dependence(0, False, random)
        degree, varies = _degree(op, parts)
        return Dependence(degree, varies, random)

    def ends(self, variable: Values, *, is_term: bool = False) -> Iterator:
        """Yield the affine expressions by which a variable depends on the leaves.

        Parameters
        ----------
        is_term : bool
            Whether the variable is a term of a log density: what is affine there has no curvature.
        """
        degree = self(variable).degree
        if degree == 1 and not is_term:
            yield variable
        elif degree == 2:
            node = variable.owner
            parts = [self(v) for v in node.inputs]
            linear = [part._replace(degree=min(part.degree, 1)) for part in parts]
            is_term = is_term and _degree(node.op, linear)[0] == 1
            for one in node.inputs:
                yield from self.ends(one, is_term=is_term)


def _degree(op, parts):
    """Degree of a node's output, and whether its coefficients vary, from its inputs."""
    degree = max(part.degree for part in parts)
    varies = any(part.varies for part in parts)
    first, *others = parts
    alone = all(part.degree == 0 for part in others)  # except the first
    scalar: Any = op.scalar_op if isinstance(op, Elemwise) else None
    if isinstance(scalar, Add | Sub | Neg | Identity | Cast) or isinstance(op, JOINS):
        return degree, varies
    if isinstance(scalar, Mul) or _is_product(op):
        if sum(part.degree > 0 for part in parts) > 1:
            return 2, varies
        return degree, varies or any(part.random for part in parts if part.degree == 0)
    if isinstance(scalar, TrueDiv) or isinstance(op, MOVES):
        by_others = any(part.random for part in others)
        return (degree, varies or by_others) if alone else (2, varies)
    if isinstance(scalar, Switch):
        return (degree, varies or first.random) if first.degree == 0 else (2, varies)
    if isinstance(op, WRITES):
        is_index = any(part.degree > 0 for part in parts[2:])
        return (2, varies) if is_index else (degree, varies)
    if isinstance(op, CAReduce) and isinstance(op.scalar_op, Add):
        return degree, varies
    if isinstance(op, CumOp) and op.mode == "add":
        return degree, varies
    return 2, varies


def _is_product(op):
    return isinstance(op.core_op if isinstance(op, Blockwise) else op, PRODUCTS)
