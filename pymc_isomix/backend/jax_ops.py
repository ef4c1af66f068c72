"""Ops with our own JAX code; other backends treat them as their parent classes.

An XLA kernel recomputes inputs that look cheap, so the model's log density or the noise would be
compiled and run several times per step.
"""

import math
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.ops import TypeCastingOp
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import node_rewriter
from pytensor.scalar.basic import Clip
from pytensor.scalar.math import BetaIncInv, GammaIncCInv, GammaIncInv, Ive, Kve
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.basic import NormalRV

from pymc_isomix.backend import upstream
from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import mode_for_xla

ON_HOST = (Ive, Kve, BetaIncInv, GammaIncInv, GammaIncCInv)  # of which JAX has none


class ComputeOnce(TypeCastingOp):
    """The identity, whose value XLA stores."""

    def make_node(self, *inputs: Any) -> Any:  # noqa: D102
        return Apply(self, inputs, [value.type() for value in inputs])

    def infer_shape(self, node: Any, shapes: list[tuple]) -> list[tuple]:  # noqa: D102
        return shapes

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> Any:  # noqa: D102
        return cotangents


class Sharded(ComputeOnce):
    """The identity, with rows spread over several devices.

    Parameters
    ----------
    n_devices : int
    """

    __props__ = ("n_devices",)

    def __init__(self, n_devices: Any) -> None:
        self.n_devices = n_devices


class NoiseRV(NormalRV):
    """Normal draws; on JAX standard normal ones from one run of its Threefry generator."""


class InChunks(Op):
    """A graph of a chunk of points as an Op of all points; on JAX only.

    Parameters
    ----------
    inputs : list of TensorVariable
        Points (S, d), and values that all points share.
    outputs : list of TensorVariable
        For S points, (S, ...).
    n_chunks : int
        Number of chunks of S points.
    """

    def __init__(self, inputs: list[Values], outputs: list[Values], n_chunks: int) -> None:
        self.inputs, self.outputs, self.n_chunks = inputs, outputs, n_chunks

    def make_node(self, *inputs: Any) -> Any:  # noqa: D102
        n_points = self.n_chunks * self.inputs[0].type.shape[0]
        shapes = [(n_points, *one.type.shape[1:]) for one in self.outputs]
        whole = [
            one.type.clone(shape=shape)() for one, shape in zip(self.outputs, shapes, strict=True)
        ]
        return Apply(self, list(inputs), whole)

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:  # noqa: D102
        raise NotImplementedError("chunks are for JAX")


_once, _noise = ComputeOnce(), NoiseRV()


def compute_once(value: Any) -> Any:
    """Make XLA store a value, so that no kernel recomputes it."""
    return _once(value)


@node_rewriter([Elemwise])
def compute_clipped_once(fgraph: Any, node: Any) -> Any:
    """Store a clipped value, so that its gradient is cut at the same elements.

    XLA would recompute it in each kernel with different rounding. The squared distances of a
    Gaussian process are zero up to rounding on the diagonal, where its gradient is largest.
    """
    value = node.inputs[0]
    if not isinstance(node.op.scalar_op, Clip) or (value.owner and value.owner.op == _once):
        return None
    return [node.op(compute_once(value), *node.inputs[1:])]


def shard_rows(value: Values, n_devices: int) -> Values:
    """Spread the rows of a value, and their further computation, over several devices."""
    return value if n_devices == 1 else Sharded(n_devices)(value)


def standard_normal(shape: tuple[int, int, int], dtype: str) -> Values:
    """Draw noise in single precision, which is accurate enough and takes a third of the time."""
    generator = pt.random.shared_rng(seed=None)
    _, draws = _noise(size=shape, rng=generator, return_next_rng=True, dtype="float32")
    return draws.astype(dtype)


def on_host(op: Any, node: Any, **kwargs: Any) -> Callable:
    """Return a function of JAX that has SciPy compute an elementwise Op, outside XLA.

    One Op that JAX lacks would otherwise take the whole model from it.
    """
    import jax
    from scipy import special

    function = getattr(special, op.nfunc_spec[0].rpartition(".")[2])
    dtype = node.outputs[0].type.dtype

    def compute(*values):
        return np.asarray(function(*map(np.asarray, values)), dtype)

    def call(*values):
        shape = np.broadcast_shapes(*map(np.shape, values))
        result = jax.ShapeDtypeStruct(shape, dtype)
        return jax.pure_callback(compute, result, *values, vmap_method="broadcast_all")

    return call


@cache
def teach_jax() -> Any:
    """Register the JAX code of these Ops."""
    import jax
    import jax.numpy as jnp

    threefry_2x32 = upstream.threefry()
    jax_funcify, _ = upstream.jax_dispatch()

    @jax_funcify.register(ComputeOnce)
    def barrier(op, **kwargs):
        return jax.lax.optimization_barrier

    @jax_funcify.register(Sharded)
    def sharded(op, **kwargs):
        mesh = jax.sharding.Mesh(jax.devices()[: op.n_devices], ("draws",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("draws"))

        def constrain(*values):
            shared = [jax.lax.with_sharding_constraint(value, sharding) for value in values]
            return shared if len(shared) > 1 else shared[0]

        return constrain

    @jax_funcify.register(NoiseRV)
    def threefry(op, node, **kwargs):
        shape = node.outputs[1].type.shape

        def draw(rng, size, mean, standard_deviation):
            counts = jnp.arange(math.prod(shape) + 2, dtype=jnp.uint32)
            words = threefry_2x32(rng["jax_state"], counts)
            # the first two are the next key, for which jax.random.split would take another run
            next_rng = {**rng, "jax_state": words[:2]}
            integers = jax.lax.bitcast_convert_type(words[2:], jnp.int32) >> 8
            uniform = (integers.astype(jnp.float32) + 0.5) * jnp.float32(2**-23)  # in (-1, 1)
            draws = jnp.float32(math.sqrt(2)) * jax.lax.erf_inv(uniform.reshape(shape))
            return next_rng, jax.lax.optimization_barrier(draws)

        return draw

    if find_spec("tensorflow_probability") is None:  # where PyTensor looks for these
        for op_class in ON_HOST:
            jax_funcify.register(op_class, on_host)

    @jax_funcify.register(InChunks)
    def in_chunks(op, **kwargs):
        graph = FunctionGraph(op.inputs, op.outputs, clone=True)
        mode_for_xla("JAX").optimizer.rewrite(graph)
        evaluate = jax_funcify(graph)

        def loop(points, *others):
            chunks = points.reshape(op.n_chunks, -1, points.shape[1])
            results = jax.lax.map(lambda chunk: tuple(evaluate(chunk, *others)), chunks)
            return [result.reshape(-1, *result.shape[2:]) for result in results]

        return loop
