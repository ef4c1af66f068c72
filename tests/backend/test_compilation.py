import gc

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.link.c.cmodule import GCC_compiler
from pytensor.tensor.elemwise import Elemwise

from pymc_isomix import IsoMix
from pymc_isomix.backend.compilation import (
    CHEAP,
    CHEAP_FAST,
    CompiledApart,
    compiles_slowly,
    compiling,
    keep_compiled,
)

CXX = pytensor.config.cxx  # conftest turns it off while tests run


def test_nested_calls_leave_the_compiler_as_it_was():
    @compiling(cxx="")
    def inner():
        return pytensor.config.cxx

    @compiling(cxx="")
    def outer():
        return inner()

    with pytensor.config.change_flags(cxx="g++"):
        assert outer() == ""
        assert pytensor.config.cxx == "g++"


@pytest.mark.skipif(not CXX, reason="no C compiler")
def test_no_c_is_compiled_for_the_start_or_for_draws(monkeypatch):
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 2.0, shape=2)
        pm.Potential("mixture", pt.logsumexp(theta))  # an Op with a graph inside

    def refuse(*args, **kwargs):
        raise AssertionError("C was compiled")

    monkeypatch.setattr(GCC_compiler, "compile_str", refuse)
    with pytensor.config.change_flags(cxx=CXX):
        approx = IsoMix(2, random_seed=1, model=model).approx
        assert approx.sample(10, random_seed=1).sample_stats["lp"].shape == (1, 10)
        assert approx.diagnostics(30, random_seed=1, n_probes=0)["n_draws"] == 30


@pytest.mark.parametrize(
    ("mode", "slowly"),
    [
        ("NUMBA", True),
        (Mode(linker="c|py"), True),
        (Mode(linker="c"), True),
        ("JAX", False),
        ("FAST_COMPILE", False),
        (CHEAP, False),
        (CHEAP_FAST, False),
    ],
)
def test_numba_and_c_take_time_for_each_op(mode, slowly):
    assert compiles_slowly(mode) is slowly


def test_a_graph_compiled_apart_is_one_op_with_the_same_values():
    x, y = pt.vector("x", shape=(3,)), pt.scalar("y")
    outputs = [(x * y).sum(), pt.exp(x)]
    apart = CompiledApart([x, y], outputs, "FAST_COMPILE")(x, y)
    evaluate = pytensor.function([x, y], [*apart, *outputs], mode="FAST_COMPILE")
    total, powers, expected_total, expected_powers = evaluate(np.arange(3.0), 2.0)
    assert total == expected_total == 6.0
    np.testing.assert_array_equal(powers, expected_powers)
    assert apart[1].type.shape == (3,)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_afterwards_as_before_even_after_a_failure(enabled):
    @compiling()
    def fail():
        assert not gc.isenabled()
        raise RuntimeError

    (gc.enable if enabled else gc.disable)()
    try:
        for _ in range(2):  # a decorated function may be called again
            with pytest.raises(RuntimeError):
                fail()
            assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.parametrize("function", [pt.softplus, pt.log1mexp])
@pytest.mark.parametrize("mode", [CHEAP, CHEAP_FAST])
def test_no_function_is_a_loop_of_python_s(function, mode):
    x = pt.vector("x")
    values = -np.geomspace(1e-300, 1e3, 50)
    if function is pt.softplus:
        values = np.concatenate([values, -values, [-np.inf, np.inf]])
    cheap = pytensor.function([x], function(x), mode=mode)
    ops = [node.op for node in cheap.maker.fgraph.toposort() if isinstance(node.op, Elemwise)]
    assert all(op.nfunc_spec is not None for op in ops)
    expected = pytensor.function([x], function(x), mode="FAST_COMPILE")
    np.testing.assert_allclose(cheap(values), expected(values), rtol=1e-13)


# The cache on disk of what XLA compiles


@pytest.fixture
def jax_settings():
    """JAX's settings of its compilation cache, put back afterwards."""
    jax = pytest.importorskip("jax")
    names = [
        "jax_enable_compilation_cache",
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_xla_compiles_is_kept_beside_what_pytensor_keeps(jax_settings):
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir.startswith(str(pytensor.config.compiledir))
    assert 0 < jax_settings.jax_compilation_cache_max_size < 2**34


def test_a_folder_of_the_user_s_is_left_alone(jax_settings, tmp_path):
    jax_settings.update("jax_compilation_cache_dir", str(tmp_path))
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir == str(tmp_path)


def test_the_cache_can_be_off(jax_settings):
    jax_settings.update("jax_enable_compilation_cache", False)
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir is None
