"""Graphs as compiled functions of JAX; the next process finds what XLA compiled in a folder."""

from pathlib import Path

import numpy as np
import pytensor
from pymc.pytensorf import compile
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import graph_inputs

from pymc_isomix.backend.compilation import compile_in_background, compiling
from pymc_isomix.backend.jax_ops import teach_jax
from pymc_isomix.backend.upstream import jax_function, xla_cache


def roots_of(inputs, outputs):
    """Return the inputs of a graph, then the shared variables that it depends on beside them."""
    found = [v for v in graph_inputs(outputs) if not isinstance(v, Constant)]
    return list(dict.fromkeys([*inputs, *found]))


@compiling(cxx="")
def rewritten_for_jax(roots, outputs, mode):
    """Return what PyTensor makes of a graph for JAX: a function of values of its roots."""
    stand_ins = [v.type() if isinstance(v, SharedVariable) else v for v in roots]
    outputs = graph_replace(outputs, dict(zip(roots, stand_ins, strict=True)), strict=False)
    options = {"random_seed": False, "mode": mode, "on_unused_input": "ignore"}
    return jax_function(compile(stand_ins, outputs, **options))


class AheadOfTime:
    """A function of JAX that is compiled when it is first called with arguments of some shapes.

    What XLA compiles is kept in a folder for the next process: it saves two to six of five to
    eleven seconds of computing before the first step (eight schools, a regression, a GP).

    Parameters
    ----------
    function : callable
        Of arrays.
    """

    def __init__(self, function):
        self.function = function
        self.by_shapes: dict = {}

    def __call__(self, *arguments, meanwhile=None):
        """Call it; where XLA has to compile it first, do something else ``meanwhile``."""
        import jax

        leaves, tree = jax.tree.flatten(arguments)
        shapes = tree, *((np.shape(leaf), leaf.dtype) for leaf in leaves)
        if shapes not in self.by_shapes:
            with xla_cache(folder()):
                lowered = jax.jit(self.function).lower(*arguments)
                self.by_shapes[shapes] = compile_in_background(lowered.compile, meanwhile)
        return self.by_shapes[shapes](*arguments)


def compile_for_jax(inputs, outputs, mode):
    """Compile a function of some inputs on JAX; see ``pm.compile``.

    Returns
    -------
    callable
        Of the inputs' values and, as ``value_of``, a function from a shared variable to the value
        that counts; its own when not given.
    """
    teach_jax()
    roots = roots_of(inputs, outputs)
    function = AheadOfTime(rewritten_for_jax(roots, outputs, mode))
    data = roots[len(inputs) :]

    def call(*values, value_of=_own_value):
        return function(*values, *map(value_of, data))

    return call


def _own_value(variable):
    return variable.container.storage[0]


def folder():
    """Return where JAX keeps what XLA compiled: beside what PyTensor keeps.

    Whoever can write there can have this process run code, as with PyTensor's own folder.
    """
    return Path(pytensor.config.compiledir) / "jax"
