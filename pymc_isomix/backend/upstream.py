"""Parts of PyTensor, PyMC and JAX that their authors do not promise to keep.

Each has its reason, and what happens without it. ``tests/backend/test_upstream.py`` checks that
every name exists, and that JAX's and PyTensor's settings are put back.
"""

import warnings
from contextlib import contextmanager

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
    # Without them a model without minibatches cannot be built from one with them, nor told apart.
    # An option of PyMC's `remove_minibatched_nodes` for any dimension would replace them.
    "MinibatchOp",
    "MinibatchRandomVariable",
    # Without it an Op of any number of axes would be looped over, draw by draw.
    "_vectorize_node",
    # Without it the random generators of a step would not move on: it is what `pm.compile` calls.
    "collect_default_updates",
    # Without it, an Op with a gradient of its own hides its graph from rewrites and vectorising.
    "inline_ofg_node",
    # Without it a softmax, once it has been recognised, is compiled by itself.
    "inline_symbolic_for_fusion",
    # Without the first two, a check of a parameter that fails at one draw fails for all draws.
    "local_check_parameter_to_ninf_switch",
    "local_remove_check_parameter",
    # Without it a step on JAX has other random numbers than PyMC would give it.
    "reseed_rngs",
    # Without it the gradient of log(1 - sigmoid(x)) far out is 0/0.
    "rewrite_pregrad",
]

# Rewrites of PyTensor by name. A mode or a query ignores a name that it does not know.

# It takes lengths that are not known, as of what stands for missing data, to be different ones.
# A test of equal lengths in PyTensor's `local_merge_alloc` would remove it from here.
WRONG_WHEN_VECTORISED = ("local_merge_alloc",)
# It asks of each transposed matrix whether its graph makes it symmetric: a third of the time that
# rewriting takes, for a transposition that costs nothing.
SYMMETRY = "useless_symmetric_transpose"
# They ask of each operand of each product whether its graph makes it diagonal: half of the time
# that rewriting takes. The model's own graph has been through them.
QUESTIONS = ("dot_diag_to_elemwise", "selection_dot_to_indexing", SYMMETRY)
# They look at whole sums and products, as XLA does. Without all of canonicalising, steps of a
# spatial field take 6 % longer.
ALGEBRA = ("local_mul_canonizer", "local_add_canonizer", "local_greedy_distributor")
# XLA does these itself, or the model's graph has been through them. "specialize" stays: without it
# JAX does not know the lengths of what was vectorised.
NEEDLESS_ON_JAX = ("stabilize", "uncanonicalize", *QUESTIONS, *ALGEBRA)
# Recognised, a log-sum-exp is an Op with a graph inside, which the default linker compiles.
RECOGNITION = "symbolic_op_recognition"
# Fused, elementwise Ops are a loop of Python's where no compiler is used.
FUSION = "fusion"
# They keep a model's density finite as far out as PyMC's own functions are.
STABLE = ("ShapeOpt", "canonicalize", "stabilize")

# What PyTensor's JAX functions warn of: they copy random generators, sum in types that are cut to
# 32 bits, and check nothing.
NOT_FOR_USERS = ("The RandomType SharedVariables", "Explicitly requested dtype", "Skipping Assert")

LARGEST_CACHE = 2**30  # bytes, of what XLA compiled


def jax_function(function):
    """Return the function of JAX in one that PyTensor has compiled; steps are looped around it."""
    return function.vm.jit_fn


def jax_dispatch():
    """Return PyTensor's ``jax_funcify`` and ``jax_typify``, to which our Ops are registered."""
    from pytensor.link.jax.dispatch import jax_funcify, jax_typify

    return jax_funcify, jax_typify


def threefry():
    """Return JAX's generator; `jax.random` runs it twice for draws and the next key."""
    from jax.extend.random import threefry_2x32

    return threefry_2x32


def copy_dims(graph, other):
    """Give a graph of a model the dims of another; PyMC's clone of a graph leaves them out."""
    for name in ("_coords", "_dim_lengths"):
        setattr(other, name, getattr(graph, name))


def share_data(model, other):
    """Have a model that PyMC made of another's graph see the data of that one, not its copies.

    Without it ``pm.set_data`` would leave the data of a model without minibatches as they were.
    """
    for own, copies in (
        (model.named_vars, other.named_vars),
        (model.dim_lengths, other.dim_lengths),
    ):
        for name, variable in own.items():
            if isinstance(variable, SharedVariable):
                copies[name].container = variable.container


def without_initial_values(model):
    """Return the same model without initial values, which PyMC does not convert to a graph."""
    plain = object.__new__(type(model))
    plain.__dict__.update(
        model.__dict__, rvs_to_initial_values=dict.fromkeys(model.rvs_to_initial_values)
    )
    return plain


def dropped_by_pm_fit(caller):
    """Arguments of ``pm.fit`` by name, where it is the frame ``caller``; None where it is not.

    Nothing else tells what it was given: it drops some of them where the method is an instance. An
    error of PyMC's own would replace it.
    """
    return caller.f_locals if caller.f_code is pm.fit.__code__ else None


@contextmanager
def xla_cache(folder):
    """Have JAX read what XLA compiled before from a folder, and keep it there, in a ``with``.

    JAX has one such folder in a process. Its settings are put back afterwards. Nothing is changed
    where the user has a folder for it, or has switched JAX's compilation cache off
    (``JAX_ENABLE_COMPILATION_CACHE=false``). It is bounded, and locked while it is written.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        yield
        return
    ours = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": LARGEST_CACHE,
        # small functions too: there are dozens, of a tenth of a second each
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,  # JAX sets this one as it begins
    }
    before = {name: getattr(jax.config, name) for name in ours}
    for name, value in ours.items():
        jax.config.update(name, value)
    try:
        with warnings.catch_warnings():
            # a folder that cannot be read or written is as none
            warnings.filterwarnings("ignore", message="Error (read|writ)ing persistent compilation")
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()  # it would go on in that folder
