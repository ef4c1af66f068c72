"""Whether the report on a fit can itself be trusted.

    python benchmarks/trust.py --database posteriordb/posterior_database

Five tables. Pareto k-hat of default fits on posteriordb. The verdict of ``approx.diagnostics()`` on
20 fits, ten good by design and ten bad, beside the measured distance to the truth. Simulation-based
calibration of two models: coverage of central intervals, and whether the PIT values stay inside
ArviZ's simultaneous 99 % band of a uniform sample. Evidence of conjugate models. Seconds for 10 000
draws with all statistics.

The distance is the largest scaled Wasserstein-1 distance over the parameters. What counts as
agreement was fixed before the fits were run: "good" up to 0.3, "bad" above 0.3, "doubtful" above
0.15.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import pymc as pm
from arviz_stats.ecdf_utils import ecdf_pit
from measure import save
from posteriors import BUILDERS, PARAMS, flatten, load_model, scaled_w1
from rich.console import Console
from rich.table import Table
from trust_cases import DRAWS, cases, conjugate

import pymc_isomix as pmi
from pymc_isomix.fitting.record import History

GOOD_DISTANCE, CLEARLY_GOOD = 0.3, 0.15


def fit(model, backend, *, n=10_000, seed=1, **options):
    """Fit a model."""
    inference = pmi.IsoMix(random_seed=seed, model=model, **options)
    return inference.fit(n, backend=backend, progressbar=False)


def refit(inference, seed):
    """Fit again from another seed's start, with the step that is compiled already."""
    group = inference.approx.groups[0]
    fresh = pmi.IsoMix(random_seed=seed, model=inference.approx.model).approx.groups[0]
    group.set_parameter_values(fresh.parameter_values())
    group.rng = fresh.rng
    inference.hist, inference.state = np.array([]), inference.state._replace(i=0)
    inference.approx.history = History(backend=inference.approx.history.backend)
    inference.refine(10_000, progressbar=False)
    return inference.approx


def show(title, records):
    """Print records as a table, and give them back."""
    table = Table(*records[0], title=title)
    for record in records:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in record.values()))
    Console(width=150).print(table)
    return records


# Pareto k-hat


def khats(database, seeds, backend):
    """Pareto k-hat and verdict of default fits on posteriordb."""
    records = []
    for name in BUILDERS:
        inference = pmi.IsoMix(random_seed=0, model=load_model(database, name))
        inference.fit(1, backend=backend, progressbar=False)
        for seed in range(seeds):
            approx = refit(inference, seed)
            began = time.perf_counter()
            report = approx.diagnostics(DRAWS, random_seed=seed)
            records.append(
                {
                    "posterior": name,
                    "seed": seed,
                    "khat": report.khat.item(),
                    "ess": report.importance_ess.item() / report.n_draws.item(),
                    "kl": (report.log_evidence - report.elbo).item(),
                    "modes": report.n_modes.item(),
                    "missing": report.missing_mass.item(),
                    "verdict": report.attrs["verdict"],
                    "seconds": time.perf_counter() - began,
                }
            )
    return show("Default fits on posteriordb", records)


# Verdicts


def agrees(verdict, distance):
    """Tell whether a verdict fits a distance, by the rule in the docstring of this module."""
    if verdict == "good":
        return distance <= GOOD_DISTANCE
    return distance > (GOOD_DISTANCE if verdict == "bad" else CLEARLY_GOOD)


def verdicts(database, seed, backend):
    """Verdict beside distance; ``unprobed`` is the verdict without ascents from spread starts."""
    records = []
    for name, model, exact, options in cases(database):
        approx = fit(model, backend, seed=seed, **options)
        report = approx.diagnostics(random_seed=seed)
        unprobed = approx.diagnostics(random_seed=seed, n_probes=0)
        drawn = approx.sample(DRAWS, random_seed=2).posterior
        params = PARAMS.get(name.split(",")[0], tuple(exact))
        ours = {param: drawn[param].values[0] for param in params}
        _, reference = flatten(exact, params)
        distance = scaled_w1(flatten(ours, params)[1], reference)
        verdict = report.attrs["verdict"]
        records.append(
            {
                "fit": name,
                "w1_max": float(distance.max()),
                "khat": report.khat.item(),
                "kl": (report.log_evidence - report.elbo).item(),
                "missing": report.missing_mass.item(),
                "verdict": verdict,
                "unprobed": unprobed.attrs["verdict"],
                "agrees": bool(agrees(verdict, distance.max())),
                "advice": report.attrs["advice"][:60],
            }
        )
    return show(f"Verdicts: {sum(r['agrees'] for r in records)} of {len(records)} agree", records)


# Simulation-based calibration


def regression(rng):
    """Four coefficients and a standard deviation, thirty rows."""
    x = np.random.default_rng(0).normal(size=(30, 4))
    with pm.Model() as model:
        y = pm.Data("y_data", np.zeros(30))
        beta = pm.Normal("beta", 0, 1, shape=4)
        sigma = pm.HalfNormal("sigma", 1)
        pm.Normal("y", x @ beta, sigma, observed=y)

    def simulate():
        truth = {"beta": rng.normal(size=4), "sigma": abs(rng.normal())}
        return truth, x @ truth["beta"] + truth["sigma"] * rng.normal(size=30)

    return model, simulate


def hierarchy(rng):
    """Eight groups, centred, with unknown mean and spread: a funnel."""
    error = np.array([1.5, 1.0, 1.6, 1.1, 0.9, 1.1, 1.0, 1.8])
    with pm.Model() as model:
        y = pm.Data("y_data", np.zeros(8))
        mu = pm.Normal("mu", 0, 1)
        tau = pm.HalfNormal("tau", 1)
        theta = pm.Normal("theta", mu, tau, shape=8)
        pm.Normal("y", theta, error, observed=y)

    def simulate():
        mu, tau = rng.normal(), abs(rng.normal())
        theta = rng.normal(mu, tau, size=8)
        return {"mu": mu, "tau": tau, "theta": theta}, rng.normal(theta, error)

    return model, simulate


def calibration(simulations, backend):
    """Fit simulated data from the prior; PIT values of the truth, pooled by parameter."""
    records = []
    for build in (regression, hierarchy):
        model, simulate = build(np.random.default_rng(1))
        inference = pmi.IsoMix(random_seed=1, model=model)
        inference.fit(1, backend=backend, progressbar=False)
        pits: dict[str, list[float]] = {}
        for seed in range(simulations):
            truth, y = simulate()
            model.set_data("y_data", y)
            draws = refit(inference, seed).sample(1000, random_seed=1).posterior
            for name, value in truth.items():
                below = (draws[name].values[0] < value).mean(axis=0)
                for index, one in np.ndenumerate(np.atleast_1d(below)):
                    label = f"{name}[{index[0]}]" if np.ndim(value) else name
                    pits.setdefault(label, []).append(float(one))
        for label, values in pits.items():
            pit = np.array(values)
            _, ecdf, low, high = ecdf_pit(
                pit, 0.99, n_simulations=1000, rng=np.random.default_rng(1)
            )
            records.append(
                {
                    "model": build.__name__,
                    "parameter": label,
                    "within 50 %": float((np.abs(pit - 0.5) < 0.25).mean()),
                    "within 90 %": float((np.abs(pit - 0.5) < 0.45).mean()),
                    "inside the band": bool(np.all((ecdf >= low) & (ecdf <= high))),
                }
            )
    return show(f"Calibration, {simulations} simulations a model", records)


# Evidence


def evidence(backend):
    """Estimate beside exact evidence."""
    records = []
    for name, model, exact in conjugate():
        report = fit(model, backend).diagnostics(random_seed=1)
        estimate = report.log_evidence.item()
        records.append(
            {
                "model": name,
                "exact": float(exact),
                "estimate": estimate,
                "error": estimate - float(exact),
                "standard error": report.log_evidence_se.item(),
                "elbo": report.elbo.item(),
            }
        )
    return show("Log evidence of conjugate models, nats", records)


def seconds(database, backend, repeats=5):
    """Time 10 000 draws of eight schools with every statistic."""
    approx = fit(load_model(database, "eight_schools-eight_schools_centered"), backend, seed=1)
    times = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        approx.sample(DRAWS, random_seed=repeat)
        times.append(time.perf_counter() - began)
    record = {"draws": DRAWS, "first": times[0], "median of the rest": float(np.median(times[1:]))}
    return show("Seconds for draws with all statistics", [record])


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", type=Path, required=True, help="posterior_database folder")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--verdict-seed", type=int, default=1)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument(
        "--only", choices=["khat", "verdicts", "calibration", "evidence", "seconds"], nargs="*"
    )
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    backend = arguments.backend
    runs = {
        "khat": lambda: khats(arguments.database, arguments.seeds, backend),
        "verdicts": lambda: verdicts(arguments.database, arguments.verdict_seed, backend),
        "calibration": lambda: calibration(arguments.simulations, backend),
        "evidence": lambda: evidence(backend),
        "seconds": lambda: seconds(arguments.database, backend),
    }
    tables = {name: runs[name]() for name in arguments.only or runs}
    if not arguments.only:
        keys = ("backend", "seeds", "verdict_seed", "simulations")
        settings = {key: getattr(arguments, key) for key in keys}
        save("trust", settings, **tables)


if __name__ == "__main__":
    main()
