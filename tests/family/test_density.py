from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.graph.traversal import ancestors
from scipy import stats
from scipy.special import logsumexp, softmax

from pymc_isomix.family import density
from pymc_isomix.family.mixture import Mixture


class Parameters(NamedTuple):
    means: np.ndarray
    log_variances: np.ndarray
    log_weights: np.ndarray


def random_mixture(n_components, n_dim, seed=0):
    rng = np.random.default_rng([seed, n_components, n_dim])
    weights = rng.dirichlet(np.full(n_components, 3.0))
    return Parameters(
        means=2 * rng.normal(size=(n_components, n_dim)),
        log_variances=rng.uniform(-2, 2, n_components),
        log_weights=np.log(weights),
    )


def isotropic(log_variance, n_dim):
    return stats.Covariance.from_diagonal(np.full(n_dim, np.exp(log_variance)))


def log_terms(points, q):
    """log w_k + log N(u_s; m_k, eps_k I), shape (S, K)."""
    n_dim = q.means.shape[1]
    return np.stack(
        [
            np.reshape(stats.multivariate_normal(m, isotropic(v, n_dim)).logpdf(points), -1)
            + log_weight
            for m, v, log_weight in zip(*q, strict=True)
        ],
        axis=1,
    )


def expected_score(points, q):
    responsibilities = softmax(log_terms(points, q), axis=1)
    score = np.zeros_like(points)
    for k, (mean, log_variance, _) in enumerate(zip(*q, strict=True)):
        score += responsibilities[:, k, None] * (mean - points) / np.exp(log_variance)
    return score


@pytest.fixture(scope="module")
def graph():
    names = [pt.dmatrix("points"), pt.dmatrix("means"), pt.dvector("v"), pt.dvector("w")]
    log_density, score = density.log_density_and_score(*names)
    return names, [log_density, score, density.responsibilities(*names)]


@pytest.fixture(scope="module")
def compiled(graph):
    """The log density, the score and the responsibilities as one function."""
    return pytensor.function(*graph, mode="FAST_COMPILE")


SIZES = [(1, 1), (1, 3), (1, 200), (4, 1), (4, 3), (4, 200)]


@pytest.mark.parametrize(("n_components", "n_dim"), SIZES)
def test_log_density_score_and_responsibilities_match_scipy(compiled, n_components, n_dim):
    q = random_mixture(n_components, n_dim)
    points = 2 * np.random.default_rng(1).normal(size=(7, n_dim))
    log_density, score, responsibilities = compiled(points, *q)
    terms = log_terms(points, q)
    np.testing.assert_allclose(log_density, logsumexp(terms, axis=1), rtol=1e-12)
    np.testing.assert_allclose(score, expected_score(points, q), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(responsibilities, softmax(terms, axis=1), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(responsibilities.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize(("n_components", "n_dim"), SIZES)
def test_a_thousand_standard_deviations_away(compiled, n_components, n_dim):
    """Nothing is clipped: the log density is about -5e5 and the score follows the nearest terms."""
    q = random_mixture(n_components, n_dim)
    direction = np.random.default_rng(2).normal(size=(5, n_dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = q.means[0] + 1e3 * np.exp(q.log_variances.max() / 2) * direction
    log_density, score, responsibilities = compiled(points, *q)
    terms = log_terms(points, q)
    assert log_density.max() < -4e5
    np.testing.assert_allclose(log_density, logsumexp(terms, axis=1), rtol=1e-10)
    np.testing.assert_allclose(score, expected_score(points, q), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(responsibilities.sum(axis=1), 1.0, rtol=1e-12)


def test_narrow_components_far_from_each_other(compiled):
    """A million standard deviations apart; the square of that times 1e-16 is what cancels."""
    q = Parameters(np.array([[0.0, 0.0], [1e3, -1e3]]), np.log([1e-6, 1e-6]), np.log([0.3, 0.7]))
    points = q.means + 1e-3
    log_density, score, _ = compiled(points, *q)
    np.testing.assert_allclose(log_density, logsumexp(log_terms(points, q), axis=1), atol=2e-3)
    np.testing.assert_allclose(score, expected_score(points, q), rtol=1e-3)


@pytest.mark.parametrize(
    "far",
    [0.0, 1e7],
)
def test_a_dropped_component_leaves_no_trace(compiled, far):
    q = random_mixture(3, 3)
    points = 2 * np.random.default_rng(3).normal(size=(6, 3))
    dropped = Parameters(
        np.insert(q.means, 1, far, axis=0),
        np.insert(q.log_variances, 1, 0.3),
        np.insert(q.log_weights, 1, -np.inf),
    )
    log_density, score, responsibilities = compiled(points, *dropped)
    expected = compiled(points, *q)
    np.testing.assert_array_equal(responsibilities[:, 1], 0.0)
    np.testing.assert_allclose(log_density, expected[0], rtol=1e-10)
    np.testing.assert_allclose(score, expected[1], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(np.delete(responsibilities, 1, axis=1), expected[2], rtol=1e-9)


@settings(max_examples=30)
@given(n_components=st.integers(1, 5), n_dim=st.integers(1, 4), seed=st.integers(0, 2**20))
def test_components_are_exchangeable_and_can_be_split(compiled, n_components, n_dim, seed):
    q = random_mixture(n_components, n_dim, seed)
    rng = np.random.default_rng(seed)
    points = 3 * rng.normal(size=(3, n_dim))
    log_density, score, _ = compiled(points, *q)

    order = rng.permutation(n_components)
    permuted = compiled(points, *(value[order] for value in q))
    np.testing.assert_allclose(permuted[0], log_density, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(permuted[1], score, rtol=1e-10, atol=1e-10)

    halves = Parameters(*(np.concatenate([value[:1], value]) for value in q))
    halves.log_weights[:2] -= np.log(2)
    split = compiled(points, *halves)
    np.testing.assert_allclose(split[0], log_density, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(split[1], score, rtol=1e-10, atol=1e-10)


def test_no_digits_are_lost_far_from_the_origin():
    """A translation by 2^20 is exact in these numbers, and changes nothing."""
    q = random_mixture(3, 4)
    grid = 2.0**-20
    means = np.round(q.means / grid) * grid
    points = np.round(np.random.default_rng(4).normal(size=(6, 4)) / grid) * grid
    values = {"log_variances": q.log_variances, "log_weights": q.log_weights, "metric": np.ones(())}
    near = Mixture(means, **values).evaluate(points)
    far = Mixture(means + 2.0**20, **values).evaluate(points + 2.0**20)
    np.testing.assert_allclose(far[0], near[0], rtol=1e-8)
    np.testing.assert_allclose(far[1], near[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("distance", [1.0, 1e3])
def test_single_precision_is_good_to_a_thousandth_of_a_nat(distance):
    """Two neighbours and two components that are far from them, in their standard deviations."""
    rng = np.random.default_rng(0)
    means = (distance * rng.normal(size=(4, 5))).astype("float32")
    means[1] = means[0] + 0.5
    points = (means.repeat(5, axis=0) + rng.normal(size=(20, 5))).astype("float32")
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    with pytensor.config.change_flags(floatX="float32"):
        parameters = [means, np.zeros(4, "float32"), np.log(weights).astype("float32")]
        found = density.log_density(points, *map(pt.as_tensor, parameters))
        found = found.eval(mode="FAST_COMPILE")
    expected = logsumexp(
        [
            np.log(w) + stats.multivariate_normal(m, np.eye(5)).logpdf(points.astype(float))
            for w, m in zip(weights, means.astype(float), strict=True)
        ],
        axis=0,
    )
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_score_is_the_gradient_of_the_log_density(graph, compiled):
    (points, *parameters), (log_density, _, _) = graph
    gradient = pytensor.function(
        [points, *parameters], pt.grad(log_density.sum(), points), mode="FAST_COMPILE"
    )
    q = random_mixture(4, 3)
    values = 3 * np.random.default_rng(5).normal(size=(6, 3))
    np.testing.assert_allclose(gradient(values, *q), compiled(values, *q)[1], rtol=1e-10)


def test_memory_grows_with_points_times_components_only(graph):
    """No (S, K, d) array: every intermediate is at most a matrix."""
    assert max(variable.type.ndim for variable in ancestors(graph[1])) == 2


def test_log_density_is_the_first_of_both():
    q = random_mixture(2, 2)
    points = np.zeros((1, 2))
    np.testing.assert_array_equal(
        density.log_density(points, *q).eval(mode="FAST_COMPILE"),
        density.log_density_and_score(points, *q)[0].eval(mode="FAST_COMPILE"),
    )


@pytest.mark.parametrize(("n_components", "n_dim"), [(1, 1), (4, 3), (6, 20)])
def test_moments(n_components, n_dim):
    """Against E[x x^T] - E[x] E[x]^T, and the mean and variance of weighted points."""
    q = random_mixture(n_components, n_dim)
    weights, variances = np.exp(q.log_weights), np.exp(q.log_variances)
    mean, between, diagonal, within = pytensor.function(
        [],
        [
            density.mean(q.means, q.log_weights),
            density.between_covariance(q.means, q.log_weights),
            density.between_variance(q.means, q.log_weights),
            density.within_variance(q.log_variances, q.log_weights),
        ],
        mode="FAST_COMPILE",
    )()
    expected_mean = np.average(q.means, axis=0, weights=weights)
    second = sum(
        w * (v * np.eye(n_dim) + np.outer(m, m))
        for w, v, m in zip(weights, variances, q.means, strict=True)
    )
    covariance = second - np.outer(expected_mean, expected_mean)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(between + within * np.eye(n_dim), covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(diagonal, np.diag(between), rtol=1e-12, atol=1e-15)


def test_moments_do_not_see_a_dropped_component():
    q = Parameters(np.array([[1.0], [50.0]]), np.log([2.0, 9.0]), np.array([0.0, -np.inf]))
    moments = [
        density.mean(q.means, q.log_weights)[0],
        density.between_variance(q.means, q.log_weights)[0],
        density.within_variance(q.log_variances, q.log_weights),
    ]
    np.testing.assert_allclose(
        pytensor.function([], moments, mode="FAST_COMPILE")(), [1.0, 0.0, 2.0], atol=1e-15
    )


def test_single_precision_stays_single():
    arguments = [pt.fmatrix(), pt.fmatrix(), pt.fvector(), pt.fvector()]
    with pytensor.config.change_flags(floatX="float32"):
        outputs = [*density.log_density_and_score(*arguments), density.responsibilities(*arguments)]
        assert {variable.dtype for variable in outputs} == {"float32"}
        evaluate = pytensor.function(arguments, outputs, mode="FAST_COMPILE")
    q = random_mixture(4, 3)
    points = 2 * np.random.default_rng(6).normal(size=(7, 3))
    log_density, score, _ = evaluate(*(value.astype("float32") for value in (points, *q)))
    np.testing.assert_allclose(log_density, logsumexp(log_terms(points, q), axis=1), rtol=1e-5)
    np.testing.assert_allclose(score, expected_score(points, q), rtol=1e-3, atol=1e-4)


# Diagonal variances, (K, d)


def random_diagonal_mixture(n_components, n_dim):
    q = random_mixture(n_components, n_dim)
    own = np.random.default_rng(9).uniform(-2, 2, (n_components, n_dim))
    return q._replace(log_variances=own)


def diagonal_log_terms(points, q):
    """log w_k + log N(u_s; m_k, diag eps_k), shape (S, K)."""
    sd = np.exp(q.log_variances / 2)
    rows = zip(q.means, sd, q.log_weights, strict=True)
    return np.stack([stats.norm(m, s).logpdf(points).sum(axis=1) + w for m, s, w in rows], axis=1)


@pytest.fixture(scope="module")
def diagonal_graph():
    names = [pt.dmatrix("points"), pt.dmatrix("means"), pt.dmatrix("v"), pt.dvector("w")]
    log_density, score = density.log_density_and_score(*names)
    return names, [log_density, score, density.responsibilities(*names)]


@pytest.fixture(scope="module")
def diagonal(diagonal_graph):
    return pytensor.function(*diagonal_graph, mode="FAST_COMPILE")


@pytest.mark.parametrize("far", [0.0, 1e3])
@pytest.mark.parametrize(("n_components", "n_dim"), SIZES)
def test_diagonal_components_match_scipy(diagonal, n_components, n_dim, far):
    q = random_diagonal_mixture(n_components, n_dim)
    points = far + 2 * np.random.default_rng(1).normal(size=(7, n_dim))
    log_density, score, responsibilities = diagonal(points, *q)
    terms = diagonal_log_terms(points, q)
    shares = softmax(terms, axis=1)
    pulls = np.stack(
        [(m - points) / np.exp(v) for m, v in zip(q.means, q.log_variances, strict=True)]
    )
    np.testing.assert_allclose(log_density, logsumexp(terms, axis=1), rtol=1e-11)
    np.testing.assert_allclose(score, np.einsum("sk,ksd->sd", shares, pulls), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(responsibilities, shares, rtol=1e-8, atol=1e-300)


@pytest.mark.parametrize("n_dim", [1, 3])
def test_equal_diagonals_are_isotropic(compiled, diagonal, n_dim):
    q = random_mixture(4, n_dim)
    rows = q._replace(log_variances=np.repeat(q.log_variances[:, None], n_dim, axis=1))
    points = 2 * np.random.default_rng(1).normal(size=(7, n_dim))
    for one, other in zip(diagonal(points, *rows), compiled(points, *q), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_diagonal_components_make_no_larger_arrays(diagonal_graph):
    """Two matrix products, and no (S, K, d) array."""
    assert max(variable.type.ndim for variable in ancestors(diagonal_graph[1])) == 2


def test_a_dropped_diagonal_component_leaves_no_trace(diagonal):
    q = random_diagonal_mixture(3, 3)
    points = 2 * np.random.default_rng(3).normal(size=(6, 3))
    dropped = Parameters(
        np.insert(q.means, 1, 1e3, axis=0),
        np.insert(q.log_variances, 1, 0.3, axis=0),
        np.insert(q.log_weights, 1, -np.inf),
    )
    got, expected = diagonal(points, *dropped), diagonal(points, *q)
    np.testing.assert_array_equal(got[2][:, 1], 0.0)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-9, atol=1e-10)


def test_mean_variance_of_diagonal_components():
    q = random_diagonal_mixture(4, 3)
    within = density.within_variance(q.log_variances, q.log_weights).eval(mode="FAST_COMPILE")
    expected = np.average(np.exp(q.log_variances), axis=0, weights=np.exp(q.log_weights))
    np.testing.assert_allclose(within, expected)


def test_diagonal_components_in_single_precision_stay_so():
    arguments = [pt.fmatrix(), pt.fmatrix(), pt.fmatrix(), pt.fvector()]
    with pytensor.config.change_flags(floatX="float32"):
        outputs = density.log_density_and_score(*arguments)
    assert {variable.dtype for variable in outputs} == {"float32"}
