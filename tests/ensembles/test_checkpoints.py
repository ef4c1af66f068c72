"""What a folder of checkpoints knows of its model."""

import numpy as np
import pymc as pm
import pytensor
import pytest

from pymc_isomix.ensembles.checkpoints import digests

ROWS = np.arange(50.0)
OTHER = ROWS + (np.arange(50) == 25)


def line(rows):
    pm.Normal("y", pm.Normal("x") * rows, observed=ROWS)


def with_an_inner_graph(rows):
    """Numbers that only the graph inside a scan holds."""
    end = pytensor.scan(
        lambda x: (x * rows).mean(), outputs_info=[pm.Normal("x")], n_steps=3, return_updates=False
    )
    pm.Potential("end", -(end**2).sum())


@pytest.mark.parametrize("build", [line, with_an_inner_graph])
def test_other_numbers_are_another_model(build):
    found = []
    for rows in (ROWS, ROWS.copy(), OTHER):
        with pm.Model() as model:
            build(rows)
        found.append(digests(model))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_another_axis_is_another_model():
    found = []
    for axis in (0, 1):
        with pm.Model() as model:
            pm.Potential("p", -(pm.Normal("x", shape=(3, 3)).sum(axis=axis) ** 2).sum())
        found.append(digests(model))
    assert found[0]["model"] != found[1]["model"]
    assert found[0]["data"] == found[1]["data"]
