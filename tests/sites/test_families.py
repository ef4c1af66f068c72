"""Locations and scales of families, against the moments of the transformed variables."""

import numpy as np
import pymc as pm
import pytest
from scipy.special import digamma, polygamma

from pymc_isomix.sites.families import location_scale

SHAPES = np.array([0.2, 0.5, 1.0, 3.0, 20.0, 500.0])
MEAN, VARIANCE = digamma(SHAPES), polygamma(1, SHAPES)
OTHERS = SHAPES[::-1]
CASES = {
    "gamma": (lambda: pm.Gamma("x", SHAPES, 2.0), MEAN - np.log(2), VARIANCE),
    "inverse gamma": (lambda: pm.InverseGamma("x", SHAPES, 2.0), np.log(2) - MEAN, VARIANCE),
    "beta": (lambda: pm.Beta("x", SHAPES, OTHERS), MEAN - MEAN[::-1], VARIANCE + VARIANCE[::-1]),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_of_what_the_fit_sees(name):
    build, mean, variance = CASES[name]
    with pm.Model() as model:
        rv = build()
    found = location_scale(rv.owner.op, rv, model.rvs_to_transforms[rv])
    location, scale = (part.eval() for part in found)
    deviation = np.sqrt(variance)
    np.testing.assert_allclose(scale, deviation, rtol=0.07)
    np.testing.assert_array_less(np.abs(location - mean), 0.1 * deviation)
