"""Functions of JAX: of all shapes, and found again by the next process."""

import logging

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from pymc_isomix import IsoMix
from pymc_isomix.backend import jax_compilation
from pymc_isomix.backend.jax_compilation import AheadOfTime, compile_for_jax

jax = pytest.importorskip("jax")


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Keep what XLA compiles in an empty folder."""
    monkeypatch.setattr(jax_compilation, "folder", lambda: tmp_path)
    return tmp_path


def kept(folder):
    """Names of what is kept, without the times at which it was used."""
    return {path.name for path in folder.iterdir() if not path.name.endswith("-atime")}


def test_other_shapes_are_compiled_too():
    x = pt.matrix("x")
    add = compile_for_jax([x], [x + np.arange(3.0)], get_mode("JAX"))
    for n in (1, 2):
        np.testing.assert_array_equal(add(np.ones((n, 3)))[0], np.ones((n, 3)) + np.arange(3.0))


def test_shared_variables_have_the_values_and_shapes_of_the_moment():
    x, data = pt.vector("x", shape=(2,)), pytensor.shared(np.ones(3))
    function = compile_for_jax([x], [x * data.sum()], get_mode("JAX"))
    assert function(np.ones(2))[0].tolist() == [3.0, 3.0]
    data.set_value(np.ones(5))
    assert function(np.ones(2))[0].tolist() == [5.0, 5.0]


def test_an_input_that_nothing_depends_on_is_taken():
    x, y = pt.vector("x", shape=(2,)), pt.vector("y", shape=(2,))
    assert compile_for_jax([x, y], [2 * y], get_mode("JAX"))(np.zeros(2), np.ones(2))[0][0] == 2


def test_who_comes_later_finds_what_xla_compiled(empty, caplog):
    x = pt.vector("x", shape=(2,))
    for n_found in (0, 1):
        with caplog.at_level(logging.DEBUG, "jax._src.compiler"):
            caplog.clear()
            assert compile_for_jax([x], [pt.exp(x)], get_mode("JAX"))(np.zeros(2))[0][0] == 1
        hits = [r for r in caplog.records if "Persistent compilation cache hit" in r.message]
        assert len(hits) == n_found
    before = kept(empty)
    compile_for_jax([x], [pt.sin(x)], get_mode("JAX"))(np.zeros(2))
    assert kept(empty) > before


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(jax_compilation, "folder", lambda: tmp_path / "file")
    x = pt.vector("x", shape=(2,))
    assert compile_for_jax([x], [2 * x], get_mode("JAX"))(np.ones(2))[0].tolist() == [2.0, 2.0]


def test_the_cache_can_be_off(empty):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        x = pt.vector("x", shape=(2,))
        assert compile_for_jax([x], [2 * x], get_mode("JAX"))(np.ones(2))[0].tolist() == [2, 2]
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not list(empty.iterdir())


def test_something_else_is_done_only_while_xla_compiles():
    done, double = [], AheadOfTime(lambda x: 2 * x)
    for _ in range(2):
        assert double(np.ones(2), meanwhile=lambda: done.append("once")).tolist() == [2.0, 2.0]
    assert done == ["once"]


def fit():
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, pm.HalfNormal("scale", 2.0), shape=3)
        data = pm.Data("data", np.array([3.0, 1.0, -1.0]))
        pm.Normal("y", theta, 1.0, observed=data)
    inference = IsoMix(3, n_samples=4, convergence=None, random_seed=1, model=model)
    return inference, inference.fit(60, backend="jax", progressbar=False)


def test_the_next_process_has_the_same_fit(empty):
    _, first = fit()
    elbo = first.diagnostics(100, n_probes=0, transitions=2)["elbo"].item()
    before = kept(empty)
    inference, again = fit()  # of another model object, as in another process
    assert again.diagnostics(100, n_probes=0, transitions=2)["elbo"].item() == elbo
    np.testing.assert_array_equal(again.hist, first.hist)
    assert kept(empty) == before
    inference.refine(10, progressbar=False)
    assert again.hist.shape == (70,)
