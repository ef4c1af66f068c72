# %% [markdown]
# # Where are the sensors?
#
# Four sensors at unknown places, three anchors on one line, and noisy distances between
# neighbours. Anchors on a line cannot distinguish left from right. The posterior is its own
# mirror image, with a mode for every way to fold the network.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_isomix as pmi

rng = np.random.default_rng(2)
anchors = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]])
truth = np.array([[0.25, 0.45], [0.7, 0.35], [0.45, 0.8], [0.95, 0.75]])
places = np.concatenate([anchors, truth])
distance = np.linalg.norm(places[:, None] - places, axis=2)
i, j = np.nonzero(np.triu((distance < 0.65) & (np.arange(7) >= 3), 1))
noise = 0.03
measured = rng.normal(distance[i, j], noise)
print(f"{len(i)} distances are measured")

# %% [markdown]
# The components start at draws of the prior, because a mode stays unknown if no component starts
# near it.

# %%
with pm.Model(coords={"sensor": range(4), "axis": ["x", "y"]}) as model:
    place = pm.Normal("place", [0.5, 0.0], 0.7, dims=("sensor", "axis"))
    every = pt.concatenate([anchors, place])
    pm.Normal("d", pt.sqrt(((every[i] - every[j]) ** 2).sum(axis=1)), noise, observed=measured)
    approx = pm.fit(
        method=pmi.IsoMix(n_components=100, init="prior", random_seed=1), progressbar=False
    )
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# The mirror image has the same density, so each half must have half of the mass. The truth, or
# its mirror image, must lie among the draws.

# %%
found = idata.posterior["place"].values[0]
above = (found[:, 0, 1] > 0).mean()
folded = np.where(found[:, :1, 1:] > 0, found, found * [1, -1])
off = (folded.mean(axis=0) - truth) / folded.std(axis=0)
print(f"modes: {report['n_modes'].item()}; mass of those with sensor 0 above the line: {above:.3f}")
for mode, mass in enumerate(report["mode_mass"].values):
    print(f"mode {mode}: {mass:.3f}")
print("truth, in standard deviations from the folded mean:", off.round(1).ravel())
assert abs(above - 0.5) < 0.1
assert np.abs(off).max() < 4

# %% [markdown]
# Every mode must pass the predictive check. It compares the measured distances with those of the
# draws, in units of their noise.

# %%
every = np.concatenate([np.broadcast_to(anchors, (len(found), 3, 2)), found], axis=1)
implied = np.linalg.norm(every[:, i] - every[:, j], axis=2)
misfit = (((measured - implied) / noise) ** 2).sum(axis=1)
chance = (rng.normal(size=implied.shape) ** 2).sum(axis=1)
p_value = np.mean(chance >= misfit)
print(f"sum of squares {misfit.mean():.1f}, by chance {chance.mean():.1f}; as large: {p_value:.2f}")
assert 0.02 < p_value < 0.98

# %%
figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
for k in range(4):
    axis.scatter(*found[:, k].T, s=2, alpha=0.3)
    axis.plot(*truth[k], "k*", ms=10)
axis.plot(*anchors.T, "k^", ms=9, label="anchors")
axis.axhline(0, color="0.7", lw=0.8, zorder=0)
axis.set(aspect="equal", title="Draws of four sensors, and where they are (stars)")
axis.legend(loc="lower left")
