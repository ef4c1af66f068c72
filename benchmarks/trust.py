"""Whether the report on a fit can itself be trusted.

    python benchmarks/trust.py verdicts calibration --database posteriordb/posterior_database

The verdict on 20 fits, ten good by design and ten bad,
beside the measured distance to the truth: the largest scaled Wasserstein-1 distance over the
parameters. Simulation-based calibration: coverage of central intervals, and whether the ranks of
the truth stay inside ArviZ's simultaneous 99 % band.

What counts as agreement was fixed before the fits were run: "good" up to 0.3, "bad" above 0.3,
"doubtful" above 0.15.
"""

import numpy as np
import pymc as pm
from arviz_stats.ecdf_utils import ecdf_pit
from measure import draws_of, fit, flatten, judgement, parser, save, scaled_w1

GOOD_DISTANCE, CLEARLY_GOOD = 0.3, 0.15
DRAWS = 10_000


def agrees(verdict, distance):
    """Tell whether a verdict fits a distance, by the rule in the docstring of this module."""
    if verdict == "good":
        return distance <= GOOD_DISTANCE
    return distance > (GOOD_DISTANCE if verdict == "bad" else CLEARLY_GOOD)


def verdicts(arguments, seed=2):
    """Verdict beside distance; ``unprobed`` is the verdict without ascents from spread starts."""
    from problems.trust import cases

    for name, model, exact, options in cases(arguments.database):
        approx = fit(model, seed, backend=arguments.backend, **options)
        report = approx.diagnostics(random_seed=seed)
        unprobed = approx.diagnostics(random_seed=seed, n_probes=0)
        draws = draws_of(approx.sample(DRAWS, random_seed=2))
        distance = scaled_w1(flatten(draws, exact)[1], flatten(exact, exact)[1]).max()
        yield {
            "fit": name,
            "w1_max": float(distance),
            **judgement(report),
            "unprobed": unprobed.verdict,
            "agrees": bool(agrees(report.verdict, distance)),
            "unprobed_agrees": bool(agrees(unprobed.verdict, distance)),
        }


def calibrate(build, n_simulations, backend="jax", **options):
    """Ranks of the truth under fits of data from the prior, by parameter: one record each."""
    model, simulate = build(np.random.default_rng(1))
    ranks: dict[str, list[float]] = {}
    for seed in range(n_simulations):
        truth, data = simulate()
        pm.set_data({"y_data": data}, model=model)
        draws = draws_of(
            fit(model, seed, backend=backend, **options).sample(1000, random_seed=seed)
        )
        labels, columns = flatten(draws, truth)
        values = flatten({name: np.asarray(v)[None] for name, v in truth.items()}, truth)[1]
        for label, rank in zip(labels, (columns < values).mean(axis=0), strict=True):
            ranks.setdefault(label, []).append(float(rank))
    for label, values in ranks.items():
        rank = np.array(values)
        _, ecdf, low, high = ecdf_pit(rank, 0.99, n_simulations=1000, rng=np.random.default_rng(1))
        shares = [float((np.abs(rank - 0.5) < half).mean()) for half in (0.25, 0.45)]
        errors = [(share * (1 - share) / len(rank)) ** 0.5 for share in shares]
        yield {
            "parameter": label,
            **dict(zip(("within_50", "within_90"), shares, strict=True)),
            **dict(zip(("within_50_se", "within_90_se"), errors, strict=True)),
            "inside_band": "yes" if np.all((ecdf >= low) & (ecdf <= high)) else "**no**",
            "n": n_simulations,
        }


def calibration(arguments):
    """Coverage of a regression; that of a hierarchy is in hierarchies.py."""
    from problems.trust import regression

    yield from calibrate(regression, arguments.simulations, arguments.backend)


def main():
    """Run from the command line; each part has a file of its own."""
    runs = {"verdicts": verdicts, "calibration": calibration}
    command = parser(__doc__, database=True, seeds=3)
    command.add_argument("what", choices=runs, nargs="+")
    command.add_argument("--simulations", type=int, default=100)
    arguments = command.parse_args()
    for what in arguments.what:
        settings = {"seeds": arguments.seeds, "simulations": arguments.simulations}
        save(f"trust_{what}", settings, records=list(runs[what](arguments)))


if __name__ == "__main__":
    main()
