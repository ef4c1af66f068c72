"""Calls that need no class: fit a model, fit further, load from a file."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.backend.checks import check_count
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.interface.checks import refuse_unknown
from pymc_isomix.interface.inference import IsoMix
from pymc_isomix.interface.settings import Settings
from pymc_isomix.results import files

ARGUMENTS = set(signature(IsoMix).parameters)  # arguments that are passed on


def fit(
    n_or_model: int | pm.Model | None = None,
    /,
    *,
    n: int = 10000,
    draws: int = 1000,
    model: pm.Model | None = None,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
    callbacks: list[Callable] | None = None,
    backend: str | None = None,
    compile_kwargs: dict | None = None,
    **isomix_kwargs: Any,
) -> xr.DataTree:
    """Fit a model and return draws from the approximation, in one call.

    Parameters
    ----------
    n_or_model : int or pymc.Model, optional
        The model or the iterations as the first argument: ``pmi.fit(model)`` or ``pmi.fit(5000)``.
    n : int
        Largest number of iterations; the fit stops by itself.
    draws : int
        Draws in the result.
    model : pymc.Model, optional
        The model of the context when not given.
    random_seed : int, optional
        Seeds the starts, the fit and the draws.
    progressbar, callbacks, backend, compile_kwargs
        As in :meth:`IsoMix.fit`.
    **isomix_kwargs
        Arguments of :class:`IsoMix`, such as ``n_components``.

    Returns
    -------
    xarray.DataTree
        As returned by :meth:`IsotropicMixture.sample`: one chain of independent draws, with the
        record of the fit. R-hat needs several chains, so use ``az.summary(idata, kind="stats")``.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 10)
    ...     y = pm.Normal("y", mu, 1, observed=[1.0, 2.0, 3.0])
    ...     idata = pmi.fit(draws=500, random_seed=1, progressbar=False)
    >>> dict(idata.posterior.sizes), idata["diagnostics"].attrs["verdict"]
    ({'chain': 1, 'draw': 500}, 'good')
    """
    if isinstance(n_or_model, pm.Model):
        if model not in (None, n_or_model):
            raise TypeError("two models were given: as the first argument and as model=")
        model = n_or_model
    elif n_or_model is not None:
        n = n_or_model
    refuse_unknown("fit", isomix_kwargs, ARGUMENTS | {*signature(fit).parameters})
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


def resume(approx: IsotropicMixture, **changes: Any) -> IsoMix:
    """Return the inference that continues the fit of an approximation.

    The approximation keeps its parameters, its history and its random numbers, and is fitted in
    place. The schedule ``"auto"`` explores and settles again. Any other schedule continues with its
    next step, so n steps followed by m steps equal n + m steps; ``"linear"`` is an exception, since
    it falls to zero in each fit. The state of your own ``obj_optimizer`` starts anew.

    Parameters
    ----------
    approx : IsotropicMixture
        An approximation fitted by :class:`IsoMix`, or loaded from a file.
    **changes
        Arguments of :class:`IsoMix` that differ from those of the last fit, for example
        ``schedule``. A file does not hold a function given as ``schedule``, so pass it again.

    Returns
    -------
    IsoMix

    Raises
    ------
    TypeError
        If ``approx`` is not an approximation.
    ValueError
        If ``changes`` name something that the approximation fixes, for example ``n_components``.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 10)
    ...     approx = pmi.IsoMix(n_components=2, random_seed=1).approx
    >>> pmi.resume(approx, schedule="constant").approx is approx
    True
    """
    if not isinstance(approx, IsotropicMixture):
        raise TypeError(
            f"approx must be an IsotropicMixture; got {approx!r}. For a file, use "
            "pymc_isomix.resume(pymc_isomix.load(path))"
        )
    record = {} if approx.history is None else approx.history.settings
    settings = Settings.from_record(record, **changes).of(approx.mixture)
    inference = IsoMix.of(approx, settings)
    if approx.history is not None:
        approx.history.settings |= Settings(**changes).record_of(changes)
        inference.hist, inference.goes_on = approx.hist, True
    return inference


def approximation_of(saved: files.Saved, model: pm.Model) -> IsotropicMixture:
    """Return the approximation of one fit that a file holds."""
    mixture = saved.mixture
    if len(saved.blocks) > 1:  # PyMC's group has one metric
        n_components = saved.history.settings.get("n_components", mixture.n_components)
        mixture = mixture.padded(max(n_components, mixture.n_components))
    values = {**mixture.as_dict(), **saved.blocks[0].coordinates}
    coordinates = "auto" if saved.structure["sites"] else "affine"
    approx = IsotropicMixture(values=values, coordinates=coordinates, model=model)
    files.refuse_other_sites(saved, approx.coordinate_map)
    approx.rng.set_state(saved.random_state)
    approx.hist, approx.history = saved.hist, saved.history
    if len(saved.blocks) > 1:
        approx.union = saved.density(approx.coordinate_map)
        group = approx.groups[0]
        group.mixture = approx.union.with_one_metric(group.mixture.n_components)
    return approx
