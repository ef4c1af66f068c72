"""Four fits and what the verdict says of them, beside the exact posterior."""

import numpy as np
import pymc as pm
from front import density, make_model
from look import BLUE, INK, areas, panels, save

import pymc_isomix as pmi

FUNNEL = 2.5


def funnel():
    """Build one effect whose log variance is v."""
    with pm.Model() as model:
        v = pm.Normal("b", 0, FUNNEL)
        pm.Normal("a", 0, pm.math.exp(v / 2))
    return model


def funnel_density():
    """Grids (n,), (n,) and exact density (n, n)."""
    a, b = np.linspace(-14, 14, 400), np.linspace(-8, 8, 400)
    log_p = -0.5 * (b[:, None] / FUNNEL) ** 2 - 0.5 * a**2 * np.exp(-b[:, None]) - b[:, None] / 2
    return a, b, np.exp(log_p)


def main():
    """Fit, judge and draw."""
    grid, p = density()
    product, funnels = (make_model(), grid, grid, p), (funnel(), *funnel_density())
    cases = (
        (product, {}, "as it comes"),
        (product, {"n_components": 1, "coordinates": "affine"}, "one Gaussian"),
        (funnels, {}, "as it comes"),
        (funnels, {"coordinates": "affine", "n_components": 5}, "five, no sites"),
    )
    figure, axes = panels(1, 4, height=2.35)
    for axis, ((model, x, y, p), options, name) in zip(axes, cases, strict=True):
        with model:
            approx = pm.fit(method=pmi.IsoMix(random_seed=1, **options), progressbar=False)
        report = approx.diagnostics(progressbar=False)
        print(f"{name}\n{report}")
        posterior = approx.sample(700, random_seed=1).posterior
        areas(axis, x, y, p, color=BLUE)
        draws = [posterior[variable].values.ravel() for variable in "ab"]
        axis.scatter(*draws, s=4, lw=0, color=INK, alpha=0.5)
        axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
        axis.set_title(report.verdict, fontweight="bold")
        axis.set_xlabel(name)
    save(figure, "verdict.png")


if __name__ == "__main__":
    main()
