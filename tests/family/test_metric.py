import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from pymc_isomix.family import metric as metrics

N_DIM = {"identity": 0, "diag": 1, "dense": 2}
LARGEST = 0.1


def as_matrix(metric, n_dim):
    """L as a (d, d) matrix."""
    return np.diag(np.broadcast_to(metric, n_dim)) if metric.ndim < 2 else metric


def random_metric(kind, n_dim, rng):
    diagonal = np.exp(rng.uniform(-2, 2, n_dim))
    if kind == "identity":
        return np.asarray(diagonal[0])
    if kind == "diag":
        return diagonal
    return np.tril(rng.normal(size=(n_dim, n_dim)), -1) + np.diag(diagonal)


def random_symmetric(n_dim, rng, scale=1.0):
    matrix = scale * rng.normal(size=(n_dim, n_dim))
    return matrix + matrix.T


@pytest.fixture(scope="module", params=metrics.KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def maps(kind):
    """All maps and summaries of one kind, as a function of (metric, vectors)."""
    metric, vectors = pt.tensor("metric", shape=(None,) * N_DIM[kind]), pt.dmatrix("vectors")
    n_dim = vectors.shape[1]
    outputs = {
        "unwhiten": metrics.unwhiten(metric, vectors),
        "whiten": metrics.whiten(metric, vectors),
        "there and back": metrics.whiten(metric, metrics.unwhiten(metric, vectors)),
        "whiten_gradient": metrics.whiten_gradient(metric, vectors),
        "unwhiten_gradient": metrics.unwhiten_gradient(metric, vectors),
        "log_determinant": metrics.log_determinant(metric, n_dim),
        "covariance": metrics.covariance(metric, n_dim),
        "variance": metrics.variance(metric, n_dim),
    }
    compiled = pytensor.function([metric, vectors], list(outputs.values()), mode="FAST_COMPILE")
    return lambda *values: dict(zip(outputs, compiled(*values), strict=True))


@pytest.fixture(scope="module")
def take_step():
    """The step of a diagonal and of a dense metric, of (metric, gradient, step_size)."""
    step_size = pt.dscalar("step_size")
    functions = {}
    for name, metric, gradient in [
        ("diag", pt.dvector("metric"), pt.dvector("gradient")),
        ("dense", pt.dmatrix("metric"), pt.dmatrix("gradient")),
    ]:
        new = metrics.step(metric, gradient, step_size=step_size, largest=LARGEST)
        functions[name] = pytensor.function([metric, gradient, step_size], new, mode="FAST_COMPILE")
    return functions


@pytest.fixture(scope="module")
def spectral_norm():
    matrix = pt.dmatrix()
    return pytensor.function([matrix], metrics.spectral_norm(matrix), mode="FAST_COMPILE")


@settings(max_examples=25)
@given(n_dim=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_maps_are_those_of_the_full_matrix(kind, maps, n_dim, seed):
    rng = np.random.default_rng(seed)
    metric, vectors = random_metric(kind, n_dim, rng), rng.normal(size=(3, n_dim))
    full = as_matrix(metric, n_dim)
    got = maps(metric, vectors)
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(got["there and back"], vectors, **close)
    for row, vector in enumerate(vectors):
        np.testing.assert_allclose(got["unwhiten"][row], full @ vector, **close)
        np.testing.assert_allclose(full @ got["whiten"][row], vector, **close)
        np.testing.assert_allclose(got["whiten_gradient"][row], full.T @ vector, **close)
        np.testing.assert_allclose(full.T @ got["unwhiten_gradient"][row], vector, **close)


@settings(max_examples=25)
@given(n_dim=st.integers(1, 5), seed=st.integers(0, 2**20), sign=st.sampled_from([1, -1]))
def test_summaries_are_those_of_the_full_matrix(kind, maps, n_dim, seed, sign):
    metric = sign * random_metric(kind, n_dim, np.random.default_rng(seed))
    full = as_matrix(metric, n_dim)
    got = maps(metric, np.zeros((1, n_dim)))
    np.testing.assert_allclose(got["log_determinant"], np.linalg.slogdet(full)[1], atol=1e-12)
    np.testing.assert_allclose(got["covariance"], full @ full.T, rtol=1e-12)
    np.testing.assert_allclose(got["variance"], np.diag(full @ full.T), rtol=1e-12)


def test_kind_is_told_by_the_number_of_dimensions(kind):
    metric = pt.tensor(shape=(None,) * N_DIM[kind])
    assert metrics.kind(metric) == kind


def test_gradients_reach_the_free_entries_only(kind):
    n_dim = 3
    metric = pt.tensor("metric", shape=(n_dim,) * N_DIM[kind], dtype="float64")
    total = (metrics.differentiable(metric) * np.arange(1.0, 10.0).reshape(3, 3)).sum()
    gradient = pt.grad(total, metric, disconnected_inputs="ignore").eval(
        {metric: random_metric(kind, n_dim, np.random.default_rng(0))},
        mode="FAST_COMPILE",
        on_unused_input="ignore",
    )
    expected = {
        "identity": 0.0,
        "diag": [12.0, 15.0, 18.0],
        "dense": np.tril(np.arange(1.0, 10.0).reshape(3, 3)),
    }
    np.testing.assert_array_equal(gradient, expected[kind])


def test_gradient_is_the_weighted_average_of_outer_products():
    rng = np.random.default_rng(1)
    scores, offsets = rng.normal(size=(2, 8, 3))
    draw_weights = rng.uniform(size=8)
    draw_weights[2] = 0
    product = sum(w * np.outer(s, o) for w, s, o in zip(draw_weights, scores, offsets, strict=True))
    arguments = (pt.as_tensor(scores), pt.as_tensor(offsets), pt.as_tensor(draw_weights))
    dense, diag = pytensor.function(
        [],
        [metrics.gradient(pt.dmatrix(), *arguments), metrics.gradient(pt.dvector(), *arguments)],
        mode="FAST_COMPILE",
    )()
    np.testing.assert_allclose(dense, (product + product.T) / 2, rtol=1e-12)
    np.testing.assert_allclose(diag, np.diag(product), rtol=1e-12)


@given(
    n_dim=st.integers(1, 6),
    seed=st.integers(0, 2**20),
    scale=st.sampled_from([0.0, 1e-8, 1.0, 1e8]),
    step_size=st.floats(1e-3, 1e3),
)
def test_dense_step_stays_lower_triangular_with_a_positive_diagonal(
    take_step, n_dim, seed, scale, step_size
):
    rng = np.random.default_rng(seed)
    metric, gradient = random_metric("dense", n_dim, rng), random_symmetric(n_dim, rng, scale)
    new = take_step["dense"](metric, gradient, step_size)
    np.testing.assert_array_equal(np.triu(new, 1), 0.0)
    ratio = np.diag(new) / np.diag(metric)
    assert np.all(ratio >= 1 - LARGEST - 1e-9)
    assert np.all(ratio <= 1 + LARGEST + 1e-9)


def test_dense_step_moves_the_covariance_as_the_exponential_does():
    """L L^T differs from that of L expm(-eta M) by O(eta^2): half the step, a quarter of it."""
    rng = np.random.default_rng(2)
    metric, gradient = random_metric("dense", 4, rng), random_symmetric(4, rng)
    step_size = pt.dscalar()
    new = pytensor.function(
        [step_size],
        metrics.step(
            pt.as_tensor(metric), pt.as_tensor(gradient), step_size=step_size, largest=0.5
        ),
        mode="FAST_COMPILE",
    )

    def difference(eta):
        by_step, by_exponential = new(eta), metric @ expm(-eta * gradient)
        return np.linalg.norm(by_step @ by_step.T - by_exponential @ by_exponential.T)

    assert difference(1e-4) < 1e-6 * np.linalg.norm(metric @ metric.T)
    np.testing.assert_allclose(difference(1e-4) / difference(5e-5), 4.0, rtol=0.01)


def test_diagonal_step_is_the_exponential(take_step):
    metric, gradient = np.array([0.5, 2.0, 3.0]), np.array([1.0, -2.0, 0.0])
    new = take_step["diag"](metric, gradient, 0.03)
    np.testing.assert_allclose(new, np.diag(np.diag(metric) @ expm(-0.03 * np.diag(gradient))))


def test_diagonal_step_is_bounded(take_step):
    new = take_step["diag"](np.ones(4), np.array([1e9, -1e9, 2.0, -2.0]), 0.1)
    np.testing.assert_allclose(np.log(new), [-LARGEST, LARGEST, -LARGEST, LARGEST])


@pytest.mark.parametrize("n_dim", [1, 2, 10, 50])
def test_dense_step_is_bounded(take_step, n_dim):
    """However large the gradient, its spectral norm is cut to about LARGEST, its direction kept.

    The power iteration bounds the norm from below; on these matrices it misses less than a third.
    """
    rng = np.random.default_rng(3)
    metric = np.eye(n_dim) + 0.1 * np.tril(rng.normal(size=(n_dim, n_dim)), -1)
    gradient = random_symmetric(n_dim, rng, 1e3)
    change = np.linalg.solve(metric, take_step["dense"](metric, gradient, 1.0) - metric)
    symmetric = (change + change.T) / 2
    norm = np.linalg.norm(symmetric, 2)
    np.testing.assert_allclose(
        symmetric / norm, -gradient / np.linalg.norm(gradient, 2), rtol=1e-6, atol=1e-9
    )
    assert LARGEST * (1 - 1e-9) <= norm <= 1.3 * LARGEST


def test_a_small_dense_step_is_not_cut(take_step):
    rng = np.random.default_rng(4)
    metric, gradient = np.eye(5), random_symmetric(5, rng)
    eta = 0.9 * LARGEST / np.linalg.norm(gradient, 2)
    new = take_step["dense"](metric, gradient, eta)
    half = (new - metric + (new - metric).T) / 2
    np.testing.assert_allclose(half, -eta * gradient, atol=1e-12)


def test_the_two_parts_of_a_dense_step_have_bounds_of_their_own():
    """A diagonal gradient takes the step of a diagonal metric, however large what is beside it."""
    rng = np.random.default_rng(5)
    metric, own, noise = (
        random_metric("dense", 4, rng),
        rng.normal(size=4),
        random_symmetric(4, rng),
    )
    noise -= np.diag(np.diag(noise))
    options = {"step_size": 0.05, "largest": LARGEST}

    def moved(gradient, **more):
        args = pt.as_tensor(metric), pt.as_tensor(gradient)
        return metrics.step(*args, **options, **more).eval()

    scaled = np.exp(-np.clip(0.05 * own, -LARGEST, LARGEST))
    np.testing.assert_allclose(moved(np.diag(own), across=0.2), metric * scaled)
    np.testing.assert_allclose(moved(np.diag(own) + 1e3 * noise, across=0.0), metric * scaled)
    slow = metric + 0.2 * (moved(noise) - metric)
    np.testing.assert_allclose(moved(noise, across=0.2), slow)


@given(n_dim=st.integers(1, 8), seed=st.integers(0, 2**20))
def test_spectral_norm_is_between_the_longest_row_and_the_norm(spectral_norm, n_dim, seed):
    """The lower bound is what keeps the diagonal of L positive."""
    matrix = random_symmetric(n_dim, np.random.default_rng(seed))
    norm = spectral_norm(matrix)
    assert norm >= np.linalg.norm(matrix, axis=1).max() * (1 - 1e-12)
    assert norm <= np.linalg.norm(matrix, 2) * (1 + 1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_spectral_norm_finds_a_leading_eigenvalue(spectral_norm, sign):
    rng = np.random.default_rng(5)
    directions, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    eigenvalues = np.concatenate([[sign * 7.0], rng.uniform(-2, 2, 19)])
    matrix = directions @ np.diag(eigenvalues) @ directions.T
    np.testing.assert_allclose(spectral_norm(matrix), 7.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("diag", "float64"),
        ("dense", "float64"),
        ("diag", "float32"),
        ("dense", "float32"),
    ],
)
def test_a_zero_gradient_changes_nothing_in_either_precision(name, dtype):
    rng = np.random.default_rng(6)
    metric = random_metric(name, 3, rng).astype(dtype)
    with pytensor.config.change_flags(floatX=dtype):
        symbol = pt.tensor(shape=metric.shape, dtype=dtype)
        gradient = pt.tensor(shape=metric.shape, dtype=dtype)
        new = metrics.step(symbol, gradient, step_size=0.1, largest=LARGEST)
        assert new.dtype == dtype
        value = pytensor.function([symbol, gradient], new, mode="FAST_COMPILE")(
            metric, np.zeros_like(metric)
        )
    np.testing.assert_array_equal(value, metric)


def test_a_metric_between_diagonal_components_moves_as_one_that_holds_their_shape():
    """L with D is L sqrt(D) with I: both steps make the same L sqrt(D)."""
    rng = np.random.default_rng(11)
    lower = np.tril(rng.normal(size=(4, 4)), -1) + np.diag(rng.uniform(0.5, 2, 4))
    root = rng.uniform(0.2, 3.0, 4)  # of D
    symmetric = rng.normal(size=(4, 4))
    symmetric += symmetric.T  # M of the isotropic component: s u^T for u = xi, s = symmetric xi
    noise = np.eye(4) * np.sqrt(4)  # its mean square is I
    offsets, scores = noise * root, noise @ symmetric / root
    ratios = root**2 / root[:, None] ** 2

    def moved(factor, gradient):
        options = {"step_size": 0.01, "largest": np.inf}
        return metrics.step(pt.as_tensor(factor), gradient, **options).eval(mode="FAST_COMPILE")

    gradient = metrics.gradient(
        pt.as_tensor(lower), scores, offsets, pt.as_tensor(np.full(4, 0.25)), ratios
    )
    np.testing.assert_allclose(
        moved(lower, gradient) * root, moved(lower * root, pt.as_tensor(symmetric)), rtol=1e-10
    )
