"""Graphs as compiled functions of JAX, with a cache of compiled XLA code for later processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytensor
from pymc.pytensorf import compile
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import graph_inputs

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import compile_in_background, compiling
from pymc_isomix.backend.jax_ops import teach_jax
from pymc_isomix.backend.upstream import jax_function, xla_cache


def roots_of(inputs: Any, outputs: list[Values]) -> list[Values]:
    """Return the inputs of a graph, and then its shared variables."""
    found = [v for v in graph_inputs(outputs) if not isinstance(v, Constant)]
    return list(dict.fromkeys([*inputs, *found]))


@compiling(cxx="")
def rewritten_for_jax(roots: list[Values], outputs: list[Values], mode: Any) -> Any:
    """Return PyTensor's JAX function of a graph, from the values of its roots."""
    stand_ins = [v.type() if isinstance(v, SharedVariable) else v for v in roots]
    outputs = graph_replace(outputs, dict(zip(roots, stand_ins, strict=True)), strict=False)
    options = {"random_seed": False, "mode": mode, "on_unused_input": "ignore"}
    return jax_function(compile(stand_ins, outputs, **options))


class AheadOfTime:
    """A JAX function that is compiled at its first call with arguments of some shapes.

    A folder keeps the compiled code for later processes, which saves two to six of five to eleven
    seconds of computing before the first step (eight schools, a regression, a GP).

    Parameters
    ----------
    function : callable
        Of arrays.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.by_shapes: dict = {}

    def __call__(self, *arguments: Any, meanwhile: Callable | None = None) -> tuple:
        """Call the function; if XLA has to compile it first, run ``meanwhile`` in parallel."""
        import jax

        leaves, tree = jax.tree.flatten(arguments)
        shapes = tree, *((np.shape(leaf), leaf.dtype) for leaf in leaves)
        if shapes not in self.by_shapes:
            with xla_cache(folder()):
                lowered = jax.jit(self.function).lower(*arguments)
                self.by_shapes[shapes] = compile_in_background(lowered.compile, meanwhile)
        return self.by_shapes[shapes](*arguments)


def compile_for_jax(inputs: list[Values], outputs: list[Values], mode: Any) -> Callable:
    """Compile a function of some inputs on JAX; see ``pm.compile``.

    Returns
    -------
    callable
        A function of the values of the inputs. ``value_of`` maps a shared variable to its value;
        the default is its own value.
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


def folder() -> Path:
    """Return the folder of compiled XLA code, next to PyTensor's.

    Anyone who can write there can make this process run code, as with PyTensor's own folder.
    """
    return Path(pytensor.config.compiledir) / "jax"
