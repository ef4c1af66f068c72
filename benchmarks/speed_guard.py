"""Whether a change made the steps slower: ratios to a baseline that is measured in turn.

    python -m pytest benchmarks/speed_guard.py -m "" -s

A case fails where its ratio is above 1.3 times the recorded one. Run by hand, on a quiet machine:
no timed test is in CI, and a failure asks for another run.
"""

import time

import numpy as np
import pymc as pm
import pytest
from problems.workloads import STEP_TIME, hierarchical
from step_time import make_reference, make_steps, time_in_turn

import pymc_isomix as pmi
from pymc_isomix.backend import jax_compilation

TOLERANCE = 1.3
# of a step of IsoMix(K) to jit(vmap(value_and_grad)) at as many points; of its first to ADVI's
RECORDED = {
    ("logistic 500 x 20", (10, 10)): 1.1,
    ("logistic 500 x 20", (50, 10)): 1.3,
    ("hierarchical, 1000 groups", (10, 10)): 2.9,  # in the coordinates of its sites
    ("planted, d = 20", (50, 10)): 3.1,
    ("planted, d = 200", (10, 10)): 9.5,
}
COLD_START = 2.4  # what judges the fit is compiled by then, too

pytestmark = pytest.mark.filterwarnings("ignore:The RandomType SharedVariables")


def check(ratio, recorded, what):
    print(f"{what}: {ratio:.2f}, recorded {recorded:.2f}")
    assert ratio < TOLERANCE * recorded


@pytest.mark.parametrize("case", list(RECORDED), ids=str)
def test_step(case):
    name, size = case
    model = STEP_TIME[name]()
    lowest = time_in_turn(
        {
            "reference": make_reference(model, size),
            "step": make_steps(model, "default", size, "jax"),
        }
    )
    check(lowest["step"] / lowest["reference"], RECORDED[case], name)


def first_step(method, n_groups):
    """Seconds of a fit of one step, compilation included."""
    start = time.perf_counter()
    with hierarchical(n_groups):
        pm.fit(1, method=method, backend="jax", progressbar=False)
    return time.perf_counter() - start


def test_cold_start(monkeypatch, tmp_path):
    """Both compile in this process, the first time for neither; XLA's part may be on the disk."""
    monkeypatch.setattr(jax_compilation, "folder", lambda: tmp_path)
    first_step("advi", 3)
    seconds = {"advi": [], "isomix": []}
    for n_groups in (5, 6, 7):  # new shapes: XLA compiles anew
        seconds["advi"].append(first_step("advi", n_groups))
        start = time.perf_counter()
        pmi.IsoMix(model=hierarchical(n_groups)).fit(1, backend="jax", progressbar=False)
        seconds["isomix"].append(time.perf_counter() - start)
    ratio = np.median(seconds["isomix"]) / np.median(seconds["advi"])
    check(ratio, COLD_START, "first step, beside ADVI's")
