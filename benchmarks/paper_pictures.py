"""What the figures of the paper share: fits, and how they are drawn."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
from measure import cost, fit, read
from paper import divergence, paper_fit

PICTURES = Path(__file__).parents[1] / "docs" / "paper"
LABELS = {
    "mirror": "mirror descent",
    "bures": "Bures",
    "natural": "natural gradient",
    "fixed": "fixed variances",
}
SETTINGS = SimpleNamespace(steps=3000, backend="jax", seeds=1)
STEP = 0.1  # where paper.py has tried none
SEED = 0
mpl.rcParams.update({"font.size": 12, "axes.titlesize": 11, "legend.fontsize": 9})


def best_step(target, n_components, variant):
    """The constant step that was best in paper.py, for the same target, K and variant."""
    for name in ("paper_targets", "paper_regressions"):
        for run in read(name)["runs"]:
            if (run["target"], run["K"], run["variant"]) == (target.name, n_components, variant):
                return run["step_size"]
    return STEP


def fits(target, n_components, variants=("mirror", "bures"), *, step=None, steps=None, box=True):
    """Fits of the paper's variants and the default one: {label: (approximation, record)}.

    A variant whose step fails has no approximation. The default fit starts in the box in which
    the paper's do, or near the model's initial point.
    """
    found, settings = {}, SimpleNamespace(**{**vars(SETTINGS), "steps": steps or SETTINGS.steps})
    for variant in variants:
        size = step or best_step(target, n_components, variant)
        label, record = LABELS[variant], {"step_size": size}
        try:
            approx = paper_fit(target, n_components, variant, size, SEED, settings)
        except FloatingPointError:
            found[label] = None, record | {"kl": None}
            continue
        kl = divergence(approx, target, SEED)[0]
        found[label] = approx, record | {"kl": kl} | cost(approx)
    start = {"init": "uniform", "init_width": target.start_width} if box else {}
    approx = fit(target.model(), SEED, n_components=n_components, **start)
    found["IsoMix()"] = approx, {"kl": divergence(approx, target, SEED)[0]} | cost(approx)
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
        if approx is None:
            continue
        axis.plot(np.maximum(smooth(approx.hist), 1e-4), f"C{k}", lw=1.2, label=label)
    axis.set(yscale="log", xlabel="step", ylabel="KL(q‖p), nats")
    axis.legend()


def save_picture(figure, name):
    PICTURES.mkdir(exist_ok=True, parents=True)
    figure.savefig(PICTURES / f"{name}.png", dpi=80)
