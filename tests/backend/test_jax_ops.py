"""Ops that JAX compiles in a way of our own."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.pytensorf import compile as pymc_compile
from scipy import special, stats

from pymc_isomix.backend import jax_ops
from pymc_isomix.fitting.random_state import generator_states, generators

N_CALLS, SHAPE = 40, (5, 21, 7)  # an odd number of draws


@pytest.fixture(params=["FAST_COMPILE", "JAX"])
def mode(request):
    if request.param == "JAX":
        pytest.importorskip("jax")
        jax_ops.teach_jax()
    return request.param


def compile_noise(dtype="float64", seed=3, mode="JAX"):
    with pytest.warns(UserWarning, match="RandomType SharedVariables"):
        return pymc_compile([], jax_ops.standard_normal(SHAPE, dtype), mode=mode, random_seed=seed)


@pytest.fixture(scope="module")
def draws():
    pytest.importorskip("jax")
    jax_ops.teach_jax()
    function = compile_noise()
    return np.stack([np.asarray(function()) for _ in range(N_CALLS)])


def test_compute_once_is_the_value_and_passes_gradients_through(mode):
    x = pt.vector("x", shape=(3,))
    once = jax_ops.compute_once(x**2)
    outputs = [once, pt.grad(once.sum(), x), once.shape]
    value, gradient, shape = pytensor.function([x], outputs, mode=mode)([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(value, [1.0, 4.0, 9.0])
    np.testing.assert_array_equal(gradient, [2.0, 4.0, 6.0])
    np.testing.assert_array_equal(shape, [3])


def test_compute_once_is_a_barrier_of_xla():
    jax = pytest.importorskip("jax")
    jax_ops.teach_jax()
    x = pt.vector("x", shape=(3,))
    function = pytensor.function([x], pt.exp(jax_ops.compute_once(x**2)), mode="JAX")
    assert "optimization_barrier" in jax.jit(function.vm.jit_fn).lower(np.ones(3)).as_text()


def test_what_jax_lacks_is_computed_by_scipy():
    """With its gradient, and at many points at once."""
    pytest.importorskip("jax")
    jax_ops.teach_jax()
    x, order = pt.vector("x"), np.arange(3.0)
    value = pt.ive(order, x[:, None]).sum(axis=1) + pt.gammaincinv(2.0, pt.exp(-x))
    outputs = [value, pt.grad(pt.ive(order, x[:, None]).sum(), x)]
    at = np.array([0.1, 1.0, 30.0])
    found = pytensor.function([x], outputs, mode="JAX")(at)
    ive = special.ive(order, at[:, None])
    np.testing.assert_allclose(found[0], ive.sum(axis=1) + special.gammaincinv(2, np.exp(-at)))
    step = 1e-6
    up, down = (special.ive(order, at[:, None] + s * step).sum(axis=1) for s in (1, -1))
    np.testing.assert_allclose(found[1], (up - down) / (2 * step), rtol=1e-6)


def test_noise_on_jax_is_standard_normal(draws):
    """Quantiles, moments and tails; a seed is fixed, so that no chance is left."""
    flat = draws.ravel()
    assert np.isfinite(flat).all()
    assert stats.kstest(flat, "norm").pvalue > 0.01
    for power, (mean, spread) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs((flat**power).mean() - mean) < 4 * np.sqrt(spread / flat.size)
    beyond = (np.abs(flat) > 3).mean()
    assert abs(beyond - 2 * stats.norm.sf(3)) < 4 * np.sqrt(2 * stats.norm.sf(3) / flat.size)


def test_noise_on_jax_is_new_at_every_place_and_call(draws):
    # of these numbers in single precision a few coincide
    assert len(np.unique(draws)) > 0.995 * draws.size
    calls = draws.reshape(N_CALLS, -1)
    between = np.corrcoef(calls)[np.triu_indices(N_CALLS, 1)]
    assert np.abs(between).max() < 5 / np.sqrt(calls.shape[1])
    flat = calls.ravel()
    for lag in (1, SHAPE[-1], calls.shape[1] // 2, calls.shape[1]):
        assert abs(np.corrcoef(flat[:-lag], flat[lag:])[0, 1]) < 4 / np.sqrt(flat.size)


def test_noise_on_jax_repeats_for_a_seed_only(draws):
    np.testing.assert_array_equal(compile_noise()(), draws[0])
    # of 735 numbers in single precision hardly one coincides
    assert np.isin(compile_noise(seed=4)(), draws[0]).mean() < 0.01


def test_noise_on_jax_moves_its_generator_on():
    pytest.importorskip("jax")
    jax_ops.teach_jax()
    function = compile_noise()
    states = []
    for _ in range(3):
        states.append(tuple(generator_states(generators(function))[0]["jax_state"]))
        function()
    assert len(set(states)) == 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_has_the_type_asked_for_in_single_precision(dtype):
    pytest.importorskip("jax")
    jax_ops.teach_jax()
    values = np.asarray(compile_noise(dtype)())
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, values.astype("float32"))
