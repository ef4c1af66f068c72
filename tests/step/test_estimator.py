from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from scipy import stats
from scipy.special import logsumexp

from pymc_isomix.family.metric import KINDS
from pymc_isomix.step import estimator

STANDARD_ERRORS = 5  # of a Monte Carlo mean; chance alone exceeds it once in 1.7 million


class Target(NamedTuple):
    """A log density that is no Gaussian mixture, and its gradient, at rows of z (S, 2)."""

    bend: float = 0.25

    def log_density(self, z):
        x, y = np.moveaxis(z, -1, 0)
        return -0.25 * (x - 0.5) ** 2 - 0.7 * (y - self.bend * x**2) ** 2

    def gradient(self, z):
        x, y = np.moveaxis(z, -1, 0)
        away = y - self.bend * x**2
        return np.stack([-0.5 * (x - 0.5) + 2.8 * self.bend * x * away, -1.4 * away], axis=-1)


class Compiled(NamedTuple):
    kind: str
    names: tuple  # of the estimates that this kind has
    draw: pytensor.compile.executor.Function
    estimate: pytensor.compile.executor.Function

    def metric(self, factor):
        """The value of this kind of metric for a matrix L."""
        if self.kind == "dense":
            return factor
        return np.diag(factor) if self.kind == "diag" else np.asarray(factor[0, 0])

    def parameters(self, mixture):
        whitened = np.linalg.solve(mixture.factor, mixture.means.T).T
        with np.errstate(divide="ignore"):
            log_weights = np.log(mixture.weights)
        return whitened, np.log(mixture.variances), log_weights, self.metric(mixture.factor)

    def __call__(self, mixture, noise, log_p, gradient_p):
        """Estimates for functions of rows z; the metric gradient as the kind has it."""
        parameters = self.parameters(mixture)
        draws = self.draw(noise, mixture.means, *parameters)
        values = self.estimate(
            noise, mixture.means, *parameters, log_p(draws[2]), gradient_p(draws[2])
        )
        return estimator.Estimates(
            **{"metric_gradient": None, **dict(zip(self.names, values, strict=True))}
        )


@pytest.fixture(scope="module", params=KINDS)
def compiled(request):
    n_dims = {"identity": 0, "diag": 1, "dense": 2}[request.param]
    noise, means, whitened = pt.dtensor3("noise"), pt.dmatrix("means"), pt.dmatrix("whitened")
    log_variances, log_weights = pt.dvector("log_variances"), pt.dvector("log_weights")
    metric = pt.tensor("metric", shape=(None,) * n_dims, dtype="float64")
    log_p, gradient_p = pt.dvector("log_p"), pt.dmatrix("gradient_p")
    parameters = [noise, means, whitened, log_variances, log_weights, metric]
    draws = estimator.draw(noise, means, whitened, log_variances, metric)
    estimates = estimator.estimate(
        draws, log_p, gradient_p, whitened, log_variances, log_weights, metric
    )
    outputs = {name: value for name, value in estimates._asdict().items() if value is not None}
    assert ("metric_gradient" in outputs) == (n_dims > 0)
    options = {"mode": "FAST_COMPILE", "on_unused_input": "ignore"}
    return Compiled(
        request.param,
        tuple(outputs),
        pytensor.function(parameters, list(draws), **options),
        pytensor.function([*parameters, log_p, gradient_p], list(outputs.values()), **options),
    )


def mixture_for(kind, *, uniform=False):
    factors = {
        "identity": np.diag([0.8, 0.8]),
        "diag": np.diag([1.3, 0.6]),
        "dense": np.array([[1.2, 0.0], [0.5, 0.7]]),
    }
    return reference.Mixture(
        means=np.array([[-0.6, 0.1], [0.8, 0.9], [0.4, -0.7]]),
        variances=np.array([0.8, 0.5, 1.1]),
        weights=np.full(3, 1 / 3) if uniform else np.array([0.5, 0.2, 0.3]),
        factor=factors[kind],
    )


def assert_metric_gradient(kind, got, expected, **tolerance):
    if kind == "identity":
        assert got is None
        return
    symmetric = (expected + expected.T) / 2
    np.testing.assert_allclose(
        got, np.diag(symmetric) if kind == "diag" else symmetric, **tolerance
    )


def assert_estimates(kind, got, expected, **tolerance):
    np.testing.assert_allclose(got.mean_gradient, expected.gradient, **tolerance)
    np.testing.assert_allclose(got.curvature, expected.curvature, **tolerance)
    np.testing.assert_allclose(got.divergence, expected.divergence, **tolerance)
    np.testing.assert_allclose(got.log_evidence, expected.log_evidence, **tolerance)
    np.testing.assert_array_equal(got.n_finite, expected.n_finite)
    assert_metric_gradient(kind, got.metric_gradient, expected.metric_gradient, **tolerance)


def test_draws_are_the_noise_scaled_and_placed(compiled):
    """z = mu_k + sqrt(eps_k) L xi and u = m_k + sqrt(eps_k) xi, whatever the origin of u."""
    mixture = mixture_for(compiled.kind)
    noise = np.random.default_rng(0).normal(size=(3, 4, 2))
    whitened, *rest = compiled.parameters(mixture)
    offsets, points, z = compiled.draw(noise, mixture.means, whitened - 7.0, *rest)
    for k in range(3):
        for b in range(4):
            row = 4 * k + b
            expected = np.sqrt(mixture.variances[k]) * noise[k, b]
            np.testing.assert_allclose(offsets[row], expected, rtol=1e-14)
            np.testing.assert_allclose(points[row], whitened[k] - 7.0 + expected, rtol=1e-14)
            np.testing.assert_allclose(z[row], mixture.means[k] + mixture.factor @ expected)


@pytest.mark.parametrize("uniform", [True, False])
def test_estimates_match_the_reference_on_the_same_noise(compiled, uniform):
    mixture, target = mixture_for(compiled.kind, uniform=uniform), Target()
    noise = np.random.default_rng(1).normal(size=(3, 4, 2))
    got = compiled(mixture, noise, target.log_density, target.gradient)
    expected = reference.estimate(
        mixture, noise, lambda z: (target.log_density(z), target.gradient(z))
    )
    assert_estimates(compiled.kind, got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fault", ["log density -inf", "log density nan", "gradient nan"])
def test_draws_that_are_not_finite_are_left_out_and_counted(compiled, fault):
    mixture, target = mixture_for(compiled.kind), Target()
    noise = np.random.default_rng(2).normal(size=(3, 5, 2))
    noise[1, :, 0] = 10.0  # no draw of component 1 is finite, and some of the others are

    def log_density(z):
        beyond = {"log density -inf": -np.inf, "log density nan": np.nan}.get(fault)
        inside = target.log_density(z)
        return inside if beyond is None else np.where(z[..., 0] > 0.2, beyond, inside)

    def gradient(z):
        value = target.gradient(z).copy()
        if fault == "gradient nan":
            value[..., 1] = np.where(z[..., 0] > 0.2, np.nan, value[..., 1])
        return value

    got = compiled(mixture, noise, log_density, gradient)
    expected = reference.estimate(mixture, noise, lambda z: (log_density(z), gradient(z)))
    assert expected.n_finite[1] == 0
    assert 0 < expected.n_finite[0] < 5
    assert 0 < expected.n_finite[2] < 5
    assert_estimates(compiled.kind, got, expected, rtol=1e-10, atol=1e-12)


def test_the_path_gradient_has_no_noise_where_q_equals_p(compiled):
    """Zero at every draw, not on average: two draws a component are enough."""
    mixture = mixture_for(compiled.kind)
    target = np.vectorize(
        lambda z: reference.log_density_and_score(mixture, z), signature="(d)->(),(d)"
    )
    noise = np.random.default_rng(3).normal(size=(3, 2, 2))
    got = compiled(mixture, noise, lambda z: target(z)[0], lambda z: target(z)[1])
    for name in ("mean_gradient", "curvature", "divergence", "log_evidence"):
        np.testing.assert_allclose(getattr(got, name), 0.0, atol=1e-13, err_msg=name)
    assert_metric_gradient(compiled.kind, got.metric_gradient, np.zeros((2, 2)), atol=1e-13)


def replicate(compiled, mixture, log_p, gradient_p, *, replicates=200, n_samples=40):
    """Mean and standard error of each estimate over independent batches of noise."""
    rng = np.random.default_rng(4)
    shape = (len(mixture.means), n_samples, mixture.means.shape[1])
    batches = [
        compiled(mixture, rng.normal(size=shape), log_p, gradient_p) for _ in range(replicates)
    ]
    moments = {}
    for name in ("mean_gradient", "curvature", "divergence", "metric_gradient"):
        values = [getattr(batch, name) for batch in batches]
        if values[0] is not None:
            error = np.std(values, axis=0, ddof=1) / np.sqrt(replicates)
            moments[name] = np.mean(values, axis=0), error
    return moments


def assert_within(moments, expected, *, largest_error):
    """Every mean within STANDARD_ERRORS of its value, and the error small enough to tell."""
    mean, error = moments
    assert error.max() < largest_error
    assert np.all(np.abs(mean - expected) <= STANDARD_ERRORS * error + 1e-12)


def test_unbiased_for_a_gaussian_target(compiled):
    """One component, closed form: KL between N(mu, eps L L^T) and N(b, S) and its gradients."""
    mixture = reference.Mixture(
        means=np.array([[0.7, -0.4]]),
        variances=np.array([0.6]),
        weights=np.ones(1),
        factor=mixture_for(compiled.kind).factor,
    )
    centre, covariance = np.array([0.2, 0.3]), np.array([[1.5, 0.6], [0.6, 0.9]])
    precision = np.linalg.inv(covariance)
    target = stats.multivariate_normal(centre, covariance)
    moments = replicate(compiled, mixture, target.logpdf, lambda z: (centre - z) @ precision)

    factor, eps, difference = mixture.factor, mixture.variances[0], mixture.means[0] - centre
    whitened = factor.T @ precision @ factor
    kl = 0.5 * (
        eps * np.trace(whitened)
        - 2
        + difference @ precision @ difference
        + np.linalg.slogdet(covariance)[1]
        - np.linalg.slogdet(eps * factor @ factor.T)[1]
    )
    slope = 0.5 * (np.trace(whitened) - 2 / eps)  # dKL/deps
    assert_within(moments["mean_gradient"], [factor.T @ precision @ difference], largest_error=0.05)
    assert_within(moments["curvature"], [2 * eps / 2 * slope], largest_error=0.02)
    assert_within(moments["divergence"], [kl], largest_error=0.02)
    if compiled.kind != "identity":
        expected = eps * whitened - np.eye(2)
        expected = np.diag(expected) if compiled.kind == "diag" else expected
        assert_within(moments["metric_gradient"], expected, largest_error=0.03)


def negative_elbo(mixture, target, n_nodes=40):
    """Negative ELBO and each component's share of it, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    shape = mixture.factor @ mixture.factor.T
    shares = []
    for mean, variance in zip(mixture.means, mixture.variances, strict=True):
        z = mean + np.sqrt(variance) * grid @ mixture.factor.T
        log_q = logsumexp(
            [
                np.log(w) + stats.multivariate_normal(m, v * shape).logpdf(z)
                for m, v, w in zip(mixture.means, mixture.variances, mixture.weights, strict=True)
            ],
            axis=0,
        )
        shares.append(weights @ (log_q - target.log_density(z)))
    return mixture.weights @ shares, np.array(shares)


def slope(mixture, target, field, direction, step=1e-4):
    """Slope of the negative ELBO along a direction of one parameter, by central differences."""
    ahead, behind = (
        mixture._replace(**{field: getattr(mixture, field) + h * direction}) for h in (step, -step)
    )
    return (negative_elbo(ahead, target)[0] - negative_elbo(behind, target)[0]) / (2 * step)


@pytest.mark.parametrize("uniform", [True, False])
def test_unbiased_for_a_mixture_against_quadrature(compiled, uniform):
    r"""In expectation g_k, c_k and M are gradients of -ELBO, the rest held fixed; f_k is its share.

    w_k g_k = L^T dF/dmu_k,  w_k c_k = (2 eps_k / d) dF/deps_k,  <M, E> = dF along L <- L (I + h E),
    with w_k = 1/K those of the paper.
    """
    mixture, target = mixture_for(compiled.kind, uniform=uniform), Target()
    moments = replicate(compiled, mixture, target.log_density, target.gradient)
    eye, n_dim = np.eye(3), 2

    gradient, curvature = np.empty((3, n_dim)), np.empty(3)
    for k, weight in enumerate(mixture.weights):
        along = [slope(mixture, target, "means", np.outer(eye[k], axis)) for axis in np.eye(n_dim)]
        gradient[k] = mixture.factor.T @ along / weight
        along = slope(mixture, target, "variances", eye[k])
        curvature[k] = 2 * mixture.variances[k] / n_dim * along / weight
    assert_within(moments["mean_gradient"], gradient, largest_error=0.1)
    assert_within(moments["curvature"], curvature, largest_error=0.1)
    shares = negative_elbo(mixture, target)[1]
    assert_within(moments["divergence"], shares, largest_error=0.05)
    if compiled.kind == "identity":
        return
    matrix = np.array(
        [
            [
                slope(mixture, target, "factor", mixture.factor @ np.outer(row, column))
                for column in np.eye(n_dim)
            ]
            for row in np.eye(n_dim)
        ]
    )
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)  # turning isotropic components is idle
    expected = np.diag(matrix) if compiled.kind == "diag" else matrix
    assert_within(moments["metric_gradient"], expected, largest_error=0.1)


def test_single_precision_stays_single():
    """A float64 constant anywhere would make every parameter's update float64."""
    noise, means, whitened = pt.ftensor3(), pt.fmatrix(), pt.fmatrix()
    log_variances, log_weights, log_p = pt.fvector(), pt.fvector(), pt.fvector()
    with pytensor.config.change_flags(floatX="float32"):
        for metric in (pt.fscalar(), pt.fvector(), pt.fmatrix()):
            draws = estimator.draw(noise, means, whitened, log_variances, metric)
            assert {variable.dtype for variable in draws} == {"float32"}
            estimates = estimator.estimate(
                draws, log_p, pt.fmatrix(), whitened, log_variances, log_weights, metric
            )
            for name, value in estimates._asdict().items():
                if value is not None and name != "n_finite":
                    assert value.dtype == "float32", (name, metric.ndim)
