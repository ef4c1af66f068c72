# %% [markdown]
# # A sinusoid of unknown frequency
#
# With few and noisy points, many frequencies fit, and the posterior has a mode at each. The
# posterior of the frequency can be computed by quadrature, so the masses of the modes can be
# checked.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(38)
t = np.sort(rng.uniform(0, 10, 10))
y = 1.2 * np.cos(2 * np.pi * 0.31 * t) + 0.5 * np.sin(2 * np.pi * 0.31 * t) + rng.normal(0, 1, 10)

# %% [markdown]
# The amplitudes of cosine and sine have Gaussian priors, the noise is known, and the frequency is
# uniform between 0 and 1. Components start at draws of the prior (`init="prior"`), because starts
# near one point would find distant modes only by luck.

# %%
with pm.Model() as model:
    frequency = pm.Uniform("frequency", 0, 1)
    angle = 2 * np.pi * frequency * t
    part = pm.Normal("part", 0, 1, shape=2)
    pm.Normal("y", part[0] * pm.math.cos(angle) + part[1] * pm.math.sin(angle), 1, observed=y)
    approx = pm.fit(
        method=pmi.IsoMix(n_components=80, init="prior", random_seed=1), progressbar=False
    )
idata = approx.sample(8000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# Given the frequency, y is Gaussian. Its density on a grid is the exact posterior.

# %%
grid = np.linspace(0, 1, 4001)
log_p = np.empty_like(grid)
for i, f in enumerate(grid):
    basis = np.stack([np.cos(2 * np.pi * f * t), np.sin(2 * np.pi * f * t)], axis=1)
    covariance = np.eye(len(t)) + basis @ basis.T
    log_p[i] = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1])
exact = np.exp(log_p - log_p.max())
exact /= np.trapezoid(exact, grid)

found = idata.posterior["frequency"].values.ravel()
edges = np.linspace(0, 1, 21)
mass = np.histogram(found, edges)[0] / len(found)
exact_mass = np.histogram(grid, edges, weights=exact)[0] / exact.sum()
largest = np.abs(mass - exact_mass).max()
print(f"modes: {report['n_modes'].item()}; largest error of a mass in 20 bins: {largest:.3f}")
assert largest < 0.06

# %% [markdown]
# The predictive check looks at each mode. A wrong frequency may fit ten points as well as the
# true one, and here it does. The table compares the largest residual with what the noise alone
# produces:

# %%
part = idata.posterior["part"].values[0]
angles = 2 * np.pi * found[:, None] * t
left = np.abs(y - part[:, :1] * np.cos(angles) - part[:, 1:] * np.sin(angles)).max(axis=1)
chance = np.abs(rng.normal(size=(len(left), len(t)))).max(axis=1)
near = np.abs(found - 0.31) < 0.05
for name, inside in {"near the truth": near, "elsewhere": ~near}.items():
    p_value = np.mean(chance[inside] >= left[inside])
    print(f"{name:14}: {inside.mean():.0%} of the draws; residuals as large: {p_value:.2f}")
    assert 0.02 < p_value < 0.98

# %%
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
axis.hist(found, 200, range=(0, 1), density=True, alpha=0.5, label="approximation")
axis.plot(grid, exact, "k", lw=1, label="exact")
axis.axvline(0.31, color="C3", lw=1, ls="--", label="truth")
axis.set(xlabel="frequency", ylabel="density")
axis.legend()
