"""Coordinates with a shape: the map there and back, and the model as seen in them."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.coordinates import PSEUDO, SHAPE, SHEAR, CoordinateMap, Coordinates
from pymc_isomix.sites.find import find_coordinates, starting_coordinates

STEP = 1e-5
pytestmark = pytest.mark.usefixtures("fast_compile")


def random_shape(n_dim, seed=0):
    rng = np.random.default_rng(seed)
    left, right = rng.uniform(-0.5, 0.5, (2, n_dim))
    return Shape(rng.normal(size=n_dim), np.exp(0.3 * rng.normal(size=n_dim)), left, right)


def with_shape(coordinates, seed=0):
    """The same coordinates, with a shape."""
    shape = random_shape(coordinates.space.n_dim, seed)
    added = dict(zip(SHAPE.values(), shape, strict=True))
    return Coordinates(coordinates.map.with_shape(), {**coordinates.parameters, **added})


@pytest.fixture(scope="module")
def hierarchy():
    """A model with a site, and its coordinates without a shape."""
    with pm.Model() as model:
        tau = pm.HalfNormal("tau")
        theta = pm.Normal("theta", 1, tau, shape=2)
        pm.Normal("y", theta, 0.5, observed=[0.0, 2.0])
    found = find_coordinates(FlatSpace.of(model))
    _, pseudo = starting_coordinates(found, np.zeros((2, 3)))
    return Coordinates(found, {name: pseudo[name] for name in PSEUDO})


@pytest.fixture(scope="module")
def scales():
    """A model without sites."""
    with pm.Model() as model:
        pm.HalfNormal("scale", shape=2)
    return Coordinates(CoordinateMap(FlatSpace.of(model)))


@pytest.fixture(scope="module")
def chain():
    """A chain, and a shear of the rest."""
    with pm.Model() as model:
        step = pm.HalfNormal("step")
        x = pm.GaussianRandomWalk("x", 0, step, init_dist=pm.Normal.dist(0, 1), shape=3)
        pm.Normal("y", x, pm.HalfNormal("noise"), observed=[0.3, 1.0, 0.0])
    found = find_coordinates(FlatSpace.of(model))
    _, parameters = starting_coordinates(found, np.zeros((2, 5)))
    assert found.sheared.tolist() == [0, 4]
    shear = np.random.default_rng(5).normal(size=(5, 2))
    shear[[0, 4]] = [[0.0, 0.0], [0.6, 0.0]]
    return Coordinates(found, {**parameters, SHEAR: shear})


def sheared(points, coordinates):
    """Points where the shape sees them."""
    if SHEAR not in coordinates.parameters:
        return points
    return points + points[:, coordinates.map.sheared] @ coordinates.parameters[SHEAR].T


def of_sites_alone(coordinates):
    """The same coordinates without a shear."""
    parameters = {
        name: coordinates.parameters[name] for name in coordinates.map.straight.parameter_shapes
    }
    return Coordinates(coordinates.map.straight, parameters)


@pytest.fixture(params=["hierarchy", "scales", "chain"])
def straight(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def points(straight):
    return np.random.default_rng(3).normal(size=(5, straight.space.n_dim))


def test_a_shear_and_then_a_shape_come_before_the_sites(straight, points):
    bent = with_shape(straight)
    x, log_slope, _ = shapes.bend(sheared(points, straight), random_shape(points.shape[1]))
    z, log_determinant = of_sites_alone(straight).to_unconstrained(x)
    got_z, got_log_determinant = bent.to_unconstrained(points)
    np.testing.assert_allclose(got_z, z)
    np.testing.assert_allclose(got_log_determinant, log_determinant + log_slope.sum(axis=1))
    y, back = bent.from_unconstrained(z)
    np.testing.assert_allclose(y, points, atol=1e-12)
    np.testing.assert_allclose(back, -got_log_determinant, atol=1e-12)


@pytest.mark.parametrize("backward", [False, True])
def test_the_symbolic_map_is_the_same(straight, points, backward):
    bent = with_shape(straight)
    at = pt.matrix(shape=(None, straight.space.n_dim))
    parameters = bent.map.variables("float64")
    mapped = bent.map.batched(at, parameters, backward=backward)[:2]
    function = pytensor.function([at, *parameters.values()], mapped)
    expected = bent.from_unconstrained(points) if backward else bent.to_unconstrained(points)
    for got, wanted in zip(function(points, *bent.parameters.values()), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_the_model_in_coordinates_with_a_shape(straight, points):
    """Density by change of variables from PyMC's own, gradient by differences."""
    space, bent = straight.space, with_shape(straight)
    compiled = CompiledModel(space, "float64", coordinates=bent)
    log_p, gradient, z, log_determinant = compiled.evaluate(points)
    expected = bent.to_unconstrained(points)
    np.testing.assert_allclose(z, expected[0], rtol=1e-12)
    np.testing.assert_allclose(log_determinant, expected[1], rtol=1e-12)
    own = space.model.compile_logp()
    in_z = [
        own({name: part.eval() for name, part in space.unflatten(pt.constant(row)).items()})
        for row in z
    ]
    np.testing.assert_allclose(log_p, in_z + log_determinant)
    for i, axis in enumerate(STEP * np.eye(space.n_dim)):
        slope = compiled.log_density(points + axis) - compiled.log_density(points - axis)
        np.testing.assert_allclose(gradient[:, i], slope / (2 * STEP), rtol=1e-5, atol=1e-6)
    point = pt.dvector()
    symbolic = pytensor.function([point], compiled.symbolic_log_density(point))
    np.testing.assert_allclose(symbolic(points[0]), log_p[0])


def test_what_is_compiled_serves_any_shape(straight, points):
    compiled = CompiledModel(straight.space, "float64", coordinates=straight)
    compiled.evaluate(points)
    other = compiled.at(with_shape(straight))
    assert other._function is compiled._function
    x, *_ = shapes.bend(sheared(points, straight), random_shape(points.shape[1]))
    expected = compiled.at(of_sites_alone(straight)).evaluate(x)[2]
    np.testing.assert_allclose(other.evaluate(points)[2], expected)


def test_shares_are_those_without_the_shape(hierarchy):
    points = np.random.default_rng(3).normal(size=(5, 3))
    x, *_ = shapes.bend(points, random_shape(3))
    np.testing.assert_allclose(with_shape(hierarchy).shares(points), hierarchy.shares(x))


def test_maps_with_and_without_a_shape_are_told_apart(straight):
    bent = with_shape(straight)
    assert bent
    assert bent.map is straight.map.with_shape()
    assert straight.map.of(bent.parameters).map is bent.map
    assert bent.map.of(straight.parameters).map is straight.map
    assert bent.map.key != straight.map.key
