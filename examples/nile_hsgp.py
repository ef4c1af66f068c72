# %% [markdown]
# # A Gaussian process over time: the Nile at Aswan
#
# A hundred years of the Nile's volume (statsmodels), a smooth trend by `pm.gp.HSGP`, and a fifth
# of the years held out. The bands must cover the held-out years. The trend must fall at the end
# of the nineteenth century, where the record is known to fall.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import statsmodels.api as sm

import pymc_isomix as pmi

nile = sm.datasets.nile.load_pandas().data
year, volume = nile["year"].values, nile["volume"].values
held_out = np.random.default_rng(3).permutation(len(year))[:20]
fitted = np.setdiff1d(np.arange(len(year)), held_out)
time = (year - year.mean()) / 10  # decades
centre, scale = volume[fitted].mean(), volume[fitted].std()
y = (volume - centre) / scale

# %% [markdown]
# The amplitude, length scale and coefficients of such a process depend strongly on each other.
# Mean-field approximations fail here. The log line says that `trend` has its own coordinates.

# %%
with pm.Model(coords={"year": year.astype(int)}) as model:
    amplitude = pm.HalfNormal("amplitude", 1)
    length = pm.InverseGamma("length", 3, 4)
    covariance = amplitude**2 * pm.gp.cov.Matern52(1, ls=length)
    process = pm.gp.HSGP(m=[25], c=1.5, cov_func=covariance)
    trend = process.prior("trend", X=time[:, None], dims="year")
    noise = pm.HalfNormal("noise", 1)
    pm.Normal("y", trend[fitted], noise, observed=y[fitted])
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# A new observation is drawn for each year, including the held-out years:

# %%
rng = np.random.default_rng(1)
curve = idata.posterior["trend"].stack(sample=("chain", "draw")).values
noise = idata.posterior["noise"].values.ravel()
low, high = np.quantile(curve + noise * rng.normal(size=curve.shape), [0.05, 0.95], axis=1)
covered = np.mean((y[held_out] > low[held_out]) & (y[held_out] < high[held_out]))
before, after = (curve[period].mean(axis=0) for period in (year < 1895, year > 1905))
fall = (before - after) * scale
print(f"90 % bands cover {covered:.0%} of the 20 years held out")
print(
    f"fall from before 1895 to after 1905: {fall.mean():.0f} ± {fall.std():.0f} (raw means: "
    f"{volume[year < 1895].mean() - volume[year > 1905].mean():.0f})"
)
assert covered >= 0.75
assert (fall > 0).mean() > 0.99

# %% [markdown]
# The predictive check looks for what the model leaves out. If years depended on each other beyond
# the trend, neighbouring residuals would be correlated. Data simulated from the model show how
# much correlation arises by chance.

# %%
years = np.sort(fitted)
seen = (y[years, None] - curve[years]) / noise
replicated = rng.normal(size=seen.shape)
alike = [(part[1:] * part[:-1]).mean(axis=0) for part in (seen, replicated)]
p_value = np.mean(alike[1] >= alike[0])
print(f"product of neighbouring residuals {alike[0].mean():.2f}; by chance as large: {p_value:.2f}")
assert 0.02 < p_value < 0.98

# %%
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
axis.fill_between(year, centre + scale * low, centre + scale * high, color="C0", alpha=0.15)
middle = np.quantile(curve, [0.05, 0.5, 0.95], axis=1) * scale + centre
axis.fill_between(year, middle[0], middle[2], color="C0", alpha=0.4)
axis.plot(year, middle[1], "C0", label="trend")
axis.plot(year[fitted], volume[fitted], "k.", label="fitted")
axis.plot(year[held_out], volume[held_out], "C3x", label="held out")
axis.set(xlabel="year", ylabel="volume, 10⁸ m³", title="Trend, and 90 % bands of new years")
axis.legend(ncols=3)
