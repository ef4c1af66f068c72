"""A graph of many points, evaluated a few at a time: matrices of each point stay in the cache."""

from functools import cache

from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op

from pymc_isomix.backend.compilation import lean
from pymc_isomix.backend.digests import digest_of
from pymc_isomix.backend.upstream import jax_dispatch


class InPieces(Op):
    """A graph of some points as an Op of more of them, one piece after the other; on JAX only.

    Parameters
    ----------
    inputs : list of TensorVariable
        Points (S, d), and what is the same for all of them.
    outputs : list of TensorVariable
        Of S points, (S, ...).
    n_pieces : int
        So many times S points come in.
    """

    __props__ = ("content", "n_pieces")

    def __init__(self, inputs, outputs, n_pieces):
        self.inputs, self.outputs, self.n_pieces = inputs, outputs, n_pieces
        digest, _ = digest_of(inputs, outputs)
        # an Op that is like no other where the graph cannot be written down
        self.content = object() if digest is None else digest.hex()
        teach_jax()

    def make_node(self, *inputs):  # noqa: D102
        shapes = [(self.n_pieces * one.type.shape[0], *one.type.shape[1:]) for one in self.outputs]
        whole = [
            one.type.clone(shape=shape)() for one, shape in zip(self.outputs, shapes, strict=True)
        ]
        return Apply(self, list(inputs), whole)

    def perform(self, node, inputs, outputs):  # noqa: D102
        raise NotImplementedError("pieces are for JAX")


@cache
def teach_jax():
    """Register how JAX evaluates the pieces: in a loop of its own."""
    import jax

    jax_funcify, _ = jax_dispatch()

    @jax_funcify.register(InPieces)
    def in_pieces(op, **kwargs):
        graph = FunctionGraph(op.inputs, op.outputs, clone=True)
        lean("JAX").optimizer.rewrite(graph)
        evaluate = jax_funcify(graph)

        def loop(points, *others):
            pieces = points.reshape(op.n_pieces, -1, points.shape[1])
            results = jax.lax.map(lambda piece: tuple(evaluate(piece, *others)), pieces)
            return [result.reshape(-1, *result.shape[2:]) for result in results]

        return loop
