"""Compilation: as little as possible, because users wait for it."""

import logging
import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from threading import Lock, RLock
from typing import Any

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
from pymc_isomix.backend.arrays import Values

logger = logging.getLogger(__name__)

AFTER_SPECIALISING = 48  # place among PyTensor's rewrites, after which none undoes ours
LONGEST_REASON = 200  # characters, because reprs of Ops have thousands


@node_rewriter([Elemwise])
def numpy_functions(fgraph: Any, node: Any) -> list[Values] | None:
    """Replace Ops that NumPy lacks, and that Python would loop over, by Ops that it has."""
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


# NumPy, Op by Op, compiles in milliseconds without C and numba. A recognised Op such as
# log-sum-exp would have its inner graph compiled by the default linker, and a fused Op
# would be a loop in Python.
CHEAP = _numpy_mode("fast_compile")
# the same for functions that are called thousands of times
CHEAP_FAST = _numpy_mode("fast_run", upstream.FUSION)


class CompiledApart(Op):
    """A graph that is compiled separately, as one Op of the graph around it.

    Parameters
    ----------
    inputs, outputs : lists of TensorVariable
        The graph, which depends only on the inputs and constants.
    mode : Mode or str
        As for ``pytensor.function``.
    """

    def __init__(self, inputs: list[Values], outputs: list[Values], mode: str) -> None:
        self.types = [variable.type for variable in outputs]
        self.function = pytensor.function(inputs, outputs, mode=mode, on_unused_input="ignore")
        self.function.trust_input = True

    def make_node(self, *inputs: Any) -> Any:
        """Apply to variables of the types of ``inputs``."""
        return Apply(self, list(inputs), [type() for type in self.types])

    def perform(self, node: Any, inputs: Sequence, output_storage: Any) -> None:
        """Call the compiled function."""
        for storage, value in zip(output_storage, self.function(*inputs), strict=True):
            storage[0] = value


def compiles_slowly(mode: Any) -> bool:
    """Tell whether a PyTensor mode, or its name, takes time per Op, as numba and C do."""
    linker = get_mode(mode).linker
    c_thunks = getattr(linker, "c_thunks", False)  # of linkers "vm" and "cvm"
    return c_thunks or isinstance(linker, NumbaLinker | CLinker | OpWiseCLinker)


compile_lock = RLock()


def one_at_a_time(function: Any) -> Callable:
    """Let one thread call a function at a time: it stores arguments and results."""
    lock = Lock()

    @wraps(function)
    def call(*args, **kwargs):
        with lock:
            return function(*args, **kwargs)

    return call


@contextmanager
def compiling(**flags: Any) -> Iterator[None]:
    """Build and compile graphs, in a ``with`` or as a decorator.

    Only one thread compiles at a time, because PyTensor's configuration is global.

    Parameters
    ----------
    **flags
        Flags of ``pytensor.config``. ``cxx=""`` prevents the C compilation of Ops with an inner
        graph, such as PyMC's log-sum-exp, which takes seconds.
    """
    with compile_lock:
        # recording where nodes are made would take a quarter of the time
        flags = {"traceback__limit": 0, **flags}
        with pytensor.config.change_flags(**flags), warnings.catch_warnings():
            for message in upstream.NOT_FOR_USERS:
                warnings.filterwarnings("ignore", message=message)
            yield


class JAXCompilationError(RuntimeError):
    """JAX cannot compile a graph."""

    def __init__(self, error: Any) -> None:
        reason = str(error).strip().partition("\n")[0]
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "..."
        super().__init__(f"JAX cannot compile this model ({type(error).__name__}: {reason}).")


def compile_in_background(work: Callable, meanwhile: Callable | None = None) -> Any:
    """Return the result of work that needs no Python, and run ``meanwhile`` in parallel.

    A first fit is a tenth faster, and a third for a spatial field.

    ``meanwhile`` prepares later work. If it fails with a JAXCompilationError or an ImportError, the
    later work will raise it again.
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
def jax_failure(on_jax: bool = True) -> Iterator[None]:
    """Turn errors of JAX, or of PyTensor's translation to it, into a JAXCompilationError.

    Other errors, above all our own, pass unchanged.
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


def prefers_jax(compile_kwargs: dict | None) -> bool:
    """Tell whether JAX is installed and neither the call nor PyTensor's configuration names a mode.

    JAX compiles a model in seconds instead of a minute, and its steps are faster.
    """
    chosen = "mode" in (compile_kwargs or {})
    configured = pytensor.config.mode != "Mode" or pytensor.config.linker != "auto"
    return not chosen and not configured and find_spec("jax") is not None


def is_jax(mode: Any) -> bool:
    """Tell whether a PyTensor mode, or its name, runs on JAX."""
    return isinstance(get_mode(mode).linker, JAXLinker)


def mode_for_xla(mode: Any) -> Any:
    """Return a JAX mode that skips the rewrites that XLA makes itself."""
    return without_wrong_rewrites(mode).excluding(*upstream.NEEDLESS_ON_JAX)


def without_wrong_rewrites(mode: Any) -> Any:
    """Return a mode without the PyTensor rewrites that fail for vectorised models."""
    return get_mode(mode).excluding(*upstream.WRONG_WHEN_VECTORISED)


def backend_name(mode: Any) -> str:
    """Name the backend of a PyTensor mode, or its name: ``"jax"``, ``"numba"``, ``"cvm"``."""
    return type(get_mode(mode).linker).__name__.removesuffix("Linker").lower()


_blas_lock = Lock()
_blas_users: list[None] = []
_blas_limits: list[threadpool_limits] = []


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run with one BLAS thread, in a ``with`` or as a decorator.

    NumPy's BLAS, SciPy's (which JAX calls for triangular solves) and XLA each have threads that
    spin after a call and keep the others waiting, which makes a step up to four times as slow. The
    limit applies to the process. The first user sets it, and the last one removes it.
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
