"""A model at draws of the approximation: compiled once, evaluated in pieces."""

from functools import cached_property

import numpy as np
import pytensor.tensor as pt
from pymc.data import MinibatchOp
from pymc.model.transform.basic import remove_minibatched_nodes
from pymc.pytensorf import compile
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type import TensorType

from pymc_isomix.backend.compilation import CHEAP, without_c
from pymc_isomix.target import batching, traces

RANDOM = (RandomVariable, MinibatchOp)
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
        return traces.compile_constrained(self.model, self.ordering, self.n_dim, self.dtype)

    @cached_property
    def subsamples(self):
        """Whether the log density is a random one, of a minibatch."""
        return _contains(RANDOM, [self._own_log_density])

    @property
    def is_quick(self):
        """Whether the log density is neither random nor has a loop."""
        return not self.subsamples and not _contains(Scan, [self._own_log_density])

    @cached_property
    def log_density(self):
        """Function from unconstrained points (S, d) to the model's log joint density (S,).

        Of all the data, where the model has minibatches.

        Raises
        ------
        ValueError
            At the first use, if the log density stays random without ``pm.Minibatch``.
        """
        expression = self._full_log_density
        return _in_pieces(self._compile(expression), expression)

    @cached_property
    def log_density_and_gradient(self):
        """Function from points (S, d) to the log density (S,) and its gradient (S, d)."""
        point = self._points[0]
        return self._compile(self._full_log_density, pt.grad(self._full_log_density, point))

    @cached_property
    def _points(self):
        """One unconstrained point (d,), and many (S, d)."""
        point = pt.vector("point", shape=(self.n_dim,), dtype=self.dtype)
        return point, pt.matrix("points", shape=(None, self.n_dim), dtype=self.dtype)

    @cached_property
    def _own_log_density(self):
        return batching.flat_log_density(self.model, self.ordering, self._points[0])

    @cached_property
    def _full_log_density(self):
        if not self.subsamples:
            return self._own_log_density
        model = remove_minibatched_nodes(self.model)
        expression = batching.flat_log_density(model, self.ordering, self._points[0])
        if _contains(RANDOM, [expression]):
            raise ValueError(
                "the model's log density is random, and not through pm.Minibatch: its weights "
                "would mean nothing. Call this inside `with full_model:`, a model of the same "
                "variables with all the data"
            )
        return expression

    @without_c
    def _compile(self, *outputs):
        """Compile expressions of one point as a function of many; cheaply unless they loop."""
        mode = CHEAP
        if _contains(Scan, outputs):
            mode = self.backend.upper() if self.backend in ("jax", "numba") else None
        batched = batching.vectorise(list(outputs), *self._points)
        return compile([self._points[1]], batched if len(batched) > 1 else batched[0], mode=mode)


def _contains(kind, outputs):
    return any(v.owner and isinstance(v.owner.op, kind) for v in ancestors(outputs))


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
