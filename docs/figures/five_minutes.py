"""Diabetes data: what three methods say of ten correlated coefficients."""

import numpy as np
import pymc as pm
from look import BLUE, INK, ORANGE, panels, save
from sklearn.datasets import load_diabetes

import pymc_isomix as pmi


def make_model():
    """Build the robust regression of the page."""
    data = load_diabetes(as_frame=True, scaled=False)
    x = (data.data - data.data.mean()) / data.data.std()
    y = (data.target - data.target.mean()) / data.target.std()
    with pm.Model(coords={"feature": list(x.columns)}) as model:
        beta = pm.Normal("beta", 0, 1, dims="feature")
        sigma = pm.HalfNormal("sigma", 1)
        nu = pm.Gamma("nu", 2, 0.1)
        pm.StudentT("y", nu=nu, mu=x.to_numpy() @ beta, sigma=sigma, observed=y)
    return model


def main():
    """Fit three times and draw."""
    with make_model() as model:
        fits = {
            "NUTS, long": pm.sample(2000, random_seed=1, progressbar=False, cores=1),
            "pmi.fit": pmi.fit(draws=4000, random_seed=1, progressbar=False),
            "ADVI, 50 000 steps": pm.fit(
                50_000,
                method="advi",
                random_seed=1,
                progressbar=False,
                obj_optimizer=pm.adam(learning_rate=0.01),
            ).sample(4000, random_seed=1),
        }
    print(fits["pmi.fit"]["diagnostics"].attrs)
    features = model.coords["feature"]
    figure, axis = panels(1, 1, width=5.6, height=4.0)
    for (name, idata), offset, color in zip(
        fits.items(), (-0.24, 0, 0.24), (INK, BLUE, ORANGE), strict=True
    ):
        beta = idata.posterior["beta"].stack(s=("chain", "draw")).to_numpy()
        low, inner, middle, outer, high = np.quantile(beta, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
        place = np.arange(len(features)) + offset
        axis.hlines(place, low, high, color=color, lw=1.2)
        axis.hlines(place, inner, outer, color=color, lw=3.5, label=name)
        axis.plot(middle, place, "o", color=color, ms=4)
        print(name, beta.std(axis=1).round(3))
    axis.axvline(0, color=INK, lw=0.7, ls=":")
    axis.set_yticks(range(len(features)), features)
    axis.invert_yaxis()
    axis.set_xlabel("coefficient, in standard deviations (intervals of 50 and 90 %)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    save(figure, "five_minutes.svg")


if __name__ == "__main__":
    main()
