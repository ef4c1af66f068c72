"""What a fit recorded."""

import json
import logging

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor.compile.mode import Mode

import pymc_isomix as pmi
from pymc_isomix.backend.compilation import backend_name
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.settings import NOT_RECORDED, Settings

NUMPY = Mode(linker="py", optimizer="fast_compile")
BRIEF = {"progressbar": False, "compile_kwargs": {"mode": NUMPY}}


@pytest.fixture(scope="module")
def model():
    with pm.Model() as model:
        pm.Normal("theta", shape=2)
    return model


@pytest.fixture(scope="module")
def refined(model):
    inference = pmi.IsoMix(2, n_samples=3, convergence=None, random_seed=7, model=model)
    inference.fit(11, **BRIEF)
    inference.refine(2, progressbar=False)
    return inference


def test_one_entry_a_step(refined):
    history = refined.approx.history
    np.testing.assert_array_equal(history.elbo, -refined.hist)
    assert history.phase.tolist() == ["gaussian"] * 3 + ["exploring"] * 4 + ["settling"] * 4 + [
        "exploring",
        "settling",
    ]
    np.testing.assert_allclose(history.step_size[3:8], 0.3)
    assert np.all(np.diff(history.step_size[7:11]) < 0)


def test_gradients_are_counted_by_phase(refined):
    attrs = refined.approx.history.to_dataset().attrs
    by_phase = json.loads(attrs["n_gradients_by_phase"])
    assert by_phase["exploring"] == by_phase["settling"] == 5 * 2 * 3  # steps, components, draws
    assert by_phase["gaussian"] > 3 * 150  # three batches, and the ascents
    assert attrs["n_gradients"] == sum(by_phase.values())


def test_seconds_settings_and_versions(refined):
    history = refined.approx.history
    assert history.compile_seconds > 0
    assert history.run_seconds > 0
    assert history.stop_reason == "all iterations done"
    assert history.settings["n_samples"] == 3
    assert history.settings["random_seed"] == 7
    assert "model" not in history.settings
    assert history.versions["pymc"] == pm.__version__
    assert history.versions["pymc_isomix"] == pmi.__version__
    assert history.backend == "perform"


def test_compiling_counts_once(model):
    inference = pmi.IsoMix.paper(2, random_seed=1, model=model)
    inference.fit(3, **BRIEF)
    before = inference.approx.history.compile_seconds
    inference.refine(3, progressbar=False)
    first_call = inference.approx.history.compile_seconds - before
    assert first_call < before  # of the refinement, the first call alone
    assert inference.approx.history.phase.tolist() == ["scheduled"] * 6


def test_nothing_is_recorded_before_a_fit(model):
    assert pmi.IsoMix(2, model=model).approx.history is None


def test_an_interruption_is_recorded(model):
    def stop(approx, losses, i):
        if i == 3:
            raise StopIteration("enough")

    inference = pmi.IsoMix(2, convergence=None, random_seed=1, model=model)
    approx = inference.fit(9, callbacks=[stop], **BRIEF)
    assert approx.history.stop_reason == "enough"
    assert len(approx.history.elbo) == len(approx.history.phase) == 3


def test_group(refined, tmp_path):
    dataset = refined.approx.sample(3).fit.to_dataset()
    assert dataset["elbo"].dims == dataset["phase"].dims == dataset["step_size"].dims == ("step",)
    assert dataset["phase"].values[0] == "gaussian"
    assert json.loads(dataset.attrs["settings"])["n_components"] == 2
    assert set(json.loads(dataset.attrs["versions"])) == {
        "pymc_isomix",
        "pymc",
        "pytensor",
        "arviz",
        "numpy",
    }
    dataset.to_netcdf(tmp_path / "fit.nc")
    with xr.open_dataset(tmp_path / "fit.nc") as read:
        back = History.from_dataset(read)
    xr.testing.assert_identical(back.to_dataset(), refined.approx.history.to_dataset())


def test_settings_that_json_cannot_hold():
    def halving(t):
        return 2.0**-t

    given = {
        "schedule": halving,
        "start": np.zeros((3, 2)),
        "start_sigma": {"theta": 1.0},
        "n_samples": np.int64(4),
        "absolute_step": True,
        "init": "prior",
    }
    record = Settings(**given).record()
    assert {name: record[name] for name in given} == {
        "schedule": {NOT_RECORDED: "function halving"},
        "start": {NOT_RECORDED: "ndarray of shape (3, 2)"},
        "start_sigma": {NOT_RECORDED: "dict of theta"},
        "n_samples": 4,
        "absolute_step": True,
        "init": "prior",
    }
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(("mode", "name"), [("JAX", "jax"), (NUMPY, "perform")])
def test_name_of_the_backend(mode, name):
    assert backend_name(mode) == name


def test_the_backend_of_a_model_compiled_apart_is_recorded(model):
    """The step around it runs NumPy Op by Op."""
    approx = pmi.IsoMix(2, n_samples=3, random_seed=7, model=model).fit(
        1, progressbar=False, backend="numba"
    )
    assert approx.history.backend == "numba"


# The line that ends a fit


def closing_line(model, caplog, **options):
    with caplog.at_level(logging.INFO, "pymc_isomix"):
        pmi.IsoMix(2, random_seed=1, model=model, **options).fit(5, **BRIEF)
    return next(r.message for r in caplog.records if r.message.startswith("Stopped after"))


def test_one_line_at_the_end(model, caplog):
    line = closing_line(model, caplog)
    for part in ("3 iterations", "ELBO ", "mode", "s to compile", "s to run", "diagnostics()"):
        assert part in line


def test_what_is_logged_changes_nothing(model, caplog, monkeypatch):
    """Neither random numbers, nor what is evaluated, nor what the approximation says of itself."""
    monkeypatch.setattr(pmi.IsotropicMixture, "diagnostics", None)
    seen = []
    for level in (logging.INFO, logging.ERROR):
        with caplog.at_level(level, "pymc_isomix"):
            approx = pmi.IsoMix.paper(2, random_seed=1, model=model).fit(2, **BRIEF)
        seen.append((repr(approx), approx.rng.randint(2**30)))
    assert "not checked" in seen[0][0]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_a_verdict_is_of_the_fit_that_it_judged(model, caplog, level):
    with caplog.at_level(level, "pymc_isomix"):
        inference = pmi.IsoMix.paper(2, random_seed=1, model=model)
        approx = inference.fit(2, **BRIEF)
        approx.diagnostics(20, n_probes=0, transitions=0)
        assert "verdict" in repr(approx)
        inference.refine(2, progressbar=False)
    assert "not checked" in repr(approx)


# Fitting further


def test_resume_keeps_the_settings_but_what_changes(model):
    inference = pmi.IsoMix.paper(2, step_size=0.01, random_seed=1, model=model)
    approx = inference.fit(3, **BRIEF)
    again = pmi.resume(approx, schedule="linear")
    assert again.approx is approx
    assert again.objective.op.rule == inference.objective.op.rule
    np.testing.assert_array_equal(again.hist, approx.hist)
    assert approx.history.settings["schedule"] == "linear"
    assert approx.history.settings["random_seed"] == 1
    again.fit(2, **BRIEF)
    assert approx.hist.shape == (5,)
    assert approx.history.elbo.shape == (5,)


def test_resume_refuses_what_is_fixed(model):
    approx = pmi.IsoMix.paper(2, random_seed=1, model=model).fit(1, **BRIEF)
    with pytest.raises(ValueError, match="metric, n_components cannot change"):
        pmi.resume(approx, n_components=3, metric="diag")


def test_resume_needs_a_function_again(model):
    inference = pmi.IsoMix.paper(2, schedule=lambda t: 1.0, random_seed=1, model=model)
    approx = inference.fit(1, **BRIEF)
    with pytest.raises(ValueError, match="pass schedule= again"):
        pmi.resume(approx)
    pmi.resume(approx, schedule=lambda t: 1.0)
