"""One model with many data sets or many starts, compiled once per worker."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.backend.checks import check_count, check_number, check_seed
from pymc_isomix.ensembles import workers
from pymc_isomix.ensembles.workers import Task
from pymc_isomix.interface.api import ARGUMENTS
from pymc_isomix.interface.checks import check_model, refuse_unknown
from pymc_isomix.interface.inference import IsoMix
from pymc_isomix.interface.settings import Settings

FIGURES = ("elbo", "log_evidence", "khat", "importance_ess")
SECONDS = ("compile_seconds", "run_seconds")


class Fitter(NamedTuple):
    """Fits one model from many starts, or to many data sets.

    On JAX the model stores what the first fit compiled, so a worker compiles once.
    """

    model: Any
    isomix: dict  # arguments of IsoMix, except start and random_seed
    options: dict  # of IsoMix.fit
    n: int
    time_limit: float | None

    def fit(self, start: Any, seed: int) -> Any:
        """Fit from a start, or from those of IsoMix if None; return the approximation."""
        callbacks = [] if self.time_limit is None else [workers.TimeLimit(self.time_limit)]
        inference = IsoMix(model=self.model, start=start, random_seed=seed, **self.isomix)
        approx: Any = inference.fit(self.n, callbacks=callbacks, progressbar=False, **self.options)
        if approx.history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        return approx


def fit_many(
    model: pm.Model,
    datasets: Sequence[dict],
    *,
    n: int = 10000,
    draws: int = 500,
    n_jobs: int | None = None,
    random_seed: int | np.random.Generator | None = None,
    time_limit: float | None = None,
    progressbar: bool = True,
    backend: str | None = None,
    compile_kwargs: dict | None = None,
    **isomix_kwargs: Any,
) -> xr.DataTree:
    """Fit one model to many data sets: many series, or simulated data for calibration.

    On JAX each worker compiles the model once and changes its data by ``pymc.set_data``. Data of
    other lengths need a new compilation, and other backends compile for each data set. The results
    do not depend on the workers or on the other data sets.

    Parameters
    ----------
    model : pymc.Model
        A model whose data are ``pymc.Data``.
    datasets : sequence of dict
        For each data set, new values by name, as for ``pymc.set_data``.
    n : int
        Largest number of iterations per fit.
    draws : int
        Draws per data set.
    n_jobs, random_seed, time_limit, backend, compile_kwargs
        As for :func:`fit_ensemble`.
    progressbar : bool
    **isomix_kwargs
        Of :class:`IsoMix`.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` and ``sample_stats`` as :meth:`IsotropicMixture.sample` gives them,
        with a first dimension ``dataset``, in the given order; ``fit``, with the figures and the
        verdict of each fit, by its weights; and ``failures`` if any fit failed, with number, seed
        and error. After an interrupt it holds the fits that have finished.

    Raises
    ------
    RuntimeError
        If all fits failed; the message says why.
    ValueError
        If an argument breaks its rule, or a data set names data that the model does not have.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     y = pm.Data("y", [0.0, 0.0])
    ...     mu = pm.Normal("mu", 0, 10)
    ...     seen = pm.Normal("seen", mu, 1, observed=y)
    >>> tree = pmi.fit_many(
    ...     model,
    ...     [{"y": [1.0, 3.0]}, {"y": [5.0, 7.0]}],
    ...     n=500,
    ...     n_components=1,
    ...     random_seed=1,
    ...     progressbar=False,
    ... )
    >>> tree.posterior["mu"].mean(("chain", "draw")).values.round()
    array([2., 6.])
    """
    model = check_model(model)
    check_count("draws", draws)
    if time_limit is not None:
        check_number("time_limit", time_limit)
    refuse_unknown("fit_many", isomix_kwargs, ARGUMENTS | {*signature(fit_many).parameters})
    Settings(**isomix_kwargs)  # checks them
    datasets = [_checked(model, dataset, i) for i, dataset in enumerate(datasets)]
    if not datasets:
        raise ValueError("datasets must contain at least one data set; got none")
    seed = check_seed(random_seed)
    seeds = workers.seeds_of(seed, len(datasets))
    options = {"backend": backend, "compile_kwargs": compile_kwargs}
    fitter = Fitter(model, isomix_kwargs, options, n, time_limit)
    found: dict = {}
    failures, interrupted = workers.run(
        workers.Payload(fit_data, (fitter, draws)),
        [workers.Task(i, seeds[i], dataset) for i, dataset in enumerate(datasets)],
        n_jobs=n_jobs,
        on_result=found.__setitem__,
        progressbar=progressbar,
        description="Data sets",
    )
    workers.warn_of_failures(failures, "data sets", len(datasets), len(found), interrupted)
    return _as_tree(found, failures)


def fit_data(shared: tuple[Fitter, int], task: Task) -> tuple:
    """Fit to one data set, in a worker: (posterior, sample_stats, figures)."""
    fitter, draws = shared
    pm.set_data(task.own, model=fitter.model)
    approx = fitter.fit(None, task.seed)
    tree = approx.sample(draws, random_seed=task.seed, progressbar=False)
    history = approx.history
    figures = {name: getattr(history, name) for name in SECONDS} | {"steps": len(history.elbo)}
    if "diagnostics" in tree.children:
        report = tree["diagnostics"]
        figures |= {name: report[name].item() for name in FIGURES}
        figures["verdict"] = report.attrs["verdict"]
    groups = [tree[name].to_dataset() for name in ("posterior", "sample_stats")]
    return *groups, figures


def _checked(model, dataset, number):
    known = {variable.name for variable in model.data_vars}
    if unknown := sorted(set(dataset) - known):
        raise ValueError(
            f"data set {number} has {', '.join(unknown)}, which is not pm.Data of the model; those "
            f"are {sorted(known)}. Use pm.Data for everything that differs between data sets"
        )
    return {name: np.asarray(value) for name, value in dataset.items()}


def _as_tree(found, failures):
    numbers = sorted(found)
    index = xr.DataArray(numbers, dims="dataset", name="dataset")
    posterior, statistics = (
        xr.concat([found[i][part] for i in numbers], index, combine_attrs="drop_conflicts")
        for part in (0, 1)
    )
    figures = xr.concat([xr.Dataset(found[i][2]) for i in numbers], index)
    groups = {"posterior": posterior, "sample_stats": statistics, "fit": figures}
    if failures:
        groups["failures"] = xr.Dataset(
            {
                "seed": ("failure", [failure.seed for failure in failures]),
                "error": ("failure", [failure.error for failure in failures]),
            },
            coords={"failure": [failure.number for failure in failures]},
        )
    return xr.DataTree.from_dict(groups)
