"""Simulation-based calibration of a regression; that of a hierarchy is in hierarchies.py.

    python benchmarks/calibration.py [--simulations 100]

Coverage of central intervals, and whether the ranks of the truth stay inside ArviZ's simultaneous
99 % band.
"""

import numpy as np
import pymc as pm
from arviz_stats.ecdf_utils import ecdf_pit
from measure import draws_of, fit, flatten, parser, save


def regression(rng):
    """Four coefficients and a standard deviation, thirty rows; simulate() gives truth and data."""
    x = np.random.default_rng(0).normal(size=(30, 4))
    with pm.Model() as model:
        y = pm.Data("y_data", np.zeros(30))
        beta, sigma = pm.Normal("beta", 0, 1, shape=4), pm.HalfNormal("sigma", 1)
        pm.Normal("y", x @ beta, sigma, observed=y)

    def simulate():
        truth = {"beta": rng.normal(size=4), "sigma": abs(rng.normal())}
        return truth, x @ truth["beta"] + truth["sigma"] * rng.normal(size=30)

    return model, simulate


def calibrate(build, n_simulations, backend="jax", transitions=(0,), **options):
    """Ranks of the truth under fits of data from the prior: a record for each parameter.

    And for each number of exact transitions that the draws are moved by.
    """
    model, simulate = build(np.random.default_rng(1))
    ranks: dict[tuple[int, str], list[float]] = {}
    for seed in range(n_simulations):
        truth, data = simulate()
        pm.set_data({"y_data": data}, model=model)
        approx = fit(model, seed, backend=backend, **options)
        values = flatten({name: np.asarray(v)[None] for name, v in truth.items()}, truth)[1]
        for n in transitions:
            tree = approx.sample(1000, transitions=n, random_seed=seed, progressbar=False)
            labels, columns = flatten(draws_of(tree), truth)
            for label, rank in zip(labels, (columns < values).mean(axis=0), strict=True):
                ranks.setdefault((n, label), []).append(float(rank))
    for (n, label), values in ranks.items():
        yield {"transitions": n, "parameter": label, **coverage(np.array(values))}


def coverage(rank):
    """Shares of the truths inside central intervals, from their ranks (n,) between 0 and 1."""
    _, ecdf, low, high = ecdf_pit(rank, 0.99, n_simulations=1000, rng=np.random.default_rng(1))
    shares = [float((np.abs(rank - 0.5) < half).mean()) for half in (0.25, 0.45)]
    errors = [(share * (1 - share) / len(rank)) ** 0.5 for share in shares]
    return {
        **dict(zip(("within_50", "within_90"), shares, strict=True)),
        **dict(zip(("within_50_se", "within_90_se"), errors, strict=True)),
        "inside_band": "yes" if np.all((ecdf >= low) & (ecdf <= high)) else "**no**",
        "n": len(rank),
    }


def main():
    """Run from the command line."""
    command = parser(__doc__, seeds=1)
    command.add_argument("--simulations", type=int, default=100)
    arguments = command.parse_args()
    found = calibrate(regression, arguments.simulations, arguments.backend)
    save("calibration", {"simulations": arguments.simulations}, records=list(found))


if __name__ == "__main__":
    main()
