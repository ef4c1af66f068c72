"""Time and peak memory of a step against components, dimensions and rows (Linux only).

    python benchmarks/scaling.py [--only components dimensions dense rows minibatch]

Each case runs in a process of its own: milliseconds a step, and the peak resident memory of the
process less that of one which has imported the same packages and compiled a tiny model. Slopes are
of log time on log size, between neighbours.
"""

import json
import time
from itertools import pairwise

import numpy as np
from measure import chosen, in_own_process, parser, peak_mib, save

CASES = {
    "components": [{"K": K, "d": 100} for K in (1, 10, 100, 1000)],
    "dimensions": [{"K": 10, "d": d} for d in (10, 100, 1000, 10_000, 100_000)],
    "dense": [{"d": d, "K": 50, "metric": "dense"} for d in (10, 100, 300, 500, 1000)],
    "rows": [{"rows": rows, "K": 10} for rows in (1000, 10_000, 100_000)],
    "minibatch": [{"rows": rows, "K": 10, "batch": 500} for rows in (1000, 100_000, 1_000_000)],
}
VARIED = {"components": "K", "dimensions": "d", "dense": "d"}
CALLS, CALL_SECONDS = 5, 0.3
N_SAMPLES = 5


def size_of(case):
    """Dimensions or rows."""
    return next(case[key] for key in ("rows", "d") if key in case)


def build(case):
    """Model of a case."""
    from problems import workloads

    if "rows" in case:
        return workloads.logistic(case["rows"], 20, batch_size=case.get("batch"))
    return workloads.independent(case["d"])


def run_case(case):
    """Milliseconds a step, lowest of a few calls, seconds to compile, and MiB."""
    from problems.workloads import independent

    import pymc_isomix as pmi
    from pymc_isomix.backend.compilation import one_blas_thread
    from pymc_isomix.fitting.steppers import stepper

    def prepare(model, n_components, metric="diag"):
        inference = pmi.IsoMix(
            n_components, n_samples=N_SAMPLES, metric=metric, random_seed=0, model=model
        )
        function = inference.objective.step_function(compile_kwargs={"mode": "JAX"})
        return stepper(function, inference.objective.op)

    prepare(independent(2), 1).take(np.array([1e-3]))
    before, model = peak_mib(), build(case)
    start = time.perf_counter()
    metric = case.get("metric", "diag" if "d" in case else "auto")
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


def with_slopes(records, varied):
    """Growth of the time from case to case."""
    records[0]["slope"] = ""
    for before, record in pairwise(records):
        growth = np.log(record["step_ms"] / before["step_ms"])
        record["slope"] = round(float(growth / np.log(record[varied] / before[varied])), 2)
    return records


def main():
    arguments = parser(__doc__).parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case)))
        return
    records = []
    for name in chosen(CASES, arguments.only):
        found = [case | in_own_process(__file__, case) for case in CASES[name]]
        varied = VARIED.get(name, "rows")
        records += with_slopes([{"varied": name, "size": size_of(r), **r} for r in found], varied)
    save("scaling", {"n_samples": N_SAMPLES, "calls": CALLS}, key=("varied",), cases=records)


if __name__ == "__main__":
    main()
