import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp

from pymc_isomix.step import updates

GEOMETRIES = ["mirror", "bures", "natural"]


def finite(largest):
    return st.floats(-largest, largest, allow_subnormal=False)


def vectors(largest, size=4):
    return hnp.arrays(float, size, elements=finite(largest))


@pytest.fixture(scope="module")
def take_step():
    """Each variance rule as a function of the vectors log_variances, curvature, step_size."""
    arguments = pt.dvector("log_variances"), pt.dvector("curvature"), pt.dvector("step_size")
    log_variances, curvature, step_size = arguments
    return {
        name: pytensor.function(
            arguments,
            rule.step(log_variances, curvature, step_size=step_size),
            mode="FAST_COMPILE",
            on_unused_input="ignore",
        )
        for name, rule in updates.VARIANCE_UPDATES.items()
    }


@pytest.fixture(scope="module")
def take_weight_step():
    log_weights, divergences = pt.dvector("log_weights"), pt.dvector("divergences")
    step_size = pt.dscalar("step_size")
    return pytensor.function(
        [log_weights, divergences, step_size],
        updates.weight_step(log_weights, divergences, step_size=step_size, largest=3.0),
        mode="FAST_COMPILE",
    )


def test_every_geometry_is_listed():
    assert set(updates.VARIANCE_UPDATES) == {*GEOMETRIES, "fixed"}


@pytest.mark.parametrize("step_size", [0.25, np.array([0.5, 0.0, 2.0])])
def test_mean_step_moves_against_the_shift(step_size):
    rng = np.random.default_rng(1)
    means, shift = rng.normal(size=(2, 3, 4))
    moved = updates.mean_step(means, shift, step_size=step_size).eval(mode="FAST_COMPILE")
    for k, gamma in enumerate(np.broadcast_to(step_size, 3)):
        np.testing.assert_allclose(moved[k], means[k] - gamma * shift[k], rtol=1e-14)


def test_bures_step_is_the_gradient_step_on_a_matrix(take_step):
    """On S = eps I, Eq. 12 is S <- M S M with M = I - (2 K gamma / d) dF/deps I."""
    rng = np.random.default_rng(2)
    n_components, n_dim, gamma = 5, 3, 0.07
    variances, slope = rng.uniform(0.2, 3.0, n_components), rng.normal(size=n_components)
    curvature = 2 * n_components * variances / n_dim * slope
    new = take_step["bures"](np.log(variances), curvature, gamma / variances)
    for k in range(n_components):
        matrix = np.eye(n_dim) - 2 * n_components * gamma / n_dim * slope[k] * np.eye(n_dim)
        expected = matrix @ (variances[k] * np.eye(n_dim)) @ matrix
        np.testing.assert_allclose(np.exp(new[k]) * np.eye(n_dim), expected, rtol=1e-12)


@given(log_variances=vectors(20), curvature=vectors(3), step_size=st.floats(1e-3, 0.3))
def test_mirror_and_natural_steps_are_their_equations(
    take_step, log_variances, curvature, step_size
):
    variances, gamma = np.exp(log_variances), np.full(4, step_size)
    mirror = np.exp(take_step["mirror"](log_variances, curvature, gamma))
    np.testing.assert_allclose(mirror, variances * np.exp(-step_size * curvature), rtol=1e-12)
    natural = np.exp(take_step["natural"](log_variances, curvature, gamma))
    np.testing.assert_allclose(1 / natural, (1 + step_size * curvature) / variances, rtol=1e-12)


@given(log_variances=vectors(50), step_size=st.floats(0, 1e3))
@pytest.mark.parametrize("rule", updates.VARIANCE_UPDATES)
def test_zero_curvature_is_stationary(take_step, rule, log_variances, step_size):
    new = take_step[rule](log_variances, np.zeros(4), np.full(4, step_size))
    np.testing.assert_array_equal(new, log_variances)


def test_fixed_variances_do_not_move(take_step):
    log_variances = np.array([-1.0, 0.0, 2.0])
    new = take_step["fixed"](log_variances, np.array([3.0, -1e9, np.nan]), np.ones(3))
    np.testing.assert_array_equal(new, log_variances)


@pytest.mark.parametrize(
    ("one", "times", "other"), [("bures", 2, "mirror"), ("natural", 1, "mirror")]
)
def test_geometries_agree_to_first_order(take_step, one, times, other):
    """Bures at g and mirror at 2 g differ by O(g^2), as do natural and mirror at g."""
    log_variances, curvature = np.array([-3.0, 0.0, 1.0]), np.array([1.0, -0.5, 2.0])

    def difference(gamma):
        first = take_step[one](log_variances, curvature, np.full(3, gamma))
        second = take_step[other](log_variances, curvature, np.full(3, times * gamma))
        return np.abs(first - second)

    np.testing.assert_allclose(difference(1e-3) / difference(5e-4), 4.0, rtol=0.02)


@given(curvature=vectors(1), step_size=st.floats(1e-3, 0.5))
@pytest.mark.parametrize("rule", GEOMETRIES)
def test_a_small_step_goes_against_the_curvature(take_step, rule, curvature, step_size):
    change = take_step[rule](np.zeros(4), curvature, np.full(4, step_size))
    assert np.all(change * curvature <= 0)


def test_bures_bracket_at_and_below_zero(take_step):
    new = take_step["bures"](np.zeros(3), np.array([1.0, 1.5, 3.0]), np.ones(3))
    np.testing.assert_allclose(
        new, -updates.MAX_LOG_CHANGE
    )  # shrinks, where Eq. 12 would overshoot


def test_natural_precision_never_turns_negative(take_step):
    new = take_step["natural"](np.zeros(3), np.array([-0.5, -1.0, -7.0]), np.ones(3))
    smallest = updates.MIN_PRECISION_FACTOR
    np.testing.assert_allclose(np.exp(-new), [0.5, smallest, smallest])


@pytest.mark.parametrize("curvature", [1e20, 1e300, 1e307])
@pytest.mark.parametrize("rule", GEOMETRIES)
def test_no_curvature_however_large_makes_a_variance_zero_or_infinite(take_step, rule, curvature):
    step_size = np.array([1.0, 10.0, 1.0, 10.0])
    change = take_step[rule](np.zeros(4), curvature * np.array([1.0, 1.0, -1.0, -1.0]), step_size)
    assert np.isfinite(change).all()
    largest = updates.MAX_LOG_CHANGE
    if rule in ("mirror", "bures"):
        np.testing.assert_array_equal(change, [-largest, -largest, largest, largest])
    else:
        precision = np.log(curvature) + np.log(step_size[:2])
        np.testing.assert_allclose(change[:2], -precision, rtol=1e-12)
        np.testing.assert_allclose(change[2:], -np.log(updates.MIN_PRECISION_FACTOR))


@given(weights=hnp.arrays(float, 4, elements=st.floats(1e-3, 1)), divergences=vectors(1e3))
def test_weight_step_stays_on_the_simplex(take_weight_step, weights, divergences):
    log_weights = np.log(weights / weights.sum())
    new = take_weight_step(log_weights, divergences, 0.5)
    np.testing.assert_allclose(logsumexp(new), 0.0, atol=1e-12)


@given(
    weights=hnp.arrays(float, 4, elements=st.floats(1e-3, 1)),
    divergences=vectors(10),
    constant=finite(1e3),
)
def test_weight_step_is_its_equation(take_weight_step, weights, divergences, constant):
    """The odds of two components move by the clipped difference, whatever constant log p lacks."""
    weights = weights / weights.sum()
    new = take_weight_step(np.log(weights), divergences + constant, 0.2)
    expected = weights * np.exp(-0.2 * np.clip(divergences - weights @ divergences, -3.0, 3.0))
    np.testing.assert_allclose(np.exp(new), expected / expected.sum(), rtol=1e-9)


@given(divergences=vectors(5))
def test_weight_step_is_monotone(take_weight_step, divergences):
    new = take_weight_step(np.full(4, -np.log(4)), divergences, 0.3)
    order = np.argsort(divergences)
    assert np.all(np.diff(new[order]) <= 1e-12)
    assert divergences.max() - divergences.min() < 1e-6 or new[order[0]] > new[order[-1]]


def test_weight_step_leaves_equal_components_alone(take_weight_step):
    log_weights = np.log([0.1, 0.2, 0.7])
    np.testing.assert_allclose(
        take_weight_step(log_weights, np.full(3, 123.0), 1.0), log_weights, atol=1e-13
    )


def test_weight_step_keeps_a_dropped_component_out(take_weight_step):
    log_weights = np.array([np.log(0.25), -np.inf, np.log(0.75)])
    new = take_weight_step(log_weights, np.array([1.0, -1e6, 2.0]), 0.3)
    assert new[1] == -np.inf
    expected = take_weight_step(log_weights[[0, 2]], np.array([1.0, 2.0]), 0.3)
    np.testing.assert_allclose(new[[0, 2]], expected, rtol=1e-13)


def test_weight_step_of_one_component(take_weight_step):
    np.testing.assert_array_equal(take_weight_step(np.zeros(1), np.array([17.0]), 1.0), [0.0])


@pytest.mark.parametrize("rule", updates.VARIANCE_UPDATES)
def test_variance_steps_keep_single_precision(rule):
    log_variances, curvature = pt.fvector(), pt.fvector()
    with pytensor.config.change_flags(floatX="float32"):
        new = updates.VARIANCE_UPDATES[rule].step(log_variances, curvature, step_size=0.1)
    assert new.dtype == "float32"
