"""A model at draws of the approximation: compiled once, evaluated in pieces."""

from functools import cached_property

import numpy as np
import pytensor.tensor as pt
from pymc.data import MinibatchOp
from pymc.model.fgraph import fgraph_from_model, model_from_fgraph
from pymc.pytensorf import compile
from pymc.variational.minibatch_rv import MinibatchRandomVariable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type_other import NoneConst

from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.target import batching, traces

RANDOM = (RandomVariable, MinibatchOp)
FEWEST_AT_ONCE = 150  # points: as a step has, so that memory is bounded by that of a step


class CompiledModel:
    """What draws of an approximation need of a model; each part is compiled at its first use.

    Parameters
    ----------
    space : FlatSpace
    dtype : str
        Of points.
    backend : str
        For a model with a scan, whose loop would be slow in Python; the rest runs NumPy.
    n_components : int
        K: no more points are evaluated at a time than a step has.
    """

    def __init__(self, space, dtype, backend="", n_components=1):
        self.space, self.dtype, self.backend = space, dtype, backend
        self.at_once = max(FEWEST_AT_ONCE, 3 * n_components)

    @property
    def model(self):
        """The model."""
        return self.space.model

    @cached_property
    def constrained(self):
        """Function from unconstrained points (S, d) to {name: (S, ...)} in model space."""
        return _in_pieces_by_name(
            traces.compile_constrained(self.space, self.dtype), self.at_once, self.dtype
        )

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
        return self._compile(self._full_log_density)

    @cached_property
    def log_density_and_gradient(self):
        """Function from points (S, d) to the log density (S,) and its gradient (S, d)."""
        point = self._points[0]
        return self._compile(self._full_log_density, pt.grad(self._full_log_density, point))

    @cached_property
    def _points(self):
        """One unconstrained point (d,), and many (S, d)."""
        point = pt.vector("point", shape=(self.space.n_dim,), dtype=self.dtype)
        return point, pt.matrix("points", shape=(None, self.space.n_dim), dtype=self.dtype)

    @cached_property
    def _own_log_density(self):
        return batching.flat_log_density(self.space, self._points[0])

    @cached_property
    def _full_log_density(self):
        if not self.subsamples:
            return self._own_log_density
        model = without_minibatches(self.model)
        expression = batching.flat_log_density(self.space.with_model(model), self._points[0])
        if _contains(RANDOM, [expression]):
            raise ValueError(
                "the model's log density is random, and not through pm.Minibatch: its weights "
                "would mean nothing. Call this inside `with full_model:`, a model of the same "
                "variables with all the data"
            )
        return expression

    @compiling(cxx="")
    def _compile(self, *outputs):
        """Compile expressions of one point as a function of many; cheaply unless they loop."""
        mode = CHEAP
        if _contains(Scan, outputs):
            mode = self.backend.upper() if self.backend in ("jax", "numba") else None
        batched = batching.vectorise(list(outputs), *self._points)
        function = compile(
            [self._points[1]], batched if len(batched) > 1 else batched[0], mode=mode
        )
        return _in_pieces(function, self.at_once, self.dtype)


def has_minibatches(model):
    """Whether a model's log density is of ``pm.Minibatch``, by a look at its graph alone."""
    return _contains(
        MinibatchOp, [*model.basic_RVs, *model.potentials, *model.rvs_to_values.values()]
    )


class Rescaled(MinibatchRandomVariable):
    """PyMC's, but one that can be cloned where ``total_size`` leaves a dimension out."""

    def make_node(self, rv, *total_size):  # noqa: D102
        return super().make_node(rv, *(None if NoneConst.equals(n) else n for n in total_size))


def without_minibatches(model):
    """Return a model of all the data: PyMC's ``remove_minibatched_nodes``, in any dimension."""
    graph, _ = fgraph_from_model(model)
    graph.replace_all(
        [
            (node.outputs[0], Rescaled()(*node.inputs))
            for node in graph.toposort()
            if isinstance(node.op, MinibatchRandomVariable)
        ]
    )
    full = {
        minibatch: data
        for node in graph.apply_nodes
        if isinstance(node.op, MinibatchOp)
        for data, minibatch in zip(node.inputs, node.outputs, strict=False)
    }
    outputs = clone_replace(graph.outputs, full, rebuild_strict=False)
    whole = FunctionGraph(outputs=outputs, clone=False)
    for name in ("_coords", "_dim_lengths"):
        setattr(whole, name, getattr(graph, name))
    return model_from_fgraph(whole, mutate_fgraph=True)


def _contains(kind, outputs):
    return any(v.owner and isinstance(v.owner.op, kind) for v in ancestors(outputs))


def _in_pieces_by_name(function, size, dtype):
    def evaluate(points):
        points = np.asarray(points, dtype=dtype)
        starts = range(0, max(len(points), 1), size)
        parts = [function(points[start : start + size]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return evaluate


def _in_pieces(function, size, dtype="float64"):
    """Evaluate so many points at a time, and no more; in float32 too, points may be float64."""

    def evaluate(points):
        points = np.asarray(points, dtype=dtype)
        with np.errstate(all="ignore"):  # outside the support
            starts = range(0, max(len(points), 1), size)
            parts = [function(points[start : start + size]) for start in starts]
        if isinstance(parts[0], list | tuple):
            return [np.concatenate(part) for part in zip(*parts, strict=True)]
        return np.concatenate(parts)

    return evaluate
