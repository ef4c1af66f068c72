"""A graph of many points, evaluated a few at a time: matrices of each point stay in the cache."""

from functools import cache

from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op

from pymc_isomix.backend.compilation import mode_for_xla
from pymc_isomix.backend.upstream import jax_dispatch


class InChunks(Op):
    """A graph of some points as an Op of more of them, one chunk after the other; on JAX only.

    Parameters
    ----------
    inputs : list of TensorVariable
        Points (S, d), and what is the same for all of them.
    outputs : list of TensorVariable
        Of S points, (S, ...).
    n_chunks : int
        So many times S points come in.
    """

    def __init__(self, inputs, outputs, n_chunks):
        self.inputs, self.outputs, self.n_chunks = inputs, outputs, n_chunks
        teach_jax()

    def make_node(self, *inputs):  # noqa: D102
        shapes = [(self.n_chunks * one.type.shape[0], *one.type.shape[1:]) for one in self.outputs]
        whole = [
            one.type.clone(shape=shape)() for one, shape in zip(self.outputs, shapes, strict=True)
        ]
        return Apply(self, list(inputs), whole)

    def perform(self, node, inputs, outputs):  # noqa: D102
        raise NotImplementedError("chunks are for JAX")


@cache
def teach_jax():
    """Register how JAX evaluates the chunks: in a loop of its own."""
    import jax

    jax_funcify, _ = jax_dispatch()

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
