"""What one step costs, beside the gradients of the model that it needs.

    python benchmarks/step_time.py [--backend jax]
    OPENBLAS_NUM_THREADS=1 python benchmarks/step_time.py

Microseconds a step of K x B draws, against one batched evaluation of the model's log density and
gradient at as many fixed points with the same backend. What is left is the mixture's own share.
Peak memory is what a step adds to the resident size, in a process of its own (Linux only).
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import pytensor
from measure import save
from pymc.pytensorf import compile
from pymc.variational.inference import resolve_backend_compile_kwargs
from regressions import breast_cancer
from rich.console import Console
from rich.table import Table
from targets import planted

import pymc_isomix as pmi
from pymc_isomix.batching import batched_log_density

SIZES = ((10, 10), (50, 10), (200, 10))
LARGEST = SIZES[-1]
ROUNDS, ROUND_SECONDS = 9, 0.3
PAUSE_SECONDS = 0.1  # between functions: the threads of a BLAS spin on for a while after a call
BLAS_THREADS = os.environ.get("OPENBLAS_NUM_THREADS")
KINDS = {"paper": "identity metric, uniform weights", "default": "dense metric, learned weights"}
POSTERIORS = {"logistic, d = 30": breast_cancer(), "planted, d = 20": planted(20, 5)}


def make_inference(model, kind, n_components, n_samples):
    if kind == "paper":
        return pmi.IsoMix.paper(
            n_components, n_samples=n_samples, step_size=0.003, random_seed=0, model=model
        )
    return pmi.IsoMix(n_components, n_samples=n_samples, random_seed=0, model=model)


def make_step(model, kind, size, backend):
    """One compiled step of the fit."""
    objective = make_inference(model, kind, *size).objective
    return objective.step_function(compile_kwargs=resolve_backend_compile_kwargs(backend, None))


def make_gradient(model, size, backend):
    """The model alone at K B fixed points; the gradient stays where the backend leaves it."""
    group = make_inference(model, "paper", *size).approx.groups[0]
    shape = (size[0] * size[1], group.ddim)
    points = pytensor.shared(np.random.default_rng(0).normal(size=shape), shape=shape)
    gradient = pytensor.shared(np.zeros(shape), shape=shape)
    log_density, value = batched_log_density(group.model, group.ordering, points)
    mode = resolve_backend_compile_kwargs(backend, None)
    return compile([], log_density, updates={gradient: value}, **(mode or {}))


def time_in_turn(functions):
    """Microseconds a call, one a round; the functions take turns, so that all see one machine."""
    blocks = [[] for _ in functions]
    for function in functions:
        np.asarray(function())  # JAX compiles at the first call
    for _ in range(ROUNDS):
        for function, block in zip(functions, blocks, strict=True):
            time.sleep(PAUSE_SECONDS)
            calls, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < ROUND_SECONDS or calls < 3:
                np.asarray(function())  # waits for the result
                calls += 1
            block.append(1e6 * elapsed / calls)
    return blocks


def time_posterior(name, size, backend):
    model = POSTERIORS[name].model()
    functions = [make_gradient(model, size, backend)]
    functions += [make_step(model, kind, size, backend) for kind in KINDS]
    gradient, *steps = time_in_turn(functions)
    record = {"posterior": name, "K": size[0], "B": size[1], "gradient_us": quantiles(gradient)}
    for kind, step in zip(KINDS, steps, strict=True):
        share = np.median(1 - np.array(gradient) / np.array(step))
        lowest = 1 - min(gradient) / min(step)
        record[kind] = {
            "step_us": quantiles(step),
            "share": round(float(lowest), 3),
            "share_median_of_rounds": round(float(share), 3),
        }
    return record


def quantiles(microseconds):
    return {
        "lowest": round(min(microseconds), 1),
        "median": round(float(np.median(microseconds)), 1),
    }


def resident_kib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))


def added_memory(name, what, backend):
    """MiB by which 20 calls raise the resident size at their peak."""
    model = POSTERIORS[name].model()
    if what == "gradient":
        function = make_gradient(model, LARGEST, backend)
    else:
        function = make_step(model, what, LARGEST, backend)
    np.asarray(function())
    before = resident_kib("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")  # the peak starts again from here
    for _ in range(20):
        np.asarray(function())
    return (resident_kib("VmHWM") - before) / 1024


def measure_memory(name, backend):
    """Peak memory in fresh processes, whose allocator returns large arrays at once."""
    record = {"posterior": name, "K": LARGEST[0], "B": LARGEST[1]}
    for what in ("gradient", *KINDS):
        command = [sys.executable, __file__, "--backend", backend, "--memory-of", name, what]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        answer = subprocess.run(command, env=environment, capture_output=True, check=True)
        record[f"{what}_mib"] = round(json.loads(answer.stdout), 1)
    n_components, n_samples = LARGEST
    n_draws, n_dim = n_components * n_samples, POSTERIORS[name].n_dim
    record["pairwise_mib"] = round(n_draws * n_components * n_dim * 8 / 2**20, 1)
    record["order_mib"] = round(n_draws * (n_dim + n_components) * 8 / 2**20, 1)
    return record


def time_table(records, backend):
    table = Table(
        title=f"Microseconds, backend {backend}, BLAS threads {BLAS_THREADS or 'as they come'}: "
        f"lowest of {ROUNDS} rounds (median)",
        caption="share: what the step takes beyond the model's own gradients",
    )
    columns = ("posterior", "K x B", "gradients", *(c for k in KINDS for c in (k, "share")))
    for heading in columns:
        table.add_column(heading, justify="right")
    for record in records:
        cells = [record["posterior"], f"{record['K']} x {record['B']}"]
        cells.append("{lowest:.0f} ({median:.0f})".format(**record["gradient_us"]))
        for kind in KINDS:
            cells.append("{lowest:.0f} ({median:.0f})".format(**record[kind]["step_us"]))
            cells.append(f"{record[kind]['share']:.0%}")
        table.add_row(*cells)
    return table


def memory_table(records):
    table = Table(title="Peak MiB added at {} x {}".format(*LARGEST))
    for heading in ("posterior", "gradients", *KINDS, "S (d + K)", "an (S, K, d) array"):
        table.add_column(heading, justify="right")
    keys = ("gradient_mib", *(f"{kind}_mib" for kind in KINDS), "order_mib", "pairwise_mib")
    for record in records:
        table.add_row(record["posterior"], *(f"{record[key]:.1f}" for key in keys))
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="jax", choices=("jax", "numba", "c"))
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # said at every compilation: the generator is copied into the compiled function
    warnings.filterwarnings("ignore", "The RandomType SharedVariables")
    if options.memory_of:
        print(added_memory(*options.memory_of, options.backend))
        return
    console = Console(width=140)
    times = []
    for name in POSTERIORS:
        for size in SIZES:
            console.log(name, size)
            times.append(time_posterior(name, size, options.backend))
    memory = [measure_memory(name, options.backend) for name in POSTERIORS]
    settings = {
        "backend": options.backend,
        "openblas_threads": BLAS_THREADS,
        "kinds": KINDS,
        "rounds": ROUNDS,
        "round_seconds": ROUND_SECONDS,
    }
    suffix = "" if BLAS_THREADS is None else f"_blas_{BLAS_THREADS}"
    save(f"step_time_{options.backend}{suffix}", settings, time=times, memory=memory)
    console.print(time_table(times, options.backend))
    console.print(memory_table(memory))


if __name__ == "__main__":
    main()
