"""Exact posteriors of linear Gaussian state spaces: a Kalman smoother at each of many parameters.

Parameters are integrated out by importance sampling from a Student t about the mode of their
marginal posterior, at points of a Sobol sequence. Given those, each state is Gaussian; so the
marginals are mixtures of Gaussians, whose quantiles are exact but for the number of points.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from scipy.special import ndtr, ndtri

FREEDOM = 6  # of the Student t
LEVELS = (np.arange(1000) + 0.5) / 1000


def positive(scale):
    """Return log density and map of a half normal, in its logarithm."""
    return lambda u: u - 0.5 * (np.exp(u) / scale) ** 2 - np.log(scale), np.exp


def real(mean, deviation):
    """Return log density and map of a normal variable."""
    return lambda u: -0.5 * ((u - mean) / deviation) ** 2, lambda u: u


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
        Of each parameter, log prior and map from the real line, as :func:`positive` has them.
    y : (B, T) array
        Series, independent given the parameters; not a number where missing.
    first : int
        Which time the first state has: those before are its further elements.
    """

    system: Callable
    parameters: dict
    y: np.ndarray
    first: int

    def log_density(self, u):
        """Log posterior (N,) of parameters on the real line (P, N)."""
        prior, theta = self._prior(u)
        return prior + sum(smooth(self.system(theta), y, self.first, ())[0] for y in self.y)

    def _prior(self, u):
        kinds = self.parameters.values()
        prior = sum(density(own) for (density, _), own in zip(kinds, u, strict=True))
        return prior, [of(own) for (_, of), own in zip(kinds, u, strict=True)]

    def marginals(self, times, n_points=1024, seed=0):
        """Quantiles (1000, ...) of parameters on the real line, and of states at some times.

        Returns
        -------
        parameters : dict of (1000,) arrays
        states : (1000, B, n) array
        size : float
            Effective number of points.
        """
        n = len(self.parameters)
        found = optimize.minimize(
            lambda u: -self.log_density(u[:, None])[0], np.full(n, -0.5), method="Nelder-Mead",
            options={"xatol": 1e-3, "fatol": 1e-3, "maxiter": 2000},
        )
        root = np.linalg.cholesky(np.linalg.inv(-self._hessian(found.x)))
        noise = ndtri(stats.qmc.Sobol(n, seed=seed).random(n_points)).T
        chi = stats.chi2.ppf(stats.qmc.Sobol(1, seed=seed + 1).random(n_points)[:, 0], FREEDOM)
        whitened = noise / np.sqrt(chi / FREEDOM)
        u = found.x[:, None] + root @ whitened
        log_q = -0.5 * (FREEDOM + n) * np.log1p((whitened**2).sum(axis=0) / FREEDOM)
        log_p, theta = self._prior(u)
        states = []
        for y in self.y:
            likelihood, means, variances = smooth(self.system(theta), y, self.first, times)
            log_p = log_p + likelihood
            states.append((means, variances))
        weights = np.exp(log_p - log_q - (log_p - log_q).max())
        weights /= weights.sum()
        of_states = np.stack([mixture_quantiles(*pair, weights) for pair in states], axis=1)
        order = np.argsort(u, axis=1)
        of_parameters = {
            name: np.interp(LEVELS, np.cumsum(weights[at]) - weights[at] / 2, own[at])
            for name, own, at in zip(self.parameters, u, order, strict=True)
        }
        return of_parameters, of_states, 1 / (weights**2).sum()

    def _hessian(self, u, step=0.02):
        n = len(u)
        steps = step * np.eye(n)
        pairs = [(i, j) for i in range(n) for j in range(n)]
        signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        points = [u + a * steps[i] + b * steps[j] for i, j in pairs for a, b in signs]
        values = self.log_density(np.array(points).T).reshape(n, n, 4)
        return (values @ np.array([1, -1, -1, 1])) / (4 * step**2)


def smooth(system, y, first, times):
    """Log likelihood (N,), and mean and variance (n, N) of what is seen at some times.

    A Kalman filter, and the smoother of Rauch, Tung and Striebel.
    """
    transition, offset, noises, mean, variances, seen, noise = system
    p, n_points = mean.shape
    covariance = np.zeros((p, p, n_points))
    covariance[range(p), range(p)] = variances
    log_likelihood, filtered, predicted = 0.0, [], []
    keep = len(times) > 0
    # the values before the first state are its further elements, seen at once
    early = np.eye(p)[1 : first + 1][::-1]
    for t in range(first, len(y)):
        if t > first:
            mean = np.einsum("ijn,jn->in", transition, mean) + offset
            covariance = np.einsum("ijn,jkn,lkn->iln", transition, covariance, transition)
            covariance[range(p), range(p)] += noises
        if keep:
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
        if keep:
            filtered.append((mean, covariance))
    if not keep:
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
