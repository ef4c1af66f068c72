# %% [markdown]
# # Which model? Leave-one-out with `az.compare`
#
# A line through data with outliers, with three models: normal noise, Student-t noise, and an
# unnecessary cubic. The comparison has to prefer the right noise, and must not prefer the cubic.
# Everything here works as it does after `pm.sample`.

# %%
import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(10)
x = np.linspace(-2, 2, 60)
y = 1 + 0.8 * x + 0.3 * rng.standard_t(1.3, len(x))


def line(noise, degree=1):
    with pm.Model(coords={"power": np.arange(degree + 1)}) as model:
        beta = pm.Normal("beta", 0, 2, dims="power")
        sigma = pm.HalfNormal("sigma", 1)
        mu = (x[:, None] ** np.arange(degree + 1)) @ beta
        if noise == "normal":
            pm.Normal("y", mu, sigma, observed=y)
        else:
            pm.StudentT("y", nu=pm.Gamma("nu", 2, 0.1), mu=mu, sigma=sigma, observed=y)
    return model


models = {
    "line, normal": line("normal"),
    "line, Student-t": line("student"),
    "cubic, Student-t": line("student", 3),
}

# %% [markdown]
# `pm.compute_log_likelihood` adds the group that leave-one-out needs.

# %%
fits, reports = {}, {}
for name, model in models.items():
    with model:
        approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
        fits[name] = approx.sample(4000, random_seed=1)
        reports[name] = approx.diagnostics(progressbar=False)
        pm.compute_log_likelihood(fits[name], progressbar=False)
    print(name, "verdict:", reports[name].verdict)

# %%
table = az.compare(fits)
print(table.round(1))
assert table.index[-1] == "line, normal"
assert all(report.verdict == "good" for report in reports.values())

# %% [markdown]
# The evidence is another criterion, and every fit estimates it. It depends on the prior too. Here
# it agrees.

# %%
evidence = {name: report["log_evidence"].item() for name, report in reports.items()}
for name, value in evidence.items():
    print(f"{name:18} log evidence {value:.1f}")
assert min(evidence, key=evidence.get) == "line, normal"
slopes = {name: idata.posterior["beta"].values[0][:, 1] for name, idata in fits.items()}
for name in ("line, normal", "line, Student-t"):
    print(f"{name:18} slope {slopes[name].mean():.2f} ± {slopes[name].std():.2f} (truth 0.80)")
    assert abs(slopes[name].mean() - 0.8) < 3 * slopes[name].std()

# %% [markdown]
# The comparison says which model is better. A predictive check says whether it is good enough:
# could the model have produced the largest residual, in units of the standard deviation of all
# residuals?

# %%
for name, model in models.items():
    with model:
        drawn = pm.sample_posterior_predictive(
            fits[name].sel(draw=slice(0, 999)), random_seed=1, progressbar=False
        ).posterior_predictive["y"]
    beta = fits[name].posterior["beta"].values[0, :1000]
    mu = beta @ x ** np.arange(beta.shape[1])[:, None]
    largest = [
        np.abs(part - mu).max(axis=1) / (part - mu).std(axis=1) for part in (y, drawn.values[0])
    ]
    p_value = np.mean(largest[1] >= largest[0])
    print(f"{name:18} largest residual {largest[0].mean():.1f} sd; as large: {p_value:.3f}")
    assert (p_value < 0.01) == (name == "line, normal")

# %%
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.plot(x, y, "k.", ms=4)
for k, name in enumerate(("line, normal", "line, Student-t")):
    curves = fits[name].posterior["beta"].values[0] @ np.stack([np.ones_like(x), x])
    axis.fill_between(
        x, *np.quantile(curves, [0.05, 0.95], axis=0), color=f"C{k}", alpha=0.4, label=name
    )
axis.plot(x, 1 + 0.8 * x, "k--", lw=1, label="truth")
axis.set(xlabel="x", ylabel="y")
axis.legend()
