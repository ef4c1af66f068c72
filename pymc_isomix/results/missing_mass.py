"""Posterior mass that the approximation lacks, which weights of its own draws cannot show."""

from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.family import metric as metrics
from pymc_isomix.family import modes
from pymc_isomix.fitting.ascents import ascend, explore, is_apart
from pymc_isomix.model import starts
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.periodic import wrap

LARGEST_DIMENSION = 300  # above, Hessians would cost too much
NEWTON_STEPS = 10
DRAWS = 500  # around each mode found
DEGREES_OF_FREEDOM = 5
UNCOVERED = np.log(20)  # nats of log q below the log posterior, where q has next to no mass
SAME = 0.1  # standard deviations per root of d between ends that count as one
AROUND = 3.0, 100.0  # standard deviations from the centre, under an improper prior
NEAREST = 5  # components that a mode may be part of
FLAT = 1e-2  # largest slope at a mode, in nats a standard deviation
LEVEL = 0.5  # the same for many dimensions
STEP = 1e-4  # of finite differences, in standard deviations


class MissingMass(NamedTuple):
    """The result of ascents from spread-out starts."""

    share: float = np.nan  # of the posterior, outside the approximation; NaN if not checked
    n_ascents: int = 0
    n_reached: int = 0  # ascents that ended at any mode


NOT_LOOKED_FOR = MissingMass()


def missing_mass(
    compiled: CompiledModel,
    mixture: Any,
    log_evidence: float,
    n_probes: int,
    rng: np.random.Generator,
    *,
    periodic: np.ndarray | None = None,
) -> MissingMass:
    r"""Estimate the share of the posterior that the approximation misses.

    The log density is climbed from spread-out starts: prior draws (for an improper prior, jittered
    initial points, and points 3 to 100 standard deviations away) and points of hot chains
    (:func:`pymc_isomix.fitting.ascents.explore`). Around each mode, draws from a Student t with its
    curvature estimate the posterior mass of the region where q is less than a twentieth of the
    posterior density. An unbounded density, as in a funnel, is not a mode. A mode that no valley of
    the log density separates from the nearest components is not missing: weights and transitions
    judge q there.

    Parameters
    ----------
    log_evidence : float
        Log mass under the approximation's own draws, nats.
    n_probes : int
        Number of spread-out starts, and of hot chains.
    periodic : (d,) booleans, optional
        Dimensions that are angles, whose turns are all one place.

    Returns
    -------
    MissingMass
        The share is NaN if the evidence is unknown. Above 300 dimensions the mass of a mode is that
        of a Gaussian as wide as the mixture's components, which is a rough estimate.
    """
    n_dim = mixture.n_dim
    if not np.isfinite(log_evidence):
        return NOT_LOOKED_FOR
    centre = mixture.mean
    scaled = mixture.sketch.scaled  # whitened: one sd is 1
    metric = scaled.metric
    components = scaled.whiten(scaled.means - centre)[~modes.is_dead(mixture)]

    def at(points):
        return centre + scaled.unwhiten(points)

    def evaluate(points):
        """Log density and gradient at whitened points (S, d)."""
        log_p, gradient = compiled.log_density_and_gradient(at(points))
        return log_p, metrics.whiten_gradient(metric, gradient)

    def excess(log_p, points):
        return log_p - log_evidence - mixture.log_density(at(points))

    with np.errstate(all="ignore"):  # starts may be extremely far away
        spread = scaled.whiten(_spread_starts(compiled, scaled, n_probes, rng) - centre)
        homes = components[rng.integers(len(components), size=n_probes)]
        ends, log_p = ascend(evaluate, np.concatenate([spread, explore(evaluate, homes, rng)]))
        if periodic is not None and periodic.any():  # all turns of an angle are one place
            ends = scaled.whiten(wrap(at(ends), centre, periodic) - centre)
        above = excess(log_p, ends)
        outside, inside = ends[above > UNCOVERED], np.isfinite(log_p) & (above <= UNCOVERED)
        distinct = _distinct(outside, SAME)
        around_end = _student_around if n_dim <= LARGEST_DIMENSION else _as_wide_as_the_mixture
        found = [around_end(evaluate, end) for end in distinct]
        at_modes = [found[i] is not None for i in _nearest(outside, distinct)]
        n_reached = int(inside.sum()) + sum(at_modes)
        log_masses = [-np.inf]
        for around in _distinct_modes([around for around in found if around is not None]):
            mode, [height] = around.loc, evaluate(around.loc[None])[0]
            nearest = np.argsort(np.linalg.norm(components - mode, axis=1))[:NEAREST]
            if not is_apart(evaluate, mode, height, components[nearest], modes.VALLEY):
                continue
            log_volume = metrics.log_determinant(metric, n_dim)
            if n_dim > LARGEST_DIMENSION:  # draws would not tell anything
                log_masses.append(height + log_volume + 0.5 * n_dim * np.log(2 * np.pi))
                continue
            draws = around.rvs(DRAWS, random_state=rng).reshape(DRAWS, n_dim)
            log_p = compiled.log_density(at(draws))
            uncovered = excess(log_p, draws) > UNCOVERED
            log_g = around.logpdf(draws) - log_volume
            log_ratio = np.where(np.isfinite(log_p) & uncovered, log_p - log_g, -np.inf)
            log_masses.append(scipy.special.logsumexp(log_ratio) - np.log(DRAWS))
        relative = np.exp(min(scipy.special.logsumexp(log_masses) - log_evidence, 50.0))
    return MissingMass(float(relative / (1 + relative)), len(ends), n_reached)


class AsWide(NamedTuple):
    """A mode of which only the place is known."""

    loc: np.ndarray


def _as_wide_as_the_mixture(evaluate, mode):
    """Return the end of an ascent as a mode if the density is level there."""
    slopes = evaluate(mode[None])[1]
    return AsWide(mode) if np.abs(slopes).max() < LEVEL else None


def _nearest(points, others):
    """Place of the nearest of ``others`` for each point."""
    return [int(np.argmin([np.linalg.norm(point - o) for o in others])) for point in points]


def _spread_starts(compiled, mixture, n_probes, rng):
    """Return prior draws; for an improper prior, jittered initial points and points around q.

    A chain in time is not drawn from its prior, which may explode, and which takes PyMC a second
    for 3000 steps, but from its conditional in the coordinates, given prior draws of the rest.

    Returns
    -------
    (S, d) array
        Coordinates y.
    """
    options = {"random_seed": int(rng.integers(2**30))}
    space, start, of_chains = compiled.space, {}, np.zeros(mixture.n_dim, bool)
    if compiled.coordinates and compiled.coordinates.map.has_chains:
        of_chains = compiled.coordinates.map.of_chains
        names = [n for s in compiled.coordinates.map.sites if s.form.is_chain for n in s.variables]
        start = {space.variables[n].name: np.zeros(space.ordering[n][2]) for n in names}
    try:
        prior = starts.starting_means(space, n_probes, start=start or None, init="prior", **options)
        y = compiled.from_unconstrained(prior)
        y[:, of_chains] = rng.normal(size=(n_probes, of_chains.sum()))
        return y
    except ValueError:  # an improper prior
        n_around = n_probes // 2
        near = starts.starting_means(
            compiled.space, n_probes - n_around, init="jitter", init_width=2.0, **options
        )
        reach = np.exp(rng.uniform(*np.log(AROUND), size=(n_around, 1)))
        around = mixture.unwhiten(reach * rng.normal(size=(n_around, mixture.n_dim)))
        return np.concatenate([compiled.from_unconstrained(near), mixture.mean + around])


def _distinct(points, limit):
    """Keep one point per group of neighbours, by their distance divided by the square root of d."""
    distinct: list[np.ndarray] = []
    for point in points:
        if all(np.linalg.norm(point - other) > limit * np.sqrt(len(point)) for other in distinct):
            distinct.append(point)
    return distinct


def _distinct_modes(modes):
    """Keep one Student t per mode, because ascents to one mode may have ended apart."""
    distinct = _distinct([mode.loc for mode in modes], SAME)
    return [next(mode for mode in modes if mode.loc is loc) for loc in distinct]


def _student_around(evaluate, mode):
    """Finish the ascent by Newton steps, and return a Student t with the curvature there, or None.

    None where there is no proper mode.
    """
    n_dim = len(mode)
    steps = STEP * np.eye(n_dim)
    for _ in range(NEWTON_STEPS):
        _, slopes = evaluate(np.concatenate([mode + steps, mode - steps, mode[None]]))
        if not np.all(np.isfinite(slopes)):
            return None
        curvature = (slopes[n_dim:-1] - slopes[:n_dim]) / (2 * STEP)  # of -log p
        try:
            lower = scipy.linalg.cholesky((curvature + curvature.T) / 2, lower=True)
        except np.linalg.LinAlgError:
            return None
        root = scipy.linalg.solve_triangular(lower, np.eye(n_dim), lower=True)
        # the remaining slope, in nats per standard deviation of the mode
        if np.abs(root @ slopes[-1]).max() < FLAT:
            try:
                return scipy.stats.multivariate_t(mode, root.T @ root, df=DEGREES_OF_FREEDOM)
            except np.linalg.LinAlgError:  # in the neck of a funnel, too thin for SciPy
                return None
        mode = mode + root.T @ (root @ slopes[-1])
    return None
