# %% [markdown]
# # Logistic regression: is a breast tumour malignant?
#
# Thirty correlated measurements of 569 tumours and a logistic regression. The model is checked on
# held-out patients: how accurate are the predictions, and are the probabilities calibrated?

# %%
import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from sklearn.datasets import load_breast_cancer

import pymc_isomix as pmi

data = load_breast_cancer()
order = np.random.default_rng(42).permutation(len(data.target))
fitted, held_out = np.split(order, [int(0.6 * len(order))])
features = (data.data - data.data[fitted].mean(axis=0)) / data.data[fitted].std(axis=0)
names = [str(name) for name in data.feature_names]

# %% [markdown]
# The features are standardised, so one prior suits all coefficients. `pm.Data` allows new
# patients later.

# %%
with pm.Model(coords={"feature": names, "patient": fitted}) as model:
    x = pm.Data("x", features[fitted], dims=("patient", "feature"))
    beta = pm.Normal("beta", 0, 1, dims="feature")
    pm.Bernoulli("benign", logit_p=x @ beta, observed=data.target[fitted], dims="patient")
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(2000, random_seed=1)
az.summary(idata, kind="stats").head(8)

# %% [markdown]
# Can the fit be trusted?

# %%
report = approx.diagnostics(progressbar=False)
print("verdict:", report.verdict)
print(report.advice)

# %% [markdown]
# Next, the held-out patients. Accuracy is not enough. Of the patients with a predicted
# probability around 0.8, are about 80 % benign?

# %%
with model:
    pm.set_data({"x": features[held_out]}, coords={"patient": held_out})
    predicted = pm.sample_posterior_predictive(
        idata, var_names=["benign"], predictions=True, random_seed=1, progressbar=False
    )
probability = predicted.predictions["benign"].mean(("chain", "draw")).values
truth = data.target[held_out]
accuracy = np.mean((probability > 0.5) == truth)
print(f"{len(held_out)} patients held out: accuracy {accuracy:.3f}")
log_score = np.log(np.clip(np.where(truth == 1, probability, 1 - probability), 1e-3, 1)).mean()
print(f"mean log score {log_score:.3f}; of guessing the share of benign {np.log(0.5):.3f}")
assert accuracy > 0.94
assert report.verdict == "good"

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", width_ratios=[1.3, 1])
draws = idata.posterior["beta"].stack(sample=("chain", "draw"))
ranked = np.argsort(np.abs(draws.mean("sample").values))[-10:]
axes[0].violinplot(
    [draws.values[i] for i in ranked], orientation="horizontal", showextrema=False, widths=0.9
)
axes[0].axvline(0, color="0.6", lw=0.8, zorder=0)
axes[0].set_yticks(np.arange(1, 11), [names[i] for i in ranked])
axes[0].set(xlabel="coefficient, per standard deviation", title="Above zero speaks for benign")
bins = np.digitize(probability, np.linspace(0, 1, 6)[1:-1])
for b in np.unique(bins):
    inside = bins == b
    share, n = truth[inside].mean(), inside.sum()
    error = 2 * np.sqrt(max(share * (1 - share), 0.25 / n) / n)
    at = probability[inside].mean()
    axes[1].vlines(at, max(share - error, 0), min(share + error, 1), color="C1")
    axes[1].plot(at, share, "o", color="C1")
axes[1].plot([0, 1], [0, 1], color="0.6", lw=0.8)
axes[1].set(xlabel="predicted probability", ylabel="share that is benign", title="Held out")
figure.savefig("breast_cancer.png", dpi=120)
