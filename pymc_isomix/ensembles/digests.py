"""Digests of graphs: the same in another process, and of no other graph."""

import hashlib
from collections.abc import Mapping
from types import FunctionType

import numpy as np
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import toposort
from pytensor.scalar.basic import ScalarOp

PACKAGES = ("pymc", "pytensor", "numpy", "jax", "jaxlib", "pymc_isomix", "builtins")


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
        known = thing.__module__.partition(".")[0] in PACKAGES
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
