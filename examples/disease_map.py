# %% [markdown]
# # A map of disease: areas that resemble their neighbours
#
# Cases of a rare disease in a hundred areas, some of them small. A conditional autoregression
# (`pm.CAR`) lets each area borrow from its neighbours, and a Poisson regression asks whether
# outdoor work matters.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(7)
side = 10
row, column = np.divmod(np.arange(side**2), side)
neighbours = (abs(row[:, None] - row) + abs(column[:, None] - column) == 1).astype(int)
distance = np.hypot(row[:, None] - row, column[:, None] - column)
field = np.linalg.cholesky(np.exp(-((distance / 3) ** 2)) + 1e-6 * np.eye(100)) @ rng.normal(
    size=100
)
risk = 0.5 * (field - field.mean())
outdoors = rng.normal(0, 1, 100)
expected = rng.gamma(2, 4, 100) + 0.5
cases = rng.poisson(expected * np.exp(-0.2 + 0.3 * outdoors + risk))
print(f"{cases.sum()} cases in 100 areas; {np.sum(expected < 3)} areas expect fewer than three")

# %%
with pm.Model(coords={"area": np.arange(100)}) as model:
    level, slope = pm.Normal("level", 0, 1), pm.Normal("slope", 0, 1)
    tau, alpha = pm.Gamma("tau", 3, 1), pm.Beta("alpha", 1, 1)
    effect = pm.CAR("effect", mu=np.zeros(100), W=neighbours, alpha=alpha, tau=tau, dims="area")
    log_rate = np.log(expected) + level + slope * outdoors + effect
    pm.Poisson("cases", pm.math.exp(log_rate), observed=cases, dims="area")
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print(report)

# %% [markdown]
# The raw ratio of cases to expected ones is noise in small areas. The posterior mean of the effect
# should be nearer to the true risk.

# %%
posterior = {name: v.values[0] for name, v in idata.posterior.items()}
estimate = posterior["effect"].mean(axis=0)
raw = np.log((cases + 0.5) / (expected + 0.5)) - 0.3 * outdoors
raw -= raw.mean()
errors = [np.sqrt(np.mean((x - x.mean() - risk) ** 2)) for x in (raw, estimate)]
low, high = np.quantile(posterior["slope"], [0.05, 0.95])
print(f"root mean squared error of the log risk: raw {errors[0]:.2f}, by the model {errors[1]:.2f}")
print(f"slope: 90 % between {low:.2f} and {high:.2f}, the truth .30")
assert errors[1] < 0.75 * errors[0]
assert low - 0.05 < 0.3 < high + 0.05
assert report.verdict != "bad"

# %% [markdown]
# A predictive check: how many areas have no case at all, and how many the largest has.

# %%
with model:
    replicated = (
        pm.sample_posterior_predictive(
            idata.sel(draw=slice(0, 1000)), var_names=["cases"], random_seed=1, progressbar=False
        )
        .posterior_predictive["cases"]
        .values[0]
    )
for what, of in {
    "areas without a case": lambda x: (x == 0).sum(-1),
    "largest": lambda x: x.max(-1),
}.items():
    seen, drawn = of(cases), of(replicated)
    p_value = np.mean(drawn >= seen)
    print(f"{what}: {seen}, replicated {drawn.mean():.1f}; as many: {p_value:.2f}")
    assert 0.01 < p_value <= 1

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, (title, values) in zip(
    axes, {"true log risk": risk, "raw ratio": raw, "posterior mean": estimate}.items(), strict=True
):
    image = axis.imshow(values.reshape(side, side), vmin=-1.2, vmax=1.2, cmap="RdBu_r")
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(image, ax=axes, shrink=0.8)
