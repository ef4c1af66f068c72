r"""The joined family: a weighted union of mixtures, each in coordinates of its own.

.. math:: q(z) = \sum_j W_j \, q_j(z), \qquad
    \log q(z) = \operatorname{logsumexp}_j \left[\log W_j + \log q_j(y_j(z)) +
    \log |\det \partial y_j / \partial z|\right]
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pymc_isomix.family import modes
from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.sites.coordinates import Coordinates

POINTS_AT_ONCE = 20_000  # along the edges between components


@dataclass(frozen=True, eq=False)
class Block:
    """A mixture, and the coordinates that it lies in.

    Parameters
    ----------
    mixture : Mixture
        Coordinates y of its own.
    coordinates : Coordinates
        The map between y and unconstrained space.
    source : int
        Number of the fit that it comes from.
    """

    mixture: Mixture
    coordinates: Coordinates
    source: int = 0

    def to_unconstrained(self, points):
        """Map points y (S, d) to z (S, d) and log |dz/dy| (S,)."""
        return self.coordinates.to_unconstrained(points)

    def from_unconstrained(self, points):
        """Map points z (S, d) to y (S, d) and log |dy/dz| (S,)."""
        return self.coordinates.from_unconstrained(points)

    def evaluate(self, points):
        """Log density (S,) at unconstrained points (S, d), and responsibilities (S, K)."""
        y, log_determinant = self.from_unconstrained(points)
        log_q, responsibilities = self.mixture.evaluate(y)
        log_q = log_q + log_determinant
        return np.where(np.isnan(log_q), -np.inf, log_q), np.nan_to_num(responsibilities)

    def draw(self, draws, rng):
        """Draw points (draws, d), unconstrained space."""
        return self.to_unconstrained(self.mixture.draw(draws, rng)[0])[0]

    def of_components(self, chosen):
        """Return the block of some components, with weights that add up to one."""
        names = ("means", "log_variances", "log_weights")
        parts = {name: getattr(self.mixture, name)[chosen] for name in names}
        return replace(self, mixture=self.mixture.replace(**parts))


@dataclass(frozen=True, eq=False)
class Joined(Mixture):
    """A weighted union of blocks, seen in the coordinates of the heaviest one.

    Draws and densities are exact. The parameters that it has as a :class:`Mixture` stand for it
    where only places and scales count (whitening, distances between components, ascents): means
    in the coordinates of the heaviest block, one metric, and variances by component and dimension.
    They are exact too where no block has sites and all metrics are diagonal.

    Parameters
    ----------
    means, log_variances, log_weights, metric
        See :class:`Mixture`; of all components, block after block.
    blocks : tuple of Block
        The heaviest first.
    """

    blocks: tuple[Block, ...] = ()

    @classmethod
    def of(cls, blocks, log_weights):
        """Join blocks by their log weights (J,), which are normalised."""
        order = np.argsort(-np.asarray(log_weights), kind="stable")
        blocks = tuple(blocks[j] for j in order)
        log_weights = np.asarray(log_weights)[order] - np.logaddexp.reduce(log_weights)
        first = blocks[0]
        within = [
            log_weight + block.mixture.log_weights
            for block, log_weight in zip(blocks, log_weights, strict=True)
        ]
        means = [
            first.from_unconstrained(block.to_unconstrained(block.mixture.means)[0])[0]
            for block in blocks
        ]
        metric, variances = _common_scale([b.mixture for b in blocks], np.exp(log_weights))
        return cls(
            means=np.concatenate(means),
            log_variances=np.log(variances).astype(means[0].dtype),
            log_weights=np.concatenate(within),
            metric=metric.astype(means[0].dtype),
            blocks=blocks,
        )

    def as_dict(self):
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in NAMES}

    @property
    def places(self):
        """Slices of the components that each block has."""
        ends = np.cumsum([0, *(block.mixture.n_components for block in self.blocks)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]

    @property
    def block_weights(self):
        """Weights of the blocks (J,)."""
        return np.array([self.weights[place].sum() for place in self.places])

    @property
    def standard_deviations(self):
        """Standard deviation of each component in each dimension of its own block, (K, d)."""
        return np.concatenate([block.mixture.standard_deviations for block in self.blocks])

    @property
    def scaled(self):
        """Places and scales alone, as a :class:`Mixture` of diagonal components."""
        return Mixture(**self.as_dict())

    def replace(self, **changes):
        """Refuse: the blocks would not follow."""
        raise TypeError("joined blocks cannot be changed; join them anew")

    def at(self, noise, component):
        """Turn standard normal noise (S, d) into draws of the components (S,)."""
        points = np.empty(noise.shape, dtype=self.means.dtype)
        first = self.blocks[0]
        for block, place in zip(self.blocks, self.places, strict=True):
            own = (component >= place.start) & (component < place.stop)
            if own.any():
                y = block.mixture.at(noise[own], component[own] - place.start)
                if block is not first:
                    y = first.from_unconstrained(block.to_unconstrained(y)[0])[0]
                points[own] = y
        return points

    def evaluate(self, points):
        """Log density (S,) and responsibilities (S, K) at points (S, d)."""
        z, log_determinant = self.blocks[0].to_unconstrained(np.asarray(points))
        log_q, responsibilities = self.evaluate_unconstrained(z)
        return log_q + log_determinant, responsibilities

    def evaluate_unconstrained(self, points):
        """Log density (S,) in unconstrained space, and responsibilities (S, K), at points z."""
        evaluated = [block.evaluate(points) for block in self.blocks]
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.block_weights)
        log_joint = np.stack([log_q for log_q, _ in evaluated], axis=1) + log_weights  # (S, J)
        log_q = np.logaddexp.reduce(log_joint, axis=1)
        with np.errstate(invalid="ignore"):  # where all are zero
            share = np.nan_to_num(np.exp(log_joint - log_q[:, None]))
        parts = [share[:, [j]] * own for j, (_, own) in enumerate(evaluated)]
        return log_q, np.concatenate(parts, axis=1)


def _common_scale(mixtures, weights):
    """One metric for all components, and their variances (K, d) in its coordinates."""
    if any(mixture.metric.ndim == 2 for mixture in mixtures):
        # the triangle of a QR decomposition: no squares, which would lose half of the digits
        upper = np.zeros((0, mixtures[0].n_dim))
        for weight, mixture in zip(weights, mixtures, strict=True):
            part = np.sqrt(weight) * mixture.scaled.root.T
            upper = np.linalg.qr(np.concatenate([upper, part]), mode="r")
        metric = upper.T * np.sign(np.diagonal(upper))
        common = Mixture(np.zeros((1, len(metric))), np.zeros(1), np.zeros(1), metric)
        variances = [
            np.broadcast_to(m.whitened_deviations**2, m.means.shape) @ common.whiten(m.root.T) ** 2
            for m in mixtures
        ]
        return metric, np.concatenate(variances)
    own = [mixture.standard_deviations**2 for mixture in mixtures]
    mean = sum(
        w * m.weights @ variances for w, m, variances in zip(weights, mixtures, own, strict=True)
    )
    metric = np.sqrt(mean)
    return metric, np.concatenate(own) / metric**2


@modes.peaks_and_saddles.register
def _peaks_and_saddles(mixture: Joined, start: Any, end: Any) -> Any:
    """Evaluate the exact log q at the means, and at points of each edge."""
    peaks = mixture.log_density(mixture.means)
    n_edges = max(1, POINTS_AT_ONCE // len(modes.POINTS))
    t = modes.POINTS[:, None, None]
    saddles = [np.zeros(0)]
    for first in range(0, len(start), n_edges):
        here = slice(first, first + n_edges)
        one, other = mixture.means[start[here]], mixture.means[end[here]]
        along = ((1 - t) * one + t * other).reshape(-1, mixture.n_dim)
        lowest = mixture.log_density(along).reshape(len(modes.POINTS), -1).min(axis=0)
        ends = np.minimum(peaks[start[here]], peaks[end[here]])
        saddles.append(np.minimum(lowest, ends))
    return peaks, np.concatenate(saddles)
