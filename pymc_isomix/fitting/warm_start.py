"""Where a fit starts: a Gaussian at each mode that ascents from the starts find."""

import numpy as np

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting import second_order, shaping
from pymc_isomix.fitting.ascents import ascend, explore, is_apart
from pymc_isomix.fitting.second_order import Gaussian

VERY_FEW = 10  # dimensions up to which a Gaussian covers the top of a density that it fits
FEW_DIMENSIONS = 100  # up to there, finite differences give the first metric
# Many effects may follow each datum, so that an ascent ends where a noise vanishes, far from the
# mass. So steps with few draws start twice: at that end, and with this scale where nothing climbed.
BELOW = 0.3
NARROW, N_NARROW = 0.1, 4  # standard deviations of draws about an end; rounds of them
CLIMBED_AGAIN = 5  # of the best ends, in coordinates that have changed
N_STARTS_OF_MANY = 10  # that climb, in many dimensions
VALLEY = 1.0  # nats, between modes
N_CHAINS = 24  # that look for modes which no start has led to
UNCOVERED = np.log(20)  # nats by which log q lies below the posterior where it has no mass
MOST_MODES, MOST_POOR = 25, 4  # Gaussians; where the first fits its mode poorly
LIGHTEST = 5.0  # nats of log mass below all other modes together: less is not fitted further
MOST_AGAIN = 4  # ends that lead to a mode that is known
NEAR = 0.3  # standard deviations per root of d, between ends that count as one
TOO_FAR = 2.0  # nats: standard deviation of log weights of a Gaussian that is worth another try
SPREAD = 0.3  # of the means of a mixture's components about their Gaussian's
# Nats of KL(q || p) that ask for no mixture: so many, or so many per dimension up to a largest
EXACT, EXACT_PER_DIMENSION, LARGEST_EXACT = 0.01, 5e-4, 0.05
LIGHT = 0.02  # share of the posterior of a mode whose shape does not count
LARGEST_RATIO = 1.5  # of the axes of two Gaussians that one metric serves
N_JUDGED, CLEARLY_NOT = 500, 3.0  # draws that decide; times that divergence needs no more draws
MOST_WITH_SHAPE = 60  # batches from which a shape is learned
EM_STEPS = 50


def warm_start(
    target,
    starts,
    parameters,
    rng,
    *,
    dense=True,
    with_shape=False,
    explores=True,
    tell=lambda batch: None,
):
    """Climb from all starts, and fit a Gaussian at each mode.

    Parameters
    ----------
    target : Target
    starts : (K, d) array
        Coordinates y.
    parameters : dict of arrays
        First ones of the coordinates.
    rng : numpy.random.Generator
    dense : bool
        Whether the metric is a matrix.
    with_shape : bool
        Whether coordinates may get a shape, where there is one mode. Several would need several.
    explores : bool
        Whether hot chains look for modes that no start leads to.
    tell : callable
        Gets each batch of draws.

    Returns
    -------
    list of Batch
        One of each mode, the highest first; empty where no start lies in the support.
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
    batch, climbed = _gaussian_at(target, ends[0], below, parameters, rng, few, dense, tell)
    batches = [batch]
    if climbed:  # else all ends are such peaks
        if parameters:
            ends = target.moved(ends, parameters, batch.gaussian.parameters)
        explores = explores and dense and batch.is_of_use
        batches += _further_gaussians(target, batch, ends, explores, rng, few, dense, tell)
    if with_shape and len(batches) == 1 and shaping.is_wanted(batch):
        most = MOST_WITH_SHAPE
        shaped = second_order.fit(
            target, batch.gaussian, rng, most=most, with_shape=True, tell=tell
        )
        return [shaped]
    return batches


def _further_gaussians(target, first, ends, explores, rng, few, dense, tell):
    """Fit a Gaussian at each mode that the first does not cover: a list of batches."""
    n_dim, batches = ends.shape[1], [first]

    def evaluate(points):
        return target.evaluate(points, first.gaussian.parameters)

    if explores:
        ends = np.concatenate([ends, _slopes_elsewhere(evaluate, first.gaussian, rng)])
    heights, _ = evaluate(ends)
    left = np.flatnonzero(uncovered(batches, ends, heights))
    if len(left):  # in the metric of the first, which many modes share
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
        # in many dimensions the top of a density may lie where a good Gaussian has no mass
        if n_dim > VERY_FEW and not is_apart(evaluate, ends[i], heights[i], means, VALLEY):
            continue
        batch = _further_gaussian(target, batches, end, heights[[i]], rng, few, dense, tell)
        mean = batch.gaussian.mean[None]
        if uncovered(batches, mean, evaluate(mean)[0])[0]:
            batches.append(batch)
        else:
            n_again += 1
    return batches[1:]


def _further_gaussian(target, batches, end, height, rng, few, dense, tell):
    """Fit a Gaussian at the end (1, d) of an ascent that those before do not cover."""
    parameters, root = batches[0].gaussian.parameters, batches[0].gaussian.root
    if few:
        root = second_order.root_by_differences(target, end[0], parameters, root)
    laplace = Gaussian(end[0], root, parameters)
    first = second_order.draw(target, laplace, second_order.LEAST_DRAWS, rng)
    known = np.logaddexp.reduce([batch.log_evidence for batch in batches])
    if not first.log_evidence > known - LIGHTEST - (0 if few else len(end[0]) / 10):
        return first  # what little mass it has needs no better Gaussian
    batch = second_order.fit(target, laplace, rng, tell=tell)
    # one that has gone to another mode, or lies across several, leaves Laplace's in its place
    return first if uncovered([*batches, batch], end, height)[0] else batch


def _are_near(gaussian, difference):
    """Tell whether two ends, by their difference (1, d), are the same but for a short way."""
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
    """Points y (S, d) whose gradients point away from a Gaussian."""
    homes = np.zeros((N_CHAINS, gaussian.n_dim))
    return gaussian.mean + gaussian.unwhiten(explore(_whitened(evaluate, gaussian), homes, rng))


def uncovered(batches, points, log_p):
    """Tell where a mixture of Gaussians has next to no mass beside the posterior, (S,) booleans."""
    log_q = np.logaddexp.reduce(
        [batch.log_evidence + batch.gaussian.log_density(points) for batch in batches]
    )
    return np.isfinite(log_p) & (log_p - log_q > UNCOVERED)


def _gaussian_at(target, mean, below, parameters, rng, few, dense, tell):
    """Fit a Gaussian from the end (d,) of an ascent or from ``below``, whichever leads higher.

    Returns
    -------
    Batch
    bool
        Whether it is from the end.
    """
    batch, again = None, Gaussian(mean, np.full(len(mean), NARROW), parameters)
    if few:
        root = second_order.root_by_differences(target, mean, parameters)
        batch = second_order.fit(target, Gaussian(mean, root, parameters), rng, tell=tell)
        if batch.deviation < TOO_FAR and not getattr(target, "has_chains", False):
            return batch, True
        scales = np.sqrt((batch.gaussian.root**2).sum(axis=1))
        again = Gaussian(batch.gaussian.mean, scales, batch.gaussian.parameters)
    settled = [second_order.settle_coordinates(target, g, rng, tell=tell) for g in (again, below)]
    elbos = [second_order.draw(target, g, second_order.LEAST_DRAWS, rng).elbo for g in settled]
    best = int(np.argmax(elbos))
    gaussian = settled[best]
    if dense and getattr(target, "has_chains", False):
        # thousands of steps that are exact in their coordinates need no correlations of their own
        plain = second_order.fit(target, gaussian, rng, tell=tell)
        if is_exact(target, [plain], np.ones(1), rng):
            return plain, best == 0
        gaussian = plain.gaussian
    if dense:
        gaussian = Gaussian(gaussian.mean, np.diag(gaussian.root), gaussian.parameters)
    other = second_order.fit(target, gaussian, rng, tell=tell)
    if batch is None or other.elbo > batch.elbo:
        return other, best == 0
    return batch, True


def _coordinates_at_end(target, ends, heights, parameters, rng):
    """Learn coordinates from narrow draws about the best end, and climb again in those."""
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


def masses(batches):
    """Shares (G,) of the posterior that Gaussians have; see :func:`shares_of`."""
    points = np.concatenate([batch.points for batch in batches])
    log_q = np.stack([batch.gaussian.log_density(points) for batch in batches], axis=1)  # (S, G)
    return shares_of(log_joint(batches), log_q, [len(batch.log_weights) for batch in batches])


def shares_of(log_p, log_q, sizes):
    """Shares (G,) of the posterior that densities have, by EM steps on importance weights.

    All draws together are weighted by p over the density of all of them together, so that mass
    which two densities cover is not counted twice.

    Parameters
    ----------
    log_p : (S,) array
        Log density of the model at draws of all densities, one after the other.
    log_q : (S, G) array
        Log densities there.
    sizes : list of int
        Draws of each.
    """
    sizes = np.asarray(sizes)
    log_weights = log_p - np.logaddexp.reduce(log_q + np.log(sizes / sizes.sum()), axis=1)
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    shares = np.full(len(sizes), 1 / len(sizes))
    for _ in range(EM_STEPS):
        with np.errstate(divide="ignore"):
            joint = log_q + np.log(shares)
        shares = weights @ np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    return shares / shares.sum()


def log_joint(batches):
    """Log density of the model at all draws of some batches, one batch after the other."""
    return np.concatenate([b.log_weights + b.gaussian.log_density(b.points) for b in batches])


def as_mixture(batches, shares, n_components, *, kind, spread=0.0, rng=None):
    """Turn Gaussians into one mixture of isotropic Gaussians with a metric that they share.

    Parameters
    ----------
    batches : list of Batch
    shares : (G,) array
    n_components : int
        K, G at least. Those beyond G are divided among the Gaussians, by their shares, where they
        are ``spread``; else they have no weight.
    kind : {"dense", "diag"}
        Of the metric.
    spread : float
        Standard deviation of the components' means about their Gaussian's, in its own units.
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
        upper = np.linalg.qr(stacked, mode="r")
        metric = upper.T * np.sign(np.diagonal(upper))
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


def have_one_shape(batches, shares):
    """Tell whether a metric that Gaussians share, but for a factor, has about their shapes.

    Gaussians of next to no mass do not count.
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


def is_exact(target, batches, shares, rng):
    """Tell whether KL(q || p) of Gaussians, each of its own shape, is too small to need more.

    Where the draws of the batches leave it open, a few more decide.
    """
    if min(batch.finite for batch in batches) < 1:
        return False  # the posterior ends where the Gaussians do not
    n_dim = batches[0].gaussian.n_dim
    enough = min(max(EXACT, EXACT_PER_DIMENSION * n_dim), LARGEST_EXACT)
    if divergence(batches, shares) > CLEARLY_NOT * enough:
        return False
    sizes = np.maximum(N_JUDGED * shares, 2).astype(int)
    more = [
        second_order.draw(target, batch.gaussian, n, rng)
        for batch, n in zip(batches, sizes, strict=True)
    ]
    return min(batch.finite for batch in more) == 1 and divergence(more, shares) < enough


def _matrix(gaussian):
    """L as a matrix; it is a diagonal where the budget ended before a dense metric was learned."""
    return np.diag(gaussian.root) if gaussian.root.ndim == 1 else gaussian.root


def divergence(batches, shares):
    """KL(q || p), nats, of Gaussians together, by the spread of log p - log q at draws."""
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
