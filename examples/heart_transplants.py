# %% [markdown]
# # Survival with censoring: heart transplants
#
# The Stanford heart transplants (statsmodels): 69 patients, of whom 24 were alive when the study
# ended. The model is a Weibull regression on age with `pm.Censored`. It is compared with the
# Kaplan-Meier curve, which assumes no form.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import statsmodels.api as sm

import pymc_isomix as pmi

heart = sm.datasets.heart.load_pandas().data
died = heart["censors"].values == 1
months = np.maximum(heart["survival"].values, 0.5) / 30.4
age = (heart["age"].values - 50) / 10
print(f"{len(died)} patients, {np.sum(~died)} of them alive at the end")

# %% [markdown]
# For patients still alive, we know only that they live longer. The censored variable has an upper
# bound for them, and none for the others.

# %%
with pm.Model() as model:
    shape = pm.Gamma("shape", 4, 4)
    level = pm.Normal("level", 3, 2)
    by_age = pm.Normal("by_age", 0, 1)
    scale = pm.math.exp(level + by_age * age)
    upper = np.where(died, np.inf, months)
    pm.Censored("months", pm.Weibull.dist(shape, scale), lower=None, upper=upper, observed=months)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print(report)

# %% [markdown]
# The picture shows the share alive over time, averaged over the patients of each draw, and the
# Kaplan-Meier estimate. In the first months more patients die than a Weibull curve can follow.
# After that the two agree.

# %%
estimate = sm.SurvfuncRight(months, died.astype(int))
posterior = {name: v.values.ravel() for name, v in idata.posterior.items()}
times = np.linspace(0, 36, 60)
scales = np.exp(posterior["level"] + np.multiply.outer(age, posterior["by_age"]))
alive = np.array([np.exp(-((t / scales) ** posterior["shape"])).mean(axis=0) for t in times])
low, middle, high = np.quantile(alive, [0.05, 0.5, 0.95], axis=1)
at = np.searchsorted(estimate.surv_times, times, side="right") - 1
steps = np.where(at >= 0, estimate.surv_prob[at], 1.0)
inside = np.mean((steps >= low - 0.02) & (steps <= high + 0.02))
print(
    f"by_age {posterior['by_age'].mean():.2f}, below zero with probability "
    f"{(posterior['by_age'] < 0).mean():.3f}"
)
print(f"the Kaplan-Meier curve is within the 90 % band (and .02) for {inside:.0%} of three years")
assert inside > 0.8
assert report.verdict == "good"

# %% [markdown]
# The predictive check counts deaths within three months and within twelve. A replicated patient
# is followed for as long as the real one. The first count confirms what the picture shows.

# %%
with model:
    replicated = pm.sample_posterior_predictive(
        idata, var_names=["months"], random_seed=1, progressbar=False
    ).posterior_predictive["months"]
for month in (3, 12):
    seen = np.sum(died & (months < month))
    drawn = (replicated.values[0] < np.minimum(upper, month)).sum(axis=1)
    least, most = np.quantile(drawn, [0.05, 0.95])
    print(
        f"deaths within {month:2} months: {seen}, replicated {least:.0f} to {most:.0f}; "
        f"as many: {np.mean(drawn >= seen):.3f}"
    )

# %%
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis.fill_between(times, low, high, color="C0", alpha=0.3)
axis.plot(times, middle, "C0", label="Weibull, 90 % band")
axis.step(estimate.surv_times, estimate.surv_prob, "k", where="post", label="Kaplan-Meier")
axis.set(xlabel="months after the transplant", ylabel="share alive", xlim=(0, 36), ylim=(0, 1))
axis.legend()
