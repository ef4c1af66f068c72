"""Models that are hard in different ways, simulated with fixed seeds."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered


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


def horseshoe(by_quantiles=False):
    """Three effects among twenty, by a horseshoe prior.

    ``by_quantiles`` writes each half-Cauchy scale as the quantile of a standard normal: the same
    model and evidence, in other unconstrained coordinates.
    """
    rng = np.random.default_rng(1)
    features = rng.normal(size=(100, 20))
    y = features[:, :3] @ [3.0, -2.0, 1.0] + rng.normal(size=100)

    def half_cauchy(name, scale, **shape):
        if not by_quantiles:
            return pm.HalfCauchy(name, scale, **shape)
        normal = pm.Normal(f"{name}_normal", 0, 1, **shape)
        return scale * pt.tan(np.pi / 4 * (1 + pt.erf(normal / np.sqrt(2))))

    with pm.Model() as model:
        tau = half_cauchy("tau", 0.1)
        local = half_cauchy("local", 1, shape=20)
        z = pm.Normal("z", 0, 1, shape=20)
        sigma = pm.HalfNormal("sigma", 1)
        pm.Normal("y", features @ (z * tau * local), sigma, observed=y)
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
    builder.__name__: builder
    for builder in (
        scales,
        autoregressive,
        thousand_means,
        horseshoe,
        ordered_categories,
        simplex,
        covariance,
        half_flat,
        outliers,
        many_rows,
        far_start,
        two_labels,
    )
}


def planted_mixture(n_dim, n_modes, seed, *, separation=8.0):
    """Diagonal Gaussian modes on axes scaled from 1e-2 to 1e2, the smallest weight about 0.1.

    Returns
    -------
    model : pm.Model
    truth : dict
        ``weights`` (M,), ``means`` and ``deviations`` (M, d), and ``box`` (d,), which holds all.
    """
    rng = np.random.default_rng(seed)
    weights = np.maximum(rng.dirichlet(np.full(n_modes, 2.0)), 0.1)
    weights /= weights.sum()
    scale = rng.permutation(10 ** np.linspace(-2, 2, n_dim))
    width = max(8.0, 3 * separation / np.sqrt(n_dim))
    means = []
    while len(means) < n_modes:
        candidate = rng.uniform(-width, width, n_dim)
        if all(np.linalg.norm(candidate - mean) >= separation for mean in means):
            means.append(candidate)
    means = np.array(means) * scale
    deviations = rng.uniform(0.7, 1.4, (n_modes, n_dim)) * scale
    truth = {
        "weights": weights,
        "means": means,
        "deviations": deviations,
        "box": 1.3 * width * scale,
    }
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        normaliser = np.log(weights) - np.log(deviations).sum(1) - 0.5 * n_dim * np.log(2 * np.pi)
        terms = normaliser - 0.5 * (((x - means) / deviations) ** 2).sum(axis=1)
        pm.Potential("log_density", pt.logsumexp(terms))
    return model, truth


def planted_masses(truth, points):
    """Share of the points (S, d) that belong to each planted mode, (M,)."""
    scaled = (points[:, None] - truth["means"]) / truth["deviations"]
    log_joint = (
        np.log(truth["weights"]) - np.log(truth["deviations"]).sum(1) - 0.5 * (scaled**2).sum(2)
    )
    return np.bincount(log_joint.argmax(1), minlength=len(truth["weights"])) / len(points)
