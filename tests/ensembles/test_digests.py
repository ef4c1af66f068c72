"""A digest tells graphs apart, and is the same in another process."""

import os
import subprocess
import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.ensembles.digests import digest_of


def test_a_digest_tells_graphs_apart():
    x, y = pt.vector("x"), pt.vector("y")

    def of(*outputs, inputs=(x, y)):
        return digest_of(list(inputs), list(outputs))[0]

    graphs = [
        of(x + y),
        of(x - y),
        of(x - y, inputs=(y, x)),
        of(x + y, x),
        of(x, x + y),
        of(x + x),
        of(x + 1),
        of(x + 2),
        of(x + np.ones(1)),
        of(x + np.zeros((1, 1))),
        of(x.sum()),
        of(x.sum(keepdims=True)),
        of(pt.vector(dtype="float32") + y),
        of(x + pytensor.shared(np.ones(1))),
        of(x + pytensor.shared(np.ones(1), shape=(1,))),
    ]
    assert len(set(graphs)) == len(graphs)
    assert of(x + y) == graphs[0]


class Own(pytensor.scalar.Exp):
    """An Op of a user's own, whose code may change."""


def test_what_is_of_unknown_code_has_no_digest():
    x = pt.vector("x", shape=(2,))
    op = pt.elemwise.Elemwise(Own(pytensor.scalar.upgrade_to_float, name="own"))
    digest, roots = digest_of([x], [op(x) + pytensor.shared(1.0)])
    assert digest is None
    assert len(roots) == 2


OF_A_STEP = """
import pymc as pm
from pymc_isomix import IsoMix
from pymc_isomix.ensembles.digests import digest_of

with pm.Model():
    theta = pm.Normal("theta", 0.0, pm.HalfNormal("scale", 2.0), shape=3)
    pm.Normal("y", theta, 1.0, observed=[3.0, 1.0, -1.0])
    updates = IsoMix(3, random_seed=1).objective.updates()
print(digest_of(list(updates), [updates.loss, *updates.values()])[0].hex())
"""


@pytest.mark.slow
def test_another_process_has_the_same_digest():
    command = [sys.executable, "-c", OF_A_STEP]
    told = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
