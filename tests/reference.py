r"""One step of the fit in NumPy and SciPy, a draw at a time, to compare the compiled step with.

Written from the equations: the estimators of Petit-Talamon, Lambert and Korba (2025),
arXiv:2506.13613, Proposition 3.1, their updates (Eqs. 11 to 14), and the scale-free step, the
metric and the weights of this package. The density is taken in unconstrained space z, from full
covariance matrices; only the estimators are in whitened coordinates u = L^{-1} z. A metric is
always the full (d, d) matrix L here.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import logsumexp


class Mixture(NamedTuple):
    """q(z) = sum_k w_k N(z; mu_k, L D_k L^T), D_k = eps_k I or diag(eps_k)."""

    means: np.ndarray  # (K, d)
    variances: np.ndarray  # (K,) or, of diagonal components, (K, d)
    weights: np.ndarray  # (K,)
    factor: np.ndarray  # (d, d) L

    @property
    def diagonals(self):
        """The diagonals of all D_k, (K, d)."""
        columns = self.variances if self.variances.ndim == 2 else self.variances[:, None]
        return np.broadcast_to(columns, self.means.shape)


class Estimates(NamedTuple):
    gradient: np.ndarray  # (K, d) g_k
    curvature: np.ndarray  # (K,) or (K, d) c_k
    divergence: np.ndarray  # (K,) f_k
    log_evidence: np.ndarray  # (K,) log mean_b p / q
    metric_gradient: np.ndarray  # (d, d) M, not symmetrised
    n_finite: np.ndarray  # (K,)


def log_density_and_score(mixture, z):
    """log q(z) and its gradient in z, at one point."""
    with np.errstate(divide="ignore"):
        log_weights = np.log(mixture.weights)
    terms, pulls = [], []
    for mean, diagonal, log_weight in zip(
        mixture.means, mixture.diagonals, log_weights, strict=True
    ):
        covariance = mixture.factor @ np.diag(diagonal) @ mixture.factor.T
        terms.append(log_weight + stats.multivariate_normal(mean, covariance).logpdf(z))
        pulls.append(np.linalg.solve(covariance, mean - z))
    log_q = logsumexp(terms)
    return log_q, np.exp(np.array(terms) - log_q) @ np.array(pulls)


def estimate(mixture, noise, log_p_and_gradient):
    """Proposition 3.1 on given noise (K, B, d); draws that are not finite are left out."""
    n_components, _, n_dim = noise.shape
    gradient = np.zeros((n_components, n_dim))
    curvature, divergence = np.zeros(mixture.variances.shape), np.zeros(n_components)
    metric_gradient = np.zeros((n_dim, n_dim))
    log_evidence = np.full(n_components, -np.inf)
    n_finite = np.zeros(n_components, int)
    for k in range(n_components):
        kept = []  # of the mixture cut to the support: other draws count for nothing
        for xi in noise[k]:
            offset = np.sqrt(mixture.diagonals[k]) * xi  # u - m_k
            z = mixture.means[k] + mixture.factor @ offset
            log_p, gradient_p = log_p_and_gradient(z)
            if np.isfinite(log_p) and np.all(np.isfinite(gradient_p)):
                log_q, score_q = log_density_and_score(mixture, z)
                score = mixture.factor.T @ (score_q - gradient_p)
                kept.append((score, offset, log_q - log_p))
        n_finite[k] = len(kept)
        if kept:
            log_evidence[k] = logsumexp([-f for _, _, f in kept]) - np.log(len(kept))
            gradient[k] = np.mean([s for s, _, _ in kept], axis=0)
            products = np.mean([s * o for s, o, _ in kept], axis=0)
            curvature[k] = products if mixture.variances.ndim == 2 else products.sum() / n_dim
            divergence[k] = np.mean([f for _, _, f in kept])
            outer = np.mean([np.outer(s, o) for s, o, _ in kept], axis=0)
            metric_gradient += mixture.weights[k] * outer
    return Estimates(gradient, curvature, divergence, log_evidence, metric_gradient, n_finite)


def negative_elbo(mixture, estimates, n_samples=None):
    """Of the mixture where the model is finite: the share of n_samples draws that were."""
    if n_samples is None:
        return mixture.weights @ estimates.divergence
    mass = mixture.weights * estimates.n_finite / n_samples
    return mass @ estimates.divergence / mass.sum() - np.log(mass.sum())


def paper_step(mixture, estimates, *, update, step_size, shared_variance):
    """Eqs. 11 to 14 with the paper's absolute step, for L = I and uniform weights."""
    eps, g, c = mixture.variances, estimates.gradient, estimates.curvature
    if shared_variance:
        c = np.full_like(c, c.mean(axis=0))
    means = mixture.means - step_size * g  # Eq. 11
    if update == "bures":  # Eq. 12
        new_eps = (1 - step_size * c / eps) ** 2 * eps
    elif update == "mirror":  # Eq. 13
        new_eps = eps * np.exp(-step_size * c / eps)
    elif update == "natural":  # Eq. 14
        new_eps = 1 / (1 / eps + step_size * c / eps)
        means = mixture.means - step_size * mixture._replace(variances=new_eps).diagonals * g
    else:
        new_eps = eps
    return mixture._replace(means=means, variances=new_eps)


class Bounds(NamedTuple):
    """What keeps a scale-free step safe; an infinite bound is none."""

    mean: float = np.inf  # in units of sqrt(d eps_k)
    log_variance: float = np.inf
    excess: float = np.inf  # nats


def scale_free_step(
    mixture,
    estimates,
    *,
    update,
    step_size,
    shared_variance,
    learn_weights,
    weight_step,
    metric,
    metric_step,
    bounds,
):
    """The same with gamma_k = gamma eps_k, bounded, and with the metric and the weights."""
    eps, w, c = mixture.variances, mixture.weights, estimates.curvature
    if shared_variance:
        c = np.full_like(c, w @ c)
    cut = bounds.log_variance
    if update == "mirror":
        new_eps = eps * np.exp(-np.clip(2 * step_size * c, -cut, cut))
    elif update == "bures":
        new_eps = eps * (1 - np.clip(step_size * c, -cut / 2, cut / 2)) ** 2
    elif update == "natural":
        new_eps = eps / (1 + np.clip(2 * step_size * c, -cut, cut))
    else:
        new_eps = eps

    means = mixture.means.copy()
    for k, g in enumerate(estimates.gradient):
        used = mixture._replace(variances=new_eps) if update == "natural" else mixture
        shift = step_size * used.diagonals[k] * g
        length = np.sqrt(np.mean(shift**2 / used.diagonals[k]))  # in standard deviations
        shift = shift * min(1, bounds.mean / length)
        means[k] = means[k] - mixture.factor @ shift

    weights = w
    if learn_weights:
        excess = estimates.divergence - w @ estimates.divergence
        weights = w * np.exp(-weight_step * np.clip(excess, -bounds.excess, bounds.excess))
        weights = weights / weights.sum()
    factor = _metric_step(mixture, estimates.metric_gradient, metric, metric_step)
    return Mixture(means, new_eps, weights, factor)


def _metric_step(mixture, metric_gradient, metric, metric_step):
    factor = mixture.factor
    if metric == "identity":
        return factor
    if metric == "diag":
        return factor @ np.diag(np.exp(-metric_step * np.diag(metric_gradient)))
    # the lower triangular B for which (I - eta B)(I - eta B)^T = I - 2 eta M + O(eta^2)
    symmetric = (metric_gradient + metric_gradient.T) / 2
    lower = np.diag(np.diag(symmetric))
    for i in range(len(lower)):
        for j in range(i):
            lower[i, j] = 2 * symmetric[i, j]
            if (
                mixture.variances.ndim == 2
            ):  # not symmetric: the triangle, by its Fisher information
                ratios = mixture.variances[:, j] / mixture.variances[:, i]
                lower[i, j] = 2 * metric_gradient[i, j] / (mixture.weights @ ratios)
    return factor @ (np.eye(len(lower)) - metric_step * lower)
