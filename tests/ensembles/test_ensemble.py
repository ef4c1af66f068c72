"""Ensembles: what restarts give, whoever does the work, and what is kept when some fail."""

import logging

import numpy as np
import pymc as pm
import pytest
import scipy

import pymc_isomix as pmi
from pymc_isomix.ensembles import ensemble, workers
from pymc_isomix.ensembles.many import Fitter
from pymc_isomix.interface.settings import Settings
from pymc_isomix.model.space import FlatSpace

FIT = {"restarts": 4, "n": 400, "n_components": 3, "progressbar": False, "refine": False}


SEED = np.random.SeedSequence(1)


@pytest.fixture(scope="module")
def fitted(model):
    return pmi.fit_ensemble(model, random_seed=1, **FIT)


def means(approx):
    return {number: saved.mixture.means for number, saved in approx.fits.items()}


def test_finds_both_modes_with_their_masses(fitted):
    assert sorted(fitted.fits) == [0, 1, 2, 3]
    assert not fitted.failures
    tree = fitted.sample(4000, random_seed=1)
    # four standard errors of a share, and those of the weights
    error = np.sqrt(0.21 / 4000) + fitted.table["weight_se"].max().item()
    assert abs((tree.posterior["x"] < 0).mean().item() - 0.7) < 4 * error
    assert tree.fit.attrs["stop_reason"] == "4 fits joined"


def test_each_fit_is_as_if_it_were_the_first(fitted, model):
    space, settings = FlatSpace.of(model), Settings(n_components=3, init="prior")
    seeds = workers.seeds_of(1, 4)
    start = ensemble.stratified_starts(space, 4, settings, ensemble.Streams.of(1).starts)[2]
    isomix = {"n_components": 3, "init": "prior"}
    with workers.quiet():
        with pytest.raises(TimeoutError, match="larger time_limit"):
            Fitter(model, isomix, {}, 400, 1e-9).fit(start, 9)
        alone = Fitter(model, isomix, {}, 400, None).fit(start, seeds[2])
    np.testing.assert_array_equal(alone.saved().mixture.means, means(fitted)[2])
    assert alone.history.elbo.tolist() == fitted.fits[2].history.elbo.tolist()


def test_each_mode_is_fitted_once_more_by_itself(fitted, model):
    refined = pmi.fit_ensemble(model, previous=fitted, **FIT | {"refine": True})
    again = {n: f for n, f in refined.fits.items() if n >= ensemble.FIRST_REFINED}
    assert len(again) == 2
    centres = [np.average(f.mixture.means[:, 0], weights=f.mixture.weights) for f in again.values()]
    np.testing.assert_allclose(sorted(centres), [-8, 8], atol=0.5)
    # with a metric of its own each, which is the shape of the mode
    for centre, one in zip(centres, again.values(), strict=True):
        covariance = one.mixture.typical_metric @ one.mixture.typical_metric.T
        narrow = np.sqrt(covariance[0, 0] / covariance[1, 1])
        assert narrow == pytest.approx(0.5 if centre < 0 else 0.15, rel=0.3)
    # a call that goes on from here does them anew
    assert means(pmi.fit_ensemble(model, previous=refined, **FIT)).keys() == {0, 1, 2, 3}


def test_starts_are_strata_of_the_prior(model):
    settings = Settings(n_components=10, init="prior")
    places = ensemble.stratified_starts(FlatSpace.of(model), 4, settings, SEED)
    assert [place.shape for place in places] == [(10, 2)] * 4
    within = np.mean([place.std(axis=0) for place in places], axis=0)
    assert (within < np.concatenate(places).std(axis=0)).all()


def test_an_improper_prior_has_a_box(caplog):
    with pm.Model() as flat:
        pm.Flat("x", shape=2)
    settings = Settings(n_components=5, init="prior", init_width=3.0)
    with caplog.at_level(logging.INFO, "pymc_isomix"):
        places = ensemble.stratified_starts(FlatSpace.of(flat), 2, settings, SEED)
    assert 2 < np.abs(places).max() <= 3
    assert "improper" in caplog.text


@pytest.fixture
def failing(monkeypatch, fitted):
    """Make the restarts of the given numbers raise an error; the others end as they did."""
    fault = {}

    def fit_one(shared, task):
        if task.number in fault.get("numbers", ()):
            raise fault["error"]
        return fitted.fits[task.number]

    monkeypatch.setattr(ensemble, "fit_one", fit_one)
    return fault


def test_failures_are_kept_apart_and_run_again_on_request(fitted, model, failing, caplog):
    failing |= {"numbers": (1, 2), "error": FloatingPointError("no luck")}
    approx = pmi.fit_ensemble(model, random_seed=1, **FIT)
    assert sorted(approx.fits) == [0, 3]
    assert [failure.number for failure in approx.failures] == [1, 2]
    assert approx.failures[0].seed == workers.seeds_of(1, 2)[1]
    assert approx.failures[0].error == "FloatingPointError: no luck"
    assert "fit_one" in approx.failures[0].details
    assert "2 of 4 restarts failed: 2 x FloatingPointError: no luck" in caplog.text
    assert "2 restarts failed" in repr(approx)
    failing.clear()
    again = pmi.fit_ensemble(model, previous=approx, **FIT)
    np.testing.assert_equal(means(again), means(fitted))
    assert not again.failures


def test_if_all_fail_one_error_says_why(model, failing):
    failing |= {"numbers": range(4), "error": FloatingPointError("no luck")}
    with pytest.raises(
        RuntimeError, match="all 4 restarts failed: 4 x FloatingPointError: no luck"
    ):
        pmi.fit_ensemble(model, random_seed=1, **FIT)


def test_an_interrupt_keeps_what_is_done(fitted, model, failing, caplog):
    failing |= {"numbers": (2,), "error": KeyboardInterrupt()}
    approx = pmi.fit_ensemble(model, random_seed=1, **FIT)
    assert sorted(approx.fits) == [0, 1]
    assert "Interrupted: 2 of 4 restarts were done" in caplog.text
    failing["numbers"] = (0,)
    with pytest.raises(KeyboardInterrupt):
        pmi.fit_ensemble(model, random_seed=1, **FIT)


def test_goes_on_from_checkpoints(fitted, model, failing, tmp_path):
    folder = tmp_path / "restarts"
    failing |= {"numbers": (2,), "error": KeyboardInterrupt()}
    pmi.fit_ensemble(model, random_seed=1, checkpoint=folder, **FIT)
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["ensemble.json", "restart_00000.nc", "restart_00001.nc"]
    (folder / files[2]).write_bytes(b"cut short")
    failing["numbers"], failing["error"] = (0,), AssertionError("it is done already")
    approx = pmi.fit_ensemble(model, checkpoint=folder, **FIT)
    np.testing.assert_equal(means(approx), means(fitted))
    with pytest.raises(ValueError, match="differ in n, random_seed"):
        pmi.fit_ensemble(model, random_seed=2, checkpoint=folder, **FIT | {"n": 5})


def small(*, seen=1.0, prior=2.0, data=False):
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, prior, shape=2)
        seen = pm.Data("seen", [seen]) if data else [seen]
        pm.Normal("y", x.sum(), 1.0, observed=seen)
    return model


@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        ({"seen": 1.0}, {"seen": 1.5}, "data, model"),
        ({"data": True}, {"data": True, "seen": 1.5}, "data"),
        ({"prior": 2.0}, {"prior": 3.0}, "data, model"),
    ],
)
def test_checkpoints_of_another_model_are_refused(tmp_path, failing, fitted, one, other, differing):
    options = {"random_seed": 1, "checkpoint": tmp_path / "restarts", **FIT}
    pmi.fit_ensemble(small(**one), **options)
    pmi.fit_ensemble(small(**one), **options)  # the same model, built again
    with pytest.raises(ValueError, match=rf"which differ in {differing}\."):
        pmi.fit_ensemble(small(**other), **options)


def test_checkpoints_of_other_starts_are_refused(tmp_path, failing):
    options = {"random_seed": 1, "checkpoint": tmp_path / "restarts", **FIT, "init": "uniform"}
    pmi.fit_ensemble(small(), start={"x": np.zeros(2)}, **options)
    pmi.fit_ensemble(small(), start={"x": np.zeros(2)}, **options)
    with pytest.raises(ValueError, match=r"which differ in start\."):
        pmi.fit_ensemble(small(), start={"x": np.ones(2)}, **options)


def test_a_seed_of_zero_is_a_seed(model, failing):
    first = pmi.fit_ensemble(model, random_seed=0, **FIT)
    assert pmi.fit_ensemble(model, previous=first, **FIT).random_seed == 0


def test_every_source_of_random_numbers_has_a_stream_of_its_own(model, monkeypatch):
    streams = ensemble.Streams.of(1)
    firsts = {np.random.default_rng(stream).random() for stream in streams}
    firsts |= {np.random.default_rng(seed).random() for seed in workers.seeds_of(1, 10)}
    assert len(firsts) == len(streams) + 10
    taken = {}
    kmeans, starting_means = scipy.cluster.vq.kmeans2, ensemble.starts.starting_means

    def of_strata(*args, rng, **kwargs):
        taken["strata"] = rng.bit_generator.state["state"]
        return kmeans(*args, rng=rng, **kwargs)

    def of_candidates(*args, random_seed, **kwargs):
        taken["candidates"] = np.random.default_rng(random_seed).bit_generator.state["state"]
        return starting_means(*args, random_seed=random_seed, **kwargs)

    monkeypatch.setattr(scipy.cluster.vq, "kmeans2", of_strata)
    monkeypatch.setattr(ensemble.starts, "starting_means", of_candidates)
    settings = Settings(n_components=3, init="prior")
    ensemble.stratified_starts(FlatSpace.of(model), 2, settings, streams.starts)
    assert taken["strata"] != taken["candidates"]


def test_arguments_are_checked_first(model):
    with pytest.raises(ValueError, match="restarts"):
        pmi.fit_ensemble(model, restarts=0)
    with pytest.raises(ValueError, match="time_limit"):
        pmi.fit_ensemble(model, time_limit=-1)
    with pytest.raises(ValueError, match="metric"):
        pmi.fit_ensemble(model, metric="round")
    with pytest.raises(TypeError, match="unknown"):
        pmi.fit_ensemble(model, unknown=1)


@pytest.mark.slow
def test_workers_change_nothing(fitted, model):
    approx = pmi.fit_ensemble(model, random_seed=1, n_jobs=2, **FIT)
    np.testing.assert_equal(means(approx), means(fitted))
    assert approx.table.equals(fitted.table)
