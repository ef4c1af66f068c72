# %% [markdown]
# # An ordinal survey: left to right on seven steps
#
# 944 respondents of the 1996 American election study (statsmodels) placed themselves between
# liberal and conservative. The model is an ordered logistic regression. Its slopes are compared
# with maximum likelihood.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import statsmodels.api as sm
from statsmodels.miscmodels.ordinal_model import OrderedModel

import pymc_isomix as pmi

survey = sm.datasets.anes96.load_pandas().data
answer = survey["selfLR"].values.astype(int) - 1
columns = {"age": "age", "educ": "education", "income": "income", "TVnews": "TV news"}
x = survey[list(columns)].values
x = (x - x.mean(axis=0)) / x.std(axis=0)

# %% [markdown]
# The cutpoints are ordered. A transform keeps them ordered, and the mixture lives in the
# unconstrained space of the transform.

# %%
with pm.Model(coords={"predictor": list(columns.values()), "cut": range(6)}) as model:
    slope = pm.Normal("slope", 0, 1, dims="predictor")
    cutpoint = pm.Normal(
        "cutpoint",
        0,
        5,
        dims="cut",
        transform=pm.distributions.transforms.ordered,
        initval=np.linspace(-2, 2, 6),
    )
    pm.OrderedLogistic(
        "answer", eta=x @ slope, cutpoints=cutpoint, observed=answer, compute_p=False
    )
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# With 944 answers and wide priors, the posterior and maximum likelihood must agree, in means and
# in standard errors:

# %%
likelihood = OrderedModel(answer, x, distr="logit").fit(method="bfgs", disp=False)
slopes = idata.posterior["slope"].values[0]
for k, name in enumerate(columns.values()):
    print(
        f"{name:10} posterior {slopes[:, k].mean():6.3f} ± {slopes[:, k].std():.3f}   "
        f"likelihood {likelihood.params[k]:6.3f} ± {likelihood.bse[k]:.3f}"
    )
    assert abs(slopes[:, k].mean() - likelihood.params[k]) < 0.15 * likelihood.bse[k]
    assert abs(slopes[:, k].std() / likelihood.bse[k] - 1) < 0.15
assert report.verdict == "good"

# %% [markdown]
# The posterior predictive check compares the counts of the seven answers, by education.

# %%
with model:
    replicated = (
        pm.sample_posterior_predictive(
            idata.sel(draw=slice(0, 1000)), random_seed=1, progressbar=False
        )
        .posterior_predictive["answer"]
        .values[0]
    )
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
college = survey["educ"].values >= 5
for axis, (title, rows) in zip(
    axes, {"without college": ~college, "with college": college}.items(), strict=True
):
    counts = np.stack([(replicated[:, rows] == k).sum(axis=1) for k in range(7)], axis=1)
    low, high = np.quantile(counts, [0.05, 0.95], axis=0)
    seen = np.bincount(answer[rows], minlength=7)
    axis.bar(range(7), seen, color="0.85")
    axis.vlines(range(7), low, high, color="C0", lw=3)
    axis.set(title=title, xlabel="liberal to conservative")
    print(
        f"{title}: {np.sum((seen < low) | (seen > high))} of 7 counts outside their 90 % interval"
    )
axes[0].set_ylabel("respondents; 90 % predicted")
