"""A mixture as numbers: its parameters, and what NumPy computes from them."""

from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pymc_isomix.backend.compilation import CHEAP, compiling, one_at_a_time
from pymc_isomix.family import density, modes
from pymc_isomix.family import metric as metrics

NO_WEIGHT = -1e4  # a log weight; finite, for callbacks that take differences
COMPONENT_VARIANCES = ("isotropic", "diagonal")  # by the dimensions of the log variances, from 1


@dataclass(frozen=True, eq=False)
class Mixture:
    r"""Mixture of isotropic or diagonal Gaussians that share a metric L, as NumPy arrays.

    .. math:: q(y) = \sum_k w_k \, \mathcal N(y; \mu_k, \epsilon_k L L^T) \quad\text{or}\quad
        \sum_k w_k \, \mathcal N(y; \mu_k, L \operatorname{diag}(\epsilon_k) L^T)

    Parameters
    ----------
    means : (K, d) array
        Coordinates y: unconstrained space, unless the model has sites.
    log_variances : (K,) or (K, d) array
        Whitened coordinates u; isotropic or diagonal.
    log_weights : (K,) array
        Normalised.
    metric : (), (d,) or (d, d) array
        L, a Cholesky factor of a covariance (no mass matrix): a multiple of the identity, the
        diagonal of L, or a lower triangular L.

    Examples
    --------
    >>> means, log_weights = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.log([0.25, 0.75])
    >>> mixture = Mixture(means, np.zeros(2), log_weights, np.eye(2))
    >>> mixture.mean, mixture.standard_deviations
    (array([0.5, 0. ]), array([[1., 1.],
           [1., 1.]]))
    >>> points, component = mixture.draw(100, np.random.default_rng(1))
    >>> mixture.log_density(points).shape
    (100,)
    """

    means: np.ndarray
    log_variances: np.ndarray
    log_weights: np.ndarray
    metric: np.ndarray

    def __post_init__(self):
        if self.metric.ndim == 2:
            object.__setattr__(self, "metric", np.tril(self.metric))

    @property
    def n_components(self) -> int:
        """Number of components, K."""
        return len(self.means)

    @property
    def n_dim(self) -> int:
        """Number of dimensions, d."""
        return self.means.shape[1]

    @property
    def weights(self) -> np.ndarray:
        """Weights w (K,)."""
        return np.exp(self.log_weights)

    @property
    def mean(self) -> np.ndarray:
        """Mean (d,)."""
        return self.weights @ self.means

    @property
    def root(self) -> np.ndarray:
        """L as a matrix (d, d)."""
        if self.metric.ndim == 2:
            return self.metric
        return np.diag(np.broadcast_to(self.metric, (self.n_dim,)))

    @property
    def whitened_deviations(self) -> np.ndarray:
        """Standard deviations in whitened coordinates, (K, 1) of isotropic components or (K, d)."""
        return density.as_matrix(np.exp(0.5 * self.log_variances))

    @property
    def standard_deviations(self) -> np.ndarray:
        """Standard deviation of each component in each dimension, (K, d)."""
        own = self.whitened_deviations
        if self.metric.ndim == self.log_variances.ndim == 2:
            return np.sqrt(own**2 @ (self.metric**2).T)
        return own * np.broadcast_to(metrics.deviations(self.metric), (self.n_dim,))

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviation of the mixture in each dimension, (d,)."""
        return np.sqrt(self.weights @ (self.standard_deviations**2 + (self.means - self.mean) ** 2))

    @property
    def typical_metric(self) -> np.ndarray | float:
        """Metric of a component with the mean variance, sum_k w_k eps_k."""
        return self.metric * np.sqrt(self.weights @ np.exp(self.log_variances))

    @property
    def scaled(self) -> "Mixture":
        """The same mixture in coordinates u in which a typical component has deviation 1."""
        return self.replace(metric=self.typical_metric)

    @property
    def whitened(self) -> "Mixture":
        """The same mixture in coordinates u, with its mean as the origin."""
        means = self.whiten(self.means - self.mean)
        return replace(self, means=means, metric=np.ones((), self.metric.dtype))

    @cached_property
    def mode_labels(self) -> np.ndarray:
        """Number of the mode of each component, (K,); see :func:`modes.label_modes`."""
        return modes.label_modes(self)

    @cached_property
    def within_mode_covariance(self) -> np.ndarray:
        """Covariance within the modes; see :func:`modes.within_mode_covariance`."""
        return modes.within_mode_covariance(self, self.mode_labels)

    @property
    def used(self) -> "Mixture":
        """The same mixture without components of no weight."""
        has_weight = self.weights > 0
        if has_weight.all():
            return self
        names = ("means", "log_variances", "log_weights")
        return replace(self, **{name: getattr(self, name)[has_weight] for name in names})

    def padded(self, n_components: int) -> "Mixture":
        """Return the same mixture with copies of its first component, of no weight, up to K."""
        extra = n_components - self.n_components
        copies = {
            name: np.concatenate([value, np.repeat(value[:1], extra, axis=0)])
            for name, value in (("means", self.means), ("log_variances", self.log_variances))
        }
        log_weights = np.concatenate([self.log_weights, np.full(extra, NO_WEIGHT)])
        return replace(self, log_weights=log_weights, **copies)

    def with_diagonal_variances(self) -> Any:
        """Return the same mixture with a variance for each dimension, (K, d)."""
        variances = np.broadcast_to(density.as_matrix(self.log_variances), self.means.shape)
        return replace(self, log_variances=variances.copy())

    def as_dict(self) -> dict:
        """Return the parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def replace(self, **changes: Any) -> "Mixture":
        """Return a mixture with other parameters; log weights are normalised."""
        changed = replace(self, **changes)
        normaliser = np.logaddexp.reduce(changed.log_weights)
        return replace(changed, log_weights=changed.log_weights - normaliser)

    def draw(self, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points (draws, d), and their components (draws,)."""
        component = rng.choice(self.n_components, p=self.weights, size=draws)
        noise = rng.normal(size=(draws, self.n_dim)).astype(self.means.dtype)
        return self.at(noise, component), component

    def at(self, noise: np.ndarray, component: np.ndarray) -> np.ndarray:
        """Turn standard normal noise (S, d) into draws of the components (S,)."""
        return self.means[component] + self.offsets(noise, component)

    def offsets(self, noise: np.ndarray, component: np.ndarray) -> np.ndarray:
        """Turn standard normal noise (S, d) into offsets from the means of the components (S,)."""
        return self.unwhiten(noise * self.whitened_deviations[component])

    def whiten(self, vectors: np.ndarray) -> np.ndarray:
        """Map rows (S, d) by the inverse of L."""
        return metrics.whiten(self.metric, vectors)

    def unwhiten(self, vectors: np.ndarray) -> np.ndarray:
        """Map rows (S, d) by L."""
        return metrics.unwhiten(self.metric, vectors)

    def evaluate(self, points: np.ndarray) -> list[np.ndarray]:
        """Evaluate the mixture at points (S, d).

        Returns
        -------
        log_density : (S,) array
        responsibilities : (S, K) array
            Probability of each component given the point.
        """
        return self._evaluate(points, "responsibilities")

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) at points (S, d)."""
        return self.evaluate(points)[0]

    def log_density_and_score(self, points: np.ndarray) -> list[np.ndarray]:
        """Log density (S,) at points (S, d), and its gradient (S, d)."""
        return self._evaluate(points, "score")

    def _evaluate(self, points, what):
        """Log density (S,) at points y (S, d), and responsibilities, or the score in y."""
        centre, dtype = self.mean, self.means.dtype
        whitened = (self.whiten(np.asarray(part, dtype) - centre) for part in (points, self.means))
        compiled = _compile_evaluation(what, self.log_variances.ndim, dtype.name)
        log_q, also = compiled(*whitened, self.log_variances, self.log_weights)
        log_q = log_q - metrics.log_determinant(self.metric, self.n_dim)
        return log_q, metrics.unwhiten_gradient(self.metric, also) if what == "score" else also


NAMES = tuple(field.name for field in fields(Mixture))


@lru_cache
@compiling(cxx="")
def _compile_evaluation(what, variances_ndim, dtype):
    points, means = pt.matrix("points", dtype=dtype), pt.matrix("means", dtype=dtype)
    log_variances = pt.tensor("log_variances", dtype=dtype, shape=(None,) * variances_ndim)
    log_weights = pt.vector("log_weights", dtype=dtype)
    inputs = [points, means, log_variances, log_weights]
    log_q, score = density.log_density_and_score(*inputs)
    also = score if what == "score" else density.responsibilities(*inputs)
    return one_at_a_time(pytensor.function(inputs, [log_q, also], mode=CHEAP))
