# %% [markdown]
# # Label switching, and what to report
#
# A mixture of three normals. Its six labellings are six modes of the posterior. The approximation
# finds all six with equal masses. The summary uses quantities that do not depend on the labels.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from scipy import stats

import pymc_isomix as pmi

rng = np.random.default_rng(5)
truth = {"centre": np.array([-4.0, 0.0, 3.5]), "share": np.array([0.3, 0.3, 0.4])}
y = rng.normal(truth["centre"][rng.choice(3, 240, p=truth["share"])], 0.8)

# %%
with pm.Model(coords={"group": range(3)}) as model:
    share = pm.Dirichlet("share", np.full(3, 2.0), dims="group")
    centre = pm.Normal("centre", 0, 5, dims="group")
    sigma = pm.HalfNormal("sigma", 2)
    pm.NormalMixture("y", w=share, mu=centre, sigma=sigma, observed=y)
    approx = pm.fit(
        method=pmi.IsoMix(n_components=60, init="prior", random_seed=1), progressbar=False
    )
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# The order of the centres tells the labelling of a draw. Each of the six labellings must have a
# sixth of the draws.

# %%
centres = idata.posterior["centre"].values[0]
order = np.argsort(centres, axis=1)
labellings, counts = np.unique(order, axis=0, return_counts=True)
for labelling, count in zip(labellings, counts, strict=True):
    print(labelling, f"{count / len(order):.3f}")
assert len(labellings) == 6
assert np.abs(counts / len(order) - 1 / 6).max() < 0.05

# %% [markdown]
# The mean of `centre[0]` is therefore meaningless: it is close to the mean of the data, whatever
# the groups are. There are two useful reports. Sorted draws work if the groups lie apart, as they
# do here. The density works always, because it has no labels.

# %%
shares = idata.posterior["share"].values[0]
in_order = np.take_along_axis(centres, order, axis=1), np.take_along_axis(shares, order, axis=1)
print("mean of each label ", centres.mean(axis=0).round(2))
print("sorted centres     ", in_order[0].mean(axis=0).round(2), "truth", truth["centre"])
print("their shares       ", in_order[1].mean(axis=0).round(2), "truth", truth["share"])
for found, name in zip(in_order, ("centre", "share"), strict=True):
    assert np.all(np.abs(found.mean(axis=0) - truth[name]) < 4 * found.std(axis=0))

# %% [markdown]
# The predictive check has no labels either. Does the model make the gaps between the groups as
# empty as they are in the data?

# %%
with model:
    replicated = pm.sample_posterior_predictive(
        idata.sel(draw=slice(0, 1000)), random_seed=1, progressbar=False
    ).posterior_predictive["y"]


def between(y):
    return ((np.abs(y + 2) < 0.5) | (np.abs(y - 1.75) < 0.5)).sum(axis=-1)


found = between(replicated.values[0])
p_value = np.mean(found <= between(y))
print(f"in the gaps: {between(y)}, replicated {np.quantile(found, [0.05, 0.95])}")
print(f"as few: {p_value:.2f}")
assert 0.02 < p_value < 0.98

# %%
grid = np.linspace(-8, 8, 300)
sigmas = idata.posterior["sigma"].values[0]
some = slice(0, 500)
density = stats.norm.pdf(grid[:, None, None], centres[some], sigmas[some][:, None])
density = (density * shares[some]).sum(axis=2)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].scatter(centres[:, 0], centres[:, 1], s=2, alpha=0.4)
axes[0].set(xlabel="centre[0]", ylabel="centre[1]", title="Six labellings")
axes[1].hist(y, 40, density=True, color="0.85")
axes[1].fill_between(grid, *np.quantile(density, [0.05, 0.95], axis=1), color="C0", alpha=0.4)
axes[1].plot(grid, density.mean(axis=1), "C0")
axes[1].set(xlabel="y", title="Density, which has no labels")
