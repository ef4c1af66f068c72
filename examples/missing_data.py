# %% [markdown]
# # Missing data: a covariate imputed with the model
#
# The diabetes data of scikit-learn, with a third of the body mass indices removed. PyMC turns the
# missing values into variables. The true values are known, so the intervals can be compared with
# them.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from sklearn.datasets import load_diabetes

import pymc_isomix as pmi

data = load_diabetes(as_frame=True)
rng = np.random.default_rng(12)


def standardised(values):
    return (values - values.mean()) / values.std()


bmi_complete, bp = (standardised(data.data[name].values) for name in ("bmi", "bp"))
progress = standardised(data.target.values)
missing = rng.uniform(size=len(bp)) < 1 / 3
print(f"{missing.sum()} of {len(bp)} body mass indices are missing")

# %% [markdown]
# The covariate has its own distribution, given blood pressure. This distribution and the progress
# of the disease inform the missing values.

# %%
with pm.Model() as model:
    by_bp, spread = pm.Normal("by_bp", 0, 1), pm.HalfNormal("spread", 1)
    seen = np.ma.masked_array(bmi_complete, missing)
    bmi = pm.Normal("bmi", by_bp * bp, spread, observed=seen)
    slope, noise = pm.Normal("slope", 0, 1, shape=2), pm.HalfNormal("noise", 1)
    pm.Normal("progress", slope[0] * bmi + slope[1] * bp, noise, observed=progress)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %%
imputed, taken = idata.posterior["bmi_unobserved"].values[0], bmi_complete[missing]
low, middle, high = np.quantile(imputed, [0.05, 0.5, 0.95], axis=0)
covered = np.mean((taken > low) & (taken < high))
correlation = np.corrcoef(middle, taken)[0, 1]
print(f"90 % intervals hold {covered:.0%} of the {len(taken)} values that were taken away")
print(f"correlation of medians and values {correlation:.2f}")
assert 0.83 < covered < 0.96
assert correlation > 0.4

# %% [markdown]
# The slopes, compared with least squares on the complete data:

# %%
complete = np.stack([bmi_complete, bp], axis=1)
exact = np.linalg.lstsq(complete, progress, rcond=None)[0]
slopes = idata.posterior["slope"].values[0]
for k, name in enumerate(("bmi", "bp")):
    found = f"{slopes[:, k].mean():.3f} ± {slopes[:, k].std():.3f}"
    print(f"{name}: {found}, complete data {exact[k]:.3f}")
    assert abs(slopes[:, k].mean() - exact[k]) < 2.5 * slopes[:, k].std()
assert report.verdict == "good"

# %% [markdown]
# The predictive check uses a quantity for which the model has no parameter: the skewness of the
# residuals, compared with that of simulated data.

# %%
draws = {name: values.values[0] for name, values in idata.posterior.items()}
everyone = np.tile(bmi_complete, (len(imputed), 1))
everyone[:, missing] = imputed
mean = slopes[:, :1] * everyone + slopes[:, 1:] * bp
scaled = (progress - mean) / draws["noise"][:, None]
replicated = rng.normal(size=scaled.shape)
skewness = [np.mean(part**3, axis=1) for part in (scaled, replicated)]
p_value = np.mean(skewness[1] >= skewness[0])
print(f"skewness {skewness[0].mean():.2f}; as large by chance: {p_value:.3f}")

# %%
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
axis.vlines(taken, low, high, color="C0", alpha=0.3)
axis.plot(taken, middle, "C0.", ms=3)
axis.axline((0, 0), slope=1, color="k", lw=0.8)
axis.set(xlabel="body mass index that was taken away", ylabel="imputed, 90 % interval")
