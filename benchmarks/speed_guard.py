"""Whether a change made the steps slower: six cases, each a ratio to a baseline of the same run.

    python -m pytest benchmarks/speed_guard.py -m "" --benchmark-group-by=group

pytest-benchmark prints each case beside its baseline; the last test of a case fails where their
ratio is above 1.3 times the recorded one. Run by hand, on a quiet machine: no timed test is in CI.
"""

import time

import numpy as np
import pymc as pm
import pytest
from step_time import STEPS, make_reference, make_steps
from workloads import STEP_TIME, hierarchical

import pymc_isomix as pmi
from pymc_isomix.fitting.steppers import Looped

TOLERANCE = 1.3
ROUNDS = 20  # of so many steps or calls as one call takes
# of a step of IsoMix(K) to jit(vmap(value_and_grad)) at as many points; of its first to ADVI's
RECORDED = {
    ("logistic 500 x 20", (10, 10)): 1.1,
    ("logistic 500 x 20", (50, 10)): 1.3,
    ("hierarchical, 1000 groups", (10, 10)): 1.4,
    ("planted, d = 20", (50, 10)): 3.1,
    ("planted, d = 200", (10, 10)): 9.5,
}
COLD_START = 1.5
ids = [f"{name}, {K} x {B}" for name, (K, B) in RECORDED]

pytestmark = pytest.mark.filterwarnings("ignore:The RandomType SharedVariables")


@pytest.mark.parametrize("case", list(RECORDED), ids=ids)
class TestStep:
    lowest: dict = {}  # noqa: RUF012 - shared by the tests of a case

    def test_baseline(self, benchmark, case):
        name, size = case
        benchmark.group = str(case)
        evaluate = make_reference(STEP_TIME[name](), size)
        evaluate()
        benchmark.pedantic(evaluate, rounds=ROUNDS, iterations=STEPS, warmup_rounds=1)
        self.lowest[case, "baseline"] = benchmark.stats.stats.min

    def test_step(self, benchmark, case):
        name, size = case
        benchmark.group = str(case)
        take = make_steps(STEP_TIME[name](), "default", size, "jax")
        take()
        n_steps = take()
        benchmark.pedantic(take, rounds=ROUNDS, warmup_rounds=1)
        self.lowest[case, "step"] = benchmark.stats.stats.min / n_steps

    def test_ratio(self, case):
        ratio = self.lowest[case, "step"] / self.lowest[case, "baseline"]
        print(f"{case}: {ratio:.2f}, recorded {RECORDED[case]:.2f}")
        assert ratio < TOLERANCE * RECORDED[case]


def first_step(inference):
    """Seconds to build and compile a step, and to take it."""
    start = time.perf_counter()
    function = inference.objective.step_function(score=True, compile_kwargs={"mode": "JAX"})
    if isinstance(inference, pmi.IsoMix):
        Looped(function, inference.objective.op).take(np.array([0.1]))
    else:
        function()
    return time.perf_counter() - start


def test_cold_start():
    """Both compile in this process, the first time for neither."""
    first_step(pm.ADVI(model=hierarchical(3)))
    seconds = {"ADVI": [], "IsoMix": []}
    for n_groups in (5, 6, 7):  # new shapes: XLA compiles anew
        seconds["ADVI"].append(first_step(pm.ADVI(model=hierarchical(n_groups))))
        seconds["IsoMix"].append(first_step(pmi.IsoMix(model=hierarchical(n_groups))))
    ratio = np.median(seconds["IsoMix"]) / np.median(seconds["ADVI"])
    print(f"first step, beside ADVI's: {ratio:.2f}, recorded {COLD_START:.2f}")
    assert ratio < TOLERANCE * COLD_START
