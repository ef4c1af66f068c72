"""Posterior mass where the approximation has none: what weights of its own draws cannot show."""

from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.family import modes
from pymc_isomix.model import starts
from pymc_isomix.model.periodic import wrap
from pymc_isomix.sampling.progress import LateProgress

LARGEST_DIMENSION = 300  # above, Hessians would cost too much
ASCENT_STEPS, NEWTON_STEPS = 60, 10
FIRST_STEP = 0.5  # standard deviations
LENGTHS = 4.0 ** np.arange(-3, 4)  # of a step, all tried at once
MEMORY = 8  # steps that L-BFGS remembers
DRAWS = 500  # around each mode found
DEGREES_OF_FREEDOM = 5
UNCOVERED = np.log(20)  # nats by which log q lies below the posterior where it has next to no mass
TINY = 1e-200  # a product whose inverse is finite
SAME_END, SAME_MODE = 0.02, 0.1  # standard deviations a dimension: before and after Newton steps
AROUND = 3.0, 100.0  # standard deviations from the centre, under an improper prior
NEAREST = 5  # components, to which a mode may be joined
FLAT = 1e-2  # largest slope at a mode, in nats a standard deviation
LEVEL = 0.5  # the same, at the end of an ascent in many dimensions
STEP = 1e-4  # of finite differences, in standard deviations


class MissingMass(NamedTuple):
    """What ascents from spread starts found."""

    share: float = np.nan  # of the posterior, outside the approximation; NaN: not looked for
    n_ascents: int = 0
    n_reached: int = 0  # ascents that ended at a mode, the approximation's or another


NOT_LOOKED_FOR = MissingMass()


def missing_mass(
    compiled, mixture, log_evidence, n_probes, rng, *, periodic=None, progressbar=False
):
    r"""Estimate the share of the posterior that the approximation misses.

    Climbs the log density from spread starts: prior draws (where a prior is improper, jittered
    initial points, and points three to a hundred standard deviations away). Around each mode found,
    draws from a Student t with its curvature estimate the posterior mass of where q is less than a
    twentieth of the posterior density. What is no proper mode, a density without bound as in a
    funnel for example, does not count; nor does a mode that no valley of the log density divides
    from the nearest components: there q is poor, as weights and transitions tell, but no mode is
    missing.

    Parameters
    ----------
    compiled : CompiledModel
    mixture : BlockMixture
    log_evidence : float
        Log mass under the approximation's own draws, nats.
    n_probes : int
    rng : numpy.random.Generator
    periodic : (d,) booleans, optional
        Dimensions that are angles, all turns of which are one place.
    progressbar : bool
        Show progress, where it takes longer than two seconds.

    Returns
    -------
    MissingMass
        Its share is NaN where the evidence is unknown. Above 300 dimensions a mode's mass is taken
        for that of a Gaussian as wide as the mixture's components: it tells much from little.
    """
    n_dim = mixture.n_dim
    if not np.isfinite(log_evidence):
        return NOT_LOOKED_FOR
    centre = mixture.mean
    scaled = mixture.sketch.scaled  # whitened: one sd is 1
    metric = scaled.metric

    def at(points):
        return centre + scaled.unwhiten(points)

    def climb(points):
        """Negative log density and gradient at whitened points (S, d)."""
        log_p, gradient = compiled.log_density_and_gradient(at(points))
        return -log_p, -(gradient @ metric if metric.ndim == 2 else gradient * metric)

    def excess(log_p, points):
        return log_p - log_evidence - mixture.log_density(at(points))

    lowest = mixture.log_density(scaled.means).max() - n_dim  # of nearly all draws from q

    def arrived(log_p, points):
        """Whether all ascents are where q has draws, and as much mass as the posterior."""
        covered = excess(log_p, points) <= UNCOVERED
        return np.all(covered & (mixture.log_density(at(points)) > lowest))

    with np.errstate(all="ignore"):  # starts may be astronomically far
        spread = _spread_starts(compiled, scaled, n_probes, rng)
        with LateProgress("Ascents", ASCENT_STEPS, disable=not progressbar) as progress:
            begin = scaled.whiten(spread - centre)
            ends = _ascend(climb, begin, progress.update, arrived)
        if periodic is not None and periodic.any():  # all turns of an angle are one place
            ends = scaled.whiten(wrap(at(ends), centre, periodic) - centre)
        log_p = -climb(ends)[0]
        above = excess(log_p, ends)
        outside, inside = ends[above > UNCOVERED], np.isfinite(log_p) & (above <= UNCOVERED)
        distinct = _distinct(outside, SAME_END)
        around_end = _student_around if n_dim <= LARGEST_DIMENSION else _as_wide_as_the_mixture
        found = [around_end(climb, end) for end in distinct]
        at_modes = [found[i] is not None for i in _nearest(outside, distinct)]
        n_reached = int(inside.sum()) + sum(at_modes)
        components = scaled.whiten(scaled.means - centre)[~modes.is_dead(mixture)]
        log_masses = [-np.inf]
        for around in _distinct_modes([around for around in found if around is not None]):
            if not _is_apart(climb, around.loc, components):
                continue
            log_volume = np.log(np.abs(_diagonal(metric, n_dim))).sum()
            if n_dim > LARGEST_DIMENSION:  # draws would tell nothing
                log_p = -climb(around.loc[None])[0][0]
                log_masses.append(log_p + log_volume + 0.5 * n_dim * np.log(2 * np.pi))
                continue
            draws = around.rvs(DRAWS, random_state=rng).reshape(DRAWS, n_dim)
            log_p = compiled.log_density(at(draws))
            uncovered = excess(log_p, draws) > UNCOVERED
            log_g = around.logpdf(draws) - log_volume
            log_ratio = np.where(np.isfinite(log_p) & uncovered, log_p - log_g, -np.inf)
            log_masses.append(scipy.special.logsumexp(log_ratio) - np.log(DRAWS))
        relative = np.exp(min(scipy.special.logsumexp(log_masses) - log_evidence, 50.0))
    return MissingMass(float(relative / (1 + relative)), n_probes, n_reached)


class AsWide(NamedTuple):
    """A mode of which no more is known than its place."""

    loc: np.ndarray


def _as_wide_as_the_mixture(climb, mode):
    """Take the end of an ascent for a mode, if it is level there."""
    slopes = climb(mode[None])[1]
    return AsWide(mode) if np.abs(slopes).max() < LEVEL else None


def _diagonal(metric, n_dim):
    return np.diag(metric) if metric.ndim == 2 else np.broadcast_to(metric, (n_dim,))


def _is_apart(climb, mode, components):
    """Tell whether a valley divides a mode from all of the components nearest to it."""
    distance = np.linalg.norm(components - mode, axis=1)
    for component in components[np.argsort(distance)[:NEAREST]]:
        along = component + modes.POINTS[:, None] * (mode - component)
        log_p = -climb(np.concatenate([along, mode[None], component[None]]))[0]
        between, ends = log_p[:-2], log_p[-2:]
        # a component outside the support says nothing
        if np.isfinite(ends).all() and between.min() > ends.min() - modes.VALLEY:
            return False
    return True


def _nearest(points, others):
    """Place of the nearest of ``others`` for each point."""
    return [int(np.argmin([np.linalg.norm(point - o) for o in others])) for point in points]


def _spread_starts(compiled, mixture, n_probes, rng):
    """Prior draws; under an improper prior jittered initial points, and points all around q.

    Returns
    -------
    (S, d) array
        Coordinates y.
    """
    options = {"random_seed": int(rng.integers(2**30))}
    try:
        prior = starts.starting_means(compiled.space, n_probes, init="prior", **options)
        return compiled.from_unconstrained(prior)
    except ValueError:  # an improper prior
        n_around = n_probes // 2
        near = starts.starting_means(
            compiled.space, n_probes - n_around, init="jitter", init_width=2.0, **options
        )
        reach = np.exp(rng.uniform(*np.log(AROUND), size=(n_around, 1)))
        around = mixture.unwhiten(reach * rng.normal(size=(n_around, mixture.n_dim)))
        return np.concatenate([compiled.from_unconstrained(near), mixture.mean + around])


def _ascend(climb, points, tell=lambda done: None, arrived=lambda log_p, points: False):
    """End points (S, d) of local ascents, all at once: L-BFGS, with a line search of all lengths.

    Prior draws may lie thousands of standard deviations away, so that first steps are a fraction of
    the distance. Along a line the first top is taken, lest an ascent leave its basin. They end
    where all are flat, or have arrived, as ``arrived`` tells.

    References
    ----------
    .. [1] Nocedal and Wright (2006), Numerical optimization, 2nd edition, algorithm 7.4.
    """
    size = np.maximum(np.abs(points).max(axis=1) / 10, FIRST_STEP)
    heights, slopes = climb(points)
    memory: list[tuple] = []  # steps, changes of the slope, and the inverse of their product
    rows = np.arange(len(points))
    for i in range(ASCENT_STEPS):
        flat = np.abs(slopes).max(axis=1) < FLAT
        if flat.all() or arrived(-heights, points):
            break
        direction = _downhill(slopes, memory, size)
        ahead = points[:, None] + LENGTHS[:, None] * direction[:, None]  # (S, n, d)
        shape = ahead.shape
        at, there = climb(ahead.reshape(-1, shape[2]))
        at, there = at.reshape(shape[:2]), there.reshape(shape)
        at = np.where(np.isfinite(at) & np.isfinite(there).all(axis=2), at, np.inf)
        rises = np.ones(shape[:2], dtype=bool)  # from here to the next, or the last
        rises[:, :-1] = at[:, 1:] >= at[:, :-1]
        first = rises.argmax(axis=1)
        moved = at[rows, first] < heights  # NaN, of a start outside the support, stays where it is
        new, new_slopes = (
            np.where(moved[:, None], found[rows, first], old)
            for found, old in ((ahead, points), (there, slopes))
        )
        step, change = new - points, new_slopes - slopes
        size = np.where(moved, np.linalg.norm(step, axis=1), size * LENGTHS[0] ** 2)
        product = (step * change).sum(axis=1)
        convex = product > TINY
        memory = [
            (old_step, old_change, np.where(moved, inverse, 0.0))
            for old_step, old_change, inverse in memory[1 - MEMORY :]
        ]
        memory.append((step, change, np.where(convex, 1 / np.where(convex, product, 1.0), 0.0)))
        points, slopes = new, new_slopes
        heights = np.where(moved, at[rows, first], heights)
        tell(i + 1)
    return points


def _downhill(slopes, memory, size):
    """Directions (S, d) by L-BFGS; where nothing is remembered, down the slope by ``size``."""
    direction, factors = -slopes, []
    for step, change, inverse in reversed(memory):
        factor = inverse * (step * direction).sum(axis=1)
        direction = direction - factor[:, None] * change
        factors.append(factor)
    scale = size / np.maximum(np.linalg.norm(slopes, axis=1), 1e-300)
    for _, change, inverse in memory:  # the latest that counts
        known = inverse > 0
        squared = (change**2).sum(axis=1) * inverse
        scale = np.where(known, 1 / np.where(known, squared, 1.0), scale)
    direction = direction * scale[:, None]
    for (step, change, inverse), factor in zip(memory, reversed(factors), strict=True):
        back = factor - inverse * (change * direction).sum(axis=1)
        direction = direction + back[:, None] * step
    return np.nan_to_num(direction)


def _distinct(points, limit):
    """Keep one of each group of neighbours, by their distance a square root of d."""
    kept: list[np.ndarray] = []
    for point in points:
        if all(np.linalg.norm(point - other) > limit * np.sqrt(len(point)) for other in kept):
            kept.append(point)
    return kept


def _distinct_modes(modes):
    """Keep one Student t of each mode: ends of ascents may have been apart on the way to it."""
    kept = _distinct([mode.loc for mode in modes], SAME_MODE)
    return [next(mode for mode in modes if mode.loc is loc) for loc in kept]


def _student_around(climb, mode):
    """Climb the rest by Newton steps; a Student t with the curvature there, or None.

    None where there is no proper mode.
    """
    n_dim = len(mode)
    steps = STEP * np.eye(n_dim)
    for _ in range(NEWTON_STEPS):
        _, slopes = climb(np.concatenate([mode + steps, mode - steps, mode[None]]))
        if not np.all(np.isfinite(slopes)):
            return None
        curvature = (slopes[:n_dim] - slopes[n_dim:-1]) / (2 * STEP)
        try:
            lower = scipy.linalg.cholesky((curvature + curvature.T) / 2, lower=True)
        except np.linalg.LinAlgError:
            return None
        root = scipy.linalg.solve_triangular(lower, np.eye(n_dim), lower=True)
        # what is left to climb, in nats a standard deviation of the mode itself
        if np.abs(root @ slopes[-1]).max() < FLAT:
            try:
                return scipy.stats.multivariate_t(mode, root.T @ root, df=DEGREES_OF_FREEDOM)
            except np.linalg.LinAlgError:  # deep in the neck of a funnel, too thin for SciPy
                return None
        mode = mode - root.T @ (root @ slopes[-1])
    return None
