"""The start of a fit: a Gaussian at each mode that ascents find."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pymc_isomix.family import metric as metrics
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.shares import balance
from pymc_isomix.fitting import second_order, shaping
from pymc_isomix.fitting.ascents import ascend, explore, is_apart
from pymc_isomix.fitting.second_order import LEAST_DRAWS, Batch, Gaussian
from pymc_isomix.fitting.target import Target

VERY_FEW = 10  # dimensions, up to which a Gaussian covers the peak of a density that it fits
FEW_DIMENSIONS = 100  # up to so many, finite differences give the first metric
# Effects may follow each datum. An ascent then ends where a noise vanishes, far from the
# mass. Steps with few draws start there, and with this scale at a start that did not climb.
BELOW = 0.3
CLEARLY_HIGHER = 0.01  # nats per dimension, by which that leads higher than all ascents
NARROW, N_NARROW = 0.1, 4  # standard deviation of draws around an end; number of rounds
CLIMBED_AGAIN = 5  # number of the best ends, in changed coordinates
N_STARTS_OF_MANY = 10  # in many dimensions
VALLEY = 1.0  # nats, between modes
DEEP = 3.0  # nats, of a valley that no bend beside chains has
N_CHAINS = 24  # hot chains that look for modes
UNCOVERED = np.log(20)  # nats of log q below the log posterior, where q has no mass
MOST_MODES, MOST_POOR = 25, 4  # Gaussians; Gaussians if the first fits its mode poorly
LIGHTEST = 5.0  # nats of log mass below all other modes: lighter ones are not fitted further
MOST_AGAIN = 4  # ends that lead to a known mode
NEAR = 0.3  # standard deviations per root of d between equal ends
LOW = 30.0  # nats below the middle of a Gaussian, where chains look for no other mode
MOST_OF_REST = 200  # dimensions beside chains that are looked at by finite differences
MOST_ELSEWHERE = 2  # Gaussians of other modes that may become the first
NEGLIGIBLE = 12.0  # nats of log mass below another mode, where a mode is left out
NEARLY = 1.0  # nats of deviation, or misfit of chains, below which they need no dense metric
TOO_FAR = 2.0  # nats: standard deviation of log weights, above which a Gaussian is tried again
SPREAD = 0.3  # standard deviations of the components' means around the Gaussian's
# nats of KL(q || p) that need no mixture: a number, or one per dimension up to a bound
EXACT, EXACT_PER_DIMENSION, LARGEST_EXACT = 0.01, 5e-4, 0.2
EXACT_BESIDE_CHAINS = 0.05  # nats that are not due to the elements of chains
LIGHT = 0.02  # share of the posterior, below which the shape of a mode does not count
LARGEST_RATIO = 1.5  # of the axes of two Gaussians that share a metric
N_JUDGED, CLEARLY_NOT = 500, 3.0  # draws that decide; multiple of the bound that is clear
N_WITH_CHAINS, MOST_WITH_CHAINS = 600, 20  # draws in a batch, and batches, of chains with a shape
MOST_WITH_SHAPE = 60  # batches from which a shape is learned
EM_STEPS = 50


def warm_start(
    target: Any,
    starts: np.ndarray,
    parameters: dict,
    rng: np.random.Generator,
    *,
    dense: bool = True,
    with_shape: bool = False,
    explores: bool = True,
    on_batch: Callable = lambda batch: None,
) -> list[Batch]:
    """Climb from all starts, and fit a Gaussian at each mode.

    Parameters
    ----------
    target : Target
    starts : (K, d) array
        Coordinates y.
    parameters : dict of arrays
        Initial parameters of the coordinates.
    rng : numpy.random.Generator
    dense : bool
        Whether the metric is a matrix.
    with_shape : bool
        Whether coordinates may get a shape if there is one mode.
    explores : bool
        Whether hot chains look for modes that no start leads to.
    on_batch : callable
        Called with each batch of draws.

    Returns
    -------
    list of Batch
        One per mode, the highest first; empty if no start lies in the support.
    """
    n_dim = starts.shape[1]
    few = dense and n_dim <= FEW_DIMENSIONS
    if not few:
        starts = starts[:N_STARTS_OF_MANY]
    start, first = starts[0], parameters
    ends, heights = ascend(lambda points: target.evaluate(points, parameters), starts)
    known = np.isfinite(heights)
    ends, heights = ends[known], heights[known]
    if not len(ends):
        return []
    order = np.argsort(-heights)
    ends, heights = ends[order], heights[order]
    if few and parameters:
        ends, heights, parameters = _coordinates_at_end(target, ends, heights, parameters, rng)
    below = Gaussian(start, np.full(n_dim, BELOW), first)
    batch, climbed = _gaussian_at(target, ends[0], below, parameters, rng, few, dense, on_batch)
    if not climbed:  # all ends are such peaks
        ends = ends[:0]
    elif parameters:
        ends = target.moved(ends, parameters, batch.gaussian.parameters)
    if target.has_chains:
        old = batch.gaussian.parameters
        batch, elsewhere = _modes_of_the_rest(target, batch, starts, first, rng, on_batch)
        ends = target.moved(np.concatenate([ends, elsewhere]), old, batch.gaussian.parameters)
    batches = [batch]
    if len(ends):
        explores = explores and dense and batch.is_useful
        further = _further_gaussians(target, batch, ends, explores, rng, few, dense, on_batch)
        if target.has_chains:  # a chance draw says any mass of one that is hundreds of nats off
            further = [b for b in further if b.is_useful]
        least = max(b.log_evidence for b in (batch, *further)) - NEGLIGIBLE
        batches += [b for b in further if b.log_evidence > least]
    beside_chains = target.has_chains and batch.gaussian.root.ndim == 1
    if with_shape and (len(batches) == 1 or beside_chains):
        options: dict = {"on_batch": on_batch, "most": MOST_WITH_SHAPE}
        if beside_chains:
            if len(batches) == 1 and is_exact(target, batches, np.ones(1), rng):
                return batches
            # what the elements say of the rest, and its skew, are seen through their noise
            options |= {"n_draws": N_WITH_CHAINS, "most": MOST_WITH_CHAINS}
            batch = second_order.fit(target, batch.gaussian, rng, **options)
        if shaping.is_wanted(target, batch):
            batch = second_order.fit(target, batch.gaussian, rng, with_shape=True, **options)
        return _along_bend(target, batch, batches[1:], rng, few, on_batch) or batches
    return batches


def _along_bend(target, batch, others, rng, few, on_batch):
    """Return Gaussians along a bend that looked like modes, in coordinates with a shape.

    The first is that with the shape. Others stay where it has no mass. If a deep valley separates
    any of them from it, there are modes, and the list is empty.
    """
    batches, parameters = [batch], batch.gaussian.parameters
    for other in others:
        mean = target.moved(other.gaussian.mean[None], other.gaussian.parameters, parameters)
        height, _ = target.evaluate(mean, parameters)
        if not uncovered(batches, mean, height)[0]:
            continue
        if _is_divided(target, batch.gaussian, mean[0], height[0]):
            return []
        batches.append(_further_gaussian(target, batches, mean, height, rng, few, on_batch))
    return batches


def _is_divided(target, gaussian, point, height):
    """Tell whether a deep valley separates a point (d,) from a Gaussian."""

    def evaluate(points):
        return target.evaluate(points, gaussian.parameters)

    return is_apart(evaluate, point, height, [gaussian.mean], DEEP)


def lie_along_bend(target: Target, batches: list[Batch]) -> bool:
    """Tell whether Gaussians beside chains are parts of one bend, which one mixture fits."""
    if not target.has_chains:
        return False
    means = [batch.gaussian.mean for batch in batches[1:]]
    heights, _ = target.evaluate(np.array(means), batches[0].gaussian.parameters)
    pairs = zip(means, heights, strict=True)
    return not any(_is_divided(target, batches[0].gaussian, *pair) for pair in pairs)


def _further_gaussians(target, first, ends, explores, rng, few, dense, on_batch):
    """Fit a Gaussian at each mode that the first does not cover: a list of batches."""
    n_dim, batches = ends.shape[1], [first]

    def evaluate(points):
        return target.evaluate(points, first.gaussian.parameters)

    if explores:
        ends = np.concatenate([ends, _slopes_elsewhere(evaluate, first.gaussian, rng)])
    heights, _ = evaluate(ends)
    left = np.flatnonzero(uncovered(batches, ends, heights))
    if len(left):  # in the metric of the first, because modes are often alike
        ends[left], heights[left] = _ascend_whitened(evaluate, first.gaussian, ends[left])
    n_again, tried = 0, list[np.ndarray]()
    most = MOST_MODES if first.deviation < TOO_FAR else MOST_POOR
    for i in left[np.argsort(-heights[left])]:
        end = ends[[i]]
        if len(batches) == most or n_again == MOST_AGAIN:
            break
        if any(_are_near(first.gaussian, end - other) for other in tried):
            continue
        tried.append(end)
        if not uncovered(batches, end, heights[[i]])[0]:
            continue
        means = [batch.gaussian.mean for batch in batches]
        # in many dimensions, the peak of a density may lie where a good Gaussian has no mass
        if n_dim > VERY_FEW and not is_apart(evaluate, ends[i], heights[i], means, VALLEY):
            continue
        batch = _further_gaussian(target, batches, end, heights[[i]], rng, few, on_batch)
        mean = batch.gaussian.mean[None]
        if uncovered(batches, mean, evaluate(mean)[0])[0]:
            batches.append(batch)
        else:
            n_again += 1
    return batches[1:]


def _further_gaussian(target, batches, end, height, rng, few, on_batch):
    """Fit a Gaussian at the end (1, d) of an ascent that earlier Gaussians do not cover."""
    parameters, root = batches[0].gaussian.parameters, batches[0].gaussian.root
    if few:
        unit = _matrix(batches[0].gaussian)  # that of a chain may be diagonal
        root = second_order.root_by_differences(target, end[0], parameters, unit)
    laplace = Gaussian(end[0], root, parameters)
    first = second_order.draw(target, laplace, second_order.LEAST_DRAWS, rng)
    known = np.logaddexp.reduce([batch.log_evidence for batch in batches])
    if not first.log_evidence > known - LIGHTEST - (0 if few else len(end[0]) / 10):
        return first  # its small mass needs no better Gaussian

    def is_known(batch):
        mean = batch.gaussian.mean[None]
        return not uncovered(batches, mean, target.evaluate(mean, parameters)[0])[0]

    batch = second_order.fit(Settled(target), laplace, rng, on_batch=on_batch, should_stop=is_known)
    # if it moved to another mode, or covers several, Laplace's Gaussian stays
    return first if uncovered([*batches, batch], end, height)[0] else batch


def _modes_of_the_rest(target, batch, starts, first, rng, on_batch):
    """Climb again where chains are where the rest expects them: the best Gaussian, and ends.

    In the coordinates that a Gaussian has found, the density at the middle of a chain's own is that
    of the rest, with the chain integrated out. Peaks of the chain hide none of its modes there.

    Parameters
    ----------
    batch : Batch
        Of that Gaussian.
    starts : (K, d) array
        Coordinates y of the parameters ``first``.

    Returns
    -------
    Batch
        That of another mode, where it has a higher ELBO.
    (C, d) array
        Ends of ascents elsewhere, in the coordinates of the Gaussian that was given.
    """
    gaussian = batch.gaussian
    if (~target.of_chains).sum() > MOST_OF_REST:
        return batch, starts[:0]
    points = target.moved(starts, first, gaussian.parameters)
    points[:, target.of_chains] = gaussian.mean[target.of_chains]
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return batch, points
    ends, heights = ascend(lambda at: target.evaluate(at, gaussian.parameters), points)
    top = target.evaluate(gaussian.mean[None], gaussian.parameters)[0][0]
    left = np.flatnonzero(uncovered([batch], ends, heights) & (heights > top - LOW))
    found, best = list[np.ndarray](), batch
    for i in left[np.argsort(-heights[left])]:
        if any(_are_near(gaussian, ends[[i]] - other) for other in found):
            continue
        found.append(ends[[i]])
        if len(found) > MOST_ELSEWHERE:
            break
        local = _of_the_rest(target, gaussian, ends[i])
        other = second_order.fit(target, local, rng, on_batch=on_batch)
        best = other if other.elbo > best.elbo else best
    if best is not batch:
        found.append(gaussian.mean[None])
    return best, np.concatenate(found) if found else ends[:0]


def _of_the_rest(target, gaussian, end):
    """Gaussian at an end (d,): chains as a Gaussian has them, the rest by finite differences."""
    root = gaussian.root
    scales = np.abs(np.diagonal(root) if root.ndim == 2 else root).copy()
    rest = np.flatnonzero(~target.of_chains)
    unit = np.eye(len(end))[rest] * scales[rest, None]
    precision = second_order.precision_by_differences(target, end, gaussian.parameters, unit)
    covariance = second_order.bounded_inverse(precision)
    local = scales[rest, None] * np.linalg.cholesky(covariance)
    parameters, [mean], scales[rest] = target.sheared_by(
        rest, local, end[None], gaussian.parameters
    )
    return Gaussian(mean, scales, parameters)


class Settled(Target):
    """A target with fixed coordinates, in which Gaussians can be compared.

    Parameters
    ----------
    target : Target
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def evaluate(self, points: np.ndarray, parameters: dict) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        return self.target.evaluate(points, parameters)


def _are_near(gaussian, difference):
    """Tell whether two ends are close, by their difference (1, d)."""
    return np.linalg.norm(gaussian.whiten(difference)) < NEAR * np.sqrt(gaussian.n_dim)


def _whitened(evaluate, gaussian):
    """Log density and gradient in coordinates in which a Gaussian is standard."""

    def whitened(noise):
        log_p, gradients = evaluate(gaussian.mean + gaussian.unwhiten(noise))
        return log_p, gaussian.unwhiten_gradient(gradients)

    return whitened


def _ascend_whitened(evaluate, gaussian, points):
    """Climb from points y (S, d) in coordinates in which a Gaussian is standard."""
    starts = gaussian.whiten(points - gaussian.mean)
    ends, heights = ascend(_whitened(evaluate, gaussian), starts)
    return gaussian.mean + gaussian.unwhiten(ends), heights


def _slopes_elsewhere(evaluate, gaussian, rng):
    """Return points y (S, d) whose gradients point away from a Gaussian."""
    homes = np.zeros((N_CHAINS, gaussian.n_dim))
    return gaussian.mean + gaussian.unwhiten(explore(_whitened(evaluate, gaussian), homes, rng))


def uncovered(batches: list[Batch], points: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """Tell where the posterior has mass and Gaussians have next to none, (S,) booleans."""
    log_q = np.logaddexp.reduce(
        [batch.log_evidence + batch.gaussian.log_density(points) for batch in batches]
    )
    return np.isfinite(log_p) & (log_p - log_q > UNCOVERED)


def _gaussian_at(target, mean, below, parameters, rng, few, dense, on_batch):
    """Fit a Gaussian from the end (d,) of an ascent or from ``below``, whichever leads higher.

    Returns
    -------
    Batch
    bool
        Whether it comes from the end.
    """
    batch, again = None, Gaussian(mean, np.full(len(mean), NARROW), parameters)
    if few:
        root = second_order.root_by_differences(target, mean, parameters)
        batch = second_order.fit(target, Gaussian(mean, root, parameters), rng, on_batch=on_batch)
        if batch.deviation < TOO_FAR and not target.has_chains:
            return batch, True
        scales = np.sqrt((batch.gaussian.root**2).sum(axis=1))
        again = Gaussian(batch.gaussian.mean, scales, batch.gaussian.parameters)
    settled = [
        second_order.settle_coordinates(target, g, rng, on_batch=on_batch) for g in (again, below)
    ]
    climbed, low = (second_order.draw(target, g, second_order.LEAST_DRAWS, rng) for g in settled)
    error = 2 * np.hypot(climbed.standard_error, low.standard_error)
    best = int(low.elbo > climbed.elbo + max(error, len(mean) * CLEARLY_HIGHER))
    gaussian = settled[best]
    if target.has_chains and (~target.of_chains).sum() <= MOST_OF_REST:
        # directions of the rest may be too narrow for steps with few draws
        local = _of_the_rest(target, gaussian, gaussian.mean)
        both = [second_order.draw(target, g, LEAST_DRAWS, rng) for g in (gaussian, local)]
        if both[1].elbo > both[0].elbo:
            gaussian = local
    other = None
    if dense and target.has_chains:
        other = second_order.fit(target, gaussian, rng, on_batch=on_batch)
        # steps that are nearly exact in their coordinates need no correlations of their own
        dense = min(other.deviation, _misfit_of_chains(target, other)) > NEARLY
        gaussian = other.gaussian
    if dense:
        gaussian = Gaussian(
            *target.unsheared(gaussian.mean, np.diag(gaussian.root), gaussian.parameters)
        )
    if dense or other is None:
        other = second_order.fit(target, gaussian, rng, on_batch=on_batch)
    if batch is None or other.elbo > batch.elbo:
        return other, best == 0
    return batch, True


def _misfit_of_chains(target, batch):
    """Mean squared difference of the scores of p and q, of chains' elements in total.

    A dense metric could gain about a quarter of that, in nats, by correlations with them.
    """
    noise, _, gradients = batch.tame()
    differences = metrics.unwhiten_gradient(batch.gaussian.root, gradients) + noise
    return (differences[:, target.of_chains] ** 2).sum(axis=1).mean()


def _coordinates_at_end(target, ends, heights, parameters, rng):
    """Learn coordinates from narrow draws around the best end, and climb again in them."""
    for _ in range(N_NARROW):
        points = ends[0] + NARROW * rng.normal(size=(second_order.FEW_DRAWS, ends.shape[1]))
        log_p, gradients = target.evaluate(points, parameters)
        finite = np.isfinite(log_p) & np.isfinite(gradients).all(axis=1)
        if finite.sum() <= 2:
            break
        parameters, ends, _ = target.learn(points[finite], gradients[finite], ends, parameters, 1.0)
        best, again = ascend(
            lambda points, at=parameters: target.evaluate(points, at), ends[:CLIMBED_AGAIN], most=30
        )
        order = np.argsort(-again)
        ends[:CLIMBED_AGAIN], heights[:CLIMBED_AGAIN] = best[order], again[order]
    return ends, heights, parameters


def masses(batches: list[Batch]) -> np.ndarray:
    """Shares (G,) of the posterior of Gaussians; see :func:`shares_of`."""
    points = np.concatenate([batch.points for batch in batches])
    log_q = np.stack([batch.gaussian.log_density(points) for batch in batches], axis=1)  # (S, G)
    return shares_of(log_joint(batches), log_q, [len(batch.log_weights) for batch in batches])


def shares_of(log_p: np.ndarray, log_q: np.ndarray, sizes: Any) -> np.ndarray:
    """Shares (G,) of the posterior of densities, by EM steps on importance weights.

    Draws get the weight p over the density of all draws together, so mass that two densities cover
    is not counted twice.

    Parameters
    ----------
    log_p : (S,) array
        Log density of the model at draws of all densities, one after the other.
    log_q : (S, G) array
        Log densities there.
    sizes : list of int
        Number of draws per density.
    """
    sizes = np.asarray(sizes)
    log_weights = log_p - np.logaddexp.reduce(log_q + np.log(sizes / sizes.sum()), axis=1)
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    return balance(log_q, weights, EM_STEPS)


def log_joint(batches: list[Batch]) -> np.ndarray:
    """Log density of the model at all draws of some batches, one batch after the other."""
    return np.concatenate([b.log_weights + b.gaussian.log_density(b.points) for b in batches])


def as_mixture(
    batches: list[Batch],
    shares: np.ndarray,
    n_components: int,
    *,
    kind: str,
    spread: float = 0.0,
    rng: Any = None,
) -> Mixture:
    """Turn Gaussians into one mixture of isotropic Gaussians with a shared metric.

    Parameters
    ----------
    batches : list of Batch
    shares : (G,) array
    n_components : int
        K, at least G. With ``spread``, the components beyond G are divided among the Gaussians by
        their shares; else they have no weight.
    kind : {"dense", "diag"}
        Of the metric.
    spread : float
        Standard deviation of the components' means around that of their Gaussian, in its units.
    rng : numpy.random.Generator, optional
        Of the spread.

    Returns
    -------
    Mixture
    """
    gaussians = [batch.gaussian for batch in batches]
    n_dim = gaussians[0].n_dim
    if kind == "diag":
        variances = [(g.root**2).sum(axis=1) if g.root.ndim == 2 else g.root**2 for g in gaussians]
        metric = np.sqrt(shares @ np.array(variances))
        log_volume = np.log(metric).sum()
    else:
        stacked = np.concatenate(
            [np.sqrt(share) * _matrix(g).T for share, g in zip(shares, gaussians, strict=True)]
        )
        metric = metrics.of_rows(stacked)
        log_volume = np.log(np.diagonal(metric)).sum()
    owner = np.arange(len(gaussians))
    if spread:
        extra = rng.choice(len(gaussians), size=n_components - len(gaussians), p=shares)
        owner = np.concatenate([owner, extra])
    counts = np.bincount(owner)
    means = np.stack([gaussians[g].mean for g in owner])
    if spread:
        noise = spread * rng.normal(size=means.shape)
        means += np.stack(
            [gaussians[g].unwhiten(u[None])[0] for g, u in zip(owner, noise, strict=True)]
        )
    log_variances = np.array([2 * (g.log_volume - log_volume) / n_dim for g in gaussians])[owner]
    mixture = Mixture(
        means=means,
        log_variances=log_variances + np.log1p(-(spread**2)),
        log_weights=np.log(shares / counts)[owner],
        metric=metric,
    )
    return mixture.padded(n_components)


def have_one_shape(batches: list[Batch], shares: np.ndarray) -> bool:
    """Tell whether Gaussians have nearly one shape, up to a factor.

    Gaussians with next to no mass do not count.
    """
    heavy = [batch for batch, share in zip(batches, shares, strict=True) if share > LIGHT]
    if len(heavy) < 2:
        return True
    first = heavy[0].gaussian
    for batch in heavy[1:]:
        root = batch.gaussian.root
        columns = first.whiten(root.T if root.ndim == 2 else np.diag(root)).T
        factors = np.linalg.svd(columns, compute_uv=False)
        if factors.max() / factors.min() > LARGEST_RATIO:
            return False
    return True


def is_exact(
    target: Target, batches: list[Batch], shares: np.ndarray, rng: np.random.Generator
) -> bool:
    """Tell whether KL(q || p) of Gaussians of any shapes is small enough.

    If the draws of the batches do not decide it, a few more do.
    """
    if min(batch.finite for batch in batches) < 1:
        return False  # the Gaussians reach beyond the support
    enough = _enough(target, batches[0])
    if divergence(batches, shares) > CLEARLY_NOT * enough:
        return False
    sizes = np.maximum(N_JUDGED * shares, 2).astype(int)
    more = [
        second_order.draw(target, batch.gaussian, n, rng)
        for batch, n in zip(batches, sizes, strict=True)
    ]
    return min(batch.finite for batch in more) == 1 and divergence(more, shares) < enough


def _enough(target, batch):
    """KL(q || p) that needs no mixture, nats."""
    allowed = EXACT_PER_DIMENSION * batch.gaussian.n_dim
    if target.has_chains:  # thousands of elements may be exact, and a few scales far from it
        of_elements = _misfit_of_chains(target, batch) / 2
        allowed = min(allowed, EXACT_BESIDE_CHAINS + of_elements)
    return min(max(EXACT, allowed), LARGEST_EXACT)


def _matrix(gaussian):
    """L as a matrix, also if the budget ended before a dense metric was learned."""
    return np.diag(gaussian.root) if gaussian.root.ndim == 1 else gaussian.root


def divergence(batches: list[Batch], shares: np.ndarray) -> float:
    """KL(q || p) of a union of Gaussians, by the spread of log p - log q at draws, nats."""
    points = np.concatenate([batch.points for batch in batches])
    with np.errstate(divide="ignore"):
        terms = [
            np.log(share) + batch.gaussian.log_density(points)
            for batch, share in zip(batches, shares, strict=True)
        ]
    log_ratio = log_joint(batches) - np.logaddexp.reduce(terms)
    sizes = [len(batch.log_weights) for batch in batches]
    weights = np.repeat(np.divide(shares, sizes), sizes)
    weights /= weights.sum()
    return 0.5 * weights @ (log_ratio - weights @ log_ratio) ** 2
