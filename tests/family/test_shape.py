"""The shape of coordinates: inverse, slopes, tails, and how well it fits known densities."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import optimize, special

from pymc_isomix.family import shape as shapes

N_DIM = 6
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
STEP = 1e-5  # of differences


@pytest.fixture
def shape():
    """Tails of any kind; the first coordinate has no shape."""
    rng = np.random.default_rng(0)
    left, right = rng.uniform(-2, 1.4, (2, N_DIM))
    left[0] = right[0] = 0
    return shapes.Shape(rng.normal(size=N_DIM), np.exp(rng.normal(size=N_DIM)), left, right)


@pytest.fixture
def points():
    return 5 * np.random.default_rng(1).normal(size=(500, N_DIM))


def difference(function, at):
    return (function(at + STEP) - function(at - STEP)) / (2 * STEP)


def test_straighten_is_the_inverse(shape, points):
    bent, _, _ = shapes.bend(points, shape)
    np.testing.assert_allclose(shapes.straighten(bent, shape), points, atol=1e-11)
    assert not np.allclose(bent[:, 1:], points[:, 1:], atol=0.1)


def test_coordinates_without_shape_stay_as_they_are(shape, points):
    bent, log_slope, slope = shapes.bend(points, shape)
    np.testing.assert_array_equal(bent[:, 0], points[:, 0])
    assert not log_slope[:, 0].any()
    assert not slope[:, 0].any()
    np.testing.assert_array_equal(shapes.straighten(points, shape)[:, 0], points[:, 0])
    np.testing.assert_array_equal(shapes.is_shaped(shape), np.arange(N_DIM) > 0)


def test_the_map_tends_to_the_identity(shape, points):
    near = shape._replace(left=np.full(N_DIM, 1e-9), right=np.full(N_DIM, -1e-9))
    np.testing.assert_allclose(shapes.bend(points, near)[0], points, atol=1e-6)


def test_the_slopes_are_those_of_differences(shape, points):
    _, log_slope, slope_of_log_slope = shapes.bend(points, shape)
    slope = difference(lambda at: shapes.bend(at, shape)[0], points)
    np.testing.assert_allclose(log_slope, np.log(slope), atol=1e-7)
    expected = difference(lambda at: shapes.bend(at, shape)[1], points)
    np.testing.assert_allclose(slope_of_log_slope, expected, atol=1e-7)


def test_directions_are_those_of_differences(shape, points):
    directions, derivatives = shapes.directions(points, shape)
    slope = np.exp(shapes.bend(points, shape)[1])
    changes = {
        "left": lambda by: {"left": shape.left + by},
        "right": lambda by: {"right": shape.right + by},
        "centre": lambda by: {"centre": shape.centre + by},
        "log width": lambda by: {"width": shape.width * np.exp(by)},
    }
    for change, direction in zip(changes.values(), directions, strict=True):

        def bent(by, change=change):
            return shapes.bend(points, shape._replace(**change(by)))[0]

        expected = difference(bent, 0) / slope
        np.testing.assert_allclose(direction[:, 1:], expected[:, 1:], rtol=1e-5, atol=1e-6)
    expected = difference(lambda at: shapes.directions(at, shape)[0], points)
    np.testing.assert_allclose(derivatives, expected, atol=1e-6)


def test_far_out_each_tail_has_its_exponent(shape):
    for sign, exponent in ((-1, np.exp(shape.left)), (1, np.exp(shape.right))):
        far = shape.centre + sign * shape.width * np.array([[1e12], [1e16]])
        x = np.log(abs(shapes.bend(far, shape)[0] - shape.centre))
        slope = np.diff(x, axis=0)[0] / np.log(1e4)
        # the hyperbola is within 1 / w of its asymptote, w = log(2e12) here
        np.testing.assert_allclose(slope[1:], exponent[1:], rtol=0.06)


def test_nothing_overflows_before_x_itself_does(shape):
    far = np.array([[-1e30], [1e30]]) * np.ones(N_DIM)
    assert all(np.isfinite(part).all() for part in shapes.bend(far, shape))


def test_numpy_and_pytensor_agree(shape, points):
    symbolic = shapes.Shape(*(pt.vector(name) for name in shapes.Shape._fields))
    at = pt.matrix("points", shape=(None, N_DIM))
    outputs = [*shapes.bend(at, symbolic), shapes.straighten(at, symbolic)]
    compiled = pytensor.function([at, *symbolic], outputs, mode="FAST_COMPILE")
    expected = [*shapes.bend(points, shape), shapes.straighten(points, shape)]
    for got, wanted in zip(compiled(points, *shape), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_single_precision_stays_single_and_is_close(shape, points):
    single = shapes.Shape(*(part.astype("float32") for part in shape))
    bent = shapes.bend(points.astype("float32"), single)
    for got, wanted in zip(bent, shapes.bend(points, shape), strict=True):
        assert got.dtype == "float32"
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shapes.straighten(bent[0], single), points, rtol=1e-3, atol=1e-4)
    assert all(part.dtype == "float32" for part in shapes.identity(2, "float32"))


def test_densities_change_by_the_chain_rule(shape, points):
    """A standard normal in y, seen from x and back."""
    bent, *slopes = shapes.bend(points, shape)
    log_slope, slope_of_log_slope = slopes
    log_p = -0.5 * (points**2).sum(axis=1) - log_slope.sum(axis=1)
    gradient = (-points - slope_of_log_slope) / np.exp(log_slope)
    log_density, gradient = shapes.log_density_and_gradient(log_p, gradient, *slopes)
    np.testing.assert_allclose(log_density, -0.5 * (points**2).sum(axis=1))
    np.testing.assert_allclose(gradient, -points, atol=1e-9)
    assert bent.shape == points.shape


def log_gamma(shape):
    return lambda z: shape * z - np.exp(z) - special.gammaln(shape)


def logit_beta(a, b):
    return lambda z: a * -np.logaddexp(0, -z) - b * np.logaddexp(0, z) - special.betaln(a, b)


def short_of_exact(log_density, start, bent=True):
    """Least KL(q|p) of a Gaussian, bent or not, by quadrature; a = b = its mean and deviation."""

    def kl(parameters):
        mean, log_deviation, left, right = np.append(parameters, np.zeros(4))[:4]
        deviation = np.exp(log_deviation)
        shape = shapes.Shape(*(np.array([v]) for v in (mean, deviation, left, right)))
        x, log_slope, _ = shapes.bend(mean + deviation * NODES[:, None], shape)
        log_q = -0.5 * NODES**2 - 0.5 * np.log(2 * np.pi) - log_deviation - log_slope[:, 0]
        return WEIGHTS @ (log_q - log_density(x[:, 0]))

    start = [*start, 0.1, -0.1] if bent else start
    with np.errstate(all="ignore"):
        return optimize.minimize(kl, start, method="Nelder-Mead", options={"maxiter": 4000}).fun


@pytest.mark.parametrize(
    ("log_density", "start", "most"),
    [
        pytest.param(log_gamma(0.5), (-1.5, 0.5), 0.0003, id="log of Gamma(1/2), of HalfNormal"),
        pytest.param(log_gamma(1.0), (-0.5, 0.0), 0.0005, id="log of Exponential"),
        pytest.param(logit_beta(1, 21), (-3.5, 0.0), 0.0003, id="logit of Beta(1, 21)"),
        pytest.param(logit_beta(0.5, 0.5), (0.0, 0.8), 0.0008, id="logit of Beta(1/2, 1/2)"),
    ],
)
def test_scales_and_rates_are_nearly_exact(log_density, start, most):
    assert short_of_exact(log_density, start, bent=False) > 0.02
    assert -1e-9 < short_of_exact(log_density, start) < most
