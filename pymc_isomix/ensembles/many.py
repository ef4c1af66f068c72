"""One model, many data sets, or many starts: compiled once a worker."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.backend.checks import check_count, check_model, check_number, check_seed
from pymc_isomix.ensembles import workers
from pymc_isomix.fitting.random_state import reseed_generators
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.inference import IsoMix
from pymc_isomix.interface.parameters import first_values
from pymc_isomix.interface.settings import Settings

FIGURES = ("elbo", "log_evidence", "khat", "importance_ess")
SECONDS = ("compile_seconds", "run_seconds")


class Refitter:
    """Fits of one model from many starts, or to many data sets, compiled once.

    Each fit is as if it were the first: it depends on its start and seed alone.

    Parameters
    ----------
    model : pymc.Model
    isomix : dict
        Arguments of :class:`pymc_isomix.IsoMix`, but ``start`` and ``random_seed``.
    fit : dict
        Those of its ``fit``.
    """

    def __init__(self, model, isomix, fit):
        self.model, self.isomix, self.options = model, isomix, fit
        self.inference: Any = None
        self.shapes: dict = {}

    def fit(self, n, *, start, seed, callbacks=None):
        """Fit from a start; returns the approximation, which the next fit overwrites."""
        began = time.perf_counter()
        shapes = data_shapes(self.model)
        if self.inference is None or shapes != self.shapes:
            self.shapes = shapes
            self.inference = IsoMix(model=self.model, start=start, random_seed=seed, **self.isomix)
            self.inference.fit(0, progressbar=False, **self.options)  # compiles
        inference, approx = self.inference, self.inference.approx
        settings = replace(inference.settings, start=start, random_seed=seed)
        inference.settings = settings
        group = approx.groups[0]
        group.rng = np.random.RandomState(seed)
        options = {**settings.for_the_group}
        del options["coordinates"]  # known by now
        values = first_values(group.coordinates, group.rng, **options)
        for name, value in values.items():
            shared = group.shared_params[name]
            shared.set_value(np.asarray(value, dtype=shared.dtype))
        if (anchor := inference.objective.op.anchor) is not None:
            anchor.lift()
        step = inference.state.step
        reseed_generators(step.generators, seed)
        inference.hist, inference.resumes, inference._taken = np.zeros(0), False, 0
        approx.history = History(settings=settings.record(), backend=inference.objective.op.backend)
        inference.state = inference.state._replace(callbacks=list(callbacks or ()))
        compile_seconds = time.perf_counter() - began
        inference.refine(n, progressbar=False)
        approx.history.compile_seconds += compile_seconds
        if approx.history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        return approx


def data_shapes(model):
    """Return what is compiled in of a model's data: shapes, and masks, which make shapes."""
    values = {variable.name: variable.get_value(borrow=True) for variable in model.data_vars}
    return {
        name: (value.shape, value.tobytes() if value.dtype == bool else b"")
        for name, value in values.items()
    }


def fit_many(
    model,
    datasets,
    *,
    n=10000,
    draws=500,
    n_jobs=None,
    random_seed=None,
    time_limit=None,
    progressbar=True,
    backend=None,
    compile_kwargs=None,
    **isomix_kwargs,
):
    """Fit one model to many data sets: many series, or simulated data for calibration.

    A worker compiles the model once and changes its data by :func:`pymc.set_data`; where lengths
    differ from those of the data set before, it compiles anew. Results do not depend on the
    workers, nor on what else is fitted.

    Parameters
    ----------
    model : pymc.Model
        Its data in :class:`pymc.Data`.
    datasets : sequence of dict
        Values by name of the data that differ, as for :func:`pymc.set_data`.
    n : int
        Most iterations of each fit.
    draws : int
        Of each data set.
    n_jobs, random_seed, time_limit, backend, compile_kwargs
        As for :func:`fit_ensemble`.
    progressbar : bool
    **isomix_kwargs
        Of :class:`IsoMix`.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior`` and ``sample_stats`` as :meth:`IsotropicMixture.sample` gives them,
        with a dimension ``dataset`` in front, numbered as given; ``fit``, with figures and verdict
        of each fit by its weights; and ``failures``, where any failed: number, seed and error.
        After an interrupt it holds what had been done by then.

    Raises
    ------
    RuntimeError
        If all failed; says why.
    ValueError
        If an argument breaks its rule, or a data set names what is no data of the model.

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
    Settings(**isomix_kwargs)  # checks them
    datasets = [_checked(model, dataset, i) for i, dataset in enumerate(datasets)]
    if not datasets:
        raise ValueError("datasets must hold at least one; got none")
    seed = check_seed(random_seed)
    seeds = workers.seeds_of(seed, len(datasets))
    refitter = Refitter(
        model, isomix_kwargs, {"backend": backend, "compile_kwargs": compile_kwargs}
    )
    found: dict = {}
    failures, interrupted = workers.run(
        workers.Payload(fit_data, (refitter, n, draws, time_limit)),
        [workers.Task(i, seeds[i], dataset) for i, dataset in enumerate(datasets)],
        n_jobs=n_jobs,
        keep=found.__setitem__,
        progressbar=progressbar,
        description="Data sets",
    )
    workers.say(failures, "data sets", len(datasets), len(found), interrupted)
    return _as_tree(found, failures)


def fit_data(shared, task):
    """Fit to one data set, in a worker: (posterior, sample_stats, figures)."""
    refitter, n, draws, time_limit = shared
    pm.set_data(task.own, model=refitter.model)
    callbacks = [] if time_limit is None else [workers.TimeLimit(time_limit)]
    approx = refitter.fit(n, start=None, seed=task.seed, callbacks=callbacks)
    tree = approx.sample(draws, random_seed=task.seed, progressbar=False)
    history = approx.history
    figures = {name: getattr(history, name) for name in SECONDS} | {"steps": len(history.elbo)}
    if "diagnostics" in tree.children:
        report = tree["diagnostics"]
        figures |= {name: report[name].item() for name in FIGURES}
        figures["verdict"] = report.attrs["verdict"]
    # no arrays of the worker's own, which the next fit may change
    groups = [tree[name].to_dataset().copy(deep=True) for name in ("posterior", "sample_stats")]
    return *groups, figures


def _checked(model, dataset, number):
    known = {variable.name for variable in model.data_vars}
    if unknown := sorted(set(dataset) - known):
        raise ValueError(
            f"data set {number} names no data of the model: {', '.join(unknown)}; they are "
            f"{sorted(known)}. What shall differ is to be in pm.Data"
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
