"""Accuracy and time of the default fit on posteriordb, over seeds.

    python benchmarks/posteriordb_accuracy.py --database posteriordb/posterior_database

Nothing is set but the seed. Reports the scaled Wasserstein-1 distance to the reference draws (its
median
and maximum over the parameters; 0.03 to 0.08 is what exact draws get), the ELBO from 20 000 fresh
draws, and seconds: the first fit with its compilation, and the run alone.
"""

import argparse
import json
import logging
import platform
import time
from pathlib import Path

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from posteriors import BUILDERS, PARAMS, flatten, load_draws, load_model, scaled_w1
from pymc.pytensorf import compile
from rich.console import Console
from rich.table import Table

import pymc_isomix as pmi
from pymc_isomix.target.batching import batched_log_density

BEST_ELBO = {  # the best that any fit of this family has been seen to reach
    "eight_schools-eight_schools_centered": -31.56,
    "eight_schools-eight_schools_noncentered": -31.33,
    "earnings-logearn_interaction": -1553.36,
    "kidiq-kidscore_interaction": -1872.82,
    "nes2000-nes": -957.13,
    "sblrc-blr": -194.97,
    "garch-garch11": -451.04,
    "gp_pois_regr-gp_pois_regr": -48.10,
    "low_dim_gauss_mix-low_dim_gauss_mix": -2115.68,
}


class Compiled:
    """An inference compiled once, refitted from the start of any seed."""

    def __init__(self, model, backend, **options):
        self.model, self.options, self.backend = model, options, backend
        with model:
            began = time.perf_counter()
            self.inference = pmi.IsoMix(random_seed=0, **options)
            self.inference.fit(1, backend=backend, progressbar=False)
            self.first_seconds = time.perf_counter() - began
        approx = self.inference.approx
        points = pt.matrix("points", shape=(None, approx.ddim))
        log_p, _ = batched_log_density(model, approx.groups[0].ordering, points)
        self.log_p = compile([points], log_p, mode="JAX" if backend == "jax" else None)

    def fit(self, seed, n=10_000, **options):
        """Fit again from another seed; return the approximation and the seconds of the run."""
        inference = self.inference
        options = {**self.options, **options}
        fresh = pmi.IsoMix(random_seed=seed, model=self.model, **options).approx.groups[0]
        group = inference.approx.groups[0]
        group.set_parameter_values(fresh.parameter_values())
        group.rng = fresh.rng
        inference.hist = np.array([])
        inference.state = inference.state._replace(i=0)
        began = time.perf_counter()
        inference.refine(n, progressbar=False)
        return inference.approx, time.perf_counter() - began

    def elbo(self, draws=20_000):
        """ELBO of the current approximation, and its standard error, from fresh draws."""
        group = self.inference.approx.groups[0]
        z, _ = group.draw_unconstrained(draws, np.random.default_rng(0))
        log_ratio = np.concatenate(
            [np.asarray(self.log_p(part)) for part in np.array_split(z, 40)]
        ) - group.log_density(z)
        log_ratio = log_ratio[np.isfinite(log_ratio)]
        return log_ratio.mean(), log_ratio.std() / np.sqrt(len(log_ratio))


def measure(database, name, seeds, backend):
    """Fit one posterior over all seeds; return one record a seed."""
    model = load_model(database, name)
    _, reference = flatten(load_draws(database, name), PARAMS[name])
    compiled = Compiled(model, backend)
    records = []
    for seed in range(seeds):
        approx, seconds = compiled.fit(seed)
        posterior = approx.sample(2000, random_seed=seed).posterior
        _, draws = flatten({v: posterior[v].values[0] for v in PARAMS[name]}, PARAMS[name])
        distance = scaled_w1(draws, reference)
        elbo, error = compiled.elbo()
        records.append(
            {
                "posterior": name,
                "seed": seed,
                "w1_median": float(np.median(distance)),
                "w1_max": float(distance.max()),
                "elbo": float(elbo),
                "elbo_error": float(error),
                "seconds": seconds,
                "first_seconds": compiled.first_seconds,
                "steps": len(approx.hist),
                "stop_reason": compiled.inference.stop_reason,
            }
        )
    return records


def show(records):
    """Print a row a posterior: median over seeds, and the worst."""
    table = Table(
        "posterior", "W1 median", "W1 max", "ELBO - best", "seconds", "steps", "first fit s"
    )
    for name in dict.fromkeys(r["posterior"] for r in records):
        rows = [r for r in records if r["posterior"] == name]

        def middle_and_worst(key, worst=max, shift=0.0, digits=2, rows=rows):
            values = [r[key] - shift for r in rows]
            return f"{np.median(values):.{digits}f} ({worst(values):.{digits}f})"

        table.add_row(
            name,
            middle_and_worst("w1_median"),
            middle_and_worst("w1_max"),
            middle_and_worst("elbo", min, BEST_ELBO.get(name, 0.0)),
            middle_and_worst("seconds", digits=1),
            middle_and_worst("steps", digits=0),
            f"{rows[0]['first_seconds']:.1f}",
        )
    Console(width=140).print(table)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", type=Path, required=True, help="posterior_database folder")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--json", type=Path)
    parser.add_argument("names", nargs="*", default=list(BUILDERS))
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    records = []
    for name in arguments.names:
        records += measure(arguments.database, name, arguments.seeds, arguments.backend)
    show(records)
    if arguments.json:
        versions = {m.__name__: m.__version__ for m in (pm, pytensor, np, pmi)}
        machine = {"machine": platform.machine(), "python": platform.python_version(), **versions}
        arguments.json.write_text(json.dumps({"versions": machine, "records": records}, indent=1))


if __name__ == "__main__":
    main()
