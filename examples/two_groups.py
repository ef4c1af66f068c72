# %% [markdown]
# # A mixture for some variables, mean field for the rest
#
# Two hundred levels that the data determine well, and one gain whose sign they do not determine.
# A mixture group for the gain and PyMC's mean field for the levels form one approximation, fitted
# by PyMC's own `KLqp`.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from pymc.variational.approximations import MeanFieldGroup
from pymc.variational.inference import KLqp
from pymc.variational.opvi import Approximation

import pymc_isomix as pmi

rng = np.random.default_rng(13)
n_units, n_times = 200, 20
x = rng.normal(size=(n_units, n_times))
x -= x.mean(axis=1, keepdims=True)
truth = rng.normal(0, 1, n_units)
y = truth[:, None] + 0.7**2 * x + rng.normal(size=x.shape)

# %% [markdown]
# Only the square of the gain enters the model. `IsotropicMixtureGroup` takes the gain, and
# `MeanFieldGroup(None)` takes the rest.

# %%
with pm.Model() as model:
    gain = pm.Normal("gain", 0, 1)
    level = pm.Normal("level", 0, 2, shape=n_units)
    pm.Normal("y", level[:, None] + gain**2 * x, 1, observed=y)
    starts = np.linspace(-1, 1, 10)[:, None]  # five on each side
    group = pmi.IsotropicMixtureGroup([gain], n_components=10, start=starts)
    approx = Approximation([group, MeanFieldGroup(None)])
    approx.rng = np.random.RandomState(1)
    KLqp(approx).fit(
        4000,
        obj_n_mc=10,
        obj_optimizer=pm.adam(learning_rate=0.02),
        progressbar=False,
        backend="jax",
    )
    idata = approx.sample(4000)

# %% [markdown]
# An approximation with several groups has no verdict. Its weights stay equal, because PyMC's
# objective gives them no gradient. The mass of a sign is the share of components that started on
# its side. The exact answer is known: x is centred, so each level has its own mean and variance
# whatever the gain.

# %%
gains = idata.posterior["gain"].values.ravel()
levels = idata.posterior["level"].values[0]
variance = 1 / (n_times + 1 / 4)
off = (levels.mean(axis=0) - variance * y.sum(axis=1)) / variance**0.5
ratio = levels.std(axis=0) / variance**0.5
square = np.linalg.lstsq(x.reshape(-1, 1), y.ravel(), rcond=None)[0].item()
print(
    f"gain above zero: {np.mean(gains > 0):.2f}; its size {np.abs(gains).mean():.3f} "
    f"(truth 0.7, least squares {square**0.5:.3f})"
)
print(
    f"levels: means off by up to {np.abs(off).max():.2f} standard deviations, "
    f"standard deviations {ratio.min():.2f} to {ratio.max():.2f} of the exact ones"
)
assert 0.3 < np.mean(gains > 0) < 0.7
assert abs(np.abs(gains).mean() - square**0.5) < 0.02
assert np.abs(off).max() < 0.4
assert abs(ratio.mean() - 1) < 0.1

# %% [markdown]
# The predictive check covers both groups. Within units, the data vary by the noise and by the
# contribution of x times the gain.

# %%
some = slice(0, 500)
mean = levels[some, :, None] + gains[some, None, None] ** 2 * x
replicated = (mean + rng.normal(size=mean.shape)).std(axis=2)
for what, of in {"mean": np.mean, "largest": np.max}.items():
    seen, drawn = of(y.std(axis=1)), of(replicated, axis=1)
    p_value = np.mean(drawn >= seen)
    print(f"{what} deviation within units: {seen:.3f}, as large: {p_value:.2f}")
    assert 0.01 < p_value < 0.99

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].hist(gains, 80)
axes[0].set(xlabel="gain", yticks=[], title="A mixture: both signs")
low, high = np.quantile(levels, [0.05, 0.95], axis=0)
axes[1].vlines(truth, low, high, color="C1", alpha=0.4)
axes[1].axline((0, 0), slope=1, color="k", lw=0.8)
axes[1].set(xlabel="true level", ylabel="90 % interval", title="Mean field: 200 levels")
