"""How to compile: as little as possible, since a user waits for it."""

import logging
import math
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from threading import Lock, RLock

import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.link.c.basic import CLinker, OpWiseCLinker
from pytensor.link.jax.linker import JAXLinker
from pytensor.link.numba.linker import NumbaLinker
from pytensor.scalar.basic import Clip
from pytensor.scalar.math import Log1mexp, Softplus
from pytensor.tensor.elemwise import Elemwise
from threadpoolctl import threadpool_limits

from pymc_isomix.backend import upstream

logger = logging.getLogger(__name__)

AFTER_SPECIALISING = 48  # place among PyTensor's rewrites: none turns these back
LONGEST_REASON = 200  # characters: the reprs of Ops have thousands


@node_rewriter([Elemwise])
def numpy_functions(fgraph, node):
    """Write what NumPy has no function of, and Python would loop over, with those that it has."""
    scalar_op = node.op.scalar_op
    if not isinstance(scalar_op, Softplus | Log1mexp | Clip):
        return None
    x, *bounds = (value.astype(node.outputs[0].dtype) for value in node.inputs)
    if isinstance(scalar_op, Clip):
        least, most = bounds
        return [pt.switch(x < least, least, pt.switch(x > most, most, x))]
    if isinstance(scalar_op, Softplus):
        return [pt.maximum(x, 0) + pt.log1p(pt.exp(-pt.abs(x)))]
    return [pt.switch(x > math.log(0.5), pt.log(-pt.expm1(x)), pt.log1p(-pt.exp(x)))]


def _numpy_mode(optimizer, *excluded):
    mode = Mode(linker="py", optimizer=optimizer)
    mode = mode.excluding(
        upstream.RECOGNITION, *upstream.WRONG_WHEN_VECTORISED, *upstream.QUESTIONS, *excluded
    )
    return mode.register((dfs_rewriter(numpy_functions), AFTER_SPECIALISING))


# NumPy Op by Op compiles in milliseconds, with no C compiler and no numba. A recognised Op,
# log-sum-exp for example, would have the default linker compile what is inside it; a fused one
# would be a loop of Python's.
CHEAP = _numpy_mode("fast_compile")
# The same for what is called thousands of times
CHEAP_FAST = _numpy_mode("fast_run", upstream.FUSION)


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


compile_lock = RLock()


def one_at_a_time(function):
    """Have threads wait for each other: what PyTensor compiles holds arguments and results."""
    lock = Lock()

    @wraps(function)
    def call(*args, **kwargs):
        with lock:
            return function(*args, **kwargs)

    return call


@contextmanager
def compiling(**flags):
    """Build and compile graphs, in a ``with`` or as a decorator.

    One thread at a time, since PyTensor's configuration is that of the process, and with some flags
    of it changed.

    Parameters
    ----------
    **flags
        Of ``pytensor.config``. ``cxx=""`` is for what compiles cheaply: an Op with a graph inside,
        as PyMC's log-sum-exp is, would compile C all the same, for seconds.
    """
    with compile_lock:
        # where each node was made would take a quarter of the time
        flags = {"traceback__limit": 0, **flags}
        with pytensor.config.change_flags(**flags), warnings.catch_warnings():
            for message in upstream.NOT_FOR_USERS:
                warnings.filterwarnings("ignore", message=message)
            yield


class JAXCompilationError(RuntimeError):
    """JAX cannot compile a graph."""

    def __init__(self, error):
        reason = str(error).strip().partition("\n")[0]
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "..."
        super().__init__(f"JAX cannot compile this model ({type(error).__name__}: {reason}).")


def compile_in_background(work, meanwhile=None):
    """Return what work that needs no Python returns; do something else in the meantime.

    A first fit waits a tenth less for it, that of a spatial field a third.

    ``meanwhile`` is for what will be asked for later: what JAX cannot compile there, a
    JAXCompilationError, will fail again then, and so will an import.
    """
    if meanwhile is None:
        return work()
    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(work)
        try:
            meanwhile()
        except (JAXCompilationError, ImportError) as error:
            logger.debug(f"not done while XLA compiled: {error}")
        return result.result()


@contextmanager
def jax_failure(on_jax=True):
    """Turn what JAX, or PyTensor's translation to it, raises into a JAXCompilationError.

    Errors of other origin, our own faults above all, pass as they are.
    """
    try:
        yield
    except Exception as error:
        if on_jax and _comes_from_jax(error):
            raise JAXCompilationError(error) from error
        raise


def _comes_from_jax(error):
    if isinstance(error, NotImplementedError) or type(error).__module__.startswith("jax"):
        return True
    modules = {
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    }
    return any(name.startswith(("jax.", "jaxlib.", "pytensor.link.jax.")) for name in modules)


def prefers_jax(compile_kwargs):
    """Tell whether JAX is there, and neither the call nor PyTensor's configuration says otherwise.

    JAX compiles a model in seconds where PyTensor's default backend takes a minute, and its steps
    are faster.
    """
    chosen = "mode" in (compile_kwargs or {})
    configured = pytensor.config.mode != "Mode" or pytensor.config.linker != "auto"
    return not chosen and not configured and find_spec("jax") is not None


def is_jax(mode):
    """Tell whether a PyTensor mode, or its name, runs on JAX."""
    return isinstance(get_mode(mode).linker, JAXLinker)


def mode_for_xla(mode):
    """Return a JAX mode that leaves to XLA what PyTensor need not do."""
    return without_wrong_rewrites(mode).excluding(*upstream.NEEDLESS_ON_JAX)


def without_wrong_rewrites(mode):
    """Return a mode without the rewrites of PyTensor that fail where a model was vectorised."""
    return get_mode(mode).excluding(*upstream.WRONG_WHEN_VECTORISED)


def backend_name(mode):
    """Name the backend of a PyTensor mode, or its name: ``"jax"``, ``"numba"``, ``"cvm"``."""
    return type(get_mode(mode).linker).__name__.removesuffix("Linker").lower()


_blas_lock = Lock()
_blas_users: list[None] = []
_blas_limits: list[threadpool_limits] = []


@contextmanager
def one_blas_thread():
    """Run with one BLAS thread, in a ``with`` or as a decorator; there is more than one pool.

    NumPy's BLAS, SciPy's (JAX calls it for triangular solves) and XLA each have threads that spin
    on after a call and keep the others' waiting: a step takes up to four times as long. The limit
    is that of the process: the first to come sets it, the last to go takes it back.
    """
    with _blas_lock:
        if not _blas_users:
            _blas_limits.append(threadpool_limits(1, user_api="blas"))
        _blas_users.append(None)
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users.pop()
            if not _blas_users:
                _blas_limits.pop().restore_original_limits()
