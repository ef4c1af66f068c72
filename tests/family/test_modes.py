"""Which components make up one mode, and what mass modes have."""

import tracemalloc

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import stats

from pymc_isomix import IsoMix
from pymc_isomix.family import modes
from pymc_isomix.family.mixture import Mixture


def mixture(means, *, variances=None, weights=None, metric=None):
    means = np.asarray(means, dtype=float)
    n_components = len(means)
    weights = np.full(n_components, 1 / n_components) if weights is None else np.asarray(weights)
    return Mixture(
        means=np.asarray(means),
        log_variances=np.log(np.ones(n_components) if variances is None else variances),
        log_weights=np.log(weights),
        metric=np.ones(()) if metric is None else np.asarray(metric),
    )


@pytest.mark.parametrize("n_dim", [1, 3, 2000])
@pytest.mark.parametrize(("distance", "n_modes"), [(0.0, 1), (3.0, 1), (5.0, 1), (7.0, 2)])
def test_two_components_by_their_distance(n_dim, distance, n_modes):
    # half way, log q lies r^2/8 - log 2 below the ends
    means = np.zeros((2, n_dim))
    means[1] = distance / np.sqrt(n_dim)
    assert len(set(modes.label_modes(mixture(means)))) == n_modes


@pytest.mark.parametrize("distance", [4.0, 5.5, 8.0])
def test_depth_of_a_valley_is_that_of_the_density(distance):
    values = mixture([[0.0], [distance]], variances=[1.0, 2.0], weights=[0.3, 0.7])
    t = modes.POINTS

    def log_q(z):
        return np.log(0.3 * stats.norm(0, 1).pdf(z) + 0.7 * stats.norm(distance, 2**0.5).pdf(z))

    peaks, saddles = modes.peaks_and_saddles(values, [0], [1])
    expected = [log_q(distance) - log_q(0.0), log_q(t * distance).min() - log_q(0.0)]
    np.testing.assert_allclose([peaks[1] - peaks[0], saddles[0] - peaks[0]], expected, rtol=1e-10)


def partition(labels):
    return {frozenset(np.flatnonzero(labels == label)) for label in labels}


@pytest.mark.parametrize(
    ("means", "weights", "expected"),
    [
        ([0, 3, 6, 9], [1, 1, 1, 1], [0, 0, 0, 0]),  # a ridge, end to end 9 sd
        ([0, 8, 1], [0.4, 0.5, 0.1], [0, 1, 0]),
        # light components in the valley belong to one of the modes, and bridge nothing
        ([0, 5, 10], [0.49, 0.02, 0.49], [0, 0, 1]),
        ([0, 4, 8, 12], [0.49, 0.01, 0.01, 0.49], [0, 0, 1, 1]),
        ([-8, 1, 8, 8.5], [0.5, 1e-9, 0.2, 0.3], [0, 1, 1, 1]),
        ([-8, 1, 8, 8.5], [0.5, 0, 0.2, 0.3], [0, 1, 1, 1]),
    ],
)
def test_components_share_a_mode_unless_a_valley_parts_them(means, weights, expected):
    with np.errstate(divide="ignore"):
        values = mixture(np.array(means)[:, None], weights=np.array(weights) / sum(weights))
    labels = modes.label_modes(values)
    assert partition(labels) == partition(np.array(expected))


def test_a_chain_of_close_components_is_one_mode():
    line = np.column_stack([np.arange(0.0, 60.0, 3.0), np.zeros(20)])
    np.testing.assert_array_equal(modes.label_modes(mixture(line)), 0)


@pytest.mark.parametrize("metric", [2.0, [1e-3, 1e3], [[1e-3, 0.0], [500.0, 1e3]]])
def test_modes_are_numbered_by_weight_whatever_the_metric(metric):
    whitened = np.array([[0.0, 0.0], [20.0, 0.0], [1.0, 0.0], [0.0, 30.0]])
    metric = np.asarray(metric)
    means = whitened @ metric.T if metric.ndim == 2 else whitened * metric
    values = mixture(means, weights=[0.2, 0.5, 0.2, 0.1], metric=metric)
    np.testing.assert_array_equal(modes.label_modes(values), [1, 0, 1, 2])


def test_dead_and_equal_components_make_no_modes():
    values = mixture(
        [[0.0], [0.0], [50.0], [100.0]],
        weights=[0.5, 0.3, 1e-9, 0.2 - 1e-9],
        variances=[1, 1, 1, 1],
    )
    np.testing.assert_array_equal(modes.is_dead(values), [False, False, True, False])
    assert modes.label_modes(values)[:2].tolist() == [0, 0]
    assert len(set(modes.label_modes(values))) == 2


def test_one_component_is_one_mode():
    np.testing.assert_array_equal(modes.label_modes(mixture([[1.0, 2.0]])), [0])


def test_masses_from_weighted_draws():
    values = mixture([[-10.0], [10.0]], weights=[0.5, 0.5])
    rng = np.random.default_rng(1)
    component = rng.integers(2, size=4000)
    responsibilities = np.eye(2)[component]
    # p has the same two modes with masses 0.2 and 0.8, and q's shape in each
    weight = np.array([0.4, 1.6])[component]
    own, mass, error = modes.mode_masses(
        modes.label_modes(values), np.array([0.5, 0.5]), responsibilities, weight / weight.sum()
    )
    np.testing.assert_allclose(own, 0.5)
    np.testing.assert_allclose(mass.sum(), 1.0)
    truth = np.array([0.8, 0.2]) if modes.label_modes(values)[0] == 1 else np.array([0.2, 0.8])
    assert np.all(np.abs(mass - truth) < 4 * error)
    assert np.all(error < 0.02)


def test_equal_weights_leave_the_known_masses_without_error():
    own, mass, error = modes.mode_masses(
        np.array([0, 1]), np.array([0.3, 0.7]), np.eye(2)[[0, 1, 1, 0]], np.full(4, 0.25)
    )
    np.testing.assert_array_equal(mass, own)
    np.testing.assert_array_equal(error, 0.0)


# Recovery


@pytest.mark.slow
def test_a_funnel_is_one_mode(eight_schools):
    inference = IsoMix(random_seed=1, model=eight_schools)
    report = inference.fit(progressbar=False, backend="jax").diagnostics(random_seed=1)
    assert report["n_modes"].item() == 1
    assert report["missing_mass"].item() < 0.01
    # the ELBO of a funnel stays 0.1 nats below the evidence at K = 30
    gap = report["log_evidence"] - report["elbo"]
    assert 0 < gap.item() < 0.3
    assert report.verdict in ("good", "doubtful")


@pytest.mark.slow
def test_planted_modes_are_found_with_their_masses():
    masses = np.array([0.35, 0.25, 0.2, 0.1, 0.1])
    places = 8.0 * np.column_stack(
        [np.cos(2 * np.pi * np.arange(5) / 5), np.sin(2 * np.pi * np.arange(5) / 5)]
    )
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        terms = np.log(masses) - 0.5 * ((x - places) ** 2).sum(axis=1) - np.log(2 * np.pi)
        pm.Potential("density", pt.logsumexp(terms))
    start = np.random.default_rng(1).uniform(-12, 12, (30, 2))
    inference = IsoMix(30, start=start, random_seed=1, model=model)
    report = inference.fit(progressbar=False, backend="jax").diagnostics(random_seed=1)
    assert report.verdict == "good"
    assert report["n_modes"].item() == 5
    np.testing.assert_allclose(report["mode_mass"], masses, atol=0.03)
    assert report["log_evidence"].item() == pytest.approx(0.0, abs=0.02)


def test_depth_of_a_valley_between_diagonal_components():
    """Log q by SciPy at the points of the segment, where a third component lies across it."""
    rng = np.random.default_rng(2)
    lower = np.array([[1.0, 0, 0], [0.4, 0.5, 0], [-1, 0.3, 2]])
    values = mixture(rng.normal(size=(3, 3)), variances=rng.uniform(0.1, 2, (3, 3)), metric=lower)
    parts = [
        stats.multivariate_normal(m, lower @ np.diag(np.exp(v)) @ lower.T)
        for m, v in zip(values.means, values.log_variances, strict=True)
    ]

    def log_q(points):
        return np.log(sum(part.pdf(points) for part in parts))

    start, end = values.means[:2]
    along = start + modes.POINTS[:, None] * (end - start)
    peaks, saddles = modes.peaks_and_saddles(values, [0], [1])
    expected = log_q(values.means)
    lowest = min(log_q(along).min(), *expected[:2])
    np.testing.assert_allclose(peaks - peaks[0], expected - expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(saddles[0] - peaks[0], lowest - expected[0], rtol=1e-9, atol=1e-12)


def test_modes_of_equal_diagonals_are_those_of_isotropic_components():
    rng = np.random.default_rng(3)
    means, variances = 4 * rng.normal(size=(12, 3)), rng.uniform(0.3, 3, 12)
    one = mixture(means, variances=variances)
    other = mixture(means, variances=np.repeat(variances[:, None], 3, axis=1))
    np.testing.assert_array_equal(modes.label_modes(one), modes.label_modes(other))
    pooled = [modes.squared_distances(q, modes.squared_mean_deviation) for q in (one, other)]
    np.testing.assert_allclose(*pooled, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("spread", "n_modes"), [([1.0, 0.05], 2), ([1.0, 1.0], 1)])
def test_a_valley_is_as_deep_as_components_are_narrow_across_it(spread, n_modes):
    """Two apart along the second dimension, where a narrow one leaves a valley."""
    variances = np.square([spread, spread])
    values = mixture([[0.0, 0.0], [0.0, 1.0]], variances=variances)
    assert len(set(modes.label_modes(values))) == n_modes


def test_modes_of_many_dimensions_take_little_memory():
    """No (K, K, d) array."""
    n_components, n_dim = 30, 20_000
    rng = np.random.default_rng(4)
    values = mixture(
        rng.normal(size=(n_components, n_dim)), variances=rng.uniform(1, 2, (n_components, n_dim))
    )
    tracemalloc.start()
    modes.label_modes(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.means.nbytes * n_components / 3
