r"""Joining of fits: the choice of pieces, and their weights.

A *piece* is the part of one fit in one mode. The draws of all pieces together have the density
:math:`m(z) = \sum_u \alpha_u q_u(z)`. They get the weights :math:`p / m`, the balance heuristic of
multiple importance sampling, so overlapping fits are not counted twice. The weights of the pieces
maximise :math:`\mathbb E_p[\log \sum_u W_u q_u]`, by EM steps

.. math:: W_u \leftarrow \sum_s \bar\omega_s \, \frac{W_u q_u(z_s)}{\sum_v W_v q_v(z_s)},

as at the end of a single fit. Separate pieces get their shares of the evidence.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.family import modes
from pymc_isomix.family.shares import balance, responsibilities
from pymc_isomix.results.importance import smooth
from pymc_isomix.sites.blocks import Block, BlockMixture

MOST_NUMBERS = 20_000_000  # among the draws, and among their densities under all pieces
PILOT = 50, 200  # draws per piece, fewest and most, to choose among pieces
PILOT_DRAWS = 10_000  # draws of all pieces together, if each then has enough
FINAL_DRAWS = 1000  # draws per chosen piece, for its weight
LEAST_GAIN = 0.02  # nats of E_p log q that a piece has to add
FLOOR = np.log(1e-6)  # of the density where no chosen piece is yet, relative to all pieces
SAME_PLACE, SAME_SCALE = 0.5, 0.35  # standard deviations and log ratio, root mean square
COPIES = 2
LEAST_WEIGHT = 1e-4
EM_STEPS_TO_CHOOSE = 20


class Draws(NamedTuple):
    """Equal numbers of draws from several pieces, with their importance weights."""

    log_q: np.ndarray  # (S, U) by piece
    weight: np.ndarray  # (S,) sums to 1: p / m, smoothed by piece
    log_evidence: float
    elbo: np.ndarray  # (U,) of each piece alone, nats
    khat: np.ndarray  # (U,) of p / m among its draws


class Weighted(NamedTuple):
    """The chosen pieces and their figures."""

    pieces: list[Block]
    weight: np.ndarray  # (U,)
    weight_se: np.ndarray  # (U,)
    elbo: np.ndarray  # (U,)
    khat: np.ndarray  # (U,)
    log_evidence: float
    log_evidence_se: float
    n_pieces: int  # of all fits

    @property
    def joined(self) -> BlockMixture:
        """Pieces of one fit make up one block."""
        sources = dict.fromkeys(piece.source for piece in self.pieces)
        blocks, log_weights = [], []
        for source in sources:
            own = [u for u, piece in enumerate(self.pieces) if piece.source == source]
            parts = [self.pieces[u].mixture for u in own]
            names = ("means", "log_variances", "log_weights")
            arrays = {n: np.concatenate([getattr(part, n) for part in parts]) for n in names}
            log_own = np.log(self.weight[own])
            sizes = [part.n_components for part in parts]
            arrays["log_weights"] = arrays["log_weights"] + np.repeat(log_own, sizes)
            arrays = {n: a.astype(parts[0].means.dtype) for n, a in arrays.items()}
            first = self.pieces[own[0]]
            blocks.append(replace(first, mixture=first.mixture.replace(**arrays)))
            log_weights.append(np.logaddexp.reduce(log_own))
        return BlockMixture.of(blocks, log_weights)


def join(blocks: Sequence[Block], log_density: Callable, rng: np.random.Generator) -> Weighted:
    """Join fits: choose pieces and weigh them.

    Parameters
    ----------
    blocks : list of Block
        One for each fit.
    log_density : callable
        Log joint density of the model, from points (S, d) in unconstrained space to (S,).

    Raises
    ------
    ValueError
        If no draw of any fit has a finite log density.
    """
    pieces = [piece for block in blocks for piece in pieces_of(block)]
    chosen = without_copies(pieces, log_density, rng)
    if len(chosen) > 1:
        n_each = int(np.clip(PILOT_DRAWS // len(chosen), *PILOT))
        chosen = [chosen[u] for u in choose(draw(chosen, log_density, n_each, rng))]
    draws = draw(chosen, log_density, FINAL_DRAWS, rng)
    weight = balance(draws.log_q, draws.weight)
    error, evidence_error = standard_errors(draws, weight)
    return Weighted(
        chosen,
        weight,
        error,
        draws.elbo,
        draws.khat,
        draws.log_evidence,
        evidence_error,
        len(pieces),
    )


def pieces_of(block: Block) -> list[Block]:
    """Split a fit into its modes, without components of next to no weight."""
    labels, alive = block.mixture.mode_labels, ~modes.is_dead(block.mixture)
    found = [np.flatnonzero(alive & (labels == label)) for label in np.unique(labels)]
    return [block.of_components(own) for own in found if own.size]


def without_copies(
    pieces: list[Block], log_density: Callable, rng: np.random.Generator
) -> list[Block]:
    """Keep only the best two of pieces with the same place and scales.

    Many restarts find the same mode, and the following steps are quadratic in the number of pieces.
    """
    points = np.stack([piece.draw(PILOT[0], rng) for piece in pieces])  # (U, n, d)
    log_p = np.asarray(log_density(points.reshape(-1, points.shape[2])), dtype=float)
    log_p = log_p.reshape(len(pieces), -1)
    elbo = [
        _mean_of_finite(log_p[u] - densities([piece], points[u])[:, 0])
        for u, piece in enumerate(pieces)
    ]
    mean, scale = points.mean(axis=1), points.std(axis=1)
    best: list[int] = []
    for u in np.argsort(-np.array(elbo), kind="stable"):
        offset = (mean[u] - mean[best]) / np.sqrt(scale[u] * scale[best])
        stretch = np.log(scale[u] / scale[best])
        alike = np.sqrt((offset**2).mean(axis=1)) < SAME_PLACE
        alike &= np.sqrt((stretch**2).mean(axis=1)) < SAME_SCALE
        if alike.sum() < COPIES:
            best.append(int(u))
    return [pieces[u] for u in sorted(best)]


def draw(pieces: list, log_density: Callable, n_each: int, rng: np.random.Generator) -> Draws:
    """Draw from all pieces, and weigh the draws by the balance heuristic.

    Weights are smoothed per piece, so that a poor piece does not spoil the others.
    """
    n_pieces = len(pieces)
    most = MOST_NUMBERS // (n_pieces * max(n_pieces, pieces[0].mixture.n_dim))
    n_each = max(min(n_each, most), PILOT[0])
    points = np.concatenate([piece.draw(n_each, rng) for piece in pieces])
    log_p = np.asarray(log_density(points), dtype=float)
    log_q = densities(pieces, points)
    log_weight = log_p - np.logaddexp.reduce(log_q, axis=1) + np.log(n_pieces)
    strata = [slice(u * n_each, (u + 1) * n_each) for u in range(n_pieces)]
    smoothed = [smooth(log_weight[own]) for own in strata]
    evidence = np.array([s.log_evidence for s in smoothed])
    if not np.isfinite(evidence.max()):
        raise ValueError("no draw of any fit has a finite log density: there is nothing to join")
    share = np.exp(evidence - np.logaddexp.reduce(evidence))
    weight = np.concatenate(
        [w * np.nan_to_num(s.weight) for w, s in zip(share, smoothed, strict=True)]
    )
    own_ratio = [log_p[own] - log_q[own, u] for u, own in enumerate(strata)]
    elbo = [_mean_of_finite(r) for r in own_ratio]
    return Draws(
        log_q,
        weight,
        float(np.logaddexp.reduce(evidence) - np.log(n_pieces)),
        np.array(elbo),
        np.array([s.khat for s in smoothed]),
    )


def _mean_of_finite(values):
    finite = np.isfinite(values)
    return values[finite].mean() if finite.any() else -np.inf


def densities(pieces: list[Block], points: np.ndarray) -> np.ndarray:
    """Log density (S, U) of each piece at unconstrained points (S, d)."""
    columns, seen = [], None
    for piece in pieces:
        if (
            seen is None or seen[0] is not piece.coordinates
        ):  # pieces of one fit share its coordinates
            seen = piece.coordinates, piece.coordinates.from_unconstrained(points)
        y, log_determinant = seen[1]
        columns.append(piece.mixture.log_density(y) + log_determinant)
    return np.nan_to_num(np.stack(columns, axis=1), nan=-np.inf, neginf=-np.inf)


def standard_errors(draws: Draws, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Return standard errors of the weights (U,) and of the log evidence, from strata of draws.

    They are those of a ratio of two means, to first order, with fixed responsibilities.
    """
    n_pieces = len(weight)
    with np.errstate(divide="ignore"):
        excess = responsibilities(draws.log_q, np.log(weight)) - weight
    n_each = len(excess) // n_pieces
    by_stratum = (draws.weight[:, None] * excess).reshape(n_pieces, n_each, n_pieces)
    variance = n_each * by_stratum.var(axis=1, ddof=1).sum(axis=0)
    own = draws.weight.reshape(n_pieces, n_each)
    return np.sqrt(variance), float(np.sqrt(n_each * own.var(axis=1, ddof=1).sum()))


def choose(draws: Draws) -> list[int]:
    """Choose pieces one by one, the best fit of its own mode first.

    A piece stays if it raises the mean log density under the posterior, because it covers mass that
    the others do not cover, or cover worse. A near copy of another piece adds nothing.
    """
    counts = draws.weight > 0
    log_q, weight = draws.log_q[counts], draws.weight[counts]
    order = [int(u) for u in np.argsort(-draws.elbo, kind="stable") if np.isfinite(draws.elbo[u])]
    # far from the chosen pieces, any piece would seem a gain
    everywhere = np.logaddexp.reduce(log_q, axis=1) - np.log(log_q.shape[1])
    chosen = [order[0]]
    current = np.logaddexp(log_q[:, order[0]], everywhere + FLOOR)
    for u in order[1:]:
        share, gain = gain_of(log_q[:, u], current, weight)
        if share > LEAST_WEIGHT and gain > min(LEAST_GAIN, share):
            chosen.append(u)
            current = np.logaddexp(current + np.log1p(-share), log_q[:, u] + np.log(share))
    while len(chosen) > 1:  # an early piece may no longer be needed, or have next to no weight
        weights = balance(log_q[:, chosen], weight, EM_STEPS_TO_CHOOSE)
        losses = [_loss(log_q[:, chosen], weights, i, weight) for i in range(len(chosen))]
        least = int(np.argmin(losses))
        needless = losses[least] <= LEAST_GAIN
        if not needless and weights.min() > LEAST_WEIGHT:
            break
        chosen.pop(least if needless else int(np.argmin(weights)))
    return chosen


def gain_of(log_new: np.ndarray, log_old: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Best share of a new piece, and its gain in mean log density, nats."""
    with np.errstate(invalid="ignore", over="ignore"):
        log_ratio = np.nan_to_num(log_new - log_old, nan=0.0, posinf=700.0, neginf=-700.0)
        if weight @ np.exp(log_ratio) < 1:  # the slope at share 0
            return 0.0, 0.0
    share = 0.5
    for _ in range(EM_STEPS_TO_CHOOSE):
        log_odds = np.log(share) - np.log1p(-share)
        share = float(np.clip(weight @ scipy.special.expit(log_odds + log_ratio), 1e-12, 1 - 1e-12))
    gained = np.logaddexp(np.log1p(-share), np.log(share) + log_ratio)
    return share, float(weight @ gained)


def _loss(log_q, weights, i, weight):
    """Loss of mean log density without one of the pieces, nats."""
    others = np.delete(np.arange(len(weights)), i)
    with np.errstate(divide="ignore"):
        log_w = np.log(weights)
        rest = np.logaddexp.reduce(log_q[:, others] + log_w[others], axis=1)
        rest = rest - np.log(max(1 - weights[i], 1e-300))
    return gain_of(log_q[:, i], rest, weight)[1]
