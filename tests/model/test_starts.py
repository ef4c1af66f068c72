"""Where the components start: placement, retries, errors, and first scale."""

import re

import numpy as np
import pymc as pm
import pytest
from scipy import stats

from pymc_isomix import IsoMix
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.model.starts import offending_variables, starting_means, starting_scale

N_COMPONENTS = 3


@pytest.fixture(scope="module")
def model():
    """Two real, a positive and a bounded variable; their unconstrained centre is (3, 3, 0, 0)."""
    with pm.Model(coords={"group": ["a", "b"]}) as model:
        level = pm.Normal("level", 3.0, 2.0, dims="group")
        scale = pm.HalfNormal("scale", 1.0)
        bounded = pm.Uniform("bounded", 2.0, 4.0)
        pm.Normal("y", level.sum() * bounded, scale, observed=[1.5, -2.0])
    return model


def place(model, n_components=N_COMPONENTS, **kwargs):
    kwargs.setdefault("random_seed", 1)
    return starting_means(FlatSpace.of(model), n_components, **kwargs)


def scale(model, metric, start_sigma):
    return starting_scale(FlatSpace.of(model), metric, start_sigma)


@pytest.fixture
def narrow_model():
    """A normal variable of which a potential leaves a small part of the support."""

    def build(low, high, initval=None):
        with pm.Model() as model:
            inside = pm.Normal("inside", 0.0, 1.0, initval=initval)
            pm.Normal("other")
            allowed = (inside > low) & (inside < high)
            pm.Potential("window", pm.math.switch(allowed, 0.0, -np.inf))
        return model

    return build


# Placement


def test_one_start_in_model_space_is_the_centre_of_all_components(model):
    start = {"level": [1.0, 2.0], "scale": 2.0, "bounded": 3.5}
    means = place(model, start=start, init_width=0.0)
    # unconstrained: log of scale; logit of bounded's place in its interval
    expected = [1.0, 2.0, np.log(2.0), np.log(1.5 / 0.5)]
    np.testing.assert_allclose(means, np.tile(expected, (N_COMPONENTS, 1)), rtol=1e-12)


def test_what_a_start_leaves_out_begins_at_the_model_s_initial_point(model):
    means = place(model, start={"level": [1.0, 2.0]}, init_width=0.0)
    np.testing.assert_allclose(means, np.tile([1.0, 2.0, 0.0, 0.0], (N_COMPONENTS, 1)), atol=1e-12)


def test_start_may_go_by_variable(model):
    by_variable = place(model, start={model["level"]: [1.0, 2.0]})
    np.testing.assert_array_equal(by_variable, place(model, start={"level": [1.0, 2.0]}))


def test_initval_of_the_model_is_its_initial_point():
    with pm.Model() as model:
        pm.Normal("level", initval=5.0)
    np.testing.assert_allclose(place(model, init_width=0.0), 5.0)


def test_start_is_spread_by_the_jitter(model):
    means = place(model, 200, start={"level": [1.0, 2.0]}, init_width=0.5)
    noise = means - [1.0, 2.0, 0.0, 0.0]
    assert np.all(np.abs(noise) <= 0.5)
    assert stats.kstest(noise.ravel(), stats.uniform(-0.5, 1.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sequence", [list, tuple])
def test_one_start_for_each_component(model, sequence):
    starts = sequence([{"level": [1.0, 2.0]}, {"scale": 2.0}, {}])
    expected = [[1.0, 2.0, 0.0, 0.0], [3.0, 3.0, np.log(2.0), 0.0], [3.0, 3.0, 0.0, 0.0]]
    # Exactly there: it is the user who spreads them.
    np.testing.assert_allclose(place(model, start=starts), expected, atol=1e-12)


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, np.float32])
def test_array_of_starts_is_in_unconstrained_space(model, convert):
    points = np.arange(12.0).reshape(3, 4) / 4
    np.testing.assert_array_equal(place(model, start=convert(points)), points)


def test_jitter_is_uniform_noise_around_the_initial_point(model):
    noise = place(model, 200, init="jitter", init_width=0.7) - [3.0, 3.0, 0.0, 0.0]
    assert np.all(np.abs(noise) <= 0.7)
    assert stats.kstest(noise.ravel(), stats.uniform(-0.7, 1.4).cdf).pvalue > 1e-3


def test_uniform_is_a_box_around_zero_or_around_the_start(model):
    around_zero = place(model, 200, init="uniform", init_width=5.0)
    assert np.all(np.abs(around_zero) <= 5.0)
    assert stats.kstest(around_zero.ravel(), stats.uniform(-5.0, 10.0).cdf).pvalue > 1e-3
    start = {"level": [10.0, 20.0]}
    around_start = place(model, init="uniform", init_width=0.1, start=start)
    np.testing.assert_allclose(around_start - [10.0, 20.0, 0.0, 0.0], 0.0, atol=0.1)


def test_prior_draws_have_the_prior_s_distribution(model):
    means = place(model, 200, init="prior")
    assert stats.kstest(means[:, :2].ravel(), stats.norm(3.0, 2.0).cdf).pvalue > 1e-3
    assert stats.kstest(np.exp(means[:, 2]), stats.halfnorm.cdf).pvalue > 1e-3
    bounded = 2.0 + 2.0 / (1.0 + np.exp(-means[:, 3]))
    assert stats.kstest(bounded, stats.uniform(2.0, 2.0).cdf).pvalue > 1e-3


def test_start_fixes_its_variables_where_the_others_are_drawn_from_the_prior(model):
    means = place(model, init="prior", start={"level": [1.0, 2.0]})
    np.testing.assert_allclose(means[:, :2], [[1.0, 2.0]] * N_COMPONENTS)
    assert len(np.unique(means[:, 2:])) == 2 * N_COMPONENTS


@pytest.mark.parametrize("init", ["jitter", "prior", "uniform"])
def test_starts_are_reproducible_and_differ(model, init):
    means = place(model, init=init)
    assert means.shape == (N_COMPONENTS, 4)
    assert len(np.unique(means)) == means.size
    np.testing.assert_array_equal(place(model, init=init), means)
    assert not np.any(place(model, init=init, random_seed=2) == means)


def test_starts_of_the_inference_follow_its_seed(model):
    first, second, other = (
        IsoMix(N_COMPONENTS, random_seed=seed, model=model).approx.mixture.means
        for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.any(first == other)


# Retries


@pytest.mark.parametrize(
    "init",
    [
        "prior",
        "jitter",
        "uniform",
    ],
)
def test_start_outside_the_support_is_drawn_again(narrow_model, init):
    # A third of the prior's draws, a quarter of the others are inside.
    means = place(narrow_model(0.5, 5.0), 20, init=init)
    assert np.all(means[:, 0] > 0.5)
    assert len(np.unique(means)) == means.size


def test_jitter_narrows_where_the_support_does(narrow_model):
    # One draw in a thousand would be inside without: fifty tries would fail for each of ten.
    means = place(narrow_model(-0.001, 0.001), 10, init="jitter")
    assert np.all(np.abs(means[:, 0]) < 0.001)


def test_a_prior_whose_draws_divide_by_zero_is_drawn_again():
    # half of the draws of Gamma(.001, .001) round to zero, of which PyTensor takes the inverse
    with pm.Model() as model:
        pm.InverseGamma("variance", 0.001, 0.001)
    assert np.isfinite(place(model, 20, init="prior")).all()


def test_support_that_is_never_met_is_reported(narrow_model):
    message = r"component 0: .* window is not finite\. All 50 draws of init='prior' failed"
    with pytest.raises(ValueError, match=message):
        place(narrow_model(1e9, 2e9), init="prior")


def test_impossible_data_are_reported_by_their_name():
    with pm.Model() as model:
        rate = pm.HalfNormal("rate")
        pm.Exponential("waiting", rate, observed=[1.0, -1.0])
    with pytest.raises(
        ValueError, match=r"component 0: the log density of waiting .*model\.debug\(\)"
    ):
        place(model)


@pytest.mark.filterwarnings("ignore:`find_MAP` will:FutureWarning")
def test_a_start_of_find_map_is_taken():
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        pm.Normal("level")
        pm.Deterministic("double", 2 * scale)
        start = pm.find_MAP(progressbar=False)
    assert {"scale", "scale_log__", "double"} <= set(start)
    means = place(model, start=start, init_width=0.0)
    np.testing.assert_allclose(means[0], [np.log(start["scale"]), start["level"]], atol=1e-12)


def test_unconstrained_values_count_where_the_variable_is_not_named(model):
    start = {"scale_log__": 1.5, "bounded_interval__": 0.5, "bounded": 3.5}
    means = place(model, start=start, init_width=0.0)
    np.testing.assert_allclose(means[0], [3.0, 3.0, 1.5, np.log(1.5 / 0.5)], atol=1e-12)


def test_an_initial_point_that_is_not_finite_is_zero():
    """That of an ordered variable: all equal, log differences of -inf."""
    with pm.Model() as model:
        pm.Normal("cuts", shape=3, transform=pm.distributions.transforms.ordered)
    assert not np.isfinite(model.initial_point()["cuts_ordered__"]).all()
    np.testing.assert_array_equal(place(model, init_width=0.0), np.zeros((N_COMPONENTS, 3)))


def test_where_jitter_fails_the_prior_is_tried(narrow_model):
    """Around an initial point that is far outside, half of the prior is inside."""
    means = place(narrow_model(0.0, 5.0, initval=-50.0), 10)
    assert np.all(means[:, 0] > 0.0)


# Errors


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (4,), (3, 4, 1), (0,)])
def test_array_of_wrong_shape(model, shape):
    message = rf"start must have shape .* = \(3, 4\) .*got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        place(model, start=np.zeros(shape))


def test_list_of_wrong_length(model):
    with pytest.raises(ValueError, match="start must be one dict or a list of n_components = 3"):
        place(model, start=[{}, {}])


@pytest.mark.parametrize("start", [{"depth": 1.0}, [{}, {"depth": 1.0}, {}]])
def test_start_of_an_unknown_variable(model, start):
    message = r"start has 'depth', which is not a free variable of the model; those are \['bounded'"
    with pytest.raises(ValueError, match=message):
        place(model, start=start)


def test_observed_variable_has_no_start(model):
    with pytest.raises(ValueError, match="start has 'y', which is not a free variable"):
        place(model, start={"y": [1.0, 2.0]})


def test_start_of_a_variable_of_wrong_shape(model):
    with pytest.raises(ValueError, match=r"start must be numeric of shape \(2,\) for 'level'; got"):
        place(model, start={"level": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("start", ["prior", [["a"] * 4] * 3])
def test_start_that_is_not_numeric(model, start):
    with pytest.raises((TypeError, ValueError), match="start must be"):
        place(model, start=start)


@pytest.mark.parametrize(
    ("start", "component"),
    [
        ({"bounded": 7.0}, 0),
        ({"bounded": 4.0}, 0),  # on the boundary, which unconstrained space does not reach
        ([{"bounded": 7.0}, {}, {}], 0),
        ([{}, {}, {"bounded": 7.0}], 2),
    ],
)
def test_start_outside_the_support(model, start, component):
    with pytest.raises(ValueError, match=f"component {component}: the log density of bounded"):
        place(model, start=start)


def test_negative_start_of_a_positive_variable(model):
    message = r"component 0: .* scale is not finite\. start has -1\. there: choose a start"
    with pytest.raises(ValueError, match=message):
        place(model, start={"scale": -1.0})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_array_that_is_not_finite(model, value):
    start = np.zeros((3, 4))
    start[1, 2] = value
    with pytest.raises(
        ValueError, match=r"component 1: .* scale is not finite\. Choose a start inside"
    ):
        place(model, start=start)


def test_array_where_the_density_vanishes(narrow_model):
    start = np.array([[0.3, 0.0], [2.0, 0.0]])
    with pytest.raises(ValueError, match=r"component 1: .* window is not finite\. Choose a start"):
        place(narrow_model(0.0, 1.0), 2, start=start)


def test_improper_prior_has_no_draws():
    with pm.Model() as model:
        pm.Flat("anywhere")
        pm.Normal("level")
    with pytest.raises(ValueError, match="init='prior' needs a proper prior for every variable"):
        place(model, init="prior")
    assert np.isfinite(place(model, init="jitter")).all()


def test_offending_variables_are_named(narrow_model):
    model = narrow_model(0.0, 1.0)
    space = FlatSpace.of(model)
    assert offending_variables(space, np.array([0.5, 0.0])) == []
    assert offending_variables(space, np.array([1.5, 0.0])) == ["window"]
    assert offending_variables(space, np.array([0.5, np.nan])) == ["other"]


# First scale


def factor(log_variance, metric, n_dim=4):
    """Return sqrt(eps) L as a matrix."""
    lower = metric if metric.ndim == 2 else metric * np.eye(n_dim)
    return np.exp(log_variance / 2) * lower


@pytest.mark.parametrize("metric", ["identity", "diag", "dense"])
@pytest.mark.parametrize(("start_sigma", "expected"), [(None, 0.1), (2.5, 2.5)])
def test_one_start_sigma_for_all(model, metric, start_sigma, expected):
    first = factor(*scale(model, metric, start_sigma))
    np.testing.assert_allclose(first, expected * np.eye(4), rtol=1e-12)


@pytest.mark.parametrize("metric", ["diag", "dense"])
@pytest.mark.parametrize("name", ["scale", "scale_log__"])  # the latter is PyMC's own way
def test_start_sigma_by_variable(model, metric, name):
    first = factor(*scale(model, metric, {"level": [0.5, 2.0], name: 3.0}))
    np.testing.assert_allclose(first, np.diag([0.5, 2.0, 3.0, 0.1]), rtol=1e-12)


def test_identity_metric_takes_the_root_mean_square(model):
    log_variance, metric = scale(model, "identity", {"level": [1.0, 2.0]})
    assert metric == 1.0
    assert np.exp(log_variance) == pytest.approx((1.0 + 4.0 + 0.01 + 0.01) / 4)


@pytest.mark.parametrize("start_sigma", [-1.0, 0.0, np.nan, np.inf, {"level": [1.0, -1.0]}])
def test_start_sigma_must_be_positive(model, start_sigma):
    with pytest.raises(ValueError, match="start_sigma must be positive and finite; got"):
        scale(model, "diag", start_sigma)


def test_start_sigma_of_an_unknown_variable(model):
    with pytest.raises(ValueError, match="start_sigma has 'depth', which is not a variable"):
        scale(model, "diag", {"depth": 1.0})


@pytest.mark.parametrize("start_sigma", [{"level": [1.0, 2.0, 3.0]}, [1.0, 2.0], "wide"])
def test_start_sigma_of_wrong_shape(model, start_sigma):
    with pytest.raises((TypeError, ValueError), match="start_sigma must"):
        scale(model, "diag", start_sigma)


def test_a_diagonal_metric_never_makes_a_matrix():
    """A (d, d) array would take 80 GB."""
    ordering = {"x": ("x", slice(0, 100_000), (100_000,), "float64")}
    _, metric = starting_scale(FlatSpace(None, ordering), "diag", None)
    assert metric.shape == (100_000,)
