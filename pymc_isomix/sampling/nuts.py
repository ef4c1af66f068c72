"""A start for NUTS: initial points spread over the modes, and a mass matrix."""

import logging

import numpy as np
import pymc as pm

from pymc_isomix.backend.checks import check_count
from pymc_isomix.family import modes
from pymc_isomix.model import starts, traces

logger = logging.getLogger(__name__)

RETRIES = 50
COVARIANCE_DRAWS = 100  # a dimension
# Dual averaging soon tries ten times the first step, and beyond 2 a step leaps between modes
STEP_SCALE = 0.1


def nuts_init(approx, chains=4, *, random_seed=None, **nuts_kwargs):
    r"""Prepare PyMC's NUTS: one start a chain, and a step method with its mass matrix.

    The starts are draws from the mixture whose components are chosen by systematic sampling,
    component after component of each mode: a mode of mass m gets :math:`\lfloor m C \rfloor` or
    :math:`\lceil m C \rceil` of the C chains, so that each of mass 1/C or more gets one. NUTS
    rarely moves between modes: its draws are split between them as the chains are, good to 1/C.

    The mass matrix is the covariance *within* the modes, averaged over them by mass: one that
    spans modes would mislead NUTS inside each. It is dense for a dense metric and diagonal
    otherwise, and stays as it is. Only the step size is left to tune, so that ``tune=200`` will do.

    Parameters
    ----------
    chains : int
        C.
    random_seed : int or Generator, optional
        For the starts; :func:`pymc.sample` has its own.
    **nuts_kwargs
        Passed to :class:`pymc.NUTS`: ``target_accept``, ``compile_kwargs`` and so on.

    Returns
    -------
    dict
        Keyword arguments of :func:`pymc.sample`: ``initvals``, the values of all free variables
        in model space, a dict for each chain; ``step``, the :class:`pymc.NUTS`; ``chains``.

    Raises
    ------
    ValueError
        If ``chains`` is not a positive integer, or no draw of a component has a finite log density.

    Notes
    -----
    As with :meth:`IsotropicMixture.sample`, a model of the context stands in for the fitted one.
    nutpie takes no mass matrix, and one start for all chains: ``initvals[0]``.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     sigma = pm.HalfNormal("sigma")
    ...     approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
    ...     start = approx.nuts_init(chains=2, random_seed=1)
    >>> sorted(start), [list(point) for point in start["initvals"]]
    (['chains', 'initvals', 'step'], [['sigma'], ['sigma']])

    ``pm.sample(tune=200, **start)`` would now sample from there.
    """
    check_count("chains", chains)
    if random_seed is None:
        random_seed = approx.rng.randint(2**30, dtype=np.int64)
    rng = np.random.default_rng(random_seed)
    space, mixture = approx.space_of_context(), approx.mixture
    model = space.model
    if changes := space.changes():
        logger.warning(
            f"since the fit the model's data have changed: {changes}. pm.sample will sample the "
            "model with the data as they are now, from starts of the fit; approx.sample_nuts() "
            "samples with those of the fit"
        )
    labels = modes.label_modes(mixture)
    component = stratified_components(mixture.weights, labels, chains, rng)
    points = _finite_draws(approx, component, rng, space)
    draws = traces.constrained_draws(space, points)
    # in model space: PyMC refuses transformed values if a transform depends on other variables
    names = [rv.name for rv in model.free_RVs]
    initvals = [{name: draws[name][chain] for name in names} for chain in range(chains)]
    step = pm.NUTS(
        scaling=_mass_matrix(approx, labels, rng),
        is_cov=True,
        model=model,
        initial_point=space.unflatten(points[0]),
        **{"step_scale": STEP_SCALE, **nuts_kwargs},
    )
    return {"initvals": initvals, "step": step, "chains": chains}


def stratified_components(weights, modes, chains, rng):
    """Choose a component for each chain by systematic sampling, mode after mode.

    Parameters
    ----------
    weights : (K,) array
        Probabilities.
    modes : (K,) integer array
    chains : int
    rng : numpy.random.Generator

    Returns
    -------
    (chains,) integer array
    """
    order = np.argsort(modes, kind="stable")
    cumulative = np.cumsum(weights[order])
    levels = (np.arange(chains) + rng.random()) / chains * cumulative[-1]
    return order[np.searchsorted(cumulative, levels, side="right")]


def _mass_matrix(approx, labels, rng):
    """Covariance within the modes, in unconstrained space: from draws where there are sites."""
    mixture = approx.mixture
    if not approx.coordinates:
        return modes.within_mode_covariance(mixture, labels)
    points, component = mixture.draw(COVARIANCE_DRAWS * mixture.n_dim, rng)
    points, mode = approx.to_unconstrained(points)[0], labels[component]
    for m in np.unique(mode):
        points[mode == m] -= points[mode == m].mean(axis=0)
    if mixture.metric.ndim == 2:
        return points.T @ points / len(points)
    return (points**2).mean(axis=0)


def _finite_draws(approx, component, rng, space):
    """Draw a point (chains, d) of each component at which the model's log density is finite."""
    mixture = approx.mixture
    points = np.empty((len(component), mixture.n_dim))
    check = starts.finite_check(space)
    for chain, k in enumerate(component):
        for _ in range(RETRIES):
            noise = rng.normal(size=(1, points.shape[1]))
            points[chain] = approx.to_unconstrained(mixture.at(noise, np.array([k])))[0][0]
            if (offenders := check(points[chain])) is None:
                break
        else:
            raise ValueError(
                f"{RETRIES} draws of component {k} have a log density that is not finite, at "
                f"variable {', '.join(offenders)}; the approximation does not fit this model: fit "
                "it for longer or with more components"
            )
    return points
