"""The published models of the benchmarks: each builds and has a finite density at its start."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pytensor.compile.mode import get_mode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
pytest.importorskip("statsmodels")

from published import GROUPS, MODELS

# more terms in one sum than Python's Elemwise takes
BY_JAX = ("hierarchical bvar",)
QUICK = ("eight schools", "wells", "coal mining", "cox", "capture-recapture, mtb")


def check(name):
    """Build a model, and evaluate its log density and gradient at its initial point."""
    entry = MODELS[name]
    model = entry.build()
    names = {v.name for v in (*model.free_RVs, *model.deterministics)}
    assert set(entry.report) <= names
    mode = "JAX" if name in BY_JAX else get_mode("FAST_COMPILE").excluding("fusion")
    function = model.logp_dlogp_function(ravel_inputs=True, mode=mode)
    start = model.initial_point(0)
    point = np.concatenate([np.ravel(start[v.name]) for v in model.value_vars])
    log_density, gradient = function(point)
    assert np.isfinite(log_density)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_at_least_sixty_with_sources():
    assert len(MODELS) >= 60
    assert len({entry.slug for entry in MODELS.values()}) == len(MODELS)
    assert {entry.group for entry in MODELS.values()} == {g.replace("_", " ") for g in GROUPS}
    assert all(": " in entry.source for entry in MODELS.values())


@pytest.mark.parametrize("name", QUICK)
def test_starts_finite(name):
    check(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in QUICK])
def test_starts_finite_of_all(name):
    if "Bambi" in MODELS[name].source or name == "poisson regression":
        pytest.importorskip("bambi")
    check(name)
