"""Digests of what fits depend on: a checkpoint of other fits has others."""

import hashlib
from collections.abc import Mapping

import numpy as np
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import toposort

from pymc_isomix.backend.disk import digest_of


def digests(model):
    """Digest a model: the graph of its log density, and its data.

    Returns
    -------
    dict of str
        ``model`` is empty where the graph has an Op of the user's own, whose code has no digest;
        ``data`` are all numbers in the graph, among them those of the priors.
    """
    log_density = model.logp()
    inputs = list(model.value_vars)
    of_graph, _ = digest_of(inputs, [log_density])
    numbers = []
    for variable in dict.fromkeys(v for node in toposort([log_density]) for v in node.inputs):
        if isinstance(variable, Constant):
            numbers.append(variable.data)
        elif isinstance(variable, SharedVariable):
            numbers.append(variable.get_value(borrow=True))
    return {
        "model": "" if of_graph is None else of_graph.hex(),
        "data": digest([n for n in numbers if isinstance(n, np.ndarray | np.generic)]),
    }


def digest(value):
    """Digest numbers: an array, a mapping or a sequence of them, or what has a repr of its own."""
    found = hashlib.sha256()

    def tell(part):
        if isinstance(part, Mapping):
            for name in sorted(part, key=str):
                found.update(f"{name}:".encode())
                tell(part[name])
        elif isinstance(part, list | tuple):
            found.update(f"{len(part)} of".encode())
            for one in part:
                tell(one)
        elif isinstance(part, str | None):
            found.update(repr(part).encode())
        else:
            array = np.asarray(part)
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(repr(part).encode() if array.dtype == object else array.tobytes())

    tell(value)
    return found.hexdigest()
