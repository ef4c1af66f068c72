# %% [markdown]
# # Varying intercepts for counties, written both ways
#
# A survey like the radon data: 85 counties with one to forty houses each. Half of such a survey
# favours the centred form, and the other half the non-centred form. Both forms give the same fit
# here, and both agree with the exact posterior.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from scipy import stats

import pymc_isomix as pmi

rng = np.random.default_rng(85)
n_counties = 85
houses = np.maximum(1, rng.negative_binomial(1, 0.1, n_counties))
county = np.repeat(np.arange(n_counties), houses)
floor = rng.binomial(1, 0.2, len(county))
truth = {"mu": 1.5, "tau": 0.3, "slope": -0.7, "sigma": 0.75}
level = rng.normal(truth["mu"], truth["tau"], n_counties)
log_radon = level[county] + truth["slope"] * floor + rng.normal(0, truth["sigma"], len(county))
print(f"{len(county)} houses; {np.sum(houses == 1)} counties have one")


# %%
def survey(centred):
    with pm.Model(coords={"county": np.arange(n_counties)}) as model:
        mu, tau = pm.Normal("mu", 0, 2), pm.HalfNormal("tau", 1)
        if centred:
            level = pm.Normal("level", mu, tau, dims="county")
        else:
            offset = pm.Normal("offset", dims="county")
            level = pm.Deterministic("level", mu + tau * offset, dims="county")
        slope, sigma = pm.Normal("slope", 0, 1), pm.HalfNormal("sigma", 1)
        pm.Normal("log_radon", level[county] + slope * floor, sigma, observed=log_radon)
    return model


draws, reports = {}, {}
for name, centred in (("centred", True), ("non-centred", False)):
    with survey(centred) as model:
        approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
        draws[name] = approx.sample(4000, random_seed=1)
        reports[name] = approx.diagnostics(progressbar=False)
    print(name, "verdict:", reports[name].verdict)

# %% [markdown]
# The levels can be integrated out by hand, because everything is Gaussian given the scales. A
# grid over the two scales gives the exact posterior of `tau`, because mu and slope are Gaussian
# given the scales too.

# %%
design = np.stack([np.ones(len(county)), floor], axis=1)
same = county[:, None] == county
taus, sigmas = np.linspace(0.02, 0.8, 60), np.linspace(0.66, 0.86, 24)
log_p = np.empty((len(taus), len(sigmas)))
for j, sigma in enumerate(sigmas):
    # of the counties' means only: rotations that keep within-county contrasts apart
    for i, tau in enumerate(taus):
        shrink = tau**2 / (sigma**2 + houses * tau**2)

        def solved(a, shrink=shrink, sigma=sigma):
            sums = np.zeros((n_counties, a.shape[1]))
            np.add.at(sums, county, a)
            return (a - (shrink[:, None] * sums)[county]) / sigma**2

        gram = design.T @ solved(design) + np.diag([1 / 4, 1])
        right = design.T @ solved(log_radon[:, None])[:, 0]
        log_det = 2 * len(county) * np.log(sigma) + np.log1p(houses * (tau / sigma) ** 2).sum()
        fit = right @ np.linalg.solve(gram, right) - log_radon @ solved(log_radon[:, None])[:, 0]
        log_p[i, j] = 0.5 * (fit - log_det - np.linalg.slogdet(gram)[1])
        log_p[i, j] += stats.halfnorm.logpdf(tau) + stats.halfnorm.logpdf(sigma)
density = np.exp(log_p - log_p.max()).sum(axis=1)
density /= np.trapezoid(density, taus)
mean = np.trapezoid(taus * density, taus)
sd = np.sqrt(np.trapezoid((taus - mean) ** 2 * density, taus))
print(f"tau exactly: mean {mean:.3f}, sd {sd:.4f}")
for name, idata in draws.items():
    tau = idata.posterior["tau"]
    print(f"tau {name}: mean {tau.mean():.3f}, sd {tau.std():.4f}")
    assert abs(tau.mean() - mean) < 0.15 * sd
    assert abs(tau.std() / sd - 1) < 0.15
    assert reports[name].verdict == "good"

# %% [markdown]
# Counties with few houses are shrunk towards the common mean, as they should be. The two forms
# are indistinguishable. The share of the data (`pmi.plot_shares`) shows how far each level stands
# on its own data.

# %% [markdown]
# The predictive check tests the hierarchy itself. If the counties were not normal around their
# mean, the most extreme ones would be further out than those that the model produces.

# %%
with survey(centred=True):
    replicated = pm.sample_posterior_predictive(
        draws["centred"].sel(draw=slice(0, 1000)),
        var_names=["log_radon"],
        random_seed=1,
        progressbar=False,
    ).posterior_predictive["log_radon"]


def county_means(values):
    """Means of the counties with ten houses or more, (..., counties)."""
    large = np.flatnonzero(houses >= 10)
    return np.stack([values[..., county == k].mean(axis=-1) for k in large], axis=-1)


for what, of in {"lowest": np.min, "highest": np.max, "spread of": np.std}.items():
    seen, drawn = of(county_means(log_radon)), of(county_means(replicated.values[0]), axis=-1)
    p_value = np.mean(drawn >= seen)
    print(
        f"{what} county means: {seen:.2f}, replicated {drawn.mean():.2f}; as large: {p_value:.2f}"
    )
    assert 0.02 < p_value < 0.98

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for k, (name, idata) in enumerate(draws.items()):
    axes[0].hist(
        idata.posterior["tau"].values.ravel(), 50, density=True, histtype="step", label=name
    )
    found = idata.posterior["level"]
    order = np.argsort(houses)
    low, high = found.quantile([0.05, 0.95], ("chain", "draw")).values[:, order]
    axes[1].vlines(np.arange(n_counties) + 0.4 * k, low, high, color=f"C{k}", lw=1.5)
axes[0].plot(taus, density, "k", lw=1, label="exact")
axes[0].set(xlabel="tau", title="Scale of the counties", xlim=(0.1, 0.55))
axes[0].legend()
axes[1].plot(np.arange(n_counties), level[order], "k.", ms=4, label="truth")
axes[1].set(xlabel="county, by its number of houses", ylabel="level, 90 % interval")
axes[1].legend()
