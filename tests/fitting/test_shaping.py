"""Learning the shape of coordinates: gradients, information, who gets a shape, recentring."""

import numpy as np
import pytest
from scipy import stats

from pymc_isomix.family import metric as metrics
from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.family.shear import Shear
from pymc_isomix.fitting import second_order, shaping, warm_start
from pymc_isomix.fitting.second_order import Gaussian
from pymc_isomix.fitting.target import Target
from pymc_isomix.sites.coordinates import SHAPE

N_DIM = 3
STEP = 1e-5


def antithetic(n_draws, n_dim, seed=0):
    half = np.random.default_rng(seed).normal(size=(n_draws // 2, n_dim))
    return np.concatenate([half, -half])


def correlated(n_dim, correlation=0.6):
    return np.linalg.cholesky((1 - correlation) * np.eye(n_dim) + correlation)


def gradient_in_y(target, points, shape):
    """Gradient in y of a target whose log density and gradient are known in x."""
    bent, *slopes = shapes.bend(points, shape)
    return shapes.log_density_and_gradient(*target(bent), *slopes)[1]


def bent_gaussian(shape, root):
    """Log density and gradient in x of a Gaussian N(0, L L^T) in y."""
    precision = np.linalg.inv(root @ root.T)
    log_normaliser = -np.linalg.slogdet(np.sqrt(2 * np.pi) * root)[1]

    def target(bent):
        points = shapes.straighten(bent, shape)
        _, log_slope, slope_of_log_slope = shapes.bend(points, shape)
        log_p = log_normaliser - 0.5 * ((points @ precision) * points).sum(axis=1)
        gradient = (-points @ precision - slope_of_log_slope) / np.exp(log_slope)
        return log_p - log_slope.sum(axis=1), gradient

    return target


def log_half_normals(bent):
    """The logarithms of half normal variables."""
    return (bent - 0.5 * np.exp(2 * bent)).sum(axis=1), 1 - np.exp(2 * bent)


def test_a_shear_is_a_root_of_correlations(shape):
    """The same proposal as for the matrix L with which it draws."""
    matrix = np.array([[0.0], [0.6], [-0.4]])
    shear, scales = Shear(np.array([0]), matrix), np.array([1.0, 0.7, 1.2])
    mean, noise = np.array([0.3, -0.2, 0.1]), antithetic(60, N_DIM)
    root = np.diag(scales)
    root[:, 0] += matrix[:, 0]
    gradient = gradient_in_y(log_half_normals, shear.apply(mean) + noise @ root.T, shape)
    wanted = shaping.propose(shape, shear.apply(mean), root, noise, gradient)
    got = shaping.propose(shape, mean, scales, noise, shear.pull_back(gradient), shear)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)


@pytest.fixture
def shape():
    left, right = np.array([0.4, -0.3, 0.2]), np.array([-0.6, 0.5, 0.2])
    return shapes.Shape(np.array([0.1, 0.0, -0.3]), np.array([1.0, 0.8, 1.5]), left, right)


def test_the_information_is_the_covariance_of_scores(shape):
    """By differences of log q in x at draws of q, to six standard errors."""
    mean, root = np.array([0.3, -0.2, 0.1]), np.diag([1.0, 0.7, 1.2]) @ correlated(N_DIM)
    deviation = np.sqrt((root**2).sum(axis=1))
    noise = antithetic(20_000, N_DIM)
    bent = shapes.bend(mean + noise @ root.T, shape)[0]

    def log_q(parameters, coordinate):
        place, log_scale, left, right = parameters
        at, moved, scaled = shape, mean.copy(), root.copy()
        moved[coordinate] += place * deviation[coordinate]
        scaled[coordinate] *= np.exp(log_scale)
        for name, by in (("left", left), ("right", right)):
            values = getattr(shape, name).copy()
            values[coordinate] += by
            at = at._replace(**{name: values})
        points = shapes.straighten(bent, at)
        log_slope = shapes.bend(points, at)[1].sum(axis=1)
        return stats.multivariate_normal(moved, scaled @ scaled.T).logpdf(points) - log_slope

    excess = deviation**2 * np.diag(np.linalg.inv(root @ root.T)) - 1
    information, _ = shaping._information(shape, mean, deviation, excess)
    for coordinate in range(N_DIM):
        scores = np.stack(
            [
                (log_q(STEP * unit, coordinate) - log_q(-STEP * unit, coordinate)) / (2 * STEP)
                for unit in np.eye(4)
            ]
        )
        products = scores[:, None] * scores
        error = products.std(axis=2) / np.sqrt(len(noise) / 2)
        assert (abs(products.mean(axis=2) - information[coordinate]) < 6 * error).all()


def test_the_step_follows_the_gradient_of_the_elbo():
    """The path's gradient is that of the ELBO, by differences, to six standard errors."""
    mean, root = np.full(N_DIM, -0.6), 0.8 * correlated(N_DIM, 0.3)
    deviation = np.sqrt((root**2).sum(axis=1))
    shape = shapes.Shape(mean, deviation, np.full(N_DIM, 0.1), np.full(N_DIM, -0.1))
    noise = antithetic(40_000, N_DIM)
    points = mean + noise @ root.T

    def elbo(parameters):
        place, log_scale, left, right = parameters
        at = shape._replace(left=shape.left + left, right=shape.right + right)
        moved = mean + place * deviation + np.exp(log_scale) * (points - mean)
        bent, log_slope, _ = shapes.bend(moved, at)
        return log_half_normals(bent)[0] + log_slope.sum(axis=1) + N_DIM * log_scale

    move = shaping.propose(shape, mean, root, noise, gradient_in_y(log_half_normals, points, shape))
    # one parameter for all coordinates: the sum of their gradients
    each = np.stack([(elbo(STEP * u) - elbo(-STEP * u)) / (2 * STEP) for u in np.eye(4)])
    excess = deviation**2 * np.diag(np.linalg.inv(root @ root.T)) - 1
    information = shaping._information(shape, mean, deviation, excess)[0][0]
    across = np.linalg.solve(information[:2, :2], information[:2, 2:])
    own = information[2:, 2:] - information[:2, 2:].T @ across
    projected = each[2:] - across.T @ each[:2]
    own += shaping.RIDGE * np.trace(own) * np.eye(2)
    got = own @ move.change.sum(axis=1)
    # what the two estimates differ by is Stein's identity, whose noise is that of the scores
    error = np.hypot(projected.std(axis=1), 3 * N_DIM) / np.sqrt(len(noise) / 2)
    assert (abs(got - projected.mean(axis=1)) < 6 * error).all()
    assert (abs(got) > 6 * error).any()


def test_nothing_moves_where_q_is_p(shape):
    root, noise = correlated(N_DIM), antithetic(200, N_DIM)
    points = noise @ root.T
    gradient = gradient_in_y(bent_gaussian(shape, root), points, shape)
    move = shaping.propose(shape, np.zeros(N_DIM), root, noise, gradient)
    np.testing.assert_allclose(move.change, 0, atol=1e-8)
    np.testing.assert_allclose(move.gain, 0, atol=1e-12)
    assert not move.wanted.any()


@pytest.mark.parametrize("kind", ["diag", "dense"])
def test_a_known_shape_is_found(shape, kind):
    """From no shape at all, in the right place: a bent Gaussian is in the family."""
    root = np.array([0.9, 1.1, 1.0]) if kind == "diag" else correlated(N_DIM)
    mean, noise = np.zeros(N_DIM), antithetic(400, N_DIM)
    as_matrix = np.diag(root) if kind == "diag" else root
    target = bent_gaussian(shape, as_matrix)
    found = shape._replace(left=np.zeros(N_DIM), right=np.zeros(N_DIM))
    for _ in range(25):
        offsets = noise * root if kind == "diag" else noise @ root.T
        gradient = gradient_in_y(target, mean + offsets, found)
        move = shaping.propose(found, mean, root, noise, gradient)
        found, *_ = shaping.take(move, found, mean, root)
    np.testing.assert_allclose(found.left, shape.left, atol=0.02)
    np.testing.assert_allclose(found.right, shape.right, atol=0.02)


def test_place_and_scale_come_along():
    """Where q was p, their gradients stay zero to first order only if they do."""
    mean, root = np.array([-0.8]), np.array([0.55])
    shape = shapes.Shape(mean, root, np.array([0.3]), np.array([-0.4]))
    noise = antithetic(40_000, 1)
    target = bent_gaussian(shape._replace(centre=np.zeros(1)), np.diag(root))
    half_normal = gradient_in_y(log_half_normals, mean + noise * root, shape)
    move = shaping.propose(shape, mean, root, noise, half_normal)

    def gradients(shape, mean, root):
        at = shape._replace(centre=np.zeros(1))
        gradient = gradient_in_y(target, mean + 0.8 + noise * root, at) * root
        return np.array([gradient.mean(), (gradient * noise).mean() + 1])

    before = gradients(shape, mean, root)
    moved = shaping.take(move, shape, mean, root, damping=0.1)
    alone = moved[0], mean, root
    along, left_behind = (abs(gradients(*at) - before).max() for at in (moved, alone))
    assert along < 0.1 * left_behind


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_gaussian_gets_no_shape(scale):
    """Whether L is right or twice as wide, and the rest correlated."""
    n_dim = 40
    precision = np.linalg.inv(correlated(n_dim) @ correlated(n_dim).T)
    for seed in range(5):
        noise = antithetic(120, n_dim, seed)
        root = scale * correlated(n_dim, 0.3)
        shape = shaping.centred(shapes.identity(n_dim), np.zeros(n_dim), root)
        gradient = -(noise @ root.T) @ precision
        move = shaping.propose(shape, np.zeros(n_dim), root, noise, gradient)
        assert not move.wanted.any()


def test_one_skewed_coordinate_among_many_gets_a_shape():
    n_dim = 30
    noise = antithetic(90, n_dim)
    mean = np.zeros(n_dim)
    mean[0] = -0.65
    root = np.ones(n_dim)
    root[0] = 0.7
    points = mean + noise * root
    gradient = -points
    gradient[:, :1] = log_half_normals(points[:, :1])[1]
    shape = shaping.centred(shapes.identity(n_dim), mean, root)
    move = shaping.propose(shape, mean, root, noise, gradient)
    np.testing.assert_array_equal(np.flatnonzero(move.wanted), [0])
    moved, *_ = shaping.take(move, shape, mean, root, among=move.wanted)
    np.testing.assert_array_equal(shapes.is_shaped(moved), move.wanted)


def test_draws_without_their_opposite_are_left_out(shape):
    """In any order."""
    root, noise = correlated(N_DIM), antithetic(200, N_DIM)
    gradient = gradient_in_y(log_half_normals, noise @ root.T, shape)
    whole = np.delete(np.arange(200), [3, 103])
    expected = shaping.propose(shape, np.zeros(N_DIM), root, noise[whole], gradient[whole])
    mixed = np.random.default_rng(1).permutation(np.delete(np.arange(200), 3))
    got = shaping.propose(shape, np.zeros(N_DIM), root, noise[mixed], gradient[mixed])
    np.testing.assert_allclose(got.change, expected.change)


@pytest.mark.parametrize("kind", ["diag", "dense"])
def test_recentring_keeps_the_quantiles(shape, kind):
    mean, root = np.array([1.2, 0.1, -0.3]), np.array([0.6, 0.8, 1.5])
    if kind == "dense":
        root = root[:, None] * correlated(N_DIM)
    at, new_mean, new_root = shaping.recentre(shape, mean, root)
    units = np.linspace(-2, 2, 9)[:, None]

    def quantiles(shape, mean, root):
        return shapes.bend(mean + metrics.deviations(root) * units, shape)[0]

    before, after = quantiles(shape, mean, root), quantiles(at, new_mean, new_root)
    np.testing.assert_allclose(after, before, atol=0.05 * before.std(axis=0).max())
    assert abs(new_mean[0] - at.centre[0]) / at.width[0] < 0.2 < 1.0
    # where the centre is close, nothing changes
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    np.testing.assert_array_equal(at.left[1:], shape.left[1:])
    if kind == "dense":
        expected = root @ root.T / np.outer(*2 * [metrics.deviations(root)])
        got = new_root @ new_root.T / np.outer(*2 * [metrics.deviations(new_root)])
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_single_precision_stays_single(shape):
    single = shapes.Shape(*(part.astype("float32") for part in shape))
    root, noise = correlated(N_DIM).astype("float32"), antithetic(200, N_DIM).astype("float32")
    mean = np.zeros(N_DIM, "float32")
    gradient = gradient_in_y(log_half_normals, noise @ root.T, single)
    move = shaping.propose(single, mean, root, noise, gradient)
    moved = shaping.take(move, single, mean, root)
    again = shaping.recentre(*moved)
    for part in (*moved[0], *moved[1:], *again[0], *again[1:]):
        assert part.dtype == "float32"


class Bendable(Target):
    """A target known in x, in coordinates that may have a shape."""

    def __init__(self, function):
        self.function, self.n_gradients = function, 0

    def evaluate(self, points, parameters):
        self.n_gradients += len(points)
        if "shape_left" not in parameters:
            return self.function(points)
        bent, *slopes = shapes.bend(points, Shape(*(parameters[n] for n in SHAPE.values())))
        return shapes.log_density_and_gradient(*self.function(bent), *slopes)


def start_of(target, n_dim, with_shape):
    starts = -0.5 + 0.1 * np.random.default_rng(0).normal(size=(3, n_dim))
    rng = np.random.default_rng(1)
    return warm_start.warm_start(target, starts, {}, rng, with_shape=with_shape)


def test_half_normals_are_nearly_exact():
    """Twenty, whose exact evidence is 1: a Gaussian is 3 nats short."""
    target = Bendable(
        lambda bent: (
            log_half_normals(bent)[0] + 0.5 * bent.shape[1] * np.log(2 / np.pi),
            log_half_normals(bent)[1],
        )
    )
    [straight] = start_of(target, 20, with_shape=False)
    [bent] = start_of(target, 20, with_shape=True)
    assert straight.cut().elbo < -2
    # five standard errors; antithetic draws have smaller ones
    assert bent.elbo == pytest.approx(0, abs=0.03 + 5 * bent.standard_error)
    assert set(SHAPE.values()) <= set(bent.gaussian.parameters)


def test_a_gaussian_target_costs_no_more_with_a_shape_allowed():
    with_shape, without = (Bendable(lambda x: (-0.5 * (x**2).sum(axis=1), -x)) for _ in range(2))
    [batch] = start_of(with_shape, 5, with_shape=True)
    start_of(without, 5, with_shape=False)
    assert not batch.gaussian.parameters
    assert with_shape.n_gradients == without.n_gradients


def test_wild_draws_are_cut_and_others_are_not():
    gaussian = Gaussian(np.zeros(1), np.ones(1), {})
    batch = second_order.draw(
        Bendable(lambda x: (-0.5 * (x**2).sum(axis=1), -x)), gaussian, 100, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(batch.cut().log_weights, batch.log_weights)
    wild = batch._replace(log_weights=np.where(np.arange(100) == 7, -1e30, batch.log_weights))
    assert wild.elbo < -1e20
    assert wild.cut().elbo > batch.elbo - 0.1
