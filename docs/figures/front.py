"""Two numbers of which only the product was measured: the posterior, and three fits of it."""

import sys

import numpy as np
import pymc as pm
from look import INK, areas, draw_components, panels, save

import pymc_isomix as pmi

WIDTH, OBSERVED, NOISE = 3.3, (0.9, 1.2, 1.1), 0.5


def make_model():
    """Build the model of the front page."""
    with pm.Model() as model:
        a = pm.Normal("a", 0, 1)
        b = pm.Normal("b", 0, 1)
        pm.Normal("product", a * b, NOISE, observed=OBSERVED)
    return model


def density():
    """Grid (n,) and exact density on it (n, n)."""
    grid = np.linspace(-WIDTH, WIDTH, 300)
    a, b = np.meshgrid(grid, grid)
    log_p = -0.5 * (a**2 + b**2)
    log_p -= sum(0.5 * ((a * b - y) / NOISE) ** 2 for y in OBSERVED)
    return grid, np.exp(log_p - log_p.max())


def points(approx, draws=1500):
    """Draws of a and b, (draws,) each."""
    posterior = approx.sample(draws, random_seed=1).posterior
    return [posterior[name].values.ravel() for name in "ab"]


def panel(axis, title, draws=None):
    """Draw the exact posterior as areas, and draws over it."""
    grid, p = density()
    areas(axis, grid, grid, p)
    if draws is not None:
        axis.scatter(*draws, s=4, lw=0, color=INK, alpha=0.45, rasterized=True)
    axis.set_title(title)
    axis.set(xlim=(-WIDTH, WIDTH), ylim=(-WIDTH, WIDTH), xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(True)


def main():
    """Fit and draw."""
    with make_model():
        mixture = pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)
        gaussian = pm.fit(
            30_000,
            method="fullrank_advi",
            random_seed=1,
            progressbar=False,
            obj_optimizer=pm.adam(learning_rate=0.01),
        )
    print(mixture.diagnostics(progressbar=False))
    figure, axes = panels(1, 3, height=2.75)
    panel(axes[0], "posterior: 50, 80 and 98 %")
    panel(axes[1], "full-rank ADVI", points(gaussian))
    panel(axes[2], "pmi.fit and its components", points(mixture))
    to_plane = lambda points: mixture.coordinates.to_unconstrained(points)[0]  # noqa: E731
    draw_components(axes[2], mixture.mixture, to_plane=to_plane)
    save(figure, "front.png")


if __name__ == "__main__":
    sys.exit(main())
