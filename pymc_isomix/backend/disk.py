"""What JAX makes of graphs, kept on disk: a later process neither rewrites nor traces nor compiles.

Two things lie beside what PyTensor keeps: what XLA compiled, which is JAX's own cache, and what JAX
traced, under a digest of the graph that it came from.
"""

import hashlib
import logging
import os
import pickle
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import numpy as np
import pytensor
from pymc.pytensorf import compile
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import toposort
from pytensor.scalar.basic import ScalarOp

from pymc_isomix._version import __version__
from pymc_isomix.backend.compilation import beside, compiling
from pymc_isomix.backend.jax_ops import teach_jax
from pymc_isomix.backend.upstream import jax_function, quick_constants, without_gradient, xla_cache

logger = logging.getLogger(__name__)

MOST_FILES = 500  # of what JAX traced, a few hundred kB each
PACKAGES = ("pymc", "pytensor", "numpy", "jax", "jaxlib")
DIGEST_BYTES = 32


def digest_of(inputs, outputs):
    """Digest a graph: the same in another process, and of no other graph.

    Parameters
    ----------
    inputs : list of Variable
        What comes first among the roots.
    outputs : list of Variable

    Returns
    -------
    digest : bytes or None
        None where an Op is of code whose version is not known.
    roots : list of Variable
        The inputs, and whatever else is neither constant nor computed, in order of appearance.
    """
    digest, roots, unknown = hashlib.sha256(), list(inputs), []
    number = {variable: i for i, variable in enumerate(roots)}
    known: dict = {}  # Ops, by identity; they stay alive here

    def tell(*parts):
        for part in parts:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
            digest.update(b"\0")

    def content(thing):
        try:
            return _plain(thing)
        except TypeError as error:
            unknown.append(error)

    def place(variable):
        if variable not in number:
            if isinstance(variable, Constant):
                tell(str(variable.type), content(variable.data))
            else:
                roots.append(variable)
                tell("root", str(variable.type))
            number[variable] = len(number)
        return number[variable]

    tell([str(variable.type) for variable in roots])
    for node in toposort(outputs):
        if id(node.op) not in known:
            known[id(node.op)] = node.op, content(node.op)
        tell(known[id(node.op)][1], [place(variable) for variable in node.inputs])
        for output in node.outputs:
            tell(str(output.type))
            number[output] = len(number)
    tell([place(variable) for variable in outputs])
    if unknown:
        logger.debug(f"not kept on disk: {unknown[0]}")
    return (None if unknown else digest.digest()), roots


def _plain(thing):
    """Describe an Op, or a value, in what Python writes down in full.

    Of what PyTensor compares by its properties, by those: an Op's other attributes come and go.

    Raises
    ------
    TypeError
        If it is of code whose version is not known, a user's own, or holds what cannot be told.
    """
    if isinstance(thing, str | int | float | bool | np.generic | None):
        return type(thing).__name__, thing
    if isinstance(thing, type | FunctionType):
        known = thing.__module__.partition(".")[0] in (*PACKAGES, "pymc_isomix", "builtins")
        if known and "<" not in thing.__qualname__:
            return thing.__module__, thing.__qualname__
    elif isinstance(thing, np.ndarray) and thing.dtype != object:
        content = hashlib.sha256(np.ascontiguousarray(thing)).digest()
        return str(thing.dtype), thing.shape, content
    elif isinstance(thing, slice):
        return "slice", [_plain(one) for one in (thing.start, thing.stop, thing.step)]
    elif isinstance(thing, tuple | list):
        return type(thing).__name__, [_plain(one) for one in thing]
    elif isinstance(thing, Mapping):
        return "mapping", [_plain(pair) for pair in thing.items()]
    elif (names := getattr(thing, "__props__", None)) is not None:
        return _plain(type(thing)), [_plain(getattr(thing, name)) for name in names]
    elif isinstance(thing, ScalarOp):
        return _plain(type(thing)), _plain(thing.output_types_preference)
    raise TypeError(f"{thing!r} cannot be written down")


@cache
def _of_this_place():
    """Describe all but the graph that what is traced depends on."""
    import jax

    here = Path(__file__).parents[1]
    sources = [path.read_bytes() for path in sorted(here.rglob("*.py"))]
    versions = [version(name) for name in PACKAGES]
    return repr((__version__, versions, jax.default_backend())).encode() + b"".join(sources)


class JAXFunction:
    """A graph as a function of JAX, of values of its roots.

    Parameters
    ----------
    inputs, outputs : lists of Variable
    mode : Mode
        One that runs on JAX.

    Attributes
    ----------
    roots : list of Variable
        The inputs, then the shared variables that the graph depends on beside them.
    digest : bytes or None
        Of the graph.
    """

    def __init__(self, inputs, outputs, mode):
        self.inputs, self.outputs, self.mode = inputs, outputs, mode
        self.digest, self.roots = digest_of(inputs, outputs)

    @cached_property
    def rewritten(self):
        """What PyTensor makes of it; not to be asked for first while something is being traced."""
        stand_ins = [
            variable.type() if isinstance(variable, SharedVariable) else variable
            for variable in self.roots
        ]
        with compiling(cxx=""), quick_constants():
            outputs = graph_replace(
                self.outputs, dict(zip(self.roots, stand_ins, strict=True)), strict=False
            )
            options = {"random_seed": False, "mode": self.mode, "on_unused_input": "ignore"}
            return jax_function(compile(stand_ins, outputs, **options))

    def __call__(self, *values):  # noqa: D102
        return self.rewritten(*values)


class Traced:
    """A function of JAX that comes from the disk where a process before has left it.

    Parameters
    ----------
    function : callable
        Of arrays; called where it has to be traced.
    graph : JAXFunction, optional
        On which alone depends what it computes; without it nothing is kept.
    """

    def __init__(self, function, graph=None):
        self.function, self.graph = function, graph
        self.by_shapes: dict = {}

    def __call__(self, *arguments, meanwhile=None):
        """Call it; where XLA has to compile it first, do something else ``meanwhile``."""
        import jax

        leaves, tree = jax.tree.flatten(arguments)
        shapes = tree, *((np.shape(leaf), leaf.dtype) for leaf in leaves)
        if shapes not in self.by_shapes:
            with xla_cache(folder().with_name("jax")):
                self.by_shapes[shapes] = self._of(arguments, repr(shapes).encode(), meanwhile)
        return self.by_shapes[shapes](*arguments)

    def _of(self, arguments, shapes, meanwhile=None):
        import jax
        from jax import export

        plain, graph = jax.jit(self.function), self.graph
        if graph is None:
            return plain
        if graph.digest is None or not jax.config.jax_enable_compilation_cache:
            return graph.rewritten and plain
        of_jax = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
        settings = repr((pytensor.config.floatX, *of_jax)).encode()
        parts = (graph.digest, shapes, settings, _of_this_place())
        path = folder() / hashlib.sha256(b"\0".join(parts)).hexdigest()
        content = _read(path)
        if content is not None:
            meanwhile = None  # XLA has left it on the disk, too
        if content is None and graph.rewritten:
            plain.trace(*arguments)  # what fails here is a fault of the function, not of the disk
        try:
            if content is None:
                content = pickle.dumps(without_gradient(export.export(plain)(*arguments)))
                _write(path, content)
            # compiled here, since jit would compile again for what it returns
            lowered = jax.jit(pickle.loads(content).call).lower(*arguments)
            return beside(lowered.compile, meanwhile)
        except Exception as error:
            logger.debug(f"not kept on disk: {error}")
            return graph.rewritten and plain


def on_disk(inputs, outputs, mode):
    """Compile a function of some inputs on JAX, where it is not on the disk; see ``pm.compile``."""
    teach_jax()
    function = JAXFunction(inputs, outputs, mode)
    traced = Traced(function, function)
    data = [variable.container.storage for variable in function.roots[len(inputs) :]]
    return lambda *values: traced(*values, *(storage[0] for storage in data))


def folder():
    """Return where what was traced is kept."""
    return Path(pytensor.config.compiledir) / "isomix"


def _read(path):
    """Content of a file, None where there is none, or not as it was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    with suppress(OSError):  # a folder that may only be read
        os.utime(path)
    return content


def _write(path, content):
    """Write a file at once, whoever else does, and remove those not used for longest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(hashlib.sha256(content).digest() + content)
    os.replace(file.name, path)
    by_age = sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime)
    for old in by_age[:-MOST_FILES]:
        old.unlink(missing_ok=True)
