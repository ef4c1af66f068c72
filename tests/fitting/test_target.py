"""A model as second-order steps see it, in coordinates with a shape."""

import numpy as np
import pymc as pm
import pytest

from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.fitting.target import ModelTarget
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.coordinates import PSEUDO, SHAPE, Coordinates
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


def test_points_keep_their_place_in_z(target, points):
    """From parameters without a shape to others with one, and back."""
    target, parameters = target
    other = {name: value + 0.3 for name, value in parameters.items()}
    shaped = {**other, **dict(zip(SHAPE.values(), SHAPED, strict=True))}
    moved = target.moved(points, parameters, shaped)
    z, _ = Coordinates(target.map.of(parameters), parameters).to_unconstrained(points)
    again, _ = Coordinates(target.map.of(shaped), shaped).to_unconstrained(moved)
    np.testing.assert_allclose(again, z, rtol=1e-10)
    np.testing.assert_allclose(target.moved(moved, shaped, parameters), points, rtol=1e-9)
