"""The targets and regressions of the paper, each beside a normalised log density in NumPy.

The regressions are on data that scikit-learn bundles.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import log_expit, log_softmax, logsumexp
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_breast_cancer, load_wine

MODES = np.array([[3.0, 3.0], [3.0, -3.0], [-3.0, 3.0], [-3.0, -3.0]])
EQUAL = np.full(4, 0.25)
SKEWED = np.array([0.1, 0.3, 0.3, 0.3])
FUNNEL_VARIANCE = 1.2
TAIL, SKEW = 1.2, 0.2  # of the sinh-arcsinh transform
LOG_EVIDENCE = {"breast cancer": -36.52, "wine": -20.15}
SPLIT_SEED, TRAINING_SHARE = 42, 0.6
CORRELATION = np.array([[1.0, 0.4], [0.4, 1.0]])


@dataclass(frozen=True)
class Target:
    """A density on R^d, twice: as a model to fit and as a function to judge the fit by."""

    name: str
    n_dim: int
    start_variance: float
    model: Callable[[], pm.Model]
    log_density: Callable[[np.ndarray], np.ndarray]  # (S, d) -> (S,), normalised
    start_width: float = 5.0


def _model(n_dim, log_density):
    """A flat variable z and a potential: the log density is all that the model says."""
    with pm.Model() as model:
        z = pm.Flat("z", shape=n_dim)
        pm.Potential("log_density", log_density(z))
    return model


def gaussian_modes(name, weights, variance=2.0, start_variance=5.0, *, modes=MODES, width=5.0):
    """Isotropic Gaussians in two dimensions, at (+-3, +-3) unless said."""
    log_normaliser = np.log(weights) - np.log(2 * np.pi * variance)

    def symbolic(z):
        return pt.logsumexp(log_normaliser - ((z - modes) ** 2).sum(axis=1) / (2 * variance))

    def log_density(z):
        joint = [
            np.log(w) + multivariate_normal(mode, variance * np.eye(2)).logpdf(z)
            for w, mode in zip(weights, modes, strict=True)
        ]
        return logsumexp(joint, axis=0)

    return Target(name, 2, start_variance, lambda: _model(2, symbolic), log_density, width)


def random_modes(name, n_dim, n_modes, spread, scale, *, width, start_variance, full, seed=0):
    """Gaussians by the recipe of the paper's appendix: places, weights and covariances."""
    rng = np.random.default_rng(seed)
    modes = rng.uniform(-spread, spread, size=(n_modes, n_dim))
    weights = rng.integers(1, 2 * n_modes + 1, n_modes)
    weights = weights / weights.sum()
    factor = rng.normal(size=(n_modes, n_dim, n_dim + 2)) / np.sqrt(n_dim + 2)
    roots = np.linalg.cholesky(scale * factor @ factor.transpose(0, 2, 1))
    if not full:
        roots = np.broadcast_to(np.sqrt(scale) * np.eye(n_dim), roots.shape)
    inverse = np.linalg.inv(roots)
    log_normaliser = np.log(weights) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
    log_normaliser = log_normaliser - 0.5 * n_dim * np.log(2 * np.pi)

    def symbolic(z):
        whitened = pt.matmul(inverse, (z - modes)[..., None])[..., 0]
        return pt.logsumexp(log_normaliser - 0.5 * (whitened**2).sum(axis=1))

    def log_density(z):
        whitened = np.einsum("mij,smj->smi", inverse, z[:, None] - modes)
        return logsumexp(log_normaliser - 0.5 * (whitened**2).sum(axis=2), axis=1)

    return Target(name, n_dim, start_variance, lambda: _model(n_dim, symbolic), log_density, width)


def funnel():
    """x1 ~ N(0, 1.2), x2 ~ N(0, exp(x1)), in variances."""

    def symbolic(z):
        neck = pm.logp(pm.Normal.dist(0, np.sqrt(FUNNEL_VARIANCE)), z[0])
        return neck + pm.logp(pm.Normal.dist(0, pt.exp(z[0] / 2)), z[1])

    def log_density(z):
        neck = norm(0, np.sqrt(FUNNEL_VARIANCE)).logpdf(z[:, 0])
        return neck + norm(0, np.exp(z[:, 0] / 2)).logpdf(z[:, 1])

    return Target("funnel", 2, 0.5, lambda: _model(2, symbolic), log_density)


def sinh_arcsinh(name="sinh-arcsinh", skew=(SKEW, SKEW), width=5.0):
    """z0 = sinh(1.2 (arcsinh z - skew)) in each coordinate, z0 a correlated Gaussian."""
    skew = np.asarray(skew)
    precision = np.linalg.inv(CORRELATION)
    log_normaliser = -0.5 * np.linalg.slogdet(2 * np.pi * CORRELATION)[1]

    def symbolic(z):
        inner = TAIL * (pt.arcsinh(z) - skew)
        gaussian = pt.sinh(inner)
        log_jacobian = pt.log(TAIL * pt.cosh(inner)) - 0.5 * pt.log1p(z**2)
        return log_normaliser - 0.5 * gaussian @ precision @ gaussian + log_jacobian.sum()

    def log_density(z):
        inner = TAIL * (np.arcsinh(z) - skew)
        jacobian = TAIL * np.cosh(inner) / np.sqrt(1 + z**2)
        gaussian = multivariate_normal(np.zeros(2), CORRELATION).logpdf(np.sinh(inner))
        return gaussian + np.log(jacobian).sum(axis=1)

    return Target(name, 2, 2.0, lambda: _model(2, symbolic), log_density, width)


def planted(n_dim, n_modes, *, seed=0, spread=5.0, variance=1.0, start_variance=5.0):
    """Equally weighted isotropic Gaussians, uniform in [-spread, spread]^d, as a ``pm.Mixture``."""
    modes = np.random.default_rng(seed).uniform(-spread, spread, size=(n_modes, n_dim))
    weights = np.full(n_modes, 1 / n_modes)

    def model():
        with pm.Model() as model:
            component = pm.MvNormal.dist(mu=modes, cov=variance * np.eye(n_dim))
            pm.Mixture("z", w=weights, comp_dists=component)
        return model

    def log_density(z):
        joint = [multivariate_normal(mode, variance * np.eye(n_dim)).logpdf(z) for mode in modes]
        return logsumexp(joint, axis=0) - np.log(n_modes)

    return Target(
        f"planted, d = {n_dim}, {n_modes} modes", n_dim, start_variance, model, log_density
    )


PAPER_TARGETS = (
    gaussian_modes("four modes, equal weights", EQUAL),
    gaussian_modes("four modes, weights .1 .3 .3 .3", SKEWED),
    funnel(),
    sinh_arcsinh(),
)


def training_rows(features, labels):
    """Sixty percent of the rows, features standardised."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    rows = order[: int(TRAINING_SHARE * len(labels))]
    features, labels = features[rows], labels[rows]
    return (features - features.mean(axis=0)) / features.std(axis=0), labels


def breast_cancer():
    """Logistic regression without intercept, prior N(0, I), d = 30."""
    x, y = training_rows(*load_breast_cancer(return_X_y=True))

    def model():
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, 1, shape=x.shape[1])
            pm.Bernoulli("y", logit_p=x @ beta, observed=y)
        return model

    def log_density(beta):
        likelihood = log_expit((2 * y - 1) * (beta @ x.T)).sum(axis=1)
        return norm.logpdf(beta).sum(axis=1) + likelihood - LOG_EVIDENCE["breast cancer"]

    return Target("breast cancer, logistic", 30, 1.0, model, log_density, 2.0)


def wine():
    """Multinomial regression without intercept, 13 weights a class, prior N(0, 10 I), d = 39."""
    x, y = training_rows(*load_wine(return_X_y=True))
    shape, sigma = (x.shape[1], 3), np.sqrt(10)

    def model():
        with pm.Model() as model:
            beta = pm.Normal("beta", 0, sigma, shape=shape)
            pm.Categorical("y", logit_p=x @ beta, observed=y)
        return model

    def log_density(beta):
        logits = x @ beta.reshape(-1, *shape)  # (S, rows, classes)
        likelihood = log_softmax(logits, axis=2)[:, np.arange(len(y)), y].sum(axis=1)
        return norm(0, sigma).logpdf(beta).sum(axis=1) + likelihood - LOG_EVIDENCE["wine"]

    return Target("wine, multinomial", 39, 1.0, model, log_density, 2.0)
