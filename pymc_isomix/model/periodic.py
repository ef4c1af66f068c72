"""Angles: value variables on the whole line that repeat after each full turn."""

from dataclasses import replace
from typing import Any

import numpy as np
from pymc.logprob.transforms import CircularTransform

from pymc_isomix.model.space import FlatSpace

TURN = 2 * np.pi


def periodic_dimensions(space: FlatSpace) -> np.ndarray:
    """Dimensions of a flat point that are angles, (d,) booleans.

    PyMC's circular transform, as in ``pm.VonMises``, leaves an angle on the line, with a periodic
    density.
    """
    periodic = np.zeros(space.n_dim, dtype=bool)
    for name, rv in space.variables.items():
        if isinstance(space.model.rvs_to_transforms[rv], CircularTransform):
            periodic[space.ordering[name][1]] = True
    return periodic


def wrap(points: np.ndarray, centre: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Move angles to within half a turn of a centre.

    Parameters
    ----------
    points : (..., d) array
    centre : (d,) array

    Returns
    -------
    (..., d) array
        The points themselves if no dimension is an angle.
    """
    if not periodic.any():
        return points
    turns = np.where(periodic, np.round((points - centre) / TURN), 0.0)
    return (points - TURN * turns).astype(points.dtype)


def circular_mean(points: np.ndarray, weights: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Mean (d,) of points (S, d); for angles, the direction of their mean vector."""
    angle = np.angle(weights @ np.exp(1j * points[:, periodic]))
    mean = weights @ points
    mean[periodic] = angle
    return mean


def on_one_turn(mixture: Any, periodic: np.ndarray) -> Any:
    """Move the components of a mixture to one turn, along angles of no shape in any block."""
    for block in mixture.blocks:
        if block.coordinates.map.has_shape:
            periodic = periodic & ~block.coordinates.is_shaped
    if not periodic.any():
        return mixture
    own = [block.mixture for block in mixture.blocks]
    means = np.concatenate([one.means for one in own])
    centre = circular_mean(means, mixture.weights, periodic)
    wrapped = [one.replace(means=wrap(one.means, centre, periodic)) for one in own]
    pairs = zip(mixture.blocks, wrapped, strict=True)
    return replace(mixture, blocks=tuple(replace(block, mixture=one) for block, one in pairs))
