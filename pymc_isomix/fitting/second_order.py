r"""A Gaussian by second-order steps, in the coordinates of the fit.

The Gaussian q of least KL(q || p) has :math:`\mathbb E_q[\nabla \log p] = 0` and precision
:math:`-\mathbb E_q[\nabla^2 \log p]`. By Stein's lemma gradients suffice: with draws
:math:`y = m + L u` and scores :math:`s = L^T \nabla \log p(y)`, the slope of the regression of s
on u is :math:`-A = L^T \mathbb E_q[\nabla^2 \log p] L`, and

.. math:: m \leftarrow m + L A^{-1} \bar s, \qquad L \leftarrow L \operatorname{chol}(A^{-1})

is a Newton step. It has no noise if p is Gaussian. The ELBO of the next batch of draws judges each
step at no extra cost. Pseudo-observations of sites are learned from the same batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pymc_isomix.family import metric as metrics
from pymc_isomix.fitting import shaping
from pymc_isomix.fitting.target import Target

LEAST_DRAWS, DRAWS_PER_DIMENSION = 150, 2  # per batch, for a dense metric
FEW_DRAWS = 50  # per batch that finds coordinates under a diagonal metric
LEAST_CURVATURE, LARGEST_CURVATURE = 0.2, 8.0  # of A in one step
LARGEST_SHIFT = 0.7  # of the mean per step, in standard deviations per root of d
MOST_BATCHES, MOST_REFUSALS = 20, 4
REFUSED, ACCEPTED = 1 / 3, 1.5  # factors of the damping
QUIET, N_QUIET = 0.02, 2  # nats of gain of a quiet step; number of such steps that end the fit
QUIET_SHARE = 0.01  # of the KL left: more than QUIET where no Gaussian is near
CLEAR, N_QUIET_IN_NOISE = 0.2, 6  # nats of noise, above which six quiet steps are needed
WINDOW = 4  # batches that are compared with as many before; more if more must be quiet
ALLOWED_FALL, LARGEST_FALL = 0.02, 3.0  # nats, in addition to two standard errors; in total
WILD, WILD_NATS = 20.0, 10.0  # median deviations, beyond which a draw is left out of a regression
NORMAL = 1.4826  # standard deviation per median absolute deviation of a normal distribution
LEAST_FINITE, LARGEST_DEVIATION = 0.9, 10.0  # share of draws, and nats, of a useful Gaussian
GAMMA = 0.3  # step size of the steps with few draws
LARGEST_LOG_CHANGE, LARGEST_FEW_SHIFT = 0.4, 0.3  # bounds of these steps, as for the mixture
ROUND, MOST_ROUNDS = 20, 10  # steps with few draws per round; number of rounds
NARROW, N_NARROW = 0.1, 4  # standard deviation of draws around an end; number of rounds
TINY, RIDGES = 1e-300, np.geomspace(1e-10, 1e6, 81)
DIFFERENCE, LEAST_PRECISION = 1e-4, 0.05  # of the Hessian by finite differences


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian in coordinates y.

    Parameters
    ----------
    mean : (d,) array
        Coordinates y.
    root : (d, d) or (d,) array
        L, lower triangular, or its diagonal.
    parameters : dict of arrays
        Of the coordinates: pseudo-observations by name.
    """

    mean: np.ndarray
    root: np.ndarray
    parameters: dict[str, np.ndarray]

    @property
    def n_dim(self) -> int:
        """Number of dimensions, d."""
        return len(self.mean)

    @property
    def log_volume(self) -> float:
        """Log determinant of L."""
        return metrics.log_determinant(self.root, self.n_dim)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) at points y (S, d)."""
        whitened = self.whiten(points - self.mean)
        normaliser = self.log_volume + 0.5 * self.n_dim * np.log(2 * np.pi)
        return -0.5 * (whitened**2).sum(axis=1) - normaliser

    def whiten(self, vectors: np.ndarray) -> np.ndarray:
        """Map rows (S, d) by the inverse of L."""
        return metrics.whiten(self.root, vectors)

    def unwhiten(self, vectors: np.ndarray) -> np.ndarray:
        """Map rows (S, d) by L."""
        return metrics.unwhiten(self.root, vectors)

    def unwhiten_gradient(self, gradients: np.ndarray) -> np.ndarray:
        """Map gradients in y, rows (S, d), to those in whitened coordinates."""
        return metrics.whiten_gradient(self.root, gradients)


class Batch(NamedTuple):
    """Draws of a Gaussian with a finite log density, and the values of the model there."""

    gaussian: Gaussian
    noise: np.ndarray  # (S, d) u
    points: np.ndarray  # (S, d) y
    gradients: np.ndarray  # (S, d) in y
    log_weights: np.ndarray  # (S,) log p - log q
    finite: float  # share of all draws

    @property
    def elbo(self) -> float:
        """ELBO of the Gaussian cut to the support, nats."""
        if len(self.log_weights) < 2:
            return -np.inf
        return self.log_weights.mean() + np.log(self.finite)

    @property
    def log_evidence(self) -> float:
        """Log mass of the posterior in reach of the draws, by importance sampling, nats."""
        return np.logaddexp.reduce(self.log_weights) + np.log(self.finite / len(self.log_weights))

    @property
    def deviation(self) -> float:
        """Standard deviation of the log weights, nats."""
        return self.log_weights.std() if len(self.log_weights) > 1 else np.inf

    @property
    def standard_error(self) -> float:
        """Standard error of the ELBO, nats, as if antithetic draws were independent."""
        return self.deviation / np.sqrt(max(len(self.log_weights), 1))

    @property
    def divergence(self) -> float:
        r"""KL(q || p), nats: half the variance of log p - log q, which should be nearly normal."""
        return 0.5 * self.deviation**2

    @property
    def is_useful(self) -> bool:
        """Whether a mixture should start from here instead of the starts of the ascents."""
        if self.finite < LEAST_FINITE:
            return False
        away, _ = self._reach()  # of a typical draw, because a few may be any number of nats away
        return np.median(np.abs(away)) < LARGEST_DEVIATION

    @property
    def typical_divergence(self) -> float:
        r"""KL(q || p), nats, as if all draws were like the half of them nearest to the median."""
        away, _ = self._reach()
        return 0.5 * (NORMAL * np.median(np.abs(away))) ** 2 if len(away) else np.inf

    def tame(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Leave out draws with wild log weights: (noise, points, gradients)."""
        away, reach = self._reach()
        tame = np.abs(away) <= reach
        return self.noise[tame], self.points[tame], self.gradients[tame]

    def cut(self) -> "Batch":
        """Cut wild log weights.

        If a density falls as exp(exp(z)), a rare draw costs any number of nats.
        """
        away, reach = self._reach()
        return self._replace(log_weights=self.log_weights - np.minimum(away + reach, 0))

    def _reach(self):
        """Log weights relative to their median, and the bound of wild ones."""
        if not len(self.log_weights):
            return self.log_weights, np.inf
        away = self.log_weights - np.median(self.log_weights)
        return away, WILD * max(np.median(np.abs(away)), 0.1) + WILD_NATS


def draw(target: Target, gaussian: Gaussian, n: int, rng: np.random.Generator) -> Batch:
    """Draw a batch of n antithetic draws, and evaluate the model there."""
    half = rng.normal(size=((n + 1) // 2, gaussian.n_dim))
    noise = np.concatenate([half, -half])
    points = gaussian.mean + gaussian.unwhiten(noise)
    log_p, gradients = target.evaluate(points, gaussian.parameters)
    finite = np.isfinite(log_p) & np.isfinite(gradients).all(axis=1)
    normaliser = gaussian.log_volume + 0.5 * gaussian.n_dim * np.log(2 * np.pi)
    log_weights = log_p + 0.5 * (noise**2).sum(axis=1) + normaliser
    noise, points = noise[finite], points[finite]
    return Batch(
        gaussian, noise, points, gradients[finite], log_weights[finite], float(finite.mean())
    )


class Newton(NamedTuple):
    """The next step according to a batch, whitened."""

    curvatures: np.ndarray  # (d,) eigenvalues of A, or its diagonal
    directions: np.ndarray | None  # (d, d) eigenvectors, in columns
    slope: np.ndarray  # (d,) mean score

    @classmethod
    def of(cls, batch: Batch) -> "Newton":
        """Regress scores on noise: jointly, or per dimension under a diagonal L."""
        noise, _, gradients = batch.tame()
        root = batch.gaussian.root
        if root.ndim == 1:
            scores = gradients * root
            apart = noise - noise.mean(axis=0)
            curvature = -(apart * scores).mean(axis=0) / (apart**2).mean(axis=0)
            return cls(curvature, None, scores.mean(axis=0))
        scores = gradients @ root
        curvatures, directions = np.linalg.eigh(regressed(noise, scores))
        return cls(curvatures, directions, scores.mean(axis=0))

    def step(self, gaussian: Gaussian, damping: float) -> Gaussian:
        """Take a damped step: mean and root move, within bounds."""

        def bounded(values):
            return np.clip(values, LEAST_CURVATURE, LARGEST_CURVATURE)

        curvatures = bounded(1 + damping * (bounded(self.curvatures) - 1))
        if self.directions is None:
            shift = self.slope / curvatures
            root = gaussian.root / np.sqrt(curvatures)
        else:
            scaled = self.directions / curvatures
            shift = scaled @ (self.directions.T @ self.slope)
            root = gaussian.root @ np.linalg.cholesky(scaled @ self.directions.T)
        shift *= damping
        longest = LARGEST_SHIFT * np.sqrt(gaussian.n_dim)
        shift *= min(1.0, longest / max(np.linalg.norm(shift), 1e-300))
        mean = gaussian.mean + gaussian.unwhiten(shift[None])[0]
        return Gaussian(mean, root, gaussian.parameters)


def regressed(noise: np.ndarray, scores: np.ndarray) -> np.ndarray:
    r"""Curvature A (d, d) by ridge regression of whitened scores (S, d) on noise (S, d).

    The even part of the scores has no slope, so that antithetic pairs leave only the odd part, with
    half as many values. A is near the identity where L is right: entries of I - A are normal a
    priori, and their variance maximises the marginal likelihood. The estimate is exact where the
    score is linear and there are more pairs than dimensions. Elsewhere the noise of few draws
    would outweigh many small entries.

    References
    ----------
    .. [1] MacKay (1992), Bayesian interpolation, Neural Computation 4, 415-447.
    """
    first, opposite = shaping.pairs(noise)
    if 4 * len(first) > len(noise):
        noise, scores = noise[first], (scores[first] - scores[opposite]) / 2
    else:  # many draws lie outside the support
        noise, scores = noise - noise.mean(axis=0), scores - scores.mean(axis=0)
    left, n_dim = scores + noise, noise.shape[1]
    squares, vectors = np.linalg.eigh(noise.T @ noise)
    known = squares > 1e-10 * squares[-1]
    squares, vectors = squares[known], vectors[:, known]
    projected = vectors.T @ (noise.T @ left)
    explained = (projected**2).sum(axis=1) / squares
    unexplained = max((left**2).sum() - explained.sum(), 0.0)
    ratios = squares / RIDGES[:, None]  # of the variances of signal and noise
    noise_variance = (unexplained + (explained / (1 + ratios)).sum(axis=1)) / left.size + TINY
    evidence = -len(left) * np.log(noise_variance) - np.log1p(ratios).sum(axis=1)
    slopes = vectors @ (projected / (squares + RIDGES[evidence.argmax()])[:, None])
    return np.eye(n_dim) - (slopes + slopes.T) / 2


def fit(
    target: Target,
    gaussian: Gaussian,
    rng: np.random.Generator,
    *,
    n_draws: int | None = None,
    most: int = MOST_BATCHES,
    with_shape: bool = False,
    on_batch: Callable = lambda batch: None,
    should_stop: Callable = lambda batch: False,
) -> Batch:
    """Take Newton steps until they gain no more.

    Parameters
    ----------
    target : Target
    gaussian : Gaussian
        The start.
    rng : numpy.random.Generator
    n_draws : int, optional
        Per batch: two per dimension of a dense metric, and at least 150.
    most : int
        Batches.
    with_shape : bool
        Whether coordinates may get a shape.
    on_batch : callable
        Called with each batch whose Gaussian is accepted.
    should_stop : callable
        Returns whether such a batch ends the fit.

    Returns
    -------
    Batch
        Of the last Gaussian accepted, or of the best where that is clearly better.
    """
    if n_draws is None:
        per_dimension = DRAWS_PER_DIMENSION if gaussian.root.ndim == 2 else 0
        n_draws = max(LEAST_DRAWS, per_dimension * gaussian.n_dim)
    batch, damping, n_quiet = draw(target, gaussian, n_draws, rng), 1.0, 0
    best, was_lucky, elbos = batch, False, list[tuple[float, float]]()
    on_batch(batch)

    def fall(old, new):
        """Fall of the ELBO from one batch to another, nats, and two standard errors of it."""
        # the score of a shape sees draws far out, that of mean and L would not mend them
        now, then = (b.cut() if with_shape else b for b in (old, new))
        return now.elbo - then.elbo, 2 * np.hypot(now.standard_error, then.standard_error)

    for _ in range(most):
        if len(batch.log_weights) <= 2:
            break
        newton = Newton.of(batch)
        for _ in range(MOST_REFUSALS):
            step = _with_coordinates(target, batch, newton.step(batch.gaussian, damping), damping)
            if with_shape:
                step = shaping.shaped(target, batch, step, damping)
            ahead = draw(target, step, n_draws, rng)
            fell, error = fall(batch, ahead)
            if fell < min(error + ALLOWED_FALL, LARGEST_FALL):
                break
            damping *= REFUSED
        else:
            if not with_shape or was_lucky:
                break
            # a batch without draws far out looks too good: evaluate again
            batch, was_lucky = draw(target, batch.gaussian, n_draws, rng), True
            continue
        was_lucky = False
        batch = ahead
        quiet = max(QUIET, QUIET_SHARE * batch.typical_divergence)
        in_noise = with_shape and error > CLEAR
        n_quiet = n_quiet + 1 if fell > -(error if in_noise else quiet) else 0
        judged = batch.cut() if with_shape else batch
        elbos.append((judged.elbo, judged.standard_error))
        best = batch if fall(best, batch)[0] < 0 else best
        on_batch(batch)
        if should_stop(batch):
            break
        enough = N_QUIET_IN_NOISE if in_noise else N_QUIET
        is_quiet = n_quiet >= enough and (in_noise or damping == 1.0)
        if is_quiet or _has_stopped_rising(elbos, max(WINDOW, enough), quiet):
            break
        damping = min(1.0, ACCEPTED * damping)
    fell, error = fall(best, batch)  # in many small falls, each of them within its noise
    return best if fell > error else batch


def _has_stopped_rising(elbos, window, quiet):
    """Tell whether the latest ELBOs are no higher than as many before, within their noise.

    The noise of single batches may hide for long that they gain nothing. Medians are compared,
    because a rare draw far out may cost a batch any number of nats.

    Parameters
    ----------
    elbos : list of pairs
        ELBO and its standard error, of each accepted batch.
    window : int
    quiet : float
        Nats that count as nothing.
    """
    if len(elbos) < 2 * window:
        return False
    values, errors = np.array(elbos[-2 * window :]).T
    error = np.median(errors) * np.sqrt(2 / window)
    return np.median(values[window:]) - np.median(values[:window]) < max(quiet, error)


def settle_coordinates(
    target: Target,
    gaussian: Gaussian,
    rng: np.random.Generator,
    *,
    on_batch: Callable = lambda batch: None,
) -> Gaussian:
    """Take steps with few draws under a diagonal metric, until the coordinates are found.

    If sites have hundreds of elements, a Gaussian is far too wide while the coordinates are wrong,
    and Newton steps are refused. These steps are short and many.

    Parameters
    ----------
    gaussian : Gaussian
        With a diagonal root.
    on_batch : callable
        Called with each batch.
    """
    best = -np.inf
    for _ in range(MOST_ROUNDS):
        elbos = []
        for _ in range(ROUND):
            batch = draw(target, gaussian, FEW_DRAWS, rng)
            if len(batch.log_weights) <= 2:
                return gaussian
            elbos.append(batch.elbo)
            on_batch(batch)
            gaussian = _short_step(target, batch)
        latest = np.mean(elbos[ROUND // 2 :])
        error = np.std(elbos[ROUND // 2 :]) / np.sqrt(ROUND / 2)
        # a dense batch costs as many gradients as these rounds and gains more
        if latest - best < max(2 * error, gaussian.n_dim / 100):
            break
        best = latest
    return gaussian


def _short_step(target, batch):
    """Take a short step of mean, scales and pseudo-observations: bounded parts of Newton steps."""
    gaussian = batch.gaussian
    scores = batch.gradients * gaussian.root
    curvature = -(batch.noise * scores).mean(axis=0) / (batch.noise**2).mean(axis=0)
    shift = GAMMA * scores.mean(axis=0) / np.clip(curvature, 1.0, LARGEST_CURVATURE)
    shift = np.clip(shift, -1.0, 1.0)
    longest = LARGEST_FEW_SHIFT * np.sqrt(gaussian.n_dim)
    shift *= min(1.0, longest / max(np.linalg.norm(shift), 1e-300))
    change = np.clip(GAMMA * (curvature - 1), -LARGEST_LOG_CHANGE, LARGEST_LOG_CHANGE)
    step = Gaussian(
        gaussian.mean + gaussian.root * shift,
        gaussian.root * np.exp(-0.5 * change),
        gaussian.parameters,
    )
    return _with_coordinates(target, batch, step, GAMMA)


def _with_coordinates(target, batch, step, damping):
    """Learn the parameters of the coordinates from a batch, with the Gaussian fixed in z."""
    old = batch.gaussian.parameters
    if not old:
        return step
    _, points, gradients = batch.tame()
    new, centre, factor = target.learn(points, gradients, step.mean[None], old, damping)
    # coordinates may hold what a diagonal root lacks; short steps have too few draws for it
    if step.root.ndim == 1 and len(points) >= LEAST_DRAWS / 2:
        new, centre, also = target.decorrelate(points, gradients, centre, new)
        factor = factor * also
    [mean] = centre
    return Gaussian(mean, metrics.scale_rows(step.root, factor), new)


def root_by_differences(
    target: Target, mean: np.ndarray, parameters: dict, unit: np.ndarray | None = None
) -> np.ndarray:
    """Root (d, d) of the inverse of -Hessian at a point, by finite differences of the gradient.

    Parameters
    ----------
    unit : (d, d) array, optional
        Root of a metric in which the Hessian is of the order of one.
    """
    unit = np.eye(len(mean)) if unit is None else unit
    precision = precision_by_differences(target, mean, parameters, unit.T)
    return unit @ np.linalg.cholesky(bounded_inverse(precision))


def precision_by_differences(
    target: Target, mean: np.ndarray, parameters: dict, directions: np.ndarray
) -> np.ndarray:
    """Precision (n, n) along directions (n, d) at a point, by differences of the gradient."""
    steps, n = DIFFERENCE * directions, len(directions)
    _, gradients = target.evaluate(np.concatenate([mean + steps, mean - steps]), parameters)
    whitened = np.nan_to_num((gradients[n:] - gradients[:n]) @ directions.T)
    precision = whitened / (2 * DIFFERENCE)
    return (precision + precision.T) / 2


def bounded_inverse(precision: np.ndarray) -> np.ndarray:
    """Covariance (n, n) of a symmetric precision, whose eigenvalues may be nothing or negative."""
    values, vectors = np.linalg.eigh(precision)
    covariance = (vectors / np.maximum(values, LEAST_PRECISION)) @ vectors.T
    return covariance + 1e-12 * np.eye(len(precision))
