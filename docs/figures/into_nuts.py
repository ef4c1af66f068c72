"""What a start from the fit saves NUTS, from the benchmarks' JSON."""

import sys
from pathlib import Path

import numpy as np
from look import BLUE, INK, panels, save

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from results import grouped, read

SHOWN = {"AR(1), .99, d = 200": "correlated Gaussian, d = 200", "eight schools, centred": None}
STARTS = {"PyMC": ("PyMC's own", INK), "nuts_init": ("nuts_init", BLUE)}


def main():
    """Draw gradients of tuning, and effective draws for a thousand gradients."""
    found = grouped(read("nuts")["runs"], ("model", "start", "tune"))
    figure, axes = panels(1, 2, height=2.6)
    keys = (
        ("tuning_gradients", "gradients spent on tuning"),
        ("ess_per_thousand", "effective draws for a thousand gradients"),
    )
    for axis, (key, label) in zip(axes, keys, strict=True):
        place = 0
        names, places = [], []
        for model, name in SHOWN.items():
            for start, (label_of_start, color) in STARTS.items():
                tune = 1000 if start == "PyMC" else 200
                value = np.median([run[key] for run in found[model, start, tune]])
                axis.barh(place, value, color=color, height=0.75)
                shown = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
                axis.text(value * 1.1, place, shown, va="center", fontsize=9)
                names.append(f"{label_of_start}, {tune} steps")
                places.append(place)
                place += 1
            axis.text(0, place - 2.6, name or model, transform=axis.get_yaxis_transform())
            place += 0.9
        axis.set(xscale="log", xlabel=label)
        low, high = axis.get_xlim()
        axis.set(xlim=(low * 0.8, high * 6), ylim=(place - 1.2, -1.1))
        axis.set_yticks(places, names)
        axis.minorticks_off()
    axes[1].set_yticks([])
    save(figure, "into_nuts.svg")


if __name__ == "__main__":
    main()
