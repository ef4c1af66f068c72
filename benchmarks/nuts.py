"""NUTS from PyMC's own start and from ``nuts_init``, with the same seeds.

    python benchmarks/nuts.py

Four chains of 1000 draws by PyMC's own NUTS on one core. Gradients are evaluations of the log
density with its gradient: unlike seconds they do not depend on the machine. ESS is the bulk one of
the worst parameter, "in chains" the sum of what each chain alone has: where chains keep to their
modes, only the latter means anything. Share: that of the draws in the first planted mode. One seed
of the correlated Gaussian, where PyMC's own start costs millions of gradients.
"""

import logging

import arviz as az
import numpy as np
import pymc as pm
from measure import chosen, cost, fit, parser, save
from problems.hierarchies import eight_schools
from problems.models import autoregressive, planted_modes

CHAINS, DRAWS = 4, 1000
SETTINGS = (("PyMC", 1000), ("PyMC", 200))
SETTINGS += tuple(("nuts_init", tune) for tune in (1000, 200, 100))
BIMODAL = planted_modes(5, 2, seed=3)
MODELS = {  # and seeds
    "AR(1), .99, d = 200": (autoregressive, 1),
    "eight schools, centred": (lambda: eight_schools(centred=True), 3),
    "two modes, d = 5": (BIMODAL.model, 3),
}


def smallest_ess(posterior):
    """Bulk effective sample size of the worst parameter."""
    ess = az.ess(posterior)
    return min(float(ess[name].min()) for name in ess.data_vars)


def sample(model, tune, seed, start):
    """Run NUTS and say how well it did."""
    with model:
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
    chains = [smallest_ess(posterior.sel(chain=[chain])) for chain in range(CHAINS)]
    return posterior, {
        "divergences": int(tree.sample_stats["diverging"].sum()),
        "rhat": max(float(rhat[name].max()) for name in rhat.data_vars),
        "ess": smallest_ess(posterior),
        "ess_in_chains": sum(chains),
        "tuning_gradients": int(tree["warmup_sample_stats"]["n_steps"].sum()),
        "gradients": int(tree.sample_stats["n_steps"].sum()),
        "seconds": float(tree.posterior.attrs["sampling_time"]),
    }


def measure(name):
    """Every setting on a model, from every seed."""
    build, seeds = MODELS[name]
    model = build()
    for seed in range(1, seeds + 1):
        options = {}
        if name.startswith("two modes"):
            draw = np.random.default_rng(seed).uniform
            options = {"start": draw(-BIMODAL.box, BIMODAL.box, (50, len(BIMODAL.box)))}
        approx = fit(model, seed, **options)
        for label, tune in SETTINGS:
            own = label == "PyMC"
            start = {"chains": CHAINS} if own else approx.nuts_init(CHAINS, random_seed=seed)
            posterior, record = sample(model, tune, seed, start)
            record["fit_seconds"] = 0.0 if own else cost(approx)["seconds"]
            gradients = record["tuning_gradients"] + record["gradients"]
            record["ess_per_thousand"] = 1000 * record["ess"] / gradients
            record["share"] = "-"
            if name.startswith("two modes"):
                modes = BIMODAL.mode_of({"x": posterior["x"].values.reshape(-1, 5)})
                record["share"] = f"{(modes == 0).mean():.2f}"
            yield {"model": name, "start": label, "tune": tune, "seed": seed} | record


def main():
    arguments = parser(__doc__).parse_args()
    logging.getLogger("pymc").setLevel(logging.ERROR)
    for name in chosen(MODELS, arguments.only):
        settings = {"chains": CHAINS, "draws": DRAWS, "true_mass": float(BIMODAL.weights[0])}
        save("nuts", settings, key=("model",), runs=list(measure(name)))


if __name__ == "__main__":
    main()
