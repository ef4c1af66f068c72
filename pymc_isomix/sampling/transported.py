"""NUTS in the whitened coordinates of the approximation."""

from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.model import starts, traces
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.sampling.nuts import starting_points
from pymc_isomix.sampling.transitions import from_whitened, to_whitened, whitening_root
from pymc_isomix.sites.blocks import BlockMixture

NAME = "coordinates_of_the_fit"  # of the variable that samplers see and name
SAMPLERS = ("pymc", "nutpie", "numpyro", "blackjax")


def sample_nuts(
    compiled: CompiledModel,
    mixture: BlockMixture,
    rng: np.random.Generator,
    *,
    draws: int,
    tune: int,
    chains: int,
    nuts_sampler: str,
    progressbar: bool,
    **kwargs: Any,
) -> xr.DataTree:
    """Sample a model by NUTS; see :meth:`pymc_isomix.IsotropicMixture.sample_nuts`.

    Parameters
    ----------
    rng : numpy.random.Generator
        For starts and sampler.
    draws, tune, chains, nuts_sampler, progressbar, **kwargs
        As for the method.
    """
    compiled.space.refuse_other_dims()

    def offenders_at(y):
        if np.isfinite(compiled.log_density(y)[0]):
            return None
        return starts.offending_variables(compiled.space, compiled.to_unconstrained(y)[0][0])

    points = starting_points(mixture, chains, rng, offenders_at)
    initvals: list | dict = [{NAME: start} for start in to_whitened(mixture, points)]
    if nuts_sampler == "nutpie":
        initvals = initvals[0]
    if nuts_sampler == "pymc":
        kwargs = {"init": "adapt_diag", **kwargs}  # no jitter: the starts are spread already
    with seen_from_u(compiled, mixture):
        sampled = pm.sample(
            draws,
            tune=tune,
            chains=chains,
            initvals=initvals,
            nuts_sampler=nuts_sampler,
            random_seed=int(rng.integers(2**30)),
            progressbar=progressbar,
            **kwargs,
        )
    return _mapped_back(compiled, mixture, sampled)


def seen_from_u(compiled: CompiledModel, mixture: Any) -> pm.Model:
    """Build a model of one flat variable u (d,), whose log density is that of y at y(u)."""
    root, centre = whitening_root(mixture), mixture.mean
    with pm.Model(model=None) as model:  # not nested in a model of the context
        u = pm.Flat(NAME, shape=mixture.n_dim)
        y = centre + (u * root if root.ndim == 1 else root @ u)
        pm.Potential("density", compiled.symbolic_log_density(y.astype(compiled.dtype)))
    return model


def _mapped_back(compiled, mixture, sampled):
    u = sampled.posterior[NAME].values
    n_chains, n_draws = u.shape[:2]
    points = from_whitened(mixture, u.reshape(n_chains * n_draws, -1))
    unconstrained, log_determinant = compiled.to_unconstrained(points)
    values = compiled.constrained(unconstrained.astype(compiled.dtype))
    tree = traces.to_datatree(compiled.model, traces.to_trace(compiled.model, values, n_chains))
    tree["posterior"].attrs.update(sampled.posterior.attrs)
    statistics = sampled.sample_stats.to_dataset()
    if "lp" in statistics:
        statistics["lp"] = statistics["lp"] - log_determinant.reshape(n_chains, n_draws)
    tree["sample_stats"] = statistics.assign_coords(chain=range(n_chains), draw=range(n_draws))
    if compiled.space.changes():
        traces.tell_data_apart(compiled.model, tree, compiled.space.data)
    return tree
