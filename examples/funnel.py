"""Neal's funnel: the posterior of a hierarchy without data, as two fits see it.

Fits it in plain unconstrained space and in the coordinates that the model itself suggests, prints
the standard deviation of the log scale (the truth is 3) and the verdicts, and draws the picture of
docs/hierarchies.md: ``python examples/funnel.py docs/_static/funnel.png``.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pymc_isomix as pmi

N_EFFECTS, DRAWS = 9, 2000


def make_model():
    """Build the funnel: effects whose scale is exp(v / 2), and nothing that is observed."""
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 3.0)
        pm.Normal("x", 0.0, pm.math.exp(v / 2), shape=N_EFFECTS)
    return model


def fitted(model, coordinates):
    """Fit, say how it went, and return draws of x[0] and v."""
    with model:
        inference = pmi.IsoMix(coordinates=coordinates, random_seed=1)
        approx = pm.fit(method=inference, progressbar=False)
    posterior = approx.sample(DRAWS, random_seed=1).posterior
    v = posterior["v"].values.ravel()
    report = approx.diagnostics(progressbar=False)
    print(f"{coordinates}: sd of v {v.std():.2f}, verdict {report.verdict}")
    return posterior["x"].values.reshape(DRAWS, -1)[:, 0], v


def draw_picture(panels, path):
    """Draw x[0] and v of each, beside each other."""
    figure, axes = plt.subplots(
        1, 3, figsize=(8, 3), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (title, (x, v)) in zip(axes, panels.items(), strict=True):
        axis.scatter(x, v, s=3, lw=0, alpha=0.4)
        axis.set(title=title, xlabel="effect x", xlim=(-20, 20), ylim=(-10, 10))
    axes[0].set_ylabel("log variance v of the effects")
    figure.savefig(path, dpi=100)


def main(path="funnel.png"):
    """Fit, print and draw."""
    rng, model = np.random.default_rng(1), make_model()
    v = rng.normal(0, 3, DRAWS)
    panels = {
        "exact draws": (rng.normal(0, np.exp(v / 2)), v),
        'coordinates="affine"': fitted(model, "affine"),
        'coordinates="auto"': fitted(model, "auto"),
    }
    draw_picture(panels, path)
    print(f"Picture: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
