r"""The approximation as numbers: blocks, each a mixture in its own coordinates.

.. math:: q(z) = \sum_j W_j \, q_j(z), \qquad
    \log q(z) = \operatorname{logsumexp}_j \left[\log W_j + \log q_j(y_j(z)) +
    \log |\det \partial y_j / \partial z|\right]

A fit is one block; joined fits are several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from pymc_isomix.family import metric as metrics
from pymc_isomix.family import modes
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.sites.coordinates import Coordinates


@dataclass(frozen=True, eq=False)
class Block:
    """A mixture and its coordinates.

    Parameters
    ----------
    mixture : Mixture
        In the coordinates y of the block.
    coordinates : Coordinates
        The map between y and unconstrained space.
    source : int
        Number of its fit.
    """

    mixture: Mixture
    coordinates: Coordinates
    source: int = 0

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (S,) at unconstrained points (S, d), and responsibilities (S, K)."""
        y, log_determinant = self.coordinates.from_unconstrained(points)
        finite = np.isfinite(y).all(axis=1) & np.isfinite(log_determinant)
        log_q, responsibilities = self.mixture.evaluate(np.where(finite[:, None], y, 0))
        log_q = np.where(finite, log_q + log_determinant, -np.inf)
        return log_q, responsibilities * finite[:, None]

    def draw(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw points (draws, d), unconstrained space."""
        return self.coordinates.to_unconstrained(self.mixture.draw(draws, rng)[0])[0]

    def of_components(self, chosen: np.ndarray) -> "Block":
        """Return the block of some components, with weights that add up to one."""
        names = ("means", "log_variances", "log_weights")
        parts = {name: getattr(self.mixture, name)[chosen] for name in names}
        return replace(self, mixture=self.mixture.replace(**parts))


@dataclass(frozen=True, eq=False)
class BlockMixture:
    """A weighted union of blocks, in the coordinates y of the first and heaviest one.

    Draws and densities are exact. With one block they are those of its mixture.

    Parameters
    ----------
    blocks : tuple of Block
        The heaviest first; ``BlockMixture.of`` sorts them.
    log_block_weights : (J,) array
        Normalised.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     fits = [pmi.IsotropicMixture(n_components=2, random_seed=seed) for seed in (1, 2)]
    >>> union = BlockMixture.of([fit.density.blocks[0] for fit in fits], np.log([0.3, 0.7]))
    >>> union.n_components, union.block_weights.round(2)
    (4, array([0.7, 0.3]))
    """

    blocks: tuple[Block, ...]
    log_block_weights: np.ndarray

    @classmethod
    def of(cls, blocks: list[Block], log_weights: Any = (0.0,)) -> "BlockMixture":
        """Join blocks by their log weights (J,), which are normalised."""
        log_weights = np.asarray(log_weights, dtype=float)
        order = np.argsort(-log_weights, kind="stable")
        normalised = log_weights[order] - np.logaddexp.reduce(log_weights)
        return cls(tuple(blocks[j] for j in order), normalised)

    @property
    def coordinates(self) -> Coordinates:
        """The coordinates y of the first block."""
        return self.blocks[0].coordinates

    @property
    def block_weights(self) -> np.ndarray:
        """Weights of the blocks (J,)."""
        return np.exp(self.log_block_weights)

    @property
    def n_components(self) -> int:
        """K, of all blocks together."""
        return sum(block.mixture.n_components for block in self.blocks)

    @property
    def n_dim(self) -> int:
        """Number of dimensions, d."""
        return self.blocks[0].mixture.n_dim

    @property
    def dtype(self) -> Any:
        """Of points."""
        return self.blocks[0].mixture.means.dtype

    @cached_property
    def places(self) -> list[slice]:
        """Slice of the components of each block."""
        ends = np.cumsum([0, *(block.mixture.n_components for block in self.blocks)]).tolist()
        return [slice(*pair) for pair in pairwise(ends)]

    @cached_property
    def log_weights(self) -> np.ndarray:
        """Log weights (K,) of the components, block after block."""
        pairs = zip(self.blocks, self.log_block_weights, strict=True)
        return np.concatenate([block.mixture.log_weights + weight for block, weight in pairs])

    @property
    def weights(self) -> np.ndarray:
        """Weights (K,) of the components, block after block."""
        return np.exp(self.log_weights)

    @cached_property
    def sketch(self) -> Mixture:
        """A :class:`Mixture` in y that has the places and scales of the components.

        It is used for whitening, distances between components, and ascents. The sketch of one block
        is its mixture. The sketch of several blocks has means in y, one metric, and variances by
        component and dimension. It is exact if no block has sites and all metrics are diagonal.
        """
        if len(self.blocks) == 1:
            return self.blocks[0].mixture
        means = [self._in_first(block, block.mixture.means) for block in self.blocks]
        metric, variances = _common_scale([b.mixture for b in self.blocks], self.block_weights)
        return Mixture(
            means=np.concatenate(means),
            log_variances=np.log(variances).astype(self.dtype),
            log_weights=self.log_weights,
            metric=metric.astype(self.dtype),
        )

    def with_one_metric(self, n_components: int) -> Any:
        """Return a :class:`Mixture` of K components with one metric, which is not exact.

        It has the means of the heaviest components, and each keeps its volume. PyMC's symbolic
        expressions use it.
        """
        sketch = self.sketch
        chosen = np.argsort(-self.log_weights, kind="stable")[:n_components]
        log_variances = sketch.log_variances
        if log_variances.ndim == 2:
            log_variances = log_variances.mean(axis=1)
        mixture = replace(
            sketch,
            means=sketch.means[chosen],
            log_variances=log_variances[chosen],
            log_weights=self.log_weights[chosen],
        )
        return mixture.replace().padded(n_components)

    @property
    def mean(self) -> np.ndarray:
        """Mean (d,) in y; for several blocks, the mean of the centres of the components."""
        return self.sketch.mean

    @property
    def standard_deviations(self) -> np.ndarray:
        """Standard deviation of each component in each dimension of its own block, (K, d)."""
        return np.concatenate([block.mixture.standard_deviations for block in self.blocks])

    @cached_property
    def mode_labels(self) -> np.ndarray:
        """Number of the mode of each component, (K,); see :func:`modes.label_modes`."""
        if len(self.blocks) == 1:
            return self.sketch.mode_labels
        return modes.label_modes(self.sketch, log_density=self.log_density)

    @cached_property
    def within_mode_covariance(self) -> np.ndarray:
        """Covariance within the modes, in y; see :func:`modes.within_mode_covariance`."""
        return modes.within_mode_covariance(self.sketch, self.mode_labels)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points y (draws, d), and their components (draws,)."""
        component = rng.choice(self.n_components, p=self.weights, size=draws)
        noise = rng.normal(size=(draws, self.n_dim)).astype(self.dtype)
        return self.at(noise, component), component

    def at(self, noise: np.ndarray, component: np.ndarray) -> np.ndarray:
        """Turn standard normal noise (S, d) into draws y of the components (S,)."""
        first = self.blocks[0]
        if len(self.blocks) == 1:
            return first.mixture.at(noise, component)
        points = np.empty(noise.shape, dtype=self.dtype)
        for block, place in zip(self.blocks, self.places, strict=True):
            own = (component >= place.start) & (component < place.stop)
            if own.any():
                y = block.mixture.at(noise[own], component[own] - place.start)
                points[own] = y if block is first else self._in_first(block, y)
        return points

    def _in_first(self, block, points):
        """Map points y (S, d) of a block to those of the first one, at the same z."""
        return self.coordinates.from_unconstrained(block.coordinates.to_unconstrained(points)[0])[0]

    def draw_unconstrained(
        self, draws: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points z (draws, d), and their components (draws,)."""
        points, component = self.draw(draws, rng)
        return self.coordinates.to_unconstrained(points)[0], component

    def evaluate(self, points: np.ndarray) -> Sequence:
        """Log density (S,) and responsibilities (S, K) at points y (S, d)."""
        if len(self.blocks) == 1:
            return self.blocks[0].mixture.evaluate(points)
        z, log_determinant = self.coordinates.to_unconstrained(np.asarray(points))
        log_q, responsibilities = self.evaluate_unconstrained(z)
        return log_q + log_determinant, responsibilities

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) at points y (S, d), as a density of y."""
        return self.evaluate(points)[0]

    def evaluate_unconstrained(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (S,) in unconstrained space, and responsibilities (S, K), at points z."""
        evaluated = [block.evaluate(points) for block in self.blocks]
        if len(evaluated) == 1:
            return evaluated[0]
        log_joint = np.stack([log_q for log_q, _ in evaluated], axis=1) + self.log_block_weights
        log_q = np.logaddexp.reduce(log_joint, axis=1)
        with np.errstate(invalid="ignore"):  # if all are zero
            share = np.nan_to_num(np.exp(log_joint - log_q[:, None]))
        parts = [share[:, [j]] * own for j, (_, own) in enumerate(evaluated)]
        return log_q, np.concatenate(parts, axis=1)

    def log_density_unconstrained(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) in unconstrained space, at points z (S, d)."""
        return self.evaluate_unconstrained(points)[0]


def _common_scale(mixtures, weights):
    """One metric for all components, and their variances (K, d) in its coordinates."""
    if any(mixture.metric.ndim == 2 for mixture in mixtures):
        # a QR decomposition avoids squares, which would lose half of the digits
        rows = np.zeros((0, mixtures[0].n_dim))
        for weight, mixture in zip(weights, mixtures, strict=True):
            part = np.sqrt(weight) * mixture.scaled.root.T
            rows = metrics.of_rows(np.concatenate([rows, part])).T
        metric = rows.T
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
