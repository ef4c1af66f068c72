"""The step of the sites: its gradients against numerical ones, its bounds, its fixed point."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites import learning
from pymc_isomix.sites.coordinates import PSEUDO, SHAPE
from pymc_isomix.sites.elementwise import Elementwise
from pymc_isomix.sites.find import find_coordinates, starting_coordinates
from pymc_isomix.sites.learning import AtSites, moved_means, new_pseudo
from pymc_isomix.sites.regression import least_squares

K, B = 2, 3


class Nested:
    """A nested hierarchy with means, draws and scores as numbers; with a shape, or without."""

    def __init__(self, has_shape, build=None):
        with pm.Model() as model:
            (build or self.effects)()
        self.coordinates = find_coordinates(FlatSpace.of(model))
        rng, n_dim = np.random.default_rng(1), self.coordinates.space.n_dim
        starts = 0.5 * rng.normal(size=(K, n_dim))
        self.means, self.pseudo = starting_coordinates(self.coordinates, starts)
        self.offsets = 0.3 * rng.normal(size=(K * B, n_dim))
        self.points = np.repeat(self.means, B, axis=0) + self.offsets
        self.scores = rng.normal(size=(K * B, n_dim))
        self.gradient = -self.points  # what the pseudo-observations expect
        if has_shape:
            left, right = rng.uniform(-0.4, 0.4, (2, n_dim))
            shape = Shape(0.1 * rng.normal(size=n_dim), np.full(n_dim, 0.8), left, right)
            self.coordinates = self.coordinates.with_shape()
            self.pseudo |= dict(zip(SHAPE.values(), shape, strict=True))
            bent, log_slope, slope_of_log_slope = shapes.bend(self.points, shape)
            self.gradient = -bent * np.exp(log_slope) + slope_of_log_slope
        self.draw_weights = rng.dirichlet(np.ones(K * B))

    @staticmethod
    def effects():
        tau = pm.HalfNormal("tau")
        region = pm.Normal("region", pm.Normal("mu"), tau, shape=2)
        pm.Normal("county", region, tau**2, shape=2)

    def step(self, step_size, metric):
        """New pseudo-observations, the means that belong to them, and the metric's scaling."""
        pseudo = {name: pt.as_tensor(value) for name, value in self.pseudo.items()}
        at_draws, at_means = (
            AtSites.of(self.coordinates, pseudo, y, self.coordinates.batched(y, pseudo)[2])
            for y in map(pt.as_tensor, (self.points, self.means))
        )
        new, scaling = new_pseudo(
            self.coordinates,
            pseudo,
            at_draws,
            at_means,
            gradient=pt.as_tensor(self.gradient),
            scores=pt.as_tensor(self.scores),
            draw_weights=pt.as_tensor(self.draw_weights),
            step_size=step_size,
            metric=pt.as_tensor(metric),
        )
        means = moved_means(self.coordinates, at_means, pseudo, new)
        outputs = [*new.values(), means, scaling]
        *values, means, scaling = pytensor.function([], outputs, mode="FAST_COMPILE")()
        return dict(zip(new, values, strict=True)), means, scaling

    def at(self, points, what):
        """Share or spread at points y (S, d), (S, n) of each site."""
        pseudo = {name: pt.as_tensor(value) for name, value in self.pseudo.items()}
        given = self.coordinates.batched(pt.as_tensor(points), pseudo)[2]
        sites = zip(self.coordinates.at(pseudo), given, strict=True)
        return [getattr(form, what)(here, *own).eval() for (form, _, own), here in sites]


METRICS = {"identity": np.ones(()), "diagonal": np.ones(6)}


@pytest.fixture(scope="module")
def nested():
    with pytensor.config.change_flags(cxx=""):
        yield Nested(has_shape=False)


@pytest.fixture(scope="module")
def bent():
    with pytensor.config.change_flags(cxx=""):
        yield Nested(has_shape=True)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_gradient_is_that_of_the_path_that_keeps_the_components_in_z(nested, metric):
    """Numerically: z of the same noise as log c and m move, means (and metric) moving back."""
    check_gradient(nested, metric)


def test_gradient_goes_through_a_shape(bent):
    check_gradient(bent, METRICS["diagonal"])


def check_gradient(nested, metric):
    coordinates, pseudo = nested.coordinates, nested.pseudo
    z_means = coordinates.of(pseudo).to_unconstrained(nested.means)[0]
    z, step = coordinates.of(pseudo).to_unconstrained(nested.points)[0], 1e-5
    n_dim = z.shape[1]
    scores_z = np.empty_like(z)  # (dy/dz)^T s
    for i in range(n_dim):
        moved = [
            coordinates.of(pseudo).from_unconstrained(z + sign * step * np.eye(n_dim)[i])[0]
            for sign in (1, -1)
        ]
        scores_z[:, i] = (nested.scores * (moved[0] - moved[1]) / (2 * step)).sum(axis=1)
    mean_share = nested.draw_weights @ np.concatenate(nested.at(nested.points, "share"), axis=1)

    def path(changed):
        means = coordinates.of(changed).from_unconstrained(z_means)[0]
        scale = np.ones(n_dim)
        if metric.ndim:
            change = changed["log_precisions"] - pseudo["log_precisions"]
            scale[of_sites(coordinates)] = np.exp(0.5 * mean_share * change)
        points = np.repeat(means, B, axis=0) + scale * nested.offsets
        moved = coordinates.of(changed).to_unconstrained(points)[0]
        return nested.draw_weights @ (scores_z * moved).sum(axis=1)

    small = 1e-9  # so small a step is not cut: its direction is the gradient over the Fisher matrix
    new, *_ = nested.step(small, metric)
    for name in PSEUDO:
        for i in range(coordinates.n_pseudo):
            axis = step * np.eye(coordinates.n_pseudo)[i]
            up, down = ({**pseudo, name: pseudo[name] + sign * axis} for sign in (1, -1))
            expected = (path(up) - path(down)) / (2 * step)
            information = fisher(nested, name, metric)[i]
            got = (pseudo[name][i] - new[name][i]) / (small * learning.STEP) * information
            assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


def of_sites(coordinates):
    """Dimensions of y that are sites', in the order of the pseudo-observations."""
    pseudo = {name: np.zeros(coordinates.n_pseudo) for name in PSEUDO}
    return np.concatenate(
        [np.arange(place.start, place.stop) for _, place, _ in coordinates.at(pseudo)]
    )


def fisher(nested, name, metric):
    """Half the mean square or variance of the share, that of share over spread; the floors."""
    weights, parts = nested.draw_weights, []
    where = (nested.points, nested.means)
    at = [nested.at(points, what) for points in where for what in ("share", "deviation")]
    for share, spread, share_of_mean, spread_of_mean in zip(*at, strict=True):
        if name == "log_precisions":
            taken_back = (weights @ share) ** 2 if metric.ndim else 0.0
            parts.append((weights @ share**2 - taken_back) / 2 + learning.FLOOR)
        else:
            within = share / spread - np.repeat(share_of_mean / spread_of_mean, B, axis=0)
            parts.append(weights @ within**2 + learning.FLOOR / spread.mean(axis=0) ** 2)
    return np.concatenate(parts)


def test_the_metric_takes_back_what_precisions_scale(nested):
    new, _, scaling = nested.step(0.3, METRICS["diagonal"])
    mean_share = nested.draw_weights @ np.concatenate(nested.at(nested.points, "share"), axis=1)
    change = new["log_precisions"] - nested.pseudo["log_precisions"]
    expected = np.ones(6)
    expected[of_sites(nested.coordinates)] = np.exp(0.5 * mean_share * change)
    np.testing.assert_allclose(scaling, expected)
    np.testing.assert_array_equal(nested.step(0.3, METRICS["identity"])[2], 1)


@pytest.mark.parametrize("case", ["nested", "bent"])
def test_means_stay_where_they_are_in_unconstrained_space(case, request):
    nested = request.getfixturevalue(case)
    new, means, _ = nested.step(0.3, METRICS["diagonal"])
    before = nested.coordinates.of(nested.pseudo).to_unconstrained(nested.means)[0]
    after = nested.coordinates.of({**nested.pseudo, **new}).to_unconstrained(means)[0]
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-12)


def test_no_step_without_a_score(nested):
    scores, nested.scores = nested.scores, np.zeros_like(nested.scores)
    new, means, _ = nested.step(0.3, METRICS["diagonal"])
    nested.scores = scores
    for name in PSEUDO:
        np.testing.assert_array_equal(new[name], nested.pseudo[name])
    np.testing.assert_allclose(means, nested.means, atol=1e-14)


def test_a_block_with_fewer_rows_keeps_what_the_others_learn():
    def abilities():
        ability, factor = pm.Normal("ability", shape=2), pm.LogNormal("factor", shape=2)
        mean = (ability[:, None] * factor).ravel()[:3]  # the second person has one row
        pm.Normal("y", mean, 1, observed=[0.1, 0.2, 0.3])

    with pytensor.config.change_flags(cxx=""):
        uneven = Nested(False, abilities)
        new, means, _ = uneven.step(0.3, np.ones(4))
    assert np.isfinite(means).all()
    changes = np.array([new[name] - uneven.pseudo[name] for name in PSEUDO])
    assert (changes[:, :3] != 0).all()
    assert (changes[:, 3] == 0).all()


def test_narrow_components_do_not_hide_the_data(nested):
    """Where no component feels c and m, scores are zero: the model's own gradient still tells."""
    scores, gradient = nested.scores, nested.gradient
    nested.scores, nested.gradient = np.zeros_like(scores), gradient + 0.5
    new, *_ = nested.step(0.3, METRICS["diagonal"])
    nested.scores, nested.gradient = scores, gradient
    assert np.all(new["values"] > nested.pseudo["values"])  # the slope says: further up


def test_regression_finds_gaussian_data():
    """Effects f + g zeta, data N(theta, 1 / c), six draws: again and again it comes to m and c."""
    rng = np.random.default_rng(2)
    location, scale, y = rng.normal(size=(3, 6, 3))
    precision, data = np.array([0.2, 3.0, 40.0]), np.array([1.0, -2.0, 0.5])
    now = log_precision, value = pt.vector("log_precision"), pt.vector("value")
    root = pt.sqrt(1 + pt.exp(log_precision) * scale**2)
    zeta = pt.exp(log_precision) * scale * (value - location) / root**2 + y / root
    gradient = (-zeta + scale * precision * (data - location - scale * zeta)) / root
    weights = rng.dirichlet(np.ones(6))
    slope = Elementwise(3).slope(pt.as_tensor(y), gradient, (location, scale), *now)
    change, move, _ = least_squares(slope, log_precision, weights)
    moved = [log_precision + change, value + move]
    again, found = pytensor.function(now, moved, mode="FAST_COMPILE"), (np.zeros(3), np.zeros(3))
    first = again(*found)
    for _ in range(30):
        found = again(*found)
    np.testing.assert_allclose(np.exp(found[0]), precision, rtol=1e-6)
    np.testing.assert_allclose(found[1], data, rtol=1e-6)
    assert np.all(np.abs(np.exp(first[0]) - precision) < 0.2 * precision)  # nearly all in one


def test_steps_are_bounded(nested):
    new, *_ = nested.step(1e6, METRICS["diagonal"])
    change = np.abs(new["log_precisions"] - nested.pseudo["log_precisions"])
    assert change.max() == pytest.approx(learning.LARGEST_LOG_PRECISION)
    assert np.all(np.isfinite(new["values"]))
