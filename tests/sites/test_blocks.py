"""Joined blocks against SciPy's mixtures and against single fits."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats
from scipy.special import logsumexp

import pymc_isomix as pmi
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import Block, BlockMixture
from pymc_isomix.sites.coordinates import CoordinateMap, Coordinates

METRICS = {
    "identity": np.float64(1.3),
    "diag": np.array([0.5, 2.0]),
    "dense": np.array([[1.0, 0.0], [0.8, 0.5]]),
}


@pytest.fixture(scope="module")
def flat():
    with pm.Model() as model:
        pm.Flat("x", shape=2)
    return Coordinates(CoordinateMap(FlatSpace.of(model)))


def block(coordinates, metric, means, variances, weights, source=0):
    mixture = Mixture(
        np.array(means, dtype=float), np.log(variances), np.log(weights), METRICS[metric]
    )
    return Block(mixture, coordinates, source)


@pytest.fixture(scope="module")
def blocks(flat):
    return [
        block(flat, "dense", [[-3, 0], [-2, 1]], [0.5, 2.0], [0.3, 0.7], 0),
        block(flat, "diag", [[3, 0.5]], [[1.0, 0.3]], [1.0], 1),
        block(flat, "identity", [[0, 6], [1, 6]], [0.2, 0.4], [0.5, 0.5], 2),
    ]


def gaussians(blocks, weights):
    """Weight, mean and covariance of each component, by the definition."""
    found = []
    for one, weight in zip(blocks, weights, strict=True):
        q = one.mixture
        root = np.diag(np.ones(2) * q.metric) if q.metric.ndim < 2 else q.metric
        for k in range(q.n_components):
            variances = np.exp(q.log_variances[k]) * np.ones(2)
            found.append((weight * q.weights[k], q.means[k], root @ np.diag(variances) @ root.T))
    return found


def test_log_density_is_that_of_the_weighted_union(blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    points = np.random.default_rng(0).normal(size=(50, 2)) * 4
    each = gaussians(blocks, [0.2, 0.5, 0.3])
    parts = [np.log(w) + stats.multivariate_normal(m, c).logpdf(points) for w, m, c in each]
    log_q, responsibilities = joined.evaluate(points)
    np.testing.assert_allclose(log_q, logsumexp(parts, axis=0), rtol=1e-10)
    np.testing.assert_allclose(responsibilities.sum(axis=1), 1, rtol=1e-10)
    # blocks go by falling weight, and so do their components
    ordered = np.array([parts[i] for i in (2, 3, 4, 0, 1)]).T
    np.testing.assert_allclose(responsibilities, np.exp(ordered - log_q[:, None]), atol=1e-12)


def test_far_away_it_stays_finite(blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    assert np.isfinite(joined.log_density(np.full((1, 2), 1e4))).all()


def test_where_coordinates_overflow_a_block_has_no_density(blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    points = np.array([[np.inf, 0.0], [np.nan, 0.0], [0.5, 1.0]])
    with np.errstate(all="ignore"):
        log_q, shares = joined.evaluate_unconstrained(points)
    np.testing.assert_array_equal(log_q[:2], -np.inf)
    np.testing.assert_array_equal(shares[:2], 0)
    np.testing.assert_array_equal(log_q[2:], joined.log_density(points[2:]))


def test_draws_have_the_moments_of_the_union(blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    points, component = joined.draw(20_000, np.random.default_rng(1))
    each = gaussians(blocks, [0.2, 0.5, 0.3])
    mean = sum(w * m for w, m, _ in each)
    covariance = sum(w * (c + np.outer(m - mean, m - mean)) for w, m, c in each)
    error = np.sqrt(np.diag(covariance) / 20_000)
    assert (np.abs(points.mean(axis=0) - mean) < 4 * error).all()  # four standard errors
    np.testing.assert_allclose(joined.mean, mean)
    share = np.bincount(component, minlength=5) / 20_000
    assert (np.abs(share - joined.weights) < 4 * np.sqrt(joined.weights / 20_000)).all()


def test_shadow_has_the_scales_of_the_components(blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    each = [gaussians(blocks, [0.2, 0.5, 0.3])[i] for i in (2, 3, 4, 0, 1)]
    within = sum(w * c for w, _, c in each)
    np.testing.assert_allclose(joined.sketch.metric @ joined.sketch.metric.T, within, rtol=1e-10)
    np.testing.assert_allclose(
        joined.standard_deviations, [np.sqrt(np.diag(c)) for _, _, c in each], rtol=1e-10
    )
    whitened = [
        np.diag(np.linalg.solve(joined.sketch.metric, c) @ np.linalg.inv(joined.sketch.metric).T)
        for _, _, c in each
    ]
    np.testing.assert_allclose(np.exp(joined.sketch.log_variances), whitened, rtol=1e-10)


def test_shadow_is_the_mixture_itself_where_metrics_are_diagonal(blocks):
    joined = BlockMixture.of(blocks[1:], np.log([0.5, 0.5]))
    points = np.random.default_rng(0).normal(size=(20, 2)) * 4
    np.testing.assert_allclose(joined.sketch.log_density(points), joined.log_density(points))


def test_modes_are_divided_by_valleys_of_the_union(flat, blocks):
    joined = BlockMixture.of(blocks, np.log([0.2, 0.5, 0.3]))
    np.testing.assert_array_equal(joined.mode_labels, [0, 1, 1, 2, 2])
    bridge = block(flat, "identity", [[0, 0.2]], [2.0], [1.0], 3)
    bridged = BlockMixture.of([*blocks, bridge], np.log([0.2, 0.5, 0.1, 0.2]))
    labels = bridged.mode_labels
    assert labels[0] == labels[1] == labels[2]  # the heaviest, the bridge and the dense block


def test_one_block_is_its_mixture(blocks):
    one, points = BlockMixture.of(blocks[:1]), np.random.default_rng(0).normal(size=(20, 2))
    mixture = blocks[0].mixture
    assert one.sketch is mixture
    np.testing.assert_array_equal(one.log_density(points), mixture.log_density(points))
    drawn, expected = (q.draw(10, np.random.default_rng(3)) for q in (one, mixture))
    np.testing.assert_array_equal(drawn[0], expected[0])
    np.testing.assert_array_equal(one.mode_labels, mixture.mode_labels)


def test_with_sites_it_is_the_union_in_unconstrained_space(eight_schools):
    fits = []
    for seed in (1, 2):
        approx = pmi.IsoMix(2, random_seed=seed, start_sigma=0.5, model=eight_schools).approx
        coordinates = approx.coordinates
        shift = 0.3 * np.random.default_rng(seed).normal(size=coordinates.map.n_pseudo)
        approx.groups[0].coordinates = coordinates.replace(
            **{name: value + shift for name, value in coordinates.parameters.items()}
        )
        fits.append(approx)
    blocks = [Block(a.mixture, a.coordinates, i) for i, a in enumerate(fits)]
    joined = BlockMixture.of(blocks, np.log([0.3, 0.7]))
    points, component = joined.draw(200, np.random.default_rng(0))
    z, log_determinant = blocks[1].coordinates.to_unconstrained(points)
    expected = logsumexp(
        [np.log(w) + a.log_density(z) for w, a in zip([0.3, 0.7], fits, strict=True)], axis=0
    )
    np.testing.assert_allclose(
        joined.log_density(points) - log_determinant, expected, rtol=1e-8, atol=1e-8
    )
    # draws of the lighter block lie where that block has them
    own = fits[0].log_density(z[component >= 2])
    assert np.median(own) > np.median(fits[0].log_density(z[component < 2])) - 20
    assert (component >= 2).mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 200))
