"""Importance weights of draws from the approximation, Pareto-smoothed by ArviZ."""

from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats

FEWEST_DRAWS = 25  # below, the tail that Pareto smoothing fits has fewer than five draws


class Importance(NamedTuple):
    """Smoothed importance weights, and what they say."""

    weight: np.ndarray  # (S,) sums to 1
    khat: float  # -inf where all weights are equal
    log_evidence: float  # nats
    log_evidence_se: float
    effective: float  # importance ESS, in draws


def good_khat(n_draws):
    r"""Return the k-hat below which S draws can be believed, :math:`\min(1 - 1/\log_{10} S, 0.7)`.

    Examples
    --------
    >>> round(good_khat(100), 2), good_khat(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / np.log10(n_draws), 0.7)


def smooth(log_weight):
    r"""Pareto-smooth importance weights :math:`\log p - \log q`.

    A draw whose log weight is not finite gets weight zero, and counts as a draw.

    Parameters
    ----------
    log_weight : (S,) array
        At draws from q, nats.

    Returns
    -------
    Importance

    References
    ----------
    .. [1] Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
       arXiv:1507.02646.
    """
    n_draws = len(log_weight)
    finite = np.isfinite(log_weight)
    weight = np.zeros(n_draws)
    if not finite.any():
        return Importance(np.full(n_draws, np.nan), np.inf, -np.inf, np.inf, 0.0)
    raw = np.asarray(log_weight[finite], dtype=float)
    if np.ptp(raw) < 1e-10:
        smoothed, khat = np.full(len(raw), -np.log(len(raw))), -np.inf
    elif len(raw) < FEWEST_DRAWS:
        smoothed, khat = raw - np.logaddexp.reduce(raw), np.nan
    else:
        smoothed, khat = _psis(raw)
    weight[finite] = np.exp(smoothed)
    weight /= weight.sum()
    smallest = np.argmin(raw)  # never in the tail: its smoothing is the normalisation alone
    log_evidence = raw[smallest] - smoothed[smallest] - np.log(n_draws)
    effective = 1 / np.sum(weight**2)
    error = np.sqrt(max(1 / effective - 1 / n_draws, 0.0))
    return Importance(weight, float(khat), float(log_evidence), float(error), float(effective))


def _psis(log_weight):
    try:
        smoothed, khat = array_stats.psislw(-log_weight)  # which negates what it gets
    except ValueError:  # the largest weights are all equal: no tail to fit
        return log_weight - np.logaddexp.reduce(log_weight), -np.inf
    return smoothed, khat


def resample(weight, n_draws, rng):
    """Choose draws in proportion to their weights, systematically, in random order.

    Returns
    -------
    (n_draws,) integer array
    """
    places = (rng.random() + np.arange(n_draws)) / n_draws
    chosen = np.searchsorted(np.cumsum(weight), places * weight.sum())
    return rng.permutation(np.minimum(chosen, len(weight) - 1))


class WeightedDraws(NamedTuple):
    """Draws from the approximation, with the densities of both sides."""

    points: np.ndarray  # (S, d), unconstrained space
    component: np.ndarray  # (S,) integers
    log_p: np.ndarray  # (S,) log joint density of the model, unconstrained space
    log_q: np.ndarray  # (S,)
    responsibilities: np.ndarray  # (S, K)
    importance: Importance

    @property
    def log_weight(self):
        """Raw log weights, (S,), nats."""
        return self.log_p - self.log_q

    def resampled(self, n_draws, rng):
        """Draw from these by their weights, after which all weights are equal."""
        chosen = resample(self.importance.weight, n_draws, rng)
        rows = (field[chosen] for field in self[:-1])
        equal = self.importance._replace(weight=np.full(n_draws, 1 / n_draws))
        return WeightedDraws(*rows, importance=equal)


def weigh(points, component, log_density, evaluate_mixture):
    """Weigh draws from the approximation.

    Parameters
    ----------
    points : (S, d) array
    component : (S,) integer array
    log_density : callable
        From points to the model's log joint density (S,).
    evaluate_mixture : callable
        From points to the log density of q (S,) and responsibilities (S, K).
    """
    log_q, responsibilities = evaluate_mixture(points)
    log_p = log_density(points)
    return WeightedDraws(points, component, log_p, log_q, responsibilities, smooth(log_p - log_q))
