"""Checkpoints: finished restarts in a folder that identifies their fits."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import pytensor
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import graph_inputs, toposort

from pymc_isomix.results import files


class Checkpoints:
    """A folder of finished restarts, with one complete file per restart.

    Parameters
    ----------
    folder : str or Path
        Created if it does not exist.
    about : dict
        Everything that the fits depend on, as JSON. A folder that differs is refused. A seed of
        None takes the seed of the folder.

    Raises
    ------
    ValueError
        If the folder belongs to other fits.
    """

    def __init__(self, folder: Any, about: Any) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path_of(0)
        head = self.folder / "ensemble.json"
        if head.exists():
            there = json.loads(head.read_text(encoding="utf-8"))
            if about["random_seed"] is None:
                about = {**about, "random_seed": there["random_seed"]}
            about = json.loads(json.dumps(about))
            if differing := sorted(k for k in {*about, *there} if about.get(k) != there.get(k)):
                raise ValueError(
                    f"checkpoint {str(self.folder)!r} belongs to other fits, which differ in "
                    f"{', '.join(differing)}. Use another folder, or the same model, data and "
                    "arguments"
                )
        else:
            if about["random_seed"] is None:
                about = {**about, "random_seed": np.random.SeedSequence().entropy}
            temporary = head.with_suffix(".tmp")
            temporary.write_text(json.dumps(about), encoding="utf-8")
            os.replace(temporary, head)
        self.random_seed = about["random_seed"]

    def path_of(self, number: Any) -> Any:
        """Return the file of a restart; raise if files cannot be written."""
        return files.checked_path(self.folder / f"restart_{number:05d}.nc")

    def write(self, number: Any, saved: Any) -> None:
        """Store a finished restart."""
        files.write(self.path_of(number), saved)

    def read(self, n_restarts: Any) -> Any:
        """Read the finished restarts, {number: Saved}; damaged files are ignored."""
        found = {}
        for number in range(n_restarts):
            if self.path_of(number).exists():
                try:
                    found[number] = files.read(self.path_of(number))
                except ValueError:
                    continue
        return found


def digests(model: pm.Model) -> dict:
    """Digest a model: the graph of its log density, as PyTensor prints it, and its numbers."""
    log_density = model.logp()
    graph = pytensor.printing.debugprint(log_density, file="str", print_type=True)
    numbers = [
        v.data if isinstance(v, Constant) else v.get_value(borrow=True)
        for v in dict.fromkeys(_inputs([log_density]))
        if isinstance(v, Constant | SharedVariable)
    ]
    return {
        # without addresses in memory, which a user's Ops may print
        "model": digest(re.sub("0x[0-9a-f]+", "", str(graph))),
        "data": digest([n for n in numbers if isinstance(n, np.ndarray | np.generic)]),
    }


def _inputs(outputs):
    """Yield the inputs of a graph, and of the graphs inside its Ops."""
    yield from graph_inputs(outputs)
    for node in toposort(outputs):
        if isinstance(node.op, HasInnerGraph):
            yield from _inputs(node.op.inner_outputs)


def digest(value: Any) -> str:
    """Digest numbers: an array, a mapping, a sequence, or any object with a repr."""
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
