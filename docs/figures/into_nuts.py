"""What a start from the fit saves NUTS, from the benchmarks' JSON."""

import sys
from pathlib import Path

import numpy as np
from look import BLUE, INK, panels, save

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from results import grouped, read

MODELS = {
    "AR(1), .99, d = 200": "Gaussian of 200",
    "eight schools, centred": "eight schools",
}
STARTS = {"PyMC": (1000, INK), "nuts_init": (200, BLUE)}


def main():
    """Draw gradients of tuning, and effective draws for a thousand gradients."""
    found = grouped(read("nuts")["runs"], ("model", "start", "tune"))
    figure, axes = panels(2, 1, width=5.8, height=1.75)
    keys = (
        ("tuning_gradients", "gradients spent on tuning"),
        ("ess_per_thousand", "effective draws for a thousand gradients"),
    )
    for axis, (key, label) in zip(axes, keys, strict=True):
        rows = []
        for model, name in MODELS.items():
            for start, (tune, color) in STARTS.items():
                value = np.median([run[key] for run in found[model, start, tune]])
                axis.barh(len(rows), value, color=color, height=0.72)
                shown = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
                axis.text(value * 1.1, len(rows), shown, va="center", fontsize=10)
                rows.append(f"{name}, {start}")
        axis.set(xscale="log", title=label)
        low, high = axis.get_xlim()
        axis.set(xlim=(low / 2, high * 5), ylim=(3.6, -0.6), xticks=[])
        axis.minorticks_off()
        axis.set_yticks(range(len(rows)), rows)
        axis.spines["bottom"].set_visible(False)
    save(figure, "into_nuts.svg")


if __name__ == "__main__":
    main()
