"""Times to an event: proportional hazards, accelerated failure, frailty, discrete time."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"
COX = f"{GALLERY}: Bayesian Survival Analysis, A. Rochford, F. Cheng"


def mastectomy():
    """44 patients: months, whether the end was observed, whether metastasised."""
    rng = np.random.default_rng(1)
    metastasised = np.repeat([1, 0], [32, 12])
    time = np.ceil(rng.weibull(1.1, 44) * np.where(metastasised, 110, 260)).astype(int)
    censored = rng.integers(70, 225, 44)
    return np.minimum(time, censored), (time <= censored).astype(int), metastasised


def by_interval(time, event, width):
    """Deaths and exposures by patient and interval."""
    bounds = np.arange(0, time.max() + width + 1, width)
    last = np.floor((time - 0.01) / width).astype(int)
    n = len(bounds) - 1
    deaths, exposure = np.zeros((len(time), n)), np.zeros((len(time), n))
    deaths[np.arange(len(time)), last] = event
    for i in range(n):
        exposure[:, i] = np.clip(time - bounds[i], 0, width)
    return deaths, exposure


@published("cox", COX)
def cox():
    """Piecewise constant hazard of intervals of three months, as Poisson counts."""
    time, event, metastasised = mastectomy()
    deaths, exposure = by_interval(time, event, 3)
    with pm.Model(coords={"interval": np.arange(deaths.shape[1])}) as model:
        hazard = pm.Gamma("lambda0", 0.01, 0.01, dims="interval")
        beta = pm.Normal("beta", 0, 1000)
        rate = pm.Deterministic("lambda_", pt.outer(pt.exp(beta * metastasised), hazard))
        pm.Poisson("obs", exposure * rate + np.finfo(float).eps, observed=deaths)
    return model


@published("cox, effect that varies in time", COX)
def cox_time_varying():
    time, event, metastasised = mastectomy()
    deaths, exposure = by_interval(time, event, 3)
    with pm.Model(coords={"interval": np.arange(deaths.shape[1])}) as model:
        hazard = pm.Gamma("lambda0", 0.01, 0.01, dims="interval")
        start = pm.Normal.dist(0, 1)
        beta = pm.GaussianRandomWalk("beta", sigma=1.0, init_dist=start, dims="interval")
        rate = pm.Deterministic("h", hazard * pt.exp(metastasised[:, None] * beta))
        pm.Poisson("obs", exposure * rate + np.finfo(float).eps, observed=deaths)
    return model


@published(
    "weibull, gumbel form",
    f"{GALLERY}: Bayesian Parametric Survival Analysis, A. Rochford, F. Cheng",
)
def weibull_gumbel():
    """Log times are Gumbel; censored ones have a potential."""
    time, event, metastasised = mastectomy()
    x = np.column_stack([np.ones(44), metastasised])
    y = np.log(time)
    y, dead = (y - y.mean()) / y.std(), event == 1
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        eta = x @ beta
        s = pm.HalfNormal("s", 5)
        pm.Gumbel("events", eta[dead], s, observed=y[dead])
        z = (y[~dead] - eta[~dead]) / s
        pm.Potential("y_cens", pt.log1mexp(-pt.exp(-z)))
    return model


@published(
    "log-logistic", f"{GALLERY}: Bayesian Parametric Survival Analysis, A. Rochford, F. Cheng"
)
def log_logistic():
    time, event, metastasised = mastectomy()
    x = np.column_stack([np.ones(44), metastasised])
    y = np.log(time)
    y, dead = (y - y.mean()) / y.std(), event == 1
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 5, shape=2)
        eta = x @ beta
        s = pm.HalfNormal("s", 5)
        pm.Logistic("events", eta[dead], s, observed=y[dead])
        pm.Potential("y_cens", -pt.softplus((y[~dead] - eta[~dead]) / s))
    return model


WEIBULL = f"{GALLERY}: Reparameterizing the Weibull Accelerated Failure Time Model, J. Lao, G. Ho"


@published("weibull aft", WEIBULL)
def weibull_aft():
    """147 times with a tenth censored, the scale as a power."""
    rng = np.random.default_rng(2)
    y = rng.weibull(0.9, 147) * 550
    censored = y > 1000
    y = np.minimum(y, 1000)
    with pm.Model() as model:
        alpha_sd = 10.0
        mu = pm.Normal("mu", 0, 100)
        alpha_raw = pm.Normal("a0", 0, 0.1)
        alpha = pm.Deterministic("alpha", pt.exp(alpha_sd * alpha_raw))
        beta = pm.Deterministic("beta", pt.exp(mu / alpha))
        pm.Weibull("y_obs", alpha, beta, observed=y[~censored])
        pm.Potential("y_cens", (-((y[censored] / beta) ** alpha)).sum())
    return model


CENSORED = f"{GALLERY}: Censored Data Models, L. M. Domenzain"


def censored_normals():
    rng = np.random.default_rng(3)
    y = rng.normal(13, 5, 500)
    return y, y <= 3, y >= 16


@published("censored, imputed", CENSORED)
def censored_imputed():
    """A third of five hundred normals are censored, and each is a variable."""
    y, left, right = censored_normals()
    inside = ~left & ~right
    n_right, n_left = int(right.sum()), int(left.sum())
    with pm.Model() as model:
        mu, sigma = pm.Normal("mu", 8, 10), pm.HalfNormal("sigma", 10)
        interval = pm.distributions.transforms.Interval
        pm.Normal(
            "right_censored", mu, sigma, transform=interval(16, None), shape=n_right,
            initval=np.full(n_right, 17.0),
        )  # fmt: skip
        pm.Normal(
            "left_censored", mu, sigma, transform=interval(None, 3), shape=n_left,
            initval=np.full(n_left, 2.0),
        )  # fmt: skip
        pm.Normal("observed", mu, sigma, observed=y[inside])
    return model


@published("censored, integrated", CENSORED)
def censored_integrated():
    y, _, _ = censored_normals()
    with pm.Model() as model:
        mu, sigma = pm.Normal("mu", 8, 10), pm.HalfNormal("sigma", 10)
        latent = pm.Normal.dist(mu, sigma)
        pm.Censored("censored", latent, lower=3, upper=16, observed=np.clip(y, 3, 16))
    return model


@published("frailty", f"{GALLERY}: Frailty and Survival Regression Models, N. Forde")
def frailty():
    """Retention of 1500 employees over twelve months, frailties of nine fields of work."""
    rng = np.random.default_rng(4)
    n = 1500
    sentiment, intention, male = (
        rng.integers(1, 11, n),
        rng.integers(1, 11, n),
        rng.integers(0, 2, n),
    )
    field = rng.integers(0, 9, n)
    risk = -0.03 * (sentiment - 5) + 0.18 * (intention - 5) - 0.1 * male
    risk = risk + np.log(rng.gamma(8, 1 / 8, 9))[field]
    time = np.ceil(rng.exponential(1 / (0.06 * np.exp(risk)))).astype(int)
    event = time <= 12
    deaths, exposure = by_interval(np.minimum(time, 12), event, 1)
    deaths, exposure = deaths[:, :12], exposure[:, :12]
    x = np.column_stack([male, (sentiment - 5) / 3, (intention - 5) / 3])
    coords = {"interval": np.arange(12), "field": np.arange(9), "pred": ["male", "sent", "int"]}
    with pm.Model(coords=coords) as model:
        hazard = pm.Gamma("lambda0", 0.01, 0.01, dims="interval")
        beta = pm.Normal("beta", 0, 1, dims="pred")
        mu_frailty = pm.Normal("mu_frailty", 1, 0.01)
        sigma_frailty = pm.HalfNormal("sigma_frailty", 1)
        effect = pm.Gamma("frailty", mu=mu_frailty, sigma=sigma_frailty, dims="field")
        rate = effect[field, None] * pt.exp(x @ beta)[:, None] * hazard
        pm.Poisson("obs", exposure * rate + 1e-12, observed=deaths)
    return model


@published(
    "kidney frailty", "Stan example models: BUGS volume 1, Kidney, Weibull regression with frailty"
)
def kidney():
    """Two infections of each of 38 patients, Weibull with a normal frailty."""
    rng = np.random.default_rng(5)
    patient, age = np.repeat(np.arange(38), 2), np.repeat(rng.uniform(10, 70, 38), 2)
    female, disease = np.repeat(rng.binomial(1, 0.74, 38), 2), np.repeat(rng.integers(0, 4, 38), 2)
    eta = -4.5 + 0.003 * age - 1.5 * female + rng.normal(0, 0.7, 38)[patient]
    time = rng.weibull(1.2, 76) * np.exp(-eta / 1.2) + 1
    bound = rng.uniform(20, 500, 76)
    event, time = time < bound, np.minimum(time, bound)
    with pm.Model(coords={"patient": np.arange(38)}) as model:
        alpha, b_age, b_sex = (
            pm.Normal(name, 0, 100) for name in ("alpha", "beta_age", "beta_sex")
        )
        b_disease = pm.Normal("beta_disease", 0, 100, shape=3)
        tau = pm.Gamma("tau", 1e-3, 1e-3, initval=0.3)
        shape = pm.Gamma("r", 1, 1e-3, initval=1.0)
        b = pm.Normal("b", 0, tau**-0.5, dims="patient")
        pm.Deterministic("sigma", tau**-0.5)
        effects = pt.concatenate([[0.0], b_disease])
        eta = alpha + b_age * age + b_sex * female + effects[disease] + b[patient]
        log_hazard = pt.log(shape) + (shape - 1) * np.log(time) + eta
        pm.Potential("likelihood", (event * log_hazard - pt.exp(eta) * time**shape).sum())
    return model


@published(
    "discrete-time survival", "Bambi notebooks: Survival Analysis (discrete time), T. Capretto"
)
def discrete_time():
    """Adoptions of cats by colour: a row for each cat and week, cloglog link."""
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(6)
    colour = rng.choice(["black", "other"], 1000)
    weeks = rng.geometric(np.where(colour == "black", 0.12, 0.17))
    event = weeks <= 12
    weeks = np.minimum(weeks, 12)
    cat = np.repeat(np.arange(1000), weeks)
    week = np.concatenate([np.arange(1, w + 1) for w in weeks])
    adopted = (week == weeks[cat]) & event[cat]
    data = pd.DataFrame(
        {"adopted": adopted.astype(int), "week": week.astype(str), "color": colour[cat]}
    )
    data = data.groupby(["week", "color"])["adopted"].agg(["sum", "size"]).reset_index()
    data = data.rename(columns={"sum": "adopted", "size": "n"})
    formula = "p(adopted, n) ~ 0 + week + color"
    built = bmb.Model(formula, data, family="binomial", link="cloglog")
    built.build()
    return built.backend.model


@published("cat adoptions", "Bambi notebooks: Survival Models; censored exponential responses")
def cat_adoptions():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(7)
    color = rng.choice(["Black", "Other"], 2234, p=[0.2, 0.8])
    days = rng.exponential(np.where(color == "Black", 50, 43)) + 0.5
    bound = rng.exponential(90, 2234) + 1
    status = np.where(days < bound, "none", "right")
    data = pd.DataFrame({"days": np.minimum(days, bound), "status": status, "color": color})
    built = bmb.Model("censored(days, status) ~ 0 + color", data, family="exponential", link="log")
    built.build()
    return built.backend.model
