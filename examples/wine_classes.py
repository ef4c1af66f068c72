# %% [markdown]
# # Three classes with dims: which cultivar is the wine from?
#
# A multinomial regression with named dims and a sum-to-zero prior over the classes. The result
# carries the names, and is checked on held-out wines.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from sklearn.datasets import load_wine

import pymc_isomix as pmi

data = load_wine()
order = np.random.default_rng(1).permutation(len(data.target))
fitted, held_out = np.split(order, [int(0.6 * len(order))])
features = (data.data - data.data[fitted].mean(axis=0)) / data.data[fitted].std(axis=0)
coords = {
    "wine": fitted,
    "feature": data.feature_names,
    "cultivar": ["Barolo", "Grignolino", "Barbera"],
}

# %% [markdown]
# Only differences between classes matter. `ZeroSumNormal` states this, and removes a direction in
# which the posterior is only the prior.

# %%
with pm.Model(coords=coords) as model:
    x = pm.Data("x", features[fitted], dims=("wine", "feature"))
    level = pm.ZeroSumNormal("level", 2, dims="cultivar")
    slope = pm.ZeroSumNormal("slope", 1, dims=("feature", "cultivar"))
    pm.Categorical("origin", logit_p=level + x @ slope, observed=data.target[fitted], dims="wine")
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %%
slopes = idata.posterior["slope"]
slopes.mean(("chain", "draw")).to_pandas().round(2)

# %% [markdown]
# The held-out wines:

# %%
with model:
    pm.set_data({"x": features[held_out]}, coords={"wine": held_out})
    predicted = pm.sample_posterior_predictive(
        idata, predictions=True, random_seed=1, progressbar=False
    ).predictions["origin"]
truth = data.target[held_out]
share = np.stack([(predicted == k).mean(("chain", "draw")).values for k in range(3)], axis=1)
accuracy = np.mean(share.argmax(axis=1) == truth)
print(f"{len(held_out)} wines held out: accuracy {accuracy:.3f}")
print(f"probability of the right cultivar, mean {share[np.arange(len(truth)), truth].mean():.2f}")
assert accuracy > 0.93
assert report.verdict == "good"

# %%
figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
place = np.arange(slopes.sizes["feature"])
for k, cultivar in enumerate(slopes["cultivar"].values):
    low, middle, high = slopes.sel(cultivar=cultivar).quantile([0.05, 0.5, 0.95], ("chain", "draw"))
    at = place + 0.2 * (k - 1)
    axis.vlines(at, low, high, color=f"C{k}", lw=2)
    axis.plot(at, middle, "o", color=f"C{k}", label=cultivar)
axis.axhline(0, color="0.7", lw=0.8, zorder=0)
axis.set_xticks(place, data.feature_names, rotation=40, ha="right")
axis.set(ylabel="slope, 90 % interval")
axis.legend(ncols=3)
