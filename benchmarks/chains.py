"""Chains in time of 200 to 10 000 steps: the default fit beside exact posteriors, or NUTS.

    python benchmarks/chains.py references --folder references   # once
    python benchmarks/chains.py fits --folder references [--only walk] [--seeds 5]
    python benchmarks/chains.py linear   # milliseconds of a batch by the number of steps

References of Gaussian data are exact (``problems/kalman.py``); else they are draws of nutpie, four
chains of 1000. Parameters are compared in unconstrained space, and at most 200 states, spread
evenly. ``width`` is the worst ratio of central 90 % intervals, as its distance from one; ``w1`` the
largest scaled Wasserstein-1 distance. The clock runs from the building of the model to the verdict.
"""

import json
import logging
import time
from pathlib import Path

import arviz as az
import numpy as np
from measure import chosen, cost, draws_of, fit, judgement, parser, save
from problems.chains import CHAINS, walk
from skewed import path_of, unbounded

DRAWS, MOST_STATES = 10_000, 200
POINTS = (0.05, 0.95)
LENGTHS = (300, 1000, 3000, 10_000)


def times_of(n_time):
    """Times of the states that are compared."""
    return sorted(set(np.linspace(0, n_time - 1, MOST_STATES).round().astype(int).tolist()))


def compared(model, draws, chain):
    """Labels and columns of what is compared: parameters, and some states."""
    states = np.asarray(draws[chain.states])
    some = [
        rv.name for rv in model.free_RVs if np.prod(states.shape[1:]) > np.prod(rv.shape.eval())
    ]
    parameters = unbounded(model, draws, some)
    times = times_of(states.shape[-1])
    series = states.reshape(len(states), -1, states.shape[-1])[..., times]
    return [*parameters[0], *labels_of(series.shape[1], times)], np.concatenate(
        [parameters[1], series.reshape(len(states), -1)], axis=1
    )


def labels_of(n_series, times):
    """Labels of states."""
    return [f"state[{i},{t}]" for i in range(n_series) for t in times]


def reference(chain, seed=1):
    """Labels, quantiles (1000, n), and how good they are."""
    if chain.exact:
        times = times_of(chain.exact.y.shape[1])
        parameters, states, log_evidence = chain.exact.marginals(times)
        labels = [*parameters, *labels_of(states.shape[1], times)]
        columns = [np.stack(list(parameters.values()), axis=1), states.reshape(len(states), -1)]
        return labels, np.concatenate(columns, axis=1), {"log_evidence": log_evidence}
    import nutpie

    model, began = (chain.sampled or chain.build)(), time.perf_counter()
    options = {"target_accept": 0.9, "progress_bar": False, "seed": seed}
    tree = nutpie.sample(
        nutpie.compile_pymc_model(model), draws=1000, tune=1000, chains=4, cores=2, **options
    )
    summary = az.rhat(tree["posterior"].to_dataset())
    notes = {
        "rhat": max(float(v.max()) for v in summary.data_vars.values()),
        "ess": min(float(v.min()) for v in az.ess(tree["posterior"].to_dataset()).values()),
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    labels, columns = compared(model, draws_of(tree), chain)
    levels = (np.arange(1000) + 0.5) / 1000
    return labels, np.quantile(columns, levels, axis=0), notes


def references(arguments):
    """Write what the folder has not."""
    arguments.folder.mkdir(exist_ok=True, parents=True)
    for name in chosen(CHAINS, arguments.only):
        path = path_of(arguments.folder, name)
        if not path.exists():
            labels, quantiles, notes = reference(CHAINS[name])
            np.savez_compressed(path, labels=labels, quantiles=quantiles, notes=json.dumps(notes))
        print(name, np.load(path)["notes"], flush=True)


def fits(arguments):
    """One record of each chain and seed."""
    for name in chosen(CHAINS, arguments.only):
        stored = np.load(path_of(arguments.folder, name))
        for seed in range(arguments.seeds):
            began = time.perf_counter()
            model = CHAINS[name].build()
            approx = fit(model, seed, backend=arguments.backend)
            fitted = time.perf_counter()
            report = approx.diagnostics()
            judged = {"fit_s": fitted - began, "diagnostics_s": time.perf_counter() - fitted}
            draws = draws_of(approx.sample(DRAWS, random_seed=seed))
            labels, columns = compared(model, draws, CHAINS[name])
            ours = np.quantile(columns, (np.arange(1000) + 0.5) / 1000, axis=0)
            # another writing may have been sampled, with noise for states
            shared = [i for i, label in enumerate(stored["labels"]) if label in labels]
            here = [labels.index(label) for label in stored["labels"][shared]]
            accuracy = apart(
                stored["labels"][shared], ours[:, here], stored["quantiles"][:, shared]
            )
            yield {
                "chain": name,
                "seed": seed,
                "n_dim": approx.ddim,
                **accuracy,
                "gradients": sum(approx.history.n_gradients.values()),
                **{key: round(value, 1) for key, value in judged.items()},
                **judgement(report),
                **cost(approx),
            }


def apart(labels, ours, theirs):
    """Worst W1 and worst ratio of widths, by quantiles (1000, n)."""
    w1 = abs(ours - theirs).mean(axis=0) / theirs.std(axis=0)
    low, high = (int(1000 * point) for point in POINTS)
    ratio = (ours[high] - ours[low]) / (theirs[high] - theirs[low])
    worst, furthest = int(abs(np.log(ratio)).argmax()), int(w1.argmax())
    states = np.array([label.startswith("state[") for label in labels])
    return {
        "width": float(np.exp(abs(np.log(ratio[worst]))) - 1),
        "ratio": float(ratio[worst]),
        "width_of": str(labels[worst]),
        "width_of_states": float(np.exp(abs(np.log(ratio[states])).max()) - 1),
        "w1_max": float(w1[furthest]),
        "w1_of": str(labels[furthest]),
    }


def linear():
    """Milliseconds of log density and gradient at 150 draws, by the number of steps."""
    for n_time in LENGTHS:
        approx = fit(walk(n_time).build(), 0, n=1)
        compiled = approx.compiled_model()
        y = np.random.default_rng(0).normal(size=(150, approx.ddim))
        compiled.log_density_and_gradient(y)
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            compiled.log_density_and_gradient(y)
            seconds.append(time.perf_counter() - began)
        yield {"steps": n_time, "ms": round(1000 * float(np.median(seconds)), 1)}


def main():
    """Measure what the command line names."""
    arguments = parser(__doc__, seeds=5, what=("references", "fits", "linear"))
    arguments.add_argument("--folder", type=Path, default=Path("references"))
    arguments = arguments.parse_args()
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    if arguments.what == "references":
        return references(arguments)
    key = ("chain", "seed") if arguments.what == "fits" else ("steps",)
    records = []
    for record in fits(arguments) if arguments.what == "fits" else linear():
        records.append(record)
        print(json.dumps(record), flush=True)
    name = "chains" if arguments.what == "fits" else "chains_linear"
    save(name, {"draws": DRAWS}, key=key, **{arguments.what: records})


if __name__ == "__main__":
    main()
