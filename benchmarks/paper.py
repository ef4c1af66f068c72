"""The paper's own algorithm on its targets: KL(q || p), beside what the authors' code reaches.

    python benchmarks/paper.py targets       # 2-dimensional densities
    python benchmarks/paper.py regressions   # logistic, multinomial; IsoMix() as it comes too
    python benchmarks/paper.py cost          # milliseconds a step inside the fit loop

KL is taken with 40 000 stratified draws. All variants start from the same means, uniform in a box.
Each is run with three constant steps and several seeds; shown are the median and the best seed at
the step with the lowest median.
"""

import argparse
import time
import warnings

import numpy as np
from constant_steps import (
    COMPONENTS,
    MAIN_VARIANTS,
    VARIANTS,
    evaluate,
    run_variant,
    starting_means,
)
from measure import save
from regressions import breast_cancer, wine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from targets import PAPER_TARGETS

import pymc_isomix as pmi

# what the authors' code reaches at K = 1 / 10 / 20, and three steps to choose from
TARGETS = {
    "four modes, equal weights": ((0.560, 0.012, 0.001), (0.01, 0.1, 1.0)),
    "four modes, weights .1 .3 .3 .3": ((0.591, 0.001, 0.001), (0.01, 0.1, 1.0)),
    "funnel": ((0.236, 0.038, 0.023), (0.003, 0.01, 0.03)),
    "sinh-arcsinh": ((0.115, 0.0006, 0.0001), (0.003, 0.03, 0.1)),
}
START_WIDTH = 5.0
REGRESSIONS = {
    "breast cancer, logistic": ((10.90, 9.76, 9.375), (0.001, 0.003, 0.01)),
    "wine, multinomial": ((None, None, 13.95), (0.003, 0.01, 0.03)),
}
BLOCK = 250  # steps timed at once
AUTHORS_MILLISECONDS = ("0.3 to 0.5", "0.4 to 0.7", "0.7 to 1.1")


def divergence_table(title, records, published):
    table = Table(
        title=title, caption="median / best over seeds ± Monte Carlo error (step; failed runs)"
    )
    variants = [v for v in VARIANTS if any(record["variant"] == v for record in records)]
    for heading in ("target", "K", "authors", *variants):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, (figures, _) in published.items():
        for n_components, figure in zip(COMPONENTS, figures, strict=True):
            cells = {
                r["variant"]: r for r in records if (r["target"], r["K"]) == (name, n_components)
            }
            if not cells:
                continue
            texts = [describe(cells[variant]) for variant in variants]
            table.add_row(name, str(n_components), "" if figure is None else f"{figure:g}", *texts)
    return table


def describe(record):
    if record["standard_error"] is None:
        return "failed"
    failures = f"; {record['failed']} failed" if record["failed"] else ""
    figures = f"{record['median']:.4f} / {record['best']:.4f} ± {record['standard_error']:.4f}"
    return f"{figures} ({record['step_size']:g}{failures})"


def settings(options):
    return {"seeds": options.seeds, "steps": options.steps, "backend": options.backend}


def run_targets(options, console):
    jobs = [(t, k, v) for t in PAPER_TARGETS for k in COMPONENTS for v in VARIANTS]
    records = [
        run_variant(target, variant, k, TARGETS[target.name][1], START_WIDTH, options)
        for target, k, variant in track(jobs, "Targets", console=console)
    ]
    save("paper_targets", settings(options), runs=records)
    console.print(divergence_table("KL(q || p) on the targets of the paper", records, TARGETS))


def run_regressions(options, console):
    jobs = [(r, k, v) for r in (breast_cancer(), wine()) for k in COMPONENTS for v in MAIN_VARIANTS]
    records = []
    for regression, k, variant in track(jobs, "Regressions", console=console):
        step_sizes = REGRESSIONS[regression.name][1]
        width = regression.start_width
        records.append(
            run_variant(regression, variant, k, step_sizes, width, options, regression.predict)
        )
    defaults = [
        run_default(regression, k, options)
        for regression in (breast_cancer(), wine())
        for k in COMPONENTS
    ]
    save("paper_regressions", settings(options), paper=records, default=defaults)
    title = "KL(q || posterior), the paper's algorithm"
    console.print(divergence_table(title, records, REGRESSIONS))
    console.print(prediction_table(records, defaults))


def run_default(regression, n_components, options):
    """``IsoMix()`` as it comes, nothing set but K and the seed."""
    outcomes, steps = [], []
    for seed in range(options.seeds):
        inference = pmi.IsoMix(n_components, random_seed=seed, model=regression.model())
        approx = inference.fit(backend=options.backend, progressbar=False)
        parameters = approx.groups[0].parameter_values()
        outcome = evaluate(parameters, regression, seed)
        draws, _ = approx.groups[0].draw_unconstrained(2000, np.random.default_rng(1))
        outcomes.append(outcome + [round(float(v), 4) for v in regression.predict(draws)])
        steps.append(len(approx.hist))
    return {
        "target": regression.name,
        "K": n_components,
        "median": float(np.median([outcome[0] for outcome in outcomes])),
        "worst": float(np.max([outcome[0] for outcome in outcomes])),
        "steps": steps,
        "best_outcome": min(outcomes),
        "runs": outcomes,
    }


def prediction_table(records, defaults):
    table = Table(title="Held-out rows: best run of each, and IsoMix() as it comes")
    for heading in ("posterior", "K", "fit", "KL median", "accuracy", "mean log density"):
        table.add_column(heading)
    rows = [r for r in records if r["variant"] in MAIN_VARIANTS]
    rows += [{"variant": "default", **record} for record in defaults]
    for record in rows:
        if record["best_outcome"] is None:
            continue
        _, _, accuracy, log_density = record["best_outcome"]
        values = (f"{record['median']:.3f}", f"{accuracy:.3f}", f"{log_density:.3f}")
        table.add_row(record["target"], str(record["K"]), record["variant"], *values)
    return table


def run_cost(options, console):
    """Time blocks of steps inside the fit loop, with its Python and progress bookkeeping."""
    table = Table(
        title=f"Milliseconds a step in the fit loop, B = 10: lowest / median of {BLOCK}-step blocks"
    )
    for heading in ("target", "update", *(f"K = {k}" for k in COMPONENTS)):
        table.add_column(heading)
    records = []
    for target in PAPER_TARGETS:
        for variant in MAIN_VARIANTS:
            cells = []
            for k in COMPONENTS:
                blocks = time_blocks(target, k, variant, options)
                records.append(
                    {"target": target.name, "K": k, "variant": variant, "milliseconds": blocks}
                )
                cells.append(f"{min(blocks):.2f} / {np.median(blocks):.2f}")
            table.add_row(target.name, variant, *cells)
    table.add_row("authors", "", *AUTHORS_MILLISECONDS)
    save("paper_cost", {**settings(options), "block": BLOCK}, blocks=records)
    console.print(table)


def time_blocks(target, n_components, variant, options):
    marks = []

    def record(approximation, losses, iteration):
        if iteration % BLOCK == 0:
            marks.append(time.perf_counter())

    inference = pmi.IsoMix.paper(
        n_components,
        variance_update=variant,
        step_size=0.003,
        start=starting_means(0, n_components, target.n_dim, START_WIDTH / 2),
        start_sigma=target.start_variance**0.5,
        random_seed=0,
        model=target.model(),
    )
    inference.fit(options.steps, callbacks=[record], backend=options.backend, progressbar=False)
    return [round(1000 * float(gap) / BLOCK, 4) for gap in np.diff(marks)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("targets", "regressions", "cost"))
    parser.add_argument("--backend", default="jax", choices=("jax", "numba", "c"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    # said at every compilation: the generator is copied into the compiled function
    warnings.filterwarnings("ignore", "The RandomType SharedVariables")
    run = {"targets": run_targets, "regressions": run_regressions, "cost": run_cost}[options.what]
    run(options, Console(width=180))


if __name__ == "__main__":
    main()
