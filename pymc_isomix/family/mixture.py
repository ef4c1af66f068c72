"""The variational parameters of a group: new shared variables or the user's own, and their values.

Values are NumPy arrays by name, as ``IsotropicMixtureGroup.parameter_values`` returns them.
"""

from functools import lru_cache

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.pytensorf import floatX
from pymc.variational.opvi import ParametrizationError
from scipy.linalg import solve_triangular

from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics

NAMES = ("means", "log_variances", "log_weights", "metric")


def allocate(means, log_variance, metric):
    """Make shared variables at the first values.

    Parameters
    ----------
    means : (K, d) array
        Unconstrained space.
    log_variance : float
        Of every component, whitened space.
    metric : (), (d,) or (d, d) array
    """
    n_components = len(means)
    values = {
        "means": means,
        "log_variances": np.full(n_components, log_variance),
        "log_weights": np.full(n_components, -np.log(n_components)),
        "metric": metric,
    }
    return allocate_values(values)


def allocate_values(values):
    """Make shared variables at given values, {name: array}."""
    return {
        name: pytensor.shared(floatX(value), name, shape=value.shape)
        for name, value in values.items()
    }


def adopt(params, n_dim):
    """Check the user's own parameters, and give them their static shapes.

    Parameters
    ----------
    params : dict
        ``means`` (K, d), ``log_variances`` (K,), ``log_weights`` (K,), and ``metric``: (), (d,) or
        (d, d).
    n_dim : int
        d.

    Raises
    ------
    ParametrizationError
        If keys or shapes differ.
    """
    if set(params) != set(NAMES):
        raise ParametrizationError(f"params must have the keys {NAMES}; got {sorted(params)}")
    adopted = {name: pt.as_tensor_variable(value) for name, value in params.items()}
    n_components = adopted["means"].type.shape[0] if adopted["means"].ndim == 2 else None
    shapes = {
        "means": (n_components, n_dim),
        "log_variances": (n_components,),
        "log_weights": (n_components,),
        "metric": (n_dim,) * min(adopted["metric"].ndim, 2),
    }
    for name, shape in shapes.items():
        static = adopted[name].type.shape
        fits = len(static) == len(shape) and all(
            None in pair or pair[0] == pair[1] for pair in zip(static, shape, strict=True)
        )
        if not fits:
            expected = "(), (d,) or (d, d)" if name == "metric" else shape
            raise ParametrizationError(
                f"params[{name!r}] must have shape {expected} (K components, d = {n_dim}); "
                f"got {static}"
            )
        adopted[name] = pt.specify_shape(adopted[name], shape)
    return adopted


def draw(values, draws, rng):
    """Draw points (draws, d) in unconstrained space, and their components (draws,)."""
    n_components, n_dim = values["means"].shape
    component = rng.choice(n_components, p=np.exp(values["log_weights"]), size=draws)
    noise = rng.normal(size=(draws, n_dim)).astype(values["means"].dtype)
    return values["means"][component] + offsets(values, noise, component), component


def offsets(values, noise, component):
    """Turn standard normal noise (S, d) into offsets from the means of the components (S,)."""
    scaled = noise * np.exp(0.5 * values["log_variances"])[component, None]
    metric = values["metric"]
    return scaled @ np.tril(metric).T if metric.ndim == 2 else scaled * metric


def evaluate(values, points):
    """Evaluate the mixture at unconstrained points (S, d), NumPy arrays.

    Returns
    -------
    log_density : (S,) array
    responsibilities : (S, K) array
        Probability of each component given the point.
    """
    compiled = _compile_evaluation(values["metric"].ndim, values["means"].dtype.name)
    points = np.asarray(points, dtype=values["means"].dtype)
    return compiled(points, *(values[name] for name in NAMES))


@lru_cache
def _compile_evaluation(metric_ndim, dtype):
    points, means = pt.matrix("points", dtype=dtype), pt.matrix("means", dtype=dtype)
    log_variances = pt.vector("log_variances", dtype=dtype)
    log_weights = pt.vector("log_weights", dtype=dtype)
    metric = pt.tensor("metric", dtype=dtype, shape=(None,) * metric_ndim)
    centre = density.mean(means, log_weights)
    whitened = (
        metrics.whiten(metric, points - centre),
        metrics.whiten(metric, means - centre),
        log_variances,
        log_weights,
    )
    log_q = density.log_density(*whitened) - metrics.log_determinant(
        metric, points.shape[1].astype(dtype)
    )
    return pytensor.function(
        [points, means, log_variances, log_weights, metric],
        [log_q, density.responsibilities(*whitened)],
        mode=CHEAP,
    )


def whiten(values, vectors):
    """Map unconstrained rows (S, d) to whitened ones, NumPy arrays."""
    metric = values["metric"]
    if metric.ndim == 2:
        return solve_triangular(metric, vectors.T, lower=True).T
    return vectors / metric


def standard_deviations(values):
    """Return the standard deviation of each component in each unconstrained dimension, (K, d)."""
    metric, n_dim = values["metric"], values["means"].shape[1]
    scale = np.sqrt((np.tril(metric) ** 2).sum(1)) if metric.ndim == 2 else np.abs(metric)
    return np.exp(0.5 * values["log_variances"])[:, None] * np.broadcast_to(scale, (n_dim,))
