"""Gaussians by second-order steps: exact where p is Gaussian, and the optimum elsewhere."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from pymc_isomix.fitting import second_order
from pymc_isomix.fitting.second_order import Gaussian, Newton
from pymc_isomix.fitting.target import Target

RNG = np.random.default_rng(3)
ROOT = np.tril(RNG.normal(size=(4, 4))) + 2 * np.eye(4)
MEAN = np.array([3.0, -1.0, 0.0, 10.0])


class Analytic(Target):
    """A log density without parameters."""

    def __init__(self, function):
        self.function, self.n_gradients = function, 0

    def evaluate(self, points, parameters):
        self.n_gradients += len(points)
        return self.function(points)


def normal(points):
    whitened = np.linalg.solve(ROOT, (points - MEAN).T).T
    log_p = (
        -0.5 * (whitened**2).sum(axis=1) - np.log(np.diagonal(ROOT)).sum() - 2 * np.log(2 * np.pi)
    )
    return log_p, -np.linalg.solve(ROOT.T, whitened.T).T


def log_of_half_normal(points):
    """Log of a half-normal scale, in each dimension."""
    log_p = points - 0.5 * np.exp(2 * points) + 0.5 * np.log(2 / np.pi)
    return log_p.sum(axis=1), 1 - np.exp(2 * points)


def start(n_dim=4, **parameters):
    return Gaussian(np.zeros(n_dim), np.eye(n_dim), parameters)


def test_one_step_is_exact_within_its_bounds():
    near = Gaussian(MEAN + 0.3 * ROOT.sum(axis=1) / 4, ROOT * 0.9, {})
    batch = second_order.draw(Analytic(normal), near, 40, np.random.default_rng(0))
    step = Newton.of(batch).step(near, 1.0)
    np.testing.assert_allclose(step.mean, MEAN, atol=1e-6)
    np.testing.assert_allclose(step.root @ step.root.T, ROOT @ ROOT.T, rtol=1e-6)


def test_a_gaussian_is_found_from_afar():
    target = Analytic(normal)
    batch = second_order.fit(target, start(), np.random.default_rng(0))
    np.testing.assert_allclose(batch.gaussian.mean, MEAN, atol=1e-6)
    assert batch.elbo == pytest.approx(0.0, abs=1e-8)
    assert batch.divergence < 1e-12
    assert target.n_gradients < 4000


def test_noise_does_not_hide_that_nothing_is_gained():
    """Single batches differ by more than a quiet step may; eight together tell."""

    def rippled(points):
        log_p, slopes = normal(points)
        return log_p + 2 * np.cos(1e6 * points[:, 0]), slopes  # noise that no gradient shows

    for seed in range(40):
        batches = []
        exact = Gaussian(MEAN, ROOT, {})
        rng = np.random.default_rng(seed)
        second_order.fit(Analytic(rippled), exact, rng, most=60, on_batch=batches.append)
        assert len(batches) <= 2 + 2 * second_order.WINDOW, seed


def test_noise_of_few_draws_is_no_curvature():
    """Of a step from the optimum, least squares of three draws per dimension lose 3.2 nats."""
    n_dim = 40

    def skewed(points):  # best mean -1/2, best covariance the identity
        return (points - np.exp(points)).sum(axis=1), 1 - np.exp(points)

    target, rng = Analytic(skewed), np.random.default_rng(0)
    best = Gaussian(np.full(n_dim, -0.5), np.eye(n_dim), {})
    falls = []
    for _ in range(20):
        batch = second_order.draw(target, best, 2 * n_dim, rng)
        curvature = second_order.regressed(batch.noise, batch.gradients)
        # KL of the covariance that a step takes
        values = 1 / np.linalg.eigvalsh(curvature)
        falls.append(0.5 * (values - 1 - np.log(values)).sum())
    # .03 on average, with a standard error of .01
    assert np.mean(falls) + 3 * np.std(falls) / np.sqrt(20) < 0.1


def test_curvature_is_exact_where_the_score_is_linear():
    """Far from the identity, too, and with pairs of which a few are cut."""
    rng, n_dim = np.random.default_rng(1), 6
    half = rng.normal(size=(9, n_dim))
    noise = np.concatenate([half, -half])[:-1]
    root = rng.normal(size=(n_dim, n_dim))
    curvature = 30 * root @ root.T
    scores = 1.0 - noise @ curvature + (noise**2).sum(axis=1, keepdims=True)  # an even part
    found = second_order.regressed(noise, scores)
    np.testing.assert_allclose(found, curvature, rtol=1e-5, atol=1e-5)


def test_the_ridge_is_the_posterior_mean():
    """By normal equations with the variances of signal and noise that were drawn."""
    rng, n_dim, n = np.random.default_rng(2), 30, 40
    signal, sd = 0.2, 0.5
    half = rng.normal(size=(n, n_dim))
    change = signal * rng.normal(size=(n_dim, n_dim))
    odd = half @ change + sd * rng.normal(size=(n, n_dim)) - half
    found = np.eye(n_dim) - second_order.regressed(
        np.concatenate([half, -half]), np.concatenate([odd, -odd])
    )
    ridge = (sd / signal) ** 2 * np.eye(n_dim)
    expected = np.linalg.solve(half.T @ half + ridge, half.T @ (odd + half))
    # the evidence finds the ratio of variances nearly: ten seeds differ by .0014 at most
    np.testing.assert_allclose(found, (expected + expected.T) / 2, atol=0.005)


def test_many_small_falls_are_no_gain():
    """Each is within its noise; all together are not."""
    calls = []

    def sinking(points):
        calls.append(len(points))
        log_p, slopes = normal(points)
        # noise of one nat that is none of the gradient's, and less at each batch
        return log_p + np.sqrt(2) * np.cos(1e6 * points[:, 0]) - 0.15 * len(calls), slopes

    elbos = []
    batch = second_order.fit(
        Analytic(sinking),
        Gaussian(MEAN, ROOT, {}),
        np.random.default_rng(0),
        most=10,
        on_batch=lambda batch: elbos.append(batch.elbo),
    )
    assert batch.elbo == max(elbos)
    assert elbos[-1] < batch.elbo - 2 * np.hypot(batch.standard_error, batch.standard_error)


def test_a_fit_ends_where_it_is_told_to():
    target = Analytic(normal)
    rng = np.random.default_rng(0)
    second_order.fit(target, start(), rng, should_stop=lambda batch: batch.elbo > -1e3)
    assert target.n_gradients < 2000
    assert target.n_gradients % second_order.LEAST_DRAWS == 0
    fewest = target.n_gradients
    second_order.fit(target, start(), rng)
    assert target.n_gradients > 2 * fewest


def test_the_optimum_of_a_skewed_target():
    """Minimise KL(q || p) over mean and deviation by quadrature, in one dimension."""

    def negative_elbo(parameters):
        mean, log_deviation = parameters
        deviation = np.exp(log_deviation)

        def integrand(u):
            log_p = log_of_half_normal(np.array([[mean + deviation * u]]))[0][0]
            return stats.norm.pdf(u) * (stats.norm.logpdf(u) - log_deviation - log_p)

        return integrate.quad(integrand, -9, 9)[0]

    best = optimize.minimize(negative_elbo, [-0.5, 0.0], method="Nelder-Mead")
    # slopes of exp(2 y) on u have a relative standard error of 6 / sqrt(n), about .02
    batch = second_order.fit(
        Analytic(log_of_half_normal), start(1), np.random.default_rng(0), n_draws=100_000
    )
    # steps that gain less than .02 nats have ended it
    batch = second_order.fit(
        Analytic(log_of_half_normal), batch.gaussian, np.random.default_rng(1), n_draws=100_000
    )
    mean, deviation = batch.gaussian.mean[0], batch.gaussian.root[0, 0]
    assert mean == pytest.approx(best.x[0], abs=0.05 * np.exp(best.x[1]))
    assert deviation == pytest.approx(np.exp(best.x[1]), rel=0.05)
    assert batch.elbo == pytest.approx(-best.fun, abs=4 * batch.standard_error)


def test_a_diagonal_root_takes_each_dimension_by_itself():
    gaussian = Gaussian(np.zeros(4), np.ones(4), {})
    batch = second_order.fit(Analytic(normal), gaussian, np.random.default_rng(0), n_draws=2000)
    precision = np.linalg.inv(ROOT @ ROOT.T)
    np.testing.assert_allclose(batch.gaussian.root, np.diagonal(precision) ** -0.5, rtol=0.1)


def test_short_steps_settle_where_newtons_do():
    gaussian = Gaussian(np.zeros(4), np.full(4, 0.1), {})
    found = second_order.settle_coordinates(Analytic(normal), gaussian, np.random.default_rng(0))
    precision = np.linalg.inv(ROOT @ ROOT.T)
    np.testing.assert_allclose(found.root, np.diagonal(precision) ** -0.5, rtol=0.3)


def test_a_step_that_lowers_the_elbo_is_refused():
    """Heavy tails far out: whatever is accepted is no worse than the start, within its error."""

    def student(points):
        log_p = -3 * np.log1p(points**2 / 5)
        return log_p.sum(axis=1), -6 * points / (5 + points**2)

    elbos = []
    gaussian = Gaussian(np.full(3, 8.0), np.eye(3) * 0.01, {})
    target, rng = Analytic(student), np.random.default_rng(0)
    batch = second_order.fit(target, gaussian, rng, on_batch=lambda b: elbos.append(b.elbo))
    assert batch.elbo == elbos[-1] > elbos[0]
    falls = -np.diff(elbos)
    assert falls.max() < second_order.LARGEST_FALL


def test_the_density_integrates_to_the_evidence():
    gaussian = Gaussian(MEAN, ROOT, {})
    points = MEAN + np.random.default_rng(0).normal(size=(5, 4))
    expected = stats.multivariate_normal(MEAN, ROOT @ ROOT.T).logpdf(points)
    np.testing.assert_allclose(gaussian.log_density(points), expected)
    batch = second_order.draw(Analytic(normal), gaussian, 10, np.random.default_rng(0))
    assert batch.log_evidence == pytest.approx(0.0, abs=1e-10)


def test_the_first_root_is_that_of_the_hessian():
    def narrower(points):
        log_p, gradients = normal(MEAN + 4 * (points - MEAN))
        return log_p, 4 * gradients

    root = second_order.root_by_differences(Analytic(narrower), MEAN, {})
    np.testing.assert_allclose(16 * root @ root.T, ROOT @ ROOT.T, rtol=1e-4)


def test_draws_outside_the_support_are_left_out():
    def half(points):
        log_p, gradients = normal(points)
        return np.where(points[:, 0] > 3.0, log_p, -np.inf), gradients

    batch = second_order.draw(
        Analytic(half), Gaussian(MEAN, ROOT, {}), 100, np.random.default_rng(0)
    )
    assert batch.finite == 0.5  # antithetic about the mean
    assert len(batch.log_weights) == 50
    assert batch.log_evidence == pytest.approx(np.log(0.5))
