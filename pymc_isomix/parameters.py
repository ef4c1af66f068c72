"""The variational parameters of a group: new shared variables or the user's own, and their values.

Values are NumPy arrays by name, as ``IsotropicMixtureGroup.parameter_values`` returns them.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.pytensorf import floatX
from pymc.variational.opvi import ParametrizationError

from pymc_isomix import metric as metrics
from pymc_isomix import mixture
from pymc_isomix.compilation import CHEAP

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


def log_density(values, points):
    """Log density (S,) of the mixture at unconstrained points (S, d), a NumPy array."""
    q = {name: pt.as_tensor(value) for name, value in values.items()}
    centre = mixture.mean(q["means"], q["log_weights"])
    log_q = mixture.log_density(
        metrics.whiten(q["metric"], points - centre),
        metrics.whiten(q["metric"], q["means"] - centre),
        q["log_variances"],
        q["log_weights"],
    )
    log_q = log_q - metrics.log_determinant(q["metric"], float(points.shape[1]))
    return log_q.eval(mode=CHEAP)
