"""Estimators of the gradients of -ELBO from draws of every component (Proposition 3.1)."""

from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.jax_ops import compute_once
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics


class Draws(NamedTuple):
    """Stratified draws, B of every component, flattened component by component (S = K B)."""

    offsets: TensorVariable  # (S, d) whitened u - m_k
    points: TensorVariable  # (S, d) whitened u
    coordinates: TensorVariable  # (S, d) y


class Estimates(NamedTuple):
    """The estimates of one batch of draws, per component and for the metric."""

    mean_gradient: TensorVariable  # (K, d) g_k, whitened
    curvature: TensorVariable  # (K,) or (K, d) c_k, dimensionless
    divergence: TensorVariable  # (K,) f_k, nats
    log_evidence: TensorVariable  # (K,) log mean_b p/q, the component's share of the evidence
    metric_gradient: TensorVariable | None  # M, None for an identity metric
    n_finite: TensorVariable  # (K,) draws that entered the averages
    scores: TensorVariable  # (S, d) path gradients, whitened; zero for a draw left out
    draw_weights: TensorVariable  # (S,) w_k over the finite draws of k


def draw(
    noise: Values, means: Values, whitened_means: Values, log_variances: Values, metric: Values
) -> Draws:
    r"""Draw from every component, from standard normal noise.

    .. math:: u_{kb} = m_k + \sqrt{\epsilon_k} \, \xi_{kb}

    Parameters
    ----------
    means, whitened_means : (K, d) TensorVariable
        Component means in z and in u, with any origin of u.
    """
    n_components, n_samples, n_dim = noise.shape
    flat = (n_components * n_samples, n_dim)
    offsets = density.as_matrix(pt.exp(0.5 * log_variances))[:, None] * noise
    points = whitened_means[:, None] + offsets
    coordinates = means[:, None] + metrics.unwhiten(metric, offsets.reshape(flat)).reshape(
        noise.shape
    )
    return Draws(offsets.reshape(flat), points.reshape(flat), coordinates.reshape(flat))


def estimate(
    draws: Draws,
    log_p: Values,
    gradient_p: Values,
    whitened_means: Values,
    log_variances: Values,
    log_weights: Values,
    metric: Values,
) -> Estimates:
    r"""Average the path gradient over the draws of each component.

    With :math:`s_{kb} = \nabla_u \log q(u_{kb}) - L^T \nabla_z \log p(z_{kb})`,

    .. math::
        g_k &= \operatorname{mean}_b s_{kb} \\
        c_k &= \tfrac1d \operatorname{mean}_b (u_{kb} - m_k) \cdot s_{kb} \\
        f_k &= \operatorname{mean}_b [\log q(z_{kb}) - \log p(z_{kb})]

    At uniform weights :math:`g_k = K \partial F / \partial m_k` and
    :math:`c_k = (2 K \epsilon_k / d) \, \partial F / \partial \epsilon_k` in expectation. Diagonal
    variances have one :math:`c_{kj} = \operatorname{mean}_b (u_{kb} - m_k)_j s_{kbj}` for each
    dimension j. A draw at which the model's log density or gradient is not finite is left out of
    its component's averages.

    Parameters
    ----------
    log_p : (S,) TensorVariable
        Log joint density of the model at ``draws.coordinates``.
    gradient_p : (S, d) TensorVariable
        Its gradient in z.
    whitened_means, log_variances, log_weights, metric : TensorVariable
        The mixture.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Proposition 3.1.
    """
    n_components = whitened_means.shape[0]
    n_dim = whitened_means.shape[1].astype(whitened_means.dtype)  # an integer would upcast float32
    log_q, score_q = density.log_density_and_score(
        draws.points, whitened_means, log_variances, log_weights
    )
    log_q = log_q - metrics.log_determinant(metric, n_dim)
    finite = pt.isfinite(log_p) & pt.all(pt.isfinite(gradient_p), axis=1)
    score_p = metrics.whiten_gradient(metric, gradient_p)
    scores = compute_once(pt.switch(finite[:, None], score_q - score_p, 0.0))
    log_ratio = pt.switch(finite, log_q - log_p, 0.0)
    n_finite = finite.reshape((n_components, -1)).sum(axis=1)
    count = pt.maximum(n_finite, 1).astype(scores.dtype)

    def average(values):  # (S, ...) -> (K, ...) over the finite draws of each component
        summed = values.reshape((n_components, -1, *values.shape[1:])).sum(axis=1)
        return summed / (count[:, None] if values.ndim == 2 else count)

    # of the mixture cut to the support, so that draws outside do not count against a component
    log_importance = pt.switch(finite, -log_ratio, -np.inf).reshape((n_components, -1))
    log_evidence = pt.logsumexp(log_importance, axis=1) - pt.log(count)
    moments = scores * draws.offsets  # (S, d)
    if log_variances.ndim == 1:
        curvature = average(moments.sum(axis=1)) / n_dim
    else:
        curvature = average(moments)
    metric_gradient = None
    n_samples = draws.points.shape[0] // n_components
    draw_weights = pt.repeat(pt.exp(log_weights) / count, n_samples)
    if metric.ndim > 0:
        ratios = None
        if log_variances.ndim == metric.ndim == 2:
            weighted = pt.exp(density.as_matrix(log_weights) - log_variances)
            ratios = weighted.T @ pt.exp(log_variances)
        metric_gradient = metrics.gradient(metric, scores, draws.offsets, draw_weights, ratios)
    return Estimates(
        mean_gradient=average(scores),
        curvature=curvature,
        divergence=average(log_ratio),
        log_evidence=log_evidence,
        metric_gradient=metric_gradient,
        n_finite=n_finite,
        scores=scores,
        draw_weights=draw_weights,
    )
