# %% [markdown]
# # Who is the best? Bradley-Terry abilities
#
# Five hundred matches between fifty players. Each player has an ability, and the better one
# wins more often. The spread of abilities is learned, and the ranking comes with its uncertainty.

# %%
import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

rng = np.random.default_rng(4)
truth = rng.normal(0, 1.2, 50)
player = np.array([rng.choice(50, 2, replace=False) for _ in range(500)])
first, second = player.T
won = rng.binomial(1, 1 / (1 + np.exp(truth[second] - truth[first])))
print(
    f"{len(won)} matches; a player has between {np.bincount(player.ravel()).min()} and "
    f"{np.bincount(player.ravel()).max()}"
)

# %%
with pm.Model(coords={"player": np.arange(50)}) as model:
    sigma = pm.LogNormal("sigma", 0, 0.5)
    ability = pm.Normal("ability", 0, sigma, dims="player")
    pm.Bernoulli("won", logit_p=ability[first] - ability[second], observed=won)
    approx = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
idata = approx.sample(4000, random_seed=1)
report = approx.diagnostics(progressbar=False)
print(report)
print(az.summary(idata, var_names=["sigma"], kind="stats"))

# %% [markdown]
# The 90 % intervals should hold the true ability of nine players in ten. The probability of being
# the best is what a ranking without uncertainty hides.

# %%
draws = idata.posterior["ability"].values[0]
low, high = np.quantile(draws, [0.05, 0.95], axis=0)
inside = np.mean((low < truth) & (truth < high))
best = np.bincount(draws.argmax(axis=1), minlength=50) / len(draws)
top = np.argsort(best)[::-1][:5]
print(f"intervals that hold the truth: {inside:.0%}")
print("the best is", ", ".join(f"player {i}: {best[i]:.2f}" for i in top))
assert 0.8 <= inside <= 1
assert truth.argmax() in top
assert report.verdict == "good"

# %% [markdown]
# A predictive check: the number of matches that each player wins, compared with replications.

# %%
with model:
    replicated = (
        pm.sample_posterior_predictive(
            idata.sel(draw=slice(0, 1000)), var_names=["won"], random_seed=1, progressbar=False
        )
        .posterior_predictive["won"]
        .values[0]
    )


def wins(result):
    """Matches won by each player, (..., 50)."""
    own = [
        result[..., first == i].sum(-1) + (1 - result[..., second == i]).sum(-1) for i in range(50)
    ]
    return np.stack(own, axis=-1)


spread, seen = wins(replicated).std(axis=-1), wins(won).std()
print(f"spread of wins: {seen:.2f}, replicated {spread.mean():.2f} ± {spread.std():.2f}")
assert abs(seen - spread.mean()) < 3 * spread.std()

# %%
order = np.argsort(draws.mean(axis=0))
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
axis.vlines(np.arange(50), low[order], high[order], lw=2, alpha=0.6, label="90 % interval")
axis.plot(np.arange(50), truth[order], "k.", ms=5, label="truth")
axis.set(xlabel="player, by posterior mean", ylabel="ability")
axis.legend()
