"""A model at draws of the approximation, compiled once and evaluated in chunks."""

from collections.abc import Callable
from copy import copy
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.model.fgraph import fgraph_from_model, model_from_fgraph
from pymc.pytensorf import compile
from pytensor.compile import SharedVariable
from pytensor.compile.builders import SymbolicOp
from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.type import TensorType
from pytensor.tensor.type_other import NoneConst

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import (
    CHEAP,
    compiling,
    mode_for_xla,
    one_at_a_time,
    without_wrong_rewrites,
)
from pymc_isomix.backend.jax_compilation import compile_for_jax
from pymc_isomix.backend.upstream import (
    MinibatchOp,
    MinibatchRandomVariable,
    copy_dims,
    share_data,
    without_initial_values,
)
from pymc_isomix.model import batching, traces, vectorising
from pymc_isomix.model.fitted_data import same, shared_variables
from pymc_isomix.model.model_cache import cached, graph_key
from pymc_isomix.model.space import FlatSpace

RANDOM = (RandomVariable, MinibatchOp)
AT_ONCE, AT_ONCE_ON_JAX = 150, 50  # points; on JAX chunks are padded, and often there are few draws


class CompiledModel:
    """Functions of a model at draws, each compiled at its first use.

    Points are coordinates y (S, d); without sites they are unconstrained points z. Weights,
    transitions and ascents share one compiled function of log density, gradient and z.

    Parameters
    ----------
    space : FlatSpace
    dtype : str
        Of points.
    backend : str
        Backend of the fit. JAX evaluates the model in chunks of one size. Otherwise NumPy evaluates
        it Op by Op, unless it has loops that are slow in Python.
    coordinates : Coordinates, optional
        Coordinates of the points; unconstrained space when not given.
    """

    def __init__(
        self, space: FlatSpace, dtype: str, backend: str = "", coordinates: Any = None
    ) -> None:
        self.space, self.dtype, self.backend = space, dtype, backend
        self.coordinates = coordinates
        self.at_once = AT_ONCE_ON_JAX if self.is_on_jax else AT_ONCE

    def at(self, coordinates: Any) -> "CompiledModel":
        """Return a copy with other parameters of the coordinates and the same functions."""
        other = copy(self)
        other.coordinates = coordinates
        return other

    def prepare(self) -> Callable:
        """Compile the evaluation, so that copies by :meth:`at` share it."""
        return self._function

    @property
    def model(self) -> pm.Model:
        """The model."""
        return self.space.model

    @cached_property
    def constrained(self) -> Callable:
        """Function from unconstrained points z (S, d) to {name: (S, ...)} in model space."""
        key = "constrained", self.dtype, graph_key(self.space)
        function = cached(
            self.model, key, lambda: traces.compile_constrained(self.space, self.dtype)
        )
        return _in_chunks_by_name(function, self.at_once, self.dtype)

    def to_unconstrained(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points y (S, d) to z (S, d) and log |dz/dy| (S,)."""
        if not self.coordinates:
            return points, np.zeros(len(points), points.dtype)
        if (
            self.is_on_jax and self.is_quick
        ):  # already compiled; NumPy would take matrices one by one
            return self._evaluate(points, 4)[2:]
        return self.coordinates.to_unconstrained(points)

    def from_unconstrained(self, points: np.ndarray) -> np.ndarray:
        """Map unconstrained points z (S, d) to y (S, d)."""
        if not self.coordinates:
            return points
        return self.coordinates.from_unconstrained(points)[0]

    def shares(self, mixture: Any) -> np.ndarray:
        """Mean share of each pseudo-observation over draws of a mixture, (P,)."""
        points, _ = mixture.draw(AT_ONCE, np.random.default_rng(0))
        return self.coordinates.shares(points)

    @cached_property
    def subsamples(self) -> bool:
        """Whether the log density is that of a minibatch."""
        return self._has(RANDOM)

    @property
    def is_quick(self) -> bool:
        """Whether the log density is neither random nor has a loop."""
        return not self.subsamples and not self._has(Scan)

    def _has(self, kind):
        return cached(
            self.model,
            ("has", kind, graph_key(self.space)),
            lambda: _contains(kind, [self._target(self.space).log_density]),
        )

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate the model at points y (S, d).

        Returns
        -------
        log_density : (S,) array
            As a density of y; of all data if the model has minibatches.
        gradient : (S, d) array
            In y.
        unconstrained : (S, d) array
            z.
        log_determinant : (S,) array
            log |dz/dy|.

        Raises
        ------
        ValueError
            If the log density is random without ``pm.Minibatch``, too.
        """
        log_density, gradient, *mapped = self._evaluate(points, 4)
        return log_density, gradient, *(mapped or (points, np.zeros(len(points), points.dtype)))

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log joint density (S,) at points (S, d); see :meth:`evaluate`."""
        return self._evaluate(points, 2)[0]

    def log_density_and_gradient(self, points: np.ndarray) -> list[np.ndarray]:
        """Log density (S,) at points (S, d), and its gradient (S, d); see :meth:`evaluate`."""
        return self._evaluate(points, 2)[:2]

    def evaluate_to_learn(
        self, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None]:
        """Log density (S,), gradient (S, d), and a list of what the sites learn from, (S, ...).

        The list is that of the map's "given", or None without sites.
        """
        log_density, gradient, *more = self._evaluate(points)
        return log_density, gradient, more[2:] if self._map else None

    def symbolic_log_density(self, point: Values) -> Values:
        """Build the log density of all data at one point (d,), a scalar expression."""
        target = self._full
        constants = {n: pt.constant(value) for n, value in self._parameters.items()}
        replacements = {target.parameters[n]: constants[n] for n in target.parameters}
        # with Ops that any sampler knows
        [log_density] = batching.inline_own_gradients([target.log_density])
        data = {
            variable: pt.constant(np.array(self.space.value_of(variable)), dtype=variable.dtype)
            for variable in shared_variables([log_density])
            if not same(self.space.value_of(variable), variable.get_value(borrow=True))
        }
        replacements |= data
        if not self._is_bent:
            return graph_replace(log_density, {target.point: point, **replacements}, strict=False)
        bent, log_slope, _ = self.coordinates.map.bend(point, constants)
        replacements[target.point] = bent
        return graph_replace(log_density, replacements, strict=False) + log_slope.sum()

    def _target(self, space):
        return batching.target_at_point(space, self.dtype, self._map)

    @property
    def _is_bent(self):
        return bool(self.coordinates) and self.coordinates.map.is_bent

    @property
    def _map(self):
        """The map of the sites alone; shear and shape need no compilation."""
        return self.coordinates.map.straight if self.coordinates else None

    @property
    def _parameters(self):
        return self.coordinates.parameters if self.coordinates else {}

    @cached_property
    def _full(self):
        """The log density of all data, at one point."""
        if not self.subsamples:
            return self._target(self.space)
        target = self._target(self.space.with_model(without_minibatches(self.model)))
        if _contains(RANDOM, [target.log_density]):
            raise ValueError(
                "the log density of the model is random, and not only through pm.Minibatch: "
                "weights and transitions would mean nothing. Call this inside "
                "`with full_model:`, a model of the same variables with all the data"
            )
        return target

    @property
    def is_on_jax(self) -> bool:
        """Whether the model is evaluated on JAX."""
        return self.backend == "jax" and find_spec("jax") is not None

    @cached_property
    def _function(self):
        map_key = self._map.key if self._map else None
        key = "evaluate", self.backend, self.dtype, self.at_once, map_key, graph_key(self.space)
        return cached(self.model, key, self._compile)

    def _evaluate(self, points, most=None):
        """Evaluate (log density, gradient), and (z, log |dz/dy|, given values) if y is not z.

        At most so many of them: given values of all draws may be large.
        """
        names = self._map.parameter_shapes if self._map else ()
        parameters = [np.asarray(self._parameters[name], self.dtype) for name in names]

        def at(chunk):
            return self._function(chunk, *parameters, value_of=self.space.value_of)[:most]

        evaluate = _in_chunks(at, self.at_once, self.dtype, padded=self.is_on_jax)
        if not self._is_bent:
            return evaluate(points)
        points = np.asarray(points, dtype=self.dtype)
        bent, *slopes = self.coordinates.bend(points)
        log_density, gradient, *more = evaluate(bent)
        z, log_determinant, *given = more or (bent, 0)
        moved = self.coordinates.map.pull_back(log_density, gradient, slopes, self._parameters)
        return [*moved, z, log_determinant + slopes[0].sum(axis=1), *given]

    def _compile(self):
        """Compile :meth:`evaluate` as a function of points and the coordinates' parameters."""
        with compiling(cxx=""):
            target = self._full
            # JAX needs a static number of points, so chunks are padded
            shape = (self.at_once if self.is_on_jax else None, self.space.n_dim)
            points = pt.matrix("points", shape=shape, dtype=self.dtype)
            outputs = [*target.outputs[:2], *target.unconstrained]
            if self._map:  # most of it is computed anyway
                z = self.space.unflatten(target.unconstrained[0])
                given = self._map.by_site(target.outputs[2:], target.given)
                given = self._map.learned_from(given, z, self.dtype)
                outputs += batching.stabilise([part for here in given for part in here])
            batch = vectorising.batch_in_chunks if self.is_on_jax else vectorising.batch
            batched = batch(outputs, target.point, points)
            inputs = [points, *target.parameters.values()]
            if self.is_on_jax:
                return compile_for_jax(inputs, batched, mode_for_xla("JAX"))
            mode = self._mode_without_jax(batched)
            data = shared_variables(batched)
            stand_ins = {variable: variable.type() for variable in data}
            batched = graph_replace(batched, stand_ins, strict=False) if data else batched
            inputs += stand_ins.values()
            function = one_at_a_time(compile(inputs, batched, mode=mode, on_unused_input="ignore"))
            return lambda *values, value_of: function(*values, *map(value_of, data))

    def _mode_without_jax(self, batched):
        """Choose NumPy, which compiles immediately, unless it would loop in Python."""
        if self.backend == "numba" and _contains((Scan, Blockwise), batched):
            return without_wrong_rewrites("NUMBA")
        return without_wrong_rewrites(None) if _contains(Scan, batched) else CHEAP


def has_minibatches(model: pm.Model) -> bool:
    """Whether a model has ``pm.Minibatch``, by its graph."""
    return _contains(
        MinibatchOp, [*model.basic_RVs, *model.potentials, *model.rvs_to_values.values()]
    )


def rows_per_row_of_minibatch(model: pm.Model) -> float:
    """Return the number of rows of the data per row of a minibatch; infinite if unknown."""
    outputs = [*model.basic_RVs, *model.potentials, *model.rvs_to_values.values()]
    nodes = {v.owner for v in ancestors(outputs) if v.owner and isinstance(v.owner.op, MinibatchOp)}
    ratios = [1.0]
    for node in nodes:
        for data, batch in zip(node.inputs, node.outputs, strict=False):
            if not isinstance(batch.type, TensorType):
                continue  # its random generator
            n_rows, n_batch = _rows(data), _rows(batch)
            ratios.append(n_rows / n_batch if n_rows and n_batch else np.inf)
    return max(ratios)


def n_observations(model: pm.Model) -> float:
    """Count the elements of all observed variables, with all data in place of minibatches."""
    sizes = [_size(model.rvs_to_values[rv]) for rv in model.observed_RVs]
    ratio = rows_per_row_of_minibatch(model)
    return sum(sizes) * (ratio if np.isfinite(ratio) else 1)


def _size(variable):
    """Return the number of elements of a variable, 0 if unknown."""
    if isinstance(variable, SharedVariable):
        return variable.get_value(borrow=True).size
    shape = variable.type.shape
    return 0 if None in shape else int(np.prod(shape))


def _rows(variable):
    """Length of the first axis if the type or the value shows it."""
    if not isinstance(variable.type, TensorType) or not variable.type.ndim:
        return None
    if isinstance(variable, SharedVariable):
        return len(variable.get_value(borrow=True))
    return variable.type.shape[0]


class Rescaled(MinibatchRandomVariable):
    """PyMC's class, which can be cloned even if ``total_size`` leaves a dimension out."""

    def make_node(self, rv: Values, *total_size: Any) -> Any:  # noqa: D102
        return super().make_node(rv, *(None if NoneConst.equals(n) else n for n in total_size))


def without_minibatches(model: pm.Model) -> pm.Model:
    """Return a model of all data: PyMC's ``remove_minibatched_nodes`` for any dimension."""
    graph, _ = fgraph_from_model(without_initial_values(model))
    graph.replace_all(
        [
            (node.outputs[0], Rescaled()(*node.inputs))
            for node in graph.toposort()
            if isinstance(node.op, MinibatchRandomVariable)
        ]
    )
    full: dict = {}
    for node in graph.toposort():
        if isinstance(node.op, MinibatchOp):
            full |= zip(node.outputs, node.inputs, strict=False)
            continue
        inputs = [full.get(variable, variable) for variable in node.inputs]
        if isinstance(node.op, SymbolicOp):  # its own graph has the shape of a minibatch
            full |= zip(node.outputs, node.op(*inputs, return_list=True), strict=True)
        else:
            clone = node.clone_with_new_inputs(inputs, strict=False)
            full |= zip(node.outputs, clone.outputs, strict=True)
    outputs = [full.get(variable, variable) for variable in graph.outputs]
    whole = FunctionGraph(outputs=outputs, clone=False)
    copy_dims(graph, whole)
    full_model = model_from_fgraph(whole, mutate_fgraph=True)
    share_data(model, full_model)
    for rv, value in model.rvs_to_initial_values.items():
        if not isinstance(value, Variable):  # which would belong to the other model
            full_model.rvs_to_initial_values[full_model[rv.name]] = value
    return full_model


def _contains(kind, outputs):
    return any(v.owner and isinstance(v.owner.op, kind) for v in ancestors(outputs))


def _in_chunks_by_name(function, size, dtype):
    def evaluate(points):
        points = np.asarray(points, dtype=dtype)
        starts = range(0, max(len(points), 1), size)
        parts = [function(points[start : start + size]) for start in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return evaluate


def _in_chunks(function, size, dtype="float64", padded=False):
    """Evaluate at most so many points at a time; exactly so many if padded.

    Points may be float64 even in float32.
    """

    def evaluate(points):
        points, parts = np.asarray(points, dtype=dtype), []
        with np.errstate(all="ignore"):  # outside the support
            for start in range(0, max(len(points), 1), size):
                chunk = points[start : start + size]
                n_real = len(chunk)
                if padded and n_real < size:  # to the static number of points
                    last = chunk[-1:] if n_real else np.zeros((1, *chunk.shape[1:]), dtype)
                    chunk = np.concatenate([chunk, np.repeat(last, size - n_real, axis=0)])
                parts.append([np.asarray(part)[:n_real] for part in function(chunk)])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    return evaluate
