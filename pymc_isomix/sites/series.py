"""Chains in the model graph: walks, autoregressions, discretised diffusions, sums of noise."""

import math
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.custom import CustomSymbolicDistRV
from pymc.distributions.timeseries import AutoRegressiveRV, EulerMaruyamaRV, RandomWalkRV
from pymc.exceptions import NotConstantValueError
from pymc.pytensorf import constant_fold
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scan.op import Scan
from pytensor.tensor.basic import Join
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.random import basic
from pytensor.tensor.subtensor import Subtensor, indices_from_subtensor

from pymc_isomix.backend.arrays import Values
from pymc_isomix.sites.families import location_scale
from pymc_isomix.sites.usage import Effect, best, clients_of, constant_of, follow, noise_scale, ways

CHAINS = (RandomWalkRV, AutoRegressiveRV, EulerMaruyamaRV)


class ChainPrior(NamedTuple):
    """A chain of B series and T steps in the model's graph, and its observation.

    As in :class:`pymc_isomix.sites.chains.Chain`, coefficients are (B, p, T) and the other
    expressions (B, T). ``noise`` is None if it is unknown.
    """

    offset: Any
    coefs: Any
    scale: Any
    added: Any
    factor: Any
    noise: Any
    batch: int
    n_time: int
    order: int
    centred: bool
    last: bool = False  # whether series are the last axis of the variable
    prior: tuple = (0.0, 1.0)  # location and scale that standardise its noise
    part: slice | None = None  # part of the variable, if not all of it
    slope: Any = None  # the other variable of a trend
    woven: Any = None  # places of the elements among those of variable and slope


class Steps(NamedTuple):
    """Location, coefficients of the lags, and scale of the steps of a family.

    They broadcast to (..., T). ``first`` is the location and scale of the first values, if known.
    """

    location: Any
    lags: list
    scale: Any
    first: tuple | None


def chain_prior(model: pm.Model, rv: Values, shape: tuple, sums: int = 2) -> ChainPrior | None:
    """Return the chain of a variable or of its cumulative sums, or None.

    Parameters
    ----------
    model : pymc.Model
    rv : TensorVariable
    shape : tuple of int
        Of ``rv``.
    sums : int
        Largest number of successive sums.
    """
    if model.rvs_to_transforms[rv] is not None or len(shape) == 0:
        return None
    if isinstance(rv.owner.op, basic.NormalRV):
        return _of_sums(model, rv, shape, sums) if len(shape) <= 2 else None
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
    elif (
        not series and later >= order
    ):  # starts from its first value, which may have any distribution
        part, n_time = slice(order, None), later
        for k in range(1, order + 1):
            known = coefs[:, k - 1, :k] * rv[order - k : order]
            offset = pt.inc_subtensor(offset[:, :k], known)
    else:
        return None
    seen = zip(follow(model, rv, shape), (0.0, 1.0), strict=True)
    noise = noise_scale(rv, clients_of(model))
    whole = [pt.broadcast_to(nothing if one is None else one, shape) for one, nothing in seen]
    whole += [] if noise is None else [pt.broadcast_to(noise, shape)]
    seen_as = [by_series(one if part is None else one[part], n_time) for one in whole]
    added, factor, noise = (*seen_as, None)[:3]
    batch, of_time = math.prod(series), (added, factor, noise)
    return ChainPrior(offset, coefs, scale, *of_time, batch, n_time, order, True, part=part)


def _steps(rv, series, n_time):
    """Return the steps of a family of chains, else None."""
    op = rv.owner.op
    if isinstance(op, RandomWalkRV):
        return _of_walk(rv, series, n_time)
    if isinstance(op, AutoRegressiveRV):
        return _of_autoregression(rv)
    return _of_diffusion(rv, series) if isinstance(op, EulerMaruyamaRV) else None


def _of_walk(rv, series, n_time):
    if rv.owner.op.ndim_supp > 1:
        return None

    def known(part, length):  # time is the first axis inside
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
    """Return the steps of a diffusion, with the tangent at the start for a nonlinear drift."""
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


def is_scanned(model: pm.Model, rv: Values) -> bool:
    """Tell whether a scan makes a variable, or runs along it."""
    is_custom = isinstance(rv.owner.op, CustomSymbolicDistRV)  # PyMC's own draw by scans, too
    if is_custom and any(isinstance(node.op, Scan) for node in rv.owner.op.fgraph.apply_nodes):
        return True
    outputs = [*model.basic_RVs, *model.deterministics, *model.potentials]
    scans = [node for node in toposort(outputs) if isinstance(node.op, Scan)]
    sequences = [one for node in scans for one in node.op.outer_seqs(node.inputs)]
    return rv in set(ancestors(sequences, blockers=model.free_RVs))


def trend_prior(model: pm.Model, rv: Values, shapes: dict) -> ChainPrior | None:
    """Return the joint chain of a variable and its slope, which is itself a chain, or None.

    This is a local linear trend: a walk whose drift is a second walk, or sums of noise and of sums
    of noise. Two steps of two lags represent one step of both.

    Parameters
    ----------
    model : pymc.Model
    rv : TensorVariable
        The level.
    shapes : dict of TensorVariable to tuple of int
        Shapes of all variables that may be the slope.
    """
    if isinstance(rv.owner.op, RandomWalkRV):
        return _trend_of_walks(model, rv, shapes)
    if isinstance(rv.owner.op, basic.NormalRV) and model.rvs_to_transforms[rv] is None:
        return _trend_of_sums(model, rv, shapes)
    return None


def _trend_of_walks(model, rv, shapes):
    shape, innovation = shapes[rv], rv.owner.inputs[1]
    if len(shape) != 1 or not isinstance(innovation.owner.op, basic.NormalRV):
        return None
    drift = innovation.owner.op.dist_params(innovation.owner)[0]
    n_time = shape[0]
    rows = _rows(drift.owner, n_time)
    if rows is None:
        return None
    slope: Any = drift.owner.inputs[0]
    walks = slope in shapes and slope.owner and isinstance(slope.owner.op, RandomWalkRV)
    if not walks or shapes[slope] != shape:
        return None
    level, own = (chain_prior(model, one, shape) for one in (rv, slope))
    if level is None or own is None or level.part is not None or own.part is not None:
        return None
    later = pt.as_tensor((np.arange(n_time) > 0).astype(rv.dtype))[None]
    for lagged in (True, False):
        if np.array_equal(rows, np.arange(n_time - 1) + (not lagged)):
            return _trend(level, own, slope, later, lagged=lagged)
    return None


def _rows(node, n_time):
    """Return the steps (n,) that constant indices take of a variable (T,), else None."""
    if node is None or not isinstance(node.op, Subtensor):
        return None
    _, *index = node.inputs
    if any(not isinstance(i, Constant) for i in index):
        return None
    where: list = [int(i.data) for i in index]
    chosen: Any = indices_from_subtensor(where, node.op.idx_list)
    return np.arange(n_time)[tuple(chosen)]


def _trend_of_sums(model, rv, shapes):
    shape, clients = shapes[rv], clients_of(model)
    found = next(_sums(rv, clients), None) if len(shape) == 1 else None
    if found is None:
        return None
    for slope in shapes:
        is_noise = isinstance(slope.owner.op, basic.NormalRV) and shapes[slope] == shape
        if slope is rv or not is_noise:
            continue
        own = next(_sums(slope, clients), None)
        if own is None or own.skipped:
            continue
        for again, factor in _sums_of_now_or_before(own.output, shape, clients):
            if again.output is not found.output or again.skipped != found.skipped:
                continue
            lagged = factor is not None
            factor = _broadcast(again.before.factor, shape) * (factor if lagged else 1.0)
            level, steps = (chain_prior(model, one, shape, sums=1) for one in (rv, slope))
            if level is not None and steps is not None:
                return _trend(level, steps, slope, factor[None], lagged=lagged, sums=own.output)
    return None


def _broadcast(factor, shape):
    return pt.broadcast_to(pt.ones(()) if factor is None else factor, shape)


def _sums_of_now_or_before(variable, shape, clients):
    """Yield sums that a variable (T,) enters, with None, or one step later, with its factors."""
    if (now := next(_sums(variable, clients), None)) is not None:
        yield now, None
    for way, here, _ in ways(variable, Effect((0,)), clients, 1):
        if not way.whole or way.picked:
            continue
        for node, _ in clients.get(here, ()):
            if not np.array_equal(_rows(node, shape[0]), np.arange(shape[0] - 1)):
                continue
            factor = _broadcast(way.factor, shape)
            factor = pt.concatenate([pt.zeros_like(factor[:1]), factor[:-1]])
            for join, i in clients.get(node.outputs[0], ()):
                if isinstance(join.op, Join) and i == 1 and _is_one_zero(join.inputs[0]):
                    yield from ((sums, factor) for sums in _sums(join.outputs[0], clients))


def _is_one_zero(variable):
    return _length(variable, 0) == 1 and constant_of(variable) == 0


def _trend(level, own, slope, factor, *, lagged, sums=None):
    """Weave a level and its slope, given its factor in the steps of the level."""
    n_time = level.n_time
    known = sums if sums is not None else slope
    # without the slope, which is in the lags
    offset = graph_replace(
        [level.offset], {known: pt.zeros(n_time, dtype=known.dtype)}, strict=False
    )[0]
    nothing, one = pt.zeros_like(own.offset), pt.ones_like(own.offset)
    noise = one if level.noise is None else level.noise
    of_level = offset, factor, level.coefs[:, 0], level.scale, level.added, level.factor, noise
    of_slope = own.offset, nothing, own.coefs[:, 0], own.scale, nothing, nothing, one
    places = np.arange(n_time), np.arange(n_time) + n_time
    if not lagged:
        places = places[::-1]

    def weave(first, second):
        pair = (first, second) if lagged else (second, first)
        return pt.stack(pair, axis=-1).reshape((1, 2 * n_time))

    offset, slopes, lags, scale, added, seen, noise = map(weave, of_level, of_slope)
    lags *= np.concatenate([[0.0, 0.0], np.ones(2 * n_time - 2)]).astype(scale.dtype)
    prior = (0.0, 1.0)
    if not level.centred:
        both = zip(level.prior, own.prior, strict=True)
        prior = tuple(
            weave(*(pt.broadcast_to(pt.as_tensor(p), (n_time,))[None] for p in pair))[0]
            for pair in both
        )
    return ChainPrior(
        offset,
        pt.stack([slopes, lags], axis=-2),
        scale,
        added,
        seen,
        noise,
        1,
        2 * n_time,
        2,
        level.centred,
        prior=prior,
        slope=slope,
        woven=np.stack(places, axis=-1).ravel(),
    )


class Sums(NamedTuple):
    """Cumulative sums that a variable enters, and the known first steps."""

    output: Any
    time: int  # axis of the output
    start: Any  # sum before the variable enters, or None
    skipped: Any  # number of earlier steps of the output
    before: Effect


def _of_sums(model, rv, shape, most=2):
    """Return the chain of cumulative sums of a normal variable."""
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
    again = next(_sums(found.output, clients), None) if most > 1 else None
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
            # the second step counts only from the first sum, which excludes the start
            offset = pt.inc_subtensor(offset[:, 1], -start)
        lags = [2 * lags[0], -lags[0]]
        found = again
    output = found.output
    seen = best(ways(output, Effect(tuple(range(output.ndim))), clients, output.ndim))
    added, factor = (
        by_series_of(found, nothing if one is None else one)
        for one, nothing in zip((seen.added, seen.factor), (0.0, 1.0), strict=True)
    )
    noise = noise_scale(output, clients)
    of_time = added, factor, None if noise is None else by_series_of(found, noise)
    coefs = pt.stack(lags, axis=-2)
    prior = mean, deviation
    order = len(lags)
    return ChainPrior(
        offset, coefs, scale, *of_time, batch, n_time, order, False, last=last, prior=prior
    )


def _sums(variable, clients):
    """Yield the cumulative sums that a variable enters, alone or joined to others."""
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
    """Yield sums of joins of a variable, if lengths are known."""
    lengths = [_length(one, axis) for one in earlier]
    if None not in lengths:
        start = sum((one.sum(axis=axis) for one in earlier), pt.zeros(()))
        yield Sums(after.outputs[0], axis, start, sum(lengths), before)


def _length(variable, axis):
    """Length of an axis; None if it is not constant."""
    try:
        return int(constant_fold([variable.shape[axis]])[0])
    except NotConstantValueError:
        return None


def _is_sum(op):
    return isinstance(op, CumOp) and op.mode == "add"


def _axis(op, variable):
    return 0 if op.axis is None else op.axis % variable.ndim


def _may_sum_again(first, again):
    """Tell whether sums of sums are a chain of two lags: the same time axis, constant factors."""
    factor = again.before.factor
    constant = factor is None or factor.type.broadcastable[again.time]
    return (
        first.time == again.time
        and constant
        and again.before.axes == tuple(range(first.output.ndim))
    )
