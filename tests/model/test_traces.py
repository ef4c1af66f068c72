"""Draws as ArviZ and PyMC take them: groups, labels, pointwise densities, predictions, files."""

import arviz as az
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc.backends.base import MultiTrace
from pymc.model.transform.basic import remove_minibatched_nodes
from scipy import stats

from pymc_isomix import IsotropicMixture
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.model.traces import constrained_draws

FAST_COMPILE = {"mode": "FAST_COMPILE"}
N_OBSERVED = 20
NOISE = 0.5
DRAWS = 4000
INPUT = np.linspace(-1.0, 1.0, N_OBSERVED)
OBSERVED = 1.0 + 2.0 * INPUT + NOISE * np.random.default_rng(1).normal(size=N_OBSERVED)
DESIGN = np.column_stack([np.ones(N_OBSERVED), INPUT])
PRIOR_STD = 3.0


def build_model():
    coords = {"coefficient": ["intercept", "slope"], "observation": np.arange(100, 120)}
    with pm.Model(coords=coords) as model:
        x = pm.Data("x", INPUT, dims="observation")
        y = pm.Data("y_data", OBSERVED, dims="observation")
        beta = pm.Normal("beta", 0.0, PRIOR_STD, dims="coefficient")
        spare = pm.HalfNormal("spare", 1.0)  # not in the likelihood
        mu = pm.Deterministic("mu", beta[0] + beta[1] * x, dims="observation")
        pm.Deterministic("rising", beta > 0, dims="coefficient")
        pm.Deterministic("two", pt.constant(2))
        pm.Deterministic("ratio", beta / spare, dims="coefficient")
        pm.Normal("y", mu, NOISE, observed=y, dims="observation")
    return model


def exact_posterior(rows=slice(None)):
    """Mean and covariance of beta given some of the observations."""
    design, observed = DESIGN[rows], OBSERVED[rows]
    covariance = np.linalg.inv(design.T @ design / NOISE**2 + np.eye(2) / PRIOR_STD**2)
    return covariance @ design.T @ observed / NOISE**2, covariance


@pytest.fixture(scope="module")
def approx():
    """Two equal components at the exact posterior of beta, so that no fit is needed."""
    mean, covariance = exact_posterior()
    metric = np.eye(3)
    metric[:2, :2] = np.linalg.cholesky(covariance)
    params = {
        "means": np.tile([*mean, -0.5], (2, 1)),
        "log_variances": np.zeros(2),
        "log_weights": np.zeros(2),
        "metric": metric,
    }
    return IsotropicMixture(params=params, model=build_model(), random_seed=1)


@pytest.fixture(scope="module")
def draws(approx):
    return approx.sample(DRAWS, random_seed=1)


# Groups and labels


def test_groups_dims_and_coords(draws):
    assert {"posterior", "observed_data", "constant_data"} <= set(draws.children)
    posterior = draws.posterior
    assert posterior.sizes == {"chain": 1, "draw": DRAWS, "coefficient": 2, "observation": 20}
    assert posterior["beta"].dims == ("chain", "draw", "coefficient")
    assert posterior["spare"].dims == ("chain", "draw")
    assert posterior["mu"].dims == ("chain", "draw", "observation")
    assert list(posterior.coords["coefficient"].values) == ["intercept", "slope"]
    np.testing.assert_array_equal(posterior.coords["observation"], np.arange(100, 120))
    xr.testing.assert_equal(
        draws.observed_data["y"].drop_vars("observation"),
        xr.DataArray(OBSERVED, dims="observation"),
    )
    np.testing.assert_array_equal(draws.constant_data["x"], INPUT)
    assert posterior.attrs["inference_library"] == "pymc"


def test_deterministics_are_those_of_each_draw(draws):
    posterior = draws.posterior
    beta, spare = posterior["beta"].values, posterior["spare"].values
    np.testing.assert_allclose(posterior["mu"], beta @ DESIGN.T, atol=1e-12)
    np.testing.assert_allclose(posterior["ratio"], beta / spare[..., None], rtol=1e-12)
    np.testing.assert_array_equal(posterior["rising"], beta > 0)
    np.testing.assert_array_equal(posterior["two"], 2)
    assert posterior["rising"].dtype == bool
    assert posterior["two"].dtype.kind == "i"


def test_draws_are_those_of_the_posterior(draws):
    mean, covariance = exact_posterior()
    beta = draws.posterior["beta"].values[0]
    std = np.sqrt(np.diag(covariance))
    # 4000 draws, four standard errors: of a mean, and of a standard deviation
    np.testing.assert_allclose((beta.mean(0) - mean) / std, 0, atol=4 / np.sqrt(DRAWS))
    np.testing.assert_allclose(beta.std(0) / std, 1, atol=4 / np.sqrt(2 * DRAWS))


@pytest.mark.usefixtures("fast_compile")
def test_same_variables_as_pymc_s_own_approximations(approx):
    ours = approx.sample(3, include_transformed=True)
    theirs = pm.MeanField(model=approx.model).sample(3, include_transformed=True)
    assert set(ours.groups) > set(theirs.groups)
    assert list(ours.posterior.data_vars) == list(theirs.posterior.data_vars)
    for name, array in theirs.posterior.items():
        assert ours.posterior[name].dims == array.dims
        assert ours.posterior[name].dtype == array.dtype, name
        assert set(ours.posterior[name].coords) == set(array.coords)
    for group in ("observed_data", "constant_data"):
        xr.testing.assert_equal(ours[group].dataset, theirs[group].dataset)


def test_unconstrained_variables_on_request(approx, draws):
    assert "spare_log__" not in draws.posterior
    both = approx.sample(DRAWS, random_seed=1, include_transformed=True).posterior
    np.testing.assert_allclose(np.exp(both["spare_log__"]), both["spare"], rtol=1e-12)
    xr.testing.assert_equal(
        both.to_dataset().drop_vars("spare_log__"), draws.posterior.to_dataset()
    )


def test_multitrace_on_request(approx, draws):
    trace = approx.sample(DRAWS, random_seed=1, return_inferencedata=False)
    assert isinstance(trace, MultiTrace)
    assert len(trace) == DRAWS
    assert trace.nchains == 1
    assert set(trace.varnames) == {*draws.posterior.data_vars, "spare_log__"}
    for name, array in draws.posterior.items():
        np.testing.assert_array_equal(trace[name], array.values[0])
    assert trace.point(7)["beta"].shape == trace[7]["beta"].shape == (2,)
    np.testing.assert_array_equal(trace[7]["beta"], draws.posterior["beta"][0, 7])


def test_converter_s_own_options_are_passed_on(approx):
    renamed = approx.sample(3, coords={"coefficient": ["a", "b"]})
    assert list(renamed.posterior.coords["coefficient"].values) == ["a", "b"]


def test_summary_of_arviz(draws):
    summary = az.summary(draws, var_names=["beta", "spare"])
    assert list(summary.index) == ["beta[intercept]", "beta[slope]", "spare"]
    assert float(summary.loc["beta[slope]", "mean"]) == pytest.approx(
        exact_posterior()[0][1], abs=0.05
    )


def test_variables_whose_transform_changes_the_shape():
    with pm.Model(coords={"part": ["a", "b", "c"]}) as model:
        pm.Dirichlet("share", np.ones(3), dims="part")
        pm.Normal("cuts", [0.0, 1.0], transform=pm.distributions.transforms.ordered)
    approx = IsotropicMixture(n_components=2, model=model, random_seed=1)
    assert approx.ddim == 4
    posterior = approx.sample(10).posterior
    assert posterior["share"].dims == ("chain", "draw", "part")
    np.testing.assert_allclose(posterior["share"].sum("part"), 1.0)
    assert np.all(np.diff(posterior["cuts"]) > 0)
    assert approx.state.mean["share"].sizes == {"part": 3}
    assert approx.mean_data["share_simplex__"].shape == (2,)


@pytest.mark.usefixtures("fast_compile")  # a loop would have the slow default compile it
def test_deterministic_of_a_scan():
    with pm.Model() as model:
        rate = pm.Normal("rate")
        powers = pytensor.scan(
            lambda previous, rate: previous * rate,
            outputs_info=pt.ones(()),
            non_sequences=rate,
            n_steps=3,
            return_updates=False,
        )
        pm.Deterministic("powers", powers)
    posterior = IsotropicMixture(model=model, random_seed=1).sample(5).posterior
    expected = posterior["rate"].values[..., None] ** [1, 2, 3]
    np.testing.assert_allclose(posterior["powers"], expected, rtol=1e-12)


def test_variables_without_a_place_stay_at_the_initial_point():
    with pm.Model() as model:
        pm.Normal("first", initval=3.0)
        pm.HalfNormal("second", initval=2.0)
    ordering = {"first": ("first", slice(0, 1), (), "float64")}
    values = constrained_draws(FlatSpace(model, ordering), np.array([[0.5], [1.5]]))
    np.testing.assert_array_equal(values["first"], [0.5, 1.5])
    np.testing.assert_allclose(values["second"], [2.0, 2.0])


# Pointwise densities and predictions


def test_log_likelihood(approx, draws):
    pm.compute_log_likelihood(
        draws, model=approx.model, progressbar=False, compile_kwargs=FAST_COMPILE
    )
    pointwise = draws.log_likelihood["y"]
    assert pointwise.dims == ("chain", "draw", "observation")
    expected = stats.norm(draws.posterior["mu"].values, NOISE).logpdf(OBSERVED)
    np.testing.assert_allclose(pointwise, expected, rtol=1e-7)


def test_leave_one_out(approx):
    draws = approx.sample(DRAWS, random_seed=1)
    pm.compute_log_likelihood(
        draws, model=approx.model, progressbar=False, compile_kwargs=FAST_COMPILE
    )
    exact = 0.0
    for i in range(N_OBSERVED):
        mean, covariance = exact_posterior(np.arange(N_OBSERVED) != i)
        std = np.sqrt(NOISE**2 + DESIGN[i] @ covariance @ DESIGN[i])
        exact += stats.norm(DESIGN[i] @ mean, std).logpdf(OBSERVED[i])
    estimate = az.loo(draws)
    assert estimate.n_data_points == N_OBSERVED
    # A point's log likelihood varies by about 0.3 nats over the draws, so that its term has a
    # standard error near 0.3 / sqrt(4000) = 0.005; the 20 terms share the draws: four times 0.1 at
    # most, less by their different signs.
    assert estimate.elpd == pytest.approx(exact, abs=0.1)


@pytest.mark.usefixtures("fast_compile")
def test_log_likelihood_with_the_sample(approx):
    assert approx.sample(3, log_likelihood=True).log_likelihood["y"].shape == (1, 3, 20)


def test_posterior_predictive(approx, draws):
    predicted = pm.sample_posterior_predictive(
        draws, model=approx.model, random_seed=1, progressbar=False, compile_kwargs=FAST_COMPILE
    ).posterior_predictive["y"]
    assert predicted.dims == ("chain", "draw", "observation")
    mean, covariance = exact_posterior()
    std = np.sqrt(NOISE**2 + np.einsum("ni,ij,nj->n", DESIGN, covariance, DESIGN))
    # 4000 draws, five standard errors
    error = (predicted.values[0].mean(0) - DESIGN @ mean) / std
    np.testing.assert_allclose(error, 0, atol=5 / np.sqrt(DRAWS))
    np.testing.assert_allclose(predicted.values[0].std(0) / std, 1, atol=5 / np.sqrt(2 * DRAWS))


def test_predictions_out_of_sample(draws):
    new = np.array([2.0, 3.0])
    with build_model():  # another instance: it is changed
        pm.set_data({"x": new, "y_data": np.zeros(2)}, coords={"observation": ["later", "latest"]})
        predicted = pm.sample_posterior_predictive(
            draws,
            var_names=["mu", "y"],
            predictions=True,
            random_seed=1,
            progressbar=False,
            compile_kwargs=FAST_COMPILE,
        )
    assert predicted.predictions["y"].dims == ("chain", "draw", "observation")
    assert list(predicted.predictions.coords["observation"].values) == ["later", "latest"]
    np.testing.assert_array_equal(predicted.predictions_constant_data["x"], new)
    design = np.column_stack([np.ones(2), new])
    beta = draws.posterior["beta"].values
    np.testing.assert_allclose(predicted.predictions["mu"], beta @ design.T, atol=1e-12)
    noise = (predicted.predictions["y"] - predicted.predictions["mu"]).values[0] / NOISE
    # 4000 draws, four standard errors
    np.testing.assert_allclose(noise.mean(0), 0, atol=4 / np.sqrt(DRAWS))
    np.testing.assert_allclose(noise.std(0), 1, atol=4 / np.sqrt(2 * DRAWS))


def test_draws_after_new_data_follow_them(approx):
    model = build_model()
    params = approx.mixture.as_dict()
    copy = IsotropicMixture(params=params, model=model)
    with model:
        pm.set_data({"x": [2.0], "y_data": [0.0]}, coords={"observation": [0]})
        posterior = copy.sample(5).posterior
    beta = posterior["beta"]
    expected = beta.sel(coefficient="intercept") + 2 * beta.sel(coefficient="slope")
    np.testing.assert_allclose(posterior["mu"].values[..., 0], expected, rtol=1e-12)


def test_sample_for_the_model_without_its_minibatches():
    coords = {"observation": [0, 1, 2]}
    with pm.Model(coords=coords) as model:
        x = pm.Data("x", [1.0, 2.0, 3.0], dims="observation")
        y = pm.Data("y_data", [1.0, 2.0, 3.0], dims="observation")
        x_batch, y_batch = pm.Minibatch(x, y, batch_size=2)
        slope = pm.Normal("slope", 0.0, 10.0)
        mu = pm.Deterministic("mu", slope * x_batch, dims="observation")
        pm.Normal("y", mu, 0.1, observed=y_batch, total_size=3, dims="observation")
    approx = IsotropicMixture(n_components=2, model=model, random_seed=1)
    with remove_minibatched_nodes(model):
        draws = approx.sample(5)
    assert draws.posterior["mu"].shape == (1, 5, 3)
    np.testing.assert_allclose(
        draws.posterior["mu"], draws.posterior["slope"] * draws.constant_data["x"], rtol=1e-12
    )
    assert draws.observed_data["y"].shape == (3,)


# Files


@pytest.fixture(scope="module")
def full_tree(approx):
    """Draws with all the groups that PyMC adds."""
    tree = approx.sample(10, random_seed=1, include_transformed=True)
    options = {"model": approx.model, "progressbar": False, "compile_kwargs": FAST_COMPILE}
    pm.compute_log_likelihood(tree, **options)
    pm.stats.compute_log_prior(tree, **options)
    pm.sample_posterior_predictive(tree, extend_inferencedata=True, random_seed=1, **options)
    return tree


def test_netcdf_round_trip(full_tree, tmp_path):
    full_tree.to_netcdf(tmp_path / "draws.nc")
    loaded = az.from_netcdf(tmp_path / "draws.nc")
    assert {"posterior_predictive", "log_likelihood", "log_prior"} <= set(loaded.children)
    xr.testing.assert_identical(loaded, full_tree)
    assert loaded.posterior["rising"].dtype == bool


def test_zarr_round_trip(full_tree, tmp_path):
    full_tree.to_zarr(tmp_path / "draws.zarr")
    loaded = az.from_zarr(tmp_path / "draws.zarr")
    xr.testing.assert_identical(loaded, full_tree)
    assert loaded.posterior["rising"].dtype == bool
