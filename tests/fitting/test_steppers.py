import jax
import numpy as np
import pymc as pm
import pytensor
import pytest

from pymc_isomix import IsoMix
from pymc_isomix.backend import compilation
from pymc_isomix.backend.compilation import JAXCompilationError
from pymc_isomix.fitting import steppers
from pymc_isomix.fitting.random_state import generator_states, generators, restore_generators
from pymc_isomix.fitting.steppers import OneByOne
from pymc_isomix.model.model_cache import model_cache


@pytest.fixture(scope="module")
def inference():
    with pm.Model() as model:
        shift = pm.Data("shift", 0.0)
        theta = pm.Normal("theta", shift, 2.0, shape=2)
        pm.Normal("y", theta, 1.0, observed=[1.5, -2.0])
    return IsoMix(3, n_samples=2, random_seed=1, model=model)


@pytest.fixture(scope="module")
def function(inference):
    return inference.objective.step_function(compile_kwargs={"mode": "JAX"})


@pytest.fixture(scope="module")
def looped(inference):
    return inference.objective.stepper(compile_kwargs={"mode": "JAX"}, whole=False)


@pytest.fixture
def restore(inference, looped):
    """Put everything that a step moves back to where it was, whenever called."""
    before = [(storage, storage[0]) for storage in looped.storage]

    def put_back():
        for storage, value in before:
            storage[0] = value

    yield put_back
    put_back()


def parameters(inference):
    shared = inference.approx.shared_params.values()
    return np.concatenate([np.ravel(one.get_value()) for one in shared])


SIZES = np.linspace(0.3, 0.1, 7)


def test_steps_in_a_loop_are_those_one_by_one(inference, function, looped, restore):
    """With the random numbers of one function of PyTensor's, which JAX compiled as well."""
    restore_generators(looped.generators, generator_states(generators(function)))
    losses, evidence = looped.take(SIZES)
    at_once = parameters(inference)
    restore()
    one_by_one = OneByOne(function, inference.objective.op)
    singles = [one_by_one.take([size]) for size in SIZES]
    assert losses.shape == (7,)
    assert evidence.shape == (7, 3)
    np.testing.assert_allclose(losses, np.concatenate([loss for loss, _ in singles]), rtol=1e-10)
    np.testing.assert_allclose(evidence, np.concatenate([e for _, e in singles]), rtol=1e-10)
    np.testing.assert_allclose(parameters(inference), at_once, rtol=1e-10)
    assert float(inference.objective.op.step_size.get_value()) == SIZES[-1]


def test_several_calls_go_on_where_the_last_one_ended(inference, looped, restore):
    losses, _ = looped.take(SIZES)
    at_once = parameters(inference)
    restore()
    parts = np.concatenate([looped.take(SIZES[:3])[0], looped.take(SIZES[3:])[0]])
    np.testing.assert_array_equal(parts, losses)
    np.testing.assert_array_equal(parameters(inference), at_once)


def test_a_refused_step_ends_the_loop(inference, looped, restore):
    inference.approx.model.set_data("shift", np.nan)
    before = parameters(inference)
    losses, evidence = looped.take(SIZES)
    inference.approx.model.set_data("shift", 0.0)
    assert np.isnan(losses).tolist() == [True]
    assert len(evidence) == 1
    np.testing.assert_array_equal(parameters(inference), before)


def test_the_loop_is_compiled_once(inference, caplog):
    group = inference.approx.groups[0]
    model_cache(inference.approx.model).clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        looped = inference.objective.stepper(compile_kwargs={"mode": "JAX"}, whole=False)
        looped.take(SIZES)
        group.mixture = group.mixture
        looped.take(SIZES[:2])
    assert sum("Compiling jit(run)" in message for message in caplog.messages) == 1


def test_data_stay_as_they_are(inference, looped, restore):
    looped.take(SIZES)
    assert isinstance(inference.approx.model["shift"].container.storage[0], np.ndarray)


@pytest.mark.parametrize(("seconds", "most"), [(1e-9, steppers.MOST_STEPS), (0.09, 3), (10.0, 1)])
def test_a_call_takes_no_longer_than_a_user_waits(looped, restore, monkeypatch, seconds, most):
    clock = iter([0.0, 7 * seconds])
    monkeypatch.setattr(steppers.time, "perf_counter", lambda: next(clock))
    looped.take(SIZES)
    assert looped.most == most


def test_jax_is_the_default_where_it_is_installed(monkeypatch):
    with pytensor.config.change_flags(mode="Mode", linker="auto"):
        assert compilation.prefers_jax(None)
        assert compilation.prefers_jax({"profile": True})
        assert not compilation.prefers_jax({"mode": "FAST_COMPILE"})
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        assert not compilation.prefers_jax(None)
    with pytensor.config.change_flags(mode="Mode", linker="cvm"):
        assert not compilation.prefers_jax(None)
    monkeypatch.setattr(compilation, "find_spec", lambda name: None)
    with pytensor.config.change_flags(mode="Mode", linker="auto"):
        assert not compilation.prefers_jax(None)


@pytest.fixture
def unknown_to_jax():
    class Identity(pytensor.graph.op.Op):
        __props__ = ()
        itypes = otypes = (pytensor.tensor.dvector,)

        def perform(self, node, inputs, output_storage):
            output_storage[0][0] = inputs[0].copy()

        def pullback(self, inputs, outputs, cotangents):
            return list(cotangents)

        L_op = pullback

    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 2.0, shape=2)
        pm.Potential("likelihood", -0.5 * (Identity()(theta) ** 2).sum())
    return model


def test_a_model_that_jax_cannot_compile_is_refused_by_name(unknown_to_jax):
    inference = IsoMix.paper(2, model=unknown_to_jax)
    with pytest.raises(JAXCompilationError, match=r"JAX cannot compile this model .*Identity"):
        inference.fit(1, progressbar=False, backend="jax")


def test_default_backend_steps_in_where_jax_cannot(unknown_to_jax, monkeypatch, caplog):
    inference = IsoMix.paper(2, model=unknown_to_jax, random_seed=1)
    monkeypatch.setattr("pymc_isomix.interface.inference.prefers_jax", lambda compile_kwargs: True)
    with pytensor.config.change_flags(mode="FAST_COMPILE"), caplog.at_level("WARNING"):
        approx = inference.fit(3, progressbar=False)
    assert "JAX cannot compile this model" in caplog.text
    assert len(approx.hist) == 3
