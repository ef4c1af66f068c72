"""A model at draws of the approximation: compiled once, evaluated in pieces."""

from functools import cached_property

import numpy as np
import pytensor.tensor as pt
from pymc.model.transform.basic import remove_minibatched_nodes
from pymc.pytensorf import compile
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type import TensorType

from pymc_isomix import batching, inferencedata
from pymc_isomix.compilation import CHEAP

LARGEST_ARRAY = 10_000_000  # elements that one Op may make: 80 MB


class CompiledModel:
    """What draws of an approximation need of a model; each part is compiled at its first use.

    Parameters
    ----------
    model : pymc.Model
    ordering : mapping of value variable name to (name, slice, shape, dtype)
        Place of each variable in a flat point.
    n_dim : int
        d.
    dtype : str
        Of points.
    backend : str
        For a model with a scan, whose loop would be slow in Python; the rest runs NumPy.
    """

    def __init__(self, model, ordering, n_dim, dtype, backend=""):
        self.model, self.ordering, self.n_dim, self.dtype = model, ordering, n_dim, dtype
        self.backend = backend

    @cached_property
    def constrained(self):
        """Function from unconstrained points (S, d) to {name: (S, ...)} in model space."""
        return inferencedata.compile_constrained(self.model, self.ordering, self.n_dim, self.dtype)

    @cached_property
    def subsamples(self):
        """Whether the log density is a random one, of a minibatch."""
        return _is_random(self.model)

    @cached_property
    def log_density(self):
        """Function from unconstrained points (S, d) to the model's log joint density (S,).

        Of all the data, where the model has minibatches.

        Raises
        ------
        ValueError
            At the first use, if the log density stays random without ``pm.Minibatch``.
        """
        model = remove_minibatched_nodes(self.model) if self.subsamples else self.model
        if self.subsamples and _is_random(model):
            raise ValueError(
                "the model's log density is random, and not through pm.Minibatch: its weights "
                "would mean nothing. Call this inside `with full_model:`, a model of the same "
                "variables with all the data"
            )
        points = pt.matrix("points", shape=(None, self.n_dim), dtype=self.dtype)
        expression = batching.batched_log_density_alone(model, self.ordering, points)
        return _in_pieces(compile([points], expression, mode=self._mode([expression])), expression)

    @cached_property
    def log_density_and_gradient(self):
        """Function from points (S, d) to the log density (S,) and its gradient (S, d)."""
        model = remove_minibatched_nodes(self.model) if self.subsamples else self.model
        points = pt.matrix("points", shape=(None, self.n_dim), dtype=self.dtype)
        both = batching.batched_log_density(model, self.ordering, points)
        return compile([points], both, mode=self._mode(both))

    def _mode(self, outputs):
        if not _has_scan(outputs):
            return CHEAP
        return self.backend.upper() if self.backend in ("jax", "numba") else None


def _has_scan(outputs):
    """Tell whether a scan, or a loop over points that wraps one, is in the graph."""
    ops = [getattr(v.owner.op, "core_op", v.owner.op) for v in ancestors(outputs) if v.owner]
    return any(isinstance(op, Scan) or hasattr(op, "fgraph") for op in ops)


def _is_random(model):
    return any(
        v.owner and isinstance(v.owner.op, RandomVariable) for v in ancestors([model.logp()])
    )


def _in_pieces(function, expression):
    """Evaluate so many points at a time that no array gets too large."""
    largest = max(
        (
            np.size(v.get_value(borrow=True) if isinstance(v, SharedVariable) else v.data)
            for v in ancestors([expression])
            if isinstance(v, SharedVariable | Constant) and isinstance(v.type, TensorType)
        ),
        default=1,
    )
    size = max(LARGEST_ARRAY // max(largest, 1), 1)

    def evaluate(points):
        starts = range(0, len(points), size)
        with np.errstate(all="ignore"):  # outside the support
            parts = [np.asarray(function(points[start : start + size])) for start in starts]
        return np.concatenate(parts)

    return evaluate
