"""NUTS from PyMC's own start and from ``nuts_init``, with the same seeds.

    python benchmarks/nuts_start.py

Four chains of 1000 draws by PyMC's own NUTS on one core, numba backend. Gradients are evaluations
of the log density with its gradient: unlike seconds they do not depend on the machine. Draws a
second count tuning; "with fit" counts the variational fit too (on JAX), both without compiling.
ESS is the bulk one of the worst parameter, "in chains" the sum of what each chain alone has: where
chains keep to their modes, only the latter means anything. Mass: the share of draws in the first
planted mode, by seed. One seed of the correlated Gaussian, where PyMC's own start costs millions
of gradients.
"""

import argparse
import logging

import arviz as az
import numpy as np
import pymc as pm
from hard_models import autoregressive, planted_masses, planted_mixture
from measure import save
from posteriordb_accuracy import Compiled
from posteriors import eight_schools_centered
from rich.console import Console
from rich.table import Table

SCHOOLS = {
    "J": 8,
    "y": [28, 8, -3, 7, -1, 1, 18, 12],
    "sigma": [15, 10, 16, 11, 9, 11, 10, 18],
}
CHAINS, DRAWS = 4, 1000
SETTINGS = (("PyMC", 1000), ("PyMC", 200), ("nuts_init", 1000), ("nuts_init", 200))
SETTINGS += (("nuts_init", 100),)
BIMODAL, TRUTH = planted_mixture(5, 2, seed=3)
MODELS = {
    "two modes, d = 5": BIMODAL,
    "AR(1), d = 200": autoregressive(),
    "eight_schools_centered": eight_schools_centered(SCHOOLS),
}
SEEDS = {"two modes, d = 5": 3, "AR(1), d = 200": 1, "eight_schools_centered": 3}


def starts(name, seed):
    """Options of the fit: the default, or starts that fill the box which holds both modes."""
    if not name.startswith("two modes"):
        return {}
    box = TRUTH["box"]
    return {"start": np.random.default_rng(seed).uniform(-box, box, (30, len(box)))}


def smallest_ess(posterior):
    """Bulk effective sample size of the worst parameter."""
    ess = az.ess(posterior)
    return min(float(ess[name].min()) for name in ess.data_vars)


def sample(name, tune, seed, start):
    """Run NUTS and say how well it did."""
    with MODELS[name]:
        tree = pm.sample(
            DRAWS,
            tune=tune,
            cores=1,
            random_seed=seed,
            nuts_sampler="pymc",
            discard_tuned_samples=False,
            compute_convergence_checks=False,
            progressbar=False,
            **start,
        )
    posterior = tree.posterior.dataset
    rhat = az.rhat(posterior)
    by_chain = [smallest_ess(posterior.sel(chain=[chain])) for chain in range(CHAINS)]
    seconds = float(tree.posterior.attrs["sampling_time"])
    record = {
        "divergences": int(tree.sample_stats["diverging"].sum()),
        "rhat": max(float(rhat[v].max()) for v in rhat.data_vars),
        "ess": smallest_ess(posterior),
        "ess_in_chains": sum(by_chain),
        "tuning_gradients": int(tree["warmup_sample_stats"]["n_steps"].sum()),
        "gradients": int(tree.sample_stats["n_steps"].sum()),
        "seconds": seconds,
    }
    if name.startswith("two modes"):
        record["mass"] = planted_masses(TRUTH, posterior["x"].values.reshape(-1, 5))[0]
    return record


def measure(name, seeds):
    """Every setting on a model, from every seed."""
    compiled = Compiled(MODELS[name], "jax")
    for seed in seeds:
        approx, fit_seconds = compiled.fit(seed, **starts(name, seed))
        for label, tune in SETTINGS:
            if label == "PyMC":
                start = {"chains": CHAINS}
            else:
                start = approx.nuts_init(CHAINS, random_seed=seed)
            record = sample(name, tune, seed, start)
            record["fit_seconds"] = fit_seconds if label == "nuts_init" else 0.0
            yield {"model": name, "start": label, "tune": tune, "seed": seed} | record


def show(records):
    """Print the median over seeds, and the worst R-hat and sum of divergences."""
    table = Table(
        *(
            "model",
            "start",
            "tune",
            "divergences",
            "R-hat",
            "ESS",
            "in chains",
            "gradients: tuning",
            "draws",
        ),
        *("ESS/1000 gradients", "ESS/s", "with fit", "mass of mode 1"),
        title=f"median of seeds; divergences summed, worst R-hat; truth {TRUTH['weights'][0]:.2f}",
    )
    for name in dict.fromkeys(r["model"] for r in records):
        for label, tune in SETTINGS:
            rows = [
                r for r in records if (r["model"], r["start"], r["tune"]) == (name, label, tune)
            ]
            if not rows:
                continue
            column = {key: np.array([r[key] for r in rows]) for key in rows[0] if key != "model"}
            total = column["gradients"] + column["tuning_gradients"]
            with_fit = column["ess"] / (column["seconds"] + column["fit_seconds"])
            table.add_row(
                name,
                label,
                str(tune),
                str(column["divergences"].sum()),
                f"{column['rhat'].max():.2f}",
                f"{np.median(column['ess']):.0f}",
                f"{np.median(column['ess_in_chains']):.0f}",
                f"{np.median(column['tuning_gradients']):.0f}",
                f"{np.median(column['gradients']):.0f}",
                f"{np.median(1000 * column['ess'] / total):.2f}",
                f"{np.median(column['ess'] / column['seconds']):.1f}",
                f"{np.median(with_fit):.1f}",
                " ".join(f"{m:.2f}" for m in column["mass"]) if "mass" in column else "",
            )
    Console(width=150).print(table)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(MODELS))
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    logging.getLogger("pymc").setLevel(logging.ERROR)
    records = []
    for name in arguments.names:
        records += measure(name, range(1, SEEDS[name] + 1))
        show(records)
        save("nuts_start", {"seeds": SEEDS, "chains": CHAINS, "draws": DRAWS}, records=records)


if __name__ == "__main__":
    main()
