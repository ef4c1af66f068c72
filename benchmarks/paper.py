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
from measure import divergence, draw_stratified, save
from pymc.variational.inference import resolve_backend_compile_kwargs
from regressions import breast_cancer, wine
from rich.console import Console
from rich.progress import track
from rich.table import Table
from targets import PAPER_TARGETS

import pymc_isomix as pmi

COMPONENTS = (1, 10, 20)
VARIANTS = {  # label: variance_update, shared_variance
    "mirror": ("mirror", False),
    "bures": ("bures", False),
    "mirror, shared": ("mirror", True),
    "bures, shared": ("bures", True),
    "fixed": ("fixed", False),
}
MAIN_VARIANTS = ("mirror", "bures")
BESIDE_SEEDS = 2  # of the others
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
AUTHORS_MILLISECONDS = ("0.3 to 0.5", "0.4 to 0.7", "0.7 to 1.1")


class PaperFit:
    """One compiled step of ``IsoMix.paper``, for any number of starts and constant steps."""

    def __init__(self, model, n_components, variant, backend):
        variance_update, shared_variance = VARIANTS[variant]
        inference = pmi.IsoMix.paper(
            n_components,
            variance_update=variance_update,
            shared_variance=shared_variance,
            random_seed=0,
            model=model,
        )
        self.group, self.operator = inference.approx.groups[0], inference.objective.op
        compile_kwargs = resolve_backend_compile_kwargs(backend, None)
        self.step = inference.objective.step_function(compile_kwargs=compile_kwargs)

    def run(self, means, variance, step_size, n):
        """Return the last iterate's parameters, or None if a step failed."""
        log_variances = np.full(len(means), np.log(variance))
        self.group.set_parameter_values({"means": means, "log_variances": log_variances})
        self.operator.set_step_size(step_size)
        for _ in range(n):
            if np.isnan(float(self.step())):
                return None
        return self.group.parameter_values()


def starting_means(seed, n_components, n_dim, width):
    """The first rows of one table a seed: every K and variant starts from the same points."""
    table = np.random.default_rng(seed).uniform(-width, width, size=(max(COMPONENTS), n_dim))
    return table[:n_components]


def run_variant(target, variant, n_components, step_sizes, width, options, predict=None):
    """All steps and seeds of one variant: a record for the JSON file."""
    n_seeds = options.seeds if variant in MAIN_VARIANTS else min(options.seeds, BESIDE_SEEDS)
    fit = PaperFit(target.model(), n_components, variant, options.backend)
    runs = {}
    for step_size in step_sizes:
        outcomes = []
        for seed in range(n_seeds):
            means = starting_means(seed, n_components, target.n_dim, width)
            parameters = fit.run(means, target.start_variance, step_size, options.steps)
            if parameters is None:
                outcomes.append(None)
                continue
            outcome = evaluate(parameters, target, seed)
            if predict is not None:
                outcome += held_out(parameters, predict)
            outcomes.append(outcome)
        runs[str(step_size)] = outcomes
    return {
        "target": target.name,
        "K": n_components,
        "variant": variant,
        **summary(runs),
        "runs": runs,
    }


def evaluate(parameters, target, seed):
    """KL and its standard error."""
    return [round(value, 6) for value in divergence(parameters, target.log_density, seed=seed)]


def held_out(parameters, predict):
    """Accuracy and mean log predictive density of 2000 draws; uniform weights only."""
    draws = draw_stratified(parameters, 2000, seed=1).reshape(-1, parameters["means"].shape[1])
    return [round(float(value), 4) for value in predict(draws)]


def summary(runs):
    """Median and best KL at the step with the lowest median; a failed run counts as infinite."""

    def divergences(outcomes):
        return np.array([np.inf if outcome is None else outcome[0] for outcome in outcomes])

    step_size = min(runs, key=lambda step: np.median(divergences(runs[step])))
    chosen = divergences(runs[step_size])
    best = int(np.argmin(chosen))
    return {
        "step_size": float(step_size),
        "median": float(np.median(chosen)),
        "best": float(chosen[best]),
        "standard_error": None if runs[step_size][best] is None else runs[step_size][best][1],
        "failed": int(np.isinf(chosen).sum()),
        "best_outcome": runs[step_size][best],
    }


def divergence_table(title, records, published):
    table = Table(
        title=title, caption="median / best over seeds ± Monte Carlo error (step; failed runs)"
    )
    for heading in ("target", "K", "authors", *VARIANTS):
        table.add_column(heading, justify="left" if heading == "target" else "right")
    for name, (figures, _) in published.items():
        for n_components, figure in zip(COMPONENTS, figures, strict=True):
            cells = {
                r["variant"]: r for r in records if (r["target"], r["K"]) == (name, n_components)
            }
            if not cells:
                continue
            texts = [describe(cells[variant]) if variant in cells else "" for variant in VARIANTS]
            table.add_row(name, str(n_components), "" if figure is None else f"{figure:g}", *texts)
    return table


def describe(record):
    if record["standard_error"] is None:
        return "failed"
    failures = f"; {record['failed']} failed" if record["failed"] else ""
    figures = f"{record['median']:.4f} / {record['best']:.4f} ± {record['standard_error']:.4f}"
    return f"{figures} ({record['step_size']:g}{failures})"


def run_targets(options, console):
    jobs = [(t, k, v) for t in PAPER_TARGETS for k in COMPONENTS for v in VARIANTS]
    records = [
        run_variant(target, variant, k, TARGETS[target.name][1], START_WIDTH, options)
        for target, k, variant in track(jobs, "Targets", console=console)
    ]
    save(
        "paper_targets", records, seeds=options.seeds, steps=options.steps, backend=options.backend
    )
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
    save(
        "paper_regressions",
        {"paper": records, "default": defaults},
        seeds=options.seeds,
        steps=options.steps,
        backend=options.backend,
    )
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
    """Time blocks of 250 steps inside the fit loop, with its Python and progress bookkeeping."""
    table = Table(
        title="Milliseconds a step in the fit loop, B = 10: lowest / median of 250-step blocks"
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
    save("paper_cost", records, block=250, steps=options.steps, backend=options.backend)
    console.print(table)


def time_blocks(target, n_components, variant, options, block=250):
    marks = []

    def record(approximation, losses, iteration):
        if iteration % block == 0:
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
    return [round(1000 * float(gap) / block, 4) for gap in np.diff(marks)]


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
