"""From draws in unconstrained space to traces, datasets and DataTrees in model space."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc.backends.arviz import coords_and_dims_for_inferencedata, find_observations
from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.pytensorf import compile
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan

from pymc_isomix.backend.compilation import CHEAP, compiling, one_at_a_time
from pymc_isomix.model.batching import stabilise
from pymc_isomix.model.space import FlatSpace

logger = logging.getLogger(__name__)


def constrained_draws(space: FlatSpace, points: np.ndarray) -> dict:
    """Evaluate all variables of a trace at draws from unconstrained space.

    Parameters
    ----------
    space : FlatSpace
        Variables without a place stay at the model's initial point.
    points : (S, d) array
        Unconstrained draws.

    Returns
    -------
    dict of str to (S, ...) array
        Free variables in model space, their unconstrained values, and deterministics.
    """
    return compile_constrained(space, points.dtype)(points)


@compiling(cxx="")
def compile_constrained(space: FlatSpace, dtype: Any = "float64") -> Callable:
    """Compile :func:`constrained_draws` of one model: a function of points (S, d)."""
    batch = pt.matrix("points", shape=(None, space.n_dim), dtype=dtype)
    point = pt.vector("point", shape=(space.n_dim,), dtype=dtype)
    values = space.unflatten(point)
    variables, replacements = space.model.unobserved_value_vars, space.replacements(values)
    names = [variable.name for variable in variables]
    # adding a zero makes every output depend on the point and have a batch dimension
    outputs = [
        (variable + 0 * point[0]).astype(variable.dtype)
        for variable in stabilise(graph_replace(variables, replacements, strict=False))
    ]
    # used only a few times, so compile cheaply, unless it has loops
    has_scan = any(v.owner and isinstance(v.owner.op, Scan) for v in ancestors(outputs))
    mode = None if has_scan else CHEAP
    evaluate = one_at_a_time(compile([batch], vectorize_graph(outputs, {point: batch}), mode=mode))
    return lambda points: dict(zip(names, evaluate(points), strict=True))


def to_trace(model: pm.Model, values: dict, chains: int = 1) -> MultiTrace:
    """Put draws, {name: (S, ...) array}, into a PyMC trace."""
    variables = model.unobserved_value_vars
    n_draws = len(values[variables[0].name]) // chains
    traces = []
    for chain in range(chains):
        trace = NDArray(
            model=model,
            vars=variables,
            fn=lambda: None,
            var_shapes={name: value.shape[1:] for name, value in values.items()},
            var_dtypes={name: value.dtype for name, value in values.items()},
        )
        trace.setup(draws=n_draws, chain=chain)
        own = slice(chain * n_draws, (chain + 1) * n_draws)
        trace.samples = {name: value[own] for name, value in values.items()}
        trace.draw_idx = n_draws
        traces.append(trace)
    return MultiTrace(traces)


def to_datatree(model: pm.Model, trace: MultiTrace, **kwargs: Any) -> xr.DataTree:
    """Convert a trace to a DataTree with the model's dims, coords, observed and constant data."""
    kwargs.setdefault("log_likelihood", False)
    dims = {**_dims_of_their_own(model, trace.point(0)), **(kwargs.pop("dims", None) or {})}
    return pm.to_inference_data(trace, model=model, dims=dims, **kwargs)


def _dims_of_their_own(model, draw):
    """Name new dims for variables whose lengths differ from those of their dims in the model.

    Returns
    -------
    dict of str to list of str
    """
    found = {}
    for name in draw.keys() & model.named_vars_to_dims.keys():
        dims, shape = model.named_vars_to_dims[name], np.shape(draw[name])
        labels = [model.coords.get(dim) for dim in dims]
        if any(v is not None and len(v) != n for v, n in zip(labels, shape, strict=False)):
            found[name] = [f"{name}_dim_{i}" for i in range(len(shape))]
            logger.warning(
                f"{name} has shape {shape}, which does not fit the coords of its dims "
                f"{', '.join(map(repr, dims))}: its draws have dims {', '.join(found[name])}"
            )
    return found


def tell_data_apart(model: pm.Model, tree: xr.DataTree, data: Any) -> None:
    """Put the observed data of the fit into a tree of draws, and record the data of each group.

    Parameters
    ----------
    model : pymc.Model
        Its data have changed since the fit.
    tree : DataTree
        Changed in place.
    data : FittedData
        Of the fit.
    """
    from arviz_base import dict_to_dataset

    changes = data.changes()
    if "observed_data" in tree.children:
        with data.in_place():
            observed = {name: np.array(value) for name, value in find_observations(model).items()}
        dims = {name: model.named_vars_to_dims.get(name) for name in observed}
        tree["observed_data"] = dict_to_dataset(
            observed,
            sample_dims=[],
            coords={dim: np.asarray(v) for dim, v in data.coords.items() if v is not None},
            dims={name: list(of_one) for name, of_one in dims.items() if of_one},
        ).assign_attrs(tree["observed_data"].attrs)
        tree["observed_data"].attrs["data"] = "of the fit"
    if "constant_data" in tree.children:
        tree["constant_data"].attrs["data"] = f"of the model when drawn; since the fit: {changes}"
    tree["posterior"].attrs["data"] = (
        f"of the fit; deterministics by those of the model when drawn; since the fit: {changes}"
    )
    tree["sample_stats"].attrs["data"] = "of the fit"


def to_dataset(model: pm.Model, values: dict) -> xr.Dataset:
    """Convert draws, {name: (S, ...) array}, to a dataset of one chain with the model's dims."""
    from arviz_base import dict_to_dataset  # imports JAX if NumPyro is not installed

    coords, dims = coords_and_dims_for_inferencedata(model)
    return dict_to_dataset(
        {name: np.asarray(value)[None] for name, value in values.items()}, coords=coords, dims=dims
    )


def sample_stats(weighted: Any) -> xr.Dataset:
    """Build the ``sample_stats`` group of draws, a ``WeightedDraws``; dims (chain, draw)."""
    columns = {"log_q": weighted.log_q - weighted.log_determinant, "component": weighted.component}
    if weighted.log_p is not None:
        columns |= {
            "lp": weighted.log_p - weighted.log_determinant,
            "log_weight": weighted.log_weight,
            "weight": weighted.importance.weight,
        }
    return statistics(columns)


def statistics(columns: dict, chains: int = 1) -> xr.Dataset:
    """Build a ``sample_stats`` group from {name: (S,) array}; dims (chain, draw)."""
    shaped = {name: np.reshape(column, (chains, -1)) for name, column in columns.items()}
    n_draws = len(next(iter(columns.values()))) // chains
    return xr.Dataset(
        {name: (("chain", "draw"), column) for name, column in shaped.items()},
        coords={"chain": np.arange(chains), "draw": np.arange(n_draws)},
    )
