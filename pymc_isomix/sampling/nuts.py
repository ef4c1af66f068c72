"""A start for NUTS: initial points spread over the modes, and a mass matrix."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pymc as pm

from pymc_isomix.model import starts, traces
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import BlockMixture

logger = logging.getLogger(__name__)

RETRIES = 50
COVARIANCE_DRAWS = 100  # a dimension
# Dual averaging soon tries ten times the first step, and beyond 2 a step leaps between modes
STEP_SCALE = 0.1


def nuts_init(
    space: FlatSpace,
    density: BlockMixture,
    chains: int,
    rng: np.random.Generator,
    **nuts_kwargs: Any,
) -> dict:
    """Prepare PyMC's NUTS; see :meth:`pymc_isomix.IsotropicMixture.nuts_init`.

    Parameters
    ----------
    space : FlatSpace
        Of the model to sample.
    **nuts_kwargs
        Passed to :class:`pymc.NUTS`.

    Returns
    -------
    dict
        Keyword arguments of :func:`pymc.sample`: ``initvals``, ``step``, ``chains``.
    """
    model = space.model
    if changes := space.changes():
        logger.warning(
            f"the model's data have changed since the fit: {changes}. pm.sample will use the new "
            "data, from starts of the old fit; approx.sample_nuts() uses the data of the fit"
        )
    to_unconstrained, check = density.coordinates.to_unconstrained, starts.finite_check(space)
    y = starting_points(density, chains, rng, lambda y: check(to_unconstrained(y)[0][0]))
    points, _ = to_unconstrained(y)
    draws = traces.constrained_draws(space, points)
    # in model space: PyMC refuses transformed values if a transform depends on other variables
    names = [rv.name for rv in model.free_RVs]
    initvals = [{name: draws[name][chain] for name in names} for chain in range(chains)]
    step = pm.NUTS(
        scaling=_mass_matrix(density, rng),
        is_cov=True,
        model=model,
        initial_point=space.unflatten(points[0]),
        **{"step_scale": STEP_SCALE, **nuts_kwargs},
    )
    return {"initvals": initvals, "step": step, "chains": chains}


def stratified_components(
    weights: np.ndarray, modes: np.ndarray, chains: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose a component for each chain by systematic sampling, mode after mode.

    Returns
    -------
    (chains,) integer array
    """
    order = np.argsort(modes, kind="stable")
    cumulative = np.cumsum(weights[order])
    levels = (np.arange(chains) + rng.random()) / chains * cumulative[-1]
    return order[np.searchsorted(cumulative, levels, side="right")]


def starting_points(
    density: BlockMixture,
    chains: int,
    rng: np.random.Generator,
    offenders_at: Callable[[np.ndarray], list[str] | None],
) -> np.ndarray:
    """Draw a start for each chain, spread over the modes, with a finite log density.

    Parameters
    ----------
    offenders_at : callable
        From a point y (1, d) to the variables without a finite log density there, or None.

    Returns
    -------
    (chains, d) array
        Coordinates y.
    """
    points = np.empty((chains, density.n_dim))
    component = stratified_components(density.weights, density.mode_labels, chains, rng)
    for chain, k in enumerate(component):
        for _ in range(RETRIES):
            points[chain] = density.at(rng.normal(size=(1, density.n_dim)), np.array([k]))
            if (offenders := offenders_at(points[[chain]])) is None:
                break
        else:
            place = f", at variable {', '.join(offenders)}" if offenders else ""
            raise ValueError(
                f"{RETRIES} draws of component {k} have a log density that is not finite{place}; "
                "the approximation does not fit this model: fit it for longer or with more "
                "components"
            )
    return points


def _mass_matrix(density, rng):
    """Covariance within the modes, in unconstrained space; from draws if there are sites."""
    if not density.coordinates:
        return density.within_mode_covariance
    points, component = density.draw_unconstrained(COVARIANCE_DRAWS * density.n_dim, rng)
    mode = density.mode_labels[component]
    for m in np.unique(mode):
        points[mode == m] -= points[mode == m].mean(axis=0)
    if density.sketch.metric.ndim == 2:
        return points.T @ points / len(points)
    return (points**2).mean(axis=0)
