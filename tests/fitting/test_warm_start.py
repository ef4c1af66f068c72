"""Gaussians at the modes, and what they become."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pymc_isomix.fitting import second_order, warm_start
from pymc_isomix.fitting.second_order import Gaussian
from pymc_isomix.fitting.target import Target

MEANS = np.array([[-6.0, 0.0], [6.0, 3.0]])
ROOTS = np.array([[[1.0, 0.0], [0.5, 1.0]], [[0.5, 0.0], [0.0, 2.0]]])
WEIGHTS = np.array([0.3, 0.7])
RNG = np.random.default_rng(4)


class TwoModes(Target):
    """Two Gaussians of unequal shape; a plateau without gradient where ``flat`` says so."""

    n_gradients = 0

    def evaluate(self, points, parameters):
        self.n_gradients += len(points)
        terms, slopes = [], []
        for weight, mean, root in zip(WEIGHTS, MEANS, ROOTS, strict=True):
            covariance = root @ root.T
            normal = stats.multivariate_normal(mean, covariance)
            terms.append(np.log(weight) + np.atleast_1d(normal.logpdf(points)))
            slopes.append(-np.linalg.solve(covariance, (points - mean).T).T)
        log_p = np.logaddexp(*terms)
        shares = [np.exp(term - log_p)[:, None] for term in terms]
        return log_p, shares[0] * slopes[0] + shares[1] * slopes[1]


@pytest.fixture(scope="module")
def batches():
    starts = np.random.default_rng(0).uniform(-10, 10, (20, 2))
    return warm_start.warm_start(TwoModes(), starts, {}, np.random.default_rng(1))


def test_one_gaussian_of_each_mode_with_its_own_shape(batches):
    assert len(batches) == 2
    found = sorted((batch.gaussian for batch in batches), key=lambda g: g.mean[0])
    for gaussian, mean, root in zip(found, MEANS, ROOTS, strict=True):
        np.testing.assert_allclose(gaussian.mean, mean, atol=1e-3)
        np.testing.assert_allclose(gaussian.root @ gaussian.root.T, root @ root.T, atol=1e-2)


def test_a_further_gaussian_beside_one_with_a_diagonal_root(batches):
    """That of a chain may have one."""
    rng, target = np.random.default_rng(2), TwoModes()
    first, other = batches
    root = np.sqrt((first.gaussian.root**2).sum(axis=1))
    first = second_order.draw(target, replace(first.gaussian, root=root), 500, rng)
    end = other.gaussian.mean[None]
    height, _ = target.evaluate(end, {})
    batch = warm_start._further_gaussian(
        target, [first], end, height, rng, few=True, on_batch=lambda batch: None
    )
    np.testing.assert_allclose(batch.gaussian.mean, end[0], atol=0.2)


def test_masses_are_the_weights(batches):
    left = [batch.gaussian.mean[0] < 0 for batch in batches]
    assert warm_start.masses(batches)[left] == pytest.approx(0.3, abs=1e-4)


def test_a_gaussian_that_is_there_twice_shares_its_mass(batches):
    again = second_order.draw(TwoModes(), batches[0].gaussian, 150, np.random.default_rng(2))
    masses = warm_start.masses([*batches, again])
    assert masses[0] + masses[2] == pytest.approx(warm_start.masses(batches)[0], abs=1e-3)


def test_a_mixture_with_one_metric_keeps_volumes_and_masses(batches):
    masses = warm_start.masses(batches)
    mixture = warm_start.as_mixture(batches, masses, 5, kind="dense")
    assert mixture.n_components == 5
    assert mixture.used.n_components == 2
    np.testing.assert_allclose(mixture.used.weights, masses)
    volumes = mixture.used.log_variances + np.log(np.diagonal(mixture.metric)).sum()  # d = 2
    np.testing.assert_allclose(volumes, [batch.gaussian.log_volume for batch in batches])


def test_spread_components_have_the_moments_of_their_gaussian():
    gaussian = Gaussian(MEANS[0], ROOTS[0], {})
    batch = second_order.draw(TwoModes(), gaussian, 10, np.random.default_rng(0))
    rng, n = np.random.default_rng(0), 4000
    mixture = warm_start.as_mixture([batch], np.ones(1), n, kind="dense", spread=0.3, rng=rng)
    within = np.exp(mixture.log_variances[0]) * mixture.metric @ mixture.metric.T
    covariance = within + np.cov(mixture.means.T)
    expected = ROOTS[0] @ ROOTS[0].T
    # the part between components has a relative standard error of sqrt(2 / n) of .09
    error = 0.09 * np.sqrt(2 / n) * expected.max()
    np.testing.assert_allclose(covariance, expected, atol=5 * error)


def test_gaussians_of_their_own_shapes_are_exact_and_one_alone_is_not(batches):
    masses = warm_start.masses(batches)
    assert warm_start.divergence(batches, masses) < 1e-6
    assert warm_start.is_exact(TwoModes(), batches, masses, np.random.default_rng(0))
    assert not warm_start.have_one_shape(batches, masses)
    wrong = [second_order.draw(TwoModes(), Gaussian(np.zeros(2), 5 * np.eye(2), {}), 300, RNG)]
    assert not warm_start.is_exact(TwoModes(), wrong, np.ones(1), np.random.default_rng(0))


def test_one_shape_but_for_a_factor():
    target = TwoModes()
    wide = [
        second_order.draw(target, Gaussian(mean, factor * ROOTS[0], {}), 10, RNG)
        for mean, factor in zip(MEANS, (1.0, 3.0), strict=True)
    ]
    assert warm_start.have_one_shape(wide, WEIGHTS)


def test_no_start_in_the_support_gives_nothing():
    class Nowhere(TwoModes):
        def evaluate(self, points, parameters):
            return np.full(len(points), np.nan), np.zeros_like(points)

    starts = np.zeros((3, 2))
    assert warm_start.warm_start(Nowhere(), starts, {}, np.random.default_rng(0)) == []


def test_a_diagonal_where_the_budget_ended_early_is_a_matrix():
    gaussian = Gaussian(np.zeros(2), np.array([2.0, 3.0]), {})
    batch = second_order.draw(TwoModes(), gaussian, 10, np.random.default_rng(0))
    mixture = warm_start.as_mixture([batch], np.ones(1), 1, kind="dense")
    np.testing.assert_allclose(mixture.root, np.diag(gaussian.root))


def test_hot_chains_find_the_mode_that_no_start_leads_to():
    start = np.random.default_rng(0).normal(MEANS[0], 1.0, (5, 2))
    found = [
        len(warm_start.warm_start(TwoModes(), start, {}, np.random.default_rng(1), explores=on))
        for on in (True, False)
    ]
    assert found == [2, 1]


class HeavyTails(Target):
    """Two modes of Student's t, in coordinates whose origin is learned: it follows the draws."""

    n_gradients, freedom = 0, 10

    def evaluate(self, points, parameters):
        terms, slopes = [], []
        for weight, mean, root in zip(WEIGHTS, MEANS, ROOTS, strict=True):
            apart = points + parameters["origin"] - mean
            scaled = np.linalg.solve(root @ root.T, apart.T).T
            squares = (apart * scaled).sum(axis=1)
            terms.append(
                np.log(weight) - 0.5 * (self.freedom + 2) * np.log1p(squares / self.freedom)
            )
            terms[-1] -= np.linalg.slogdet(root)[1]
            slopes.append(-(self.freedom + 2) * scaled / (self.freedom + squares)[:, None])
        log_p = np.logaddexp(*terms)
        shares = [np.exp(term - log_p)[:, None] for term in terms]
        return log_p, shares[0] * slopes[0] + shares[1] * slopes[1]

    def learn(self, points, gradients, centre, parameters, damping):
        move = damping * points.mean(axis=0)
        return {"origin": parameters["origin"] + move}, centre - move, np.ones(2)

    def moved(self, points, old, new):
        return points + old["origin"] - new["origin"]


def test_all_modes_are_fitted_in_the_coordinates_of_the_first():
    """Where each learned its own, a Gaussian lay elsewhere for the others, and was Laplace's."""
    starts = np.random.default_rng(0).uniform(-10, 10, (20, 2))
    origin = {"origin": np.ones(2)}
    rng = np.random.default_rng(1)
    found = warm_start.warm_start(HeavyTails(), starts, origin, rng, explores=False)
    assert len(found) == 2
    for batch, root in zip(found, ROOTS[::-1], strict=True):
        covariances = (batch.gaussian.root @ batch.gaussian.root.T, root @ root.T)
        variances = [np.diagonal(covariance) for covariance in covariances]
        # Laplace's are 10 / 12 of the scales'; heavier tails want more than those
        assert (variances[0] > variances[1]).all()


class ManyEffects(Target):
    """Effects N(0, s^2) of 120 data with a noise of one; log s before them, N(0, 1).

    The joint density has no mode but the spike at s = 0, where all effects are nothing.
    """

    n_gradients = 0

    def __init__(self):
        self.data = np.sqrt(2) * np.random.default_rng(0).normal(size=120)

    def evaluate(self, points, parameters):
        self.n_gradients += len(points)
        log_s, effects = np.maximum(points[:, :1], -300), points[:, 1:]
        apart, squares = self.data - effects, effects**2 * np.exp(-2 * log_s)
        terms = -0.5 * squares - log_s - 0.5 * apart**2
        slopes = -effects * np.exp(-2 * log_s) + apart
        of_scale = (squares - 1).sum(axis=1) - log_s[:, 0]
        log_p = terms.sum(axis=1) - 0.5 * log_s[:, 0] ** 2
        return log_p, np.column_stack([of_scale, slopes])

    def log_scale(self):
        """Posterior mean of log s, by quadrature."""
        grid = np.linspace(-5, 3, 4001)
        normal = stats.norm(0, np.sqrt(1 + np.exp(2 * grid)))
        log_p = normal.logpdf(self.data[:, None]).sum(axis=0) - 0.5 * grid**2
        weights = np.exp(log_p - log_p.max())
        return weights @ grid / weights.sum()


class TwoModesOfMany(Target):
    """Two Gaussians in 121 dimensions, twelve standard deviations apart in the first."""

    n_gradients = 0

    def evaluate(self, points, parameters):
        centres = 6.0 * np.eye(1, 121)
        apart = [points - sign * centres for sign in (-1, 1)]
        terms = [-0.5 * (one**2).sum(axis=1) for one in apart]
        log_p = np.logaddexp(*terms)
        shares = [np.exp(term - log_p)[:, None] for term in terms]
        return log_p, -sum(share * one for share, one in zip(shares, apart, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_a_start_below_that_leads_no_higher_leaves_the_modes(seed):
    starts = np.random.default_rng(seed).uniform(-4, 4, (10, 121))
    rng = np.random.default_rng(seed)
    found = warm_start.warm_start(TwoModesOfMany(), starts, {}, rng, explores=False)
    assert sorted(round(batch.gaussian.mean[0]) for batch in found) == [-6, 6]


@pytest.mark.filterwarnings("ignore:overflow encountered")  # in the spike
def test_a_spike_in_which_all_ascents_end_is_left():
    target = ManyEffects()
    starts = np.random.default_rng(1).uniform(-1, 1, (10, 121))
    [batch] = warm_start.warm_start(target, starts, {}, np.random.default_rng(1))
    # a Gaussian of the effects and their scale is no exact one
    assert batch.gaussian.mean[0] == pytest.approx(target.log_scale(), abs=0.1)


class TwoModesBesideAChain(Target):
    """Two modes of the first dimension, of unequal mass; the others are elements of a chain."""

    of_chains = np.arange(4) > 0

    def evaluate(self, points, parameters):
        own = points[:, 0]
        terms = np.stack([np.log(0.01) - 2 * (own + 6) ** 2, np.log(0.99) - 2 * (own - 6) ** 2])
        log_p = np.logaddexp(*terms)
        slope = (np.exp(terms - log_p) * np.stack([-4 * (own + 6), -4 * (own - 6)])).sum(axis=0)
        rest = points[:, 1:]
        gradient = np.concatenate([slope[:, None], -rest], axis=1)
        return log_p - 0.5 * (rest**2).sum(axis=1), gradient

    def sheared_by(self, places, root, centre, parameters):
        assert places.tolist() == [0]
        return parameters, centre, root[0]


def test_the_rest_of_a_chain_leads_to_the_heavier_mode():
    """All starts have elements far out; a Gaussian has been found at the lighter mode."""
    target, rng = TwoModesBesideAChain(), np.random.default_rng(5)
    light = Gaussian(np.array([-6.0, 0, 0, 0]), np.array([0.5, 1, 1, 1]), {})
    batch = second_order.draw(target, light, 100, rng)
    starts = np.array([[-3.0, 90, 90, 90], [4.0, -90, 90, 9]])
    best, ends = warm_start._modes_of_the_rest(target, batch, starts, {}, rng, lambda batch: None)
    np.testing.assert_allclose(best.gaussian.mean, [6, 0, 0, 0], atol=1e-3)
    assert best.deviation < 1e-6
    np.testing.assert_allclose(ends, [[6, 0, 0, 0], light.mean], atol=1e-3)


class SkewBesideAChain(Target):
    """The logarithms of half normal variables, and elements that are correlated or not."""

    has_chains, n_rest, n_time = True, 4, 20

    def __init__(self, correlation):
        n = self.n_time
        self.of_chains = np.arange(self.n_rest + n) >= self.n_rest
        neighbours = np.eye(n, k=1) + np.eye(n, k=-1)
        self.precision = np.eye(n) - correlation * neighbours

    def evaluate(self, points, parameters):
        own, elements = np.split(points, [self.n_rest], axis=1)
        slope = -elements @ self.precision
        log_p = (own - 0.5 * np.exp(2 * own)).sum(axis=1) + 0.5 * (slope * elements).sum(axis=1)
        return log_p, np.concatenate([1 - np.exp(2 * own), slope], axis=1)


@pytest.mark.parametrize(("correlation", "is_dense"), [(0.0, False), (0.45, True)])
def test_only_elements_that_are_correlated_get_a_dense_metric(correlation, is_dense):
    """However far from a Gaussian the rest is: four half normals leave a deviation above 1."""
    target, rng = SkewBesideAChain(correlation), np.random.default_rng(3)
    starts = 0.1 * rng.normal(size=(3, 24))
    [batch] = warm_start.warm_start(target, starts, {}, rng, explores=False)
    assert batch.deviation > warm_start.NEARLY
    assert (batch.gaussian.root.ndim == 2) == is_dense


class OneScaleBesideALongChain(SkewBesideAChain):
    n_rest, n_time = 1, 400


@pytest.mark.parametrize(
    ("correlation", "has_chains", "is_exact"),
    [(0.0, True, False), (0.0, False, True), (0.03, True, False)],
)
def test_exact_elements_do_not_excuse_a_scale(correlation, has_chains, is_exact):
    """Of the logarithm of a half normal, a Gaussian leaves .15 nats."""
    target, rng = OneScaleBesideALongChain(correlation), np.random.default_rng(3)
    target.has_chains = has_chains
    batch = second_order.fit(target, Gaussian(np.zeros(401), np.ones(401), {}), rng, n_draws=600)
    assert 0.1 < batch.divergence < 0.4
    assert warm_start.is_exact(target, [batch], np.ones(1), rng) == is_exact


def test_many_elements_may_be_off_by_a_little():
    target, rng = SkewBesideAChain(0.05), np.random.default_rng(3)
    target.n_rest, target.n_time = 0, 100
    target.of_chains = np.ones(100, bool)
    target.precision = np.eye(100) - 0.02 * (np.eye(100, k=1) + np.eye(100, k=-1))
    batch = second_order.draw(target, Gaussian(np.zeros(100), np.ones(100), {}), 600, rng)
    assert 0.01 < batch.divergence < warm_start._enough(target, batch)
    assert warm_start.is_exact(target, [batch], np.ones(1), rng)


def test_a_gaussian_far_from_the_density_is_no_mode_beside_chains(monkeypatch):
    """Its luckiest draw may seem to have all the mass."""
    target, rng = SkewBesideAChain(0.0), np.random.default_rng(3)
    far = second_order.draw(target, Gaussian(np.full(24, 9.0), np.ones(24), {}), 50, rng)
    junk = far._replace(log_weights=250 * rng.normal(size=50))
    assert junk.log_evidence > 100
    monkeypatch.setattr(warm_start, "_further_gaussians", lambda *_: [junk])
    [batch] = warm_start.warm_start(target, 0.1 * rng.normal(size=(3, 24)), {}, rng)
    assert batch is not junk


def along_bend(target, batch, others):
    rng = np.random.default_rng(2)
    return warm_start._along_bend(target, batch, others, rng, False, lambda batch: None)


def test_a_bend_that_a_shape_covers_is_no_further_mode():
    """Five deviations out, a Gaussian has next to no mass; with a long tail it has."""
    target = SkewBesideAChain(0.0)
    root, mean = np.ones(24), np.zeros(24)
    straight = second_order.draw(target, Gaussian(mean, root, {}), 50, np.random.default_rng(0))
    far = np.where(np.arange(24) == 0, -5.0, 0.0)
    other = second_order.draw(target, Gaussian(far, root, {}), 50, np.random.default_rng(1))
    assert along_bend(target, straight, []) == [straight]
    # where it has none, no valley is in between: a further Gaussian there, for the same mixture
    both = along_bend(target, straight, [other])
    assert both[0] is straight
    assert len(both) == 2
    assert warm_start.lie_along_bend(target, both)
    wide = Gaussian(mean, np.where(np.arange(24) == 0, 3.0, 1.0), {})
    batch = second_order.draw(target, wide, 50, np.random.default_rng(2))
    assert along_bend(target, batch, [other]) == [batch]


def test_a_deep_valley_beside_chains_divides_modes():
    class Divided(TwoModes):
        has_chains = True

    target, rng = Divided(), np.random.default_rng(0)
    pairs = zip(MEANS, ROOTS, strict=True)
    first, other = (second_order.draw(target, Gaussian(*pair, {}), 50, rng) for pair in pairs)
    assert along_bend(target, first, [other]) == []
    assert not warm_start.lie_along_bend(target, [first, other])
    target.has_chains = False  # those of other models keep their own mixtures
    assert not warm_start.lie_along_bend(target, [first, first])


def test_modes_of_next_to_no_mass_are_left_out():
    class Unequal(TwoModes):
        def evaluate(self, points, parameters):
            terms = [
                -20 - 2 * ((points + 6) ** 2).sum(axis=1),
                -2 * ((points - 6) ** 2).sum(axis=1),
            ]
            log_p = np.logaddexp(*terms)
            slopes = [-4 * (points + 6), -4 * (points - 6)]
            shares = [np.exp(term - log_p)[:, None] for term in terms]
            return log_p, shares[0] * slopes[0] + shares[1] * slopes[1]

    starts = np.random.default_rng(0).uniform(-10, 10, (20, 2))
    [batch] = warm_start.warm_start(Unequal(), starts, {}, np.random.default_rng(1))
    np.testing.assert_allclose(batch.gaussian.mean, [6, 6], atol=1e-3)
