"""The unknown frequency of a sinusoid: exact density and fit, and the masses of the modes."""

import numpy as np
import pymc as pm
from look import BLUE, ORANGE, panels, save

import pymc_isomix as pmi


def data():
    """Times, and the noisy sinusoid of the page."""
    rng = np.random.default_rng(27)
    time = np.sort(rng.uniform(0, 4, 10))
    return time, np.sin(2 * np.pi * 1.5 * time) + rng.normal(0, 1, 10)


def make_model(time, y):
    """Build the model of the page."""
    with pm.Model() as model:
        frequency = pm.Uniform("frequency", 0, 4)
        pm.Normal("y", pm.math.sin(2 * np.pi * frequency * time), 1, observed=y)
    return model


def main():
    """Fit and draw."""
    time, y = data()
    model = make_model(time, y)
    grid = np.linspace(0.001, 3.999, 1200)
    log_p = -0.5 * ((y - np.sin(2 * np.pi * grid[:, None] * time)) ** 2).sum(1)
    p = np.exp(log_p - log_p.max())
    p /= p.sum() * (grid[1] - grid[0])
    with model:
        approx = pm.fit(method=pmi.IsoMix(init="prior", random_seed=1), progressbar=False)
    report = approx.diagnostics(progressbar=False)
    print(report)
    draws = approx.sample(20_000, random_seed=1).posterior["frequency"].values.ravel()
    figure, (axis, masses) = panels(1, 2, height=2.6, width_ratios=[2, 1])
    axis.fill_between(grid, p, color=BLUE, alpha=0.3, lw=0, label="exact")
    heights, edges = np.histogram(draws, bins=160, range=(0, 4), density=True)
    axis.stairs(heights, edges, color=ORANGE, lw=1.1, label="draws of the fit")
    axis.set(xlabel="frequency", yticks=[], xlim=(0, 4))
    axis.spines["left"].set_visible(False)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    cuts = [i for i in range(1, len(p) - 1) if p[i] <= min(p[i - 1], p[i + 1])]
    exact = np.sort([part.sum() for part in np.split(p / p.sum(), cuts)])[::-1]
    found, error = report["mode_mass"].values, 2 * report["mode_mass_se"].values
    n = 3
    masses.bar(np.arange(n), exact[:n], color=BLUE, alpha=0.3, label="exact")
    masses.errorbar(np.arange(n), found[:n], error[:n], fmt="o", color=ORANGE, ms=5, label="fit")
    masses.set(xlabel="mode", ylabel="mass", xticks=range(n))
    print("exact masses", exact[:n].round(3))
    save(figure, "several_modes.svg")


if __name__ == "__main__":
    main()
