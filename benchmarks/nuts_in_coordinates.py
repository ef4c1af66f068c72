"""NUTS in the coordinates of a fit, beside NUTS on the model as written and non-centred.

    python benchmarks/nuts_in_coordinates.py [--sampler numpyro] [--draws 1000] [--only NAME ...]

For each: divergences, the largest R-hat and the smallest bulk ESS over the free variables of the
model as written, gradients for an effective draw (without those of tuning), and seconds with
compiling, for ours those of the fit included. Written: ``results/nuts_in_coordinates.json``.
"""

import logging
import time
import warnings

import arviz as az
import numpy as np
import pymc as pm
from measure import chosen, parser, save

import pymc_isomix as pmi

SCHOOLS_Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SCHOOLS_SE = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def effects(name, mean, scale, centred, size):
    """Normal effects in one of the two forms."""
    if centred:
        return pm.Normal(name, mean, scale, shape=size)
    return pm.Deterministic(name, mean + scale * pm.Normal(f"{name}_offset", shape=size))


def schools(centred):
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = effects("theta", mu, tau, centred, 8)
        pm.Normal("y", theta, SCHOOLS_SE, observed=SCHOOLS_Y)
    return model


def horseshoe(centred, n_rows=100, n_effects=20):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n_rows, n_effects))
    y = x[:, :3] @ [2.0, -1.5, 1.0] + rng.normal(size=n_rows)
    with pm.Model() as model:
        tau, local = pm.HalfCauchy("tau", 0.1), pm.HalfCauchy("local", 1, shape=n_effects)
        beta = effects("beta", 0, tau * local, centred, n_effects)
        pm.Normal("y", x @ beta, pm.HalfNormal("sigma", 2), observed=y)
    return model


def slopes(centred, n_groups=30, n_each=8):
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(n_groups), n_each)
    x = rng.normal(size=len(group))
    a, b = 1 + 0.5 * rng.normal(size=n_groups), 0.3 + 0.13 * rng.normal(size=n_groups)
    y = a[group] + b[group] * x + 0.8 * rng.normal(size=len(group))
    with pm.Model() as model:
        terms = []
        for name in ("intercept", "slope"):
            mean, scale = pm.Normal(f"{name}_mean", 0, 2), pm.HalfNormal(f"{name}_scale", 1)
            terms.append(effects(name, mean, scale, centred, n_groups))
        mean = terms[0][group] + terms[1][group] * x
        pm.Normal("y", mean, pm.HalfNormal("sigma", 1), observed=y)
    return model


def chain(n_dim=200, rho=0.99):
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        steps = (x[1:] - rho * x[:-1]) / np.sqrt(1 - rho**2)
        pm.Potential("density", -0.5 * (x[0] ** 2 + (steps**2).sum()))
    return model


MODELS = {
    "eight schools": schools,
    "horseshoe": horseshoe,
    "varying slopes": slopes,
    "AR(1), d = 200": lambda centred: chain() if centred else None,
}


def figures(tree, names, seconds):
    """Say how sampling went."""
    summary = az.summary(tree, var_names=names, kind="diagnostics", round_to="none")
    effective = float(summary["ess_bulk"].astype(float).min())
    statistics = tree.sample_stats
    return {
        "divergences": int(statistics["diverging"].sum()),
        "rhat": float(summary["r_hat"].astype(float).max()),
        "ess": effective,
        "gradients_per_draw": float(statistics["n_steps"].sum()) / effective,
        "seconds": seconds,
    }


def ways(build, draws, options):
    """Yield (way, figures) for a model."""
    free = {}
    for way, centred in (("as written", True), ("non-centred", False)):
        if (model := build(centred)) is None:
            continue
        names = free[way] = [rv.name for rv in model.free_RVs]
        began = time.perf_counter()
        with model:
            tree = pm.sample(draws, tune=1000, **options)
        yield way, figures(tree, names, time.perf_counter() - began)
    model = build(True)
    began = time.perf_counter()
    approx = pmi.IsoMix(random_seed=1, model=model).fit(progressbar=False)
    fitted = time.perf_counter() - began
    tree = approx.sample_nuts(draws, tune=500, **options)
    seconds = time.perf_counter() - began
    yield "in the fit's coordinates", figures(tree, free["as written"], seconds) | {"fit": fitted}


def main():
    """Run from the command line."""
    command = parser(__doc__)
    command.add_argument("--sampler", default="numpyro")
    command.add_argument("--draws", type=int, default=1000)
    arguments = command.parse_args()
    for name in ("pymc_isomix", "pymc"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    options = {
        "nuts_sampler": arguments.sampler,
        "chains": 4,
        "random_seed": 1,
        "progressbar": False,
        "compute_convergence_checks": False,
    }
    records = []
    for name in chosen(MODELS, arguments.only):
        for way, found in ways(MODELS[name], arguments.draws, options):
            records.append({"model": name, "way": way, **found})
            print(records[-1], flush=True)
    settings = {"sampler": arguments.sampler, "draws": arguments.draws}
    save("nuts_in_coordinates", settings, key=("model", "way"), runs=records)


if __name__ == "__main__":
    main()
