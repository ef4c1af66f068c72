"""Models that are hard in different ways, simulated with fixed seeds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import scipy  # which loads its parts when they are used
from pymc.distributions.transforms import ordered

from problems.hierarchies import horseshoe


def scales():
    """Standard deviations from 1e-6 to 1e6, means three of them away from zero."""
    scale = 10.0 ** np.linspace(-6, 6, 13)
    with pm.Model() as model:
        pm.Normal("x", 3 * scale, scale)
    return model


def autoregressive(n_dim=200, rho=0.99):
    """A Gaussian with neighbouring correlations of 0.99."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        innovations = ((x[1:] - rho * x[:-1]) ** 2).sum() / (1 - rho**2)
        constant = -0.5 * n_dim * np.log(2 * np.pi) - 0.5 * (n_dim - 1) * np.log(1 - rho**2)
        pm.Potential("log_density", constant - 0.5 * (x[0] ** 2 + innovations))
    return model


def thousand_means():
    """A thousand parameters with a common mean."""
    y = np.random.default_rng(0).normal(size=999)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        x = pm.Normal("x", mu, 1, shape=999)
        pm.Normal("y", x, 1.0, observed=y)
    return model


def ordered_categories():
    """Ordered logistic regression."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=300)
    y = np.digitize(x + rng.logistic(size=300), [-1, 0.5, 2])
    with pm.Model() as model:
        start = np.array([-1.0, 0.0, 1.0])
        cut = pm.Normal("cut", start, 3, transform=ordered, shape=3, initval=start)
        slope = pm.Normal("slope", 0, 2)
        pm.OrderedLogistic("y", eta=slope * x, cutpoints=cut, observed=y)
    return model


def simplex():
    """Probabilities of six categories, one with a single count."""
    with pm.Model() as model:
        p = pm.Dirichlet("p", np.ones(6))
        pm.Multinomial("y", n=200, p=p, observed=[100, 50, 30, 15, 4, 1])
    return model


def covariance():
    """A covariance matrix by LKJ Cholesky."""
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(4, 4))
    y = rng.multivariate_normal(np.zeros(4), factor @ factor.T + np.eye(4), size=100)
    with pm.Model() as model:
        deviation = pm.Exponential.dist(1.0)
        chol, *_ = pm.LKJCholeskyCov("chol", n=4, eta=2, sd_dist=deviation)
        mu = pm.Normal("mu", 0, 5, shape=4)
        pm.MvNormal("y", mu, chol=chol, observed=y)
    return model


def half_flat():
    """Improper priors, and a mean of 1000 known to 1e-4."""
    y = np.random.default_rng(4).normal(1000, 1e-3, size=50)
    with pm.Model() as model:
        pm.Normal("y", pm.Flat("mu"), pm.HalfFlat("sigma"), observed=y)
    return model


def outliers():
    """Student-t with two outliers."""
    y = np.r_[np.random.default_rng(5).normal(size=20), 50, -80]
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 100)
        sigma = pm.HalfCauchy("sigma", 5)
        nu = pm.Gamma("nu", 2, 0.1)
        pm.StudentT("y", nu=nu, mu=mu, sigma=sigma, observed=y)
    return model


def many_rows(n_rows=10_000):
    """Logistic regression on ten thousand rows of unscaled features."""
    rng = np.random.default_rng(6)
    raw = rng.normal(size=(n_rows, 9)) * 10.0 ** rng.uniform(-2, 2, 9)
    features = np.column_stack([np.ones(n_rows), raw])
    logit = features @ (rng.normal(size=10) / np.abs(features).mean(0))
    y = rng.binomial(1, 1 / (1 + np.exp(-logit)))
    with pm.Model() as model:
        slope = pm.Normal("slope", 0, 100, shape=10)
        pm.Bernoulli("y", logit_p=features @ slope, observed=y)
    return model


def far_start():
    """A regression on raw data whose start has a log density of -1e12."""
    rng = np.random.default_rng(7)
    x = rng.uniform(1e4, 1e5, size=200)
    y = 3e4 + x * 2.5 + rng.normal(size=200) * 10
    with pm.Model() as model:
        pm.Normal("y", pm.Flat("a") + pm.Flat("b") * x, pm.HalfFlat("sigma"), observed=y)
    return model


def two_labels():
    """A mixture of two components whose labels can switch."""
    rng = np.random.default_rng(8)
    y = np.r_[rng.normal(-2, 1, size=40), rng.normal(2, 1, size=40)]
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5, shape=2)
        terms = -0.5 * (y[:, None] - mu) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(2)
        pm.Potential("likelihood", pt.logsumexp(terms, axis=1).sum())
    return model


MODELS = {
    "scales": scales,
    "autoregressive": autoregressive,
    "thousand means": thousand_means,
    "horseshoe": partial(horseshoe, centred=False),
    "ordered categories": ordered_categories,
    "simplex": simplex,
    "covariance": covariance,
    "half flat": half_flat,
    "outliers": outliers,
    "many rows": many_rows,
    "far start": far_start,
    "two labels": two_labels,
}


@dataclass
class Multimodal:
    """A posterior whose modes are known, with their masses."""

    model: Callable[[], pm.Model]
    weights: np.ndarray  # (M,)
    mode_of: Callable  # {name: (S, ...)} -> (S,) integers
    box: np.ndarray | float  # half width that holds all modes, unconstrained space


def mass_errors(problem, draws, *, least=0.0):
    """Shares of the draws at each mode less its mass, of modes with at least that mass."""
    shares = np.bincount(problem.mode_of(draws), minlength=len(problem.weights))
    return (shares / shares.sum() - problem.weights)[problem.weights >= least]


@dataclass
class Planted:
    """Diagonal Gaussian modes; ``means`` and ``deviations`` (M, d)."""

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    box: np.ndarray  # (d,)

    def standardised(self):
        """The same on axes of one scale."""
        scale = self.deviations.mean(axis=0)
        parts = (self.means / scale, self.deviations / scale, self.box / scale)
        return replace(self, means=parts[0], deviations=parts[1], box=parts[2])

    def model(self):
        """Flat coordinates and a potential."""
        n_dim = self.means.shape[1]
        log_weights = np.log(self.weights) - np.log(self.deviations).sum(1)
        with pm.Model() as model:
            x = pm.Flat("x", shape=n_dim)
            terms = log_weights - 0.5 * (((x - self.means) / self.deviations) ** 2).sum(axis=1)
            pm.Potential("log_density", pt.logsumexp(terms) - 0.5 * n_dim * np.log(2 * np.pi))
        return model

    def draws(self, n, seed=0):
        """Exact draws (n, d)."""
        rng = np.random.default_rng(seed)
        mode = rng.choice(len(self.weights), n, p=self.weights)
        return self.means[mode] + self.deviations[mode] * rng.normal(size=(n, len(self.box)))

    def mode_of(self, draws):
        """The mode that each of the draws {"x": (S, d)} belongs to."""
        scaled = (draws["x"][:, None] - self.means) / self.deviations
        log_joint = np.log(self.weights) - np.log(self.deviations).sum(1) - 0.5 * (scaled**2).sum(2)
        return log_joint.argmax(axis=1)


def planted_modes(n_dim, n_modes, seed=None, *, separation=8.0):
    """Modes on axes scaled from 1e-2 to 1e2, the smallest weight about 0.1."""
    rng = np.random.default_rng(10 * n_dim + n_modes if seed is None else seed)
    weights = np.maximum(rng.dirichlet(np.full(n_modes, 2.0)), 0.1)
    weights /= weights.sum()
    scale = rng.permutation(10 ** np.linspace(-2, 2, n_dim))
    width = max(8.0, 3 * separation / np.sqrt(n_dim))
    means = []
    while len(means) < n_modes:
        candidate = rng.uniform(-width, width, n_dim)
        if all(np.linalg.norm(candidate - mean) >= separation for mean in means):
            means.append(candidate)
    deviations = rng.uniform(0.7, 1.4, (n_modes, n_dim)) * scale
    return Planted(weights, np.array(means) * scale, deviations, 1.3 * width * scale)


def sinusoid(seed, *, largest=5.0, noise=0.7):
    """Twelve noisy observations of a sin + b cos of unknown frequency; the masses are exact."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 4, 12))
    y = np.sin(2 * np.pi * 1.7 * t + 1) + noise * rng.normal(size=12)

    def model():
        with pm.Model() as model:
            angle = 2 * np.pi * pm.Uniform("frequency", 0, largest) * t
            amplitude = pm.Normal("amplitude", 0, 1, shape=2)
            mu = amplitude[0] * pt.sin(angle) + amplitude[1] * pt.cos(angle)
            pm.Normal("y", mu, noise, observed=y)
        return model

    grid = (np.arange(20_000) + 0.5) / 20_000 * largest
    angle = 2 * np.pi * grid[:, None] * t
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (grid, rows, 2)
    covariance = noise**2 * np.eye(12) + basis @ basis.transpose(0, 2, 1)
    fit = np.einsum("i,gi->g", y, np.linalg.solve(covariance, y[None, :, None])[..., 0])
    density = np.exp(scipy.special.log_softmax(-0.5 * (fit + np.linalg.slogdet(covariance)[1])))
    valleys = (density[1:-1] < density[:-2]) & (density[1:-1] <= density[2:])
    masses = np.add.reduceat(density, np.r_[0, np.flatnonzero(valleys) + 1])
    edges = grid[1:-1][valleys]
    return Multimodal(model, masses, lambda draws: np.searchsorted(edges, draws["frequency"]), 4.0)
