r"""The metric: the matrix L between whitened coordinates u and unconstrained ones, z = L u.

L is a Cholesky factor of a covariance, so a large entry is a long scale. (Hamiltonian Monte Carlo
uses "metric" for a mass matrix, the inverse of a covariance.)

All components share L: component k is N(z; mu_k, L D_k L^T), with D_k = eps_k I or another
diagonal. The number of dimensions of the metric is its kind: 0 is a multiple of the identity (the
paper's family at 1), 1 the diagonal of a diagonal L, 2 a lower triangular L. Vectors are rows:
(..., d). Maps and scales take NumPy arrays and TensorVariables alike.
"""

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import zero_grad

from pymc_isomix.backend.arrays import Values, operations, solve_triangular

KINDS = ("identity", "diag", "dense")
POWER_ITERATIONS = 6


def kind(metric: Values) -> str:
    """Name of the metric's kind, by its number of dimensions."""
    return KINDS[metric.ndim]


def unwhiten(metric: Values, vectors: Values) -> Values:
    """Map whitened rows (S, d) to unconstrained ones, L u."""
    return vectors @ metric.T if metric.ndim == 2 else vectors * metric


def whiten(metric: Values, vectors: Values) -> Values:
    """Map unconstrained rows (S, d) to whitened ones, L^{-1} z, by a triangular solve."""
    return solve_triangular(metric, vectors.T).T if metric.ndim == 2 else vectors / metric


def whiten_gradient(metric: Values, gradients: Values) -> Values:
    r"""Map gradients in z, rows (S, d), to gradients in u, :math:`L^T \nabla_z`."""
    return gradients @ metric if metric.ndim == 2 else gradients * metric


def unwhiten_gradient(metric: Values, gradients: Values) -> Values:
    r"""Map gradients in u, rows (S, d), to gradients in z, :math:`L^{-T} \nabla_u`."""
    if metric.ndim == 2:
        return solve_triangular(metric, gradients.T, transposed=True).T
    return gradients / metric


def scale_rows(metric: Values, factors: Values) -> Values:
    """Scale each unconstrained dimension by a factor, (d,); of a diagonal or dense metric."""
    return metric * factors if metric.ndim == 1 else metric * factors[:, None]


def log_determinant(metric: Values, n_dim: Values) -> Values:
    """Log |det L|, a scalar; ``n_dim`` is d."""
    ops = operations(metric)
    diagonal = ops.diagonal(metric) if metric.ndim == 2 else metric
    log_scales = ops.log(abs(diagonal))
    return log_scales.sum() if metric.ndim else n_dim * log_scales


def deviations(metric: Values) -> Values:
    """Return standard deviations of rows L u, for standard normal u: (d,), or () of an identity."""
    return abs(metric) if metric.ndim < 2 else operations(metric).sqrt((metric**2).sum(axis=1))


def of_rows(rows: Any) -> Any:
    r"""Return the lower triangular L (d, d), with :math:`L L^T = R^T R`, of rows R (S, d)."""
    upper = np.linalg.qr(rows, mode="r")
    return upper.T * np.sign(np.diagonal(upper))


def covariance(metric: Values, n_dim: Values) -> Values:
    """L L^T, shape (d, d)."""
    if metric.ndim == 2:
        return metric @ metric.T
    return pt.diag(metric**2) if metric.ndim == 1 else pt.eye(n_dim) * metric**2


def variance(metric: Values, n_dim: Values) -> Values:
    """Diagonal of L L^T, shape (d,)."""
    if metric.ndim == 2:
        return (metric**2).sum(axis=1)
    return metric**2 if metric.ndim == 1 else pt.ones(n_dim) * metric**2


def differentiable(metric: Values) -> Values:
    """Let gradients through to the free entries: none of an identity, a dense lower triangle."""
    if metric.ndim == 0:
        return zero_grad(metric)
    return pt.tril(metric) if metric.ndim == 2 else metric


def gradient(
    metric: Values,
    scores: Values,
    offsets: Values,
    draw_weights: Values,
    ratios: np.ndarray | None = None,
) -> Values:
    r"""Gradient of -ELBO for a multiplicative change of the metric, with the means fixed in z.

    .. math:: M = \sum_k w_k \, \mathbb E[s_k (u - m_k)^T], \qquad dF = \langle M, B \rangle
        \text{ for } L \leftarrow L (I + B)

    The expectation of M is symmetric for isotropic components, because rotations change nothing.
    For diagonal components it is not. The Fisher information of an entry of B below the diagonal is
    then :math:`F_{ij} = \sum_k w_k \epsilon_{kj} / \epsilon_{ki}` times that of isotropic
    components. Only this triangle counts, divided by F.

    Parameters
    ----------
    metric : TensorVariable
        Tells the kind.
    scores, offsets : (S, d) TensorVariable
        Path gradients s and u - m_k at the draws, whitened.
    draw_weights : (S,) TensorVariable
        Weight of each draw, w_k / B, zero for a draw left out.
    ratios : (d, d) TensorVariable, optional
        F, of diagonal components.

    Returns
    -------
    (d,) TensorVariable for a diagonal metric, a symmetric (d, d) for a dense one.
    """
    weighted = scores * draw_weights[:, None]
    if metric.ndim == 1:
        return (weighted * offsets).sum(axis=0)
    product = weighted.T @ offsets
    if ratios is None:
        return (product + product.T) / 2
    product = product / ratios
    return pt.tril(product) + pt.tril(product, -1).T


def step(
    metric: Values,
    gradient: Values,
    *,
    step_size: Values,
    largest: float,
    across: float | None = None,
) -> Values:
    r"""Take one multiplicative gradient step on the metric.

    Diagonal: :math:`\ell \leftarrow \ell \exp(-\eta M)`. Dense: :math:`L \leftarrow L (I - \eta B)`
    with the lower triangular :math:`B = M + \operatorname{tril}(M, -1) - \operatorname{triu}(M,
    1)`, the solution of :math:`B + B^T = 2 M`: to first order :math:`L L^T` moves as under :math:`L
    \exp(-\eta M)`, and L stays triangular, which keeps solves and determinants cheap and exact.

    Parameters
    ----------
    metric : (d,) or (d, d) TensorVariable
    gradient : (d,) or symmetric (d, d) TensorVariable
        M, dimensionless.
    step_size : float or scalar TensorVariable
        :math:`\eta`, dimensionless.
    largest : float
        Bound on the spectral norm of :math:`\eta M`; below 0.5 the diagonal of L stays positive.
    across : float, optional
        Step of the entries of M off the diagonal, relative to :math:`\eta`. Both parts then have
        separate bounds. With fewer draws than dimensions, the entries off the diagonal are mostly
        noise, and a common bound would be used up by it.
    """
    if metric.ndim == 1:
        return metric * pt.exp(-pt.clip(step_size * gradient, -largest, largest))
    if across is not None:
        own = pt.diagonal(gradient)
        scaled = step(pt.ones_like(own), own, step_size=step_size, largest=largest)
        gradient, step_size = gradient - pt.diag(own), across * step_size
        # the diagonal's own step comes second: scaled columns
        return scaled * step(metric, gradient, step_size=step_size, largest=across * largest)
    lower = pt.tril(gradient) + pt.tril(gradient, -1)
    bound = pt.minimum(step_size, largest / pt.maximum(spectral_norm(gradient), 1e-12))
    return metric - bound * (metric @ lower)


def spectral_norm(symmetric: Values) -> Values:
    """Largest absolute eigenvalue of a symmetric matrix, by power iteration."""
    squares = (symmetric**2).sum(axis=1)
    scale = pt.sqrt(squares.sum())
    # of unit norm, so that its powers stay in range with no division between them
    unit = symmetric / pt.maximum(scale, 1e-30)
    vector = unit[pt.argmax(squares)]
    for _ in range(POWER_ITERATIONS):
        previous, vector = vector, vector @ unit
    return scale * pt.sqrt((vector**2).sum() / pt.maximum((previous**2).sum(), 1e-30))
