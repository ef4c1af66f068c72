"""Angles: every turn is one place."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest

import pymc_isomix as pmi
from pymc_isomix.family import shape as shapes
from pymc_isomix.model import periodic
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import BlockMixture


def at_pi():
    """One mode at half a turn, and a variable that knows the angle."""
    with pm.Model() as model:
        angle = pm.VonMises("angle", np.pi, 8.0)
        pm.Normal("x", pm.math.cos(angle), 1.0)
    return model


def test_which_dimensions_are_angles():
    with pm.Model() as model:
        pm.Normal("x", shape=2)
        pm.VonMises("angle", 0.0, 1.0, shape=3)
        pm.Uniform("phase", 0, 2 * np.pi)
    np.testing.assert_array_equal(
        periodic.periodic_dimensions(FlatSpace.of(model)), [0, 0, 1, 1, 1, 0]
    )


def test_wrapping_keeps_angles():
    rng = np.random.default_rng(1)
    points, centre = 20 * rng.normal(size=(100, 3)), np.array([2.0, -3.0, 0.0])
    angles = np.array([True, True, False])
    wrapped = periodic.wrap(points, centre, angles)
    np.testing.assert_allclose(np.exp(1j * wrapped[:, :2]), np.exp(1j * points[:, :2]))
    assert np.abs(wrapped - centre)[:, :2].max() <= np.pi
    np.testing.assert_array_equal(wrapped[:, 2], points[:, 2])


def test_two_turns_are_one_place():
    """Components half a turn to either side of zero, of one mode."""
    means = np.array([[np.pi, -1.0], [-np.pi, -1.0], [3 * np.pi, -1.0]])
    weights = np.array([0.5, 0.3, 0.2])
    params = {
        "means": means,
        "log_variances": np.zeros(3),
        "log_weights": np.log(weights),
        "metric": np.array([0.37, 1.0]),
    }
    approx = pmi.IsotropicMixture(params=params, model=at_pi(), random_seed=1)
    one = periodic.on_one_turn(approx.density, np.array([True, False])).sketch
    assert np.ptp(one.means[:, 0]) < 1e-9
    assert one.means[0, 0] % (2 * np.pi) == pytest.approx(np.pi)
    np.testing.assert_array_equal(one.means[:, 1], -1.0)
    report = approx.diagnostics(progressbar=False)
    assert report["n_modes"].item() == 1
    assert report["missing_mass"].item() == 0.0
    assert report["sd"].values[0] == pytest.approx(0.37, rel=0.05)
    # the evidence is that of one turn, where the density integrates to one
    error = report["log_evidence_se"].item()
    assert report["log_evidence"].item() == pytest.approx(0.0, abs=4 * error + 1e-3)


def test_components_of_an_angle_with_a_shape_stay():
    """A turn of y is no turn of the angle there."""
    params = {
        "means": np.array([[np.pi, 0.0], [3 * np.pi, 0.0]]),
        "log_variances": np.zeros(2),
        "log_weights": np.log([0.5, 0.5]),
        "metric": np.array([0.37, 1.0]),
    }
    approx = pmi.IsotropicMixture(params=params, model=at_pi(), random_seed=1)
    [block] = approx.density.blocks
    shape = shapes.identity(2)
    shape.left[0] = 0.3
    shaped = replace(block, coordinates=block.coordinates.with_bend(shape))
    angles = np.array([True, False])
    same = periodic.on_one_turn(BlockMixture.of([shaped]), angles).blocks[0].mixture
    np.testing.assert_array_equal(same.means, block.mixture.means)
    turned = periodic.on_one_turn(BlockMixture.of([block]), angles).blocks[0].mixture
    assert np.ptp(turned.means[:, 0]) < 1e-9
