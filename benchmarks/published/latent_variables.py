"""Factor analysis, structural equations, matrix factorisation, networks of positions."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"
SEM = f"{GALLERY}: Confirmatory Factor Analysis and Structural Equation Models, N. Forde"


def questionnaire(rng, n=283):
    """Satisfaction, self-efficacy and support: two indicators or three of each factor."""
    factors = rng.multivariate_normal(np.zeros(2), [[1, 0.6], [0.6, 1]], n) * 0.8
    loading = np.array([[1, 0], [0.9, 0], [0.8, 0], [0, 1], [0, 0.8], [0, 1.1]])
    return 5 + factors @ loading.T + rng.normal(0, 0.5, (n, 6))


@published("cfa", SEM)
def cfa():
    """Two factors, three indicators each, first loadings one."""
    y = questionnaire(np.random.default_rng(1))
    with pm.Model(
        coords={"obs": np.arange(283), "indicator": np.arange(6), "latent": ["a", "b"]}
    ) as model:
        psi = pm.InverseGamma("Psi", 5, 10, dims="indicator")
        lambdas = [pm.Normal(f"lambdas{i}", 1, 10, shape=2) for i in (1, 2)]
        tau = pm.Normal("tau", 3, 10, dims="indicator")
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol_cov", n=2, eta=1, sd_dist=sd)
        ksi = pm.MvNormal("ksi", 0, chol=chol, dims=("obs", "latent"))
        full = [pt.concatenate([[1.0], own]) for own in lambdas]
        mean = pt.concatenate([ksi[:, :1] * full[0], ksi[:, 1:] * full[1]], axis=1)
        pm.Normal("likelihood", tau + mean, psi, observed=y)
    return model


@published("sem", SEM)
def sem():
    """Three factors of eleven indicators; the third regresses on the others."""
    rng = np.random.default_rng(2)
    first = rng.multivariate_normal(np.zeros(2), [[0.6, 0.3], [0.3, 0.6]], 283)
    outcome = 0.5 * first[:, 0] + 0.3 * first[:, 1] + rng.normal(0, 0.4, 283)
    factors = np.column_stack([first, outcome])
    member = np.repeat([0, 1, 2], [4, 4, 3])
    y = 5 + factors[:, member] * rng.uniform(0.8, 1.1, 11) + rng.normal(0, 0.5, (283, 11))
    with pm.Model(coords={"obs": np.arange(283), "indicator": np.arange(11)}) as model:
        psi = pm.InverseGamma("Psi", 5, 10, dims="indicator")
        tau = pm.Normal("tau", 3, 0.5, dims="indicator")
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol_cov", n=2, eta=1, sd_dist=sd)
        ksi = pm.MvNormal("ksi", 0, chol=chol, shape=(283, 2))
        beta = pm.Normal("beta_r", 0, 0.5, shape=2)
        regression = pm.Deterministic("regression", pt.dot(ksi, beta))
        eta = pm.Normal("eta", regression, pm.HalfNormal("sigma_regr", 1), dims="obs")
        columns = [ksi[:, 0], ksi[:, 1], eta]
        mean = []
        for i, size in enumerate((4, 4, 3)):
            own = pt.concatenate([[1.0], pm.Normal(f"lambdas{i}", 1, 0.5, shape=size - 1)])
            mean.append(columns[i][:, None] * own)
        pm.Normal("likelihood", tau + pt.concatenate(mean, axis=1), psi, observed=y)
    return model


def factor_data():
    rng = np.random.default_rng(3)
    loadings = rng.normal(size=(10, 2)) / np.sqrt(2)
    return loadings @ rng.normal(size=(2, 250)) + 0.5 * rng.normal(size=(10, 250))


def lower_loadings(expand):
    """Loadings (10, 2), lower triangular with a positive diagonal, increasing downwards."""
    diagonal = pm.HalfNormal("W_diag", 1, shape=2)
    below = pm.Normal("W_z", 0, 1, shape=17)
    rows, columns = np.tril_indices(10, -1, 2)
    w = pt.set_subtensor(pt.zeros((10, 2))[rows, columns], below)
    w = pt.set_subtensor(w[[0, 1], [0, 1]], pt.cumsum(diagonal) if expand else diagonal)
    return pm.Deterministic("W", w)


FACTORS = f"{GALLERY}: Factor analysis, C. Hartl, C. Krapu, O. Abril-Pla, E. Ocampo"


@published("factor analysis", FACTORS)
def factor_analysis():
    """250 rows of ten columns, two factors; scores of each row are variables."""
    y = factor_data()
    with pm.Model(coords={"row": np.arange(250), "latent": [0, 1]}) as model:
        w = lower_loadings(expand=True)
        f = pm.Normal("F", 0, 1, dims=("latent", "row"))
        psi = pm.HalfNormal("psi", 1)
        pm.Normal("X", w @ f, psi, observed=y)
    return model


@published("factor analysis, integrated", FACTORS)
def factor_analysis_integrated():
    y = factor_data()
    with pm.Model() as model:
        w = lower_loadings(expand=True)
        psi = pm.HalfNormal("psi", 1)
        cov = w @ w.T + psi**2 * pt.eye(10)
        pm.MvNormal("X", np.zeros(10), cov=cov, observed=y.T)
    return model


@published(
    "matrix factorisation",
    f"{GALLERY}: Probabilistic Matrix Factorization for Making Recommendations, M. Sweeney et al.",
    report=("rating",),
)
def matrix_factorisation():
    """200 users, 300 films, five dimensions, 12 000 ratings; factors may rotate, ratings not."""
    rng = np.random.default_rng(4)
    user, film = rng.integers(0, 200, 12_000), rng.integers(0, 300, 12_000)
    u, v = rng.normal(0, 0.6, (200, 5)), rng.normal(0, 0.6, (300, 5))
    y = (u[user] * v[film]).sum(1) + 0.7 * rng.normal(size=12_000)
    with pm.Model(coords={"user": range(200), "film": range(300), "factor": range(5)}) as model:
        u = pm.MvNormal("U", np.zeros(5), tau=3 * np.eye(5), dims=("user", "factor"))
        v = pm.MvNormal("V", np.zeros(5), tau=3 * np.eye(5), dims=("film", "factor"))
        pm.Normal("R", (u[user] * v[film]).sum(1), tau=2.0, observed=y)
        pm.Deterministic("rating", (u[:30] * v[:30]).sum(1))
    return model


@published(
    "latent ratings",
    "lme4 and MixedModels examples: InstEval, students rate lecturers; a fifth of it",
)
def ratings():
    rng = np.random.default_rng(5)
    user, item = rng.integers(0, 1000, 15_000), rng.integers(0, 300, 15_000)
    y = 3.5 + rng.normal(0, 0.5, 1000)[user] + rng.normal(0, 0.7, 300)[item]
    y = y + rng.normal(0, 0.9, 15_000)
    with pm.Model(coords={"user": range(1000), "item": range(300)}) as model:
        mu = pm.Normal("mu", 3, 2)
        user_sd, item_sd = pm.HalfNormal("sd_user", 1), pm.HalfNormal("sd_item", 1)
        by_user = pm.Normal("by_user", 0, user_sd, dims="user")
        by_item = pm.Normal("by_item", 0, item_sd, dims="item")
        mean = mu + by_user[user] + by_item[item]
        pm.Normal("y", mean, pm.HalfNormal("sigma", 1), observed=y)
    return model


@published(
    "growth of latent scores",
    "blavaan: bgrowth, latent growth of four waves, E. Merkle, Y. Rosseel",
)
def latent_growth():
    """Intercept and slope of 400 persons with a covariance, four waves, wave noise."""
    rng = np.random.default_rng(6)
    effects = rng.multivariate_normal([3, 0.5], [[1, 0.2], [0.2, 0.15]], 400)
    t = np.arange(4)
    y = effects[:, :1] + effects[:, 1:] * t + rng.normal(0, 0.6, (400, 4))
    with pm.Model(coords={"person": np.arange(400), "wave": t}) as model:
        mean = pm.Normal("mean", 0, 5, shape=2)
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=1, sd_dist=sd)
        eta = pm.MvNormal("eta", mean, chol=chol, shape=(400, 2))
        sigma = pm.HalfNormal("sigma", 1, dims="wave")
        pm.Normal("y", eta[:, :1] + eta[:, 1:] * t, sigma, observed=y)
    return model


@published(
    "covariance matrix",
    f"{GALLERY}: LKJ Cholesky Covariance Priors for Multivariate Normal Models, A. Rochford",
)
def covariance_matrix():
    rng = np.random.default_rng(7)
    sigma = np.array([[0.49, -0.42], [-0.42, 2.25]])
    x = rng.multivariate_normal([1, -2], sigma, 10_000)
    with pm.Model(coords={"axis": ["y", "z"]}) as model:
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, _, _ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=sd)
        mu = pm.Normal("μ", 0, 1.5, dims="axis")
        pm.MvNormal("obs", mu, chol=chol, observed=x)
    return model
