"""Fits with the paper's own algorithm from given starts, at several constant steps and seeds."""

import numpy as np
from measure import divergence, draw_stratified
from pymc.variational.inference import resolve_backend_compile_kwargs

import pymc_isomix as pmi

COMPONENTS = (1, 10, 20)
VARIANTS = {  # label: variance_update, shared_variance
    "mirror": ("mirror", False),
    "bures": ("bures", False),
    "mirror, shared": ("mirror", True),
    "bures, shared": ("bures", True),
    "fixed": ("fixed", False),
}
MAIN_VARIANTS = ("mirror", "bures")
BESIDE_SEEDS = 2  # of the others


class PaperFit:
    """One compiled step of ``IsoMix.paper``, for any number of starts and constant steps."""

    def __init__(self, model, n_components, variant, backend):
        variance_update, shared_variance = VARIANTS[variant]
        inference = pmi.IsoMix.paper(
            n_components,
            variance_update=variance_update,
            shared_variance=shared_variance,
            random_seed=0,
            model=model,
        )
        self.group, self.operator = inference.approx.groups[0], inference.objective.op
        compile_kwargs = resolve_backend_compile_kwargs(backend, None)
        self.step = inference.objective.step_function(compile_kwargs=compile_kwargs)

    def run(self, means, variance, step_size, n):
        """Return the last iterate's parameters, or None if a step failed."""
        log_variances = np.full(len(means), np.log(variance))
        self.group.set_parameter_values({"means": means, "log_variances": log_variances})
        self.operator.set_step_size(step_size)
        for _ in range(n):
            if np.isnan(float(self.step())):
                return None
        return self.group.parameter_values()


def starting_means(seed, n_components, n_dim, width):
    """The first rows of one table a seed: every K and variant starts from the same points."""
    table = np.random.default_rng(seed).uniform(-width, width, size=(max(COMPONENTS), n_dim))
    return table[:n_components]


def run_variant(target, variant, n_components, step_sizes, width, options, predict=None):
    """All steps and seeds of one variant: a record for the JSON file."""
    n_seeds = options.seeds if variant in MAIN_VARIANTS else min(options.seeds, BESIDE_SEEDS)
    fit = PaperFit(target.model(), n_components, variant, options.backend)
    runs = {}
    for step_size in step_sizes:
        outcomes = []
        for seed in range(n_seeds):
            means = starting_means(seed, n_components, target.n_dim, width)
            parameters = fit.run(means, target.start_variance, step_size, options.steps)
            if parameters is None:
                outcomes.append(None)
                continue
            outcome = evaluate(parameters, target, seed)
            if predict is not None:
                outcome += held_out(parameters, predict)
            outcomes.append(outcome)
        runs[str(step_size)] = outcomes
    return {
        "target": target.name,
        "K": n_components,
        "variant": variant,
        **summary(runs),
        "runs": runs,
    }


def evaluate(parameters, target, seed):
    """KL and its standard error."""
    return [round(value, 6) for value in divergence(parameters, target.log_density, seed=seed)]


def held_out(parameters, predict):
    """Accuracy and mean log predictive density of 2000 draws; uniform weights only."""
    draws = draw_stratified(parameters, 2000, seed=1).reshape(-1, parameters["means"].shape[1])
    return [round(float(value), 4) for value in predict(draws)]


def summary(runs):
    """Median and best KL at the step with the lowest median; a failed run counts as infinite."""

    def divergences(outcomes):
        return np.array([np.inf if outcome is None else outcome[0] for outcome in outcomes])

    step_size = min(runs, key=lambda step: np.median(divergences(runs[step])))
    chosen = divergences(runs[step_size])
    best = int(np.argmin(chosen))
    return {
        "step_size": float(step_size),
        "median": float(np.median(chosen)),
        "best": float(chosen[best]),
        "standard_error": None if runs[step_size][best] is None else runs[step_size][best][1],
        "failed": int(np.isinf(chosen).sum()),
        "best_outcome": runs[step_size][best],
    }
