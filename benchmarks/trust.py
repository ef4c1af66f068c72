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
from hard_models import autoregressive, planted_mixture
from measure import save
from posteriors import BUILDERS, PARAMS, flatten, load_draws, load_model, scaled_w1
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.special import betaln, gammaln

import pymc_isomix as pmi
from pymc_isomix.history import History

DRAWS = 10_000
GOOD_DISTANCE, CLEARLY_GOOD = 0.3, 0.15
EARLY = 40  # steps of a fit that is stopped early


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


def bimodal():
    """Two modes of equal mass, at about -2 and 2, and draws from them."""
    with pm.Model() as model:
        theta = pm.Normal("theta", 0, 3)
        pm.Normal("y", theta**2, 1, observed=[3.8, 4.3, 4.1])
    grid = np.linspace(-4, 4, 20_001)
    log_p = stats.norm(0, 3).logpdf(grid)
    log_p += sum(stats.norm(grid**2, 1).logpdf(y) for y in (3.8, 4.3, 4.1))
    p = np.exp(log_p - log_p.max())
    draws = np.random.default_rng(0).choice(grid, DRAWS, p=p / p.sum())
    return model, {"theta": draws}


def gaussian_chain(n_dim=50, rho=0.99):
    """Draws from an autoregressive Gaussian, beside its model."""
    rng = np.random.default_rng(0)
    x = np.empty((DRAWS, n_dim))
    x[:, 0] = rng.normal(size=DRAWS)
    for i in range(1, n_dim):
        x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * rng.normal(size=DRAWS)
    return autoregressive(n_dim, rho), {"x": x}


def planted(n_dim, n_modes):
    """Planted modes, draws from them, and starts."""
    model, truth = planted_mixture(n_dim, n_modes, seed=10 * n_dim + n_modes)
    rng = np.random.default_rng(0)
    mode = rng.choice(n_modes, DRAWS, p=truth["weights"])
    noise = rng.normal(size=(DRAWS, n_dim))
    draws = {"x": truth["means"][mode] + truth["deviations"][mode] * noise}
    everywhere = rng.uniform(-truth["box"], truth["box"], (50, n_dim))
    one_mode = truth["means"][0] + truth["deviations"][0] * rng.normal(size=(50, n_dim))
    return model, draws, everywhere, one_mode


def cases(database):
    """Yield 20 fits: name, model, exact draws, options."""

    def of_database(name):
        return load_model(database, name), load_draws(database, name)

    schools = "eight_schools-eight_schools_"
    kid, blr = "kidiq-kidscore_interaction", "sblrc-blr"
    earnings, nes = "earnings-logearn_interaction", "nes2000-nes"
    mixture = "low_dim_gauss_mix-low_dim_gauss_mix"
    for name in (f"{schools}centered", f"{schools}noncentered", kid, blr, earnings, nes, mixture):
        yield f"{name}, default", *of_database(name), {}
    model, draws = bimodal()
    yield "two modes, default", model, draws, {}
    yield "two modes, K = 1", model, draws, {"n_components": 1}
    model, draws = gaussian_chain()
    yield "AR(1), d = 50, default", model, draws, {}
    yield "AR(1), d = 50, diagonal", model, draws, {"metric": "diag"}
    model, draws, everywhere, one_mode = planted(10, 4)
    yield "planted, d = 10, starts everywhere", model, draws, {"start": everywhere}
    yield "planted, d = 10, starts in one mode", model, draws, {"start": one_mode}
    model, draws, everywhere, one_mode = planted(2, 5)
    yield "planted, d = 2, K = 1", model, draws, {"n_components": 1, "start": one_mode[:1]}
    yield f"{kid}, identity", *of_database(kid), {"metric": "identity"}
    yield f"{blr}, identity", *of_database(blr), {"metric": "identity"}
    yield f"{kid}, diagonal", *of_database(kid), {"metric": "diag"}
    yield f"{nes}, stopped early", *of_database(nes), {"n": EARLY, "schedule": "constant"}
    yield f"{earnings}, stopped early", *of_database(earnings), {"n": EARLY, "schedule": "constant"}
    name = f"{schools}centered"
    yield f"{name}, K = 1, diagonal", *of_database(name), {"n_components": 1, "metric": "diag"}


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


def conjugate():
    """Yield name, model, exact log evidence."""
    rng = np.random.default_rng(3)
    y = rng.normal(1.0, 1.0, size=10)
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu", 0, 3), 1.0, observed=y)
    exact = stats.multivariate_normal(np.zeros(10), np.eye(10) + 9.0).logpdf(y)
    yield "normal mean", model, exact
    x = rng.normal(size=(40, 6))
    y = x @ rng.normal(size=6) + 0.5 * rng.normal(size=40)
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 2, shape=6)
        pm.Normal("y", x @ beta, 0.5, observed=y)
    exact = stats.multivariate_normal(np.zeros(40), 0.25 * np.eye(40) + 4 * x @ x.T).logpdf(y)
    yield "regression, d = 6", model, exact
    with pm.Model() as model:
        pm.Binomial("y", 20, pm.Beta("p", 2, 2), observed=3)
    choose = gammaln(21) - gammaln(4) - gammaln(18)
    yield "beta-binomial", model, choose + betaln(5, 19) - betaln(2, 2)
    counts = rng.poisson(4.0, size=15)
    with pm.Model() as model:
        pm.Poisson("y", pm.Gamma("rate", 2, 1), observed=counts)
    total = counts.sum()
    exact = gammaln(2 + total) - (2 + total) * np.log(16.0) - gammaln(counts + 1).sum()
    yield "gamma-Poisson", model, float(exact)
    counts = np.array([12, 7, 3, 1])
    with pm.Model() as model:
        pm.Multinomial("y", 23, pm.Dirichlet("p", np.ones(4)), observed=counts)
    exact = gammaln(24) + gammaln(4) - gammaln(27)
    yield "Dirichlet-multinomial", model, float(exact)


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
