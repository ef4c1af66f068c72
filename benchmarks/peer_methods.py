"""The methods, each with one setting for all posteriors, as its documentation advises.

A method takes a problem, a seed and ``run``-time budgets in seconds and yields, each time there is
something to judge, (seconds of the run so far without compilation, draws, seconds of compilation).
Fits that follow a schedule over n steps are run anew for each budget, with the n that fits it.
"""

import time

import numpy as np
import pymc as pm
from measure import cost, draws_of, fit

BUDGETS = (0.5, 1.0, 2.0, 5.0, 20.0)
DRAWS = 2000


def isomix(problem, seed):
    """``IsoMix()``, nothing set but the seed (and the box, where starts must cover one)."""
    options = {"init": "uniform", "init_width": problem.width} if problem.covering else {}
    approx = fit(problem.model, seed, **options)
    whole = cost(approx)
    cold = whole["compile_seconds"]
    yield whole["seconds"], draws_of(approx.sample(DRAWS, random_seed=seed)), cold
    for budget in BUDGETS[:3]:  # n is a budget too, for those who cannot wait
        if whole["seconds"] > budget:
            n = max(int(0.9 * budget * whole["steps"] / whole["seconds"]), 20)
            approx = fit(problem.model, seed, n=n, **options)
            draws = draws_of(approx.sample(DRAWS, random_seed=seed))
            yield cost(approx)["seconds"], draws, cold


def _pymc_vi(inference, problem, seed, optimizer=None):
    """Stop at each budget to judge. PyMC's default backend: ADVI and SVGD do not compile on JAX."""
    options = {} if optimizer is None else {"obj_optimizer": optimizer}
    began = time.perf_counter()
    inference.fit(2, progressbar=False, **options)
    cold = time.perf_counter() - began
    spent, chunk, steps = 0.0, 20, 0
    for budget in BUDGETS:
        while spent < budget:
            began = time.perf_counter()
            inference.refine(chunk, progressbar=False)
            taken = time.perf_counter() - began
            spent, steps = spent + taken, steps + chunk
            chunk = int(np.clip(chunk * min(budget - spent, 1.0) / taken, 5, 20_000))
            if budget - spent < 0.02 * budget:
                break
        draws = draws_of(inference.approx.sample(DRAWS, random_seed=seed))
        yield spent, draws, cold, steps


def _advi(kind, **adam):
    """``pm.fit`` by that kind of ADVI, PyMC's default optimiser or ``pm.adam``."""

    def run(problem, seed):
        inference = kind(model=problem.model, random_seed=seed)
        yield from _pymc_vi(inference, problem, seed, pm.adam(**adam) if adam else None)

    return run


def _svgd(**adam):
    """``pm.fit(method="svgd")``, 100 particles, PyMC's default optimiser or ``pm.adam``."""

    def run(problem, seed):
        jitter = problem.width if problem.covering else 1.0
        inference = pm.SVGD(n_particles=100, jitter=jitter, model=problem.model, random_seed=seed)
        yield from _pymc_vi(inference, problem, seed, pm.adam(**adam) if adam else None)

    return run


def pathfinder(problem, seed):
    """pymc-extras' multi-path Pathfinder with its defaults, 4 paths; it compiles at each call."""
    from pymc_extras import fit_pathfinder

    options = {"jitter": problem.width} if problem.covering else {}
    seconds = []
    for _ in range(2):  # the second finds what it can in caches
        began = time.perf_counter()
        data = fit_pathfinder(
            problem.model, num_draws=DRAWS, random_seed=seed, progressbar=False, **options
        )
        seconds.append(time.perf_counter() - began)
    timing = data["pathfinder"].ds if "pathfinder" in data.children else {}
    compute = float(timing["compute_time"]) if "compute_time" in timing else seconds[1]
    yield compute, draws_of(data), seconds[0] - compute


def _by_schedule(run, finish):
    """Compile ``run(key, n)`` once, and take the n that fits each budget."""

    def fits(problem, seed):
        import jax

        key = jax.random.key(seed)
        began = time.perf_counter()
        compiled = jax.jit(run).lower(key, 10).compile()
        state = jax.block_until_ready(compiled(key, 10))
        cold = time.perf_counter() - began
        n, taken = 10, 0.0
        while taken < 0.2 and n < 1e7:
            n *= 4
            began = time.perf_counter()
            jax.block_until_ready(compiled(key, n))
            taken = time.perf_counter() - began
        rate = n / taken
        for budget in BUDGETS:
            n = max(int(rate * budget), 1)
            began = time.perf_counter()
            state = jax.block_until_ready(compiled(key, n))
            yield time.perf_counter() - began, finish(state, jax.random.key(seed + 1)), cold, n

    return fits


def _cosine_adam(n):
    import jax.numpy as jnp
    import optax

    return optax.adam(lambda i: 0.025 * (1 + jnp.cos(jnp.pi * jnp.minimum(i / n, 1.0))))


def _numpyro_model(problem):
    import numpyro
    import numpyro.distributions as dist

    log_density = problem.flat.log_density()
    anything = dist.Normal(0, 10).expand([problem.flat.n_dim]).to_event(1)  # taken out again below

    def model():
        x = numpyro.sample("x", anything)
        numpyro.factor("log_density", log_density(x) - anything.log_prob(x))

    return model


def numpyro_mvn(problem, seed):
    """NumPyro's AutoMultivariateNormal: cosine Adam from 5e-2, 16 draws a step."""
    import jax
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal
    from numpyro.infer.initialization import init_to_uniform

    model = _numpyro_model(problem)
    guide = AutoMultivariateNormal(model, init_loc_fn=init_to_uniform(radius=problem.width))
    SVI(model, guide, _cosine_adam(10), Trace_ELBO(16)).init(jax.random.key(seed))

    def run(key, n):
        svi = SVI(model, guide, _cosine_adam(n), Trace_ELBO(16))
        state = jax.lax.fori_loop(0, n, lambda _, s: svi.update(s)[0], svi.init(key))
        return svi.get_params(state)

    def finish(parameters, key):
        noise = jax.random.normal(key, (DRAWS, problem.flat.n_dim))
        return parameters["auto_loc"] + noise @ parameters["auto_scale_tril"].T

    yield from _by_schedule(run, finish)(problem, seed)


def numpyro_stein(problem, seed):
    """NumPyro's SteinVI: ten Gaussian particles, RBF kernel, Adagrad, as its documentation."""
    import jax
    from numpyro.contrib.einstein import RBFKernel, SteinVI
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.infer.initialization import init_to_uniform
    from numpyro.optim import Adagrad

    model = _numpyro_model(problem)
    guide = AutoNormal(model, init_loc_fn=init_to_uniform(radius=problem.width))
    stein = SteinVI(model, guide, Adagrad(0.05), RBFKernel(), num_stein_particles=10)
    first = stein.init(jax.random.key(seed))

    def run(key, n):
        state = jax.lax.fori_loop(0, n, lambda _, s: stein.update(s)[0], first)
        return stein.get_params(state)

    def finish(parameters, key):
        location, scale = parameters["x_auto_loc"], parameters["x_auto_scale"]
        which = jax.random.randint(key, (DRAWS,), 0, len(location))
        return location[which] + scale[which] * jax.random.normal(key, (DRAWS, problem.flat.n_dim))

    yield from _by_schedule(run, finish)(problem, seed)


def blackjax_fullrank(problem, seed):
    """BlackJAX's full-rank VI: cosine Adam from 5e-2, 16 draws a step."""
    import jax
    from blackjax.vi import fullrank_vi

    log_density = problem.flat.log_density()

    def run(key, n):
        optimizer = _cosine_adam(n)

        def step(i, state):
            key_i = jax.random.fold_in(key, i)
            return fullrank_vi.step(key_i, state, log_density, optimizer, 16)[0]

        return jax.lax.fori_loop(0, n, step, fullrank_vi.init(problem.flat.initial, optimizer))

    def finish(state, key):
        return fullrank_vi.sample(key, state, DRAWS)

    yield from _by_schedule(run, finish)(problem, seed)


def blackjax_multipathfinder(problem, seed):
    """BlackJAX's multi-path Pathfinder: 8 paths, 1000 draws each, resampled by PSIS."""
    import jax
    from blackjax import multipathfinder

    algorithm = multipathfinder(problem.flat.log_density())

    def run(key, starts):
        first, second = jax.random.split(key)
        return algorithm.sample(second, algorithm.init(first, starts, 1000)[0], DRAWS)

    began = time.perf_counter()
    key, starts = jax.random.key(seed), problem.starts(seed, 8)
    if not problem.covering:
        starts = problem.flat.initial + starts
    compiled = jax.jit(run).lower(key, starts).compile()
    cold = time.perf_counter() - began
    began = time.perf_counter()
    draws = jax.block_until_ready(compiled(key, starts))
    yield time.perf_counter() - began, draws, cold


def pymc_nuts(problem, seed):
    """``pm.sample()``: four chains of 1000 after 1000."""
    options = {}
    if problem.covering:  # nothing is transformed there
        options["initvals"] = [{problem.params[0]: start} for start in problem.starts(seed, 4)]
    began = time.perf_counter()
    data = pm.sample(
        1000,
        tune=1000,
        chains=4,
        cores=2,
        nuts_sampler="pymc",  # nutpie's otherwise, where it is installed
        model=problem.model,
        random_seed=seed,
        progressbar=False,
        **options,
    )
    total = time.perf_counter() - began
    seconds = float(data.sample_stats.attrs["sampling_time"])
    yield seconds, draws_of(data), total - seconds


def nutpie(problem, seed):
    """nutpie with its defaults, starts included; four chains of 1000, compiled by numba."""
    import nutpie

    began = time.perf_counter()
    compiled = nutpie.compile_pymc_model(problem.model)
    cold = time.perf_counter() - began
    began = time.perf_counter()
    data = nutpie.sample(compiled, draws=1000, chains=4, seed=seed, progress_bar=False)
    yield time.perf_counter() - began, draws_of(data), cold


METHODS = {
    "isomix": isomix,
    "numpyro_mvn": numpyro_mvn,
    "numpyro_stein": numpyro_stein,
    "blackjax_fullrank": blackjax_fullrank,
    "blackjax_multipathfinder": blackjax_multipathfinder,
    "pathfinder": pathfinder,
    "advi": _advi(pm.ADVI),
    "advi_adam": _advi(pm.ADVI, learning_rate=0.01),
    "fullrank_advi": _advi(pm.FullRankADVI),
    "fullrank_advi_adam": _advi(pm.FullRankADVI, learning_rate=0.01),
    "svgd": _svgd(),
    "svgd_adam": _svgd(learning_rate=0.01),
    "nutpie": nutpie,
    "pymc_nuts": pymc_nuts,
}
SEVERAL_SEEDS = {"isomix": 3, "blackjax_multipathfinder": 3, "pathfinder": 2}
