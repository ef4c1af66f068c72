"""Importance weights of draws from the approximation, Pareto-smoothed by ArviZ."""

import math
from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats  # type: ignore[attr-defined]

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
    >>> good_khat(100), good_khat(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(n_draws, 2)), 0.7)


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
    log_q: np.ndarray  # (S,)
    responsibilities: np.ndarray  # (S, K)
    log_p: np.ndarray | None  # (S,) the model's log joint density, unconstrained space; if known
    log_weight: np.ndarray | None  # (S,) raw, nats
    importance: Importance | None


def weigh(mixture, points, component, log_p=None):
    """Weigh draws from the approximation.

    Parameters
    ----------
    mixture : Mixture
    points : (S, d) array
    component : (S,) integer array
    log_p : (S,) array, optional
        The model's log joint density at the draws; without it there are no weights.

    Returns
    -------
    WeightedDraws
    """
    log_q, responsibilities = mixture.evaluate(points)
    log_weight = None if log_p is None else log_p - log_q
    smoothed = None if log_weight is None else smooth(log_weight)
    return WeightedDraws(points, component, log_q, responsibilities, log_p, log_weight, smoothed)


def resample_draws(weighted, n_draws, rng, *, force=False):
    """Draw from weighted draws by their weights, after which all weights are equal.

    Raises
    ------
    ValueError
        If k-hat is above 1, unless forced.
    """
    khat = weighted.importance.khat
    if not khat <= 1 and not (force and np.isfinite(khat)):  # NaN, of too few draws, is not good
        raise ValueError(
            f'importance="psis" needs a Pareto k-hat of at most 1; it is {khat:.2f}, so that a few '
            "draws would stand for all. Improve the fit (approx.diagnostics() says how), or pass "
            "force=True"
        )
    chosen = resample(weighted.importance.weight, n_draws, rng)
    equal = weighted.importance._replace(weight=np.full(n_draws, 1 / n_draws))
    return WeightedDraws._make([*(field[chosen] for field in weighted[:-1]), equal])
