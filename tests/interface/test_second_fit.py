"""A second fit of a model compiles nothing, and has the numbers of a first."""

import copy
import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cloudpickle
import jax
import numpy as np
import pymc as pm
import pytest
from pytensor.compile.maker import FunctionMaker

from pymc_isomix import IsoMix
from pymc_isomix.model.model_cache import ModelCache, model_cache
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.find import find_coordinates

FIRST, OTHER = np.array([3.0, 1.0, -1.0]), np.array([0.5, 2.5, 4.0])


def build(y=FIRST, noise=1.0):
    with pm.Model() as model:
        data, noise = pm.Data("data", y), pm.Data("noise", noise)
        scale = pm.HalfNormal("scale", 2.0)
        theta = pm.Normal("theta", 0.0, scale, shape=3)
        pm.Normal("y", theta, noise, observed=data)
    return model


def fit(model, seed=1, **options):
    options = {"convergence": None} | options  # steps of a mixture, too
    inference = IsoMix(3, n_samples=4, random_seed=seed, model=model, **options)
    approx = inference.fit(60, backend="jax", progressbar=False)
    draws = approx.sample(50, random_seed=2)
    report = approx.diagnostics(200, n_probes=2, transitions=2)
    values = [
        *approx.mixture.as_dict().values(),
        *approx.coordinates.parameters.values(),
        approx.hist,
    ]
    values += [draws["sample_stats"]["lp"].values, report["elbo"].values]
    return np.concatenate([np.ravel(v) for v in values])


@contextmanager
def counted(monkeypatch):
    """Count what PyTensor and XLA compile."""
    made = []
    init = FunctionMaker.__init__

    def counting(self, *args, **kwargs):
        made.append("PyTensor")
        init(self, *args, **kwargs)

    def listen(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            made.append("XLA")

    monkeypatch.setattr(FunctionMaker, "__init__", counting)
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield made
    jax.monitoring.unregister_event_duration_listener(listen)
    monkeypatch.undo()


@pytest.fixture(scope="module")
def fitted():
    model = build()
    return model, fit(model)


def test_what_judges_a_fit_is_compiled_beside_the_step(monkeypatch, caplog):
    caplog.set_level("WARNING", "pymc_isomix")  # no closing line
    with pm.Model() as model:
        pm.Normal("x")
    inference = IsoMix(2, random_seed=1, model=model)
    approx = inference.fit(1, backend="jax", progressbar=False)
    with counted(monkeypatch) as made:
        assert np.isfinite(approx.compiled_model().log_density(np.zeros((3, 1)))).all()
    assert made == []


def test_second_fit_compiles_nothing_and_is_the_first(fitted, monkeypatch):
    model, first = fitted
    with counted(monkeypatch) as made:
        second = fit(model)
    assert made == ["PyTensor"]  # PyMC's own initial point
    np.testing.assert_array_equal(second, first)
    assert np.abs(fit(model, seed=5) - first).max() > 0.01


def test_other_data_compile_nothing_and_are_seen(fitted, monkeypatch):
    model, first = fitted
    pm.set_data({"data": OTHER, "noise": 0.5}, model=model)
    with counted(monkeypatch) as made:
        second = fit(model)
    pm.set_data({"data": FIRST, "noise": 1.0}, model=model)
    assert made == ["PyTensor"]
    np.testing.assert_allclose(second, fit(build(OTHER, 0.5)), rtol=1e-8)
    assert second.shape != first.shape or np.abs(second - first).max() > 0.1


def test_approximations_of_one_step_do_not_share_their_parameters(fitted):
    model, _ = fitted
    one, other = (IsoMix(3, n_samples=4, random_seed=s, model=model) for s in (1, 2))
    one.fit(60, backend="jax", progressbar=False)
    before = one.approx.mixture.means
    other.fit(60, backend="jax", progressbar=False)
    np.testing.assert_array_equal(one.approx.mixture.means, before)
    one.refine(20, progressbar=False)
    assert np.abs(one.approx.mixture.means - before).max() > 0
    assert one.approx.history.generators != other.approx.history.generators


def test_what_is_in_the_graph_makes_another_step(fitted):
    model, _ = fitted

    def key(model=model, **options):
        return IsoMix(
            **{"n_components": 3, "n_samples": 4, "model": model} | options
        ).objective.op.key

    same = key()
    assert key(random_seed=4, step_size=0.1, init="prior") == same
    different = [
        {"n_samples": 5},
        {"n_components": 4},
        {"metric": "diag"},
        {"variance_update": "bures"},
        {"weights": "uniform"},
        {"coordinates": "affine"},
        {"component_variances": "diagonal"},
    ]
    assert all(key(**options) != same for options in different)
    changed = build()
    before = key(changed)
    with changed:
        pm.Potential("more", -changed["scale"])
    assert key(changed) != before
    unchecked = build()
    before = key(unchecked)
    unchecked.check_bounds = False
    assert key(unchecked) != before


def test_a_step_with_options_of_its_own_is_compiled_by_itself(fitted):
    model, _ = fitted
    options = {"n_samples": 4, "random_seed": 1, "coordinates": "affine", "model": model}
    inference = IsoMix(3, **options)
    given = {"backend": "jax", "progressbar": False}
    inference.fit(2, **given)
    inference = IsoMix(3, **options)
    inference.fit(2, obj_optimizer=pm.sgd(learning_rate=0.0), **given)
    means = inference.approx.mixture.means
    np.testing.assert_array_equal(means, IsoMix(3, **options).approx.mixture.means)


def test_length_of_a_dim_makes_another_step():
    with pm.Model(coords={"group": range(3)}) as model:
        data = pm.Data("data", FIRST, dims="group")
        theta = pm.Normal("theta", 0.0, 2.0, dims="group")
        pm.Normal("y", theta, 1.0, observed=data, dims="group")
    before = IsoMix(3, model=model).objective.op.key
    pm.set_data({"data": np.zeros(4)}, coords={"group": range(4)}, model=model)
    assert IsoMix(3, model=model).objective.op.key != before


def test_coordinates_are_found_again_where_they_hold_other_data():
    rng = np.random.default_rng(1)
    with pm.Model() as model:
        features, y = pm.Data("features", rng.normal(size=(6, 2))), pm.Data("y_data", np.ones(6))
        scale = pm.HalfNormal("scale", 1.0)
        effect = features @ (scale * pm.Normal("z", 0.0, 1.0, shape=2))
        pm.Normal("y", effect, 1.0, observed=y)
    space = FlatSpace.of(model)
    first = find_coordinates(space)
    assert first
    pm.set_data({"y_data": np.zeros(6)}, model=model)
    assert find_coordinates(space) is first
    pm.set_data({"features": rng.normal(size=(6, 2))}, model=model)
    other = find_coordinates(FlatSpace.of(model))
    assert other is not first
    assert np.abs(other.sites[0].form.basis - first.sites[0].form.basis).max() > 0.01


def test_a_model_is_collected_with_what_is_kept_of_it():
    model = build()
    IsoMix(3, model=model)
    assert model_cache(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_copies_of_a_model_begin_anew(fitted):
    model, _ = fitted
    assert model_cache(cloudpickle.loads(cloudpickle.dumps(model))) == {}
    assert model_cache(copy.deepcopy(model)) == {}
    assert model_cache(model)


def test_the_oldest_goes_first():
    store = ModelCache()
    for i in range(100):
        store.add(i, str(i))
    assert list(store)[-1] == 99
    assert len(store) == 32


def test_two_threads_fit_a_model_at_once(fitted):
    _, first = fitted
    model, seeds = build(), (1, 5, 1, 5)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: fit(model, seed), seeds))
    other = fit(model, 5)
    for seed, values in zip(seeds, found, strict=True):
        np.testing.assert_array_equal(values, first if seed == 1 else other)


@pytest.mark.parametrize(
    ("name", "n_points"),
    [("unconstrained", 20_000), ("density", 1000), ("constrained", 20_000), ("mixture", 5000)],
)
def test_what_threads_share_is_called_by_one_at_a_time(fitted, name, n_points):
    approx = IsoMix(3, random_seed=1, model=fitted[0]).approx
    compiled = approx.compiled_model()  # of NumPy, Op by Op
    function = {
        "unconstrained": lambda points: compiled.to_unconstrained(points)[0],
        "density": compiled.log_density,
        "constrained": lambda points: compiled.constrained(points)["theta"],
        "mixture": approx.mixture.log_density,
    }[name]
    batches = np.random.default_rng(1).normal(size=(16, n_points, approx.ddim))
    expected = [function(batch) for batch in batches]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(function, batches))
    finally:
        sys.setswitchinterval(interval)
    np.testing.assert_array_equal(found, expected)
