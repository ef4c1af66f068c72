"""Twenty-five further models as users bring them, each fitted twice.

``MODELS[name]`` is a :class:`~problems.verdicts_sampled.Case`. Their author had not read the rules
of the verdict, nor which earlier fits had got a wrong one. No rule was changed after them.
"""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered
from scipy.interpolate import BSpline
from scipy.special import expit

from problems.verdicts_sampled import (
    AFFINE,
    AFFINE_ONE,
    IDENTITY_ONE,
    LONG,
    ONE,
    Case,
    effects,
    few,
    from_raw,
    on_grid,
    registry,
    stopped,
)

MODELS: dict[str, Case] = {}
case = registry(MODELS)
DIAGONAL_ONE = {"metric": "diag", **ONE}


def rng_of(seed):
    return np.random.default_rng(3000 + seed)


# Regressions


@case("loans that default, collinear", IDENTITY_ONE)
def loans():
    rng = rng_of(1)
    income = rng.normal(size=100)
    x = np.column_stack([income, income + 0.3 * rng.normal(size=100), rng.normal(size=(100, 2))])
    y = rng.random(100) < expit(-1.5 + x @ [0.8, 0.3, -0.5, 0.0])
    logit = pm.Normal("intercept", 0, 2.5) + x @ pm.Normal("slope", 0, 2.5, shape=4)
    pm.Bernoulli("y", logit_p=logit, observed=y.astype(int))


@case("visits to a doctor", few(12))
def visits():
    rng = rng_of(2)
    x = np.column_stack([np.ones(80), rng.normal(size=80), rng.integers(2, size=80)])
    mu = np.exp(x @ [1.0, 0.3, -0.6])
    y = rng.poisson(mu * rng.gamma(1.2, 1 / 1.2, size=80))
    rate = pm.math.exp(x @ pm.Normal("slope", 0, 2, shape=3))
    pm.NegativeBinomial("y", mu=rate, alpha=pm.Exponential("alpha", 1), observed=y)


@case("ninetieth percentile of rents", DIAGONAL_ONE)
def rents():
    rng = rng_of(3)
    area = rng.uniform(20, 120, size=60)
    y = 200 + 8 * area + area * rng.gamma(2, 1, size=60)
    line = pm.Normal("base", 200, 200) + pm.Normal("slope", 8, 5) * area
    pm.AsymmetricLaplace("y", mu=line, b=1 / pm.HalfNormal("scale", 50), q=0.9, observed=y)


@case("fish caught, zeros by choice", few(10))
def fish():
    rng = rng_of(4)
    hours, child = rng.uniform(0.5, 4, size=60), rng.integers(3, size=60)
    fishing = rng.random(60) < expit(1 - 0.9 * child)
    y = fishing * rng.poisson(hours * np.exp(0.4 - 0.3 * child))
    psi = pm.math.invlogit(pm.Normal("a", 0, 1.5) + pm.Normal("b", 0, 1) * child)
    rate = hours * pm.math.exp(pm.Normal("c", 0, 1.5) + pm.Normal("d", 0, 1) * child)
    pm.ZeroInflatedPoisson("y", psi=psi, mu=rate, observed=y)


@case("residuals with skewness", ONE, **LONG)
def skew_residuals():
    rng = rng_of(5)
    x = rng.normal(size=50)
    y = 1 + 0.7 * x + rng.gamma(3, 0.5, size=50)
    mu = pm.Normal("a", 0, 3) + pm.Normal("b", 0, 2) * x
    sigma, alpha = pm.HalfNormal("sigma", 2), pm.Normal("alpha", 0, 3)
    pm.SkewNormal("y", mu=mu, sigma=sigma, alpha=alpha, observed=y)


@case("preferred brands by age", few(8))
def brands():
    rng = rng_of(6)
    age = np.linspace(-1, 1, 5)
    utility = np.column_stack([np.zeros(5), 0.5 - age, -0.5 + 0.2 * age, -2 + 1.5 * age])
    p = np.exp(utility) / np.exp(utility).sum(axis=1, keepdims=True)
    n = rng.integers(10, 25, size=5)
    y = np.array([rng.multinomial(k, row) for k, row in zip(n, p, strict=True)])
    a, b = pm.Normal("a", 0, 2, shape=3), pm.Normal("b", 0, 2, shape=3)
    of_brand = pt.concatenate([np.zeros((5, 1)), a + age[:, None] * b], axis=1)
    pm.Multinomial("y", n=n, p=pm.math.softmax(of_brand, axis=1), observed=y)


# Hierarchies


@case("radon in twelve counties", AFFINE_ONE, **from_raw((slice(2, 14), ([0],), [1])))
def radon(raw=False):
    rng = rng_of(7)
    size = rng.integers(2, 9, size=12)
    county = np.repeat(np.arange(12), size)
    floor = rng.random(len(county)) < 0.3
    y = rng.normal(1.3, 0.3, size=12)[county] - 0.6 * floor + 0.7 * rng.normal(size=len(county))
    spread = pm.HalfNormal("spread", 1)
    level = effects("level", pm.Normal("mean", 0, 3), spread, 12, raw)
    mu = level[county] + pm.Normal("slope", 0, 1) * floor
    pm.Normal("y", mu, pm.HalfNormal("sigma", 1), observed=y)


@case("hits of fourteen players, non-centred", AFFINE_ONE)
def hits():
    rng = rng_of(8)
    n = rng.integers(8, 60, size=14)
    y = rng.binomial(n, expit(rng.normal(-1.0, 0.3, size=14)))
    spread = pm.HalfCauchy("spread", 1)
    logit = pm.Normal("mean", -1, 1) + spread * pm.Normal("raw", 0, 1, shape=14)
    pm.Binomial("y", n, logit_p=logit, observed=y)


def student_places(draws):
    """From raw effects to the effects themselves."""
    draws = draws.copy()
    draws[:, 1:10] *= np.exp(draws[:, :1])
    return draws


@case(
    "yields of nine fields, one odd",
    AFFINE | few(60),
    built=({"raw": True}, {}, {}),
    mapped=student_places,
)
def yields(raw=False):
    rng = rng_of(9)
    field = np.repeat(np.arange(9), 4)
    level = 0.4 * rng.normal(size=9)
    level[3] = 4.0
    y = 10 + level[field] + rng.normal(size=36)
    spread = pm.HalfNormal("spread", 1)
    effect = pm.StudentT("effect", nu=3, mu=0, sigma=1 if raw else spread, shape=9)
    mu = pm.Normal("mean", 10, 5) + (spread * effect if raw else effect)[field]
    pm.Normal("y", mu, pm.HalfNormal("sigma", 2), observed=y)


@case("pupils and exercises", AFFINE_ONE, **from_raw((slice(1, 13), ([0],))))
def rasch(raw=False):
    rng = rng_of(10)
    logit = 1.2 * rng.normal(size=(12, 1)) - rng.normal(size=5)
    y = (rng.random((12, 5)) < expit(logit)).astype(int)
    ability = effects("ability", 0, pm.HalfNormal("spread", 1), 12, raw)
    difficulty = pm.Normal("difficulty", 0, 2, shape=5)
    pm.Bernoulli("y", logit_p=ability[:, None] - difficulty, observed=y)


@case("grades of eight reviewers", stopped(2), **from_raw((slice(1, 9), ([0],))))
def reviewers(raw=False):
    rng = rng_of(11)
    who, x = np.repeat(np.arange(8), 6), rng.normal(size=48)
    latent = 0.8 * rng.normal(size=8)[who] + 1.0 * x + rng.logistic(size=48)
    effect = effects("effect", 0, pm.HalfNormal("spread", 1), 8, raw)
    eta = pm.Normal("slope", 0, 2) * x + effect[who]
    cut = pm.Normal("cut", [-1, 0, 1], 2, transform=ordered, shape=3)
    grade = np.digitize(latent, [-1.5, 0.0, 2.0])
    pm.OrderedLogistic("y", eta=eta, cutpoints=cut, observed=grade)


# Survival, time, curves


@case("relapse, log-normal times", few(8))
def relapse():
    rng = rng_of(12)
    treated, age = rng.integers(2, size=40), rng.normal(size=40)
    time = np.exp(1.5 + 0.6 * treated - 0.3 * age + 0.9 * rng.normal(size=40))
    end = rng.uniform(3, 12, size=40)
    mu = pm.Normal("a", 1, 2) + pm.Normal("b", 0, 1) * treated + pm.Normal("c", 0, 1) * age
    of_row = pm.LogNormal.dist(mu, pm.HalfNormal("sigma", 1))
    pm.Censored("y", of_row, lower=None, upper=end, observed=np.minimum(time, end))


def weekly_levels(draws):
    """From raw innovations to the autoregressive levels."""
    draws = draws.copy()
    rho, sigma = expit(draws[:, 0]), np.exp(draws[:, 1])
    for t in range(4, 23):
        draws[:, t] = rho * draws[:, t - 1] + sigma * draws[:, t]
    return draws


@case("weekly cases, latent autoregression", AFFINE_ONE, built=({"raw": True}, {}, {}),
      mapped=weekly_levels)  # fmt: skip
def weekly_cases(raw=False):
    rng = rng_of(13)
    z = np.zeros(20)
    for t in range(1, 20):
        z[t] = 0.8 * z[t - 1] + 0.4 * rng.normal()
    y = rng.poisson(np.exp(1.5 + z))
    rho, sigma = pm.Beta("rho", 5, 2), pm.HalfNormal("sigma", 0.5)
    level = pm.Normal("level", 1, 1)
    if raw:
        steps = pm.Normal("z", 0, 1, shape=20)
        lag = np.subtract.outer(np.arange(20), np.arange(20))
        powers = pt.switch(lag >= 0, rho ** np.maximum(lag, 0), 0.0)
        z = powers @ pt.concatenate([steps[:1], sigma * steps[1:]])
    else:
        first = pm.Normal.dist(0, 1)
        z = pm.AR("z", rho=pt.stack([rho]), sigma=sigma, init_dist=first, shape=20)
    pm.Poisson("y", pm.math.exp(level + z), observed=y)


@case("moving average of order one", few(6))
def moving_average():
    rng = rng_of(14)
    e = rng.normal(size=31)
    y = 2 + e[1:] + 0.7 * e[:-1]
    theta, sigma = pm.Uniform("theta", -1, 1), pm.HalfNormal("sigma", 2)
    covariance = sigma**2 * (
        (1 + theta**2) * np.eye(30) + theta * (np.eye(30, k=1) + np.eye(30, k=-1))
    )
    pm.MvNormal("y", pm.Normal("mean", 0, 5) * np.ones(30), cov=covariance, observed=y)


@case("growth of bacteria", {"start": {"capacity": 60.0, "rate": 0.1, "middle": 25.0}} | few(40))
def growth():
    rng = rng_of(15)
    t = np.linspace(0, 12, 13)
    y = 8 / (1 + np.exp(-0.9 * (t - 6))) * np.exp(0.15 * rng.normal(size=13))
    capacity, rate = pm.LogNormal("capacity", 2, 1), pm.HalfNormal("rate", 1)
    log_mu = pm.math.log(capacity) - pt.softplus(-rate * (t - pm.Normal("middle", 5, 5)))
    pm.LogNormal("y", log_mu, pm.HalfNormal("sigma", 0.5), observed=y)


def spline_levels(draws):
    """From raw steps to the heights of the splines."""
    draws = draws.copy()
    draws[:, 1] *= 2
    draws[:, 2:11] *= np.exp(draws[:, :1])
    draws[:, 1:11] = draws[:, 1:11].cumsum(axis=1)
    return draws


@case("curve by penalised B-splines", AFFINE_ONE, built=({"raw": True}, {}, {}),
      mapped=spline_levels)  # fmt: skip
def penalised_splines(raw=False):
    rng = rng_of(16)
    x = np.linspace(0, 1, 40)
    knots = np.r_[[0] * 3, np.linspace(0, 1, 8), [1] * 3]
    basis = BSpline.design_matrix(x, knots, 3).toarray()
    y = rng.poisson(np.exp(1.5 + np.sin(7 * x)))
    spread = pm.HalfNormal("spread", 1)
    if raw:
        steps = pm.Normal("height", 0, 1, shape=10)
        height = pt.cumsum(pt.concatenate([2 * steps[:1], spread * steps[1:]]))
    else:
        first = pm.Normal.dist(0, 2)
        height = pm.GaussianRandomWalk("height", sigma=spread, init_dist=first, shape=10)
    pm.Poisson("y", pm.math.exp(basis @ height), observed=y)


@case("deaths by dose, some without any", {"start": {"dose": 60.0, "steep": 8.0}, **ONE} | few(15))
def deaths_by_dose():
    rng = rng_of(17)
    dose = np.array([0, 1, 2, 4, 8, 16.0])
    p = 0.1 + 0.9 * dose**2 / (4.0**2 + dose**2)
    y = rng.binomial(10, p)
    half, steep = pm.LogNormal("dose", 1, 1), pm.LogNormal("steep", 0.5, 0.5)
    log_dose = np.log(np.maximum(dose, 1e-3))
    killed = pm.math.invlogit(steep * (log_dose - pm.math.log(half)))
    natural = pm.Beta("natural", 1, 9)
    pm.Binomial("y", 10, natural + (1 - natural) * killed, observed=y)


@case("Gaussian process of labels", AFFINE_ONE | {"metric": "identity"} | few(50))
def labels():
    rng = rng_of(18)
    x = np.linspace(0, 4, 12)
    y = (rng.random(12) < expit(3 * np.sin(2 * x))).astype(int)
    length, scale = pm.InverseGamma("length", 5, 5), pm.HalfNormal("scale", 2)
    covariance = pm.math.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + 1e-5 * np.eye(12)
    f = scale * pt.linalg.cholesky(covariance) @ pm.Normal("raw", 0, 1, shape=12)
    pm.Bernoulli("y", logit_p=f, observed=y)


@case("trend by HSGP", AFFINE_ONE)
def trend():
    rng = rng_of(19)
    x = np.linspace(-2, 2, 30)
    y = np.sin(2 * x) + 0.5 * x + 0.4 * rng.standard_t(4, size=30)
    length, height = pm.LogNormal("length", 0, 0.5), pm.HalfNormal("height", 2)
    process = pm.gp.HSGP(m=[8], c=1.5, cov_func=height**2 * pm.gp.cov.Matern52(1, ls=length))
    f = process.prior("f", X=x[:, None])
    pm.StudentT("y", nu=4, mu=f, sigma=pm.HalfNormal("sigma", 1), observed=y)


# Mixtures, missing data, several places


@case("three ordered species", few(20))
def three_species():
    rng = rng_of(20)
    y = np.r_[rng.normal(0, 0.8, 30), rng.normal(3.5, 0.8, 20), rng.normal(7, 0.8, 12)]
    weight = pm.Dirichlet("weight", 2 * np.ones(3))
    mu = pm.Normal("mu", [0, 3, 6], 2, transform=ordered, shape=3)
    pm.NormalMixture("y", weight, mu, pm.HalfNormal("sigma", 1), observed=y)


@case("a covariate with gaps", ONE | {"metric": "identity"} | few(60))
def gaps():
    rng = rng_of(21)
    x = rng.normal(2, 1, size=30)
    y = 1 + 1.5 * x + 0.6 * rng.normal(size=30)
    x[rng.choice(30, 8, replace=False)] = np.nan
    x = pm.Normal("x", pm.Normal("centre", 0, 3), pm.HalfNormal("width", 2), observed=x)
    mu = pm.Normal("a", 0, 3) + pm.Normal("b", 0, 2) * x
    pm.Normal("y", mu, pm.HalfNormal("sigma", 2), observed=y)


@case("a test that errs", IDENTITY_ONE, **LONG)
def imperfect_test():
    rng = rng_of(22)
    x = rng.normal(size=60)
    ill = rng.random(60) < expit(-1.5 + x)
    y = rng.random(60) < np.where(ill, 0.8, 0.1)
    found, clear = pm.Beta("found", 18, 4), pm.Beta("clear", 24, 2)
    p = pm.math.invlogit(pm.Normal("a", 0, 2) + pm.Normal("b", 0, 2) * x)
    pm.Bernoulli("y", found * p + (1 - clear) * (1 - p), observed=y.astype(int))


@case("blood groups", few(5), draws=on_grid)
def blood_groups():
    p = pm.Dirichlet("p", np.ones(3))
    a, b, o = p[0], p[1], p[2]
    group = pt.stack([a * (a + 2 * o), b * (b + 2 * o), 2 * a * b, o * o])
    pm.Multinomial("y", n=23, p=group, observed=[9, 3, 1, 10])


@case("squared effect, sign unknown", {"n_components": 5, "start": {"b": 1.0}}, draws=on_grid)
def squared_effect():
    rng = rng_of(24)
    x = rng.uniform(0, 2, size=25)
    y = 1.2 * x + 0.5 * rng.normal(size=25)
    b = pm.Normal("b", 0, 2, initval=0.5)
    pm.Normal("y", b**2 * x, pm.HalfNormal("sigma", 1), observed=y)


@case("nests found and hatched", ONE, draws=on_grid)
def nests():
    """The data know the product of two probabilities alone."""
    p, q = pm.Beta("p", 1, 1), pm.Beta("q", 1, 1)
    pm.Binomial("y", 40, p * q, observed=9)
