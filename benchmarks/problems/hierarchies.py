"""Hierarchical models with simulated data, each written centred and non-centred.

``HIERARCHIES[name].build(centred)`` is the model. Both ways have the same quantities under the same
names, as variables or as deterministics; ``scales`` are those that are compared as logarithms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import logsumexp
from scipy.stats import halfcauchy, norm

from problems.nested import REGION, exact_nested, nested_data

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@dataclass(frozen=True)
class Hierarchy:
    """A model in two ways of writing, and its exact draws and log evidence where known."""

    build: Callable[[bool], pm.Model]
    scales: tuple[str, ...]
    exact: Callable | None = None  # number of draws -> {name: draws}, log evidence

    def quantities(self):
        """Names that both ways of writing have."""
        models = [self.build(centred) for centred in (True, False)]
        names = [[v.name for v in (*m.free_RVs, *m.deterministics)] for m in models]
        return [name for name in names[0] if name in names[1]]


HIERARCHIES: dict[str, Hierarchy] = {}


def hierarchy(*scales, exact=None):
    """Register a model under its function's name."""

    def register(build):
        name = build.__name__.replace("_", " ")
        HIERARCHIES[name] = Hierarchy(build, scales, exact)
        return build

    return register


def effects(name, mean, scale, shape, centred):
    """Normal effects, written as they are or as a scaled standard normal."""
    if centred:
        return pm.Normal(name, mean, scale, shape=shape)
    return pm.Deterministic(name, mean + scale * pm.Normal(f"{name}_z", 0, 1, shape=shape))


def exact_funnel(n):
    rng = np.random.default_rng(0)
    v = rng.normal(0, 3, n)
    return {"v": v, "x": np.exp(v / 2)[:, None] * rng.normal(size=(n, 9))}, 0.0


@hierarchy(exact=exact_funnel)
def funnel(centred):
    """Neal's funnel in ten dimensions, without data."""
    with pm.Model() as model:
        v = pm.Normal("v", 0, 3)
        effects("x", 0, pt.exp(v / 2), 9, centred)
    return model


def exact_eight_schools(n):
    """By quadrature over log tau; mu and theta are normal given tau."""
    rng, log_tau = np.random.default_rng(0), np.linspace(-14, 9, 40_001)
    tau = np.exp(log_tau)
    precision = 1 / (ERROR**2 + tau[:, None] ** 2)  # (grid, 8), of the effects given mu
    var = 1 / (1 / 25 + precision.sum(1))
    mean = var * (precision @ EFFECT)
    # marginal likelihood as prior times likelihood over posterior, at mu = its mean
    joint = norm.logpdf(EFFECT, mean[:, None], precision**-0.5).sum(1) + norm(0, 5).logpdf(mean)
    joint += 0.5 * np.log(2 * np.pi * var) + halfcauchy(scale=5).logpdf(tau) + log_tau
    evidence = logsumexp(joint) + np.log(log_tau[1] - log_tau[0])
    at = rng.choice(len(tau), n, p=np.exp(joint - logsumexp(joint)))
    mu, tau = rng.normal(mean[at], var[at] ** 0.5), tau[at]
    v = 1 / (1 / ERROR**2 + 1 / tau[:, None] ** 2)
    theta = rng.normal(v * (EFFECT / ERROR**2 + (mu / tau**2)[:, None]), v**0.5)
    return {"mu": mu, "tau": tau, "theta": theta}, float(evidence)


@hierarchy("tau", exact=exact_eight_schools)
def eight_schools(centred, effect=EFFECT, error=ERROR):
    """Rubin's schools, with the priors of posteriordb."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = effects("theta", mu, tau, len(effect), centred)
        pm.Normal("y", theta, error, observed=effect)
    return model


@hierarchy("tau", "local", "sigma")
def horseshoe(centred):
    """Three effects among twenty."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(100, 20))
    y = features[:, :3] @ [3.0, -2.0, 1.0] + rng.normal(size=100)
    with pm.Model() as model:
        tau, local = pm.HalfCauchy("tau", 0.1), pm.HalfCauchy("local", 1, shape=20)
        beta = effects("beta", 0, tau * local, 20, centred)
        pm.Normal("y", features @ beta, pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("tau", "local", "slab", "sigma")
def regularised_horseshoe(centred):
    """Five effects among fifty, large ones held by a slab (Piironen and Vehtari, 2017)."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(100, 50))
    y = features[:, :5] @ [3.0, -2.0, 1.0, 0.5, -0.3] + rng.normal(size=100)
    with pm.Model() as model:
        tau, local = pm.HalfCauchy("tau", 5 / 45 / 10), pm.HalfCauchy("local", 1, shape=50)
        slab = pm.InverseGamma("slab", 2, 8)  # a variance: Student's t with 4 degrees, scale 2
        scale = tau * local * pt.sqrt(slab / (slab + tau**2 * local**2))
        beta = effects("beta", 0, scale, 50, centred)
        pm.Normal("y", features @ beta, pm.HalfNormal("sigma", 1), observed=y)
    return model


def groups_of(rng, sizes):
    """Group of each row, and a standard normal covariate."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    return group, rng.normal(size=len(group))


@hierarchy("sigma_a", "sigma_b", "sigma")
def varying_slopes(centred):
    """Intercepts and slopes of thirty groups of 2 to 29 rows."""
    rng = np.random.default_rng(3)
    group, x = groups_of(rng, rng.integers(2, 30, 30))
    a, b = rng.normal(1, 1, 30), rng.normal(0.5, 0.2, 30)
    y = a[group] + b[group] * x + rng.normal(size=len(x))
    with pm.Model() as model:
        mu_a, mu_b = pm.Normal("mu_a", 0, 2), pm.Normal("mu_b", 0, 2)
        a = effects("a", mu_a, pm.HalfNormal("sigma_a", 1), 30, centred)
        b = effects("b", mu_b, pm.HalfNormal("sigma_b", 1), 30, centred)
        pm.Normal("y", a[group] + b[group] * x, pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("chol_stds", "sigma")
def correlated_effects(centred):
    """Correlated intercepts and slopes of forty groups, LKJ prior."""
    rng = np.random.default_rng(4)
    group, x = groups_of(rng, rng.integers(3, 13, 40))
    theta = rng.multivariate_normal([1, 0.5], [[1, 0.3], [0.3, 0.25]], 40)
    y = theta[group, 0] + theta[group, 1] * x + rng.normal(size=len(x))
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 2, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.HalfNormal.dist(1))
        if centred:
            theta = pm.MvNormal("theta", mu, chol=chol, shape=(40, 2))
        else:
            z = pm.Normal("z", 0, 1, shape=(40, 2))
            theta = pm.Deterministic("theta", mu + z @ chol.T)
        mean = theta[group, 0] + theta[group, 1] * x
        pm.Normal("y", mean, pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("sigma_a", "sigma_b")
def crossed_poisson(centred):
    """Counts near one in two fifths of the cells of a 20 x 15 table."""
    rng = np.random.default_rng(5)
    row, column = np.nonzero(rng.uniform(size=(20, 15)) < 0.4)
    rate = np.exp(0.2 + rng.normal(0, 0.6, 20)[row] + rng.normal(0, 0.3, 15)[column])
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        a = effects("a", 0, pm.HalfNormal("sigma_a", 1), 20, centred)
        b = effects("b", 0, pm.HalfNormal("sigma_b", 1), 15, centred)
        pm.Poisson("y", pt.exp(mu + a[row] + b[column]), observed=rng.poisson(rate))
    return model


@hierarchy("amplitude", "length", "sigma")
def hsgp(centred):
    """A Hilbert-space Gaussian process: 120 points, 25 coefficients.

    With a Matern kernel, since the scales of a squared exponential's coefficients underflow.
    """
    rng = np.random.default_rng(6)
    x = np.sort(rng.uniform(-3, 3, 120))[:, None]
    y = np.sin(2 * x[:, 0]) + 0.5 * rng.normal(size=120)
    with pm.Model() as model:
        amplitude, length = pm.HalfNormal("amplitude", 1), pm.LogNormal("length", 0, 1)
        kernel = amplitude**2 * pm.gp.cov.Matern52(1, ls=length)
        basis, root = pm.gp.HSGP(m=[25], c=1.5, cov_func=kernel).prior_linearized(x)
        coefficients = effects("coefficients", 0, root, 25, centred)
        f = pm.Deterministic("f", basis @ coefficients)
        pm.Normal("y", f, pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("amplitude", "length")
def latent_gp(centred):
    """A latent Gaussian process with Bernoulli data at 40 points."""
    rng = np.random.default_rng(7)
    x = np.linspace(-3, 3, 40)[:, None]
    y = rng.uniform(size=40) < 1 / (1 + np.exp(-2 * np.sin(2 * x[:, 0])))
    with pm.Model() as model:
        amplitude, length = pm.HalfNormal("amplitude", 2), pm.LogNormal("length", 0, 0.5)
        kernel = amplitude**2 * pm.gp.cov.ExpQuad(1, ls=length)
        f = pm.gp.Latent(cov_func=kernel).prior("f", x, reparameterize=not centred)
        pm.Bernoulli("y", logit_p=f, observed=y.astype(int))
    return model


@hierarchy("step", "sigma")
def random_walk(centred):
    """Two hundred steps, each seen with noise."""
    rng = np.random.default_rng(8)
    y = np.cumsum(0.3 * rng.normal(size=200)) + rng.normal(size=200)
    with pm.Model() as model:
        step = pm.HalfNormal("step", 1)
        if centred:
            first = pm.Normal.dist(0, 1)
            x = pm.GaussianRandomWalk("x", sigma=step, init_dist=first, steps=199)
        else:
            first = pm.Normal("x_first", 0, 1)
            z = pm.Normal("x_z", 0, 1, shape=199)
            steps = pt.concatenate([pt.zeros(1), pt.cumsum(step * z)])
            x = pm.Deterministic("x", first + steps)
        pm.Normal("y", x, pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("sigma_region", "sigma_school", "sigma", exact=exact_nested)
def nested(centred):
    """Rows in forty schools in eight regions."""
    y, school = nested_data()
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        regions = effects("regions", mu, pm.HalfNormal("sigma_region", 1), 8, centred)
        sigma_school = pm.HalfNormal("sigma_school", 1)
        schools = effects("schools", regions[REGION], sigma_school, 40, centred)
        pm.Normal("y", schools[school], pm.HalfNormal("sigma", 1), observed=y)
    return model


@hierarchy("tau")
def field(centred):
    """Counts on a grid of eight by eight, with a conditional autoregression (CAR)."""
    rng, n = np.random.default_rng(10), 8
    place = np.arange(n * n).reshape(n, n)
    neighbours = np.zeros((n * n, n * n), int)
    for one, other in ((place[1:], place[:-1]), (place[:, 1:], place[:, :-1])):
        neighbours[one, other] = neighbours[other, one] = 1
    precision = np.diag(neighbours.sum(axis=0)) - 0.9 * neighbours
    truth = 0.8 * np.linalg.solve(np.linalg.cholesky(precision).T, rng.normal(size=n * n))
    exposure = rng.uniform(0.5, 4, n * n)
    y = rng.poisson(exposure * np.exp(0.2 + truth))
    with pm.Model() as model:
        alpha, tau = pm.Beta("alpha", 4, 1), pm.Gamma("tau", 2, 1)
        if centred:
            phi = pm.CAR("phi", np.zeros(n * n), neighbours, alpha, tau)
        else:
            unit = pm.CAR("phi_unit", np.zeros(n * n), neighbours, alpha, 1.0)
            phi = pm.Deterministic("phi", unit / pt.sqrt(tau))
        pm.Poisson("y", exposure * pt.exp(pm.Normal("level", 0, 1) + phi), observed=y)
    return model
