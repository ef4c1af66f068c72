"""Modes whose shapes differ twentyfold: isotropic components against diagonal ones.

python benchmarks/shapes.py
"""

from functools import partial

import numpy as np
from measure import chosen, cost, draws_of, fit, parser, save
from problems.models import Planted, mass_errors, sinusoid
from scipy.special import logsumexp
from scipy.stats import norm

DRAWS = 20_000
BOX = 6.0  # half width of where components start
NOTABLE = 0.1  # mass of a mode of the sinusoid that has to be found
# beyond the default
VARIANTS = {
    "isotropic": {},
    "diagonal": {"component_variances": "diagonal"},
}


def equal_modes(places, deviations):
    """Two Gaussian modes of equal mass, from the places and deviations along each dimension."""
    means, deviations = np.array(places, dtype=float), np.array(deviations, dtype=float)
    return Planted(np.full(2, 0.5), means, deviations, np.full(means.shape[1], BOX))


ALTERNATING = np.tile([1.0, 0.05], 5)
APART = np.eye(10)[0] * [[-4], [4]]
IN_TEN = ("d = 10, 1 and .05 by turns", "d = 10, crosswise")
PLANTED = {
    "one place, deviations 1 and .1": equal_modes(np.zeros((2, 2)), [[1, 1], [0.1, 0.1]]),
    "two places, deviations 1 and .05": equal_modes([[-4, 0], [4, 0]], [[1, 1], [1, 0.05]]),
    IN_TEN[0]: equal_modes(APART, [np.ones(10), ALTERNATING]),
    IN_TEN[1]: equal_modes(APART, [ALTERNATING, ALTERNATING[::-1]]),
}


def planted(problem, options, seed, backend, *, exact_starts=False):
    """Error of the mass of a mode and KL(q || p), from draws of q: the evidence is known."""
    exact = {"start": problem.draws(50, seed)}
    options = options | (exact if exact_starts else {"init": "uniform", "init_width": BOX})
    approx = fit(problem.model(), seed, backend=backend, **options)
    points, _ = approx.mixture.draw(DRAWS, np.random.default_rng(seed))
    parts = norm(problem.means, problem.deviations).logpdf(points[:, None]).sum(axis=2)
    joint = parts + np.log(problem.weights)
    log_p = logsumexp(joint, axis=1)
    log_ratio = approx.mixture.log_density(points) - log_p
    masses = np.exp(joint - log_p[:, None]).mean(axis=0)
    return approx, {
        "n_dim": approx.ddim,
        "kl": float(log_ratio.mean()),
        "kl_se": float(log_ratio.std() / np.sqrt(DRAWS)),
        "mass_error": float(np.abs(masses - problem.weights).max()),
    }


def unknown_frequency(problem, options, seed, backend):
    """The same where only the masses are known: KL below the evidence by importance sampling."""
    approx = fit(
        problem.model(), seed, backend=backend, init="uniform", init_width=problem.box, **options
    )
    draws = draws_of(approx.sample(DRAWS, random_seed=seed))
    report = approx.diagnostics(DRAWS, random_seed=seed, n_probes=0, transitions=0)
    return approx, {
        "n_dim": approx.ddim,
        "kl": report["log_evidence"].item() - report["elbo"].item(),
        "kl_se": report["log_evidence_se"].item(),
        "mass_error": float(np.abs(mass_errors(problem, draws, least=NOTABLE)).max()),
    }


def main():
    arguments = parser(__doc__, seeds=5).parse_args()
    targets = {name: partial(planted, problem) for name, problem in PLANTED.items()}
    for name in IN_TEN:
        exactly = partial(planted, PLANTED[name], exact_starts=True)
        targets[f"{name}, exact starts"] = exactly
    targets['sinusoid "9"'] = partial(unknown_frequency, sinusoid(9))
    records = []
    for name in chosen(targets, arguments.only):
        for variant, options in VARIANTS.items():
            for seed in range(arguments.seeds):
                approx, figures = targets[name](options, seed, arguments.backend)
                head = {"target": name, "variances": variant, "seed": seed}
                records.append(head | figures | cost(approx))
                print(records[-1], flush=True)
    save("shapes", {"backend": arguments.backend}, key=("target", "variances"), fits=records)


if __name__ == "__main__":
    main()
