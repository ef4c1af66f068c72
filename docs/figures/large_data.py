"""What a step costs by rows and by parameters, from the benchmarks' JSON."""

import sys
from pathlib import Path

from look import BLUE, INK, ORANGE, panels, save

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from results import grouped, read


def main():
    """Draw milliseconds a step."""
    cases = grouped(read("scaling")["cases"], ("varied",))
    figure, (rows, dimensions) = panels(1, 2, height=2.7, sharey=True)
    lines = (
        (rows, "rows", "all rows", INK),
        (rows, "minibatch", "minibatches", BLUE),
        (dimensions, "dense", "dense metric, K = 50", ORANGE),
        (dimensions, "dimensions", "diagonal metric, K = 10", BLUE),
    )
    for axis, varied, name, color in lines:
        found = cases[varied,]
        size, cost = zip(*((case["size"], case["step_ms"]) for case in found), strict=True)
        axis.plot(size, cost, "o-", color=color, ms=5, label=name)
    for axis, label in ((rows, "rows of data"), (dimensions, "parameters")):
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.grid()
        axis.legend(loc="upper left")
        axis.set_ylim(0.015, 2000)
        axis.minorticks_off()
        axis.set_yticks([0.1, 1, 10, 100], [".1", "1", "10", "100"])
    rows.set_ylabel("ms a step")
    save(figure, "large_data.svg")


if __name__ == "__main__":
    main()
