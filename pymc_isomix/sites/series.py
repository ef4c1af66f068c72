"""Chains in the model graph: walks, autoregressions, discretised diffusions, sums of noise."""

import math
from typing import Any, NamedTuple

import pytensor
import pytensor.tensor as pt
from pymc.distributions.timeseries import AutoRegressiveRV, EulerMaruyamaRV, RandomWalkRV
from pymc.exceptions import NotConstantValueError
from pymc.pytensorf import constant_fold
from pytensor.tensor.basic import Join
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.random import basic

from pymc_isomix.sites.families import location_scale
from pymc_isomix.sites.usage import Effect, best, clients_of, follow, ways

CHAINS = (RandomWalkRV, AutoRegressiveRV, EulerMaruyamaRV)


class ChainPrior(NamedTuple):
    """A chain of B series and T steps in the model's graph, and how it is seen.

    As :class:`pymc_isomix.sites.chains.Chain` has it: coefficients are (B, p, T), the other
    expressions (B, T).
    """

    offset: Any
    coefs: Any
    scale: Any
    added: Any
    factor: Any
    batch: int
    n_time: int
    order: int
    centred: bool
    last: bool = False  # whether the series are the last axis of the variable
    prior: tuple = (0.0, 1.0)  # location and scale by which its noise is standardised
    part: slice | None = None  # of the variable, where it is not all of it


class Steps(NamedTuple):
    """Location, coefficients of the lags, and scale of the steps of a family.

    They broadcast to (..., T); ``first`` is location and scale of what comes before, if that has
    such.
    """

    location: Any
    lags: list
    scale: Any
    first: tuple | None


def chain_prior(model, rv, shape):
    """Return the chain that a variable is, or that its sums are; None for neither.

    Parameters
    ----------
    model : pymc.Model
    rv : TensorVariable
    shape : tuple of int
        Of ``rv``.
    """
    if model.rvs_to_transforms[rv] is not None or len(shape) == 0:
        return None
    if isinstance(rv.owner.op, basic.NormalRV):
        return _of_sums(model, rv, shape) if len(shape) <= 2 else None
    *series, n_time = shape
    steps = _steps(rv, series, n_time)
    if steps is None or n_time <= len(steps.lags):
        return None
    order, part = len(steps.lags), None
    later = n_time - order

    def by_series(values, n):
        return pt.broadcast_to(values, (*series, n)).reshape((-1, n))

    offset, scale = (by_series(one, later) for one in (steps.location, steps.scale))
    coefs = pt.stack([by_series(one, later) for one in steps.lags], axis=-2)
    if steps.first is not None:
        location, deviation = (by_series(one, order) for one in steps.first)
        offset = pt.concatenate([location, offset], axis=-1)
        scale = pt.concatenate([deviation, scale], axis=-1)
        nothing = pt.zeros((math.prod(series), order, order), dtype=rv.dtype)
        coefs = pt.concatenate([nothing, coefs], axis=-1)
    elif not series and later >= order:  # from where it starts, whatever the distribution of that
        part, n_time = slice(order, None), later
        for k in range(1, order + 1):
            told = coefs[:, k - 1, :k] * rv[order - k : order]
            offset = pt.inc_subtensor(offset[:, :k], told)
    else:
        return None
    seen = zip(follow(model, rv, shape), (0.0, 1.0), strict=True)
    whole = [pt.broadcast_to(nothing if one is None else one, shape) for one, nothing in seen]
    added, factor = (by_series(one if part is None else one[part], n_time) for one in whole)
    batch = math.prod(series)
    return ChainPrior(offset, coefs, scale, added, factor, batch, n_time, order, True, part=part)


def _steps(rv, series, n_time):
    """Return the steps of a family of chains; None for any other."""
    op = rv.owner.op
    if isinstance(op, RandomWalkRV):
        return _of_walk(rv, series, n_time)
    if isinstance(op, AutoRegressiveRV):
        return _of_autoregression(rv)
    return _of_diffusion(rv, series) if isinstance(op, EulerMaruyamaRV) else None


def _of_walk(rv, series, n_time):
    if rv.owner.op.ndim_supp > 1:
        return None

    def known(part, length):  # time is the first axis of what is inside
        of_part = _known(part)
        if of_part is None:
            return None
        return tuple(pt.moveaxis(pt.broadcast_to(p, (length, *series)), 0, -1) for p in of_part)

    first, innovation = rv.owner.inputs[:2]
    steps = known(innovation, n_time - 1)
    if steps is None:
        return None
    location, scale = steps
    return Steps(location, [pt.ones(())], scale, known(first, 1))


def _of_autoregression(rv):
    op = rv.owner.op
    rhos, sigma, first = rv.owner.inputs[:3]
    n_constant = int(op.constant_term)
    location = rhos[..., 0, None] if n_constant else pt.zeros(())
    lags = [rhos[..., n_constant + k, None] for k in range(op.ar_order)]
    return Steps(location, lags, sigma[..., None], _known(first))


def _of_diffusion(rv, series):
    """Of a drift that is linear in the state, or else of its tangent where it starts."""
    op, (first, _, *parameters, _) = rv.owner.op, rv.owner.inputs
    start = _known(first)
    if start is None:
        return None
    at = pt.broadcast_to(start[0], series).astype(rv.dtype)
    drift, diffusion = op.sde_fn(at, *parameters)
    drift = pt.as_tensor(drift)
    slope = pytensor.grad(drift.sum(), at, disconnected_inputs="ignore")
    location = op.dt * (drift - slope * at)
    scale = pt.sqrt(op.dt) * diffusion
    values = (pt.as_tensor(one)[..., None] for one in (location, 1 + op.dt * slope, scale))
    location, lag, scale = values
    return Steps(location, [lag], scale, tuple(pt.as_tensor(one)[..., None] for one in start))


def _known(rv):
    """Location and scale of a distribution inside a family, or None."""
    if rv.owner is None or getattr(rv.owner.op, "ndim_supp", 1) > 0:
        return None
    return location_scale(rv.owner.op, rv, None)


class Sums(NamedTuple):
    """Cumulative sums that a variable enters: where, and what of the steps is known before."""

    output: Any
    time: int  # axis of the output
    start: Any  # what is summed before the variable comes in, or None
    skipped: Any  # so many steps of the output come before
    before: Effect


def _of_sums(model, rv, shape):
    """Return the chain that cumulative sums of a normal variable are."""
    clients = clients_of(model)
    found = next(_sums(rv, clients), None)
    if found is None or sorted(map(str, found.before.axes)) != [str(i) for i in range(len(shape))]:
        return None
    time = found.before.axes[found.time]
    last = len(shape) == 2 and time == 0
    n_time = shape[time]
    if n_time < 2:
        return None

    def by_series(values):  # of the variable
        values = pt.broadcast_to(values, shape)
        return (values.T if last else values).reshape((-1, n_time))

    axes = found.before.axes

    def by_series_of(sums, values):  # of the output
        axis, values = sums.time, pt.as_tensor(values)
        values = pt.atleast_Nd(values, n=len(shape))
        if not values.type.broadcastable[axis]:
            here = slice(sums.skipped, sums.skipped + n_time)
            values = values[(slice(None),) * axis + (here,)]
        values = pt.broadcast_to(values, [shape[i] for i in axes])
        return pt.moveaxis(values, axis, -1).reshape((-1, n_time))

    mean, deviation = rv.owner.op.dist_params(rv.owner)
    added, factor = found.before.added, found.before.factor
    factor = pt.ones(()) if factor is None else factor
    offset = by_series(factor * mean if added is None else added + factor * mean)
    scale = by_series(factor * deviation)
    batch = math.prod(shape) // n_time
    lags = [pt.ones((batch, n_time), dtype=rv.dtype)]
    if found.start is not None:
        start = pt.broadcast_to(found.start, offset[:, 0].shape)
        offset = pt.inc_subtensor(offset[:, 0], start)
    again = next(_sums(found.output, clients), None)
    if again is not None and _may_sum_again(found, again):
        added, factor = (
            by_series_of(found, nothing if one is None else one)
            for one, nothing in zip(
                (again.before.added, again.before.factor), (0.0, 1.0), strict=True
            )
        )
        change = pt.concatenate([added[:, :1], added[:, 1:] - added[:, :-1]], axis=-1)
        offset, scale = change + factor * offset, factor * scale
        if again.start is not None:
            start = pt.broadcast_to(again.start, offset[:, 0].shape)
            offset = pt.inc_subtensor(offset[:, 0], start)
            # the second step counts from the first sum alone, which the start is not of
            offset = pt.inc_subtensor(offset[:, 1], -start)
        lags = [2 * lags[0], -lags[0]]
        found = again
    output = found.output
    seen = best(ways(output, Effect(tuple(range(output.ndim))), clients, output.ndim))
    added, factor = (
        by_series_of(found, nothing if one is None else one)
        for one, nothing in zip((seen.added, seen.factor), (0.0, 1.0), strict=True)
    )
    coefs = pt.stack(lags, axis=-2)
    prior = mean, deviation
    order = len(lags)
    return ChainPrior(
        offset, coefs, scale, added, factor, batch, n_time, order, False, last=last, prior=prior
    )


def _sums(variable, clients):
    """Yield the cumulative sums that a variable enters, alone or behind what it is joined to."""
    ndim = variable.ndim
    for before, here, _ in ways(variable, Effect(tuple(range(ndim))), clients, ndim):
        if not before.whole or before.picked:
            continue
        for node, i in clients.get(here, ()):
            if _is_sum(node.op):
                yield Sums(node.outputs[0], _axis(node.op, here), None, 0, before)
            if isinstance(node.op, Join):
                axis = node.op.axis % here.ndim
                for after, _ in clients.get(node.outputs[0], ()):
                    if _is_sum(after.op) and _axis(after.op, here) == axis:
                        yield from _joined(node.inputs[:i], after, axis, before)


def _joined(earlier, after, axis, before):
    """Yield sums of what a variable is joined to, where lengths are known."""
    lengths = [_length(one, axis) for one in earlier]
    if None not in lengths:
        start = sum((one.sum(axis=axis) for one in earlier), pt.zeros(()))
        yield Sums(after.outputs[0], axis, start, sum(lengths), before)


def _length(variable, axis):
    """Length of an axis; None where it is not constant."""
    try:
        return int(constant_fold([variable.shape[axis]])[0])
    except NotConstantValueError:
        return None


def _is_sum(op):
    return isinstance(op, CumOp) and op.mode == "add"


def _axis(op, variable):
    return 0 if op.axis is None else op.axis % variable.ndim


def _may_sum_again(first, again):
    """Tell whether sums of sums are a chain of two lags: same time, factors that stay."""
    factor = again.before.factor
    constant = factor is None or factor.type.broadcastable[again.time]
    return (
        first.time == again.time
        and constant
        and again.before.axes == tuple(range(first.output.ndim))
    )
