"""Posteriors with several modes by nature: does the default fit find them, with their masses?

    python benchmarks/multimodal.py --seeds 10

Starts are uniform over a box, from the prior, or exact draws, to tell what limits the fit.
NUTS with four chains beside it. Problems that are not named keep their figures.
"""

import argparse
import json
import logging
import time
import warnings

import jax
import numpy as np
import pymc as pm
from measure import RESULTS, save
from modes import NOTABLE, PROBLEMS
from posteriordb_accuracy import Compiled
from rich.console import Console
from rich.table import Table

TOLERANCE = 0.05
VARIANTS = (
    {},
    {"n_components": 100},
    {"init": "prior"},
    {"init": "prior", "n_components": 100},
    {"start": "exact draws"},
    {"start": "exact draws", "n_components": 100},
)


def draws_of(posterior):
    return {
        name: values.to_numpy().reshape(-1, *values.shape[2:])
        for name, values in posterior.data_vars.items()
    }


def fits(problem, seeds, **options):
    """Fit from every seed, starting uniformly over the box or otherwise; one record a seed."""
    starts = {"init": "uniform", "init_width": problem.box}
    settings = {name: value for name, value in options.items() if name != "start"}
    compiled = Compiled(problem.model, "jax", **{**starts, **settings})
    records = []
    for seed in range(seeds):
        more = {}
        if "start" in options:
            n_components = options.get("n_components", 50)
            more = {"start": problem.exact(n_components, np.random.default_rng(seed))}
        approx, seconds = compiled.fit(seed, **more)
        found, error, shares = problem.judge(
            draws_of(approx.sample(5000, random_seed=seed).posterior)
        )
        elbo, _ = compiled.elbo()
        cost = {"elbo": float(elbo), "seconds": seconds, "steps": len(approx.hist)}
        records.append(record(problem, "IsoMix", seed, options, found, error, shares) | cost)
    return records


def record(problem, method, seed, options, found, error, shares):
    """What goes into the JSON file."""
    return {
        "problem": problem.name,
        "method": method,
        "seed": seed,
        "options": options,
        "found": found,
        "error": error,
        "masses": [round(float(share), 3) for share in shares],
    }


def nuts(problem, seeds):
    """PyMC's default sampler, four chains of 1000."""
    records = []
    for seed in range(seeds):
        began = time.perf_counter()
        data = pm.sample(
            1000, chains=4, cores=2, model=problem.model, random_seed=seed, progressbar=False
        )
        seconds = time.perf_counter() - began
        judged = problem.judge(draws_of(data.posterior))
        records.append(record(problem, "NUTS", seed, {}, *judged) | {"seconds": seconds})
    return records


def show(records, truths):
    table = Table("problem", "method", "all found", "within 0.05", "largest errors", "seconds")
    groups = {}
    for r in records:
        label = " ".join([r["method"], *(f"{k}={v}" for k, v in r["options"].items())])
        groups.setdefault((r["problem"], label), []).append(r)
    for (problem, label), rows in groups.items():
        good = sum(r["found"] and r["error"] <= TOLERANCE for r in rows)
        table.add_row(
            problem,
            label,
            f"{sum(r['found'] for r in rows)}/{len(rows)}",
            f"{good}/{len(rows)}",
            " ".join(f"{r['error']:.2f}" for r in rows),
            f"{np.median([r['seconds'] for r in rows]):.1f}",
        )
    Console(width=140).print(table)
    for truth in truths:
        print(truth)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--nuts-seeds", type=int, default=2)
    parser.add_argument("--variants", type=int, nargs="*", default=list(range(len(VARIANTS))))
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    logging.getLogger("pymc").setLevel(logging.ERROR)
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    kept = {"truths": [], "fits": []}
    if (RESULTS / "multimodal.json").exists():  # problems that are not measured now stay
        kept = json.loads((RESULTS / "multimodal.json").read_text())
    records = [r for r in kept["fits"] if r["problem"] not in arguments.problems]
    truths = [t for t in kept["truths"] if t["problem"] not in arguments.problems]
    for name in arguments.problems:
        problem = PROBLEMS[name]()
        notable = [round(float(m), 3) for m in problem.masses if m >= NOTABLE]
        truths.append({"problem": name, "notable_masses": notable, **problem.notes})
        for variant in arguments.variants:
            if problem.exact is not None or "start" not in VARIANTS[variant]:
                records += fits(problem, arguments.seeds, **VARIANTS[variant])
        records += nuts(problem, arguments.nuts_seeds)
        show(records, truths)
        settings = {"seeds": arguments.seeds, "tolerance": TOLERANCE}
        save("multimodal", settings, truths=truths, fits=records)


if __name__ == "__main__":
    main()
