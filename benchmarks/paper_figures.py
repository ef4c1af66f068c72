"""The paper's figures, one command each, with the default fit beside.

    python benchmarks/paper_figures.py 1       # four modes in two dimensions
    python benchmarks/paper_figures.py 2       # five modes in 20 dimensions
    python benchmarks/paper_figures.py 3       # time and KL against the dimension
    python benchmarks/paper_figures.py 4       # breast cancer, wine, a small network
    python benchmarks/paper_figures.py 6       # funnel, sinh-arcsinh, modes of unequal mass
    python benchmarks/paper_figures.py 8       # bias of equal weights against K
    python benchmarks/paper_figures.py images  # a network on digits, d = 12 010

Each writes its JSON, and its picture to docs/paper/. Targets and starts are those of paper.py, and
the constant steps those that were best there. ``hist`` of a normalised target estimates KL at
each step.
"""

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from measure import cost, fit, parser, read, save
from paper import divergence, paper_fit
from problems.targets import EQUAL, PAPER_TARGETS, breast_cancer, gaussian_modes, planted, wine
from scipy.special import softmax
from sklearn.datasets import load_diabetes, load_digits

import pymc_isomix as pmi

PICTURES = Path(__file__).parents[1] / "docs" / "paper"
LABELS = {"mirror": "mirror descent", "bures": "Bures", "fixed": "fixed variances"}
SETTINGS = SimpleNamespace(steps=3000, backend="jax", seeds=1)
STEP = 0.1  # of the planted modes; for the rest, the best of paper.py
SEED = 0


def best_step(target, n_components, variant):
    """The constant step that was best in paper.py, for the same target, K and variant."""
    for name in ("paper_targets", "paper_regressions"):
        for run in read(name)["runs"]:
            if (run["target"], run["K"], run["variant"]) == (target.name, n_components, variant):
                return run["step_size"]
    return STEP


def fits(target, n_components, variants=("mirror", "bures"), seed=SEED):
    """Fits of the paper's variants and the default one: {label: (approximation, record)}.

    The default one starts near the model's initial point, but where modes lie far apart in many
    dimensions in the box in which the paper starts.
    """
    found = {}
    for variant in variants:
        step = best_step(target, n_components, variant)
        approx = paper_fit(target, n_components, variant, step, seed, SETTINGS)
        kl = divergence(approx, target, seed)[0]
        found[LABELS[variant]] = approx, {"kl": kl, "step_size": step, **cost(approx)}
    box = {"init": "uniform", "init_width": target.start_width} if "planted" in target.name else {}
    approx = fit(target.model(), seed, n_components=n_components, **box)
    found["IsoMix()"] = approx, {"kl": divergence(approx, target, seed)[0], **cost(approx)}
    return found


def records(target, n_components, found):
    return [
        {"target": target.name, "K": n_components, "fit": label, **record}
        for label, (_, record) in found.items()
    ]


def smooth(values, width=75):
    """Running median, of a curve that is noisy and spans decades."""
    width = min(width, len(values))
    return np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)


def draw_circles(axis, target, approx, half_width):
    """Contours of a two-dimensional target, and one standard deviation of each component."""
    line = np.linspace(-half_width, half_width, 150)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    density = np.exp(target.log_density(grid.reshape(-1, 2))).reshape(150, 150)
    axis.contourf(line, line, density, levels=12, cmap="Greys", alpha=0.8)
    mixture, angle = approx.mixture, np.linspace(0, 2 * np.pi, 60)
    circle = mixture.root @ [np.cos(angle), np.sin(angle)]
    for mean, log_variance, weight in zip(
        mixture.means, mixture.log_variances, mixture.weights, strict=True
    ):
        strength = float(np.clip(np.sqrt(weight / mixture.weights.max()), 0.15, 1))
        scale = np.exp(0.5 * log_variance)
        axis.plot(*(mean[:, None] + scale * circle), "C3", lw=1, alpha=strength)
    axis.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width), aspect="equal")


def draw_curves(axis, found):
    for k, (label, (approx, _)) in enumerate(found.items()):
        axis.plot(np.maximum(smooth(approx.hist), 1e-4), f"C{k}", lw=1.2, label=label)
    axis.set(yscale="log", xlabel="step", ylabel="KL(q‖p), nats")
    axis.legend(fontsize=8)


def save_picture(figure, name):
    PICTURES.mkdir(exist_ok=True, parents=True)
    figure.savefig(PICTURES / f"{name}.png", dpi=80)


def figure_1():
    """Four modes in two dimensions, K = 20."""
    target = gaussian_modes("four modes, equal weights", EQUAL)
    found = fits(target, 20, ("mirror", "bures", "fixed"))
    figure, axes = plt.subplots(1, 5, figsize=(14, 3), layout="constrained")
    for axis, (label, (approx, record)) in zip(axes, found.items(), strict=False):
        draw_circles(axis, target, approx, 6)
        axis.set_title(f"{label}: KL {record['kl']:.4f}", fontsize=9)
    draw_curves(axes[-1], found)
    save_picture(figure, "figure_1")
    return {"fits": records(target, 20, found)}


def figure_2():
    """Five modes in 20 dimensions, K = 1, 5, 10, 20, 40."""
    target, rows, curves = planted(20, 5), [], {}
    for n_components in (1, 5, 10, 20, 40):
        found = fits(target, n_components, ("mirror", "bures"))
        rows += records(target, n_components, found)
        curves[n_components] = found
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for axis, label in zip(axes, ("mirror descent", "Bures", "IsoMix()"), strict=False):
        for k, (n_components, found) in enumerate(curves.items()):
            curve = np.maximum(smooth(found[label][0].hist), 1e-4)
            axis.plot(curve, f"C{k}", lw=1.2, label=f"K = {n_components}")
        axis.set(yscale="log", xlabel="step", title=label, ylim=(1e-4, 1e3))
    axes[0].set_ylabel("KL(q‖p), nats")
    axes[0].legend(fontsize=8)
    for label in ("mirror descent", "Bures", "IsoMix()"):
        own = [row for row in rows if row["fit"] == label]
        axes[3].plot([r["K"] for r in own], [max(r["kl"], 1e-4) for r in own], "o-", label=label)
    axes[3].set(xlabel="K", yscale="log", title="after the fit")
    axes[3].legend(fontsize=8)
    save_picture(figure, "figure_2")
    return {"fits": rows}


def figure_3():
    """Time of 1000 steps and KL against the dimension, five modes, K = 10."""
    rows = []
    for n_dim in (2, 5, 10, 20, 50, 100):
        target = planted(n_dim, 5)
        found = fits(target, 10, ("mirror", "bures"))
        rows += [{"d": n_dim, **row} for row in records(target, 10, found)]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for label in ("mirror descent", "Bures", "IsoMix()"):
        own = [row for row in rows if row["fit"] == label]
        dims = [row["d"] for row in own]
        axes[0].plot(dims, [1000 * r["seconds"] / r["steps"] for r in own], "o-", label=label)
        axes[1].plot(dims, [max(r["kl"], 1e-4) for r in own], "o-", label=label)
    axes[0].set(xscale="log", yscale="log", xlabel="d", ylabel="seconds for 1000 steps")
    axes[1].set(xscale="log", yscale="log", xlabel="d", ylabel="KL(q‖p), nats")
    axes[0].legend(fontsize=8)
    save_picture(figure, "figure_3")
    return {"fits": rows}


def network(hidden=10):
    """A network of one hidden layer on the diabetes data, d = 122."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()
    rows = np.random.RandomState(42).permutation(len(y))
    train, test = rows[:265], rows[265:]

    def model():
        with pm.Model() as model:
            inner = pm.Normal("inner", 0, 1, shape=(x.shape[1], hidden))
            shift = pm.Normal("shift", 0, 1, shape=hidden)
            outer = pm.Normal("outer", 0, 1 / np.sqrt(hidden), shape=hidden)
            level, log_noise = pm.Normal("level", 0, 1), pm.Normal("log_noise", -0.3, 0.5)
            mean = level + pm.math.tanh(x[train] @ inner + shift) @ outer
            pm.Normal("y", mean, pm.math.exp(log_noise), observed=y[train])
        return model

    def test_score(approx):
        draws = {k: v.values[0] for k, v in approx.sample(1000, random_seed=1).posterior.items()}
        units = np.tanh(x[test] @ draws["inner"] + draws["shift"][:, None])
        mean = draws["level"][:, None] + (units @ draws["outer"][..., None])[..., 0]
        sd = np.exp(draws["log_noise"])[:, None]
        log_p = -0.5 * ((y[test] - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)
        rmse = np.sqrt(np.mean((mean.mean(axis=0) - y[test]) ** 2))
        return {"test_log_score": float(np.log(np.exp(log_p).mean(axis=0)).mean()), "rmse": rmse}

    return model, test_score


def figure_4():
    """Two regressions and a network, K = 10: -ELBO by step, less the log evidence where known."""
    rows = []
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, target in zip(axes, (breast_cancer(), wine()), strict=False):
        found = fits(target, 10)
        rows += records(target, 10, found)
        for k, (label, (approx, _)) in enumerate(found.items()):
            evidence = target.log_density(np.zeros((1, target.n_dim)))
            shift = evidence - approx_log_density(target)
            axis.plot(smooth(approx.hist) - shift, f"C{k}", lw=1.2, label=label)
        axis.set(yscale="log", xlabel="step", title=target.name)
    axes[0].set_ylabel("KL(q‖p), nats")
    axes[0].legend(fontsize=8)
    model, test_score = network()
    for k, (label, options) in enumerate(
        {
            "mirror descent": {"variance_update": "mirror"},
            "Bures": {"variance_update": "bures"},
            "IsoMix()": None,
        }.items()
    ):
        if options is None:
            approx = fit(model(), SEED, n_components=10)
        else:
            settings = {"step_size": 0.0003, "start_sigma": 0.1, "random_seed": SEED}
            inference = pmi.IsoMix.paper(10, **options, **settings, model=model())
            approx = inference.fit(6000, backend="jax", progressbar=False)
        elbo = -float(np.mean(approx.hist[-100:]))
        rows.append(
            {"target": "network", "K": 10, "fit": label, "elbo": elbo, **test_score(approx)}
            | cost(approx)
        )
        axes[2].plot(smooth(approx.hist), f"C{k}", lw=1.2, label=label)
    axes[2].set(xlabel="step", title="network, d = 122", ylabel="-ELBO, nats", ylim=(290, 600))
    save_picture(figure, "figure_4")
    return {"fits": rows}


def approx_log_density(target):
    """Log density of the model at zero, which has no evidence taken off."""
    model = target.model()
    point = {name: np.zeros_like(value) for name, value in model.initial_point(0).items()}
    return float(model.compile_logp(mode="FAST_COMPILE")(point))


def figure_6():
    """Funnel, sinh-arcsinh and modes of unequal mass, K = 20."""
    rows, targets = [], (PAPER_TARGETS[2], PAPER_TARGETS[3], PAPER_TARGETS[1])
    figure, axes = plt.subplots(3, 4, figsize=(12, 9), layout="constrained")
    for line, target in zip(axes, targets, strict=True):
        found = fits(target, 20)
        rows += records(target, 20, found)
        for axis, (label, (approx, record)) in zip(line, found.items(), strict=False):
            draw_circles(axis, target, approx, 6 if "four" in target.name else 4)
            axis.set_title(f"{label}: KL {record['kl']:.4f}", fontsize=9)
        line[0].set_ylabel(target.name)
        draw_curves(line[-1], found)
    save_picture(figure, "figure_6")
    return {"fits": rows}


def figure_8():
    """KL of equal and of learned weights against K, modes with weights .1 .3 .3 .3."""
    target, rows = PAPER_TARGETS[1], []
    counts = (1, 2, 4, 5, 7, 10, 20, 40)
    for n_components in counts:
        rows += records(target, n_components, fits(target, n_components))
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for label in ("mirror descent", "Bures", "IsoMix()"):
        own = [row["kl"] for row in rows if row["fit"] == label]
        axis.plot(counts, np.maximum(own, 1e-5), "o-", label=label, alpha=0.8)
    axis.set(xlabel="K", yscale="log", ylabel="KL(q‖p), nats")
    axis.legend(fontsize=8)
    save_picture(figure, "figure_8")
    return {"fits": rows}


def images(hidden=160):
    """A network of 12 010 weights on scikit-learn's digits, K = 1 and 5, by minibatches."""
    x, y = load_digits(return_X_y=True)
    x, rows = (x - x.mean(axis=0)) / 4, np.random.RandomState(42).permutation(len(y))
    train, test = np.split(rows, [int(0.8 * len(y))])

    def network(batch_size):
        with pm.Model() as model:
            inner = pm.Normal("inner", 0, 1, shape=(64, hidden))
            shift = pm.Normal("shift", 0, 1, shape=hidden)
            outer = pm.Normal("outer", 0, 1, shape=(hidden, 10))
            level = pm.Normal("level", 0, 1, shape=10)
            seen = x[train], y[train].astype("int32")
            of_x, of_y = pm.Minibatch(*seen, batch_size=batch_size) if batch_size else seen
            logits = pm.math.maximum(of_x @ inner + shift, 0) @ outer + level
            pm.Categorical("digit", logit_p=logits, observed=of_y, total_size=len(train))
        return model

    def probabilities(approx, chosen):
        values, total = approx.space.with_model(model), 0.0
        for point in approx.mixture.draw(200, np.random.default_rng(1))[0]:
            one = values.unflatten(point)
            units = np.maximum(x[chosen] @ one["inner"] + one["shift"], 0)
            total = total + softmax(units @ one["outer"] + one["level"], axis=1) / 200
        return total

    def paper(n_components, **options):
        start = {"start_sigma": 0.1, "init_width": 0.1, "n_samples": 1, "step_size": 2e-4}
        options |= {"model": model, "random_seed": SEED}
        return pmi.IsoMix.paper(n_components, **start, **options), 6000

    model = network(batch_size=128)
    fits = {
        "mirror descent, K = 1": paper(1),
        "mirror descent, K = 5": paper(5),
        "Bures, K = 5": paper(5, variance_update="bures"),
        "mirror descent, K = 5, diagonal": paper(5, component_variances="diagonal"),
        "IsoMix(1), all rows": (
            pmi.IsoMix(1, n_samples=5, random_seed=SEED, model=network(None)),
            3000,
        ),
    }
    found, means = [], {}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for k, (label, (inference, steps)) in enumerate(fits.items()):
        approx = inference.fit(steps, backend="jax", progressbar=False)
        record = {"fit": label, "d": approx.mixture.n_dim, "elbo": -float(approx.hist[-50:].mean())}
        for part, chosen in (("train", train), ("test", test)):
            p = probabilities(approx, chosen)
            record[f"{part}_accuracy"] = float(np.mean(p.argmax(axis=1) == y[chosen]))
            record[f"{part}_log_score"] = float(np.log(p[np.arange(len(p)), y[chosen]]).mean())
        found.append(record | {"weights": approx.mixture.weights.tolist()} | cost(approx))
        axes[0].plot(smooth(approx.hist), f"C{k}", lw=1.2, label=label)
        means[label] = approx.mixture.means
    axes[0].set(xlabel="step", yscale="log", ylabel="-ELBO, nats", title="digits, d = 12 010")
    axes[0].legend(fontsize=8)
    every = np.concatenate(list(means.values()))
    plane = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)[2][:2]
    for k, (label, own) in enumerate(means.items()):
        axes[1].plot(*(plane @ (own - every.mean(axis=0)).T), f"C{k}o", alpha=0.7, label=label)
    axes[1].set(title="means of the components", xlabel="first", ylabel="second principal axis")
    save_picture(figure, "images")
    return {"fits": found}


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
    command: argparse.ArgumentParser = parser(__doc__, what=tuple(FIGURES))
    what = command.parse_args().what
    began = time.perf_counter()
    found = FIGURES[what]()
    settings = {"steps": SETTINGS.steps, "seed": SEED}
    settings["seconds"] = round(time.perf_counter() - began)
    save(f"paper_figure_{what}", settings, **found)
    for row in found["fits"]:
        print(row)


if __name__ == "__main__":
    main()
