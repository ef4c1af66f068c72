"""Designs of 300 to 2000 dimensions, of the sizes for which people leave NUTS; simulated data."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt


def crossed(rows=4000, levels=(10, 20, 40, 60, 80, 100)):
    """A logistic regression with centred intercepts of six crossed factors."""
    rng = np.random.default_rng(11)
    groups = [rng.integers(n, size=rows) for n in levels]
    scales = (0.8, 0.4, 0.6, 0.2, 0.5, 0.3)
    x = rng.normal(size=rows)
    logit = 0.5 * x - 0.4
    for n, scale, group in zip(levels, scales, groups, strict=True):
        logit = logit + scale * rng.normal(size=n)[group]
    y = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    with pm.Model() as model:
        mean = pm.Normal("level", 0, 2) + pm.Normal("slope", 0, 1) * x
        for i, (n, group) in enumerate(zip(levels, groups, strict=True)):
            mean = mean + pm.Normal(f"effect_{i}", 0, pm.HalfNormal(f"sd_{i}", 1), shape=n)[group]
        pm.Bernoulli("y", logit_p=mean, observed=y)
    return model


def ratings(users=600, items=150, rows=9000):
    """Ratings of items by users, with effects of both, centred."""
    rng = np.random.default_rng(12)
    user, item = rng.integers(users, size=rows), rng.integers(items, size=rows)
    y = 3 + 0.6 * rng.normal(size=users)[user] + 0.4 * rng.normal(size=items)[item]
    y = y + 0.9 * rng.normal(size=rows)
    with pm.Model() as model:
        of_user = pm.Normal("user", 0, pm.HalfNormal("sd_user", 1), shape=users)
        of_item = pm.Normal("item", 0, pm.HalfNormal("sd_item", 1), shape=items)
        mean = pm.Normal("level", 3, 1) + of_user[user] + of_item[item]
        pm.Normal("y", mean, pm.HalfNormal("noise", 1), observed=y)
    return model


def survival(clusters=300, rows=3000):
    """Weibull survival with frailties of clusters and censoring, non-centred."""
    rng = np.random.default_rng(13)
    cluster, x = rng.integers(clusters, size=rows), rng.normal(size=(rows, 3))
    eta = x @ [0.5, -0.3, 0.0] + 0.5 * rng.normal(size=clusters)[cluster] + 1
    time = rng.weibull(1.4, size=rows) * np.exp(-eta / 1.4) * 5
    bound = rng.uniform(1, 6, size=rows)
    event, time = time < bound, np.minimum(time, bound)
    with pm.Model() as model:
        beta, sd = pm.Normal("beta", 0, 1, shape=3), pm.HalfNormal("sd", 1)
        frailty = sd * pm.Normal("z", 0, 1, shape=clusters)
        shape = pm.LogNormal("shape", 0, 1)
        rate = pm.Normal("level", 0, 3) + pt.as_tensor(x) @ beta + frailty[cluster]
        hazard = pt.log(shape) + (shape - 1) * np.log(time) + rate
        pm.Potential("likelihood", (event * hazard - pt.exp(rate) * time**shape).sum())
    return model


def overdispersed(groups=1000, rows=5000):
    """Negative binomial counts of a thousand groups, non-centred."""
    rng = np.random.default_rng(14)
    group, x = rng.integers(groups, size=rows), rng.normal(size=rows)
    mean = np.exp(0.8 + 0.3 * x + 0.5 * rng.normal(size=groups)[group])
    y = rng.negative_binomial(3, 3 / (3 + mean))
    with pm.Model() as model:
        effect = pm.HalfNormal("sd", 1) * pm.Normal("z", 0, 1, shape=groups)
        log_mean = pm.Normal("level", 0, 2) + pm.Normal("slope", 0, 1) * x + effect[group]
        pm.NegativeBinomial("y", mu=pt.exp(log_mean), alpha=pm.Gamma("alpha", 2, 0.5), observed=y)
    return model


def slopes(groups=150, rows=3000):
    """A linear regression whose intercept and two slopes vary by group, centred."""
    rng = np.random.default_rng(15)
    group, x = rng.integers(groups, size=rows), rng.normal(size=(rows, 2))
    design = np.column_stack([np.ones(rows), x])
    own = np.array([1.0, 0.5, -0.5]) + np.array([0.7, 0.3, 0.1]) * rng.normal(size=(groups, 3))
    y = (design * own[group]).sum(axis=1) + rng.normal(size=rows)
    with pm.Model() as model:
        mean, sd = pm.Normal("mean", 0, 2, shape=3), pm.HalfNormal("sd", 1, shape=3)
        own = pm.Normal("own", mean, sd, shape=(groups, 3))
        fitted = (pt.as_tensor(design) * own[group]).sum(axis=1)
        pm.Normal("y", fitted, pm.HalfNormal("noise", 1), observed=y)
    return model


def answers(persons=500, items=30):
    """Answers of 500 persons to 30 items, with a discrimination of each item (2PL)."""
    rng = np.random.default_rng(16)
    ability, ease = rng.normal(size=persons), rng.normal(size=items)
    discrimination = np.exp(0.3 * rng.normal(size=items))
    logit = discrimination * (ability[:, None] - ease)
    y = (rng.random((persons, items)) < 1 / (1 + np.exp(-logit))).astype(int)
    with pm.Model() as model:
        ability = pm.Normal("ability", 0, 1, shape=persons)
        ease = pm.Normal("ease", 0, 1.5, shape=items)
        discrimination = pm.LogNormal("discrimination", 0, 0.5, shape=items)
        pm.Bernoulli("y", logit_p=discrimination * (ability[:, None] - ease), observed=y)
    return model


DESIGNS = {
    "six crossed factors": crossed,
    "ratings": ratings,
    "survival of clusters": survival,
    "overdispersed counts": overdispersed,
    "varying slopes": slopes,
    "item response": answers,
}
