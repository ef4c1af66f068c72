"""The one-call ``fit``: from a model to a DataTree."""

from pymc_isomix.backend.checks import check_count
from pymc_isomix.interface.inference import IsoMix


def fit(
    n=10000,
    *,
    draws=1000,
    model=None,
    random_seed=None,
    progressbar=True,
    callbacks=None,
    backend=None,
    compile_kwargs=None,
    **isomix_kwargs,
):
    """Fit a model and return draws from the approximation, in one call.

    Parameters
    ----------
    n : int
        Iterations.
    draws : int
        Draws in the result.
    model : pymc.Model, optional
        The model of the context when not given.
    random_seed : int, optional
        Seeds the starts, the fit and the draws.
    progressbar, callbacks, backend, compile_kwargs
        As in :meth:`IsoMix.fit`.
    **isomix_kwargs
        Of :class:`IsoMix`: ``n_components``, ``variance_update`` and the rest.

    Returns
    -------
    xarray.DataTree
        As :meth:`IsotropicMixture.sample` gives, what the fit recorded included.
    """
    check_count("draws", draws)
    inference = IsoMix(random_seed=random_seed, model=model, **isomix_kwargs)
    approx = inference.fit(
        n,
        callbacks=callbacks,
        progressbar=progressbar,
        backend=backend,
        compile_kwargs=compile_kwargs,
    )
    return approx.sample(draws)
