"""Fifty models as users bring them, each fitted twice, whose reference is a long run of NUTS.

``MODELS[name]`` is a :class:`Case`. Data are simulated by seed, at times from another model than
the one fitted. The second fit is made worse in a way that users meet. No rule of the verdict was
set on any of them. Exact draws take the place of NUTS where it would not mix.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered
from scipy.special import expit

from problems.verdicts_exact import by_grid

S = 20_000
ONE = {"n_components": 1}
AFFINE = {"coordinates": "affine"}
AFFINE_ONE = AFFINE | ONE
IDENTITY_ONE = {"metric": "identity", **ONE}


@dataclass(frozen=True)
class Case:
    """A model, what makes its second fit worse, and where its reference is from.

    ``built`` are the arguments of ``build`` for the reference and the two fits. ``mapped`` takes
    draws (S, d) of the first to the coordinates of the others. ``symmetry`` takes draws to where
    the posterior is the same. ``draws`` gives exact draws (S, d) of a case.
    ``options`` are those of nutpie that differ from the rest.
    """

    build: Callable
    worse: dict
    built: tuple = ({}, {}, {})
    mapped: Callable | None = None
    symmetry: Callable | None = None
    draws: Callable | None = None
    options: dict = field(default_factory=dict)

    def model(self, which=0):
        with pm.Model() as model:
            self.build(**self.built[which])
        return model


MODELS: dict[str, Case] = {}
LONG = {"options": {"draws": 10_000}}


def on_grid(case):
    """Exact draws of a model of one or two dimensions."""
    return by_grid(case.build)[1]


def registry(models):
    """Return a decorator ``case`` that enters models in a dictionary."""

    def case(name, worse, **more):
        """Register a function that builds a model in its context."""

        def register(build):
            assert name not in models, name
            models[name] = Case(build, worse, **more)
            return build

        return register

    return case


case = registry(MODELS)


def stopped(step):
    """Stop the fit after a step, as a user who has waited for long enough."""

    def stop(_approx, _losses, i):
        if i >= step:
            raise StopIteration

    return {"callbacks": [stop]}


def few(n):
    """Make no more than so many steps."""
    return {"n": n, "schedule": "constant"}


def rng_of(seed):
    return np.random.default_rng(1000 + seed)


def effects(name, centre, spread, size, raw):
    """Effects themselves, as they are fitted, or raw ones, as NUTS samples them best."""
    if raw:
        return centre + spread * pm.Normal(name, 0, 1, shape=size)
    return pm.Normal(name, centre, spread, shape=size)


def from_raw(*places):
    """Take draws of raw effects to those of the effects themselves.

    A place has the columns of the effects, those of their log scales, and those of their centres.
    """

    def mapped(draws):
        draws = draws.copy()
        for columns, scales, *centre in places:
            draws[:, columns] *= np.exp(sum(draws[:, scale] for scale in scales))
            draws[:, columns] += sum(draws[:, place] for place in centre)
        return draws

    return {"built": ({"raw": True}, {}, {}), "mapped": mapped}


# Regressions


@case("linear regression with a category", IDENTITY_ONE)
def linear_regression():
    rng = rng_of(1)
    x, group = rng.normal(size=(40, 2)), rng.integers(3, size=40)
    y = x @ [0.8, -0.3] + np.array([0.0, 1.0, 3.0])[group] + 0.6 * rng.normal(size=40)
    level, slope = pm.Normal("level", 0, 5, shape=3), pm.Normal("slope", 0, 2, shape=2)
    pm.Normal("y", level[group] + x @ slope, pm.Exponential("sigma", 1), observed=y)


@case("overdispersed rates", AFFINE_ONE | few(25), **from_raw((slice(1, 21), ([0],))))
def overdispersed_rates(raw=False):
    rng = rng_of(3)
    exposure, x = rng.uniform(1, 10, size=20), rng.normal(size=20)
    y = rng.poisson(exposure * np.exp(0.3 + 0.4 * x + 0.5 * rng.normal(size=20)))
    spread = pm.HalfNormal("spread", 1)
    effect = effects("effect", 0, spread, 20, raw)
    rate = pm.Normal("a", 0, 2) + pm.Normal("b", 0, 1) * x + effect
    pm.Poisson("y", exposure * pm.math.exp(rate), observed=y)


@case("gamma costs in minibatches", {}, built=({}, {"batch": 50}, {"batch": 50, "rows": None}))
def gamma_costs(batch=None, rows=300):
    rng = rng_of(5)
    x = rng.normal(size=300)
    y = rng.gamma(2.0, np.exp(1 + 0.5 * x) / 2)
    size = {}
    if batch:
        x, y = pm.Minibatch(x, y, batch_size=batch)
        size = {"total_size": rows} if rows else {}
    shape, beta = pm.HalfNormal("shape", 3), pm.Normal("beta", 0, 2, shape=2)
    mu = pm.math.exp(beta[0] + beta[1] * x)
    pm.Gamma("y", shape, shape / mu, observed=y, **size)


@case("proportions", few(6))
def proportions():
    rng = rng_of(6)
    x = rng.uniform(-1, 1, size=25)
    y = rng.beta(8 * expit(x), 8 * expit(-x))
    mu = pm.math.invlogit(pm.Normal("a", 0, 1) + pm.Normal("b", 0, 1) * x)
    pm.Beta("y", mu=mu, nu=pm.Gamma("nu", 2, 0.1), observed=y)


@case("outliers, degrees of freedom unknown", {"metric": "identity"} | few(40))
def robust_line():
    rng = rng_of(7)
    x = np.linspace(0, 10, 20)
    y = 1 + 2 * x + rng.normal(size=20)
    y[[4, 15]] += [15, -20]
    nu = pm.Exponential("nu", 1 / 10)
    mu = pm.Normal("a", 0, 10) + pm.Normal("b", 0, 5) * x
    pm.StudentT("y", nu=nu, mu=mu, sigma=pm.HalfNormal("sigma", 3), observed=y)


@case("multinomial logit without a reference class", {"metric": "diag", **ONE})
def multinomial_logit():
    rng = rng_of(8)
    x = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    utility = x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(60, 3))
    beta = pm.Normal("beta", 0, 4, shape=(3, 3))
    pm.Categorical("y", logit_p=pm.math.dot(x, beta), observed=utility.argmax(axis=1))


@case("ordinal probit", few(10))
def ordinal_probit():
    rng = rng_of(9)
    x = rng.normal(size=50)
    y = np.digitize(0.9 * x + rng.normal(size=50), [-1.0, 0.2, 1.5])
    cut = pm.Normal("cut", [-1, 0, 1], 2, transform=ordered, shape=3)
    pm.OrderedProbit("y", eta=pm.Normal("beta", 0, 2) * x, cutpoints=cut, observed=y)


@case("wind directions", ONE | {"metric": "identity"} | few(30))
def wind_directions():
    rng = rng_of(11)
    x = rng.normal(size=20)
    y = rng.vonmises(2.8 + 2 * np.arctan(0.5 * x), 3.0)
    mu = pm.VonMises("mu", 0, 0.01) + 2 * pm.math.arctan(pm.Normal("b", 0, 1) * x)
    pm.VonMises("y", mu=mu, kappa=pm.HalfNormal("kappa", 5), observed=y)


@case("covariate with measurement error", AFFINE_ONE, **LONG)
def measurement_error():
    rng = rng_of(12)
    truth = rng.normal(1, 1, size=15)
    seen, y = truth + 0.7 * rng.normal(size=15), 2 * truth + 0.5 * rng.normal(size=15)
    spread = pm.HalfNormal("spread", 2)
    x = pm.Normal("x", pm.Normal("centre", 0, 2), spread, shape=15)
    pm.Normal("seen", x, 0.7, observed=seen)
    slope, noise = pm.Normal("slope", 0, 3), pm.LogNormal("noise", -0.7, 0.4)
    pm.Normal("y", slope * x, noise, observed=y)


@case("spline of random steps", AFFINE_ONE | {"metric": "diag"})
def spline():
    rng = rng_of(13)
    x, knots = np.linspace(0, 1, 40), np.linspace(0, 1, 10)
    basis = np.maximum(0, 1 - np.abs(x[:, None] - knots) * 9)
    y = np.sin(6 * x) + 0.4 * rng.normal(size=40)
    spread = pm.HalfNormal("spread", 1)
    steps = pm.Normal("steps", 0, spread, shape=9)
    level = pm.Normal("level", 0, 2)
    curve = pt.concatenate([level[None], level + pt.cumsum(steps)])
    pm.Normal("y", basis @ curve, pm.HalfNormal("sigma", 1), observed=y)


@case("rounded lengths", few(8), draws=on_grid)
def rounded_lengths():
    rng = rng_of(14)
    y = np.round(rng.normal(4.2, 0.6, size=15))
    mu, sigma = pm.Normal("mu", 0, 10), pm.HalfNormal("sigma", 2)
    edges = [pm.math.log(0.5 * pm.math.erfc(-(y + e - mu) / sigma / 2**0.5)) for e in (-0.5, 0.5)]
    pm.Potential("y", pm.math.logdiffexp(edges[1], edges[0]).sum())


@case("counts without zeros", few(6))
def counts_without_zeros():
    rng = rng_of(16)
    x = rng.normal(size=40)
    y = rng.poisson(np.exp(0.5 + 0.5 * x))
    x, y = x[y > 0], y[y > 0]
    mu = pm.math.exp(pm.Normal("a", 0, 2) + pm.Normal("b", 0, 2) * x)
    pm.Truncated("y", pm.Poisson.dist(mu), lower=1, observed=y)


@case("zeros and overdispersion", ONE)
def zeros_and_overdispersion():
    rng = rng_of(17)
    x = rng.normal(size=40)
    y = rng.poisson(np.exp(1 + 0.5 * x) * rng.gamma(1.0, size=40)) * (rng.random(40) < 0.7)
    mu = pm.math.exp(pm.Normal("a", 0, 2) + pm.Normal("b", 0, 1) * x)
    alpha, psi = pm.Exponential("alpha", 0.5), pm.Beta("psi", 1, 1)
    pm.ZeroInflatedNegativeBinomial("y", psi=psi, mu=mu, alpha=alpha, observed=y)


@case("hurdle", few(6))
def hurdle():
    rng = rng_of(18)
    y = rng.gamma(2.0, 1.5, size=20) * (rng.random(20) < 0.4)
    shape, rate = pm.Exponential("shape", 0.3), pm.Exponential("rate", 0.3)
    pm.HurdleGamma("y", psi=pm.Beta("psi", 1, 1), alpha=shape, beta=rate, observed=y)


@case("reaction times", IDENTITY_ONE | few(100))
def reaction_times():
    y = rng_of(20).normal(0.4, 0.05, size=30) + rng_of(21).exponential(0.15, size=30)
    mu, sigma = pm.Normal("mu", 0.5, 0.3), pm.HalfNormal("sigma", 0.2)
    pm.ExGaussian("y", mu=mu, sigma=sigma, nu=pm.HalfNormal("nu", 0.5), observed=y)


@case("separation under a Student prior", ONE, **LONG)
def separation():
    x = np.array([-2.0, -1.2, -0.7, 0.3, 0.8, 1.9])
    beta = pm.StudentT("beta", nu=4, sigma=[5.0, 2.5], shape=2)
    pm.Bernoulli("y", logit_p=beta[0] + beta[1] * x, observed=(x > 0).astype(int))


@case(
    "horseshoe of six",
    AFFINE,
    **from_raw((slice(7, 13), ([0], slice(1, 7)))),
    options={"draws": 5000, "target_accept": 0.995},
)
def horseshoe(raw=False):
    rng = rng_of(22)
    x = rng.normal(size=(30, 6))
    y = x @ [2.0, 0, 0, 0.5, 0, 0] + rng.normal(size=30)
    scale = pm.HalfCauchy("overall", 0.5) * pm.HalfCauchy("each", 1, shape=6)
    beta = pm.Normal("beta", 0, 1 if raw else scale, shape=6)
    mu = x @ (beta * scale if raw else beta)
    pm.Normal("y", mu, pm.HalfNormal("sigma", 2), observed=y)


# Hierarchies


@case("varying intercepts, non-centred", AFFINE_ONE)
def varying_intercepts():
    rng = rng_of(23)
    clinic = np.repeat(np.arange(8), 3)
    y = 5 + rng.normal(0, 0.5, size=8)[clinic] + rng.normal(size=24)
    raw = pm.Normal("raw", 0, 1, shape=8)
    mu = pm.Normal("mu", 0, 10) + pm.HalfCauchy("tau", 1) * raw
    pm.Normal("y", mu[clinic], pm.HalfNormal("sigma", 3), observed=y)


@case("intercepts and slopes, correlated", AFFINE)
def intercepts_and_slopes():
    rng = rng_of(24)
    who, day = np.repeat(np.arange(8), 5), np.tile(np.arange(5.0) - 2, 8)
    effects = rng.multivariate_normal([3, 1], [[1, 0.3], [0.3, 0.25]], size=8)
    y = effects[who, 0] + effects[who, 1] * day + rng.normal(size=40)
    root, _, _ = pm.LKJCholeskyCov("root", n=2, eta=2, sd_dist=pm.Exponential.dist(1))
    effect = pm.Normal("mean", 0, 3, shape=2) + pm.Normal("raw", 0, 1, shape=(8, 2)) @ root.T
    mu = effect[who, 0] + effect[who, 1] * day
    pm.Normal("y", mu, pm.Exponential("sigma", 1), observed=y)


@case("rates of ten wards", few(25))
def rates_of_wards():
    rng = rng_of(25)
    n = rng.integers(10, 80, size=10)
    y = rng.binomial(n, rng.beta(4, 20, size=10))
    mean, size = pm.Beta("mean", 1, 5), pm.Pareto("size", 1.5, 1)
    p = pm.Beta("p", alpha=mean * size, beta=(1 - mean) * size, shape=10)
    pm.Binomial("y", n, p, observed=y)


@case("judges and dishes", AFFINE, **from_raw((slice(1, 8), ([0],)), (slice(9, 14), ([8],))))
def judges_and_dishes(raw=False):
    rng = rng_of(26)
    judge, dish = (index.ravel() for index in np.indices((7, 5)))
    logit = rng.normal(0, 0.4, size=7)[judge] + rng.normal(0, 1.0, size=5)[dish]
    y = rng.binomial(3, expit(logit))
    rated = [
        effects(name, 0, pm.HalfNormal(f"spread_{name}", 1), size, raw)[index]
        for name, size, index in (("judge", 7, judge), ("dish", 5, dish))
    ]
    pm.Binomial("y", 3, logit_p=pm.Normal("mean", 0, 2) + sum(rated), observed=y)


SCHOOL = np.repeat(np.arange(5), 3)


@case(
    "pupils in classes in schools",
    AFFINE_ONE,
    **from_raw((slice(3, 8), ([0],), [2]), (slice(8, 23), ([1],), 3 + SCHOOL)),
)
def three_levels(raw=False):
    rng = rng_of(27)
    of_class = np.repeat(np.arange(15), 3)
    level = rng.normal(0, 1, size=5)[SCHOOL] + rng.normal(0, 0.3, size=15)
    y = level[of_class] + 0.8 * rng.normal(size=45)
    spread = pm.HalfNormal("spread", 1, shape=2)
    schools = effects("school", pm.Normal("mean", 0, 2), spread[0], 5, raw)
    classes = effects("class", schools[SCHOOL], spread[1], 15, raw)
    pm.Normal("y", classes[of_class], pm.HalfNormal("sigma", 1), observed=y)


@case("meta-analysis of trials", AFFINE, **from_raw((slice(9, 16), ([0],), [8])))
def meta_analysis(raw=False):
    rng = rng_of(28)
    n = rng.integers(20, 100, size=7)
    base = rng.normal(-1, 0.5, size=7)
    y = [rng.binomial(n, expit(base)), rng.binomial(n, expit(base - 0.4))]
    tau = pm.HalfCauchy("tau", 0.5)
    control = pm.Normal("control", 0, 2, shape=7)
    effect = effects("effect", pm.Normal("mean", 0, 1), tau, 7, raw)
    pm.Binomial("control_y", n, logit_p=control, observed=y[0])
    pm.Binomial("treated_y", n, logit_p=control + effect, observed=y[1])


@case("effects that sum to zero", stopped(3))
def zero_sum():
    rng = rng_of(29)
    brand = np.tile(np.arange(6), 4)
    y = 3 + np.array([0.5, -0.5, 1, -1, 0, 0])[brand] + 0.5 * rng.normal(size=24)
    effect = pm.ZeroSumNormal("effect", 1.0, shape=6)
    mu = pm.Normal("mean", 0, 5) + effect[brand]
    pm.Normal("y", mu, pm.HalfNormal("sigma", 1), observed=y)


@case("variances that vary", AFFINE, **from_raw((slice(2, 10), ([0],), [1])))
def variances_that_vary(raw=False):
    rng = rng_of(31)
    who = np.repeat(np.arange(8), 4)
    y = rng.normal(0, np.exp(rng.normal(0, 0.6, size=8))[who])
    spread = pm.HalfNormal("spread", 1)
    log_sd = effects("log_sd", pm.Normal("centre", 0, 1), spread, 8, raw)
    pm.Normal("y", 0, pm.math.exp(log_sd)[who], observed=y)


# Mixtures and latent variables


def swap(draws, *pairs):
    """Exchange columns of draws."""
    draws = draws.copy()
    for a, b in pairs:
        draws[:, [a, b]] = draws[:, [b, a]]
    return draws


@case("two ordered clusters", few(15))
def ordered_clusters():
    rng = rng_of(32)
    y = np.r_[rng.normal(0, 1, size=25), rng.normal(3, 1, size=15)]
    weight = pm.Dirichlet("weight", np.ones(2))
    mu = pm.Normal("mu", [0, 2], 3, transform=ordered, shape=2)
    pm.NormalMixture("y", weight, mu, pm.HalfNormal("sigma", 2), observed=y)


@case("two clusters without order", ONE, symmetry=lambda z: swap(z, (0, 1)) * [1, 1, -1, 1])
def unordered_clusters():
    rng = rng_of(33)
    y = np.r_[rng.normal(-2, 0.7, size=30), rng.normal(2, 0.7, size=12)]
    mu = pm.Normal("mu", 0, 5, shape=2, initval=np.array([-2.0, 2.0]))
    p = pm.Beta("p", 2, 2)
    weight = pt.stack([p, 1 - p])
    pm.NormalMixture("y", weight, mu, pm.HalfNormal("sigma", 2), observed=y)


@case(
    "two crossing lines",
    {"start": {"slope": np.array([1.0, -1.0])}},
    symmetry=lambda z: swap(z, (0, 1)) * [1, 1, 1, -1],
)
def crossing_lines():
    rng = rng_of(35)
    x = rng.uniform(-2, 2, size=40)
    y = np.where(rng.random(40) < 0.65, 1.5, -1.0) * x + 0.5 * rng.normal(size=40)
    slope = pm.Normal("slope", 0, 2, shape=2, initval=np.array([1.0, -1.0]))
    sigma, p = pm.HalfNormal("sigma", 1), pm.Beta("p", 2, 2)
    logps = [pm.logp(pm.Normal.dist(slope[i] * x, sigma), y) for i in (0, 1)]
    both = pm.math.logaddexp(pm.math.log(p) + logps[0], pm.math.log(1 - p) + logps[1])
    pm.Potential("y", both.sum())


@case("one factor, sign unknown", ONE, symmetry=lambda z: z * np.r_[-np.ones(4), np.ones(4)])
def one_factor():
    rng = rng_of(36)
    y = rng.normal(size=(60, 1)) * [1.0, 0.8, -0.7, 0.5] + 0.6 * rng.normal(size=(60, 4))
    loading = pm.Normal("loading", 0, 1, shape=4, initval=np.array([1.0, 0.8, -0.7, 0.5]))
    noise = pm.HalfNormal("noise", 1, shape=4)
    covariance = pt.outer(loading, loading) + pt.diag(noise**2)
    pm.MvNormal("y", np.zeros(4), cov=covariance, observed=y)


@case("two classes of respondents", ONE, symmetry=lambda z: np.c_[-z[:, :1], z[:, 5:], z[:, 1:5]])
def latent_classes():
    rng = rng_of(37)
    truth = np.array([[0.9, 0.8, 0.85, 0.7], [0.2, 0.3, 0.1, 0.25]])
    y = (rng.random((60, 4)) < truth[(rng.random(60) < 0.4).astype(int)]).astype(int)
    p, start = pm.Beta("p", 2, 2), np.array([[0.8] * 4, [0.2] * 4])
    item = pm.Beta("item", 1.5, 1.5, shape=(2, 4), initval=start)
    logps = [pm.logp(pm.Bernoulli.dist(item[i]), y).sum(axis=1) for i in (0, 1)]
    both = pm.math.logaddexp(pm.math.log(p) + logps[0], pm.math.log(1 - p) + logps[1])
    pm.Potential("y", both.sum())


@case("item response, two parameters", AFFINE_ONE, **from_raw((slice(11, 17), ([10],))))
def item_response(raw=False):
    rng = rng_of(38)
    ability, difficulty = rng.normal(size=10), rng.normal(size=6)
    slope = rng.lognormal(0, 0.4, size=6)
    y = rng.random((10, 6)) < expit(slope * (ability[:, None] - difficulty))
    ability = pm.Normal("ability", 0, 1, shape=(10, 1))
    slope = effects("log_slope", 0, pm.HalfNormal("spread", 0.5), 6, raw)
    logit = pm.math.exp(slope) * (ability - pm.Normal("difficulty", 0, 1.5, shape=6))
    pm.Bernoulli("y", logit_p=logit, observed=y.astype(int))


@case("occupancy with imperfect detection", ONE)
def occupancy():
    rng = rng_of(40)
    x = rng.normal(size=40)
    present = rng.random(40) < expit(0.5 * x)
    y = rng.binomial(3, 0.25 * present)
    psi = pm.math.invlogit(pm.Normal("a", 0, 1.5) + pm.Normal("b", 0, 1.5) * x)
    seen = pm.math.exp(pm.logp(pm.Binomial.dist(3, pm.Beta("p", 1, 1)), y))
    pm.Potential("y", pm.math.log(psi * seen + (1 - psi) * (y == 0)).sum())


@case("capture and recapture", ONE)
def capture_recapture():
    """A closed population: unseen animals are a continuous number."""
    caught, total = np.array([14, 11, 17, 9]), 38
    unseen = pm.Exponential("unseen", 1 / 100)
    p = pm.Beta("p", 1, 1, shape=4)
    size = total + unseen
    log_p = pt.gammaln(size + 1) - pt.gammaln(unseen + 1)
    log_p += (caught * pm.math.log(p) + (size - caught) * pm.math.log(1 - p)).sum()
    pm.Potential("y", log_p)


# Curves, processes, time


@case("Gaussian process, three hyperparameters", ONE)
def marginal_process():
    rng = rng_of(41)
    x = np.linspace(0, 5, 12)
    y = np.sin(x) + 0.3 * rng.normal(size=12)
    length, scale = pm.LogNormal("length", 0, 1), pm.HalfNormal("scale", 2)
    covariance = scale**2 * pm.math.exp(-0.5 * ((x[:, None] - x) / length) ** 2)
    noise = pm.HalfNormal("noise", 1)
    pm.MvNormal("y", np.zeros(12), cov=covariance + noise**2 * np.eye(12), observed=y)


@case("Gaussian process of counts", AFFINE)
def process_of_counts():
    rng = rng_of(42)
    x = np.linspace(0, 4, 15)
    y = rng.poisson(np.exp(1 + np.sin(1.5 * x)))
    length, scale = pm.InverseGamma("length", 5, 5), pm.HalfNormal("scale", 1)
    covariance = pm.math.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + 1e-5 * np.eye(15)
    f = scale * pt.linalg.cholesky(covariance) @ pm.Normal("raw", 0, 1, shape=15)
    pm.Poisson("y", pm.math.exp(pm.Normal("level", 0, 2) + f), observed=y)


@case("survival with frailty", AFFINE, **from_raw((slice(1, 8), ([0],))))
def survival_with_frailty(raw=False):
    rng = rng_of(44)
    litter = np.repeat(np.arange(7), 3)
    time = 5 * np.exp(rng.normal(0, 0.4, size=7))[litter] * rng.weibull(1.5, size=21)
    effect = effects("effect", 0, pm.HalfNormal("spread", 1), 7, raw)
    scale = pm.math.exp(pm.Normal("a", 1, 2) + effect[litter])
    of_row = pm.Weibull.dist(pm.HalfNormal("alpha", 2), scale)
    pm.Censored("y", of_row, lower=None, upper=8.0, observed=np.minimum(time, 8.0))


@case("cure fraction", ONE)
def cure_fraction():
    rng = rng_of(45)
    time = np.where(rng.random(40) < 0.35, np.inf, rng.exponential(4, size=40))
    died = time < 6
    time = np.minimum(time, 6)
    cured, rate = pm.Beta("cured", 1, 1), pm.HalfNormal("rate", 1)
    dead = pm.math.log((1 - cured) * rate) - rate * time[died]
    alive = pm.math.log(cured + (1 - cured) * pm.math.exp(-rate * time[~died]))
    pm.Potential("y", dead.sum() + alive.sum())


@case("autoregression of order two", few(10))
def order_two():
    rng = rng_of(46)
    y = np.zeros(50)
    for i in range(2, 50):
        y[i] = 1.2 * y[i - 1] - 0.5 * y[i - 2] + rng.normal()
    rho, sigma = pm.Normal("rho", 0, 1, shape=2), pm.HalfNormal("sigma", 3)
    mu = pm.Normal("level", 0, 2) + rho[0] * y[1:-1] + rho[1] * y[:-2]
    pm.Normal("y", mu, sigma, observed=y[2:])


def levels(draws):
    """From raw steps of a walk to its places."""
    draws = draws.copy()
    draws[:, 2:26] *= np.exp(draws[:, :1])
    draws[:, 1:26] = draws[:, 1:26].cumsum(axis=1)
    return draws


@case("local level", AFFINE, built=({"raw": True}, {}, {}), mapped=levels)
def local_level(raw=False):
    rng = rng_of(47)
    y = np.cumsum(0.3 * rng.normal(size=25)) + 0.6 * rng.normal(size=25)
    step = pm.HalfNormal("step", 0.5)
    if raw:
        steps = pm.Normal("level", 0, 1, shape=25)
        level = pt.cumsum(pt.concatenate([steps[:1], step * steps[1:]]))
    else:
        first = pm.Normal.dist(0, 1)
        level = pm.GaussianRandomWalk("level", sigma=step, init_dist=first, shape=25)
    pm.Normal("y", level, pm.HalfNormal("noise", 1), observed=y)


@case("volatility that wanders", AFFINE)
def volatility():
    rng = rng_of(48)
    y = np.exp(np.cumsum(0.25 * rng.normal(size=25))) * rng.normal(size=25)
    step = pm.Exponential("step", 5)
    raw = pm.Normal("raw", 0, 1, shape=25)
    log_sd = pm.Normal("start", 0, 1) + step * pt.cumsum(raw)
    pm.Normal("y", 0, pm.math.exp(log_sd), observed=y)


@case("phase of a cycle", few(15))
def phase_of_a_cycle():
    rng = rng_of(49)
    t = np.arange(20) / 12
    y = 1.0 * np.sin(2 * np.pi * t + 1.0) + rng.normal(size=20)
    phase, height = pm.VonMises("phase", 0, 0.01), pm.HalfNormal("height", 2)
    mu = height * pm.math.sin(2 * np.pi * t + phase)
    pm.Normal("y", mu, pm.HalfNormal("sigma", 2), observed=y)


@case("smooth change of level", ONE)
def smooth_change():
    rng = rng_of(50)
    t = np.arange(30.0)
    y = 2 + 1.2 * (t > 17) + 0.8 * rng.normal(size=30)
    share = pm.math.invlogit((t - pm.Uniform("when", 0, 30)) / pm.HalfNormal("width", 3))
    mu = pm.Normal("before", 0, 5) + pm.Normal("change", 0, 2) * share
    pm.Normal("y", mu, pm.HalfNormal("sigma", 2), observed=y)


CHANGE_Y = rng_of(51).normal(np.where(np.arange(20) < 12, 0.0, 1.0), 0.7)


def sudden_change_draws(_case):
    """Each interval between data has an evidence, and Gaussian means given it."""
    rng, n = rng_of(52), len(CHANGE_Y)
    log_p, moments = [], []
    for first in range(1, n):
        of_place = []
        for y in (CHANGE_Y[:first], CHANGE_Y[first:]):
            variance = 1 / (1 / 4 + len(y) / 0.49)
            of_place.append((variance * y.sum() / 0.49, variance))
        moments.append(of_place)
        log_p.append(sum(0.5 * np.log(v) + 0.5 * m**2 / v for m, v in of_place))
    p = np.exp(log_p - np.max(log_p))
    which = rng.choice(n - 1, S, p=p / p.sum())
    mean, variance = np.moveaxis(np.array(moments)[which], -1, 0)
    # row i is before the change where i < when: `first` rows are where first - 1 < when <= first
    u = (which + rng.random(S)) / (n - 1)
    return np.column_stack(
        [np.log(u / (1 - u)), mean + np.sqrt(variance) * rng.normal(size=(S, 2))]
    )


@case("sudden change of level", {"n": 300}, draws=sudden_change_draws)
def sudden_change():
    when, mu = pm.Uniform("when", 0, 19), pm.Normal("mu", 0, 2, shape=2)
    pm.Normal("y", pm.math.switch(np.arange(20) < when, mu[0], mu[1]), 0.7, observed=CHANGE_Y)


@case("two compartments", few(40))
def two_compartments():
    rng = rng_of(54)
    t = np.array([0.2, 0.5, 1, 2, 3, 5, 8, 12])
    y = (5 * np.exp(-1.5 * t) + 2 * np.exp(-0.15 * t)) * np.exp(0.1 * rng.normal(size=8))
    height = pm.HalfNormal("height", 5, shape=2)
    log_rate = pm.Normal("log_rate", [-1, 0], 1, transform=ordered, shape=2)
    mu = (height * pm.math.exp(-pm.math.exp(log_rate) * t[:, None])).sum(axis=1)
    pm.LogNormal("y", pm.math.log(mu), pm.HalfNormal("sigma", 0.5), observed=y)


@case("dose and response", ONE)
def dose_and_response():
    rng = rng_of(55)
    dose = np.array([0.1, 0.3, 1, 3, 10, 30.0])
    y = 1 + 8 * dose**1.2 / (5**1.2 + dose**1.2) + 0.5 * rng.normal(size=6)
    base, most = pm.Normal("base", 0, 3), pm.HalfNormal("most", 10)
    half, power = pm.LogNormal("half", 1, 1), pm.LogNormal("power", 0, 0.5)
    mu = base + most * pm.math.invlogit(power * (np.log(dose) - pm.math.log(half)))
    pm.Normal("y", mu, 0.5, observed=y)


# Constrained, several modes, hardly identified


@case("three correlated scores", {"metric": "diag"} | few(20))
def correlated_scores():
    rng = rng_of(56)
    y = rng.multivariate_normal([1, 2, 3], [[1, 0.8, 0.3], [0.8, 1, 0.5], [0.3, 0.5, 1]], size=15)
    root, _, _ = pm.LKJCholeskyCov("root", n=3, eta=1, sd_dist=pm.HalfNormal.dist(2))
    pm.MvNormal("y", pm.Normal("mu", 0, 5, shape=3), chol=root, observed=y)


@case("shares of a budget", few(6))
def shares_of_a_budget():
    share = pm.Dirichlet("share", pm.HalfNormal("alpha", 2) * np.ones(4))
    pm.Multinomial("y", n=20, p=share, observed=[12, 5, 3, 0])


RANGES = np.hypot(np.array([-1.0, 1.0]) - 0.3, 1.5) + np.array([0.1, -0.05])


@case(
    "position from two ranges",
    {"n_components": 20, "start": {"x": np.array([0.3, 1.5])}},
    draws=on_grid,
)
def position_from_ranges():
    x = pm.Normal("x", 0, 3, shape=2)
    distance = pm.math.sqrt((x[0] - np.array([-1.0, 1.0])) ** 2 + x[1] ** 2)
    pm.Normal("y", distance, 0.2, observed=RANGES)


@case("two costs seen by their sum", few(10))
def two_costs():
    """The data know the sum alone: a thin bent ridge between two bounds."""
    cost = pm.HalfNormal("cost", 10, shape=3)
    pm.Normal("y", cost.sum(), 0.3, observed=[6.1, 5.8, 6.3])


@case("star", ONE, draws=on_grid)
def star():
    """Level along both axes, between soft walls."""
    x = pm.Flat("x", shape=2)
    pm.Potential("walls", -((pt.abs(x) / 4) ** 8).sum() - 0.5 * ((x[0] * x[1]) / 2) ** 2)
