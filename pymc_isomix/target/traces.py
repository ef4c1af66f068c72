"""From draws in unconstrained space to traces, datasets and DataTrees in model space."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from arviz_base import dict_to_dataset
from pymc.backends.arviz import coords_and_dims_for_inferencedata
from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.pytensorf import compile
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan

from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.target.batching import stabilise


def constrained_draws(space, points):
    """Evaluate everything that a trace of the model holds, at draws from unconstrained space.

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
def compile_constrained(space, dtype="float64", coordinates=None, pseudo=None):
    """Compile :func:`constrained_draws` of one model: a function of points (S, d)."""
    batch = pt.matrix("points", shape=(None, space.n_dim), dtype=dtype)
    point = pt.vector("point", shape=(space.n_dim,), dtype=dtype)
    values = coordinates.forward(point, pseudo)[0] if coordinates else space.unflatten(point)
    variables, replacements = space.model.unobserved_value_vars, space.replacements(values)
    names = [variable.name for variable in variables]
    # adding a zero makes every output depend on the point, so that each has a batch dimension
    outputs = [
        (variable + 0 * point[0]).astype(variable.dtype)
        for variable in stabilise(graph_replace(variables, replacements, strict=False))
    ]
    # used a few times: compile cheaply, unless loops inside are slow in Python
    has_scan = any(v.owner and isinstance(v.owner.op, Scan) for v in ancestors(outputs))
    evaluate = compile(
        [batch],
        vectorize_graph(outputs, {point: batch}),
        mode=None if has_scan else CHEAP,
    )
    return lambda points: dict(zip(names, evaluate(points), strict=True))


def to_trace(model, values):
    """Put draws, {name: (S, ...) array}, into a PyMC trace of one chain."""
    variables = model.unobserved_value_vars
    trace = NDArray(
        model=model,
        vars=variables,
        fn=lambda: None,
        var_shapes={name: value.shape[1:] for name, value in values.items()},
        var_dtypes={name: value.dtype for name, value in values.items()},
    )
    n_draws = len(values[variables[0].name])
    trace.setup(draws=n_draws, chain=0)
    trace.samples = values
    trace.draw_idx = n_draws
    return MultiTrace([trace])


def to_datatree(model, trace, **kwargs):
    """Convert a trace to a DataTree with the model's dims, coords, observed and constant data."""
    kwargs.setdefault("log_likelihood", False)
    return pm.to_inference_data(trace, model=model, **kwargs)


def to_dataset(model, values):
    """Convert draws, {name: (S, ...) array}, to a dataset of one chain with the model's dims."""
    coords, dims = coords_and_dims_for_inferencedata(model)
    return dict_to_dataset(
        {name: np.asarray(value)[None] for name, value in values.items()}, coords=coords, dims=dims
    )


def sample_stats(weighted):
    """Build the ``sample_stats`` group of draws, a ``WeightedDraws``; dims (chain, draw)."""
    columns = {"log_q": weighted.log_q - weighted.log_determinant, "component": weighted.component}
    if weighted.log_p is not None:
        columns |= {
            "lp": weighted.log_p - weighted.log_determinant,
            "log_weight": weighted.log_weight,
            "weight": weighted.importance.weight,
        }
    coords = {"chain": [0], "draw": np.arange(len(weighted.log_q))}
    return xr.Dataset(
        {name: (("chain", "draw"), np.asarray(column)[None]) for name, column in columns.items()},
        coords=coords,
    )
