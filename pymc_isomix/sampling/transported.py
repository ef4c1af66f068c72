"""NUTS on the model as the approximation sees it: in whitened coordinates."""

import numpy as np
import pymc as pm

from pymc_isomix.backend.checks import check_choice, check_count
from pymc_isomix.family import modes
from pymc_isomix.model import traces
from pymc_isomix.sampling.nuts import RETRIES, stratified_components
from pymc_isomix.sampling.transitions import from_whitened, to_whitened, whitening_root

NAME = "coordinates_of_the_fit"  # of the one variable that samplers see, and name
SAMPLERS = ("pymc", "nutpie", "numpyro", "blackjax")


def sample_nuts(
    approx,
    draws=1000,
    *,
    tune=500,
    chains=4,
    nuts_sampler="pymc",
    random_seed=None,
    progressbar=True,
    **kwargs,
):
    r"""Sample the model by NUTS in the approximation's own coordinates: exact draws.

    NUTS sees one vector :math:`u = R^{-1}(y - \bar\mu)`, with :math:`R R^T` the covariance of the
    mixture within its modes. There the posterior is nearly a standard Gaussian, or a few of them,
    so that little is left to tune. The draws are mapped back to the model's own variables.

    Parameters
    ----------
    draws, tune, chains : int
        As for :func:`pymc.sample`. Chains start at draws of the mixture, spread over its modes as
        :meth:`nuts_init` does.
    nuts_sampler : {"pymc", "nutpie", "numpyro", "blackjax"}
    random_seed : int or Generator, optional
        For starts and sampler.
    progressbar : bool
    **kwargs
        Passed to :func:`pymc.sample`: ``cores``, ``target_accept`` and so on.

    Returns
    -------
    xarray.DataTree
        Group ``posterior`` with names, dims and deterministics of the model, ``sample_stats`` with
        the sampler's statistics (``lp`` is that of the unconstrained space), and ``observed_data``
        and ``constant_data`` where the model has them.

    Raises
    ------
    ValueError
        If an argument breaks its rule, no draw of a component has a finite log density, or the log
        density is random by more than ``pm.Minibatch``, whose full data are used.

    Notes
    -----
    As with :meth:`IsotropicMixture.sample`, a model of the context stands in for the fitted one.
    NUTS rarely moves between modes far apart: draws are split between them as the chains are.
    nutpie takes one start for all chains.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     approx = pmi.IsotropicMixture(n_components=1, start_sigma=1.0, random_seed=1)
    >>> idata = approx.sample_nuts(
    ...     20,
    ...     tune=20,
    ...     chains=1,
    ...     random_seed=1,
    ...     progressbar=False,
    ...     compute_convergence_checks=False,
    ... )
    >>> dict(idata.posterior["mu"].sizes)
    {'chain': 1, 'draw': 20}
    """
    check_count("draws", draws)
    check_count("tune", tune, least=0)
    check_count("chains", chains)
    check_choice("nuts_sampler", nuts_sampler, SAMPLERS)
    if random_seed is None:
        random_seed = approx.rng.randint(2**30, dtype=np.int64)
    rng = np.random.default_rng(random_seed)
    compiled, mixture = approx.compiled_model(), approx.mixture
    compiled.space.refuse_other_dims()
    starts = _starts(compiled, mixture, chains, rng)
    initvals: list | dict = [{NAME: start} for start in to_whitened(mixture, starts)]
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


def seen_from_u(compiled, mixture):
    """Build a model of one flat variable u (d,), whose log density is that of y at y(u)."""
    root, centre = whitening_root(mixture), mixture.mean
    with pm.Model(model=None) as model:  # no part of a model of the context
        u = pm.Flat(NAME, shape=mixture.n_dim)
        y = centre + (u * root if root.ndim == 1 else root @ u)
        pm.Potential("density", compiled.symbolic_log_density(y.astype(compiled.dtype)))
    return model


def _starts(compiled, mixture, chains, rng):
    """Points y (chains, d), of components chosen as for :func:`nuts_init`."""
    component = stratified_components(mixture.weights, modes.label_modes(mixture), chains, rng)
    starts = []
    for k in component:
        tries = np.full(RETRIES, k)
        points = mixture.at(rng.normal(size=(RETRIES, mixture.n_dim)), tries)
        finite = np.isfinite(compiled.log_density(points))
        if not finite.any():
            raise ValueError(
                f"{RETRIES} draws of component {k} have a log density that is not finite; the "
                "approximation does not fit this model: fit it for longer or with more components"
            )
        starts.append(points[finite.argmax()])
    return np.array(starts)


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
