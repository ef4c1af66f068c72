"""Private parts of PyTensor, PyMC and JAX.

Each comes with the reason for its use. ``tests/backend/test_upstream.py`` checks that every name
exists, and that settings of JAX and PyTensor are restored.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymc as pm
from pymc.data import MinibatchOp
from pymc.logprob.utils import (
    local_check_parameter_to_ninf_switch,
    local_remove_check_parameter,
)
from pymc.pytensorf import collect_default_updates, reseed_rngs, rewrite_pregrad
from pymc.variational.minibatch_rv import MinibatchRandomVariable
from pytensor.compile import SharedVariable
from pytensor.compile.rewriting import inline_ofg_node
from pytensor.graph.replace import _vectorize_node
from pytensor.tensor.rewriting.ofg import inline_symbolic_for_fusion

__all__ = [
    # Without them, a model with minibatches cannot be recognised or turned into one without.
    # An option of PyMC's `remove_minibatched_nodes` for any dimension would replace them.
    "MinibatchOp",
    "MinibatchRandomVariable",
    # Without it, an Op of any number of axes would be looped over draw by draw.
    "_vectorize_node",
    # Without it, the random generators of a step would not advance; `pm.compile` calls it.
    "collect_default_updates",
    # Without it, an Op with its own gradient hides its graph from rewrites and vectorising.
    "inline_ofg_node",
    # Without it, a recognised softmax is compiled separately.
    "inline_symbolic_for_fusion",
    # Without the first two, a check of a parameter that fails at one draw fails for all draws.
    "local_check_parameter_to_ninf_switch",
    "local_remove_check_parameter",
    # Without it, a step on JAX has other random numbers than PyMC's.
    "reseed_rngs",
    # Without it, the gradient of log(1 - sigmoid(x)) far out is 0/0.
    "rewrite_pregrad",
]

# PyTensor's rewrites by name. A mode or a query ignores unknown names.

# It assumes that unknown lengths, for example of missing data, differ.
# A test for equal lengths in PyTensor's `local_merge_alloc` would make this entry unnecessary.
WRONG_WHEN_VECTORISED = ("local_merge_alloc",)
# It checks whether each transposed matrix is symmetric, which is a third of the time of
# rewriting, and a transposition costs nothing.
SYMMETRY = "useless_symmetric_transpose"
# They check whether each operand of each product is diagonal, which is half of the time
# of rewriting. The model's own graph has been through them.
QUESTIONS = ("dot_diag_to_elemwise", "selection_dot_to_indexing", SYMMETRY)
# They look at whole sums and products, as XLA does. Without any canonicalising, steps of a
# spatial field take 6 % longer.
ALGEBRA = ("local_mul_canonizer", "local_add_canonizer", "local_greedy_distributor")
# XLA does these itself, or the model's graph has been through them. "specialize" stays: without it
# JAX does not know the lengths of vectorised values.
NEEDLESS_ON_JAX = ("stabilize", "uncanonicalize", *QUESTIONS, *ALGEBRA)
# A recognised log-sum-exp is an Op with an inner graph, which the default linker compiles.
RECOGNITION = "symbolic_op_recognition"
# Fused elementwise Ops are Python loops without a compiler.
FUSION = "fusion"
# They keep a model's density finite as far out as PyMC's own functions.
STABLE = ("ShapeOpt", "canonicalize", "stabilize")

# Warnings of PyTensor's JAX functions: they copy random generators, sum in types that are cut to
# 32 bits, and check nothing.
NOT_FOR_USERS = ("The RandomType SharedVariables", "Explicitly requested dtype", "Skipping Assert")

LARGEST_CACHE = 2**30  # bytes of compiled XLA code


def jax_function(function: Any) -> Any:
    """Return the JAX function inside one that PyTensor has compiled, for loops over steps."""
    return function.vm.jit_fn


def jax_dispatch() -> tuple[Any, Any]:
    """Return PyTensor's ``jax_funcify`` and ``jax_typify``, where our Ops register."""
    from pytensor.link.jax.dispatch import jax_funcify, jax_typify

    return jax_funcify, jax_typify


def threefry() -> Any:
    """Return JAX's generator; `jax.random` would run it twice for draws and the next key."""
    from jax.extend.random import threefry_2x32

    return threefry_2x32


def copy_dims(graph: Any, other: Any) -> None:
    """Copy the dims from one graph of a model to another, because PyMC's clone leaves them out."""
    for name in ("_coords", "_dim_lengths"):
        setattr(other, name, getattr(graph, name))


def share_data(model: pm.Model, other: pm.Model) -> None:
    """Make a model that PyMC built from another's graph share its data.

    Without it ``pm.set_data`` would leave the data of a model without minibatches as they were.
    """
    for own, copies in (
        (model.named_vars, other.named_vars),
        (model.dim_lengths, other.dim_lengths),
    ):
        for name, variable in own.items():
            if isinstance(variable, SharedVariable):
                copies[name].container = variable.container


def without_initial_values(model: pm.Model) -> pm.Model:
    """Return the model without initial values, which PyMC does not convert to a graph."""
    plain = object.__new__(type(model))
    plain.__dict__.update(
        model.__dict__, rvs_to_initial_values=dict.fromkeys(model.rvs_to_initial_values)
    )
    return plain


def forget_expressions(node: Any) -> None:
    """Make an approximation or a group of PyMC build its symbolic properties anew.

    PyMC caches them for good, because its approximations never change their form.
    """
    node.__dict__.pop("_cache", None)


def dropped_by_pm_fit(caller: Any) -> dict | None:
    """Arguments of ``pm.fit`` by name if it is the frame ``caller``, else None.

    ``pm.fit`` drops some of its arguments if the method is an instance. An error in PyMC would make
    this unnecessary.
    """
    return caller.f_locals if caller.f_code is pm.fit.__code__ else None


@contextmanager
def xla_cache(folder: Any) -> Iterator[None]:
    """Make JAX cache compiled XLA code in a folder, within a ``with`` block.

    JAX has one such folder per process. Its settings are restored afterwards. Nothing changes if
    the user has set a folder or switched JAX's compilation cache off
    (``JAX_ENABLE_COMPILATION_CACHE=false``). The folder is bounded in size, and locked while it is
    written.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        yield
        return
    ours = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": LARGEST_CACHE,
        # small functions, too: dozens take a tenth of a second each
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,  # JAX sets this one when it starts
    }
    before = {name: getattr(jax.config, name) for name in ours}
    for name, value in ours.items():
        jax.config.update(name, value)
    try:
        with warnings.catch_warnings():
            # an unusable folder counts as none
            warnings.filterwarnings("ignore", message="Error (read|writ)ing persistent compilation")
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()  # otherwise JAX would continue with that folder
