"""Models of which many directions are skewed: scales and rates of which the data say little."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt


@dataclass(frozen=True)
class Skewed:
    """A model, and its posterior's draws where those are exact.

    Parameters
    ----------
    build : callable
        Returns the model.
    exact : callable, optional
        Returns draws (n, ...) by name, of a generator and n.
    log_evidence : float, optional
    """

    build: Callable
    exact: Callable | None = None
    log_evidence: float | None = None


def half_normals(k):
    """k scales, nothing observed."""

    def build():
        with pm.Model() as model:
            pm.HalfNormal("scale", 1, shape=k)
        return model

    return Skewed(build, lambda rng, n: {"scale": abs(rng.normal(size=(n, k)))}, 0.0)


def four_families(k=5):
    """k scales of each of four families, nothing observed."""

    def build():
        with pm.Model() as model:
            pm.HalfNormal("half_normal", 1, shape=k)
            pm.Exponential("exponential", 1, shape=k)
            pm.Gamma("gamma", 2, 1, shape=k)
            pm.HalfCauchy("half_cauchy", 1, shape=k)
        return model

    def exact(rng, n):
        return {
            "half_normal": abs(rng.normal(size=(n, k))),
            "exponential": rng.exponential(size=(n, k)),
            "gamma": rng.gamma(2, size=(n, k)),
            "half_cauchy": abs(rng.standard_cauchy(size=(n, k))),
        }

    return Skewed(build, exact, 0.0)


def few_events(k):
    """One event in a fifth of the groups, none in the others."""
    y = np.zeros(k, int)
    y[: k // 5] = 1
    return y


def beta_rates(k, trials=20):
    """Rates of k groups with a flat prior."""
    y = few_events(k)

    def build():
        with pm.Model() as model:
            rate = pm.Beta("rate", 1, 1, shape=k)
            pm.Binomial("y", trials, rate, observed=y)
        return model

    # a flat prior makes all counts equally probable
    evidence = -k * np.log(trials + 1)
    return Skewed(
        build, lambda rng, n: {"rate": rng.beta(1 + y, 1 + trials - y, size=(n, k))}, evidence
    )


def gamma_rates(k, shape, exposure=100.0):
    """Rates of k groups with a gamma prior of equal shape and rate."""
    from scipy.special import gammaln

    y = few_events(k) if shape > 0.1 else np.zeros(k, int)

    def build():
        with pm.Model() as model:
            rate = pm.Gamma("rate", shape, shape, shape=k)
            pm.Poisson("y", exposure * rate, observed=y)
        return model

    evidence = (
        shape * np.log(shape)
        - gammaln(shape)
        + gammaln(shape + y)
        - (shape + y) * np.log(shape + exposure)
        + y * np.log(exposure)
        - gammaln(y + 1)
    ).sum()

    def exact(rng, n):
        # of a small shape as a logarithm's: the rate itself is zero in floating point
        log_rate = np.log(rng.gamma(shape + y + 1, size=(n, k))) - np.log(shape + exposure)
        log_rate += np.log(rng.uniform(size=(n, k))) / (shape + y)
        return {"rate": np.exp(log_rate)}

    return Skewed(build, exact, evidence)


def beta_binomial(groups, seed):
    """Rates of groups, whose Beta distribution is unknown."""
    rng = np.random.default_rng(seed)
    trials = rng.integers(5, 40, groups)
    y = rng.binomial(trials, rng.beta(1.5, 12, groups))

    def build():
        with pm.Model() as model:
            a, b = pm.HalfNormal("a", 5), pm.HalfNormal("b", 20)
            pm.Binomial("y", trials, pm.Beta("rate", a, b, shape=groups), observed=y)
        return model

    return Skewed(build)


def gamma_poisson(groups, seed):
    """Rates of groups, whose Gamma distribution is unknown."""
    rng = np.random.default_rng(seed)
    exposure = rng.uniform(1, 20, groups)
    y = rng.poisson(exposure * rng.gamma(1.2, 0.3, groups))

    def build():
        with pm.Model() as model:
            a, b = pm.Exponential("a", 1), pm.Gamma("b", 0.5, 0.5)
            pm.Poisson("y", exposure * pm.Gamma("rate", a, b, shape=groups), observed=y)
        return model

    return Skewed(build)


def media_mix(channels, weeks, seed):
    """Adstock and saturation of channels that are spent on together."""
    rng = np.random.default_rng(seed)
    lags = np.arange(6)
    season = rng.normal(size=weeks)
    spend = np.exp(0.6 * season[:, None] + 0.5 * rng.normal(size=(weeks, channels)))
    spend = spend / spend.max(axis=0)
    lagged = np.stack(
        [np.concatenate([np.zeros((lag, channels)), spend[: weeks - lag]]) for lag in lags]
    )
    weights = 0.5**lags / (0.5**lags).sum()
    effect = 1 - np.exp(-2 * np.tensordot(weights, lagged, 1))
    y = 3 + effect @ rng.exponential(0.5, channels) + 0.3 * rng.normal(size=weeks)

    def build():
        with pm.Model() as model:
            decay = pm.Beta("decay", 2, 2, shape=channels)
            power = decay[None] ** lags[:, None]
            carried = (power / power.sum(axis=0))[:, None] * lagged
            saturated = 1 - pt.exp(-pm.Gamma("slope", 3, 1, shape=channels) * carried.sum(axis=0))
            mean = pm.Normal("level", 3, 2) + saturated @ pm.HalfNormal("effect", 1, shape=channels)
            pm.Normal("y", mean, pm.HalfNormal("noise", 1), observed=y)
        return model

    return Skewed(build)


def random_coefficients(persons, tasks, attributes, seed):
    """Choices among three, with a coefficient of each person and a scale of each attribute."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(persons, tasks, 3, attributes))
    scale = np.array([0.8, 0.1, 0.0, 0.5, 0.0])[:attributes]
    own = rng.normal(size=attributes) + scale * rng.normal(size=(persons, attributes))
    utility = np.einsum("ptja,pa->ptj", x, own) + rng.gumbel(size=(persons, tasks, 3))
    choice = utility.argmax(axis=2)

    def build():
        with pm.Model() as model:
            mean = pm.Normal("mean", 0, 1, shape=attributes)
            spread = pm.HalfNormal("spread", 1, shape=attributes)
            own = pm.Normal("own", mean, spread, shape=(persons, attributes))
            logits = (x * own[:, None, None]).sum(axis=3)
            pm.Categorical("choice", logit_p=logits, observed=choice)
        return model

    return Skewed(build)


def dose_response(doses, seed):
    """A sigmoid curve of which the data show the lower half alone."""
    rng = np.random.default_rng(seed)
    dose = np.linspace(-2, 1, doses)
    y = 4 / (1 + np.exp(-1.5 * (dose - 1.5))) + 0.1 * rng.normal(size=doses)

    def build():
        with pm.Model() as model:
            top = pm.HalfNormal("top", 10)
            middle, slope = pm.Normal("middle", 0, 3), pm.LogNormal("slope", 0, 1)
            curve = top * pm.math.sigmoid(slope * (dose - middle))
            pm.Normal("y", curve, pm.HalfNormal("noise", 1), observed=y)
        return model

    return Skewed(build)


def weak_factors(seed, rows=400):
    """A logistic regression with varying intercepts of five factors, most of which do nothing."""
    rng = np.random.default_rng(seed)
    levels = (4, 5, 6, 8, 12)
    groups = [rng.integers(n, size=rows) for n in levels]
    effects = [
        scale * rng.normal(size=n) for scale, n in zip((0.7, 0, 0.1, 0, 0.3), levels, strict=True)
    ]
    logit = sum(effect[group] for effect, group in zip(effects, groups, strict=True)) - 0.5
    y = rng.random(rows) < 1 / (1 + np.exp(-logit))

    def build():
        with pm.Model() as model:
            mean = pm.Normal("level", 0, 1.5)
            for i, (n, group) in enumerate(zip(levels, groups, strict=True)):
                spread = pm.HalfNormal(f"spread_{i}", 1)
                mean = mean + pm.Normal(f"effect_{i}", 0, spread, shape=n)[group]
            pm.Bernoulli("y", logit_p=mean, observed=y.astype(int))
        return model

    return Skewed(build)


def outliers(seed, rows=60):
    """A normal mixture, of whose wide component there are few data."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rows)
    y[:2] = [6.0, -5.0]

    def build():
        with pm.Model() as model:
            weight = pm.Beta("weight", 1, 9)
            wide = pm.HalfCauchy("wide", 5)
            narrow, centre = pm.HalfNormal("narrow", 2), pm.Normal("centre", 0, 3)
            parts = [pm.Normal.dist(centre, narrow), pm.Normal.dist(centre, narrow + wide)]
            pm.Mixture("y", pt.stack([1 - weight, weight]), parts, observed=y)
        return model

    return Skewed(build)


def regularised_horseshoe(effects, seed, rows=100, centred=False):
    """Regression with a regularised horseshoe, three effects of which are large."""
    rng = np.random.default_rng(seed)
    x, beta = rng.normal(size=(rows, effects)), np.zeros(effects)
    beta[:3] = [2, -1.5, 1]
    y = x @ beta + rng.normal(size=rows)

    def build():
        with pm.Model() as model:
            noise = pm.HalfNormal("noise", 2)
            common = pm.HalfCauchy("common", 0.1)
            own = pm.HalfCauchy("own", 1, shape=effects)
            slab = pm.InverseGamma("slab", 2, 8)
            scale = common * own * pt.sqrt(slab / (slab + common**2 * own**2))
            if centred:
                effect = pm.Normal("effect", 0, scale, shape=effects)
            else:
                effect = scale * pm.Normal("raw", 0, 1, shape=effects)
                pm.Deterministic("effect", effect)
            pm.Normal("y", x @ effect, noise, observed=y)
        return model

    return Skewed(build)


PROBLEMS = {
    "20 half normals": half_normals(20),
    "20 scales of four families": four_families(),
    "25 rates, beta": beta_rates(25),
    "80 rates, beta": beta_rates(80),
    "25 rates, gamma": gamma_rates(25, 0.5),
    "25 rates, vague gamma": gamma_rates(25, 0.01),
    "beta-binomial, 15": beta_binomial(15, 5),
    "beta-binomial, 40": beta_binomial(40, 7),
    "gamma-Poisson, 15": gamma_poisson(15, 6),
    "gamma-Poisson, 40": gamma_poisson(40, 8),
    "media mix, 3": media_mix(3, 80, 1),
    "media mix, 6": media_mix(6, 120, 2),
    "discrete choice, 3": random_coefficients(30, 6, 3, 1),
    "discrete choice, 5": random_coefficients(40, 8, 5, 2),
    "dose response, 12": dose_response(12, 1),
    "dose response, 30": dose_response(30, 2),
    "weak factors, a": weak_factors(1),
    "weak factors, b": weak_factors(2),
    "outliers, a": outliers(1),
    "outliers, b": outliers(2),
    "regularised horseshoe, 50": regularised_horseshoe(50, 1),
    "regularised horseshoe, 50, centred": regularised_horseshoe(50, 1, centred=True),
}
