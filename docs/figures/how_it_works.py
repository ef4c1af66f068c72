"""Circles that move, the metric, the weights and the sites: the pictures of "How it works"."""

import sys

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from front import density
from look import BLUE, GREEN, INK, ORANGE, ROSE, areas, draw_components, panels, save

import pymc_isomix as pmi

STEPS = (0, 4, 20, 400)
RULES = {"mirror": "entropic mirror", "bures": "Bures-Wasserstein", "natural": "natural gradient"}


def plain(axis, width=None):
    """Leave out ticks; a square from -width to width."""
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(True)
    if width is not None:
        axis.set(xlim=(-width, width), ylim=(-width, width))


def recorded(inference, steps):
    """Fit, and return the mixtures after so many steps."""
    found = {0: inference.approx.mixture}
    keep = lambda approx, _, i: found.setdefault(i, approx.mixture) if i in steps else None  # noqa: E731
    inference.fit(max(steps), callbacks=[keep], progressbar=False)
    return [found[i] for i in steps]


def model_of(log_density):
    """Return a model of two numbers x with a log density."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        pm.Potential("density", log_density(x))
    return model


def geometries():
    """Eight circles at four times under three rules."""
    noise = 0.5

    def log_density(x):
        misfit = sum(((x[0] * x[1] - y) / noise) ** 2 for y in (0.9, 1.2, 1.1))
        return -0.5 * ((x**2).sum() + misfit)

    model, (grid, p) = model_of(log_density), density()
    starts = np.random.default_rng(3).uniform(-2.2, 2.2, (8, 2))
    figure, axes = panels(3, 4, height=1.68)
    for row, (rule, name) in zip(axes, RULES.items(), strict=True):
        inference = pmi.IsoMix.paper(
            8,
            variance_update=rule,
            step_size=0.02,
            start=starts,
            start_sigma=0.25,
            random_seed=1,
            model=model,
        )
        for axis, mixture, step in zip(row, recorded(inference, STEPS), STEPS, strict=True):
            areas(axis, grid, grid, p)
            draw_components(axis, mixture)
            plain(axis, 3.1)
            if rule == "mirror":
                axis.set_title(f"step {step}")
        row[0].set_ylabel(name)
    save(figure, "geometries.png")


def metrics():
    """A narrow Gaussian under three metrics."""
    covariance = np.array([[1.0, 0.93], [0.93, 1.0]])
    precision = np.linalg.inv(covariance)
    model = model_of(lambda x: -0.5 * (x @ precision @ x))
    grid = np.linspace(-3, 3, 200)
    points = np.stack(np.meshgrid(grid, grid), -1)
    p = np.exp(-0.5 * np.einsum("...i,ij,...j", points, precision, points))
    figure, axes = panels(1, 3, height=2.75)
    titles = {"identity": "circles", "dense": "one metric for all"}
    fits = (("identity", 8), ("identity", 30), ("dense", 8))
    for axis, (metric, k) in zip(axes, fits, strict=True):
        with model:
            approx = pm.fit(method=pmi.IsoMix(k, metric=metric, random_seed=1), progressbar=False)
        kl = approx.diagnostics(progressbar=False)
        missing = np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(covariance)[1] - kl["elbo"].item()
        areas(axis, grid, grid, p)
        draw_components(axis, approx.mixture)
        axis.set_title(f"{titles[metric]}, K = {k}")
        axis.set_xlabel(f"KL {max(missing, 0):.2f} nats")
        plain(axis, 2.8)
    save(figure, "metric.png")


def weights():
    """Two modes of masses .15 and .85, with weights as they are and learned."""
    masses, places, deviations = np.array([0.15, 0.85]), np.array([-3.0, 2.0]), (0.7, 0.9)

    def log_density(x):
        parts = [
            np.log(m) + pm.logp(pm.Normal.dist(c, s), x)
            for m, c, s in zip(masses, places, deviations, strict=True)
        ]
        return pt.logsumexp(pm.math.stack(parts))

    with pm.Model() as model:
        x = pm.Flat("x")
        pm.Potential("density", log_density(x))
    grid = np.linspace(-6, 6, 160)
    figure, axes = panels(1, 2, height=2.3, sharey=True)
    for axis, kind in zip(axes, ("uniform", "learned"), strict=True):
        with model:
            method = pmi.IsoMix(
                6, weights=kind, init="uniform", init_width=5, coordinates="affine", random_seed=4
            )
            approx = pm.fit(method=method, progressbar=False)
        mixture = approx.mixture
        deviation = mixture.standard_deviations[:, 0]
        parts = np.exp(-0.5 * ((grid[:, None] - mixture.means[:, 0]) / deviation) ** 2)
        parts *= mixture.weights / deviation / np.sqrt(2 * np.pi)
        truth = sum(
            m * np.exp(-0.5 * ((grid - c) / s) ** 2) / s / np.sqrt(2 * np.pi)
            for m, c, s in zip(masses, places, deviations, strict=True)
        )
        axis.fill_between(grid, truth, color=BLUE, alpha=0.25, lw=0, label="posterior")
        axis.plot(grid, parts, color=ORANGE, lw=0.9, alpha=0.7)
        axis.plot(grid, parts.sum(1), color=INK, lw=1.6, label="mixture")
        left = mixture.weights[mixture.means[:, 0] < -0.7].sum()
        axis.set_title(f"{kind}: left mode {left:.2f}")
        axis.set(yticks=[], xlabel="x (left mode: .15)")
        axis.spines["left"].set_visible(False)
    axes[0].legend(loc="upper left")
    save(figure, "weights.svg")


def sites():
    """A funnel of one effect: in the fit's coordinates, in the model's, and without sites."""
    with pm.Model() as model:
        v = pm.Normal("v", 0, 2.5)
        pm.Normal("x", 0, pm.math.exp(v / 2))
    approximations = []
    for coordinates in ("auto", "affine"):
        with model:
            method = pmi.IsoMix(12, coordinates=coordinates, random_seed=2)
            approximations.append(pm.fit(method=method, progressbar=False))
    auto, affine = approximations
    labels = list(auto.space.labels)
    x, v = np.linspace(-14, 14, 400), np.linspace(-8, 8, 400)
    xs, vs = np.meshgrid(x, v)
    p = np.exp(-0.5 * (vs / 2.5) ** 2 - 0.5 * xs**2 * np.exp(-vs) - vs / 2)
    order = [labels.index("x"), labels.index("v")]
    figure, axes = panels(1, 3, height=2.6)
    gauss = np.exp(-0.5 * (vs / 2.5) ** 2 - 0.5 * (xs / 4) ** 2)
    areas(axes[0], xs / 4, vs, gauss, GREEN)
    areas(axes[1], xs, vs, p)
    areas(axes[2], xs, vs, p)
    group = auto.groups[0]
    draw_components(axes[0], auto.mixture, to_plane=lambda y: y[:, order])
    draw_components(
        axes[1], auto.mixture, to_plane=lambda y: group.coordinates.to_unconstrained(y)[0][:, order]
    )
    draw_components(axes[2], affine.mixture, to_plane=lambda y: y[:, order], color=ROSE)
    axes[0].set(title="where the fit works", xlim=(-3.5, 3.5), xlabel="effect / its scale")
    axes[1].set(title="the same, in the model", xlim=(-14, 14), xlabel="effect")
    axes[2].set(title="a fit without sites", xlim=(-14, 14), xlabel="effect")
    axes[0].set_ylabel("log variance of the effect")
    for axis in axes:
        axis.set(ylim=(-8, 8), xticks=[], yticks=[])
        axis.spines[:].set_visible(True)
    save(figure, "sites.png")


if __name__ == "__main__":
    for draw in (geometries, metrics, weights, sites):
        if draw.__name__ in (sys.argv[1:] or draw.__name__):
            draw()
