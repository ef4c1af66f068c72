"""Accuracy of the default fit, with nothing set but the seed.

    python benchmarks/accuracy.py posteriordb --database posteriordb/posterior_database
    python benchmarks/accuracy.py models        # hard in different ways
    python benchmarks/accuracy.py planted       # Gaussian modes, starts over their box
    python benchmarks/accuracy.py sinusoids     # modes by nature, their masses exact

``--only`` measures those with a part of their names; the figures of the others stay.
"""

import numpy as np
from measure import chosen, cost, draws_of, fit, flatten, judgement, parser, save, scaled_w1
from problems.models import MODELS, mass_errors, planted_modes, sinusoid

PLANTED = {
    f"d = {d}, {modes} modes": (d, modes)
    for d, modes in ((2, 3), (2, 5), (10, 4), (20, 3), (20, 5))
}
NOTABLE = 0.1  # mass of a mode that has to be found


def posteriordb(arguments):
    """Distance to reference draws, and the ELBO of 20 000 draws."""
    from problems.posteriors import BUILDERS, PARAMS, load_draws, load_model

    for name in chosen(BUILDERS, arguments.only):
        names = PARAMS[name]
        _, reference = flatten(load_draws(arguments.database, name), names)
        for seed in range(arguments.seeds):
            approx = fit(load_model(arguments.database, name), seed, backend=arguments.backend)
            draws = draws_of(approx.sample(2000, random_seed=seed))
            distance = scaled_w1(flatten(draws, names)[1], reference)
            yield {
                "posterior": name,
                "seed": seed,
                "n_dim": approx.ddim,
                "w1_median": float(np.median(distance)),
                "w1_max": float(distance.max()),
                **judgement(approx.diagnostics(20_000, random_seed=seed, n_probes=0)),
                **cost(approx),
            }


def models(arguments):
    """KL(q || p) by importance sampling."""
    for name in chosen(MODELS, arguments.only):
        for seed in range(arguments.seeds):
            approx = fit(MODELS[name](), seed, backend=arguments.backend)
            report = approx.diagnostics(10_000, random_seed=seed, n_probes=0)
            first = {"n_dim": approx.ddim, "start": float(-approx.hist[0])}
            yield {"model": name, "seed": seed, **first, **judgement(report), **cost(approx)}


def mode_record(problem, arguments, seed, *, least=0.0, **options):
    """Largest error of a mass, from 20 000 draws."""
    approx = fit(problem.model(), seed, backend=arguments.backend, **options)
    errors = mass_errors(problem, draws_of(approx.sample(20_000, random_seed=seed)), least=least)
    return {"seed": seed, "largest_error": float(np.abs(errors).max()), **cost(approx)}


def planted(arguments):
    """Modes and their masses, from starts uniform over the box."""
    for name in chosen(PLANTED, arguments.only):
        problem = planted_modes(*PLANTED[name])
        for seed in range(arguments.seeds):
            start = np.random.default_rng(seed).uniform(
                -problem.box, problem.box, (50, len(problem.box))
            )
            yield {"problem": name, **mode_record(problem, arguments, seed, start=start)}


def sinusoids(arguments):
    """The same of an unknown frequency; "9" has a mode twenty times as broad as the others."""
    for name in chosen(("4", "9"), arguments.only):
        problem = sinusoid(int(name))
        options = {"least": NOTABLE, "init": "uniform", "init_width": problem.box}
        masses = ", ".join(f"{mass:.2f}" for mass in problem.weights if mass >= NOTABLE)
        for seed in range(arguments.seeds):
            record = mode_record(problem, arguments, seed, **options)
            yield {"problem": name, "masses": masses, **record}


def main():
    runs = {run.__name__: run for run in (posteriordb, models, planted, sinusoids)}
    arguments = parser(__doc__, database=True, seeds=5, what=runs).parse_args()
    records = []
    for record in runs[arguments.what](arguments):
        records.append(record)
        print(record, flush=True)
    key = tuple(k for k in ("posterior", "model", "problem") if k in records[0])
    save(f"accuracy_{arguments.what}", {"backend": arguments.backend}, key=key, fits=records)


if __name__ == "__main__":
    main()
