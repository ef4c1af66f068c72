"""Importance weights of draws from the approximation, Pareto-smoothed by ArviZ."""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.sites.blocks import BlockMixture

logger = logging.getLogger(__name__)

REDRAWS = 50  # tries to replace a draw outside the support
FEWEST_DRAWS = 25  # with fewer, Pareto smoothing has fewer than five draws in its tail


class Importance(NamedTuple):
    """Smoothed importance weights with their diagnostics."""

    weight: np.ndarray  # (S,) sums to 1
    khat: float  # -inf if all weights are equal
    log_evidence: float  # nats
    log_evidence_se: float
    effective: float  # importance ESS, in draws


def good_khat(n_draws: int) -> float:
    r"""Return the bound of k-hat for S draws, :math:`\min(1 - 1/\log_{10} S, 0.7)`.

    Examples
    --------
    >>> good_khat(100), good_khat(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(max(n_draws, 2)), 0.7)


def smooth(log_weight: np.ndarray) -> Importance:
    r"""Pareto-smooth importance weights :math:`\log p - \log q`.

    A draw whose log weight is not finite gets weight zero and still counts as a draw.

    Parameters
    ----------
    log_weight : (S,) array
        At draws from q, nats.

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
        if not np.isfinite(smoothed).all():  # weights of astronomical range
            smoothed, khat = raw - np.logaddexp.reduce(raw), np.nan
    weight[finite] = np.exp(smoothed)
    weight /= weight.sum()
    smallest = np.argmin(raw)  # never in the tail, so smoothing only normalises it
    log_evidence = raw[smallest] - smoothed[smallest] - np.log(n_draws)
    effective = 1 / np.sum(weight**2)
    error = np.sqrt(max(1 / effective - 1 / n_draws, 0.0))
    return Importance(weight, float(khat), float(log_evidence), float(error), float(effective))


def import_psis() -> Any:
    """Import ArviZ's Pareto smoothing only here, because it takes half a second."""
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    return array_stats


def _psis(log_weight):
    try:
        smoothed, khat = import_psis().psislw(-log_weight)  # which takes negated log weights
    except ValueError:  # the largest weights are all equal: no tail to fit
        return log_weight - np.logaddexp.reduce(log_weight), -np.inf
    return smoothed, khat


def resample(weight: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
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

    points: np.ndarray  # (S, d), coordinates y
    component: np.ndarray  # (S,) integers
    log_q: np.ndarray  # (S,) in y
    responsibilities: np.ndarray  # (S, K)
    log_p: np.ndarray | None  # (S,) the model's log joint density, in y; if known
    log_weight: Any  # (S,) array, raw, nats; None if log_p is
    unconstrained: np.ndarray  # (S, d) z
    log_determinant: np.ndarray  # (S,) log |dz/dy|
    importance: Any  # Importance; None if log_p is


def weigh(
    mixture: BlockMixture,
    points: np.ndarray,
    component: np.ndarray,
    mapped: Sequence,
    log_p: np.ndarray | None = None,
) -> WeightedDraws:
    """Weigh draws from the approximation.

    Parameters
    ----------
    mapped : (S, d) and (S,) array
        z of the draws, and log |dz/dy|.
    log_p : (S,) array, optional
        The model's log joint density at the draws, in y; without it there are no weights.
    """
    log_q, responsibilities = mixture.evaluate(points)
    log_weight = None if log_p is None else log_p - log_q
    smoothed = None if log_weight is None else smooth(log_weight)
    z, log_determinant = mapped
    return WeightedDraws(
        points, component, log_q, responsibilities, log_p, log_weight, z, log_determinant, smoothed
    )


def weigh_by_model(
    compiled: CompiledModel, mixture: BlockMixture, points: np.ndarray, component: np.ndarray
) -> WeightedDraws:
    """Weigh draws (S, d), coordinates y, by a :class:`CompiledModel`."""
    log_p, _, *mapped = compiled.evaluate(points)
    return weigh(mixture, points, component, mapped, log_p)


def get_ready(compiled: CompiledModel) -> None:
    """Compile and import the code that weighs draws, if no density takes long."""
    if compiled.is_quick:
        compiled.log_density(np.zeros((1, compiled.space.n_dim)))
        import_psis()


def weigh_if_possible(
    compiled: CompiledModel, mixture: BlockMixture, points: np.ndarray, component: np.ndarray
) -> WeightedDraws:
    """Weigh draws; without weights for a minibatch, or if the data do not fit."""
    if not compiled.subsamples:
        try:
            return weigh_by_model(compiled, mixture, points, component)
        except (
            AssertionError,
            TypeError,
            ValueError,
        ) as error:  # shape errors of the different backends
            logger.info(f"the draws have no weights, because their log density failed: {error}")
    return weigh(mixture, points, component, compiled.to_unconstrained(points))


def draw_inside(
    mixture: BlockMixture,
    weighted: WeightedDraws,
    compiled: CompiledModel,
    rng: np.random.Generator,
) -> WeightedDraws:
    """Replace draws without a finite log density: draw from the mixture cut to the support.

    Returns
    -------
    WeightedDraws
        Unchanged if all are finite.
    """
    points, component, log_p, *mapped = map(
        np.array,
        (
            weighted.points,
            weighted.component,
            weighted.log_p,
            weighted.unconstrained,
            weighted.log_determinant,
        ),
    )
    outside = np.flatnonzero(~np.isfinite(log_p))
    if not outside.size:
        return weighted
    share = outside.size / len(log_p)
    logger.info(f"{share:.1%} of the draws lay outside the model's support and were redrawn")
    for _ in range(REDRAWS):
        points[outside], component[outside] = mixture.draw(outside.size, rng)
        log_p[outside], _, mapped[0][outside], mapped[1][outside] = compiled.evaluate(
            points[outside]
        )
        outside = outside[~np.isfinite(log_p[outside])]
        if not outside.size:
            break
    else:
        logger.warning(
            f"{outside.size} draws lie outside the model's support even after {REDRAWS} attempts. "
            "The approximation does not fit this model: reparametrise it without hard bounds, or "
            "use another start"
        )
    return weigh(mixture, points, component, mapped, log_p)


def resample_draws(
    weighted: WeightedDraws, n_draws: int, rng: np.random.Generator, *, force: bool = False
) -> WeightedDraws:
    """Resample draws by their weights; all weights are then equal.

    Raises
    ------
    ValueError
        If k-hat is above 1, unless forced.
    """
    khat = weighted.importance.khat
    if not khat <= 1 and not (force and np.isfinite(khat)):  # NaN means too few draws
        raise ValueError(
            f'importance="psis" needs a Pareto k-hat of at most 1; it is {khat:.2f}, so a few '
            "draws would dominate. Improve the fit (approx.diagnostics() says how), or pass "
            "force=True"
        )
    chosen = resample(weighted.importance.weight, n_draws, rng)
    equal = weighted.importance._replace(weight=np.full(n_draws, 1 / n_draws))
    fields: Any = [field[chosen] for field in weighted[:-1] if field is not None]
    return WeightedDraws._make([*fields, equal])
