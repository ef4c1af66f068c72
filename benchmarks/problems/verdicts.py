"""Fits that the verdict is judged on, right and wrong ones, with exact draws.

``CASES[name]()`` is ``(model, draws (S, d)), options``, unconstrained space; ``UNSEEN`` are those
on which no rule was set.
"""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_isomix as pmi

S = 20_000
SCHOOLS_Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SCHOOLS_SE = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
EARLY = {"n": 40, "schedule": "constant"}
AFFINE = {"coordinates": "affine"}  # no sites: what hierarchies are wrong without


# Models with exact draws (S, d), unconstrained space


def on_grid(model, low, high, points=400):
    """Draw from a model of one or two dimensions."""
    axes = [
        np.linspace(a, b, points if len(low) == 2 else 20_000)
        for a, b in zip(low, high, strict=True)
    ]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    log_p = pmi.IsotropicMixture(model=model).compiled_model().log_density(mesh)
    p = np.exp(log_p - np.nanmax(log_p))
    rng = np.random.default_rng(0)
    draws = mesh[rng.choice(len(mesh), S, p=p / p.sum())]
    return draws + (rng.random(draws.shape) - 0.5) * [axis[1] - axis[0] for axis in axes]


def grid(build, low, high):
    with pm.Model() as model:
        build()
    return model, on_grid(model, low, high)


def normal_mean():
    rows = np.random.default_rng(1).normal(2.0, 1.0, size=20)
    return grid(lambda: pm.Normal("y", pm.Normal("mu", 0, 10), 1.0, observed=rows), [0], [4])


def normal_mean_and_scale():
    rows = np.random.default_rng(2).normal(2.0, 3.0, size=12)

    def build():
        pm.Normal("y", pm.Normal("mu", 0, 10), pm.HalfNormal("sigma", 5), observed=rows)

    return grid(build, [-5, -0.5], [9, 2.5])


def beta_binomial():
    return grid(lambda: pm.Binomial("y", 20, pm.Beta("p", 2, 2), observed=3), [-6], [3])


def gamma_poisson():
    counts = np.random.default_rng(1).poisson(4.0, size=15)
    return grid(lambda: pm.Poisson("y", pm.Gamma("rate", 2, 1), observed=counts), [0], [3])


def dirichlet():
    counts = np.array([12, 7, 3])
    return grid(
        lambda: pm.Multinomial("y", 22, pm.Dirichlet("p", np.ones(3)), observed=counts),
        [-4, -4],
        [4, 4],
    )


def two_modes():
    def build():
        pm.Normal("y", pm.Normal("theta", 0, 3) ** 2, 1, observed=[3.8, 4.3, 4.1])

    return grid(build, [-4], [4])


def logistic(scale=1.0):
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(60), scale * rng.normal(size=60)])
    y = rng.random(60) < 1 / (1 + np.exp(-x @ [0.5, 1.0 / scale]))

    def build():
        beta = pm.Normal("beta", 0, [5, 5 / scale], shape=2)
        pm.Bernoulli("y", logit_p=x @ beta, observed=y.astype(int))

    return grid(build, [-2, -2 / scale], [3, 5 / scale])


def robust_location():
    rows = np.r_[np.random.default_rng(5).normal(1.0, 1.0, size=15), 12.0]

    def build():
        mu, sigma = pm.Normal("mu", 0, 10), pm.HalfNormal("sigma", 5)
        pm.StudentT("y", nu=4, mu=mu, sigma=sigma, observed=rows)

    return grid(build, [-3, -2], [5, 2.5])


def poisson_regression():
    rng = np.random.default_rng(6)
    x = rng.normal(size=50)
    y = rng.poisson(np.exp(0.3 + 0.7 * x))

    def build():
        beta = pm.Normal("beta", 0, 3, shape=2)
        pm.Poisson("y", pm.math.exp(beta[0] + beta[1] * x), observed=y)

    return grid(build, [-1, -0.5], [1.5, 2])


def weibull():
    rows = 2.0 * np.random.default_rng(7).weibull(1.5, size=25)

    def build():
        alpha, beta = pm.HalfNormal("alpha", 3), pm.HalfNormal("beta", 5)
        pm.Weibull("y", alpha, beta, observed=rows)

    return grid(build, [-1.5, -1], [2, 2.5])


def minibatch(scaled):
    rows = np.random.default_rng(8).normal(1.0, 2.0, size=2000)
    with pm.Model() as model:
        mu, sigma = pm.Normal("mu", 0, 10), pm.HalfNormal("sigma", 5)
        batch = pm.Minibatch(rows, batch_size=100)
        pm.Normal("y", mu, sigma, observed=batch, total_size=2000 if scaled else None)
    return model, on_grid(model, [0.5, 0.5], [1.5, 0.9], points=120)


def regression(correlated=False):
    rng = np.random.default_rng(9)
    x = rng.normal(size=(60, 6))
    if correlated:
        x[:, 1:] = x[:, :1] + 0.1 * x[:, 1:]
    y = x @ rng.normal(size=6) + 0.5 * rng.normal(size=60)
    with pm.Model() as model:
        pm.Normal("y", x @ pm.Normal("beta", 0, 2, shape=6), 0.5, observed=y)
    precision = x.T @ x / 0.25 + np.eye(6) / 4
    mean = np.linalg.solve(precision, x.T @ y / 0.25)
    return model, rng.multivariate_normal(mean, np.linalg.inv(precision), size=S)


def chain(n_dim, rho=0.99):
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        steps = (x[1:] - rho * x[:-1]) / np.sqrt(1 - rho**2)
        pm.Potential("density", -0.5 * (x[0] ** 2 + (steps**2).sum()))
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(S, n_dim))
    for i in range(1, n_dim):
        draws[:, i] = rho * draws[:, i - 1] + np.sqrt(1 - rho**2) * draws[:, i]
    return model, draws


def planted(n_dim, n_modes):
    rng = np.random.default_rng(100 * n_dim + n_modes)
    places = rng.uniform(-20, 20, size=(n_modes, n_dim))
    weights = rng.dirichlet(np.full(n_modes, 5.0))
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        terms = [
            np.log(w) - 0.5 * ((x - m) ** 2).sum() for w, m in zip(weights, places, strict=True)
        ]
        pm.Potential("density", pt.logsumexp(pt.stack(terms)))
    mode = rng.choice(n_modes, S, p=weights)
    starts = {"everywhere": rng.uniform(-20, 20, size=(50, n_dim))}
    starts["in one mode"] = places[0] + rng.normal(size=(50, n_dim))
    return model, places[mode] + rng.normal(size=(S, n_dim)), starts


def banana(curvature=0.5):
    with pm.Model() as model:
        x = pm.Normal("x", 0, 2)
        pm.Normal("y", curvature * x**2, 0.5)
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=S)
    return model, np.column_stack([x, curvature * x**2 + 0.5 * rng.normal(size=S)])


def funnel(n_dim=4):
    with pm.Model() as model:
        v = pm.Normal("v", 0, 2)
        pm.Normal("x", 0, pm.math.exp(v / 2), shape=n_dim)
    rng = np.random.default_rng(0)
    v = 2 * rng.normal(size=(S, 1))
    return model, np.column_stack([v, np.exp(v / 2) * rng.normal(size=(S, n_dim))])


def heavy(nu=3):
    with pm.Model() as model:
        pm.StudentT("x", nu=nu, shape=3)
    return model, np.random.default_rng(0).standard_t(nu, size=(S, 3))


def groups(y, error, *, centred, scale=5.0):
    """A hierarchy with known errors; the means are drawn given the spread, which has a grid."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfNormal("tau", scale)
        if centred:
            theta = pm.Normal("theta", mu, tau, shape=len(y))
        else:
            theta = mu + tau * pm.Normal("offset", shape=len(y))
        pm.Normal("y", theta, error, observed=y)
    rng = np.random.default_rng(0)
    t = np.linspace(-9, np.log(6 * scale), 20_000)
    precision = 1 / (error[:, None] ** 2 + np.exp(2 * t))  # (J, T)
    total = precision.sum(axis=0) + 1 / 25
    centre = (precision * y[:, None]).sum(axis=0) / total
    log_p = t - 0.5 * np.exp(2 * t) / scale**2 + 0.5 * np.log(precision).sum(axis=0)
    log_p += 0.5 * (total * centre**2 - (precision * y[:, None] ** 2).sum(axis=0) - np.log(total))
    p = np.exp(log_p - log_p.max())
    chosen = rng.choice(len(t), S, p=p / p.sum())
    t, mu = t[chosen], centre[chosen] + rng.normal(size=S) / np.sqrt(total[chosen])
    share = 1 / (1 + error[:, None] ** 2 / np.exp(2 * t))
    theta = mu + share * (y[:, None] - mu)
    theta += np.exp(t) * np.sqrt(1 - share) * rng.normal(size=theta.shape)
    last = theta if centred else (theta - mu) / np.exp(t)
    return model, np.column_stack([mu, t, last.T])


def simulated_groups(n_groups, spread, error, *, centred):
    rng = np.random.default_rng(n_groups)
    errors = np.full(n_groups, error)
    y = rng.normal(1.0, spread, size=n_groups) + errors * rng.normal(size=n_groups)
    return groups(y, errors, centred=centred, scale=1.0)


def latent(design, spread, noise, seed):
    """Effects N(0, spread^2), non-centred, seen through a matrix with noise of unknown scale."""
    rng = np.random.default_rng(seed)
    n_rows, n_effects = design.shape
    y = spread * design @ rng.normal(size=n_effects) + noise * rng.normal(size=n_rows)
    with pm.Model() as model:
        s, o = pm.HalfNormal("s", 1), pm.HalfNormal("o", 1)
        pm.Normal("y", s * (design @ pm.Normal("x", shape=n_effects)), o, observed=y)
    values, vectors = np.linalg.eigh(design @ design.T)
    values, turned = np.maximum(values, 0), vectors.T @ y
    axis = np.linspace(-5, 1.5, 500)
    log_s, log_o = (m.ravel() for m in np.meshgrid(axis, axis, indexing="ij"))
    variance = np.exp(2 * log_s)[:, None] * values + np.exp(2 * log_o)[:, None]
    log_p = log_s + log_o - 0.5 * (np.exp(2 * log_s) + np.exp(2 * log_o))
    log_p -= 0.5 * (np.log(variance) + turned**2 / variance).sum(axis=1)
    p = np.exp(log_p - log_p.max())
    chosen = rng.choice(len(p), S, p=p / p.sum())
    s, o = np.exp(log_s[chosen])[:, None], np.exp(log_o[chosen])[:, None]
    prior = rng.normal(size=(S, n_effects))
    residual = y - s * (prior @ design.T) - o * rng.normal(size=(S, n_rows))
    solved = (residual @ vectors / (s**2 * values + o**2)) @ vectors.T
    return model, np.column_stack([np.log(s), np.log(o), prior + s * (solved @ design)])


def walk(n_steps):
    return latent(np.tril(np.ones((n_steps, n_steps))), 0.2, 1.0, seed=3)


def indicators(n_groups, n_each):
    return np.repeat(np.eye(n_groups), n_each, axis=0)


def of_planted(n_dim, n_modes, start, **options):
    model, draws, starts = planted(n_dim, n_modes)
    return (model, draws), {"start": starts[start][: options.get("n_components", 50)], **options}


ONE = {"n_components": 1}
CASES = {
    "normal mean": lambda: (normal_mean(), {}),
    "normal mean and scale": lambda: (normal_mean_and_scale(), {}),
    "beta-binomial": lambda: (beta_binomial(), {}),
    "Dirichlet": lambda: (dirichlet(), {}),
    "two modes": lambda: (two_modes(), {}),
    "two modes, K = 1": lambda: (two_modes(), ONE),
    "logistic": lambda: (logistic(), {}),
    "logistic, scales, identity, K = 1": lambda: (logistic(0.05), {"metric": "identity", **ONE}),
    "robust location": lambda: (robust_location(), {}),
    "minibatch": lambda: (minibatch(True), {}),
    "minibatch, total_size forgotten": lambda: (minibatch(False), {}),
    "regression": lambda: (regression(), {}),
    "regression, correlated": lambda: (regression(True), {}),
    "regression, correlated, identity": lambda: (regression(True), {"metric": "identity"}),
    "regression, correlated, diagonal, K = 1": lambda: (
        regression(True),
        {"metric": "diag", **ONE},
    ),
    "AR(1), d = 50": lambda: (chain(50), {}),
    "AR(1), d = 20, identity": lambda: (chain(20), {"metric": "identity"}),
    "AR(1), d = 20, stopped early": lambda: (chain(20), EARLY),
    "planted, d = 5": lambda: of_planted(5, 3, "everywhere"),
    "planted, d = 5, in one mode": lambda: of_planted(5, 3, "in one mode"),
    "banana": lambda: (banana(), {}),
    "banana, K = 1": lambda: (banana(), ONE),
    "funnel, K = 1": lambda: (funnel(), ONE),
    "heavy tails": lambda: (heavy(), {}),
    "schools, centred": lambda: (groups(SCHOOLS_Y, SCHOOLS_SE, centred=True), {}),
    "schools, non-centred": lambda: (groups(SCHOOLS_Y, SCHOOLS_SE, centred=False), {}),
    "schools, centred, affine": lambda: (groups(SCHOOLS_Y, SCHOOLS_SE, centred=True), AFFINE),
    "schools, centred, K = 1": lambda: (groups(SCHOOLS_Y, SCHOOLS_SE, centred=True), ONE),
    "40 weak groups": lambda: (simulated_groups(40, 0.2, 0.6, centred=False), {}),
    "Weibull, K = 1": lambda: (weibull(), ONE),
    "random walk": lambda: (walk(100), {}),
    "random walk, affine": lambda: (walk(100), AFFINE),
    "heritability": lambda: (latent(indicators(60, 2), 0.4, 0.8, seed=4), {}),
    "heritability, affine": lambda: (latent(indicators(60, 2), 0.4, 0.8, seed=4), AFFINE),
}
UNSEEN = {
    "gamma-Poisson": lambda: (gamma_poisson(), {}),
    "gamma-Poisson, stopped early": lambda: (gamma_poisson(), {**EARLY, "n": 8}),
    "Poisson regression": lambda: (poisson_regression(), {}),
    "Weibull": lambda: (weibull(), {}),
    "planted, d = 10": lambda: of_planted(10, 4, "everywhere"),
    "planted, d = 2, K = 1": lambda: of_planted(2, 4, "in one mode", n_components=1),
    "40 weak groups, centred": lambda: (simulated_groups(40, 0.2, 0.6, centred=True), {}),
    "40 weak groups, centred, affine": lambda: (
        simulated_groups(40, 0.2, 0.6, centred=True),
        AFFINE,
    ),
    "10 strong groups": lambda: (simulated_groups(10, 1.0, 0.3, centred=True), {}),
    "funnel": lambda: (funnel(), {}),
    "funnel, affine": lambda: (funnel(), AFFINE),
    "heavier tails, K = 1": lambda: (heavy(2.2), ONE),
    "AR(1), d = 100": lambda: (chain(100), {}),
    "heavy tails, nu = 6, K = 1": lambda: (heavy(6), ONE),
    "logistic, K = 1": lambda: (logistic(), ONE),
    "random walk, diagonal, K = 1": lambda: (walk(60), {"metric": "diag", **ONE}),
    "20 effects, many rows": lambda: (latent(indicators(20, 10), 0.6, 0.5, seed=5), {}),
    "logistic, stopped early": lambda: (logistic(), {**EARLY, "n": 8}),
    "Poisson regression, stopped early": lambda: (poisson_regression(), {**EARLY, "n": 8}),
    "regression, correlated, stopped early": lambda: (regression(True), {**EARLY, "n": 20}),
    "two modes, starts in one": lambda: (two_modes(), {"start": np.full((50, 1), 2.0)}),
    "planted, d = 20, in one mode": lambda: of_planted(20, 3, "in one mode"),
    "planted, d = 10, K = 1": lambda: of_planted(10, 3, "in one mode", n_components=1),
    "strongly bent banana, K = 1": lambda: (banana(1.5), ONE),
    "AR(1), d = 50, diagonal": lambda: (chain(50), {"metric": "diag"}),
    "AR(1), d = 100, identity, K = 1": lambda: (chain(100), {"metric": "identity", **ONE}),
    "schools, non-centred, affine, K = 1": lambda: (
        groups(SCHOOLS_Y, SCHOOLS_SE, centred=False),
        {**AFFINE, **ONE},
    ),
    "40 weak groups, centred, affine, K = 1": lambda: (
        simulated_groups(40, 0.2, 0.6, centred=True),
        {**AFFINE, **ONE},
    ),
    "random walk, affine, diagonal": lambda: (walk(60), {**AFFINE, "metric": "diag"}),
    "heritability, affine, diagonal, K = 1": lambda: (
        latent(indicators(60, 2), 0.4, 0.8, seed=4),
        {**AFFINE, "metric": "diag", **ONE},
    ),
    "funnel, d = 10, affine, K = 1": lambda: (funnel(9), {**AFFINE, **ONE}),
}
