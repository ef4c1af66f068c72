"""Exact posteriors of linear Gaussian state spaces: a Kalman smoother at each of many parameters.

Parameters are integrated out by sequential Monte Carlo from the prior on, which finds all modes.
Given those, each state is Gaussian; so the marginals are mixtures of Gaussians, whose quantiles are
exact but for the number of points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import ndtr

MOVES = 5  # Metropolis steps at each temperature; thrice as many at the last
LEVELS = (np.arange(1000) + 0.5) / 1000


def positive(scale):
    """Return log density, map and draws of a half normal, in its logarithm."""
    return (
        lambda u: u + stats.halfnorm.logpdf(np.exp(u), scale=scale),
        np.exp,
        lambda rng, n: np.log(np.abs(rng.normal(0, scale, n))),
    )


def real(mean, deviation):
    """Return log density, map and draws of a normal variable."""
    return (
        lambda u: stats.norm.logpdf(u, mean, deviation),
        lambda u: u,
        lambda rng, n: rng.normal(mean, deviation, n),
    )


def gaussian_steps(transition, offset, noises, mean, variances, seen, noise):
    """Arrays of x_t = F x_{t-1} + b + N(0, diag Q), x_0 = N(m, diag P), y_t = h x_t + N(0, R).

    Entries may be arrays (N,), of N parameters.
    """

    def stacked(values):
        return np.stack(np.broadcast_arrays(*values))

    rows = [list(row) for row in transition]
    p = len(rows)
    flat = stacked([*(v for row in rows for v in row), *offset, *noises, *mean, *variances, noise])
    cut = np.split(flat, np.cumsum([p * p, p, p, p, p]))
    return cut[0].reshape(p, p, -1), *cut[1:5], np.array(seen, float), cut[5][0]


@dataclass(frozen=True)
class StateSpace:
    """A linear Gaussian state space whose parameters have priors.

    Parameters
    ----------
    system : callable
        Returns what :func:`gaussian_steps` does, of parameters (P, N).
    parameters : dict
        Log prior, map from the real line and draws of each, as :func:`positive` has them.
    y : (B, T) array
        Series, independent given the parameters; not a number where missing.
    first : int
        Which time the first state has: those before are its further elements.
    """

    system: Callable
    parameters: dict
    y: np.ndarray
    first: int

    def log_densities(self, u):
        """Log prior and log likelihood, (N,) each, of parameters on the real line (P, N)."""
        prior, theta = self._prior(u)
        likelihood = sum(smooth(self.system(theta), y, self.first, ())[0] for y in self.y)
        bad = ~np.isfinite(likelihood)
        return prior, np.where(bad, -np.inf, likelihood)

    def _prior(self, u):
        kinds = self.parameters.values()
        prior = sum(density(own) for (density, *_), own in zip(kinds, u, strict=True))
        return prior, [of(own) for (_, of, _), own in zip(kinds, u, strict=True)]

    def sample(self, n_points, seed=0):
        """Draw from the posterior of the parameters, (P, n_points), and its log evidence.

        From the prior by sequential Monte Carlo: the likelihood is tempered, each time so far that
        half of the points count, and Metropolis steps move the points.
        """
        rng = np.random.default_rng(seed)
        u = np.stack([draw(rng, n_points) for *_, draw in self.parameters.values()])
        (prior, likelihood), heat, log_evidence = self.log_densities(u), 0.0, 0.0
        while heat < 1:
            rise = _rise(likelihood, 1 - heat)
            log_weights = rise * likelihood
            log_evidence += np.logaddexp.reduce(log_weights) - np.log(n_points)
            weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
            chosen = np.searchsorted(
                np.cumsum(weights) * (1 - 1e-12), (np.arange(n_points) + rng.uniform()) / n_points
            )
            heat += rise
            u, prior, likelihood = u[:, chosen], prior[chosen], likelihood[chosen]
            for _ in range(MOVES if heat < 1 else 3 * MOVES):
                # differences of two other points are as wide, and as many-shaped, as the points
                others = (rng.permutation(n_points) for _ in range(2))
                first, second = (u[:, other] for other in others)
                step = rng.choice([0.4, 0.8, 1.2], size=n_points) * (first - second)
                ahead = u + step + 1e-4 * rng.normal(size=u.shape)
                then = self.log_densities(ahead)
                odds = then[0] - prior + heat * (then[1] - likelihood)
                taken = np.log(rng.uniform(size=n_points)) < odds
                u = np.where(taken, ahead, u)
                prior, likelihood = (
                    np.where(taken, *pair) for pair in zip(then, (prior, likelihood), strict=True)
                )
        return u, log_evidence

    def marginals(self, times, n_points=1024, seed=0):
        """Quantiles (1000, ...) of parameters on the real line, and of states at some times.

        Returns
        -------
        parameters : dict of (1000,) arrays
        states : (1000, B, n) array
        log_evidence : float
        """
        u, log_evidence = self.sample(n_points, seed)
        _, theta = self._prior(u)
        states = []
        weights = np.full(n_points, 1 / n_points)
        for y in self.y:
            _, means, variances = smooth(self.system(theta), y, self.first, times)
            states.append(mixture_quantiles(means, variances, weights))
        of_parameters = dict(zip(self.parameters, np.quantile(u, LEVELS, axis=1).T, strict=True))
        return of_parameters, np.stack(states, axis=1), log_evidence


def _rise(likelihood, most):
    """Find how much hotter the likelihood may become, so that half of the points count."""

    def size(rise):
        log_weights = rise * likelihood
        weights = np.exp(log_weights - log_weights.max())
        return weights.sum() ** 2 / (weights**2).sum() / len(weights)

    if size(most) >= 0.5:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) >= 0.5 else (low, middle)
    return low


def smooth(system, y, first, times):
    """Log likelihood (N,), and mean and variance (n, N) of what is seen at some times.

    A Kalman filter, and the smoother of Rauch, Tung and Striebel.
    """
    transition, offset, noises, mean, variances, seen, noise = system
    p, n_points = mean.shape
    covariance = np.zeros((p, p, n_points))
    covariance[range(p), range(p)] = variances
    log_likelihood, filtered, predicted = 0.0, [], []
    with_states = len(times) > 0
    # the values before the first state are its further elements, seen at once
    early = np.eye(p)[1 : first + 1][::-1]
    for t in range(first, len(y)):
        if t > first:
            mean = np.einsum("ijn,jn->in", transition, mean) + offset
            covariance = np.einsum("ijn,jkn,lkn->iln", transition, covariance, transition)
            covariance[range(p), range(p)] += noises
        if with_states:
            predicted.append((mean, covariance))
        observed = [(seen, y[t])]
        if t == first:
            observed = [*zip(early, y[:first], strict=True), *observed]
        for row, value in observed:
            if np.isnan(value):
                continue
            gain = np.einsum("ijn,j->in", covariance, row)
            total = row @ gain + noise
            apart = value - row @ mean
            log_likelihood = log_likelihood - 0.5 * (np.log(2 * np.pi * total) + apart**2 / total)
            mean = mean + gain * apart / total
            covariance = covariance - gain[:, None] * gain[None] / total
        if with_states:
            filtered.append((mean, covariance))
    if not with_states:
        return log_likelihood, None, None
    wanted, found = set(times), {}

    def record(t, row):
        if t in wanted:
            found[t] = row @ mean, np.einsum("i,ijn,j->n", row, covariance, row)

    for t in range(len(y) - 1, first - 1, -1):
        if t < len(y) - 1:
            own_mean, own = filtered[t - first]
            ahead_mean, ahead = predicted[t - first + 1]
            gain = np.einsum("ijn,kjn->ikn", own, transition)
            gain = np.einsum("ijn,jkn->ikn", gain, _inverse(ahead))
            mean = own_mean + np.einsum("ijn,jn->in", gain, mean - ahead_mean)
            covariance = own + np.einsum("ijn,jkn,lkn->iln", gain, covariance - ahead, gain)
        record(t, seen)
    for t, row in enumerate(early):
        record(t, row)
    means, spreads = zip(*(found[t] for t in times), strict=True)
    return log_likelihood, np.array(means), np.array(spreads)


def _inverse(matrices):
    return np.moveaxis(np.linalg.inv(np.moveaxis(matrices, -1, 0)), 0, -1)


def mixture_quantiles(means, variances, weights):
    """Quantiles (1000, n) of mixtures of N Gaussians, (n, N), with shared weights (N,)."""
    found = []
    for mean, deviation in zip(means, np.sqrt(variances), strict=True):
        centre = weights @ mean
        spread = np.sqrt(weights @ (deviation**2 + (mean - centre) ** 2))
        grid = centre + spread * np.linspace(-7, 7, 701)
        below = ndtr((grid[:, None] - mean) / deviation) @ weights
        found.append(np.interp(LEVELS, below, grid))
    return np.stack(found, axis=1)
