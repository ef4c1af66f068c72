r"""The family: mixtures of isotropic or diagonal Gaussians, in whitened coordinates u.

.. math:: q(u) = \sum_k w_k \, \mathcal N(u; m_k, \epsilon_k I_d) \quad\text{or}\quad
    \sum_k w_k \, \mathcal N(u; m_k, \operatorname{diag} \epsilon_k)

``log_variances`` (K,) are isotropic, and (K, d) diagonal. Every function takes PyTensor variables
(or arrays) and returns an expression. The pairwise part consists of two matrix products, O(S K d)
in time and O(S K) in memory. No (S, K, d) array is made.
"""

import math

import numpy as np
import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values

LOG_2PI = math.log(2 * math.pi)


def log_density_and_score(
    points: Values, means: Values, log_variances: Values, log_weights: Values
) -> tuple[Values, Values]:
    r"""Log density of the mixture, and its gradient in the point.

    .. math::
        \log q(u) &= \operatorname{logsumexp}_k \left[\log w_k - \frac{|u - m_k|^2}{2 \epsilon_k}
            - \frac d2 \log(2 \pi \epsilon_k)\right] \\
        \nabla_u \log q(u) &= \sum_k r_k(u) \, (m_k - u) / \epsilon_k

    and elementwise for diagonal variances. Responsibilities :math:`r_k` are the softmax of the same
    terms. Both stay finite and exact at any distance from the components.

    Parameters
    ----------
    points : (S, d) array or TensorVariable
        Whitened points u, with the origin near the mixture's mean. Far from the origin,
        :math:`|u|^2 + |m|^2 - 2 u \cdot m` cancels and loses digits.
    means : (K, d) array or TensorVariable
        Whitened component means, from the same origin.
    log_variances : (K,) or (K, d) array or TensorVariable
        Log variances, whitened.
    log_weights : (K,) array or TensorVariable
        Normalised log weights; ``-inf`` drops a component.

    Returns
    -------
    log_density : (S,) TensorVariable
    score : (S, d) TensorVariable

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, section 3.
    """
    points, means = pt.as_tensor(points), pt.as_tensor(means)
    log_joint = _log_joint(points, means, log_variances, log_weights)  # (S, K)
    largest = pt.max(log_joint, axis=1, keepdims=True)
    # no subnormal numbers, which NumPy processes ten times as slowly
    lowest = 0.9 * np.log(np.finfo(log_joint.dtype).tiny)
    joint = pt.exp(pt.maximum(log_joint - largest, lowest))
    # one product for all sums over components, because XLA and numba sum rows slowly
    precision = as_matrix(pt.exp(-log_variances))
    ones = pt.ones_like(as_matrix(log_weights))
    sums = joint @ pt.concatenate([precision * means, precision, ones], axis=1)
    total = sums[:, -1]
    log_density = largest[:, 0] + pt.log(total)
    if log_variances.ndim == 1:
        score = (sums[:, :-2] - points * sums[:, -2][:, None]) / total[:, None]
    else:
        n_dim = means.shape[1]
        score = (sums[:, :n_dim] - points * sums[:, n_dim:-1]) / total[:, None]
    return log_density, score


def log_density(
    points: Values, means: Values, log_variances: Values, log_weights: Values
) -> Values:
    """Log density at whitened ``points`` (S, d); see :func:`log_density_and_score`."""
    return log_density_and_score(points, means, log_variances, log_weights)[0]


def responsibilities(
    points: Values, means: Values, log_variances: Values, log_weights: Values
) -> Values:
    r"""Probability :math:`r_k(u)` of each component given a whitened point, shape (S, K)."""
    points, means = pt.as_tensor(points), pt.as_tensor(means)
    log_joint = _log_joint(points, means, log_variances, log_weights)
    return pt.exp(log_normalise(log_joint))


def log_normalise(log_values: Values) -> Values:
    """Subtract the logarithm of the sum of exponentials along the last axis."""
    shifted = log_values - pt.max(log_values, axis=-1, keepdims=True)
    return shifted - pt.log(pt.exp(shifted).sum(axis=-1, keepdims=True))


def as_matrix(variances: Values) -> Values:
    """View values by component, (K,) or (K, d), as (K, 1) or (K, d)."""
    return variances[:, None] if variances.ndim == 1 else variances


def mean(means: Values, log_weights: Values) -> Values:
    r"""Mean of the mixture, :math:`\sum_k w_k m_k`, shape (d,), in the space of ``means``."""
    return pt.exp(log_weights) @ means


def between_covariance(means: Values, log_weights: Values) -> Values:
    r"""Covariance of the means, :math:`\sum_k w_k (m_k - \bar m)(m_k - \bar m)^T`, (d, d)."""
    centred = means - mean(means, log_weights)
    return (pt.exp(log_weights)[:, None] * centred).T @ centred


def between_variance(means: Values, log_weights: Values) -> Values:
    """Diagonal of :func:`between_covariance`, shape (d,), without forming the matrix."""
    return pt.exp(log_weights) @ (means - mean(means, log_weights)) ** 2


def within_variance(log_variances: Values, log_weights: Values) -> Values:
    r"""Weighted mean of the component variances, :math:`\sum_k w_k \epsilon_k`, () or (d,)."""
    if log_variances.ndim == 1:
        return pt.exp(log_weights + log_variances).sum()
    return pt.exp(log_weights) @ pt.exp(log_variances)


def _log_joint(points, means, log_variances, log_weights):
    """Log w_k + log N(u_s; m_k, eps_k I), shape (S, K): linear in |u|^2 and u, so one product."""
    if log_variances.ndim == 2:
        return _diagonal_log_joint(points, means, log_variances, log_weights)
    n_dim = means.shape[1].astype(means.dtype)
    precision = pt.exp(-log_variances)[:, None]
    log_normaliser = log_weights - 0.5 * n_dim * (log_variances + LOG_2PI)
    constant = log_normaliser[:, None] - 0.5 * precision * (means**2).sum(axis=1, keepdims=True)
    squared = (points**2).sum(axis=1, keepdims=True)
    features = pt.concatenate([points, squared, pt.ones_like(squared)], axis=1)  # (S, d + 2)
    coefficients = pt.concatenate([precision * means, -0.5 * precision, constant], axis=1)
    log_joint = features @ coefficients.T
    if log_joint.dtype != "float32":
        return log_joint
    # |u|^2 + |m|^2 - 2 u m cancels: single precision would lose nats if components lie far
    # apart. Relative to the nearest component, the relevant numbers are small.
    nearest = pt.argmax(log_joint, axis=1)
    near = means[nearest]
    offsets = points - near
    inner = (offsets * near).sum(axis=1, keepdims=True) - offsets @ means.T
    between = ((means[:, None] - means) ** 2).sum(axis=2)[nearest]  # (S, K)
    squared = (offsets**2).sum(axis=1, keepdims=True) + 2 * inner + between
    return log_normaliser - 0.5 * precision[:, 0] * squared


def _diagonal_log_joint(points, means, log_variances, log_weights):
    """Log w_k + log N(u_s; m_k, diag eps_k), shape (S, K): linear in u and in its squares."""
    precision = pt.exp(-log_variances)
    log_normaliser = log_weights - 0.5 * (log_variances + LOG_2PI).sum(axis=1)
    constant = (log_normaliser - 0.5 * (precision * means**2).sum(axis=1))[:, None]
    features = pt.concatenate([points, points**2, pt.ones_like(points[:, :1])], axis=1)
    coefficients = pt.concatenate([precision * means, -0.5 * precision, constant], axis=1)
    return features @ coefficients.T  # (S, 2 d + 1) and (2 d + 1, K)
