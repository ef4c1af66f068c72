"""Time and peak memory of a step against components, dimensions and rows (Linux only).

    python benchmarks/scaling.py [--cases components dimensions rows minibatch network]

Each case runs in a process of its own: milliseconds a step, and the peak resident memory of the
process less that of one which has imported the same packages and compiled a tiny model. Slopes are
of log time on log size, between neighbours.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from itertools import pairwise

import numpy as np
from measure import save
from rich.console import Console
from rich.table import Table

CASES = {
    "components": [{"K": K, "d": 100} for K in (1, 10, 100, 1000)],
    "dimensions": [{"K": 10, "d": d} for d in (10, 100, 1000, 10_000, 100_000)],
    "rows": [{"K": 10, "rows": rows} for rows in (1000, 10_000, 100_000)],
    "minibatch": [{"K": 10, "rows": rows, "batch": 500} for rows in (1000, 100_000, 1_000_000)],
    "network": [{"K": K, "hidden": 50} for K in (1, 10, 50)],
}
VARIED = {"components": "K", "dimensions": "d", "rows": "rows", "minibatch": "rows", "network": "K"}
CALLS, CALL_SECONDS = 5, 0.3


def build(case):
    import workloads

    if "hidden" in case:
        return workloads.neural_network(case["hidden"])
    if "rows" in case:
        return workloads.logistic(case["rows"], 20, batch_size=case.get("batch"))
    return workloads.independent(case["d"])


def peak_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def run_case(case):
    """Milliseconds a step, lowest of a few calls, seconds to compile, and MiB."""
    import pymc_isomix as pmi
    from pymc_isomix.fitting.steppers import one_blas_thread, stepper

    def prepare(model, n_components, metric="diag"):
        inference = pmi.IsoMix(n_components, n_samples=5, metric=metric, random_seed=0, model=model)
        function = inference.objective.step_function(compile_kwargs={"mode": "JAX"})
        return stepper(function, inference.objective.op)

    import workloads

    prepare(workloads.independent(2), 1).take(np.array([1e-3]))
    before = peak_mib()
    model = build(case)
    metric = "diag" if "d" in case else "auto"
    start = time.perf_counter()
    steps = prepare(model, case["K"], metric)
    compiled = time.perf_counter() - start
    lowest = np.inf
    with one_blas_thread():
        steps.take(np.array([1e-3]))
        for _ in range(CALLS):
            begun, taken = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - begun) < CALL_SECONDS:
                taken += len(steps.take(np.full(steps.most, 1e-3))[0])
            lowest = min(lowest, elapsed / taken)
    return {
        "step_ms": round(1e3 * lowest, 3),
        "compile_s": round(compiled, 1),
        "peak_mib": round(peak_mib() - before, 1),
    }


def measure(case):
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    return case | json.loads(answer.stdout.splitlines()[-1])


def with_slopes(records, varied):
    for before, record in pairwise(records):
        growth = np.log(record["step_ms"] / before["step_ms"])
        record["slope"] = round(float(growth / np.log(record[varied] / before[varied])), 2)
    return records


def table_of(name, records):
    table = Table(title=f"{name}: a step of IsoMix(K), B = 5, JAX")
    for heading in (*CASES[name][0], "ms", "slope", "compile, s", "MiB"):
        table.add_column(heading, justify="right")
    for r in records:
        cells = [f"{r[key]:,d}" for key in CASES[name][0]]
        cells += [f"{r['step_ms']:.2f}", f"{r.get('slope', '')}", f"{r['compile_s']:.1f}"]
        table.add_row(*cells, f"{r['peak_mib']:.0f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "The RandomType SharedVariables")
    if options.case:
        print(json.dumps(run_case(options.case)))
        return
    console, tables = Console(width=100), {}
    for name in options.cases:
        tables[name] = with_slopes([measure(case) for case in CASES[name]], VARIED[name])
        console.print(table_of(name, tables[name]))
    save("scaling", {"n_samples": 5, "calls": CALLS}, **tables)


if __name__ == "__main__":
    main()
