"""The family as PyMC's variational machinery sees it: Group, Approximation, expressions, draws."""

import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc.pytensorf import compile, find_rng_nodes
from pymc.testing import assert_no_rvs
from pymc.variational import opvi
from pymc.variational.approximations import FullRankGroup, MeanFieldGroup
from pymc.variational.inference import KLqp
from pymc.variational.operators import KL
from pytensor.compile.mode import Mode
from scipy import stats
from scipy.special import logsumexp

import pymc_isomix as pmi
from pymc_isomix import IsotropicMixture, IsotropicMixtureGroup
from pymc_isomix.interface.operator import MixtureKL

METRICS = ["identity", "diag", "dense"]
N_COMPONENTS = 3
FAST_COMPILE = {"mode": "FAST_COMPILE"}
COORDS = {"city": ["a", "b", "c"], "year": [2001, 2002]}


@pytest.fixture(scope="module")
def model():
    """One positive and two real variables, 10 dimensions in all, without data."""
    with pm.Model(coords=COORDS) as model:
        pm.HalfNormal("scale", 1.0)
        pm.Normal("level", dims="city")
        pm.Normal("trend", dims=("city", "year"))
    return model


def make_params(metric, n_dim, n_components=N_COMPONENTS, seed=1, variances="isotropic"):
    """Return parameters of a mixture as arrays, the log weights not normalised."""
    rng = np.random.default_rng(seed)
    lower = np.tril(0.3 * rng.normal(size=(n_dim, n_dim)), -1) + np.diag(
        rng.uniform(0.5, 1.5, n_dim)
    )
    shape = (n_components, n_dim)[: 1 + (variances == "diagonal")]
    return {
        "means": rng.normal(size=(n_components, n_dim)),
        "log_variances": rng.normal(scale=0.5, size=shape),
        "log_weights": rng.normal(scale=0.5, size=n_components),
        "metric": {"identity": np.array(1.3), "diag": np.diag(lower), "dense": lower}[metric],
    }


def reference_mixture(params):
    """Return weights (K,), means (K, d) and covariances (K, d, d) by NumPy alone."""
    means = params["means"]
    weights = np.exp(params["log_weights"] - logsumexp(params["log_weights"]))
    metric = params["metric"]
    factor = metric if metric.ndim == 2 else metric * np.eye(means.shape[1])
    columns = np.exp(params["log_variances"]).reshape(len(means), -1)  # (K, 1) or (K, d)
    scaled = factor * np.sqrt(columns)[:, None]
    covariances = scaled @ scaled.swapaxes(1, 2)
    return weights, means, covariances


def reference_log_density(points, params):
    weights, means, covariances = reference_mixture(params)
    terms = [
        np.log(weight) + stats.multivariate_normal(mean, covariance).logpdf(points)
        for weight, mean, covariance in zip(weights, means, covariances, strict=True)
    ]
    return logsumexp(terms, axis=0)


def reference_moments(params):
    weights, means, covariances = reference_mixture(params)
    mean = weights @ means
    centred = means - mean
    return mean, np.einsum("k,kij->ij", weights, covariances) + (weights * centred.T) @ centred


def set_params(approx, **values):
    for name, value in values.items():
        shared = approx.shared_params[name]
        shared.set_value(np.asarray(value, dtype=shared.dtype))


def get_params(group):
    return {name: shared.get_value().copy() for name, shared in group.shared_params.items()}


def evaluate(outputs, seed=1):
    """Evaluate once, seeded."""
    return compile([], outputs, random_seed=seed, **FAST_COMPILE)()


def lognormal_approximation(**kwargs):
    """Approximate one HalfNormal by two components of its logarithm."""
    with pm.Model() as model:
        pm.HalfNormal("scale", 1.0)
    approx = IsotropicMixture(n_components=2, model=model, random_seed=1, **kwargs)
    set_params(
        approx,
        means=[[-1.0], [0.5]],
        log_variances=np.log([0.09, 0.04]),
        log_weights=np.log([0.25, 0.75]),
    )
    return approx


# Registration and parameters


@pytest.mark.parametrize("vfam", ["isotropic_mixture", "isomix", "IsoMix"])
def test_group_is_registered_by_name(model, vfam):
    group = opvi.Group([model["level"]], vfam=vfam, n_components=4, model=model)
    assert type(group) is IsotropicMixtureGroup
    assert group.ddim == group.ndim == 3
    assert group.shared_params["means"].get_value().shape == (4, 3)
    assert not hasattr(group, "_kwargs")  # as PyMC asks of an initialised group


def test_new_parameters_have_static_shapes_and_uniform_weights(model):
    shapes = {"identity": (), "diag": (10,), "dense": (10, 10)}
    for metric, shape in shapes.items():
        group = IsotropicMixture(n_components=4, metric=metric, model=model).groups[0]
        static = {name: shared.type.shape for name, shared in group.shared_params.items()}
        assert static == {
            "means": (4, 10),
            "log_variances": (4,),
            "log_weights": (4,),
            "metric": shape,
        }
        np.testing.assert_allclose(group.shared_params["log_weights"].get_value(), -np.log(4))
        # PyMC collects them sorted by name.
        assert [shared.name for shared in group.params] == sorted(static)


@pytest.mark.parametrize("metric", METRICS)
def test_group_is_found_by_its_parameters(model, metric):
    params = make_params(metric, 4)
    group = opvi.Group([model["scale"], model["level"]], params=params, model=model)
    assert type(group) is IsotropicMixtureGroup
    assert group.params == []  # arrays are constants: nothing for an optimiser to collect
    kept = group.mixture.as_dict()
    assert logsumexp(kept.pop("log_weights")) == pytest.approx(0.0, abs=1e-12)
    for name, value in kept.items():
        np.testing.assert_array_equal(value, params[name])


def test_shared_parameters_of_the_user_are_collected_and_followed(model):
    params = {name: pytensor.shared(value) for name, value in make_params("diag", 10).items()}
    approx = IsotropicMixture(params=params, model=model)
    assert set(approx.params) == set(params.values())
    params["means"].set_value(np.full((N_COMPONENTS, 10), 7.0))
    np.testing.assert_allclose(approx.mean.eval(**FAST_COMPILE), 7.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metric": None},
            r"must have the keys .*; got \['log_variances', 'log_weights', 'me",
        ),
        ({"means": np.zeros(10)}, r"means.*, 10\).*got \(10,\)"),
        ({"metric": np.zeros((2, 10, 10))}, r"metric.*got \(2, 10, 10\)"),
        ({"means": np.zeros((3, 9))}, r"means.*\(3, 10\).*got \(3, 9\)"),
        ({"log_variances": np.zeros(2)}, r"log_variances.*\(K,\) or \(K, d\).*got \(2,\)"),
        ({"log_variances": np.zeros((3, 2))}, r"log_variances.*\(K,\) or \(K, d\).*got \(3, 2\)"),
        ({"log_weights": np.zeros(4)}, r"log_weights.*\(3,\).*got \(4,\)"),
        ({"metric": np.ones(9)}, r"metric.*d = 10.*got \(9,\)"),
        ({"metric": np.ones((10, 9))}, r"metric.*d = 10.*got \(10, 9\)"),
    ],
)
def test_params_of_wrong_keys_or_shapes_are_refused(model, change, message):
    params = {**make_params("dense", 10), **change}
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(opvi.ParametrizationError, match=message):
        IsotropicMixtureGroup(model.free_RVs, params=params, model=model)


def test_discrete_variable_is_refused():
    with pm.Model() as model:
        pm.Normal("level")
        pm.Poisson("count", 3.0)
    with pytest.raises(opvi.ParametrizationError, match=r"Discrete variables.*count"):
        IsotropicMixture(model=model)


def test_single_group_approximation(model):
    approx = IsotropicMixture(n_components=2, model=model)
    assert isinstance(approx, opvi.Approximation)
    assert [type(group) for group in approx.groups] == [IsotropicMixtureGroup]
    assert approx.has_logq
    assert approx.ndim == approx.ddim == 10
    assert {"means", "sample", "shared_params"} <= set(dir(approx))


@pytest.mark.parametrize(
    "grouping",
    [
        [(IsotropicMixtureGroup, None)],
        [(IsotropicMixtureGroup, None), (MeanFieldGroup, ["scale"])],
        [(IsotropicMixtureGroup, ["scale"]), (FullRankGroup, ["level", "trend"])],
        [(IsotropicMixtureGroup, ["scale"]), (IsotropicMixtureGroup, None)],
    ],
)
def test_groups_cover_the_model(model, grouping):
    groups = [
        group_type(names and [model[name] for name in names], model=model)
        for group_type, names in grouping
    ]
    approx = opvi.Approximation(groups, model=model)
    assert approx.ndim == 10
    covered = [rv for group in approx.groups for rv in group.group]
    assert sorted(rv.name for rv in covered) == ["level", "scale", "trend"]
    logq, symbolic_logq = evaluate(
        approx.set_size_and_deterministic([approx.logq, approx.symbolic_logq], 2, 0)
    )
    assert logq.shape == ()
    assert symbolic_logq.shape == (2,)
    assert np.isfinite(symbolic_logq).all()


def test_groups_that_leave_out_or_repeat_a_variable_are_refused(model):
    level = IsotropicMixtureGroup([model["level"]], model=model)
    with pytest.raises(opvi.GroupError, match="No approximation is specified"):
        opvi.Approximation([level], model=model)
    again = IsotropicMixtureGroup([model["level"], model["trend"]], model=model)
    with pytest.raises(opvi.GroupError, match="Found duplicates"):
        opvi.Approximation([level, again], model=model)


# Density


@pytest.mark.parametrize("metric", METRICS)
def test_symbolic_logq_is_scipy_s_log_density_at_the_draws(model, metric):
    params = make_params(metric, 10)
    group = IsotropicMixtureGroup(model.free_RVs, params=params, model=model)
    points, each, average = evaluate(
        group.set_size_and_deterministic(
            [group.symbolic_random, group.symbolic_logq, group.logq], 20, 0
        )
    )
    assert points.shape == (20, 10)
    assert each.shape == (20,)
    np.testing.assert_allclose(each, reference_log_density(points, params), rtol=1e-11)
    np.testing.assert_allclose(average, each.mean(), rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_logq_of_components_far_from_zero_and_from_each_other(model, metric):
    # Components 1e3 standard deviations apart, 1e6 from zero: no digits may cancel.
    params = make_params(metric, 10)
    params["means"] = 1e6 + 1e3 * np.arange(3.0)[:, None] * np.ones(10)
    group = IsotropicMixtureGroup(model.free_RVs, params=params, model=model)
    points, each = evaluate(
        group.set_size_and_deterministic([group.symbolic_random, group.symbolic_logq], 20, 0)
    )
    np.testing.assert_allclose(each, reference_log_density(points, params), rtol=1e-6)


def test_symbolic_noise_has_a_static_number_of_dimensions(model):
    # Widening it would break Group.symbolic_sample_over_posterior.
    assert IsotropicMixture(model=model).symbolic_initial.type.shape == (None, 10)


@pytest.mark.parametrize("operator", [KL, MixtureKL])
def test_elbo_at_the_exact_posterior_is_the_log_evidence(conjugate_gaussian, operator):
    # log p - log q is constant there, so that ten draws leave no Monte Carlo error, only that of
    # PyTensor, which takes the logarithm of a Python float in single precision: about 1e-9 a term.
    exact = conjugate_gaussian
    approx = IsotropicMixture(n_components=1, metric="diag", model=exact.model)
    set_params(approx, means=exact.mean[None], log_variances=[0.0], metric=exact.std)
    divergence = evaluate(operator(approx)()(10))
    assert divergence == pytest.approx(-exact.log_evidence, abs=1e-8)


def test_stock_objective_is_scaled_to_the_minibatch_on_request():
    # Two observations stand for eight: their likelihood counts four times.
    observed, noise = np.array([1.6, 1.4]), 0.7
    with pm.Model() as model:
        mu = pm.Normal("mu", 1.5, 1.0)
        pm.Normal("y", mu, noise, observed=observed, total_size=8)
    precision = 1 + 8 / noise**2
    mean = (1.5 + 4 * observed.sum() / noise**2) / precision
    approx = IsotropicMixture(n_components=1, model=model)
    set_params(approx, means=[[mean]], log_variances=[-np.log(precision)])
    divergence = KL(approx)()(2)
    assert_no_rvs([approx.symbolic_normalizing_constant])
    assert approx.scale_cost_to_minibatch
    scaled = evaluate(divergence)
    approx.scale_cost_to_minibatch = False
    assert evaluate(divergence) == pytest.approx(4 * scaled, rel=1e-8)


@pytest.mark.parametrize("metric", METRICS)
def test_stock_objective_has_the_gradient_of_its_finite_differences(eight_schools, metric):
    # Same noise and components on both sides, so that the tolerance is that of the differences.
    model = eight_schools
    approx = IsotropicMixture(n_components=2, metric=metric, model=model)
    params = make_params(metric, 10, n_components=2)
    set_params(approx, **params)
    loss = KL(approx)()(3)
    shared = approx.shared_params
    gradients = pt.grad(loss, [shared[name] for name in params])
    function = pytensor.function([], [loss, *gradients], **FAST_COMPILE)
    gradient = dict(zip(params, function()[1:], strict=True))

    def difference(name, direction, width=1e-5):
        losses = []
        for sign in (1, -1):
            set_params(approx, **{name: params[name] + sign * width * direction})
            losses.append(function()[0])
        set_params(approx, **params)
        return (losses[0] - losses[1]) / (2 * width)

    rng = np.random.default_rng(1)
    for name in ["means", "log_variances", *(["metric"] if metric != "identity" else [])]:
        direction = rng.normal(size=params[name].shape)
        if params[name].ndim == 2 and name == "metric":
            assert np.all(np.triu(gradient[name], 1) == 0)
            direction = np.tril(direction)
        slope = (gradient[name] * direction).sum()
        assert slope == pytest.approx(difference(name, direction), rel=1e-5)
    # Neither is learned through the draws: PyMC's optimisers must leave both alone.
    assert np.all(gradient["log_weights"] == 0)
    if metric == "identity":
        assert gradient["metric"] == 0


# Fitting with PyMC's own inference


@pytest.fixture(scope="module")
def fitted_by_klqp():
    """Fit a mixture beside a mean field; return approximation, history, and parameters before."""
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 2.0, shape=2)
        tau = pm.HalfNormal("tau", 1.0)
        pm.Normal("y", theta.sum(), tau, observed=[1.5, 2.0, 2.5])
    mixture = opvi.Group(
        [theta], vfam="isomix", n_components=2, metric="dense", random_seed=1, model=model
    )
    approx = opvi.Approximation([mixture, MeanFieldGroup(None, model=model)], model=model)
    approx.rng = np.random.RandomState(1)
    before = get_params(mixture)
    inference = KLqp(approx)
    inference.fit(500, obj_optimizer=pm.adam(learning_rate=0.03), progressbar=False, backend="jax")
    return approx, inference.hist, before


def test_stock_klqp_moves_all_but_the_weights(fitted_by_klqp):
    approx, losses, before = fitted_by_klqp
    after = get_params(approx.groups[0])
    for name in ("means", "log_variances", "metric"):
        assert np.isfinite(after[name]).all()
        assert np.all((after[name] != before[name])[before[name] != 0]), name
    np.testing.assert_array_equal(after["log_weights"], before["log_weights"])
    assert np.all(np.triu(after["metric"], 1) == 0)
    assert losses[-100:].mean() < losses[:20].mean() - 1


def test_stock_klqp_finds_the_posterior_s_correlation(fitted_by_klqp):
    # Only the sum of the two is measured, so that their posterior correlation is about -0.95.
    covariance = fitted_by_klqp[0].groups[0].cov.eval(**FAST_COMPILE)
    assert covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]) < -0.5


def test_draws_of_an_approximation_of_several_groups(fitted_by_klqp):
    approx = fitted_by_klqp[0]
    with pytensor.config.change_flags(**FAST_COMPILE):
        posterior = approx.sample(2000, random_seed=1).posterior
    assert set(posterior) == {"theta", "tau"}
    mixture = approx.groups[0]
    mean, std = (node.eval(**FAST_COMPILE) for node in (mixture.mean, mixture.std))
    # 2000 draws: five standard errors of the mean, and of the standard deviation (2 % with
    # tails no heavier than those of two Gaussians).
    sample = posterior["theta"].values[0]
    np.testing.assert_allclose(sample.mean(0), mean, atol=5 * std.max() / np.sqrt(2000))
    np.testing.assert_allclose(sample.std(0), std, rtol=0.1)


# Moments


@pytest.mark.parametrize("metric", METRICS)
def test_mean_std_and_cov_are_those_of_the_mixture(model, metric):
    params = make_params(metric, 10)
    approx = IsotropicMixture(params=params, model=model)
    mean, std, cov = evaluate([approx.mean, approx.std, approx.cov])
    expected_mean, expected_cov = reference_moments(params)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(cov, expected_cov, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(std, np.sqrt(np.diag(expected_cov)), rtol=1e-12)


def test_mean_data_and_std_data_are_labelled(model):
    params = make_params("dense", 10)
    approx = IsotropicMixture(params=params, model=model)
    mean, cov = reference_moments(params)
    for data, flat in ((approx.mean_data, mean), (approx.std_data, np.sqrt(np.diag(cov)))):
        assert isinstance(data, xr.Dataset)
        assert set(data) == {"scale_log__", "level", "trend"}
        assert data["trend"].dims == ("city", "year")
        np.testing.assert_array_equal(data["trend"].coords["year"], COORDS["year"])
        np.testing.assert_allclose(data["scale_log__"], flat[0])
        np.testing.assert_allclose(data["level"], flat[1:4])
        np.testing.assert_allclose(data["trend"], flat[4:].reshape(3, 2))


def test_state_has_the_moments_of_model_space():
    approx = lognormal_approximation()
    location, variance, weights = np.array([-1.0, 0.5]), np.array([0.09, 0.04]), [0.25, 0.75]
    first = np.exp(location + variance / 2) @ weights
    second = np.exp(2 * location + 2 * variance) @ weights
    std = np.sqrt(second - first**2)
    state = approx.state
    # 2000 draws, four standard errors: 2.2 % of std for the mean; for std, whose relative
    # error is sqrt((kurtosis - 1) / 4 / 2000), 1.1 % at the kurtosis 2 of two apart components.
    assert set(state.mean) == set(state.std) == {"scale"}
    assert state.mean["scale"].item() == pytest.approx(first, abs=4 * std / np.sqrt(2000))
    assert state.std["scale"].item() == pytest.approx(std, rel=0.05)


def test_state_is_labelled_and_repeatable(model):
    approx = IsotropicMixture(params=make_params("dense", 10), model=model, random_seed=1)
    first = approx.state
    assert first.mean["trend"].dims == ("city", "year")
    assert list(first.std["level"].coords["city"].values) == COORDS["city"]
    xr.testing.assert_equal(first.mean, approx.state.mean)
    # Looking at it must not change the draws that follow.
    fresh = IsotropicMixture(params=make_params("dense", 10), model=model, random_seed=1)
    np.testing.assert_array_equal(
        approx.sample(5).posterior["level"], fresh.sample(5).posterior["level"]
    )


def test_state_includes_unconstrained_variables_on_request():
    approx = lognormal_approximation()
    approx.groups[0].include_transformed = True  # what pm.fit(include_transformed=True) sets
    state = approx.state
    assert set(state.mean) == set(state.std) == {"scale", "scale_log__"}
    # 2000 draws, four standard errors
    exact = approx.std_data["scale_log__"].item()
    tolerance = 4 * exact / np.sqrt(2000)
    assert state.mean["scale_log__"].item() == pytest.approx(0.125, abs=tolerance)
    assert state.std["scale_log__"].item() == pytest.approx(exact, rel=0.05)


def test_state_of_a_group_holds_its_own_variables_only(model):
    group = IsotropicMixtureGroup([model["scale"], model["trend"]], model=model)
    assert set(group.state.mean) == {"scale", "trend"}


# Draws


@pytest.mark.parametrize("metric", METRICS)
def test_sample_has_the_moments_of_the_mixture(model, metric):
    params = make_params(metric, 10)
    approx = IsotropicMixture(params=params, model=model)
    draws = approx.sample(8000, random_seed=1, include_transformed=True)
    unconstrained = draws.posterior["scale_log__"].values.reshape(8000, 1)
    posterior = draws.posterior
    flat = np.hstack(
        [unconstrained, *(posterior[v].values.reshape(8000, -1) for v in ("level", "trend"))]
    )
    mean, cov = reference_moments(params)
    std = np.sqrt(np.diag(cov))
    # five standard errors: of a mean, std / sqrt(n); of a covariance, at most sqrt(3 / n) std std
    np.testing.assert_allclose(flat.mean(0) / std, mean / std, atol=5 / np.sqrt(8000))
    excess = (np.cov(flat.T) - cov) / np.outer(std, std)
    np.testing.assert_allclose(excess, 0, atol=5 * np.sqrt(3 / 8000))


def test_sample_is_independent_of_numpy_s_global_generator(model):
    # Legacy on purpose: nothing may read that global state, nor move it.
    samples = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        approx = IsotropicMixture(n_components=2, model=model, random_seed=3)
        samples.append(approx.sample(4))
        assert approx.state.mean["scale"] > 0
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    xr.testing.assert_equal(samples[0].posterior.dataset, samples[1].posterior.dataset)


def test_seed_of_a_sample(model):
    approx = IsotropicMixture(n_components=2, model=model, random_seed=3)

    def level(**kwargs):
        return approx.sample(4, **kwargs).posterior["level"].values

    np.testing.assert_array_equal(level(random_seed=5), level(random_seed=5))
    generators = [np.random.default_rng(5) for _ in range(2)]
    np.testing.assert_array_equal(*(level(random_seed=one) for one in generators))
    assert not np.array_equal(level(random_seed=5), level(random_seed=6))
    assert not np.array_equal(level(), level())  # the approximation's own generator goes on


@pytest.mark.parametrize("draws", [0, -1, 2.5, "many"])
def test_number_of_draws_is_checked(model, draws):
    approx = IsotropicMixture(model=model)
    with pytest.raises(ValueError, match=f"draws must be an integer of at least 1; got {draws!r}"):
        approx.sample(draws)


def test_sample_needs_no_model_context(model):
    approx = IsotropicMixture(model=model)
    assert approx.sample(np.int64(3)).posterior.sizes == {
        "chain": 1,
        "draw": 3,
        "city": 3,
        "year": 2,
    }


def test_sample_approx_of_pymc(model):
    approx = IsotropicMixture(model=model)
    sampled = pm.sample_approx(approx, 3)
    assert "scale_log__" in sampled.posterior
    assert sampled.posterior["trend"].shape == (1, 3, 3, 2)


# sample_node


@pytest.fixture(scope="module")
def two_modes(model):
    """Two components, eight apart in each of ten dimensions, weights 0.3 and 0.7."""
    params = make_params("identity", 10, n_components=2)
    params["means"] = np.array([[-4.0], [4.0]]) * np.ones(10)
    params["log_variances"] = np.log([0.04, 0.09])
    params["log_weights"] = np.log([0.3, 0.7])
    return IsotropicMixture(params=params, model=model), params


def test_sample_node_replaces_the_variables(model, two_modes):
    node = two_modes[0].sample_node(model["scale"] * model["trend"])
    ancestors = pytensor.graph.ancestors([node])
    assert not {model["scale"], model["trend"]} & set(ancestors)
    assert len(find_rng_nodes([node])) == 2  # noise from the components' generator would repeat it
    draw = compile([], node, random_seed=1, **FAST_COMPILE)
    first, second = draw(), draw()
    assert first.shape == (3, 2)
    assert not np.any(first == second)


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("deterministic", [False, True])
def test_size_of_sample_node(model, two_modes, size, deterministic):
    node = two_modes[0].sample_node(
        model["scale"] ** 3 + model["level"], size=size, deterministic=deterministic
    )
    value = evaluate(node)
    assert value.shape == ((3,) if size is None else (size, 3))
    assert np.isfinite(value).all()


def test_size_of_sample_node_may_be_symbolic(model, two_modes):
    size = pt.iscalar("size")
    node = two_modes[0].sample_node(model["level"], size=size)
    draw = compile([size], node, random_seed=1, **FAST_COMPILE)
    for n in (1, 5, 6):
        value = draw(n)
        assert value.shape == (n, 3)
        assert len(np.unique(value)) == value.size


@pytest.mark.parametrize("size", [None, 4])
def test_deterministic_sample_node_is_the_mixture_s_mean(model, two_modes, size):
    approx, params = two_modes
    mean = reference_moments(params)[0]
    scale, trend = evaluate(
        approx.sample_node([model["scale"], model["trend"]], size=size, deterministic=True)
    )
    np.testing.assert_allclose(scale, np.broadcast_to(np.exp(mean[0]), scale.shape), rtol=1e-12)
    np.testing.assert_allclose(
        trend, np.broadcast_to(mean[4:].reshape(3, 2), trend.shape), rtol=1e-12
    )


@pytest.mark.parametrize("size", [None, 4])
def test_deterministic_may_be_a_flag(model, two_modes, size):
    approx, params = two_modes
    flag = pytensor.shared(np.int8(1))
    node = approx.sample_node(model["level"], size=size, deterministic=flag)
    draw = compile([], node, random_seed=1, **FAST_COMPILE)
    mean = reference_moments(params)[0][1:4]
    np.testing.assert_allclose(draw(), np.broadcast_to(mean, draw().shape), rtol=1e-12)
    flag.set_value(np.int8(0))
    first, second = draw(), draw()
    assert not np.any(first == second)
    assert np.all(np.abs(first - mean) > 0.5)  # each near a component, none near the mean


def test_sample_node_draws_from_the_mixture(model, two_modes):
    approx, params = two_modes
    n = 4000
    sampled = evaluate(approx.sample_node(model["level"], size=n))
    first = sampled[:, 0] < 0
    assert np.all((sampled < 0) == first[:, None])  # one component for a whole draw
    # four standard errors of a proportion
    assert first.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / n))
    for component, members in enumerate((first, ~first)):
        # Noise that shared a generator with the components would be biased within each.
        scale = params["metric"] * np.exp(params["log_variances"][component] / 2)
        noise = (sampled[members] - params["means"][component, 0]) / scale
        assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
        correlation = np.corrcoef(noise.T)[np.triu_indices(3, 1)]
        # four standard errors
        np.testing.assert_allclose(correlation, 0, atol=4 / np.sqrt(members.sum()))


def test_nodes_sampled_together_come_from_the_same_draws(model, two_modes):
    level, shifted = evaluate(
        two_modes[0].sample_node([model["level"], model["level"] + model["scale"]], size=5)
    )
    assert np.all(shifted > level)


def test_sample_node_with_replacements():
    # As PyMC documents it for predictions: another input, of another length.
    size = pytensor.shared(np.int64(4))
    with pm.Model() as model:
        inputs = pm.Normal("inputs", np.arange(4.0), size=(size,))
        slope = pm.Normal("slope", 4.0)
        mean = inputs * slope
        pm.Normal("y", mean, 0.1, shape=inputs.shape, observed=4 * np.arange(4.0))
    approx = IsotropicMixture(n_components=2, model=model, random_seed=1)
    assert evaluate(approx.sample_node(mean)).shape == (4,)
    size.set_value(5)
    new = np.arange(1.0, 6.0)
    predicted = evaluate(approx.sample_node(mean, more_replacements={inputs: new}))
    assert predicted.shape == (5,)
    np.testing.assert_allclose(predicted / new, predicted[0])


# Types, caches, and saving


def test_float32_is_kept():
    with pytensor.config.change_flags(floatX="float32"), pm.Model() as model:
        pm.HalfNormal("scale", 1.0)
        pm.Normal("level", shape=2)
        for metric in METRICS:
            approx = IsotropicMixture(n_components=2, metric=metric, model=model, random_seed=1)
            assert {shared.dtype for shared in approx.params} == {"float32"}
            expressions = {
                "mean": approx.mean,
                "std": approx.std,
                "cov": approx.cov,
                "symbolic_random": approx.symbolic_random,
                "symbolic_logq": approx.symbolic_logq,
                "logq": approx.logq,
            }
            assert {name: node.dtype for name, node in expressions.items()} == dict.fromkeys(
                expressions, "float32"
            )
            nodes = [approx.symbolic_random, approx.symbolic_logq]
            points, log_q = evaluate(approx.set_size_and_deterministic(nodes, 3, 0))
            assert points.dtype == log_q.dtype == np.float32
            values = approx.mixture.as_dict()
            np.testing.assert_allclose(log_q, reference_log_density(points, values), rtol=1e-4)
        posterior = approx.sample(3).posterior
        assert {name: data.dtype for name, data in posterior.items()} == {
            "scale": np.float32,
            "level": np.float32,
        }


def test_float32_step_casts_no_parameter():
    with pytensor.config.change_flags(floatX="float32"), pm.Model() as model:
        scale = pm.HalfNormal("scale", 1.0)
        level = pm.Normal("level", shape=2)
        pm.Normal("y", level, scale, observed=np.array([0.3, -0.4], dtype="float32"))
        approx = IsotropicMixture(n_components=2, metric="dense", model=model, random_seed=1)
        objective = MixtureKL(approx)()
        updates = objective.updates()
    for shared in approx.params:
        assert updates[shared].dtype == "float32"
        # The last Op may be a cast, which would hide an upcast before it.
        computed = [v for v in pytensor.graph.ancestors([updates[shared]]) if v.owner]
        dtypes = {str(getattr(v, "dtype", None)) for v in computed}
        assert "float32" in dtypes
        assert "float64" not in dtypes, shared.name


def test_cloudpickle_keeps_the_approximation(model):
    approx = IsotropicMixture(n_components=2, metric="dense", model=model, random_seed=1)
    approx.mean  # noqa: B018  an expression in the cache, which is not saved
    assert len(approx.groups[0]._cache) > 0
    copy = cloudpickle.loads(cloudpickle.dumps(approx))
    assert type(copy) is IsotropicMixture
    assert not hasattr(copy, "_cache")
    assert not hasattr(copy.groups[0], "_cache")
    for name, value in get_params(approx.groups[0]).items():
        np.testing.assert_array_equal(copy.groups[0].shared_params[name].get_value(), value)
    xr.testing.assert_equal(
        approx.sample(4, random_seed=1).posterior.dataset,
        copy.sample(4, random_seed=1).posterior.dataset,
    )
    np.testing.assert_array_equal(copy.mean.eval(**FAST_COMPILE), approx.mean.eval(**FAST_COMPILE))
    # The copy is independent of the original.
    set_params(copy, log_variances=[5.0, 5.0])
    assert np.all(approx.shared_params["log_variances"].get_value() < 0)


def test_cloudpickled_approximation_is_refitted(conjugate_gaussian):
    approx = IsotropicMixture(n_components=2, model=conjugate_gaussian.model, random_seed=1)
    approx.logq  # noqa: B018  an expression that caches others
    approx._cache.clear()
    copy = cloudpickle.loads(cloudpickle.dumps(approx))
    before = get_params(copy.groups[0])
    refit = KLqp(copy).fit(5, progressbar=False, compile_kwargs=FAST_COMPILE)
    assert refit is copy
    assert np.all(copy.shared_params["means"].get_value() != before["means"])
    # filled, cleared, and filled again
    assert len(copy._cache) > 0
    copy._cache.clear()
    assert np.isfinite(evaluate(copy.set_size_and_deterministic(copy.logq, 2, 0)))
    assert copy.sample(3).posterior["theta"].shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"draws": True}, ValueError, "draws must be an integer of at least 1; got True"),
        ({"chains": 2}, TypeError, r"sample\(\) takes no chains: draws are independent"),
    ],
)
def test_sample_checks_its_arguments(arguments, error, message):
    with pm.Model() as model:
        pm.Normal("x")
    approx = pmi.IsotropicMixture(n_components=2, random_seed=1, model=model)
    with pytest.raises(error, match=message):
        approx.sample(**arguments)


def test_only_an_approximation_is_resumed():
    with pytest.raises(TypeError, match=r"approx must be an IsotropicMixture; got 'm\.nc'\. For a"):
        pmi.resume("m.nc")


@pytest.mark.parametrize("metric", ["dense", "diag", "identity"])
def test_one_dimension_is_scanned_like_any_other(metric):
    """PyTensor says no word, and where rewrites that fail raise an error, none does."""
    with pm.Model() as model:
        p = pm.Normal("p")
    approx = pmi.IsotropicMixture(n_components=2, metric=metric, random_seed=1, model=model)
    with pytensor.config.change_flags(on_opt_error="raise"):
        draw = compile([], approx.sample_node(p, size=10), mode=Mode("py", "fast_run"))
    assert len(np.unique(draw())) == 10


# Diagonal components


@pytest.mark.parametrize("metric", METRICS)
def test_diagonal_components_have_their_moments_and_density(model, metric):
    params = make_params(metric, 10, variances="diagonal")
    approx = IsotropicMixture(params=params, model=model)
    group = approx.groups[0]
    mean, covariance = reference_moments(params)
    got = evaluate([group.mean, group.cov, group.std])
    expected = [mean, covariance, np.sqrt(np.diag(covariance))]
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    size = pt.iscalar("size")
    outputs = [group.symbolic_random, group.symbolic_logq_not_scaled]
    draws, log_q = compile(
        [size], approx.set_size_and_deterministic(outputs, size, 0), random_seed=1, **FAST_COMPILE
    )(7)
    np.testing.assert_allclose(log_q, reference_log_density(draws, params), rtol=1e-9)
    points, _ = group.density.draw_unconstrained(5, np.random.default_rng(1))
    np.testing.assert_allclose(group.log_density(points), reference_log_density(points, params))


@pytest.mark.parametrize(("metric", "shape"), [("identity", ()), ("dense", (10, 10))])
def test_diagonal_components_start_where_isotropic_ones_do(model, metric, shape):
    sigma = {"level": [0.5, 1.0, 2.0]}
    options = {"metric": metric, "start_sigma": sigma, "model": model, "random_seed": 1}
    approx = IsotropicMixture(n_components=4, component_variances="diagonal", **options)
    mixture = approx.mixture
    assert (mixture.log_variances.shape, mixture.metric.shape) == ((4, 10), shape)
    at = list(approx.space.labels).index("level[a]")
    np.testing.assert_allclose(
        mixture.standard_deviations[:, at : at + 3], np.broadcast_to([0.5, 1, 2], (4, 3))
    )
    means = IsotropicMixture(n_components=4, **options).mixture.means
    np.testing.assert_array_equal(mixture.means, means)
