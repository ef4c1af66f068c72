"""Ensembles: mass in the wrong place by restarts, and the fits that forty modes are joined from."""

import json

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from look import CYCLE, FAINT, STATIC, panels, save

import pymc_isomix as pmi

RESULTS = STATIC.parents[1] / "benchmarks" / "results" / "ensembles_modes.json"
WIDTH = 40


def make_model(means):
    """Build forty modes of equal mass in the plane."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        terms = -0.5 * ((x - means) ** 2).sum(axis=1) - np.log(2 * np.pi * len(means))
        pm.Potential("log_density", pt.logsumexp(terms))
    return model


def main():
    """Fit and draw."""
    means = np.random.default_rng(0).uniform(-WIDTH, WIDTH, (40, 2))
    options = {"init": "uniform", "init_width": WIDTH, "random_seed": 1, "progressbar": False}
    approx = pmi.fit_ensemble(make_model(means), restarts=16, **options)
    points, component = approx.draw_unconstrained(3000, np.random.default_rng(1))
    figure, (plane, masses) = panels(1, 2, height=3.2)
    for j, place in enumerate(approx.mixture.places):
        own = points[(component >= place.start) & (component < place.stop)]
        plane.plot(*own.T, ".", ms=1.5, alpha=0.6, color=CYCLE[j % len(CYCLE)])
    plane.plot(*means.T, "+", ms=9, mew=0.8, color=FAINT)
    plane.set(aspect="equal", xticks=[], yticks=[], title="forty modes, by fit")
    records = json.loads(RESULTS.read_text())["fits"]
    targets = dict.fromkeys(r["target"] for r in records if "mass_error" in r)
    for target in targets:
        own = [r for r in records if r["target"] == target]
        restarts = sorted({r["restarts"] for r in own})
        errors = [np.mean([r["mass_error"] for r in own if r["restarts"] == n]) for n in restarts]
        masses.plot(restarts, errors, "o-", ms=4, label=target)
    masses.set(xscale="log", xlabel="restarts", title="mass in the wrong place", ylim=(0, None))
    masses.set_xticks(restarts, restarts)
    masses.minorticks_off()
    masses.legend()
    save(figure, "ensembles.png")


if __name__ == "__main__":
    main()
