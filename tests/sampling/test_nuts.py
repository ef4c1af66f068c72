"""The start for NUTS: modes, stratified starts, the mass matrix, and what PyMC makes of them."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymc.initial_point import make_initial_point_fns_per_chain

import pymc_isomix as pmi
from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.modes import label_modes, within_mode_covariance
from pymc_isomix.model.traces import constrained_draws
from pymc_isomix.sampling.nuts import stratified_components

CHEAP_NUTS = {"compile_kwargs": {"mode": CHEAP}}
LOWER = np.array([[2.0, 0.0], [1.5, 0.5]])


def mixture(means, weights, *, variances=1.0, metric=1.0):
    means = np.asarray(means, dtype=float)
    weights = np.asarray(weights, dtype=float)
    with np.errstate(divide="ignore"):  # a weight of zero
        log_weights = np.log(weights / weights.sum())
    return Mixture(
        means=means.reshape(len(weights), -1),
        log_variances=np.log(np.broadcast_to(variances, len(weights))),
        log_weights=log_weights,
        metric=np.asarray(metric, dtype=float),
    )


def group_of(model, values):
    """Return an approximation of a model with these parameters."""
    return pmi.IsotropicMixture(values=values.as_dict(), model=model, random_seed=1)


@given(
    weights=st.lists(st.floats(0.001, 1), min_size=1, max_size=12),
    chains=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_each_mode_gets_its_share_of_chains(weights, chains, seed):
    weights = np.array(weights) / np.sum(weights)
    modes = np.arange(len(weights)) * 7 % 3  # interleaved
    chosen = stratified_components(weights, modes, chains, np.random.default_rng(seed))
    for mode in range(3):
        share = weights[modes == mode].sum() * chains
        count = np.count_nonzero(modes[chosen] == mode)
        assert np.floor(share - 1e-9) <= count <= np.ceil(share + 1e-9)


def test_components_are_chosen_by_weight():
    weights, modes = np.array([0.05, 0.6, 0.35]), np.array([0, 1, 0])
    rng = np.random.default_rng(1)
    chosen = np.concatenate([stratified_components(weights, modes, 2, rng) for _ in range(4000)])
    counts = np.bincount(chosen, minlength=3)
    # stratified counts vary less than multinomial ones
    error = np.sqrt(8000 * weights * (1 - weights))
    assert np.all(np.abs(counts - 8000 * weights) < 4 * error)


@pytest.mark.parametrize("metric", [np.array(0.7), np.array([0.5, 2.0]), LOWER])
def test_covariance_of_one_mode_is_that_of_its_draws(metric):
    values = mixture(
        [[0, 0], [1, 2], [2, -1]], [0.2, 0.5, 0.3], variances=[0.5, 1.0, 2.0], metric=metric
    )
    rng = np.random.default_rng(2)
    component = rng.choice(3, p=values.weights, size=200_000)
    factor = metric if metric.ndim == 2 else metric * np.eye(2)
    scale = np.exp(0.5 * values.log_variances)[component, None]
    draws = values.means[component] + scale * rng.normal(size=(200_000, 2)) @ factor.T
    covariance = within_mode_covariance(values, np.zeros(3, dtype=int))
    expected = np.cov(draws.T)
    centred = draws - draws.mean(axis=0)
    error = np.std(centred[:, :, None] * centred[:, None, :], axis=0) / np.sqrt(200_000)
    if metric.ndim < 2:
        assert covariance.shape == (2,)
        expected, error = np.diagonal(expected), np.diagonal(error)
    assert np.all(np.abs(covariance - expected) < 4 * error)


def test_covariance_leaves_out_what_lies_between_modes():
    values = mixture([[0, 0], [1, 2]], [0.3, 0.7], metric=LOWER)
    away = mixture([[0, 0], [1, 2], [1e6, 0], [1e6 + 1, 2]], [0.3, 0.7, 0.3, 0.7], metric=LOWER)
    one = within_mode_covariance(values, np.array([0, 0]))
    np.testing.assert_allclose(within_mode_covariance(away, np.array([0, 0, 1, 1])), one)
    np.testing.assert_allclose(
        within_mode_covariance(away, np.arange(4)), LOWER @ LOWER.T, rtol=1e-12
    )


def test_a_mode_without_weight_counts_for_nothing():
    values = mixture([[0, 0], [5, 5]], [1, 0], metric=LOWER)
    covariance = within_mode_covariance(values, np.array([0, 1]))
    np.testing.assert_allclose(covariance, LOWER @ LOWER.T)


@pytest.fixture(scope="module")
def model():
    """Several transforms, one whose bounds depend on another variable."""
    with pm.Model(coords={"city": ["a", "b"]}) as model:
        scale = pm.HalfNormal("scale", 1.0)
        pm.Normal("level", dims="city")
        pm.Uniform("fraction", 0.0, scale)
        pm.Dirichlet("share", np.ones(3))
    return model


def test_pymc_starts_each_chain_where_the_mixture_says(model):
    rng = np.random.default_rng(3)
    lower = np.tril(0.2 * rng.normal(size=(6, 6)), -1) + np.diag(rng.uniform(0.5, 1, 6))
    values = mixture(rng.normal(size=(2, 6)), [0.4, 0.6], metric=lower)
    approx = group_of(model, values)
    start = approx.nuts_init(3, random_seed=4, **CHEAP_NUTS)
    assert set(start) == {"initvals", "step", "chains"}
    assert start["chains"] == len(start["initvals"]) == 3
    functions = make_initial_point_fns_per_chain(model=model, overrides=start["initvals"], chains=3)
    for function, wanted in zip(functions, start["initvals"], strict=True):
        assert list(wanted) == ["scale", "level", "fraction", "share"]
        flat = np.concatenate([np.ravel(value) for value in function(0).values()])
        assert flat.shape == (6,)
        constrained = constrained_draws(approx.space, flat[None])
        for name, value in wanted.items():
            np.testing.assert_allclose(constrained[name][0], value, rtol=1e-9)
    # the step orders its variables as the metric does
    assert [v.name for v in start["step"].vars] == list(approx.ordering)
    velocity = start["step"].potential.velocity(np.eye(6)[2])
    np.testing.assert_allclose(
        velocity, within_mode_covariance(values, label_modes(values))[:, 2], rtol=1e-10
    )


@pytest.mark.parametrize("metric", [np.array(1.0), np.ones(6)])
def test_no_matrix_is_made_where_the_metric_is_none(model, metric):
    approx = group_of(model, mixture(np.zeros((1, 6)), [1], metric=metric))
    step = approx.nuts_init(1, random_seed=1, **CHEAP_NUTS)["step"]
    np.testing.assert_allclose(step.potential.velocity(np.ones(6)), np.ones(6))
    largest = max(np.size(value) for value in vars(step.potential).values())
    assert largest == 6


def test_starts_depend_on_the_seed_alone(model):
    approx = group_of(model, mixture(np.zeros((2, 6)), [1, 1], metric=np.ones(6)))
    first, again, other = (
        approx.nuts_init(2, random_seed=seed, **CHEAP_NUTS)["initvals"] for seed in (1, 1, 2)
    )
    assert first[0]["scale"] == again[0]["scale"] != other[0]["scale"]


def test_a_model_of_the_context_stands_in():
    def build(observed):
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("x"), 1.0, observed=observed)
        return model

    few, all_data = build([1.0]), build([1.0] * 50)
    approx = group_of(few, mixture([[0.0]], [1]))
    with all_data:
        step = approx.nuts_init(1, random_seed=1, **CHEAP_NUTS)["step"]
    log_p, _ = step._logp_dlogp_func([np.zeros(1)])
    np.testing.assert_allclose(log_p, all_data.compile_logp(mode=CHEAP)({"x": 0.0}))


def test_options_reach_nuts(model):
    approx = group_of(model, mixture(np.zeros((1, 6)), [1]))
    step = approx.nuts_init(1, target_accept=0.95, **CHEAP_NUTS)["step"]
    assert step.target_accept == 0.95


def test_a_start_of_density_zero_is_drawn_again():
    with pm.Model() as model:
        pm.Uniform("x", 0, 1, default_transform=None)
    approx = group_of(model, mixture([[0.0]], [1]))  # half of the draws are outside
    points = approx.nuts_init(40, random_seed=1, **CHEAP_NUTS)["initvals"]
    assert all(0 < point["x"] < 1 for point in points)


def test_no_finite_start_is_an_error_that_names_the_variable():
    with pm.Model() as model:
        pm.Normal("other")
        pm.Uniform("x", 0, 1, default_transform=None)
    approx = group_of(model, mixture([[0.0, 50.0]], [1]))
    with pytest.raises(ValueError, match=r"component 0 .* variable x; the approximation"):
        approx.nuts_init(1, random_seed=1, **CHEAP_NUTS)


@pytest.mark.parametrize("chains", [0, 1.5, True])
def test_chains_must_be_a_count(model, chains):
    approx = group_of(model, mixture(np.zeros((1, 6)), [1]))
    with pytest.raises(ValueError, match="chains must be an integer of at least 1"):
        approx.nuts_init(chains)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyMC's about short chains
def test_each_mode_is_sampled():
    """NUTS keeps to the mode of its start, so that the modes' chains are as stratified."""
    with pm.Model() as model:
        pm.Mixture("x", w=[0.25, 0.75], comp_dists=pm.Normal.dist([-20.0, 20.0], [1.0, 2.0]))
    values = mixture([[-20.0], [20.0]], [0.25, 0.75], variances=[1.0, 4.0])
    start = group_of(model, values).nuts_init(4, random_seed=1, **CHEAP_NUTS)
    with model:
        tree = pm.sample(
            200, tune=100, cores=1, random_seed=1, progressbar=False, nuts_sampler="pymc", **start
        )
    means = tree.posterior["x"].mean("draw").values
    np.testing.assert_array_equal(means > 0, [True, True, True, False])  # the heavier mode first
    spread = tree.posterior["x"].std("draw").values
    ess = az.ess(tree.posterior["x"].isel(chain=[1]), method="sd").item()
    assert abs(spread[1] - 2.0) < 4 * 2.0 / np.sqrt(2 * ess)
