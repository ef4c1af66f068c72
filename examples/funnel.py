# %% [markdown]
# # Neal's funnel: effects and their scale
#
# A hierarchy without data: nine effects whose standard deviation is another variable. The truth
# is known. A fit in plain unconstrained space makes the scale too narrow. A fit in the
# coordinates that the model suggests does not.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

with pm.Model() as model:
    v = pm.Normal("v", 0, 3)
    pm.Normal("x", 0, pm.math.exp(v / 2), shape=9)

# %% [markdown]
# There are two fits. With `coordinates="affine"` the mixture has to cover the funnel itself. With
# `coordinates="auto"`, the default, each effect is measured in units of its scale.

# %%
draws, verdicts = {}, {}
for coordinates in ("affine", "auto"):
    with model:
        inference = pmi.IsoMix(coordinates=coordinates, random_seed=1)
        approx = pm.fit(method=inference, progressbar=False)
    posterior = approx.sample(2000, random_seed=1).posterior
    draws[coordinates] = posterior["x"].values[0, :, 0], posterior["v"].values[0]
    verdicts[coordinates] = approx.diagnostics(progressbar=False).verdict
    print(f"{coordinates}: sd of v {posterior['v'].std():.2f}, verdict {verdicts[coordinates]}")

# %% [markdown]
# The standard deviation of v is 3. The verdict of the first fit says what is wrong.

# %%
rng = np.random.default_rng(1)
v = rng.normal(0, 3, 2000)
panels = {
    "exact draws": (rng.normal(0, np.exp(v / 2)), v),
    'coordinates="affine"': draws["affine"],
    'coordinates="auto"': draws["auto"],
}
figure, axes = plt.subplots(1, 3, figsize=(8, 3), sharex=True, sharey=True, layout="constrained")
for axis, (title, (x, v)) in zip(axes, panels.items(), strict=True):
    axis.scatter(x, v, s=3, lw=0, alpha=0.4)
    axis.set(title=title, xlabel="effect x", xlim=(-20, 20), ylim=(-10, 10))
axes[0].set_ylabel("log variance v of the effects")
assert abs(draws["auto"][1].std() - 3) < 0.3
assert verdicts["affine"] != "good"
assert verdicts["auto"] == "good"
