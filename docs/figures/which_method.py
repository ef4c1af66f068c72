"""How far, and how soon: five methods on posteriors of which the truth is known, from the JSON."""

import sys
from pathlib import Path

import numpy as np
from look import BLUE, GREEN, INK, ORANGE, ROSE, panels, save

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from results import grouped, read

METHODS = {
    "isomix": ("IsoMix()", BLUE, "o"),
    "nutpie": ("NUTS (nutpie)", INK, "s"),
    "numpyro_mvn": ("NumPyro, full-rank", GREEN, "D"),
    "advi": ("ADVI", ORANGE, "^"),
    "blackjax_multipathfinder": ("multi-path Pathfinder", ROSE, "v"),
}
LONGEST = 22.0


def last(records, key):
    """Median over seeds of a figure at the end of each run."""
    ends = []
    for record in records:
        points = record["checkpoints"]
        within = [c for c in points if c["seconds"] <= LONGEST] or points
        ends.append(max(within, key=lambda c: c["seconds"])[key])
    return np.median(ends)


def main():
    """Draw the distance of the worst parameter by posterior."""
    found = grouped(read("peers")["records"], ("posterior", "method"))
    newer = grouped(read("accuracy_posteriordb")["fits"], ("posterior",))  # of IsoMix as it is
    posteriors = list(dict.fromkeys(posterior for posterior, _ in found))
    figure, axis = panels(1, 1, width=5.4, height=4.2)
    axis.axvspan(0.03, 0.08, color=INK, alpha=0.13, lw=0)
    axis.text(0.049, -0.75, "exact draws", ha="center", va="bottom", fontsize=9)
    for method, (name, color, marker) in METHODS.items():
        w1 = [last(found[p, method], "w1_max") for p in posteriors]
        if method == "isomix":
            for (posterior,), fits in newer.items():
                w1[posteriors.index(posterior)] = np.median([fit["w1_max"] for fit in fits])
        axis.plot(
            w1,
            range(len(posteriors)),
            marker,
            color=color,
            ms=7,
            lw=0,
            alpha=0.85,
            mew=0,
            label=name,
        )
    axis.set(xscale="log", xlabel="distance of the worst parameter, in sd")
    axis.set_xticks([0.03, 0.1, 0.3, 1, 3], [".03", ".1", ".3", "1", "3"])
    axis.minorticks_off()
    axis.set_yticks(range(len(posteriors)), [p.replace("_", " ") for p in posteriors])
    axis.invert_yaxis()
    axis.grid(axis="y")
    axis.legend(loc="upper center", bbox_to_anchor=(0.3, -0.17), ncols=2, handletextpad=0.2)
    save(figure, "which_method.svg")


if __name__ == "__main__":
    main()
