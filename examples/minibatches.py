# %% [markdown]
# # Two hundred thousand rows, by minibatches
#
# A linear regression with a closed-form posterior, fitted from 500 rows at a time. Its means and
# standard deviations are compared with the exact ones.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(9)
n_rows, sigma = 200_000, 2.0
truth = np.array([1.0, -0.5, 0.25, 0.0, 0.1, -0.1, 0.7, -0.3])
x = rng.normal(size=(n_rows, 8)) @ np.linalg.cholesky(0.5 * np.eye(8) + 0.5).T
y = x @ truth + rng.normal(0, sigma, n_rows)

# %% [markdown]
# Only `pm.Minibatch` and `total_size` change in the model.

# %%
with pm.Model(coords={"feature": list("abcdefgh")}) as model:
    rows_x, rows_y = pm.Minibatch(x, y, batch_size=500)
    slope = pm.Normal("slope", 0, 1, dims="feature")
    pm.Normal("y", rows_x @ slope, sigma, observed=rows_y, total_size=n_rows)
    approx = pm.fit(method=pmi.IsoMix(n_components=5, random_seed=1), progressbar=False)

# %% [markdown]
# The diagnostics use all rows, and so do draws moved by exact transitions. The verdict is
# therefore about the posterior itself.

# %%
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)
idata = approx.sample(4000, random_seed=1)

# %%
precision = x.T @ x / sigma**2 + np.eye(8)
mean, sd = (
    np.linalg.solve(precision, x.T @ y / sigma**2),
    np.sqrt(np.diag(np.linalg.inv(precision))),
)
found = idata.posterior["slope"].values[0]
off, ratio = (found.mean(axis=0) - mean) / sd, found.std(axis=0) / sd
print("means, in exact standard deviations from the exact ones:", off.round(2))
print("standard deviations / exact ones:                       ", ratio.round(2))
# 4000 draws are good to .016 and 1.1 %
assert np.abs(off).max() < 0.15
assert np.abs(ratio - 1).max() < 0.1
assert report.verdict == "good"

# %% [markdown]
# The predictive check uses all rows as well. The model claims that the noise is normal with
# standard deviation 2. With 200 000 rows, even small departures would show.

# %%
for what, moment in {"sd": 2, "kurtosis": 4}.items():
    seen = [np.mean(((y - x @ slopes) / sigma) ** moment) for slopes in found[:200]]
    drawn = [np.mean(rng.normal(size=n_rows) ** moment) for _ in range(200)]
    p_value = np.mean(np.array(drawn) >= seen)
    print(f"{what:8} moment {moment}: {np.mean(seen):.3f}, as large by chance: {p_value:.2f}")
    assert 0.01 < p_value < 0.99

# %%
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
place = np.arange(8)
axis.errorbar(place - 0.12, mean - truth, 1.645 * sd, fmt="k.", label="exact, 90 %")
axis.errorbar(
    place + 0.12,
    found.mean(axis=0) - truth,
    1.645 * found.std(axis=0),
    fmt="C0.",
    label="minibatches",
)
axis.axhline(0, color="0.7", lw=0.8)
axis.set_xticks(place, list("abcdefgh"))
axis.set(ylabel="slope less its true value", xlabel="feature")
axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
