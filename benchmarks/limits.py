"""What limits the fit: family, optimiser or noise? And what the defaults should be.

    python benchmarks/limits.py horseshoe
    python benchmarks/limits.py quantiles
    python benchmarks/limits.py wine
    python benchmarks/limits.py dimension
    python benchmarks/limits.py stopping --database posteriordb/posterior_database

``horseshoe`` and ``wine`` vary one thing at a time, and start from where nothing better can be had.
``dimension`` compares the dense with the diagonal metric. ``stopping`` counts fits that stopped by
themselves below the ELBO that the same fit reaches with all iterations.
"""

import argparse
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pymc as pm
from hard_models import MODELS, autoregressive, horseshoe
from measure import RESULTS, divergence, save
from posteriordb_accuracy import Compiled
from posteriors import BUILDERS, load_model
from regressions import wine
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm, qmc

DIMENSIONS = (100, 300, 500, 1000)
LARGE, LARGE_BUDGET = 1000, 600
SLOW = ("low_dim_gauss_mix-low_dim_gauss_mix", "autoregressive", "thousand_means", "horseshoe")


def table_of(records, columns):
    table = Table(*columns)
    for record in records:
        values = (record.get(column) for column in columns)
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))
    Console(width=140).print(table)


def outcome(compiled, approx, seconds):
    elbo, error = compiled.elbo()
    return {
        "elbo": float(elbo),
        "error": float(error),
        "seconds": round(seconds, 2),
        "steps": len(approx.hist),
    }


def fit(label, model, *, seed=1, n=10_000, start_at=None, **options):
    """One fit, and a record of where it ends."""
    compiled = Compiled(model, "jax", **options)
    more = {} if start_at is None else {"start": start_at}
    approx, seconds = compiled.fit(seed, n, **more)
    record = {"what": label, "seed": seed, **outcome(compiled, approx, seconds)}
    return compiled, record


def run_quantiles(arguments):
    """The horseshoe's other parametrisation, beside the evidence from ``horseshoe``."""
    kept = json.loads((RESULTS / "limits_horseshoe.json").read_text())["fits"]
    evidence = np.median([record["evidence"] for record in kept])
    records = [record for record in kept if "quantiles" not in record["what"]]
    for k in (1, 30, 100):
        _, record = fit(f"K = {k}, by quantiles", horseshoe(by_quantiles=True), n_components=k)
        records.append({**record, "evidence": evidence, "kl": evidence - record["elbo"]})
        print(records[-1], flush=True)
        save("limits_horseshoe", {}, fits=records)


def horseshoe_draws(model, seed=0):
    """Draws of NUTS in unconstrained space, (4000, 42), in the order of the model's variables."""
    data = pm.sample(
        2000,
        tune=2000,
        chains=4,
        target_accept=0.97,
        random_seed=seed,
        model=model,
        progressbar=False,
    )
    columns = []
    for variable in model.free_RVs:
        values = data.posterior[variable.name].to_numpy()
        values = values.reshape(values.shape[0] * values.shape[1], -1)
        columns.append(values if variable.name == "z" else np.log(values))
    return np.concatenate(columns, axis=1)[::2]


def bridge_evidence(compiled, draws, n=4000):
    """Log evidence by Meng and Wong's optimal bridge between the fit and draws of the posterior."""
    group = compiled.inference.approx.groups[0]
    own, _ = group.draw_unconstrained(n, np.random.default_rng(2))

    def log_ratio(points):
        parts = np.array_split(points, 40)
        log_p = np.concatenate([np.asarray(compiled.log_p(part)) for part in parts])
        return log_p - group.log_density(points)

    ours, theirs = log_ratio(own), log_ratio(draws)
    share = len(ours) / (len(ours) + len(theirs))
    evidence = np.median(theirs)
    for _ in range(200):
        above = ours - np.logaddexp(np.log(1 - share) + ours - evidence, np.log(share))
        below = -np.logaddexp(np.log(1 - share) + theirs - evidence, np.log(share))
        evidence = (logsumexp(above) - np.log(len(ours))) - (logsumexp(below) - np.log(len(theirs)))
    return float(evidence)


def run_horseshoe(arguments):
    """The evidence by a bridge from NUTS, then one change at a time."""
    model = horseshoe()
    draws = horseshoe_draws(model)
    rng = np.random.default_rng(0)
    records = []

    def attempt(label, **options):
        compiled, record = fit(label, model, **options)
        record["evidence"] = bridge_evidence(compiled, draws)
        record["kl"] = record["evidence"] - record["elbo"]
        records.append(record)
        print(record, flush=True)
        save("limits_horseshoe", {}, fits=records)

    attempt("default")
    for k in (1, 100):
        attempt(f"K = {k}", n_components=k)
    for k in (30, 100):
        chosen = draws[rng.choice(len(draws), k, replace=False)]
        attempt(f"K = {k} from NUTS draws", n_components=k, start_at=chosen, start_sigma=0.5)
    attempt("20 draws a step", n_samples=20)
    attempt("step 0.1", step_size=0.1)
    table_of(records, ("what", "elbo", "error", "evidence", "kl", "steps", "seconds"))


def best_gaussian(regression, n=8192):
    """The single Gaussian of the highest ELBO, by L-BFGS on fixed quasi-random draws."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    d = regression.n_dim
    noise = jnp.asarray(norm.ppf(qmc.Sobol(d, seed=0).random(n).clip(1e-12, 1 - 1e-12)))
    lower = np.tril_indices(d, -1)
    log_joint = wine_log_joint()

    def split(theta):
        scale = jnp.diag(jnp.exp(theta[d : 2 * d])).at[lower].set(theta[2 * d :])
        return theta[:d], scale

    @jax.jit
    @jax.value_and_grad
    def loss(theta):
        mean, scale = split(theta)
        return -log_joint(mean + noise @ scale.T).mean() - theta[d : 2 * d].sum()

    theta = np.zeros(2 * d + len(lower[0]))
    found = minimize(
        lambda x: tuple(map(np.asarray, loss(x))),
        theta,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 3000, "maxcor": 30, "ftol": 1e-12, "gtol": 1e-6},
    )
    mean, scale = map(np.asarray, split(found.x))
    return {
        "means": mean[None],
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": scale,
    }


def wine_log_joint():
    """The log joint of wine in JAX, from the model itself."""
    import jax
    from pymc.sampling.jax import get_jaxified_graph

    model = wine().model()
    graph = get_jaxified_graph(model.value_vars, [model.logp()])
    return jax.vmap(lambda x: graph(x.reshape(13, 3))[0])


def run_wine(arguments):
    """KL at K = 1: defaults, more draws, longer runs, and the best Gaussian there is."""
    regression = wine()
    records = []

    def judge(label, parameters, **more):
        kl, error = divergence(parameters, regression.log_density, n_draws=60_000, seed=3)
        records.append({"what": label, "kl": kl, "error": error, **more})
        print(records[-1], flush=True)

    judge("best Gaussian, 8192 fixed draws", best_gaussian(regression))
    changes = {
        "default": {},
        "50 draws a step": {"n_samples": 50},
        "step 0.1": {"step_size": 0.1},
        "all 10 000 steps": {"convergence": None},
    }
    for label, options in changes.items():
        compiled = Compiled(regression.model(), "jax", n_components=1, **options)
        for seed in range(arguments.seeds):
            approx, seconds = compiled.fit(seed)
            parameters = approx.groups[0].parameter_values()
            judge(label, parameters, seed=seed, steps=len(approx.hist), seconds=seconds)
        save("limits_wine", {"n_components": 1}, fits=records)
    table_of(records, ("what", "seed", "kl", "error", "steps", "seconds"))
    save("limits_wine", {"n_components": 1}, fits=records)


def independent(n_dim):
    """A Gaussian without correlation, scales from 0.1 to 10."""
    scale = 10.0 ** np.linspace(-1, 1, n_dim)
    with pm.Model() as model:
        pm.Normal("x", 0, scale)
    return model


def run_dimension(arguments):
    """Both have evidence zero, so that KL is minus the ELBO."""
    records = []
    for n_dim in DIMENSIONS:
        for name, build in (("AR(1), .9", correlated), ("independent", independent)):
            for metric in ("dense", "diag"):
                budget = 10_000 if n_dim < LARGE else LARGE_BUDGET
                _, record = fit(name, build(n_dim), metric=metric, n=budget)
                record |= {"n_dim": n_dim, "metric": metric, "kl": -record["elbo"]}
                record["ms a step"] = 1000 * record["seconds"] / record["steps"]
                records.append(record)
                print(record, flush=True)
                save("limits_dimension", {"steps_at_1000": LARGE_BUDGET}, fits=records)
    table_of(records, ("n_dim", "what", "metric", "kl", "error", "steps", "seconds", "ms a step"))


def correlated(n_dim):
    return autoregressive(n_dim, 0.9)


def run_stopping(arguments):
    """The same fit twice: stopped by the rule, and with all its iterations."""
    builders = {name: (lambda n=name: load_model(arguments.database, n)) for name in BUILDERS}
    records = []
    every = {**builders, **MODELS}
    for name in sorted(every, key=SLOW.__contains__):
        build = every[name]
        compiled = Compiled(build(), "jax")
        for seed in range(arguments.seeds):
            record = {"model": name, "seed": seed}
            for label, convergence in (("stopped", "auto"), ("whole", None)):
                compiled.inference._convergence = convergence
                approx, seconds = compiled.fit(seed)
                found = outcome(compiled, approx, seconds)
                record |= {f"{label}_{key}": value for key, value in found.items()}
                record[f"{label}_reason"] = compiled.inference.stop_reason
            record["short"] = record["whole_elbo"] - record["stopped_elbo"]
            records.append(record)
            print(record, flush=True)
            save("limits_stopping", {"n": 10_000}, fits=records)
    columns = ("model", "seed", "stopped_steps", "stopped_elbo", "whole_elbo", "short")
    table_of(records, (*columns, "stopped_error"))
    early = [r for r in records if r["stopped_reason"] == "converged"]
    for bound in (0.1, 0.3):
        wrong = sum(r["short"] > bound for r in early)
        print(f"more than {bound} nats short: {wrong} of {len(early)} stopped by the rule")


def main():
    """Run from the command line."""
    runs = {
        "horseshoe": run_horseshoe,
        "quantiles": run_quantiles,
        "wine": run_wine,
        "dimension": run_dimension,
        "stopping": run_stopping,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=runs)
    parser.add_argument("--database", type=Path, help="posterior_database folder")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    runs[arguments.what](arguments)


if __name__ == "__main__":
    main()
