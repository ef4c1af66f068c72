# %% [markdown]
# # Classification by a latent Gaussian process
#
# Yes or no along one axis, with a probability that is not monotone and has no known form. The
# truth is simulated, so the bands can be compared with it.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(11)
x = np.sort(rng.uniform(0, 10, 30))


def true_logit(x):
    return 2.5 * np.sin(x) * np.exp(-((x - 4) ** 2) / 30)


yes = rng.binomial(1, 1 / (1 + np.exp(-true_logit(x))))

# %% [markdown]
# `pm.gp.Latent` has thirty latent values, and two hyperparameters that set their scale.

# %%
with pm.Model() as model:
    amplitude = pm.HalfNormal("amplitude", 2)
    length = pm.InverseGamma("length", 4, 6)
    process = pm.gp.Latent(cov_func=amplitude**2 * pm.gp.cov.ExpQuad(1, ls=length))
    logit = process.prior("logit", X=x[:, None])
    pm.Bernoulli("yes", logit_p=logit, observed=yes)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %%
logits = idata.posterior["logit"].values[0]
low, middle, high = np.quantile(1 / (1 + np.exp(-logits)), [0.05, 0.5, 0.95], axis=0)
truth = 1 / (1 + np.exp(-true_logit(x)))
covered = np.mean((truth > low) & (truth < high))
print(f"90 % bands hold the true probability at {covered:.0%} of the points")
assert covered > 0.75

# %% [markdown]
# The predictive check counts runs of the same answer. Independent answers with one constant
# probability would not produce runs as long.

# %%
with model:
    replicated = pm.sample_posterior_predictive(idata, random_seed=1, progressbar=False)


def switches(answers):
    return (np.diff(answers, axis=-1) != 0).sum(axis=-1)


found = switches(replicated.posterior_predictive["yes"].values[0])
print(
    f"switches between yes and no: {switches(yes)}; replicated {np.quantile(found, [0.05, 0.95])}"
)

# %%
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
axis.fill_between(x, low, high, color="C0", alpha=0.25)
axis.plot(x, middle, "C0", label="posterior median, 90 % band")
axis.plot(x, truth, "k--", lw=1, label="truth")
axis.plot(x, yes, "k|", ms=8)
axis.set(xlabel="x", ylabel="probability of yes")
axis.legend()
