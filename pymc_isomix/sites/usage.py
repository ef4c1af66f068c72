"""Follow a variable through the model: its factors and added terms, by element."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors, toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Add, Cast, Identity, Mul, Sub, TrueDiv
from pytensor.tensor.basic import get_underlying_scalar_constant_value
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.subtensor import AdvancedSubtensor, Subtensor

from pymc_isomix.backend.arrays import Values
from pymc_isomix.sites.families import location_scale

ROWS = "rows"  # an axis made by an index, in which elements may repeat


@dataclass(frozen=True)
class Effect:
    """A variable on its way through the graph: a + b z, with the random variable z, elementwise.

    Parameters
    ----------
    axes : tuple
        For each axis of the graph's variable, its axis of z, None for length one, or ROWS.
    added, factor : TensorVariable or None
        a and b, which broadcast to z; None for 0 and 1.
    whole : bool
        Whether a + b z is complete, without factors that vary by row.
    picked : tuple of (axis, index)
        Elements of z, if numbers index z.
    """

    axes: tuple
    added: Any = None
    factor: Any = None
    whole: bool = True
    picked: tuple = ()

    def multiplied(self, by: Values, ndim: int) -> "Effect":
        """Multiply by an operand, or record that it varies by row."""
        mapped = self._mapped(by, ndim)
        if mapped is None:
            return replace(self, whole=False)
        return replace(
            self,
            factor=mapped if self.factor is None else self.factor * mapped,
            added=None if self.added is None else self.added * mapped,
        )

    def plus(self, term: Values, ndim: int, sign: int = 1) -> "Effect":
        """Add an operand, unless it varies by row."""
        mapped = self._mapped(term, ndim)
        if mapped is None or not self.whole or constant_of(term) == 0:
            return self
        mapped = mapped if sign > 0 else -mapped
        return replace(self, added=mapped if self.added is None else self.added + mapped)

    def _mapped(self, operand, ndim):
        """Arrange the axes of an operand as those of z; None if it varies along others."""
        broadcastable = operand.type.broadcastable
        order: list = ["x"] * ndim
        for i, axis in enumerate(self.axes):
            if isinstance(axis, int):
                order[axis] = "x" if broadcastable[i] else i
            elif not broadcastable[i]:
                return None
        ordered = [i for i in order if i != "x"]
        dropped = [i for i in range(operand.ndim) if i not in ordered]
        squeezed = operand.squeeze(axis=tuple(dropped)) if dropped else operand
        place = {i: new_i for new_i, i in enumerate(sorted(ordered))}
        return squeezed.dimshuffle([i if i == "x" else place[i] for i in order])


def follow(model: pm.Model, rv: Values, shape: tuple) -> tuple[Values | None, Values | None]:
    """Return the added terms and the factors of a random variable.

    They come from the first use with a factor that depends on other free variables, or from the
    first such use of each part if numbers index it; else from the first use.

    Returns
    -------
    added, factor : TensorVariable or None
        They broadcast to ``rv``; None if there is nothing.
    """
    clients, free = clients_of(model), set(model.free_RVs)
    start = Effect(tuple(range(rv.ndim)))
    ends = [end for end, _, is_end in ways(rv, start, clients, rv.ndim) if is_end]
    scaled = [end for end in ends if end.factor is not None and varies(end.factor, free, rv)]
    if scaled:
        return _by_part(scaled, shape)
    best = next((end for end in ends if end.added is not None and not end.picked), start)
    # a constant factor is not a scale of the effect
    return (best.added, None) if best.factor is None else (None, None)


def _by_part(ends, shape):
    """Combine the added terms and factors of parts of a variable."""
    first, *others = ends
    if not first.picked:
        return first.added, first.factor
    added, factor = pt.zeros(()), pt.ones(())
    for end in (*reversed(others), first):
        here: Any = True
        for axis, index in end.picked:
            is_index = np.arange(shape[axis]) == index % shape[axis]
            here = here & is_index.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        added = pt.switch(here, pt.zeros(()) if end.added is None else end.added, added)
        factor = pt.switch(here, end.factor, factor)
    return added, factor


def ways(variable: Values, effect: Effect, clients: dict, ndim: int) -> Iterator:
    """Yield (effect, variable, whether the way ends there) along each recognised way."""
    onward = [
        (output, step)
        for node, i in clients.get(variable, ())
        if (step := _through(node, i, effect, ndim)) is not None
        for output in node.outputs
    ]
    yield effect, variable, not onward
    for output, step in onward:
        yield from ways(output, step, clients, ndim)


def noise_scale(variable: Values, clients: dict) -> Values | None:
    """Return the scale of the observation noise of a variable, by element; None if unknown.

    It is that of the first location-scale family whose location the variable enters.

    Parameters
    ----------
    variable : TensorVariable
    clients : dict
        What :func:`clients_of` returns.
    """
    ndim = variable.ndim
    for effect, here, _ in ways(variable, Effect(tuple(range(ndim))), clients, ndim):
        for node, _ in clients.get(here, ()):
            if not isinstance(node.op, RandomVariable):
                continue
            location, scale = location_scale(node.op, node.outputs[1], None) or (None, None)
            if location is here and (mapped := effect._mapped(scale, ndim)) is not None:
                return mapped
    return None


def best(found: Iterator) -> Effect:
    """Return the most informative effect of all ways of :func:`ways`."""
    effects = [effect for effect, _, is_end in found if is_end]
    return max(effects, key=lambda e: (e.factor is not None) + (e.added is not None))


def _through(node, i, effect, ndim):
    """Return the effect after a node that it enters as input i; None if it ends there."""
    op, others = node.op, [v for j, v in enumerate(node.inputs) if j != i]
    if isinstance(op, Elemwise):
        scalar = op.scalar_op
        if isinstance(scalar, Identity | Cast):
            return effect
        if isinstance(scalar, Mul):
            for other in others:
                effect = effect.multiplied(other, ndim)
            return effect
        if isinstance(scalar, TrueDiv) and i == 0:
            return effect.multiplied(1 / others[0], ndim)
        if isinstance(scalar, Add) or (isinstance(scalar, Sub) and i == 0):
            for other in others:
                effect = effect.plus(other, ndim, -1 if isinstance(scalar, Sub) else 1)
            return effect
        return None
    if i != 0:
        return None
    if isinstance(op, SpecifyShape | CheckAndRaise | ViewOp):
        return effect
    if isinstance(op, DimShuffle):
        axes = tuple(None if j == "x" else effect.axes[j] for j in op.new_order)
        return replace(effect, axes=axes)
    if isinstance(op, Subtensor | AdvancedSubtensor):
        return _indexed(node, effect)
    return None


def _indexed(node, effect):
    """Return the effect after an index; None if the index is not recognised."""
    axes, picked = effect.axes, list(effect.picked)
    out: list = []
    for axis, entry in enumerate(node.op.idx_list):
        if isinstance(entry, slice):
            out.append(axes[axis] if entry == slice(None) else ROWS)
        elif isinstance(node.op, AdvancedSubtensor):
            if node.inputs[1 + entry].ndim != 1 or ROWS in out or len(node.inputs) > 2:
                return None
            out.append(ROWS)
        elif isinstance(axes[axis], int):
            index = constant_of(node.inputs[1 + entry])
            picked += [] if index is None else [(axes[axis], int(index))]
    return replace(effect, axes=(*out, *axes[len(node.op.idx_list) :]), picked=tuple(picked))


def constant_of(expression: Values) -> float | None:
    """Return the constant value of an expression, or None."""
    try:
        return float(get_underlying_scalar_constant_value(expression))
    except NotScalarConstantError:
        return None


def varies(expression: Values, free: set, rv: Values) -> bool:
    """Tell whether an expression depends on free variables other than a given one."""
    return any(v in free and v is not rv for v in ancestors([expression]))


def clients_of(model: pm.Model) -> dict:
    """Return nodes and input places by variable, in the model's order."""
    clients: dict = {}
    roots = [*model.basic_RVs, *model.deterministics, *model.potentials]
    for node in toposort(roots):
        for i, variable in enumerate(node.inputs):
            if not isinstance(variable, Constant):
                clients.setdefault(variable, []).append((node, i))
    return clients
