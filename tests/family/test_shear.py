"""Shears against dense linear algebra."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.family.shear import Shear

N_DIM, PLACES = 6, np.array([0, 2, 5])
SCALES = np.array([0.5, 1.0, 2.0, 0.7, 1.3, 0.9])


@pytest.fixture
def shear():
    matrix = np.random.default_rng(0).normal(size=(N_DIM, 3))
    matrix[PLACES] = np.tril(matrix[PLACES], -1)
    return Shear(PLACES, matrix)


@pytest.fixture
def dense(shear):
    """G, by its columns."""
    return np.eye(N_DIM) + shear.matrix @ np.eye(N_DIM)[PLACES]


@pytest.fixture
def points():
    return np.random.default_rng(1).normal(size=(4, N_DIM))


def test_points_and_gradients(shear, dense, points):
    inverse = np.linalg.inv(dense)
    assert np.linalg.det(dense) == pytest.approx(1)
    np.testing.assert_allclose(shear.apply(points), points @ dense.T)
    np.testing.assert_allclose(shear.undo(points), points @ inverse.T, atol=1e-12)
    np.testing.assert_allclose(shear.undo(points[0]), inverse @ points[0], atol=1e-12)
    np.testing.assert_allclose(shear.pull_back(points), points @ dense)
    np.testing.assert_allclose(shear.push(points), points @ inverse, atol=1e-12)


def test_symbols_are_mapped_as_arrays_are(shear, points):
    at, matrix = pt.matrix(shape=points.shape), pt.matrix(shape=shear.matrix.shape)
    symbolic = Shear(PLACES, matrix)
    names = "apply", "undo", "pull_back"
    function = pytensor.function([at, matrix], [getattr(symbolic, name)(at) for name in names])
    for name, got in zip(names, function(points, shear.matrix), strict=True):
        np.testing.assert_allclose(got, getattr(shear, name)(points), atol=1e-12)


def test_a_gaussian_behind_a_shear(shear, dense):
    covariance = dense @ np.diag(SCALES**2) @ dense.T
    np.testing.assert_allclose(shear.deviations(SCALES), np.sqrt(np.diagonal(covariance)))
    precision = np.diagonal(np.linalg.inv(covariance))
    np.testing.assert_allclose(shear.precisions(SCALES), precision)


def test_rows_are_scaled(shear, dense):
    factors = np.linspace(0.5, 2, N_DIM)
    scaled = shear.scaled(factors)
    root = np.stack([scaled.apply(row) for row in np.diag(factors * SCALES)], axis=1)
    np.testing.assert_allclose(root, factors[:, None] * dense * SCALES)
