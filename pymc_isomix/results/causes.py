"""Causes of a poor fit in the model or in the settings."""

from typing import NamedTuple

import numpy as np
import pymc as pm
from pymc.data import MinibatchOp
from pymc.variational.minibatch_rv import MinibatchRandomVariable
from pytensor.graph.traversal import ancestors

from pymc_isomix.fitting.record import GAUSSIAN, History
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.find import find_coordinates

SEGMENTS = 40  # between pairs of draws, on which jumps are looked for
PARTS = 16  # of each segment at first
HALVINGS = 20  # of the part with the largest jump
LEAST_JUMP = 0.1  # nats
ROUNDING = 1e3  # roundings of a log density that are no jump
NAMED = 5  # jumps whose variable is looked for
LARGEST_DIMENSION = 1000  # above, no matrix (d, d) of gradients
FLAT = 1e-6  # of the mean square slope of a typical direction
FAR = 10.0, 100.0  # standard deviations of the draws
FALL = 1.0  # nats that a proper posterior falls by, so far out
PART_OF_A_DIRECTION = 0.1  # of its largest part: less is not named
LONGEST_DIRECTION = 4  # dimensions
VAGUE = 10.0  # standard deviation of a logarithm or logit


class Causes(NamedTuple):
    """Causes that were found; each has its own remedy."""

    unfitted: bool = False
    jumps: tuple[tuple[str, float], ...] = ()  # variables, and the largest jump along each, nats
    flat: str = ""  # a direction along which the density does not fall
    without_total_size: tuple[str, ...] = ()  # observed variables of minibatches
    unused_sites: tuple[str, ...] = ()  # effects that coordinates="auto" would rescale
    vague: tuple[tuple[str, float], ...] = ()  # bounded variables, and their sd in z


NONE_FOUND = Causes()


def find_causes(
    compiled: CompiledModel,
    points: np.ndarray,
    gradient: np.ndarray,
    z: np.ndarray,
    history: History | None = None,
) -> Causes:
    """Look for causes of a poor fit.

    Parameters
    ----------
    gradient : (S, d) array
        Of the log density at the draws.
    z : (S, d) array
        The draws in unconstrained space.
    """
    affine = history is not None and history.settings.get("coordinates") == "affine"
    # a fit that ends with Gaussians has seen no minibatch: they take all the data
    took_minibatches = history is None or set(history.phase) != {GAUSSIAN}
    return Causes(
        unfitted=history is None or history.stop_reason == History.stop_reason,
        jumps=find_jumps(compiled, points),
        flat=flat_direction(compiled, points, gradient),
        without_total_size=without_total_size(compiled.model) if took_minibatches else (),
        unused_sites=sites_of(compiled.space) if affine else (),
        vague=vague_variables(compiled.space, z),
    )


def find_jumps(compiled: CompiledModel, points: np.ndarray) -> tuple:
    r"""Find variables along which the log density jumps, which its gradient does not show.

    The search bisects segments between pairs of draws. It keeps the half whose difference of values
    is furthest from the integral of the gradient by the trapezoidal rule,
    :math:`\log p(b) - \log p(a) - \tfrac12 (g_a + g_b) \cdot (b - a)`. Per halving this residual
    falls by a factor of eight for a smooth density and of two at a kink; at a jump it does not
    fall. The jump is assigned to the variable whose change alone explains most of it.

    Returns
    -------
    tuple of (name, nats)
        The largest jump of each variable, largest first.
    """
    n = min(SEGMENTS, len(points) // 2)
    if not n:
        return ()
    first, last = points[:n].astype(float), points[n : 2 * n].astype(float)
    at = first[:, None] + np.linspace(0, 1, PARTS + 1)[:, None] * (last - first)[:, None]
    values = _evaluate(compiled, at.reshape(-1, at.shape[2]))
    values = [value.reshape(n, PARTS + 1, *value.shape[1:]) for value in values]
    rows = np.arange(n)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = [(a[:, :-1], a[:, 1:]) for a in (at, *values)]
        worst = np.argmax(_unexplained(*ends), axis=1)
        a, b = ([end[side][rows, worst] for end in ends] for side in (0, 1))
        for _ in range(HALVINGS):
            middle = 0.5 * (a[0] + b[0])
            m = [middle, *_evaluate(compiled, middle)]
            halves = [_unexplained(*zip(*pair, strict=True)) for pair in ((a, m), (m, b))]
            in_first = halves[0] >= halves[1]
            a = [_where(in_first, old, new) for old, new in zip(a, m, strict=True)]
            b = [_where(in_first, new, old) for old, new in zip(b, m, strict=True)]
        sizes = _unexplained(*zip(a, b, strict=True))
        rounding = ROUNDING * np.finfo(compiled.dtype).eps * np.abs(a[1])
    jumps = np.where(sizes > np.maximum(LEAST_JUMP, rounding), sizes, 0.0)
    found: dict[str, float] = {}
    for i in np.argsort(-jumps)[:NAMED]:
        if jumps[i]:
            name = _variable_that_jumps(compiled, a[0][i], b[0][i])
            found[name] = max(found.get(name, 0.0), float(jumps[i]))
    return tuple(found.items())


def _evaluate(compiled, points):
    log_p, gradient = compiled.log_density_and_gradient(points)
    return np.asarray(log_p, dtype=float), np.asarray(gradient, dtype=float)


def _where(chosen, one, other):
    return np.where(chosen.reshape(-1, *(1,) * (one.ndim - 1)), one, other)


def _unexplained(at, log_p, gradient):
    """Part of a difference of values that gradients leave; 0 at the edge of the support."""
    step = at[1] - at[0]
    explained = 0.5 * ((gradient[0] + gradient[1]) * step).sum(axis=-1)
    return np.nan_to_num(np.abs(log_p[1] - log_p[0] - explained), nan=0.0, posinf=0.0)


def _variable_that_jumps(compiled, a, b):
    """Name of the variable whose value, taken from b alone, changes the density at a the most."""
    places = [place for _, place, _, _ in compiled.space.ordering.values()]
    at = np.repeat(a[None], len(places) + 1, axis=0)
    for row, place in enumerate(places):
        at[row, place] = b[place]
    log_p = compiled.log_density(at)
    name = [*compiled.space.ordering][int(np.argmax(np.abs(log_p[:-1] - log_p[-1])))]
    rv = compiled.space.variables.get(name)
    return name if rv is None else rv.name


def flat_direction(compiled: CompiledModel, points: np.ndarray, gradient: np.ndarray) -> str:
    r"""Find a direction along which the log density does not fall: "a - b", or nothing.

    The direction is that in which the gradients of the draws, :math:`\mathbb E[g g^T]` with each
    dimension in its own unit, have next to no part. It counts if the density a hundred of the
    draws' standard deviations out, on either side, is no more than a nat below that at draws.
    """
    n_dim = points.shape[1]
    finite = np.isfinite(gradient).all(axis=1)
    if n_dim > LARGEST_DIMENSION or finite.sum() < 2:
        return ""
    slopes = gradient[finite].astype(float)
    unit = np.sqrt((slopes**2).mean(axis=0))
    if not np.isfinite(unit).all():
        return ""
    if (unit == 0).any():
        direction = (unit == 0).astype(float) * (np.cumsum(unit == 0) == 1)  # the first of them
    else:
        scaled = slopes / unit
        values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        if values[0] > FLAT:
            return ""
        direction = vectors[:, 0] / unit
    direction /= np.linalg.norm(direction)
    reach = points[finite].astype(float)
    along = (reach @ direction).std()
    base = reach[: min(len(reach), NAMED)]
    t = along * np.array([*FAR, *(-far for far in FAR)])
    away = base[:, None] + t[:, None] * direction
    with np.errstate(all="ignore"):
        log_p = compiled.log_density(away.reshape(-1, n_dim)).reshape(len(base), -1)
        here = compiled.log_density(base)[:, None]
        # the last digits of an extremely small density mean nothing
        allowed = FALL + ROUNDING * np.finfo(compiled.dtype).eps * np.abs(here)
        falls = here - log_p
    if not np.all(np.isfinite(falls) & (np.abs(falls) <= allowed)):
        return ""
    return _in_words(direction, compiled.space.labels)


def _in_words(direction, labels):
    largest = np.abs(direction).max()
    by_size = np.argsort(-np.abs(direction), kind="stable")
    order = [i for i in by_size if np.abs(direction[i]) > PART_OF_A_DIRECTION * largest]
    sign = np.sign(direction[order[0]])
    words = ""
    for i in order[:LONGEST_DIRECTION]:
        size = np.abs(direction[i]) / largest
        part = str(labels[i]) if size > 0.99 else f"{size:.2g} {labels[i]}"
        minus = sign * direction[i] < 0
        words += (" - " if minus else " + ") * bool(words) + part
    return words + " ..." * (len(order) > LONGEST_DIRECTION)


def without_total_size(model: pm.Model) -> tuple:
    """Names of observed variables with minibatches and no ``total_size``."""
    return tuple(
        rv.name
        for rv in model.observed_RVs
        if not (rv.owner and isinstance(rv.owner.op, MinibatchRandomVariable))
        and any(
            v.owner and isinstance(v.owner.op, MinibatchOp)
            for v in ancestors([rv, model.rvs_to_values[rv]])
        )
    )


def vague_variables(space: FlatSpace, z: np.ndarray) -> tuple:
    """Name variables with bounds that spread over many orders of magnitude, with their sd in z.

    The data say next to nothing of such a variable, and neither does its prior: Gamma(.01, .01)
    has a logarithm with a standard deviation of 100.
    """
    found = []
    for name, (_, place, _, _) in space.ordering.items():
        rv = space.variables[name]
        sd = np.max(z[:, place].std(axis=0), initial=0.0)
        if space.model.rvs_to_transforms[rv] is not None and sd > VAGUE:
            found.append((rv.name, float(sd)))
    return tuple(found)


def sites_of(space: FlatSpace) -> tuple[str, ...]:
    """Names of the variables that ``coordinates="auto"`` would treat as sites."""
    sites = find_coordinates(space, log=False).sites
    return tuple(space.variables[site.name].name for site in sites)
