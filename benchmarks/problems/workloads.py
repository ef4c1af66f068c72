"""Models of the speed benchmarks, from simulated data unless a bundled package carries them."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from problems.targets import planted


def logistic(n_rows, n_features, *, batch_size=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_rows, n_features))
    y = rng.random(n_rows) < 1 / (1 + np.exp(-x @ rng.normal(size=n_features) / 2))
    y = y.astype(float)
    total_size = None
    if batch_size is not None:
        x, y = pm.Minibatch(x, y, batch_size=batch_size)
        total_size = n_rows
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 1, shape=n_features)
        pm.Bernoulli("y", logit_p=x @ beta, observed=y, total_size=total_size)
    return model


def hierarchical(n_groups):
    rng = np.random.default_rng(0)
    y = rng.normal(rng.normal(size=n_groups)[:, None], 1, size=(n_groups, 5))
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        tau = pm.HalfNormal("tau", 1)
        theta = pm.Normal("theta", 0, 1, shape=n_groups)
        pm.Normal("y", (mu + tau * theta)[:, None], 1, observed=y)
    return model


def gaussian_process(n_points):
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(-3, 3, n_points))
    y = np.sin(2 * x) + 0.2 * rng.normal(size=n_points)
    squared = (x[:, None] - x) ** 2
    with pm.Model() as model:
        length = pm.LogNormal("length", 0, 1)
        scale = pm.HalfNormal("scale", 1)
        noise = pm.HalfNormal("noise", 1)
        covariance = scale**2 * pt.exp(-0.5 * squared / length**2)
        covariance += (noise**2 + 1e-6) * pt.eye(n_points)
        pm.MvNormal("y", np.zeros(n_points), cov=covariance, observed=y)
    return model


def independent(n_dim):
    """Normals whose scales spread over a factor of a hundred."""
    scale = np.logspace(-1, 1, n_dim)
    with pm.Model() as model:
        pm.Normal("theta", 0, scale, shape=n_dim)
    return model


STEP_TIME = {
    "logistic 500 x 20": lambda: logistic(500, 20),
    "logistic 50 000 x 50": lambda: logistic(50_000, 50),
    "hierarchical, 1000 groups": lambda: hierarchical(1000),
    "Gaussian process, 100 points": lambda: gaussian_process(100),
    "planted, d = 20": lambda: planted(20, 5).model(),
    "planted, d = 200": lambda: planted(200, 5).model(),
}
