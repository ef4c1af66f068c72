"""The variational parameters of a group: shared variables, or the user's own."""

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pymc.pytensorf import floatX
from pymc.variational.opvi import ParametrizationError

from pymc_isomix.backend.arrays import shared_arrays
from pymc_isomix.family.mixture import NAMES
from pymc_isomix.interface.settings import DENSE_UP_TO, metric_kind
from pymc_isomix.model import starts
from pymc_isomix.sites.coordinates import CoordinateMap
from pymc_isomix.sites.find import FARTHEST, TYPICAL, starting_coordinates

SEVERAL = {"metric": "(), (d,) or (d, d)", "log_variances": "(K,) or (K, d)"}  # alternative shapes


def first_values(
    coordinates: CoordinateMap,
    rng: np.random.RandomState,
    *,
    n_components: int = 1,
    metric: str = "identity",
    component_variances: str = "isotropic",
    start: np.ndarray | None = None,
    start_sigma: float | None = None,
    init: str = "jitter",
    init_width: float = 1.0,
    dense_up_to: int = DENSE_UP_TO,
    **_ignored: Any,
) -> dict:
    """Choose the first values of all variational parameters, {name: array}."""
    space = coordinates.space
    kind = metric_kind(metric, space.n_dim, dense_up_to)
    means = starts.starting_means(
        space,
        n_components,
        start=start,
        init=init,
        init_width=init_width,
        random_seed=int(rng.randint(2**30, dtype=np.int64)),
    )
    # the variances of a chain's many elements, which its map makes standard, would hold all others
    beside_chains = component_variances == "auto" and coordinates.has_chains
    diagonal = component_variances == "diagonal" or beside_chains
    log_variance, first_metric = starts.starting_scale(space, kind, start_sigma, diagonal=diagonal)
    chosen = start is not None or init == "uniform"
    means, of_coordinates = starting_coordinates(
        coordinates, means, FARTHEST if chosen else TYPICAL
    )
    return {
        "means": means,
        "log_variances": np.full((n_components, *np.shape(log_variance)), log_variance),
        "log_weights": np.full(n_components, -np.log(n_components)),
        "metric": first_metric,
        **of_coordinates,
    }


def allocate(values: dict) -> dict:
    """Make shared variables at given values, {name: array}."""
    return shared_arrays({name: floatX(value) for name, value in values.items()})


def numbers(shared: dict, names: Any) -> dict:
    """Return copies of the values of shared variables, {name: array}."""
    # with JAX's arrays, JAX would compile a copy for every shape
    return {name: np.array(shared[name].get_value(borrow=True)) for name in names}


def adopt(params: dict, n_dim: int) -> dict:
    """Check the user's own parameters, and give them their static shapes.

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
        "log_variances": (n_components, n_dim)[: max(adopted["log_variances"].ndim, 1)],
        "log_weights": (n_components,),
        "metric": (n_dim,) * min(adopted["metric"].ndim, 2),
    }
    for name, shape in shapes.items():
        static = adopted[name].type.shape
        fits = len(static) == len(shape) and all(
            None in pair or pair[0] == pair[1] for pair in zip(static, shape, strict=True)
        )
        if not fits:
            expected = SEVERAL.get(name, shape)
            raise ParametrizationError(
                f"params[{name!r}] must have shape {expected} (K components, d = {n_dim}); "
                f"got {static}"
            )
        adopted[name] = pt.specify_shape(adopted[name], shape)
    return adopted
