# %% [markdown]
# # Into the next model: data that come in two parts
#
# A hierarchy of shops is fitted to last year's sales. `pmi.as_prior` makes the fit the prior of
# this year's model, with its correlations and scales. The result must equal a fit to both years.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(14)
shops = [f"shop {letter}" for letter in "ABCDEFGH"]
truth = rng.normal(3.0, 0.4, len(shops))
shop = np.tile(np.arange(len(shops)), 4)
last_year, this_year = (rng.poisson(np.exp(truth[shop] / 2)) for _ in range(2))


# %%
def chain(sales, shop=shop):
    """The model of all shops, before any data have been seen."""
    with pm.Model(coords={"shop": shops}) as model:
        mu, tau = pm.Normal("mu", 2, 2), pm.HalfNormal("tau", 1)
        level = pm.Normal("level", mu, tau, dims="shop")
        pm.Poisson("sales", pm.math.exp(level[shop] / 2), observed=sales)
    return model


with chain(last_year):
    first = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
print("verdict:", first.diagnostics(progressbar=False).verdict)

# %% [markdown]
# The next model starts where the fit ended. It has one free variable, `prior`. `mu`, `tau` and
# `level` are functions of it, with the same dims as before. Last year's data are no longer
# needed.

# %%
with pm.Model() as next_model:
    learned = pmi.as_prior(first)
    pm.Poisson("sales", pm.math.exp(learned["level"][shop] / 2), observed=this_year)
    second = pm.fit(method=pmi.IsoMix(random_seed=2), progressbar=False)
    before = pm.sample_prior_predictive(2000, random_seed=1)
print(next_model.free_RVs, next_model.named_vars_to_dims)
report = second.diagnostics(progressbar=False)
print("verdict:", report.verdict)

# %% [markdown]
# The check fits both years at once.

# %%
with chain(np.r_[last_year, this_year], np.r_[shop, shop]):
    whole = pm.fit(method=pmi.IsoMix(random_seed=3), progressbar=False)
in_turn, at_once = (
    approx.sample(4000, random_seed=1, transitions=20, progressbar=False).posterior
    for approx in (second, whole)
)
for name in ("mu", "tau"):
    a, b = in_turn[name], at_once[name]
    print(
        f"{name:4} in turn {a.mean():.3f} ± {a.std():.3f}, at once {b.mean():.3f} ± {b.std():.3f}"
    )
a, b = in_turn["level"].values[0], at_once["level"].values[0]
off, ratio = (a.mean(axis=0) - b.mean(axis=0)) / b.std(axis=0), a.std(axis=0) / b.std(axis=0)
print("levels: means differ by at most", np.abs(off).max().round(3), "standard deviations;")
print("their standard deviations by", np.abs(ratio - 1).max().round(3))
assert np.abs(off).max() < 0.12
assert np.abs(ratio - 1).max() < 0.1
assert report.verdict == "good"

# %% [markdown]
# The predictive check looks at this year's sales: do they vary more than a Poisson distribution
# allows?

# %%
with next_model:
    drawn = pm.sample_posterior_predictive(
        second.sample(1000, random_seed=1), var_names=["sales"], random_seed=1, progressbar=False
    ).posterior_predictive["sales"]


def dispersion(sales):
    """Variance over mean within the shops, averaged."""
    by_shop = sales.reshape(*sales.shape[:-1], -1, len(shops))
    return (by_shop.var(axis=-2) / by_shop.mean(axis=-2)).mean(axis=-1)


seen, replicated = dispersion(this_year), dispersion(drawn.values[0])
p_value = np.mean(replicated >= seen)
print(f"dispersion {seen:.2f}, replicated {replicated.mean():.2f}; as large: {p_value:.2f}")
assert 0.02 < p_value < 0.98

# %%
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
posteriors = {"last year": before.prior, "then this year": in_turn, "both at once": at_once}
for k, (name, draws) in enumerate(posteriors.items()):
    low, high = np.quantile(draws["level"].values[0], [0.05, 0.95], axis=0)
    axis.vlines(np.arange(8) + 0.15 * (k - 1), low, high, color=f"C{k}", lw=3, label=name)
axis.plot(np.arange(8), truth, "k*", label="truth")
axis.set_xticks(np.arange(8), shops)
axis.set(ylabel="level, 90 % interval")
axis.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.15))
