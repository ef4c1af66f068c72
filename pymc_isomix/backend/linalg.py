r"""Cholesky factors and triangular inverses of many matrices with up to some hundred rows.

LAPACK is called once per matrix, and for a few dozen rows the call costs more than the computation.
A product of many matrices is one call. Triangular matrices are therefore inverted by halves, and
the gradient of the Cholesky factor :math:`A = L L^T`

.. math::
    \bar A = \Phi(S + S^T), \quad S = L^{-T} \Phi(L^T \bar L) L^{-1},

with :math:`\Phi` the lower triangle with half of the diagonal, consists of products. Only the lower
triangle of A counts.

References
----------
.. [1] Murray (2016), Differentiation of the Cholesky decomposition, arXiv:1602.07527, section 3.
"""

from functools import cache
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.rewriting.basic import node_rewriter
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.linalg.decomposition.cholesky import Cholesky

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.jax_ops import compute_once

UNROLLED = 4  # rows, up to which factors are computed entry by entry, without LAPACK
HALVED = 12  # rows, above which a triangular matrix is inverted by halves
HALVED_ROOT = 32  # rows, above which a factored matrix is, too; LAPACK itself uses blocks there
ROOT = "quick_cholesky"  # name of the Op
GAUSSIAN_MAP = "gaussian_map"  # the Op of `sites.conditional`; prefix of that of its gradient


def inverse_of_lower(lower: Values) -> Values:
    """Invert lower triangular matrices (..., n, n) of known n."""
    n = lower.type.shape[-1]
    if n <= HALVED:
        return pt.linalg.solve_triangular(lower, pt.eye(n), lower=True, b_ndim=2)
    half = n // 2
    first = inverse_of_lower(lower[..., :half, :half])
    last = inverse_of_lower(lower[..., half:, half:])
    return _inverse_of_halves(first, lower[..., half:, :half], last)


def inverse_of_root(matrices: Values) -> Values:
    """Invert the lower Cholesky factors of matrices (..., n, n) of known n, well conditioned."""
    n = matrices.type.shape[-1]
    if n <= HALVED_ROOT:
        return inverse_of_lower(pt.linalg.cholesky(matrices, lower=True))
    half = n // 2
    first = inverse_of_root(matrices[..., :half, :half])
    corner = compute_once(matrices[..., half:, :half] @ transposed(first))
    rest = matrices[..., half:, half:] - corner @ transposed(corner)
    return _inverse_of_halves(first, corner, inverse_of_root(compute_once(rest)))


def _inverse_of_halves(first, corner, last):
    """Inverse of a triangle, from the inverses of its two halves and the block below the first."""
    corner = compute_once(last) @ compute_once(-corner @ first)
    above = pt.concatenate([first, pt.zeros_like(corner.mT)], axis=-1)
    return compute_once(pt.concatenate([above, pt.concatenate([corner, last], axis=-1)], axis=-2))


def transposed(matrices: Values) -> Values:
    """Transpose matrices (..., n, m) before a product, because XLA is slow with columns."""
    return compute_once(matrices.mT)


def lower_half(matrices: Values) -> Values:
    """Lower triangle of matrices (..., n, n), with half of the diagonal."""
    n = matrices.type.shape[-1]
    return matrices * (np.tril(np.ones((n, n))) - np.eye(n) / 2).astype(matrices.dtype)


def quick_cholesky(matrices: Values) -> Values:
    """Lower Cholesky factors (..., n, n) of known n, as PyTensor's, with another gradient."""
    return _op(matrices.type)(matrices)[0]


@cache
def _op(matrix_type):
    matrices = matrix_type()
    root = pt.linalg.cholesky(matrices, lower=True)
    # for the gradient; not computed without one
    outputs = [root, inverse_of_lower(root)]
    return OpFromGraph([matrices], outputs, inline=True, pullback=_backward, name=ROOT)


def _backward(inputs, outputs, cotangents):
    root, inverse = outputs
    middle = lower_half(compute_once(transposed(root) @ cotangents[0]))
    right = compute_once(middle @ inverse)
    s = compute_once(transposed(inverse) @ right)
    return [lower_half(s + s.mT)]


@node_rewriter([Cholesky, Blockwise])
def use_quick_cholesky(fgraph: Any, node: Any) -> list[Values] | None:
    """Replace a Cholesky factor of known size by one with a fast gradient."""
    op = node.op.core_op if isinstance(node.op, Blockwise) else node.op
    n = node.outputs[0].type.shape[-1]
    if not isinstance(op, Cholesky) or not op.lower or n is None or n <= UNROLLED:
        return None
    return [quick_cholesky(node.inputs[0])]


def cholesky(matrices: Values) -> Values:
    """Lower Cholesky factors (..., n, n); entry by entry for many small matrices."""
    n = matrices.type.shape[-1]
    if n is None or n > UNROLLED:
        return pt.linalg.cholesky(matrices, lower=True)
    entries: dict = {}
    for i in range(n):
        for j in range(i + 1):
            rest = matrices[..., i, j] - sum(entries[i, k] * entries[j, k] for k in range(j))
            entries[i, j] = pt.sqrt(rest) if i == j else rest / entries[j, j]
    zero = pt.zeros_like(matrices[..., 0, 0])
    rows = [pt.stack([entries.get((i, j), zero) for j in range(n)], axis=-1) for i in range(n)]
    return pt.stack(rows, axis=-2)


def solve(lower: Values, vectors: Values, *, transposed: bool = False) -> Values:
    """Solve L x = v, or L^T x = v, for vectors (..., n)."""
    n = lower.type.shape[-1]
    if n is None or n > UNROLLED:
        return pt.linalg.solve_triangular(
            lower, vectors[..., None], lower=True, trans=1 if transposed else 0, b_ndim=2
        )[..., 0]
    found: dict = {}
    for i in reversed(range(n)) if transposed else range(n):
        known = sum(
            (lower[..., k, i] if transposed else lower[..., i, k]) * found[k] for k in found
        )
        found[i] = (vectors[..., i] - known) / lower[..., i, i]
    return pt.stack([found[i] for i in range(n)], axis=-1)


def diagonal(matrices: Values) -> Values:
    """Diagonals (..., n) of matrices (..., n, n)."""
    return pt.diagonal(matrices, axis1=-2, axis2=-1)
