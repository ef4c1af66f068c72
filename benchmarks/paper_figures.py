"""The paper's figures, one command each, with the default fit beside.

    python benchmarks/paper_figures.py 1       # five modes in two dimensions
    python benchmarks/paper_figures.py 2       # ten modes in 20 dimensions
    python benchmarks/paper_figures.py 3       # time and KL against the dimension
    python benchmarks/paper_figures.py 4       # breast cancer, wine, a small network
    python benchmarks/paper_figures.py 6       # funnel, sinh-arcsinh, four modes
    python benchmarks/paper_figures.py 8       # bias of equal weights against K
    python benchmarks/paper_figures.py images  # a network on digits, d = 12 010

Each writes its JSON, and its picture to docs/paper/. Settings are those of the paper's Table 1,
for 3, 4 and images our own; docs/paper.md says where. ``hist`` of a normalised target estimates
KL at each step.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from measure import fit, parser, save
from paper import divergence
from paper_networks import figure_4, images
from paper_pictures import (
    SEED,
    SETTINGS,
    draw_circles,
    draw_curves,
    fits,
    records,
    save_picture,
)
from problems.targets import (
    EQUAL,
    MODES,
    SKEWED,
    funnel,
    gaussian_modes,
    planted,
    random_modes,
    sinh_arcsinh,
)
from scipy.stats import norm
from sklearn.cluster import KMeans

import pymc_isomix as pmi

PAPER = ("mirror", "bures", "natural")


def figure_1():
    """Five modes in two dimensions, K = 1, 5, 10, 20."""
    target = random_modes("five", 2, 5, 8, 5, width=15, start_variance=2, full=True)
    rows = []
    for n_components in (1, 5, 10, 20):
        found = fits(target, n_components, (*PAPER, "fixed"), step=0.1, steps=1000)
        rows += records(target, n_components, found)
        if n_components == 10:
            drawn = found
    figure, axes = plt.subplots(2, 3, figsize=(8, 5.4), layout="constrained")
    for axis, (label, (approx, record)) in zip(axes.ravel(), drawn.items(), strict=False):
        if approx is None:
            axis.set_title(f"{label}: failed")
            continue
        draw_circles(axis, target, approx, 13)
        axis.set_title(f"{label}: {record['kl']:.3f}")
    draw_curves(axes[1, 2], drawn)
    axes[1, 2].get_legend().remove()
    axes[1, 2].set_title("KL by step, K = 10")
    save_picture(figure, "figure_1")
    return {"fits": rows}


def figure_2():
    """Ten modes in 20 dimensions, K = 20: KL by step, and marginals."""
    target = random_modes("ten", 20, 10, 10, 1, width=30, start_variance=100, full=False)
    found = fits(target, 20, PAPER, step=0.01, steps=10_000)
    more = fit(target.model(), SEED, n_components=50, init="uniform", init_width=30)
    rows = records(target, 20, found)
    rows += records(target, 50, {"IsoMix()": (more, {"kl": divergence(more, target, SEED)[0]})})
    figure, axes = plt.subplots(2, 3, figsize=(8, 5), layout="constrained")
    draw_curves(axes[0, 0], found)
    line = np.linspace(-15, 15, 400)
    for j, axis in enumerate(axes.ravel()[1:]):
        for k, (label, (approx, _)) in enumerate(found.items()):
            if approx is None or k == 1:  # mirror descent and Bures cannot be told apart
                continue
            q = approx.mixture
            pdf = norm.pdf(line, q.means[:, j, None], q.standard_deviations[:, j, None])
            axis.plot(line, q.weights @ pdf, f"C{k}", lw=1, label=label)
        axis.set(title=f"marginal {j + 1}", yticks=[])
    save_picture(figure, "figure_2")
    return {"fits": rows}


def figure_3():
    """Time of 1000 steps and KL against the dimension, five modes, K = 15."""
    rows = []
    for n_dim in (2, 5, 10, 20, 50, 100):
        target = planted(n_dim, 5)
        found = fits(target, 15, step=0.1)
        rows += [{"d": n_dim, **row} for row in records(target, 15, found)]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for label in ("mirror descent", "Bures", "IsoMix()"):
        own = [row for row in rows if row["fit"] == label]
        dims = [row["d"] for row in own]
        axes[0].plot(dims, [1000 * r["seconds"] / r["steps"] for r in own], "o-", label=label)
        axes[1].plot(dims, [max(r["kl"], 1e-4) for r in own], "o-", label=label)
    axes[0].set(xscale="log", yscale="log", xlabel="d", ylabel="seconds for 1000 steps")
    axes[1].set(xscale="log", yscale="log", xlabel="d", ylabel="KL(q‖p), nats")
    axes[0].legend()
    save_picture(figure, "figure_3")
    return {"fits": rows}


def figure_6():
    """Funnel, sinh-arcsinh and four modes, K = 5, 20, 40."""
    targets = {  # and the paper's step
        funnel(): 0.01,
        sinh_arcsinh("sinh-arcsinh, (.2, .2)", width=10.0): 0.001,
        sinh_arcsinh("sinh-arcsinh, (.2, .5)", (0.2, 0.5), width=10.0): 0.001,
        gaussian_modes("four modes", EQUAL, width=10.0): 0.01,
        gaussian_modes("four modes far apart", EQUAL, 1.0, modes=MODES * 4 / 3, width=10.0): 0.01,
        gaussian_modes("four modes, one of .1", SKEWED, width=10.0): 0.01,
    }
    rows = []
    figure, axes = plt.subplots(6, 3, figsize=(8, 15), layout="constrained")
    for line, (target, step) in zip(axes, targets.items(), strict=True):
        for n_components in (5, 20, 40):
            found = fits(target, n_components, PAPER, step=step, steps=10_000)
            rows += records(target, n_components, found)
            if n_components == 20:
                drawn = found
        for axis, label in zip(line, ("mirror descent", "IsoMix()"), strict=False):
            approx, record = drawn[label]
            draw_circles(axis, target, approx, 7 if "four" in target.name else 4)
            axis.set_title(f"{label}: {record['kl']:.4f}")
        line[0].set_ylabel(target.name)
        draw_curves(line[-1], drawn)
    save_picture(figure, "figure_6")
    return {"fits": rows}


def unequal(mixture, seed):
    """Errors of places and weights of two modes, by 2-means of 10 000 draws, as in the paper."""
    draws = mixture.draw(10_000, np.random.default_rng(seed))[0]
    found = KMeans(2, n_init=3, random_state=seed).fit(draws)
    order = np.argsort(found.cluster_centers_[:, 0])
    places = found.cluster_centers_[order] - MODES[[3, 0]]
    share = np.mean(found.labels_ == order[0])
    return float(np.linalg.norm(places, axis=1).mean()), float(abs(share - 0.1))


def figure_8():
    """Errors of equal and of learned weights against K: two modes, of weights .1 and .9."""
    two = MODES[[3, 0]]  # (-3, -3) and (3, 3)
    target = gaussian_modes("two modes, .1 and .9", np.array([0.1, 0.9]), 1.0, modes=two)
    counts, rows = (2, 5, 10, 15, 20, 25, 40), []
    for n_components in counts:
        small = max(1, round(0.1 * n_components))
        for seed in range(3):
            rng = np.random.default_rng(seed)
            near = np.repeat(two, (small, n_components - small), axis=0)
            start = near + rng.uniform(-1, 1, size=near.shape)
            shared = {"start": start, "random_seed": seed, "model": target.model()}
            for label, inference in {
                "mirror descent": pmi.IsoMix.paper(n_components, step_size=0.1, **shared),
                "Bures": pmi.IsoMix.paper(
                    n_components, step_size=0.1, variance_update="bures", **shared
                ),
                "IsoMix()": pmi.IsoMix(n_components, **shared),
            }.items():
                steps = 10_000 if label == "IsoMix()" else SETTINGS.steps
                approx = inference.fit(steps, backend="jax", progressbar=False)
                places, weights = unequal(approx.mixture, seed)
                rows.append(
                    {"target": target.name, "K": n_components, "fit": label, "seed": seed}
                    | {"kl": divergence(approx, target, seed)[0]}
                    | {"error_of_places": places, "error_of_weights": weights}
                )
    figure, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
    for axis, what in zip(axes, ("error_of_places", "error_of_weights", "kl"), strict=True):
        for label in ("mirror descent", "Bures", "IsoMix()"):
            at = [
                [max(r[what], 1e-5) for r in rows if (r["fit"], r["K"]) == (label, k)]
                for k in counts
            ]
            axis.plot(counts, np.mean(at, axis=1), "o-", label=label, alpha=0.8)
        axis.set(xlabel="K", yscale="log", title=what.replace("_", " ").replace("kl", "KL, nats"))
    axes[2].legend()
    save_picture(figure, "figure_8")
    return {"fits": rows}


FIGURES = {
    "1": figure_1,
    "2": figure_2,
    "3": figure_3,
    "4": figure_4,
    "6": figure_6,
    "8": figure_8,
    "images": images,
}


def main():
    what = parser(__doc__, what=tuple(FIGURES)).parse_args().what
    began = time.perf_counter()
    found = FIGURES[what]()
    settings = {"steps": SETTINGS.steps, "seed": SEED}
    settings["seconds"] = round(time.perf_counter() - began)
    save(f"paper_figure_{what}", settings, **found)
    for row in found["fits"]:
        print(row)


if __name__ == "__main__":
    main()
