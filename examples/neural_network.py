# %% [markdown]
# # A small Bayesian neural network, with bands
#
# Ten hidden units, and noisy data with a gap. The weights have a huge number of modes, because
# hidden units can be exchanged and mirrored. The function is what matters, and its band has to
# widen in the gap.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(8)


def true_curve(x):
    return np.sin(2 * x) + 0.4 * x


x = np.sort(np.r_[rng.uniform(-2.5, -0.5, 40), rng.uniform(0.8, 2.5, 40)])
y = true_curve(x) + rng.normal(0, 0.2, len(x))
hidden = 10

# %%
with pm.Model(coords={"unit": range(hidden)}) as model:
    inputs = pm.Data("inputs", x)
    inner = pm.Normal("inner", 0, 2, dims="unit")
    shift = pm.Normal("shift", 0, 2, dims="unit")
    outer = pm.Normal("outer", 0, 1, dims="unit")
    level, noise = pm.Normal("level", 0, 1), pm.HalfNormal("noise", 0.5)
    curve = level + pm.math.tanh(inputs[:, None] * inner + shift) @ outer
    pm.Normal("y", curve, noise, observed=y, shape=inputs.shape)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# The verdict warns, and it is right. The posterior has $2^{10} \cdot 10!$ mirror images, and
# fifty components cover a few of them, so single weights have no meaning. The function is the
# same for every image, so the function is checked on new points: how often does the 90 % band
# contain a new observation? Hidden units saturate beyond the data, so no band can know how the
# truth continues there.

# %%
grid = np.linspace(-3.5, 3.5, 141)
idata = approx.sample(2000, random_seed=1)
draws = {name: v.values[0] for name, v in idata.posterior.items()}
units = np.tanh(grid[:, None, None] * draws["inner"] + draws["shift"])
curves = draws["level"] + (units * draws["outer"]).sum(axis=2)
replicated = curves + draws["noise"] * rng.normal(size=curves.shape)
low, high = np.quantile(replicated, [0.05, 0.95], axis=1)

new = np.r_[rng.uniform(-2.5, -0.5, 500), rng.uniform(0.8, 2.5, 500)]
y_new = true_curve(new) + rng.normal(0, 0.2, 1000)
covered = np.mean((y_new > np.interp(new, grid, low)) & (y_new < np.interp(new, grid, high)))
width = np.diff(np.quantile(curves, [0.05, 0.95], axis=1), axis=0)[0]
at_data, in_gap = width[(grid > -2) & (grid < -1)].mean(), width[(grid > 0) & (grid < 0.4)].mean()
beyond = width[grid > 3.2].mean()
print(f"noise {draws['noise'].mean():.3f} (truth 0.2); 90 % bands hold {covered:.1%} of new points")
print(
    f"width of the band of the curve: {at_data:.2f} at data, {in_gap:.2f} in the gap, "
    f"{beyond:.2f} beyond"
)
assert 0.84 < covered < 0.96
assert in_gap > 1.5 * at_data
assert beyond > 2 * at_data

# %% [markdown]
# Within the data, the correlation of neighbouring residuals shows whether ten units are flexible
# enough:

# %%
at = np.stack([np.interp(x, grid, curve) for curve in curves.T])
seen = (y - at) / draws["noise"][:, None]
alike = [(part[:, 1:] * part[:, :-1]).mean(axis=1) for part in (seen, rng.normal(size=seen.shape))]
p_value = np.mean(alike[1] >= alike[0])
print(f"product of neighbouring residuals {alike[0].mean():.2f}; by chance as large: {p_value:.2f}")
assert 0.02 < p_value < 0.98

# %%
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
axis.fill_between(grid, low, high, color="C0", alpha=0.15, label="new observations, 90 %")
axis.fill_between(
    grid, *np.quantile(curves, [0.05, 0.95], axis=1), color="C0", alpha=0.4, label="curve, 90 %"
)
axis.plot(grid, true_curve(grid), "k--", lw=1, label="truth")
axis.plot(x, y, "k.", ms=4)
axis.set(xlabel="x", ylabel="y", ylim=(-4, 4))
axis.legend(ncols=3)
