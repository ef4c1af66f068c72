"""The fits that trust.py judges, and conjugate models with their exact evidence."""

import numpy as np
import pymc as pm
from hard_models import autoregressive, planted_mixture
from posteriors import load_draws, load_model
from scipy import stats
from scipy.special import betaln, gammaln

DRAWS = 10_000
EARLY = 40  # steps of a fit that is stopped early


def bimodal():
    """Two modes of equal mass, at about -2 and 2, and draws from them."""
    with pm.Model() as model:
        theta = pm.Normal("theta", 0, 3)
        pm.Normal("y", theta**2, 1, observed=[3.8, 4.3, 4.1])
    grid = np.linspace(-4, 4, 20_001)
    log_p = stats.norm(0, 3).logpdf(grid)
    log_p += sum(stats.norm(grid**2, 1).logpdf(y) for y in (3.8, 4.3, 4.1))
    p = np.exp(log_p - log_p.max())
    draws = np.random.default_rng(0).choice(grid, DRAWS, p=p / p.sum())
    return model, {"theta": draws}


def gaussian_chain(n_dim=50, rho=0.99):
    """Draws from an autoregressive Gaussian, beside its model."""
    rng = np.random.default_rng(0)
    x = np.empty((DRAWS, n_dim))
    x[:, 0] = rng.normal(size=DRAWS)
    for i in range(1, n_dim):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * rng.normal(size=DRAWS)
    return autoregressive(n_dim, rho), {"x": x}


def planted(n_dim, n_modes):
    """Planted modes, draws from them, and starts."""
    model, truth = planted_mixture(n_dim, n_modes, seed=10 * n_dim + n_modes)
    rng = np.random.default_rng(0)
    mode = rng.choice(n_modes, DRAWS, p=truth["weights"])
    noise = rng.normal(size=(DRAWS, n_dim))
    draws = {"x": truth["means"][mode] + truth["deviations"][mode] * noise}
    everywhere = rng.uniform(-truth["box"], truth["box"], (50, n_dim))
    one_mode = truth["means"][0] + truth["deviations"][0] * rng.normal(size=(50, n_dim))
    return model, draws, everywhere, one_mode


def cases(database):
    """Yield 20 fits: name, model, exact draws, options."""

    def of_database(name):
        return load_model(database, name), load_draws(database, name)

    schools = "eight_schools-eight_schools_"
    kid, blr = "kidiq-kidscore_interaction", "sblrc-blr"
    earnings, nes = "earnings-logearn_interaction", "nes2000-nes"
    mixture = "low_dim_gauss_mix-low_dim_gauss_mix"
    for name in (f"{schools}centered", f"{schools}noncentered", kid, blr, earnings, nes, mixture):
        yield f"{name}, default", *of_database(name), {}
    model, draws = bimodal()
    yield "two modes, default", model, draws, {}
    yield "two modes, K = 1", model, draws, {"n_components": 1}
    model, draws = gaussian_chain()
    yield "AR(1), d = 50, default", model, draws, {}
    yield "AR(1), d = 50, diagonal", model, draws, {"metric": "diag"}
    model, draws, everywhere, one_mode = planted(10, 4)
    yield "planted, d = 10, starts everywhere", model, draws, {"start": everywhere}
    yield "planted, d = 10, starts in one mode", model, draws, {"start": one_mode}
    model, draws, everywhere, one_mode = planted(2, 5)
    yield "planted, d = 2, K = 1", model, draws, {"n_components": 1, "start": one_mode[:1]}
    yield f"{kid}, identity", *of_database(kid), {"metric": "identity"}
    yield f"{blr}, identity", *of_database(blr), {"metric": "identity"}
    yield f"{kid}, diagonal", *of_database(kid), {"metric": "diag"}
    yield f"{nes}, stopped early", *of_database(nes), {"n": EARLY, "schedule": "constant"}
    yield f"{earnings}, stopped early", *of_database(earnings), {"n": EARLY, "schedule": "constant"}
    name = f"{schools}centered"
    yield f"{name}, K = 1, diagonal", *of_database(name), {"n_components": 1, "metric": "diag"}


def conjugate():
    """Yield name, model, exact log evidence."""
    rng = np.random.default_rng(3)
    y = rng.normal(1.0, 1.0, size=10)
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu", 0, 3), 1.0, observed=y)
    exact = stats.multivariate_normal(np.zeros(10), np.eye(10) + 9.0).logpdf(y)
    yield "normal mean", model, exact
    x = rng.normal(size=(40, 6))
    y = x @ rng.normal(size=6) + 0.5 * rng.normal(size=40)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 2, shape=6)
        pm.Normal("y", x @ beta, 0.5, observed=y)
    exact = stats.multivariate_normal(np.zeros(40), 0.25 * np.eye(40) + 4 * x @ x.T).logpdf(y)
    yield "regression, d = 6", model, exact
    with pm.Model() as model:
        pm.Binomial("y", 20, pm.Beta("p", 2, 2), observed=3)
    choose = gammaln(21) - gammaln(4) - gammaln(18)
    yield "beta-binomial", model, choose + betaln(5, 19) - betaln(2, 2)
    counts = rng.poisson(4.0, size=15)
    with pm.Model() as model:
        pm.Poisson("y", pm.Gamma("rate", 2, 1), observed=counts)
    total = counts.sum()
    exact = gammaln(2 + total) - (2 + total) * np.log(16.0) - gammaln(counts + 1).sum()
    yield "gamma-Poisson", model, float(exact)
    counts = np.array([12, 7, 3, 1])
    with pm.Model() as model:
        pm.Multinomial("y", 23, pm.Dirichlet("p", np.ones(4)), observed=counts)
    exact = gammaln(24) + gammaln(4) - gammaln(27)
    yield "Dirichlet-multinomial", model, float(exact)
