"""The table of components, and its labels."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr

from pymc_isomix import IsotropicMixture

METRICS = {0: np.ones(()), 1: np.array([1.0, 2.0, 3.0, 0.5]), 2: np.tril(np.full((4, 4), 0.5))}


@pytest.fixture(scope="module")
def model():
    with pm.Model(coords={"term": ["Intercept", "slope"]}) as model:
        pm.Normal("beta", dims="term")
        pm.HalfNormal("tau")
        pm.Normal("plain", shape=1)
    return model


def approximation(model, metric, means=None, weights=(0.5, 0.3, 0.2), variances=(1.0, 1.0, 4.0)):
    if means is None:
        means = [[0.0, 0, 0, 0], [0.0, 0, 0, 0.1], [30.0, 0, 1, 0]]
    params = {
        "means": np.array(means, dtype=float),
        "log_variances": np.log(variances),
        "log_weights": np.log(weights),
        "metric": metric,
    }
    return IsotropicMixture(params=params, model=model, random_seed=1)


@pytest.mark.parametrize("ndim", METRICS)
def test_columns(model, ndim):
    approx = approximation(model, METRICS[ndim])
    table = approx.sample(2000, random_seed=1).isomix
    assert list(table.unconstrained.values) == [
        "beta[Intercept]",
        "beta[slope]",
        "tau_log__",
        "plain[0]",
    ]
    np.testing.assert_allclose(table["weight"], [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(table["unconstrained_mean"][2], [30.0, 0, 1, 0])
    covariance = {0: np.eye(4), 1: np.diag(METRICS[1] ** 2), 2: METRICS[2] @ METRICS[2].T}[ndim]
    np.testing.assert_allclose(table["unconstrained_sd"][2] ** 2, 4 * np.diag(covariance))
    np.testing.assert_array_equal(table["metric"], METRICS[ndim])
    assert table["metric"].dims == ("unconstrained", "unconstrained_bis")[:ndim]
    # 2000 draws, four standard errors
    mass = table["responsibility_mass"]
    np.testing.assert_allclose(mass, [0.5, 0.3, 0.2], atol=4 * 0.5 / np.sqrt(2000))
    assert float(table["evidence_share"].sum()) == pytest.approx(1.0)
    assert float(table["evidence_share"][2]) < 1e-6  # at beta = 30 the model has no mass


def test_model_space_is_the_image_of_the_mean(model):
    table = approximation(model, METRICS[0]).sample(50).isomix
    assert table["beta"].dims == ("component", "term")
    assert list(table["term"].values) == ["Intercept", "slope"]
    np.testing.assert_array_equal(table["beta"].sel(component=2), [30.0, 0.0])
    np.testing.assert_allclose(table["tau"], np.exp([0.0, 0.0, 1.0]))
    assert table["plain"].dims == ("component", "plain_dim_0")


def test_neighbours_and_duplicates(model):
    table = approximation(model, METRICS[0]).sample(50).isomix
    assert table["nearest_component"].values.tolist()[:2] == [1, 0]
    np.testing.assert_allclose(table["nearest_distance"][:2], 0.1)
    # to the mean of equal distances, in standard deviations pooled from 1 and 2
    expected = np.sqrt((30**2 + 1) / 2.5)
    assert table["nearest_distance"].values[2] == pytest.approx(expected, rel=1e-4)
    assert table["duplicate"].values.tolist() == [False, True, False]  # of the heavier one
    assert table["dead"].values.tolist() == [False] * 3
    assert table["mode"].values.tolist() == [0, 0, 1]


def test_dead_component(model):
    table = approximation(model, METRICS[0], weights=[0.6, 0.4 - 1e-9, 1e-9]).sample(50).isomix
    assert table["dead"].values.tolist() == [False, False, True]


def test_one_component(model):
    approx = approximation(model, METRICS[0], [[0.0, 0, 0, 0]], [1.0], [1.0])
    table = approx.sample(50).isomix
    assert table["nearest_component"].values.tolist() == [-1]
    assert np.isnan(table["nearest_distance"].values).all()
    assert table["duplicate"].values.tolist() == [False]


def test_names_that_the_model_uses():
    with pm.Model(coords={"component": ["a", "b"]}) as model:
        pm.Normal("weight", dims="component")
        pm.Normal("mode")
    table = IsotropicMixture(n_components=3, model=model, random_seed=1).sample(30).isomix
    assert table["weight"].dims == ("isomix_component", "component")
    assert table["isomix_weight"].dims == ("isomix_component",)
    assert table["mode"].dtype == float
    assert table["isomix_mode"].dtype.kind == "i"


def test_labels_where_a_transform_changes_the_shape():
    coords = {"part": ["a", "b", "c"], "row": ["x", "y"]}
    with pm.Model(coords=coords) as model:
        pm.Dirichlet("share", np.ones(3), dims="part")
        pm.Normal("table", dims=("row", "part"))
    approx = IsotropicMixture(model=model, random_seed=1)
    labels = list(approx.space.labels)
    assert labels[:2] == ["share_simplex__[0]", "share_simplex__[1]"]
    assert labels[2:] == [f"table[{row}, {part}]" for row in "xy" for part in "abc"]


@pytest.mark.parametrize("write", ["netcdf", "zarr"])
def test_every_group_survives_a_file(model, tmp_path, write):
    draws = approximation(model, METRICS[2]).sample(50, random_seed=1)
    path = tmp_path / "draws"
    getattr(draws, f"to_{write}")(path)
    with xr.open_datatree(path, engine="zarr" if write == "zarr" else None) as read:
        for group in ("posterior", "sample_stats", "isomix", "diagnostics"):
            xr.testing.assert_equal(read[group].to_dataset(), draws[group].to_dataset())
            for name, column in draws[group].data_vars.items():
                assert read[group][name].dtype == column.dtype, name
        assert read["diagnostics"].attrs == draws["diagnostics"].attrs


def test_two_thousand_dimensions_export_no_square_array():
    with pm.Model() as model:
        pm.Normal("x", shape=2000)
    approx = IsotropicMixture(n_components=3, metric="diag", model=model, random_seed=1)
    draws = approx.sample(30, random_seed=1)
    sizes = [c.size for group in draws.children.values() for c in group.data_vars.values()]
    assert max(sizes) == 30 * 2000  # the draws themselves
    assert draws.isomix.sizes["component"] == 3
    assert approx.diagnostics(50).verdict in ("doubtful", "bad")


@pytest.mark.parametrize("ndim", METRICS)
def test_columns_of_diagonal_components(model, ndim):
    variances = np.array([[1, 1, 1, 1], [1, 1, 1, 1.1], [0.5, 2, 3, 4.0]])
    approx = approximation(model, METRICS[ndim], variances=variances)
    table = approx.sample(20, random_seed=1).isomix
    assert table["log_variance"].dims == ("component", "unconstrained")
    np.testing.assert_allclose(np.exp(table["log_variance"]), variances)
    root = METRICS[ndim] if ndim == 2 else METRICS[ndim] * np.eye(4)
    expected = [np.diag(root @ np.diag(eps) @ root.T) for eps in variances]
    np.testing.assert_allclose(table["unconstrained_sd"] ** 2, expected)
    np.testing.assert_array_equal(table["duplicate"], [False, True, False])
    offset = np.linalg.solve(root, [0, 0, 0, 0.1])
    distance = np.sqrt((offset**2 / variances[:2].mean(axis=0)).sum())
    np.testing.assert_allclose(table["nearest_distance"][:2], distance)
