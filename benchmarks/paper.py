"""The paper's own algorithm: KL(q || p), beside what the authors' code reaches.

    python benchmarks/paper.py targets       # 2-dimensional densities
    python benchmarks/paper.py regressions   # logistic and multinomial; IsoMix(K) beside

KL is taken with 40 000 draws. All variants start from the same means, uniform in a box. Each is run
with three constant steps and several seeds; the median of the best step counts.
"""

import numpy as np
from measure import chosen, cost, fit, parser, save
from problems.targets import PAPER_TARGETS, breast_cancer, wine

import pymc_isomix as pmi

COMPONENTS = (1, 10, 20)
VARIANTS = {  # label: variance_update, shared_variance
    "mirror": ("mirror", False),
    "bures": ("bures", False),
    "mirror, shared": ("mirror", True),
    "bures, shared": ("bures", True),
    "fixed": ("fixed", False),
    "natural": ("natural", False),
}
MAIN_VARIANTS, BESIDE_SEEDS = ("mirror", "bures"), 2
STEP_SIZES = {
    "four modes, equal weights": (0.01, 0.1, 1.0),
    "four modes, weights .1 .3 .3 .3": (0.01, 0.1, 1.0),
    "funnel": (0.003, 0.01, 0.03),
    "sinh-arcsinh": (0.003, 0.03, 0.1),
    "breast cancer, logistic": (0.001, 0.003, 0.01),
    "wine, multinomial": (0.003, 0.01, 0.03),
}
AUTHORS = {  # what their code reaches at K = 1, 10, 20
    "four modes, equal weights": (0.560, 0.012, 0.001),
    "four modes, weights .1 .3 .3 .3": (0.591, 0.001, 0.001),
    "funnel": (0.236, 0.038, 0.023),
    "sinh-arcsinh": (0.115, 0.0006, 0.0001),
    "breast cancer, logistic": (10.90, 9.76, 9.375),
    "wine, multinomial": (None, None, 13.95),
}


def divergence(approx, target, seed, n_draws=40_000):
    """KL(q || p) and its standard error."""
    group = approx.groups[0]
    points, _ = group.density.draw_unconstrained(n_draws, np.random.default_rng(seed))
    log_ratio = group.log_density(points) - target.log_density(points)
    return [round(float(v), 6) for v in (log_ratio.mean(), log_ratio.std() / n_draws**0.5)]


def paper_fit(target, n_components, variant, step_size, seed, arguments):
    """Fit from the first rows of one table a seed, the same for all K and variants."""
    variance_update, shared_variance = VARIANTS[variant]
    width = target.start_width
    table = np.random.default_rng(seed).uniform(
        -width, width, (max(*COMPONENTS, n_components), target.n_dim)
    )
    inference = pmi.IsoMix.paper(
        n_components,
        variance_update=variance_update,
        shared_variance=shared_variance,
        step_size=step_size,
        start=table[:n_components],
        start_sigma=target.start_variance**0.5,
        random_seed=seed,
        model=target.model(),
    )
    return inference.fit(arguments.steps, backend=arguments.backend, progressbar=False)


def outcome(target, n_components, variant, step_size, seed, arguments):
    """Divergence of one run, None if a step failed."""
    try:
        approx = paper_fit(target, n_components, variant, step_size, seed, arguments)
    except FloatingPointError:
        return None
    return divergence(approx, target, seed)


def best_step(target, n_components, variant, arguments):
    """All steps and seeds; the median at the step with the lowest, failures counted as infinite."""
    n_seeds = arguments.seeds if variant in MAIN_VARIANTS else min(arguments.seeds, BESIDE_SEEDS)
    runs = {
        step: [outcome(target, n_components, variant, step, s, arguments) for s in range(n_seeds)]
        for step in STEP_SIZES[target.name]
    }
    medians = {
        step: np.median([np.inf if found is None else found[0] for found in outcomes])
        for step, outcomes in runs.items()
    }
    step = min(medians, key=medians.get)
    what = {"target": target.name, "K": n_components, "variant": variant}
    return what | {"step_size": step, "median": float(medians[step]), "runs": runs}


def default_fit(target, n_components, arguments):
    """``IsoMix(K)`` as it comes."""
    found = []
    for seed in range(arguments.seeds):
        approx = fit(target.model(), seed, n_components=n_components, backend=arguments.backend)
        kl, error = divergence(approx, target, seed)
        found.append({"seed": seed, "kl": kl, "error": error, **cost(approx)})
    median = float(np.median([run["kl"] for run in found]))
    return {"target": target.name, "K": n_components, "median": median, "runs": found}


def main():
    command = parser(__doc__, seeds=5, what=("targets", "regressions"))
    command.add_argument("--steps", type=int, default=3000)
    arguments = command.parse_args()
    regressions = arguments.what == "regressions"
    targets = {t.name: t for t in ((breast_cancer(), wine()) if regressions else PAPER_TARGETS)}
    targets = [targets[name] for name in chosen(targets, arguments.only)]
    variants = MAIN_VARIANTS if regressions else [v for v in VARIANTS if v != "natural"]
    tables = {
        "runs": [
            best_step(t, k, v, arguments) for t in targets for k in COMPONENTS for v in variants
        ]
    }
    if regressions:
        tables["default"] = [default_fit(t, k, arguments) for t in targets for k in COMPONENTS]
    settings = {key: getattr(arguments, key) for key in ("seeds", "steps", "backend")}
    settings["authors"] = {
        name: dict(zip(COMPONENTS, AUTHORS[name], strict=True)) for name in AUTHORS
    }
    save(f"paper_{arguments.what}", settings, key=("target",), **tables)


if __name__ == "__main__":
    main()
