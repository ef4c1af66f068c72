"""What one step costs beside the gradients of the model that it cannot do without.

    python benchmarks/step_time.py [--backend numba] [--sizes 10x10 50x10] [--only planted]

Microseconds a step of K x B draws, as the fit takes them, beside one call of
``jax.jit(jax.vmap(jax.value_and_grad(log_density)))`` at as many points, and beside the same by
``pymc_isomix.model.batching``. The functions take turns, so that all see the same machine.
"""

import time

import jax
import numpy as np
import pytensor
from measure import chosen, parser, save
from problems.flat import FlatModel
from problems.workloads import STEP_TIME
from pymc.pytensorf import compile
from pymc.variational.inference import resolve_backend_compile_kwargs

import pymc_isomix as pmi
from pymc_isomix.backend.compilation import one_blas_thread
from pymc_isomix.fitting.steppers import stepper
from pymc_isomix.model.batching import batched_log_density

SIZES = ("10x10", "50x10", "200x10")
ROUNDS, ROUND_SECONDS = 7, 0.2
PAUSE_SECONDS = 0.1  # the threads of a BLAS spin on for a while after a call
STEPS = 20  # of one call, where they run in a loop


def make_inference(model, kind, n_components, n_samples):
    if kind == "paper":
        return pmi.IsoMix.paper(
            n_components, n_samples=n_samples, step_size=1e-6, random_seed=0, model=model
        )
    return pmi.IsoMix(n_components, n_samples=n_samples, step_size=1e-3, random_seed=0, model=model)


def make_steps(model, kind, size, backend):
    """A function that takes some steps as the fit does, and says how many."""
    objective = make_inference(model, kind, *size).objective
    function = objective.step_function(compile_kwargs=resolve_backend_compile_kwargs(backend, None))
    steps = stepper(function, objective.op)

    def take():
        n_steps = min(STEPS, steps.most)
        with one_blas_thread():
            losses, _ = steps.take(np.full(n_steps, 1e-6))
        assert np.isfinite(losses).all()
        return n_steps

    return take


def points_of(n_dim, size):
    return 0.1 * np.random.default_rng(0).normal(size=(size[0] * size[1], n_dim))


def make_batched(model, size, backend):
    """Our own batched evaluation; the gradient stays where the backend leaves it."""
    group = make_inference(model, "paper", 1, 1).approx.groups[0]
    points = points_of(group.ddim, size)
    shared = pytensor.shared(points, shape=points.shape)
    gradient = pytensor.shared(np.zeros_like(points), shape=points.shape)
    log_density, value, _ = batched_log_density(group.space, shared)
    mode = resolve_backend_compile_kwargs(backend, None)
    evaluate = compile([], log_density, updates={gradient: value}, **mode)
    return lambda: np.asarray(evaluate()).size > 0


def make_reference(model, size):
    """JAX alone, from PyMC's translation of the log density of one point."""
    flat = FlatModel(model)
    evaluate = jax.jit(jax.vmap(jax.value_and_grad(flat.log_density())))
    points = jax.device_put(points_of(flat.n_dim, size))
    return lambda: jax.block_until_ready(evaluate(points))[0].size > 0


def time_in_turn(functions):
    """Lowest microseconds of each, a step or a call; each returns how many it was."""
    lowest = dict.fromkeys(functions, np.inf)
    for function in functions.values():
        function()  # compiles
        function()
    for _ in range(ROUNDS):
        for name, function in functions.items():
            time.sleep(PAUSE_SECONDS)
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < ROUND_SECONDS:
                calls += function()
            lowest[name] = min(lowest[name], 1e6 * elapsed / calls)
    return lowest


def measure(name, size, backend):
    model = STEP_TIME[name]()
    functions = {
        "reference": make_reference(model, size),
        "batched": make_batched(model, size, backend),
        "paper": make_steps(model, "paper", size, backend),
        "default": make_steps(model, "default", size, backend),
    }
    lowest = time_in_turn(functions)
    record = {"model": name, "K": size[0], "B": size[1], "backend": backend}
    record |= {f"{key}_us": round(value, 1) for key, value in lowest.items()}
    for key in ("batched", "paper", "default"):
        record[f"{key}_ratio"] = round(lowest[key] / lowest["reference"], 2)
    return record


def main():
    command = parser(__doc__, seeds=1)
    command.add_argument("--sizes", nargs="+", default=SIZES)
    arguments = command.parse_args()
    records = []
    for name in chosen(STEP_TIME, arguments.only):
        for size in arguments.sizes:
            records.append(measure(name, tuple(map(int, size.split("x"))), arguments.backend))
            print(records[-1], flush=True)
    settings = {"rounds": ROUNDS, "steps": STEPS}
    save("step_time", settings, key=("backend", "model", "K"), time=records)


if __name__ == "__main__":
    main()
