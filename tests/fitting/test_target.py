"""A model as second-order steps see it, in coordinates with a shape."""

import numpy as np
import pymc as pm
import pytest

from pymc_isomix.family import shape as shapes
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.shape import Shape
from pymc_isomix.fitting.target import ModelTarget
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sampling import prior
from pymc_isomix.sites.coordinates import PSEUDO, SHAPE, SHEAR, Coordinates
from pymc_isomix.sites.find import find_coordinates, starting_coordinates

N_DIM = 4
SHAPED = Shape(
    np.full(N_DIM, 0.1),
    np.full(N_DIM, 0.9),
    np.array([0.3, -0.2, 0.1, 0.0]),
    np.array([-0.3, 0.1, 0.2, 0.0]),
)


@pytest.fixture(scope="module")
def target():
    with pm.Model() as model:
        tau = pm.HalfNormal("tau")
        theta = pm.Normal("theta", 0, tau, shape=N_DIM - 1)
        pm.Poisson("y", pm.math.exp(theta), observed=[0, 1, 5])
    space = FlatSpace.of(model)
    found = find_coordinates(space)
    _, pseudo = starting_coordinates(found, np.zeros((2, N_DIM)))
    straight = Coordinates(found, {name: pseudo[name] for name in PSEUDO})
    return ModelTarget(CompiledModel(space, "float64", coordinates=straight)), straight.parameters


@pytest.fixture
def points():
    return 0.7 * np.random.default_rng(1).normal(size=(30, N_DIM))


def test_the_density_has_the_shape_of_the_parameters(target, points):
    target, parameters = target
    bent, *slopes = shapes.bend(points, SHAPED)
    expected = shapes.log_density_and_gradient(*target.evaluate(bent, parameters), *slopes)
    shaped = {**parameters, **dict(zip(SHAPE.values(), SHAPED, strict=True))}
    for got, wanted in zip(target.evaluate(points, shaped), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10)


def test_sites_learn_from_what_they_see(target, points):
    """The same as from x without a shape; points keep their place in z."""
    target, parameters = target
    shaped = {**parameters, **dict(zip(SHAPE.values(), SHAPED, strict=True))}
    bent, *_ = shapes.bend(points, SHAPED)
    wanted, centre, factor = target.learn(
        bent, target.evaluate(bent, parameters)[1], bent[:2], parameters, 0.5
    )
    got = target.learn(points, target.evaluate(points, shaped)[1], points[:2], shaped, 0.5)
    for name in PSEUDO:
        np.testing.assert_allclose(got[0][name], wanted[name], rtol=1e-8)
        assert not np.allclose(wanted[name], parameters[name])
    np.testing.assert_allclose(got[1], shapes.straighten(centre, SHAPED), rtol=1e-8)
    np.testing.assert_allclose(got[2], factor)
    assert all(got[0][name] is not None for name in SHAPE.values())


def test_what_sites_learn_from_is_that_of_the_latest_evaluation(target, points, monkeypatch):
    """Nothing is evaluated again but at the centre; the same as if it were."""
    target, parameters = target
    for at in (parameters, {**parameters, **dict(zip(SHAPE.values(), SHAPED, strict=True))}):
        gradients = target.evaluate(points, at)[1]
        evaluated = []

        def evaluate(what, rows, *rest, _evaluate=target.map.evaluate, _evaluated=evaluated):
            _evaluated.append(len(rows))
            return _evaluate(what, rows, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(type(target.map), "evaluate", lambda _, *given: evaluate(*given))
            some = points[3:20], gradients[3:20], points[:2], at, 0.5
            got = target.learn(*some)
            target.evaluate(points[:1], at)  # another one: what was given is not known
            wanted = target.learn(*some)
        assert evaluated == [2, 19]
        for name in PSEUDO:
            np.testing.assert_allclose(got[0][name], wanted[0][name], rtol=1e-10)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-10)
        np.testing.assert_allclose(got[2], wanted[2], rtol=1e-10)


def test_points_keep_their_place_in_z(target, points):
    """From parameters without a shape to others with one, and back."""
    target, parameters = target
    other = {name: value + 0.3 for name, value in parameters.items()}
    shaped = {**other, **dict(zip(SHAPE.values(), SHAPED, strict=True))}
    moved = target.moved(points, parameters, shaped)
    z, _ = target.map.of(parameters).to_unconstrained(points)
    again, _ = target.map.of(shaped).to_unconstrained(moved)
    np.testing.assert_allclose(again, z, rtol=1e-10)
    np.testing.assert_allclose(target.moved(moved, shaped, parameters), points, rtol=1e-9)


@pytest.fixture(scope="module")
def sheared():
    """A target whose three dimensions of no site are sheared, and its parameters."""
    with pm.Model() as model:
        rho = pm.Normal("rho", [0.3, 0.1], [0.5, 2.0])
        x = pm.AR("x", rho, 0.5, init_dist=pm.Normal.dist(0, 1), shape=5)
        pm.Normal("y", x, pm.HalfNormal("noise"), observed=np.zeros(5))
    return target_of(model)


def target_of(model):
    space = FlatSpace.of(model)
    found = find_coordinates(space)
    _, parameters = starting_coordinates(found, np.zeros((2, space.n_dim)))
    start = Coordinates(found, parameters)
    return ModelTarget(CompiledModel(space, "float64", coordinates=start)), parameters


REST = [0, 1, 7]  # rho, and the noise behind the chain


def with_shear(parameters):
    shear = np.random.default_rng(7).normal(size=(8, 3))
    shear[REST] = [[0.0, 0.0, 0.0], [0.7, 0.0, 0.0], [-0.4, 2.0, 0.0]]
    return {**parameters, SHEAR: shear}


def test_a_sheared_point_comes_back_and_has_the_same_volume(sheared):
    target, parameters = sheared
    y, moved = np.random.default_rng(2).normal(size=(4, 8)), with_shear(parameters)
    z, forward = target.map.of(moved).to_unconstrained(y)
    again, backward = target.map.of(moved).from_unconstrained(z)
    np.testing.assert_allclose(again, y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(forward, -backward, rtol=1e-9)
    assert target.map.sheared.tolist() == REST
    expected = y + y[:, REST] @ moved[SHEAR].T
    plain, volume = target.map.of(parameters).to_unconstrained(expected)
    np.testing.assert_allclose(z, plain, rtol=1e-12)
    np.testing.assert_allclose(forward, volume, rtol=1e-12)
    np.testing.assert_allclose(target.moved(expected, parameters, moved), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("has_shape", [False, True])
def test_a_dense_root_takes_the_place_of_a_shear(sheared, has_shape):
    """The same Gaussian where the shape sees it, and the same points in z."""
    target, parameters = sheared
    moved = with_shear(parameters)
    if has_shape:
        shape = np.array([[0.1], [1.1], [0.1], [0.3]]) * np.ones(8)
        moved |= dict(zip(SHAPE.values(), shape, strict=True))
    rng = np.random.default_rng(9)
    mean, root = rng.normal(size=8), np.tril(rng.normal(size=(8, 8)))
    at, dense, plain = target.unsheared(mean, root, moved)
    assert target.shear(moved)
    assert target.shear(plain) is None
    shear = np.eye(8)
    shear[:, REST] += moved[SHEAR]
    np.testing.assert_allclose(np.triu(dense, 1), 0, atol=1e-12)
    np.testing.assert_allclose(dense @ dense.T, shear @ root @ root.T @ shear.T)
    np.testing.assert_allclose(at, shear @ mean)
    y = rng.normal(size=(3, 8))
    z, again = (
        target.map.of(own).to_unconstrained(points)[0]
        for own, points in ((moved, y), (plain, y @ shear.T))
    )
    np.testing.assert_allclose(again, z)


def test_no_points_are_moved(sheared):
    target, parameters = sheared
    assert target.moved(np.ones((0, 8)), parameters, with_shear(parameters)).shape == (0, 8)


@pytest.mark.parametrize("has_shape", [False, True])
def test_a_shear_is_learned_that_has_the_correlations(sheared, has_shape):
    """Of a Gaussian, from few draws exactly: the new precisions are diagonal, and factors right."""
    target, parameters = sheared
    if has_shape:
        shape = np.array([[0.1], [1.1], [0.1], [0.3]]) * np.ones(8)
        parameters = {**parameters, **dict(zip(SHAPE.values(), shape, strict=True))}
    rng, places = np.random.default_rng(3), target.map.sheared
    root = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.0], [-0.5, 0.2, 0.7]])
    precision = np.linalg.inv(root @ root.T)
    draws = rng.normal(size=(20, 8))
    draws[:, places] /= np.sqrt(np.diagonal(precision))
    gradients = np.zeros((20, 8))
    gradients[:, places] = 0.3 - draws[:, places] @ precision
    new, centre, factor = target.decorrelate(draws, gradients, draws[:2], parameters)
    unit = np.eye(3) + new[SHEAR][REST]
    across = unit.T @ precision @ unit
    np.testing.assert_allclose(across, np.diag(np.diagonal(across)), atol=1e-4)
    deviations = factor[places] / np.sqrt(np.diagonal(precision))
    np.testing.assert_allclose(deviations**-2, np.diagonal(across), rtol=1e-4)
    old, after = (
        target.map.of(at).to_unconstrained(y)[0]
        for y, at in ((draws[:2], parameters), (centre, new))
    )
    np.testing.assert_allclose(after, old, rtol=1e-9, atol=1e-9)


def test_noise_makes_no_shear(sheared):
    target, parameters = sheared
    draws, gradients = np.random.default_rng(4).normal(size=(2, 150, 8))
    gradients -= draws
    shear = target.decorrelate(draws, gradients, draws[:1], parameters)[0][SHEAR]
    # the standard error of an entry is .08, and half of all would lie beyond .055
    assert np.median(np.abs(shear[shear != 0])) < 0.02


def test_chains_follow_the_means_that_the_rest_gives_them(sheared):
    """Of a Gaussian with an arrow of precisions: some steps on nothing is correlated."""
    target, parameters = sheared
    rng = np.random.default_rng(6)
    precision = np.eye(8)
    rest, of_chain = np.ix_(REST, REST), np.ix_(range(2, 7), REST)
    precision[of_chain] = 0.3 * rng.normal(size=(5, 3))
    precision.T[of_chain] = precision[of_chain]
    precision[rest] += precision[of_chain].T @ precision[of_chain]
    parameters = with_shear(parameters)
    half = np.linalg.qr(rng.normal(size=(40, 8)))[0] * np.sqrt(40)
    for _ in range(4):
        through = np.eye(8)
        through[:, REST] += parameters[SHEAR]
        across = through.T @ precision @ through
        draws = np.concatenate([half, -half]) / np.sqrt(np.diagonal(across))
        parameters = target.decorrelate(draws, -draws @ across, draws[:1], parameters)[0]
    across /= np.sqrt(np.diagonal(across)[:, None] * np.diagonal(across))
    np.testing.assert_allclose(across, np.eye(8), atol=1e-3)


def test_nothing_is_sheared_where_all_is_chains():
    with pm.Model() as model:
        x = pm.GaussianRandomWalk("x", 0, 0.5, init_dist=pm.Normal.dist(0, 1), shape=5)
        pm.Normal("y", x, 1, observed=np.zeros(5))
    target, parameters = target_of(model)
    nothing = np.zeros(0, int), np.zeros((0, 0))
    new, centre, scales = target.sheared_by(*nothing, np.ones((1, 5)), parameters)
    assert new is parameters
    np.testing.assert_array_equal(centre, np.ones((1, 5)))
    assert scales.shape == (0,)


def test_a_part_of_what_is_sheared_needs_all_of_it(sheared):
    target, parameters = sheared
    space = target.map.space
    mixture = Mixture(np.zeros((1, 8)), np.zeros(1), np.zeros(1), np.ones(8))
    start = Coordinates(target.map, parameters)
    noise = space.model.rvs_to_values[space.model["noise"]]
    places = prior._places(space, mixture, start, {"noise": noise})
    assert set(places) == set(target.map.sheared)
