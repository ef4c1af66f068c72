"""What is kept on disk: read by who comes later, for the same graph alone, and never an error."""

import os
import subprocess
import sys

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from pymc_isomix import IsoMix
from pymc_isomix.backend import disk
from pymc_isomix.backend.disk import JAXFunction, Traced, digest_of, keep_compiled, on_disk

jax = pytest.importorskip("jax")


@pytest.fixture
def jax_settings():
    """JAX's settings of its compilation cache, put back afterwards."""
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


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Keep what is traced in an empty folder, and count what is rewritten."""
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    rewritten = []
    make = disk.compile
    monkeypatch.setattr(disk, "compile", lambda *a, **k: rewritten.append(1) or make(*a, **k))
    return tmp_path, rewritten


def test_what_xla_compiles_is_kept_beside_what_pytensor_keeps(jax_settings):
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir.startswith(str(pytensor.config.compiledir))
    assert 0 < jax_settings.jax_compilation_cache_max_size < 2**34


def test_a_folder_of_the_user_s_is_left_alone(jax_settings, tmp_path):
    jax_settings.update("jax_compilation_cache_dir", str(tmp_path))
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir == str(tmp_path)


def test_other_shapes_are_traced_too(empty):
    """What is rewritten while the first ones are traced is no part of that trace."""
    x = pt.matrix("x")
    double = on_disk([x], [x + np.arange(3.0)], get_mode("JAX"))
    for n in (1, 2):
        np.testing.assert_array_equal(double(np.ones((n, 3)))[0], np.ones((n, 3)) + np.arange(3.0))


def test_the_cache_can_be_off(jax_settings, empty):
    folder, _ = empty
    jax_settings.update("jax_enable_compilation_cache", False)
    keep_compiled()
    assert jax_settings.jax_compilation_cache_dir is None
    function, _ = doubled()
    assert function(np.ones(2))[0].tolist() == [2.0, 2.0]
    assert not list(folder.iterdir())


def doubled(factor=2.0, more=None):
    x, shared = pt.vector("x", shape=(2,)), pytensor.shared(np.zeros(2), shape=(2,))
    outputs = [factor * x + shared if more is None else more(x) + shared]
    return on_disk([x], outputs, get_mode("JAX")), shared


def test_who_comes_later_reads_what_is_there(empty):
    folder, rewritten = empty
    first, _ = doubled()
    assert first(np.ones(2))[0].tolist() == [2.0, 2.0]
    assert (len(rewritten), len(list(folder.iterdir()))) == (1, 1)
    later, shared = doubled()
    shared.set_value(np.ones(2))  # an input, not a constant
    assert later(np.ones(2))[0].tolist() == [3.0, 3.0]
    assert len(rewritten) == 1
    other, _ = doubled(3.0)
    assert other(np.ones(2))[0].tolist() == [3.0, 3.0]
    assert (len(rewritten), len(list(folder.iterdir()))) == (2, 2)


@pytest.mark.usefixtures("empty")
def test_something_else_is_done_only_while_xla_compiles():
    done = []
    for _ in range(2):
        x = pt.vector("x", shape=(2,))
        graph = JAXFunction([x], [2.0 * x], get_mode("JAX"))
        traced = Traced(graph, graph)
        for _ in range(2):
            [twice] = traced(np.ones(2), meanwhile=lambda: done.append("once"))
            assert twice.tolist() == [2.0, 2.0]
    assert done == ["once"]


@pytest.mark.usefixtures("empty")
def test_products_of_another_precision_are_another_function(empty):
    folder, _ = empty
    x = pt.matrix("x")
    for precision in ("highest", "float32"):
        with jax.default_matmul_precision(precision):
            on_disk([x], [x @ x], get_mode("JAX"))(np.eye(2))
    assert len(list(folder.iterdir())) == 2


def test_other_shapes_are_another_function():
    x, data = pt.vector("x", shape=(2,)), pytensor.shared(np.ones(3))
    function = on_disk([x], [x * data.sum()], get_mode("JAX"))
    assert function(np.ones(2))[0].tolist() == [3.0, 3.0]
    data.set_value(np.ones(5))
    assert function(np.ones(2))[0].tolist() == [5.0, 5.0]


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: b"", None])
def test_a_damaged_file_is_written_anew(empty, damage):
    folder, rewritten = empty
    doubled()[0](np.ones(2))
    [path] = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole) if damage else b"x" * len(whole))
    assert doubled()[0](np.ones(2))[0].tolist() == [2.0, 2.0]
    assert len(rewritten) == 2
    assert doubled()[0](np.ones(2))[0].tolist() == [2.0, 2.0]
    assert len(rewritten) == 2


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(disk, "folder", lambda: tmp_path / "file")
    assert doubled()[0](np.ones(2))[0].tolist() == [2.0, 2.0]


def test_a_fault_of_our_own_is_no_matter_of_the_disk(monkeypatch, empty):
    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(disk, "_write", fail)
    with pytest.raises(ZeroDivisionError):
        doubled()[0](np.ones(2))


@pytest.mark.usefixtures("empty")
def test_what_jax_cannot_export_is_compiled_all_the_same(monkeypatch, caplog):
    def refuse(*args):
        raise NotImplementedError("a callback")

    from jax import export

    monkeypatch.setattr(export, "export", refuse)
    with caplog.at_level("DEBUG", "pymc_isomix"):
        assert doubled()[0](np.ones(2))[0].tolist() == [2.0, 2.0]
    assert "not kept on disk: a callback" in caplog.text


def test_a_folder_may_be_one_to_read_only(monkeypatch, empty):
    _, rewritten = empty
    doubled()[0](np.ones(2))

    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(disk.os, "utime", refuse)
    monkeypatch.setattr(disk, "_write", refuse)
    assert doubled()[0](np.ones(2))[0].tolist() == [2.0, 2.0]
    assert len(rewritten) == 1


def test_those_not_used_for_longest_go(monkeypatch, empty):
    folder, _ = empty
    monkeypatch.setattr(disk, "MOST_FILES", 2)
    for name in "abc":
        disk._write(folder / name, b"content")
        assert disk._read(folder / name) == b"content"
    assert {path.name for path in folder.iterdir()} == {"b", "c"}


def test_a_digest_tells_graphs_apart():
    x, y = pt.vector("x"), pt.vector("y")

    def of(*outputs, inputs=(x, y)):
        return digest_of(list(inputs), list(outputs))[0]

    graphs = [
        of(x + y),
        of(x - y),
        of(x - y, inputs=(y, x)),
        of(x + y, x),
        of(x, x + y),
        of(x + x),
        of(x + 1),
        of(x + 2),
        of(x + np.ones(1)),
        of(x + np.zeros((1, 1))),
        of(x.sum()),
        of(x.sum(keepdims=True)),
        of(pt.vector(dtype="float32") + y),
        of(x + pytensor.shared(np.ones(1))),
        of(x + pytensor.shared(np.ones(1), shape=(1,))),
    ]
    assert len(set(graphs)) == len(graphs)
    assert of(x + y) == graphs[0]


class Own(pytensor.scalar.Exp):
    """An Op of a user's own, whose code may change."""


def test_what_is_of_unknown_code_is_traced_each_time():
    x = pt.vector("x", shape=(2,))
    op = pt.elemwise.Elemwise(Own(pytensor.scalar.upgrade_to_float, name="own"))
    wrapped = pytensor.wrap_jax(lambda value: 2 * value)
    for graph in (op(x), wrapped(x)):
        function = JAXFunction([x], [graph + pytensor.shared(1.0)], get_mode("JAX"))
        assert function.digest is None
        assert len(function.roots) == 2


def fit():
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, pm.HalfNormal("scale", 2.0), shape=3)
        data = pm.Data("data", np.array([3.0, 1.0, -1.0]))
        pm.Normal("y", theta, 1.0, observed=data)
    inference = IsoMix(3, n_samples=4, convergence=None, random_seed=1, model=model)
    return inference, inference.fit(60, backend="jax", progressbar=False)


def test_the_next_process_has_the_same_fit(empty):
    folder, rewritten = empty
    _, first = fit()
    elbo = first.diagnostics(100, n_probes=0, transitions=2)["elbo"].item()
    assert (len(rewritten), len(list(folder.iterdir()))) == (2, 2)  # the loop, the evaluation
    inference, again = fit()  # of another model object, as in another process
    assert again.diagnostics(100, n_probes=0, transitions=2)["elbo"].item() == elbo
    np.testing.assert_array_equal(again.hist, first.hist)
    assert len(rewritten) == 2
    inference.refine(10, progressbar=False)
    assert again.hist.shape == (70,)


OF_A_STEP = """
import pymc as pm
from pymc_isomix import IsoMix
from pymc_isomix.backend.disk import digest_of

with pm.Model():
    theta = pm.Normal("theta", 0.0, pm.HalfNormal("scale", 2.0), shape=3)
    pm.Normal("y", theta, 1.0, observed=[3.0, 1.0, -1.0])
    updates = IsoMix(3, random_seed=1).objective.updates()
print(digest_of(list(updates), [updates.loss, *updates.values()])[0].hex())
"""


@pytest.mark.slow
def test_another_process_has_the_same_digest():
    command = [sys.executable, "-c", OF_A_STEP]
    told = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
