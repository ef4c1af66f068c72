"""What others do not promise: it is there, and their settings are as they were."""

import inspect

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.model.fgraph import fgraph_from_model, model_from_fgraph
from pymc.util import WithMemoization
from pymc.variational.inference import Inference
from pymc.variational.opvi import node_property
from pytensor.compile.mode import get_mode, optdb

from pymc_isomix.backend import jax_compilation, upstream

REWRITES = {
    *upstream.WRONG_WHEN_VECTORISED,
    *upstream.NEEDLESS_ON_JAX,
    *upstream.STABLE,
    upstream.RECOGNITION,
    upstream.FUSION,
}
SETTINGS = [
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
]


def names_of(database, seen):
    """Names and tags of a database of rewrites, and of those in it."""
    names = set()
    for name, members in database.__db__.items():
        names.add(name)
        for member in members:
            if hasattr(member, "__db__") and id(member) not in seen:
                seen.add(id(member))
                names |= names_of(member, seen)
    return names


def test_every_rewrite_that_is_named_exists():
    assert names_of(optdb, set()) >= REWRITES


def test_dims_are_where_they_are_looked_for():
    with pm.Model(coords={"group": [3, 4]}) as model:
        pm.Normal("x", dims="group")
    graph, _ = fgraph_from_model(model)
    other = graph.clone()
    upstream.copy_dims(graph, other)
    assert other._coords["group"] == (3, 4)
    assert set(other._dim_lengths) == {"group"}


def test_a_model_from_a_graph_may_share_data():
    with pm.Model() as model:
        data = pm.Data("data", [1.0, 2.0])
        pm.Normal("x", data, initval=np.ones(2))
    plain = upstream.without_initial_values(model)
    assert [*plain.rvs_to_initial_values.values()] == [None]
    assert model.rvs_to_initial_values[model["x"]] is not None
    other = model_from_fgraph(fgraph_from_model(plain)[0], mutate_fgraph=True)
    upstream.share_data(model, other)
    model.set_data("data", [3.0, 4.0])
    np.testing.assert_array_equal(other["data"].get_value(), [3.0, 4.0])


def test_expressions_are_built_anew_once_forgotten():
    class Node(WithMemoization):
        value = 1

        @node_property
        def doubled(self):
            return 2 * self.value

    node = Node()
    assert node.doubled == 2
    node.value = 2
    assert node.doubled == 2
    upstream.forget_expressions(node)
    assert node.doubled == 4


def test_the_frame_of_pm_fit_tells_its_arguments():
    found = []

    class Method(Inference):
        def __init__(self):
            pass

        def fit(self, *args, **kwargs):
            found.append(upstream.dropped_by_pm_fit(inspect.currentframe().f_back))

    with pm.Model():
        pm.Normal("x")
        pm.fit(method=Method(), random_seed=3)
    assert found[0]["random_seed"] == 3
    assert upstream.dropped_by_pm_fit(inspect.currentframe()) is None


class TestOnJAX:
    @pytest.fixture(autouse=True)
    def jax(self):
        return pytest.importorskip("jax")

    def test_a_compiled_function_has_its_parts(self):
        x, state = pt.vector("x", shape=(2,)), pytensor.shared(np.ones(2), shape=(2,))
        function = pytensor.function([x], x + 1, updates={state: 2 * state}, mode="JAX")
        total, doubled = upstream.jax_function(function)(np.zeros(2), np.ones(2))
        np.testing.assert_array_equal(total, [1.0, 1.0])
        np.testing.assert_array_equal(doubled, [2.0, 2.0])

    def test_the_generator_is_that_of_jax(self, jax):
        key, counts = jax.random.PRNGKey(3), jax.numpy.arange(4, dtype="uint32")
        assert upstream.threefry()(key, counts).shape == (4,)

    def test_jax_keeps_what_we_compile_and_nothing_else(self, jax, tmp_path, monkeypatch):
        """Its settings are as they were, and what the user compiles goes nowhere."""
        monkeypatch.setattr(jax_compilation, "folder", lambda: tmp_path / "jax")
        before = {name: getattr(jax.config, name) for name in SETTINGS}
        x = pt.vector("x", shape=(2,))
        jax_compilation.compile_for_jax([x], [pt.exp(3 * x) + pt.sin(x)], get_mode("JAX"))(
            np.ones(2)
        )
        assert {name: getattr(jax.config, name) for name in SETTINGS} == before
        ours = sorted((tmp_path / "jax").iterdir())
        assert ours
        jax.jit(lambda x: jax.numpy.exp(5 * x) - jax.numpy.cos(x))(np.ones(2))
        assert sorted((tmp_path / "jax").iterdir()) == ours

    def test_a_folder_of_the_user_s_is_left_alone(self, jax, tmp_path):
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        try:
            with upstream.xla_cache("elsewhere"):
                assert jax.config.jax_compilation_cache_dir == str(tmp_path)
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
