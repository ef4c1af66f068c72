"""The fits that trust.py judges, and simulators of data from the prior."""

import numpy as np
import pymc as pm
from scipy import stats

from problems.models import autoregressive, planted_modes
from problems.posteriors import PARAMS, load_draws, load_model

DRAWS = 10_000
EARLY = {"n": 40, "schedule": "constant"}  # a fit that is stopped early


def bimodal():
    """Two modes of equal mass, at about -2 and 2, and draws from them."""
    y = (3.8, 4.3, 4.1)
    with pm.Model() as model:
        theta = pm.Normal("theta", 0, 3)
        pm.Normal("y", theta**2, 1, observed=y)
    grid = np.linspace(-4, 4, 20_001)
    log_p = stats.norm(0, 3).logpdf(grid) + sum(stats.norm(grid**2, 1).logpdf(v) for v in y)
    p = np.exp(log_p - log_p.max())
    return model, {"theta": np.random.default_rng(0).choice(grid, DRAWS, p=p / p.sum())}


def gaussian_chain(n_dim=50, rho=0.99):
    """Draws from an autoregressive Gaussian, beside its model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(DRAWS, n_dim))
    for i in range(1, n_dim):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * x[:, i]
    return autoregressive(n_dim, rho), {"x": x}


def cases(database):
    """Yield 20 fits: name, model, exact draws by name, options."""

    def of_database(label, name, **options):
        draws = load_draws(database, name)
        draws = {param: draws[param] for param in PARAMS[name]}
        return f"{name}, {label}", load_model(database, name), draws, options

    regressions = ("kidscore_interaction", "blr", "logearn_interaction", "nes")
    kid, blr, earnings, nes = regressions
    for name in ("eight_schools_centered", "eight_schools_noncentered", *regressions):
        yield of_database("default", name)
    yield of_database("default", "low_dim_gauss_mix")
    for label, options in (("default", {}), ("K = 1", {"n_components": 1})):
        yield f"two modes, {label}", *bimodal(), options
    for label, options in (("default", {}), ("diagonal", {"metric": "diag"})):
        yield f"AR(1), d = 50, {label}", *gaussian_chain(), options
    rng = np.random.default_rng(1)
    for n_dim, n_modes in ((10, 4), (2, 5)):
        modes = planted_modes(n_dim, n_modes)
        draws = {"x": modes.draws(DRAWS)}
        one = modes.means[0] + modes.deviations[0] * rng.normal(size=(50, n_dim))
        if n_dim == 2:
            yield (
                "planted, d = 2, K = 1",
                modes.model(),
                draws,
                {"n_components": 1, "start": one[:1]},
            )
            continue
        everywhere = rng.uniform(-modes.box, modes.box, (50, n_dim))
        yield "planted, d = 10, starts everywhere", modes.model(), draws, {"start": everywhere}
        yield "planted, d = 10, starts in one mode", modes.model(), draws, {"start": one}
    yield of_database("identity", kid, metric="identity")
    yield of_database("identity", blr, metric="identity")
    yield of_database("diagonal", kid, metric="diag")
    yield of_database("stopped early", nes, **EARLY)
    yield of_database("stopped early", earnings, **EARLY)
    yield of_database("K = 1, diagonal", "eight_schools_centered", n_components=1, metric="diag")


def regression(rng):
    """Four coefficients and a standard deviation, thirty rows; simulate() gives truth and data."""
    x = np.random.default_rng(0).normal(size=(30, 4))
    with pm.Model() as model:
        y = pm.Data("y_data", np.zeros(30))
        beta, sigma = pm.Normal("beta", 0, 1, shape=4), pm.HalfNormal("sigma", 1)
        pm.Normal("y", x @ beta, sigma, observed=y)

    def simulate():
        truth = {"beta": rng.normal(size=4), "sigma": abs(rng.normal())}
        return truth, x @ truth["beta"] + truth["sigma"] * rng.normal(size=30)

    return model, simulate
