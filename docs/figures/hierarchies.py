"""Neal's funnel as two fits see it, and the shares of the eight schools."""

import numpy as np
import pymc as pm
from look import BLUE, INK, panels, plt, save

import pymc_isomix as pmi

N_EFFECTS, DRAWS = 9, 1500


def funnel():
    """Draw effect and log variance: exact ones, those of a plain fit, and those of the default."""
    with pm.Model() as model:
        v = pm.Normal("v", 0, 3)
        pm.Normal("x", 0, pm.math.exp(v / 2), shape=N_EFFECTS)
    rng = np.random.default_rng(1)
    v = rng.normal(0, 3, DRAWS)
    found = {"exact draws": (rng.normal(0, np.exp(v / 2)), v)}
    for coordinates in ("affine", "auto"):
        with model:
            method = pmi.IsoMix(coordinates=coordinates, random_seed=1)
            approx = pm.fit(method=method, progressbar=False)
        posterior = approx.sample(DRAWS, random_seed=1).posterior
        v, x = posterior["v"].values.ravel(), posterior["x"].values.reshape(DRAWS, -1)
        print(f"{coordinates}: sd of v {v.std():.2f} (exact: 3)")
        found[f'coordinates="{coordinates}"'] = (x[:, 0], v)
    figure, axes = panels(1, 3, height=2.7, sharex=True, sharey=True)
    for axis, (title, draws) in zip(axes, found.items(), strict=True):
        axis.scatter(*draws, s=4, lw=0, alpha=0.45, color=INK if axis is axes[0] else BLUE)
        axis.set(title=title, xlabel="effect x", xlim=(-20, 20), ylim=(-10, 10))
    axes[0].set_ylabel("log variance v of the effects")
    save(figure, "funnel.png")


def shares():
    """Draw the shares of the data, by the plot of the page."""
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    standard_error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Normal("y", theta, standard_error, observed=effect, dims="school")
    idata = pmi.fit(model=model, random_seed=1, progressbar=False)
    pmi.plot_shares(idata)
    save(plt.gcf(), "shares.svg")
    pmi.plot_components(idata, var_names=["mu", "tau", "theta[A]"])
    save(plt.gcf(), "components.png")


if __name__ == "__main__":
    funnel()
    shares()
