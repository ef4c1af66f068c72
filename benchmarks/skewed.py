"""Skewed posteriors: the default fit beside exact draws, or long runs of NUTS.

    python benchmarks/skewed.py references --folder references   # once, half an hour
    python benchmarks/skewed.py fits --folder references [--only rates] [--seeds 5]

Variables are compared in unconstrained space: positive ones as logarithms, probabilities as
logits. ``width`` is the worst ratio of central 90 % intervals, as its distance from one; ``w1`` the
largest scaled Wasserstein-1 distance; ``short`` is the exact evidence less the ELBO, where it is
known.
"""

import json
import time
from pathlib import Path

import arviz as az
import numpy as np
from measure import chosen, cost, draws_of, fit, flatten, judgement, parser, save, scaled_w1
from problems.skewed import PROBLEMS
from scipy.special import logit

DRAWS = 10_000
LENGTHS, RHAT = (2500, 10_000), 1.005  # draws a chain until R-hat is below
UNBOUNDED = {"LogTransform": np.log, "LogOddsTransform": logit}


def unbounded(model, draws, names=None):
    """Labels and columns (n, d) of a model's free variables, in unconstrained space."""
    mapped = {}
    for rv in model.free_RVs:
        if names is not None and rv.name not in names:
            continue
        kind = type(model.rvs_to_transforms[rv]).__name__
        tiny = np.finfo(float).tiny  # a rate may be zero in floating point
        values = np.maximum(draws[rv.name], tiny) if kind in UNBOUNDED else draws[rv.name]
        mapped[rv.name] = UNBOUNDED.get(kind, lambda x: x)(values)
    return flatten(mapped, mapped)


def sample_reference(problem, seed=1):
    """Draws by name, and how good they are."""
    if problem.exact:
        draws = problem.exact(np.random.default_rng(seed), DRAWS)
        return draws, {"log_evidence": problem.log_evidence, "seed": seed}
    import nutpie

    model, began = problem.build(), time.perf_counter()
    names, compiled = [rv.name for rv in model.free_RVs], nutpie.compile_pymc_model(model)
    options = {"target_accept": 0.97, "progress_bar": False, "seed": seed}
    for length in LENGTHS:
        tree = nutpie.sample(compiled, draws=length, tune=2000, chains=4, cores=2, **options)
        posterior = tree["posterior"].to_dataset()[names]
        rhat = max(float(v.max()) for v in az.rhat(posterior).data_vars.values())
        if rhat < RHAT:
            break
    every = length // LENGTHS[0]
    return {name: draws_of(tree)[name][::every] for name in names}, {
        "rhat": rhat,
        "draws": 4 * length,
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "seconds": round(time.perf_counter() - began, 1),
        "seed": seed,
    }


def references(arguments):
    """Write what the folder has not."""
    arguments.folder.mkdir(exist_ok=True, parents=True)
    for name in chosen(PROBLEMS, arguments.only):
        path = path_of(arguments.folder, name)
        if not path.exists():
            draws, notes = sample_reference(PROBLEMS[name])
            np.savez_compressed(path, notes=json.dumps(notes), **draws)
        print(name, np.load(path)["notes"], flush=True)


def path_of(folder, name):
    """File of a reference."""
    return folder / f"{name.replace(' ', '_').replace(',', '')}.npz"


def fits(arguments):
    """One record of each problem and seed."""
    for name in chosen(PROBLEMS, arguments.only):
        problem = PROBLEMS[name]
        reference_draws = dict(np.load(path_of(arguments.folder, name)))
        notes = json.loads(str(reference_draws.pop("notes")))
        for seed in range(arguments.seeds):
            model = problem.build()
            approx = fit(model, seed, backend=arguments.backend)
            draws = draws_of(approx.sample(DRAWS, random_seed=seed))
            labels, ours = unbounded(model, draws)
            _, theirs = unbounded(model, reference_draws)
            distance = scaled_w1(ours, theirs)
            widths = [
                np.diff(np.quantile(x, (0.05, 0.95), axis=0), axis=0)[0] for x in (ours, theirs)
            ]
            ratio = widths[0] / widths[1]
            worst = int(np.abs(np.log(ratio)).argmax())
            judged = judgement(approx.diagnostics(DRAWS, random_seed=seed, n_probes=0))
            exact = notes.get("log_evidence")
            yield {
                "problem": name,
                "seed": seed,
                "n_dim": approx.ddim,
                "short": None if exact is None else exact - judged["elbo"],
                "width": float(np.exp(np.abs(np.log(ratio[worst]))) - 1),
                "width_of": labels[worst],
                "ratio": float(ratio[worst]),
                "w1_max": float(distance.max()),
                "w1_of": labels[int(distance.argmax())],
                "has_shape": bool(approx.groups[0].coordinate_map.has_shape),
                "gradients": sum(approx.history.n_gradients.values()),
                **judged,
                **cost(approx),
            }


def main():
    """Measure what the command line names."""
    arguments = parser(__doc__, seeds=5, what=("references", "fits"))
    arguments.add_argument("--folder", type=Path, default=Path("references"))
    arguments = arguments.parse_args()
    if arguments.what == "references":
        return references(arguments)
    records = []
    for record in fits(arguments):
        records.append(record)
        print(json.dumps(record), flush=True)
    save("skewed", {"draws": DRAWS}, key=("problem", "seed"), fits=records)


if __name__ == "__main__":
    main()
