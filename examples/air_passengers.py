# %% [markdown]
# # A trend times a season: air passengers
#
# Monthly passengers of international airlines, 1949 to 1960 (Box and Jenkins). A line times a
# Fourier series, as in Prophet, fitted to eleven years; the twelfth is held out.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

passengers = np.array(
    [
        [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118],
        [115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140],
        [145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166],
        [171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194],
        [196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201],
        [204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229],
        [242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278],
        [284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306],
        [315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336],
        [340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337],
        [360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405],
        [417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432],
    ]
).ravel()
t = np.arange(144) / 12
angle = 2 * np.pi * np.arange(1, 6) * t[:, None]
seasons = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
known = t < 11

# %%
with pm.Model() as model:
    level, growth = pm.Normal("level", 0, 0.5), pm.Normal("growth", 0, 0.5)
    weights = pm.Normal("weights", 0, 0.1, shape=10)
    mean = (level + growth * t / 12) * (1 + seasons @ weights)
    pm.Deterministic("mean", mean)
    sigma = pm.HalfNormal("sigma", 0.1)
    pm.Normal("passengers", mean[known], sigma, observed=passengers[known] / 622)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print(report)

# %% [markdown]
# The bands of the year held out are those of the mean with the noise added. The series grows faster
# than a line, so that the last year is the hardest.

# %%
rng = np.random.default_rng(1)
mean, sigma = (idata.posterior[name].values[0] for name in ("mean", "sigma"))
predicted = 622 * (mean + sigma[:, None] * rng.normal(size=mean.shape))
low, middle, high = np.quantile(predicted, [0.05, 0.5, 0.95], axis=0)
inside = (low < passengers) & (passengers < high)
print(f"within the 90 % band: {inside[known].mean():.0%} of the months fitted")
print(
    f"and {inside[~known].sum()} of the 12 held out; error of the median there: "
    f"{np.mean(np.abs(middle - passengers)[~known] / passengers[~known]):.1%}"
)
assert 0.8 < inside[known].mean() < 1
assert np.mean(np.abs(middle - passengers)[~known] / passengers[~known]) < 0.1
assert report.verdict == "good"

# %%
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
axis.fill_between(1949 + t, low, high, alpha=0.3, label="90 % band")
axis.plot(1949 + t, middle)
axis.plot(1949 + t[known], passengers[known], "k.", ms=3, label="fitted")
axis.plot(1949 + t[~known], passengers[~known], "r.", ms=4, label="held out")
axis.set(ylabel="passengers, thousands")
axis.legend()
