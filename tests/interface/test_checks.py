"""What is said before a fit begins: of data, coords, models and arguments that do not fit."""

import logging

import numpy as np
import pymc as pm
import pytest

import pymc_isomix as pmi

DATA = np.array([1.0, 2.0, np.nan, np.inf])


def simple():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1.0, observed=[1.0, 2.0])
    return model


def of_covariates(x, name):
    with pm.Model() as model:
        covariate = pm.Data("x", np.zeros(4)) if name else x
        pm.Normal("y", pm.Normal("slope") * covariate, 1.0, observed=np.zeros(4))
        if name:
            pm.set_data({"x": x})  # pm.Data itself refuses a NaN
    return model


def of_observed():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1.0, observed=pm.Data("seen", np.zeros(4)))
        pm.set_data({"seen": DATA})
    return model


def of_constants():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1.0, observed=np.array([1.0, np.inf]))
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: of_covariates(DATA, "x"),
            r"^the data 'x', shape \(4,\), have 1 NaN and 1 inf\. Remove them, or",
        ),
        (lambda: of_covariates(DATA, None), r"^an array on which y depends, shape \(4,\)"),
        (of_observed, r"^the data 'seen', .* have 1 NaN and 1 inf"),
        (of_constants, r"^the data 'y', shape \(2,\), have 1 inf"),
    ],
)
@pytest.mark.parametrize("start", [{}, {"start": np.zeros((2, 1))}], ids=["jitter", "array"])
def test_data_that_are_not_finite_are_named_and_counted(model, message, start):
    with pytest.raises(ValueError, match=message):
        pmi.IsoMix(2, model=model(), **start)


def test_bounds_of_a_censored_variable_may_be_infinite():
    with pm.Model() as model:
        dist = pm.Normal.dist(pm.Normal("mu"), 1.0)
        pm.Censored("y", dist, None, np.array([2.0, np.inf]), observed=np.array([2.0, 5.0]))
    assert pmi.IsoMix(2, model=model, random_seed=1).approx


def effects(model):
    pm.Normal("effect", shape=3, dims="group")


def covariate(model):
    pm.Normal("slope", pm.Data("x", np.zeros(3), dims="group").sum())


def seen(model):
    pm.Normal("y", pm.Normal("mu"), 1.0, observed=np.zeros(3), dims="group")


@pytest.mark.parametrize(("add", "name"), [(effects, "effect"), (covariate, "x"), (seen, "y")])
def test_coords_that_do_not_fit_are_found_before_the_fit(add, name):
    with pm.Model(coords={"group": range(4)}) as model:
        add(model)
    with pytest.raises(ValueError, match=rf"dim 'group' has length 4, and {name} has length 3"):
        pmi.IsoMix(model=model)


def test_a_deterministic_may_have_another_length_than_its_dim(caplog):
    """As the probabilities of Bambi's cumulative models, which leave out the last category."""
    with pm.Model(coords={"row": list("abcd"), "two": [0, 1]}) as model:
        effect = pm.Normal("effect", shape=2, dims="two")
        pm.Deterministic("mu", effect[pm.Data("place", [0, 1, 1])], dims="row")
        pm.Deterministic("all", effect[pm.Data("places", [0, 1, 1, 0])], dims="row")
    draws = pmi.IsoMix(1, model=model, random_seed=1).approx.sample(5)["posterior"]
    assert draws["mu"].dims == ("chain", "draw", "mu_dim_0")
    np.testing.assert_array_equal(draws["mu"], draws["effect"].values[..., [0, 1, 1]])
    assert draws["all"].dims == ("chain", "draw", "row")
    assert draws["row"].values.tolist() == list("abcd")
    assert "mu has shape (3,), which does not fit the coords of its dims 'row'" in caplog.text


def test_a_model_in_place_of_the_number_of_components():
    with pm.Model() as model:
        pm.Normal("x")
    with pytest.raises(TypeError, match=r"IsoMix\(model=model\)"):
        pmi.IsoMix(model)


def test_dims_of_all_the_data_may_be_longer_than_a_minibatch():
    with pm.Model(coords={"row": range(4)}) as model:
        batch = pm.Minibatch(np.zeros(4), batch_size=2)
        pm.Normal("y", pm.Normal("mu"), 1.0, observed=batch, total_size=4, dims="row")
    assert pmi.IsoMix(2, model=model, random_seed=1).approx


def test_a_model_may_come_first():
    model = simple()
    options = {"progressbar": False, "random_seed": 1, "n_components": 1, "draws": 5}
    options["compile_kwargs"] = {"mode": "FAST_COMPILE"}
    trees = [
        pmi.fit(model, n=2, **options),
        pmi.fit(2, model=model, **options),
        pmi.fit(n=2, model=model, **options),
    ]
    for tree in trees:
        assert tree.fit.sizes["step"] == 2
        np.testing.assert_array_equal(tree.posterior["mu"], trees[0].posterior["mu"])
    with pytest.raises(TypeError, match="two models"):
        pmi.fit(model, model=simple())
    with pytest.raises(TypeError, match=r"model must be a pymc\.Model; got str"):
        pmi.fit(model="model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draw": 10}, "did you mean draws"),
        ({"chains": 4}, "form one chain.*fit_ensemble"),
        ({"method": "isomix"}, r"method=pmi\.IsoMix\(\.\.\.\)"),
        ({"tune": 100}, "no tuning"),
        ({"n_component": 3}, "did you mean n_components"),
        ({"chain": 4}, "form one chain.*fit_ensemble"),
        ({"seed": 3}, "random_seed="),
        ({"nuts_sampler": "nutpie"}, "sample_nuts"),
        ({"whatever": 3}, r"takes no whatever$"),
    ],
)
def test_arguments_of_other_samplers_are_answered(options, message):
    with pytest.raises(TypeError, match=message):
        pmi.fit(simple(), **options)


def test_sample_says_what_is_meant():
    approx = pmi.IsotropicMixture(n_components=1, model=simple(), random_seed=1)
    with pytest.raises(TypeError, match="did you mean draws"):
        approx.sample(draw=10)
    with pytest.raises(TypeError, match="form one chain"):
        approx.sample(chains=4)
    with pytest.raises(TypeError, match="did you mean draws"):
        approx.sample_nuts(draw=10)


def test_many_fits_say_what_is_meant():
    with pytest.raises(
        TypeError, match=r"fit_ensemble\(\) takes no restart: did you mean restarts"
    ):
        pmi.fit_ensemble(simple(), restart=2)
    with pytest.raises(TypeError, match=r"fit_many\(\) takes no draw: did you mean draws"):
        pmi.fit_many(simple(), [{}], draw=2)


def test_loading_without_a_model_says_to_pass_one(tmp_path):
    model = simple()
    fits = [pmi.IsotropicMixture(n_components=1, model=model, random_seed=s) for s in (1, 2)]
    for name, approx in (("one.nc", fits[0]), ("joined.nc", pmi.join(fits, random_seed=1))):
        approx.save(tmp_path / name)
        with pytest.raises(TypeError, match="or pass model=, because a file does not contain"):
            pmi.load(tmp_path / name)


def test_before_the_fit_there_is_nothing_to_diagnose(caplog):
    inference = pmi.IsoMix(1, model=simple(), random_seed=1)
    with pytest.raises(ValueError, match="not fitted yet"):
        inference.approx.diagnostics()
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        inference.approx.sample(5)
    assert "not fitted yet" in caplog.text
    inference.fit(2, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"})
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        inference.approx.sample(5)
        inference.approx.diagnostics(30, n_probes=0, transitions=0)
    assert "not fitted yet" not in caplog.text
