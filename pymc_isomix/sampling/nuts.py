"""A start for NUTS: initial points spread over the modes, and a mass matrix."""

import logging

import numpy as np
import pymc as pm

from pymc_isomix.model import starts, traces

logger = logging.getLogger(__name__)

RETRIES = 50
COVARIANCE_DRAWS = 100  # a dimension
# Dual averaging soon tries ten times the first step, and beyond 2 a step leaps between modes
STEP_SCALE = 0.1


def nuts_init(space, density, chains, rng, **nuts_kwargs):
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
    component = stratified_components(density.weights, density.mode_labels, chains, rng)
    points = _finite_draws(density, component, rng, space)
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


def stratified_components(weights, modes, chains, rng):
    """Choose a component for each chain by systematic sampling, mode after mode.

    Returns
    -------
    (chains,) integer array
    """
    order = np.argsort(modes, kind="stable")
    cumulative = np.cumsum(weights[order])
    levels = (np.arange(chains) + rng.random()) / chains * cumulative[-1]
    return order[np.searchsorted(cumulative, levels, side="right")]


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


def _finite_draws(density, component, rng, space):
    """Draw a point (chains, d) of each component with a finite log density."""
    points = np.empty((len(component), density.n_dim))
    check = starts.finite_check(space)
    for chain, k in enumerate(component):
        for _ in range(RETRIES):
            noise = rng.normal(size=(1, points.shape[1]))
            drawn = density.at(noise, np.array([k]))
            points[chain] = density.coordinates.to_unconstrained(drawn)[0][0]
            if (offenders := check(points[chain])) is None:
                break
        else:
            raise ValueError(
                f"{RETRIES} draws of component {k} have a log density that is not finite, at "
                f"variable {', '.join(offenders)}; the approximation does not fit this model: fit "
                "it for longer or with more components"
            )
    return points
