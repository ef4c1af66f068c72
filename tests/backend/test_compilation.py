import threading
from threading import Barrier, get_ident

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.link.c.cmodule import GCC_compiler
from pytensor.scalar.basic import Cast
from pytensor.tensor.elemwise import Elemwise
from threadpoolctl import threadpool_info, threadpool_limits

from pymc_isomix import IsoMix, IsotropicMixture
from pymc_isomix.backend.compilation import (
    CHEAP,
    CHEAP_FAST,
    LONGEST_REASON,
    CompiledApart,
    JAXCompilationError,
    compile_in_background,
    compiles_slowly,
    compiling,
    jax_failure,
    mode_for_xla,
    one_blas_thread,
)
from pymc_isomix.model import batching

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
        approx = IsotropicMixture(n_components=2, random_seed=1, model=model)
        assert approx.sample(10, random_seed=1).sample_stats["lp"].shape == (1, 10)
        assert approx.diagnostics(30, random_seed=1, n_probes=0)["n_draws"] == 30


def test_no_c_is_compiled_for_what_is_constant_in_a_model(monkeypatch):
    """What a rewrite folds may have a graph inside, as a constant diagonal matrix has."""
    with pm.Model() as model:
        pm.Normal("theta")
    inference, compilers, rewrite = IsoMix(1, model=model), [], batching.upstream.rewrite_pregrad
    monkeypatch.setattr(
        batching.upstream,
        "rewrite_pregrad",
        lambda graph: compilers.append(pytensor.config.cxx) or rewrite(graph),
    )
    with pytensor.config.change_flags(cxx="g++"):
        inference.objective.updates()
        assert pytensor.config.cxx == "g++"
    assert compilers == [""]


def test_sums_and_products_are_left_to_xla():
    x = pt.vector("x", shape=(2,))
    graphs = [
        pytensor.function([x], x + 1.0 - x, mode=m).maker.fgraph
        for m in ("JAX", mode_for_xla("JAX"))
    ]
    n_subtracted = [len([n for n in g.apply_nodes if g.inputs[0] in n.inputs]) for g in graphs]
    assert n_subtracted[0] == 0 < n_subtracted[1]


def test_work_is_done_beside_other_work():
    threads, met = [], Barrier(2, timeout=60)

    def work():
        threads.append(get_ident())
        met.wait()
        return 3

    def meanwhile():
        threads.append(get_ident())
        met.wait()  # both are at work at once
        raise JAXCompilationError(ValueError("for later"))

    assert compile_in_background(work, meanwhile) == 3
    assert len(set(threads)) == 2
    assert get_ident() in threads
    assert compile_in_background(get_ident) == get_ident()


def test_faults_of_the_work_and_interrupts_pass():
    def fail():
        raise RuntimeError("XLA")

    def interrupt():
        raise KeyboardInterrupt

    def of_our_own():
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="XLA"):
        compile_in_background(fail, lambda: None)
    with pytest.raises(KeyboardInterrupt):
        compile_in_background(lambda: 1, interrupt)
    with pytest.raises(ZeroDivisionError):
        compile_in_background(lambda: 1, of_our_own)
    assert threading.active_count() == before


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


def clipped(x):
    return pt.clip(x, -1, 2) + pt.clip(x, 1.0, np.array([-1.0]))  # the lower bound counts first


@pytest.mark.parametrize("function", [pt.softplus, pt.log1mexp, clipped])
@pytest.mark.parametrize("mode", [CHEAP, CHEAP_FAST])
def test_no_function_is_a_loop_of_python_s(function, mode):
    x = pt.vector("x")
    values = -np.geomspace(1e-300, 1e3, 50)
    if function is not pt.log1mexp:
        values = np.concatenate([values, -values, [-np.inf, np.inf, np.nan]])
    cheap = pytensor.function([x], function(x), mode=mode)
    ops = [node.op for node in cheap.maker.fgraph.toposort() if isinstance(node.op, Elemwise)]
    assert all(op.nfunc_spec is not None or isinstance(op.scalar_op, Cast) for op in ops)
    expected = pytensor.function([x], function(x), mode="FAST_COMPILE")
    np.testing.assert_allclose(cheap(values), expected(values), rtol=1e-13)


def test_what_jax_raises_is_told_in_one_short_line():
    import jax

    def branch(x):
        return 1 if x > 0 else 2  # on a tracer

    with pytest.raises(JAXCompilationError) as caught, jax_failure():
        jax.jit(branch)(1.0)
    assert "JAX cannot compile this model (TracerBoolConversionError: " in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(JAXCompilationError) as caught, jax_failure():
        raise NotImplementedError("no Op of that kind" * 1000)
    assert len(str(caught.value)) < LONGEST_REASON + 100


def test_our_own_faults_are_not_called_jax_s():
    with pytest.raises(KeyError, match="ours"), jax_failure():
        raise KeyError("ours")
    with pytest.raises(NotImplementedError, match="numba's"), jax_failure(on_jax=False):
        raise NotImplementedError("numba's")


def test_the_last_to_go_takes_back_the_limit_of_blas_threads():
    def limits():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = limits()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert set(limits()) == {1}
        first.__exit__(None, None, None)
        assert set(limits()) == {1}
        second.__exit__(None, None, None)
        assert limits() == before
