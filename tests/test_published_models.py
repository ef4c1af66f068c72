"""The published models of the benchmarks: each builds and has a finite density at its start."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pytensor.compile.mode import get_mode

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
pytest.importorskip("statsmodels")

import published_models
import published_rows
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


def test_distance_of_shifted_and_widened_draws():
    draws = np.random.default_rng(1).normal(5, 3, (4, 1000, 3))
    kept = published_models.summarise(["same", "shifted", "wide"], draws)
    moved = draws.copy()
    moved[..., 1] += 0.5 * draws[..., 1].std()
    moved[..., 2] = 1.5 * (moved[..., 2] - 5) + 5
    found = published_models.compare(kept, ["same", "shifted", "wide"], moved)
    # a spread is that of the quantiles, which leave out a little of the tails
    assert found["w1_of"] == "shifted"
    assert found["w1_max"] == pytest.approx(0.5, rel=0.03)
    assert found["width_of"] == "wide"
    assert found["width"] == pytest.approx(1.5, rel=0.01)
    same = published_models.compare(kept, ["same", "shifted", "wide"], draws)
    assert same["w1_max"] < 0.005
    assert same["width"] == pytest.approx(1, abs=0.01)


def test_constants_are_not_compared():
    draws = np.stack([np.zeros((4, 100)), np.random.default_rng(2).normal(size=(4, 100))], -1)
    assert list(published_models.summarise(["constant", "x"], draws)) == ["x"]


def test_quantities_are_spread_over_variables():
    rng = np.random.default_rng(3)
    sizes = {"scalar": (), "vector": (200,), "matrix": (30, 30), "few": (3,)}
    data = {
        name: (
            ("chain", "draw", *(f"{name}_{i}" for i in range(len(shape)))),
            rng.normal(size=(2, 5, *shape)),
        )
        for name, shape in sizes.items()
    }
    posterior = xr.Dataset(data)
    labels, draws = published_models.quantities(posterior)
    counts = {name: sum(label.split("[")[0] == name for label in labels) for name in sizes}
    assert counts == {"scalar": 1, "few": 3, "vector": 13, "matrix": 13}
    assert draws.shape == (2, 5, published_models.MOST)
    assert {"vector[0]", "vector[199]", "matrix[29,29]"} <= set(labels)
    at = labels.index("matrix[29,29]")
    np.testing.assert_array_equal(draws[..., at], posterior["matrix"][..., 29, 29])
    assert published_models.quantities(posterior, ("few",))[0] == ["few[0]", "few[1]", "few[2]"]


def test_summary_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(published_rows, "RESULTS", tmp_path)
    (tmp_path / "published").mkdir()
    near = {"w1_max": 0.05, "width": 1.02, "verdict": "good", "cpu": 10}
    far = {"w1_max": 0.6, "width": 0.7, "cpu": 90}
    fits = [
        near | {"model": "right"},
        far | {"model": "told", "verdict": "bad", "advice": "it is far | off"},
        far | {"model": "silent", "verdict": "good", "w1_of": "x", "width_of": "y"},
        near | {"model": "beside", "w1_max": 0.15, "w1_of": "x", "width_of": "y"},
        near | {"model": "no reference"},
        {"model": "broken", "error": "ValueError: no"},
    ]
    nuts = {"rhat": 1.0, "ess": 900, "divergences": 0, "cpu": 50, "quantities": {}}
    for name in ("right", "told", "silent", "beside", "broken"):
        record = {"model": name} | nuts
        (tmp_path / "published" / f"{name}.json").write_text(json.dumps(record))
    diverging = {"model": "no reference"} | nuts | {"rhat": 1.4}
    (tmp_path / "published" / "no_reference.json").write_text(json.dumps(diverging))
    result = {"fits": [{"group": "one"} | fit for fit in fits]}
    _, rows = published_rows.summary(result)
    assert [value.partition(" (")[0] for _, value in rows] == [
        *("5 of 6", "5 of 6", "1 of 5", "2 of 5", "3 of 4", "3 of 5")
    ]
    _, rows = published_rows.failures(result)
    assert [row[:2] for row in rows] == [
        ["told (one)", "bad"],
        ["silent (one)", "good, but wrong"],
        ["beside (one)", "good, beside the goal"],
        ["broken (one)", "no verdict"],
    ]
    assert "|" not in rows[0][2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MODELS if name not in QUICK])
def test_starts_finite_of_all(name):
    if "Bambi" in MODELS[name].source or name == "poisson regression":
        pytest.importorskip("bambi")
    check(name)
