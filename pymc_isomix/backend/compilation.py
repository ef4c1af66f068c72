"""How to compile: as little as possible, since a user waits for it."""

import gc
from contextlib import contextmanager
from functools import wraps

import pytensor
from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.c.basic import CLinker, OpWiseCLinker
from pytensor.link.numba.linker import NumbaLinker

# NumPy Op by Op compiles in milliseconds, with no C compiler and no numba. A recognised Op,
# log-sum-exp for example, would have the default linker compile what is inside it; a fused one
# would be a loop of Python's.
CHEAP = Mode(linker="py", optimizer="fast_compile").excluding("symbolic_op_recognition")
# The same for what is called thousands of times
CHEAP_FAST = Mode(linker="py", optimizer="fast_run").excluding("symbolic_op_recognition", "fusion")


class CompiledApart(Op):
    """A graph compiled by itself, with a mode of its own, as one Op of the graph around it.

    Parameters
    ----------
    inputs, outputs : lists of TensorVariable
        The graph; all that it depends on is among the inputs, or constant.
    mode : Mode or str
        As for ``pytensor.function``.
    """

    def __init__(self, inputs, outputs, mode):
        self.types = [variable.type for variable in outputs]
        self.function = pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore")
        self.function.trust_input = True

    def make_node(self, *inputs):
        """Apply to variables of the types of ``inputs``."""
        return Apply(self, list(inputs), [type() for type in self.types])

    def perform(self, node, inputs, output_storage):
        """Call the compiled function."""
        for storage, value in zip(output_storage, self.function(*inputs), strict=True):
            storage[0] = value


def compiles_slowly(mode):
    """Tell whether a PyTensor mode, or its name, takes time for each Op: numba and C do."""
    linker = get_mode(mode).linker
    c_thunks = getattr(linker, "c_thunks", False)  # of the linkers "vm" and "cvm"
    return c_thunks or isinstance(linker, NumbaLinker | CLinker | OpWiseCLinker)


@contextmanager
def without_garbage_collection():
    """Leave cycles of references for later, in a ``with`` or as a decorator.

    A graph is many small objects, and Python looks through them again and again while more are
    made: a tenth of the time that it takes to compile one.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def without_c(function):
    """Decorate what compiles cheaply: an Op with a graph inside would compile C all the same.

    PyMC writes log-sum-exp as such an Op; its C takes seconds.
    """

    @wraps(function)
    def wrapped(*args, **kwargs):
        with pytensor.config.change_flags(cxx=""):  # a context of its own: they may be nested
            return function(*args, **kwargs)

    return wrapped
