"""The default fit on hard models and on planted modes, with nothing set but the seed.

    python benchmarks/robustness.py models
    python benchmarks/robustness.py modes

For the models: the ELBO, the evidence by importance sampling, hence KL(q || p), and Pareto k-hat
of the importance weights (below 0.7 they, and so the KL, can be believed). For the modes, started
uniformly over the box that holds them: in how many seeds every mass is within 0.05.
"""

import argparse
import json
import logging
from pathlib import Path

import arviz_stats
import numpy as np
from hard_models import MODELS, planted_masses, planted_mixture
from posteriordb_accuracy import Compiled
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp

PLANTED = [(2, 3), (2, 5), (10, 4), (20, 3), (20, 5)]


def importance(compiled, draws=10_000):
    """Evidence by importance sampling, KL(q || p), both nats, and k-hat."""
    group = compiled.inference.approx.groups[0]
    z, _ = group.draw_unconstrained(draws, np.random.default_rng(1))
    log_p = np.concatenate([np.asarray(compiled.log_p(part)) for part in np.array_split(z, 40)])
    log_weight = log_p - group.log_density(z)
    _, khat = arviz_stats.base.array_stats.psislw(-log_weight)
    evidence = logsumexp(log_weight) - np.log(draws)
    return float(evidence), float(evidence - log_weight.mean()), float(khat)


def run_models(names, backend):
    """Fit each model once."""
    table = Table("model", "d", "start", "steps", "seconds", "ELBO", "evidence", "KL", "k-hat")
    records = []
    for name in names:
        compiled = Compiled(MODELS[name](), backend)
        approx, seconds = compiled.fit(1)
        evidence, kl, khat = importance(compiled)
        record = {
            "model": name,
            "n_dim": approx.ddim,
            "start": float(-approx.hist[0]),
            "steps": len(approx.hist),
            "seconds": seconds,
            "elbo": evidence - kl,
            "evidence": evidence,
            "kl": kl,
            "khat": khat,
        }
        records.append(record)
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in record.values()))
    Console(width=140).print(table)
    return records


def run_modes(seeds, backend):
    """Fit each planted mixture from every seed."""
    table = Table("d", "modes", "masses within 0.05", "largest error, by seed", "seconds")
    records = []
    for n_dim, n_modes in PLANTED:
        model, truth = planted_mixture(n_dim, n_modes, seed=10 * n_dim + n_modes)
        compiled = Compiled(model, backend)
        errors, times = [], []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            box = truth["box"]
            n_components = len(compiled.inference.approx.groups[0].parameter_values()["means"])
            start = rng.uniform(-box, box, (n_components, n_dim))
            _, seconds = compiled.fit(seed, start=start)
            group = compiled.inference.approx.groups[0]
            z, _ = group.draw_unconstrained(20_000, rng)
            errors.append(float(np.abs(planted_masses(truth, z) - truth["weights"]).max()))
            times.append(seconds)
        records.append({"n_dim": n_dim, "modes": n_modes, "errors": errors, "seconds": times})
        good = sum(error < 0.05 for error in errors)
        listed = " ".join(f"{error:.2f}" for error in errors)
        table.add_row(
            str(n_dim), str(n_modes), f"{good}/{seeds}", listed, f"{np.median(times):.1f}"
        )
    Console(width=140).print(table)
    return records


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["models", "modes"])
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    if arguments.what == "models":
        records = run_models(arguments.names, arguments.backend)
    else:
        records = run_modes(arguments.seeds, arguments.backend)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
