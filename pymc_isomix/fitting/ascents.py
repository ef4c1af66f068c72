"""Ascents of a log density from many starts in one batch, and the search for more starts."""

from collections.abc import Callable
from typing import Any

import numpy as np

MEMORY = 10  # steps that L-BFGS remembers
FIRST_STEP = 1.0  # length, at most, of a step without memory
ENOUGH = 1e-4  # of the rise that the slope predicts (Armijo's rule)
SHORTER, SHORTER_OUTSIDE = 0.3, 0.1  # factors for a refused step; if nothing is finite there
SHORTEST = 1e-8  # of a direction
SMALL, N_SMALL = 0.003, 3  # nats: an ascent ends after so many rises below this

TEMPERATURES, N_MOVES = (2.0, 100.0), 20  # of chains that look for modes; number of their moves
PROPOSAL = 2.4  # standard deviations at the chain's temperature, per root of d
POINTS_HOME = 0.9  # cosine between a gradient and the way home, above which a slope leads home
SEGMENT = np.linspace(0, 1, 17)[:-1]  # points to look for a valley between two places


def ascend(
    evaluate: Callable, points: np.ndarray, *, most: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Climb a log density from each point by L-BFGS, with one evaluation per iteration.

    Points outside the support stay where they are. Each call of ``evaluate`` has one row per
    unfinished ascent.

    Parameters
    ----------
    evaluate : callable
        From points (S, d) to log density (S,) and gradient (S, d).
    points : (S, d) array
        Starts.
    most : int
        Iterations.

    Returns
    -------
    points : (S, d) array
        Ends of the ascents.
    log_density : (S,) array
        At these points; ``-inf`` for starts outside the support.

    References
    ----------
    .. [1] Nocedal and Wright (2006), Numerical optimization, 2nd edition, algorithms 7.4 and 7.5.
    """
    points = np.array(points, dtype=float)
    n_points, n_dim = points.shape
    log_p, gradients = evaluate(points)
    going = _finite(log_p, gradients)
    log_p = np.where(going, log_p, -np.inf)
    gradients = np.where(going[:, None], gradients, 0.0)
    memory = _Memory(n_points, n_dim)
    directions, fractions = np.zeros_like(points), np.ones(n_points)
    turns = going.copy()  # ascents that need a new direction
    n_small = np.zeros(n_points, int)
    for _ in range(most):
        rows = np.flatnonzero(going)
        if not len(rows):
            break
        turning = rows[turns[rows]]
        directions[turning] = memory.direction(turning, gradients[turning])
        fractions[turning], turns[turning] = 1.0, False
        ahead = points[rows] + fractions[rows, None] * directions[rows]
        there, slopes = evaluate(ahead)
        finite = _finite(there, slopes)
        promised = fractions[rows] * (directions[rows] * gradients[rows]).sum(axis=1)
        rises = finite & (np.where(finite, there, -np.inf) >= log_p[rows] + ENOUGH * promised)

        moved, refused = rows[rises], rows[~rises]
        memory.add(moved, ahead[rises] - points[moved], gradients[moved] - slopes[rises])
        n_small[moved] = np.where(there[rises] - log_p[moved] < SMALL, n_small[moved] + 1, 0)
        points[moved], log_p[moved], gradients[moved] = ahead[rises], there[rises], slopes[rises]
        turns[moved] = True
        fractions[refused] *= np.where(finite[~rises], SHORTER, SHORTER_OUTSIDE)
        going[refused[fractions[refused] < SHORTEST]] = False
        going[moved[n_small[moved] >= N_SMALL]] = False
    return points, log_p


def explore(evaluate: Callable, homes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Look for slopes that lead elsewhere than home, by Metropolis chains at high temperatures.

    A chain of the density to the power 1/T crosses valleys that are T times as deep, and reaches
    sqrt(T) times as far. Among its proposed points, the one whose gradient points away from home
    the most is the best start of an ascent, because it lies on the slope of another mode.

    Parameters
    ----------
    evaluate : callable
        From points (S, d) to log density (S,) and gradient (S, d), in coordinates in which the
        mode at home has standard deviations of about one.
    homes : (C, d) array
        The known mode of each chain, from which it starts.

    Returns
    -------
    (S, d) array
        One point per chain that has found such a slope.
    """
    n_chains, n_dim = homes.shape
    temperatures = np.geomspace(*TEMPERATURES, n_chains)
    reach = np.sqrt(temperatures)[:, None]

    def look(points):
        log_p, gradients = evaluate(points)
        finite = _finite(log_p, gradients)
        way = homes - points
        lengths = np.linalg.norm(way, axis=1) * np.linalg.norm(gradients, axis=1)
        cosines = (way * gradients).sum(axis=1) / np.maximum(lengths, 1e-300)
        return np.where(finite, log_p, -np.inf), np.where(finite, cosines, np.inf)

    points = homes + reach * rng.normal(size=homes.shape)
    log_p, cosines = look(points)
    best, least = points, cosines
    for _ in range(N_MOVES):
        step = PROPOSAL / np.sqrt(n_dim) * reach * rng.normal(size=homes.shape)
        there, cosines = look(points + step)
        away = cosines < least
        best, least = np.where(away[:, None], points + step, best), np.minimum(cosines, least)
        with np.errstate(invalid="ignore"):  # from outside the support to outside
            accepted = ~(np.log(rng.random(n_chains)) > (there - log_p) / temperatures)
        points = np.where(accepted[:, None], points + step, points)
        log_p = np.where(accepted, there, log_p)
    return best[least < POINTS_HOME]


def is_apart(evaluate: Callable, end: np.ndarray, height: float, means: Any, valley: float) -> bool:
    """Tell whether a valley separates the end of an ascent from all given points.

    Parameters
    ----------
    evaluate : callable
    end : (d,) array
    height : float
        Log density there.
    means : (M, d) array
        Means outside the support are ignored.
    valley : float
        Depth, nats.
    """
    segments = [mean + SEGMENT[:, None] * (end - mean) for mean in means]
    log_p, _ = evaluate(np.concatenate(segments))
    log_p = np.where(np.isnan(log_p), -np.inf, log_p).reshape(len(means), -1)
    lower = np.minimum(log_p[:, 0], height)
    return bool((~np.isfinite(lower) | (log_p.min(axis=1) < lower - valley)).all())


class _Memory:
    """The memory of L-BFGS for S ascents: steps and changes of the gradient."""

    def __init__(self, n_points, n_dim):
        self.steps = np.zeros((MEMORY, n_points, n_dim))
        self.changes = np.zeros((MEMORY, n_points, n_dim))
        self.inverses = np.zeros((MEMORY, n_points))  # of their products
        self.scales = np.zeros(n_points)  # of the inverse Hessian; 0 where nothing is known

    def add(self, rows, steps, changes):
        """Remember a step of some ascents, and the fall of the gradient along it."""
        products = (steps * changes).sum(axis=1)
        lengths = np.linalg.norm(steps, axis=1) * np.linalg.norm(changes, axis=1)
        convex = products > 1e-10 * lengths
        updated = rows[convex]
        for store, new in (
            (self.steps, steps[convex]),
            (self.changes, changes[convex]),
            (self.inverses, 1 / products[convex]),
        ):
            store[:-1, updated] = store[1:, updated]
            store[-1, updated] = new
        self.scales[updated] = products[convex] / (changes[convex] ** 2).sum(axis=1)
        self.scales[rows[~convex]] *= 2  # the density curves upwards, so go farther

    def direction(self, rows, gradients):
        """Return directions of ascent (r, d) for some of the ascents."""
        direction, factors = gradients.copy(), []
        for i in reversed(range(MEMORY)):
            factor = self.inverses[i, rows] * (self.steps[i, rows] * direction).sum(axis=1)
            direction -= factor[:, None] * self.changes[i, rows]
            factors.append(factor)
        length = np.maximum(np.linalg.norm(gradients, axis=1), 1e-300)
        unknown = np.minimum(FIRST_STEP / length, 1.0)
        scales = self.scales[rows]
        direction *= np.where(scales > 0, scales, unknown)[:, None]
        for i, factor in zip(range(MEMORY), reversed(factors), strict=True):
            back = factor - self.inverses[i, rows] * (self.changes[i, rows] * direction).sum(axis=1)
            direction += back[:, None] * self.steps[i, rows]
        slope = (direction * gradients).sum(axis=1)
        wrong = ~(slope > 0) | ~np.isfinite(slope)
        direction[wrong] = gradients[wrong] * (FIRST_STEP / length[wrong])[:, None]
        return direction


def _finite(log_p, gradients):
    return np.isfinite(log_p) & np.isfinite(gradients).all(axis=1)
