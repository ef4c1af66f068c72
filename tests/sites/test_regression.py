"""Pseudo-observations by regression: exact where data are Gaussian."""

import numpy as np
import pytest

from pymc_isomix.sites.elementwise import Elementwise

N = 6
FORM = Elementwise(N)
RNG = np.random.default_rng(0)
TRUE = np.log(RNG.uniform(0.5, 5.0, N)), RNG.normal(size=N)  # log precision and value of data


def draws(own, n=20):
    """Draws y with what is given there, and the gradient of log p(y) for Gaussian data."""
    rng = np.random.default_rng(1)
    scale = np.exp(rng.normal(size=(n, 1)))
    location = rng.normal(size=(n, 1))
    y = rng.normal(size=(n, N))
    given = [np.broadcast_to(part, y.shape) for part in (location, scale)]
    shift, root, _ = FORM._posterior(given, *own)
    theta = location + scale * (shift + y / root)
    unit = scale / root

    def slope(log_precision, value):
        return np.exp(log_precision) * (value - theta)

    # -y is the gradient where the pseudo-observations are the data
    return y, -y + unit * (slope(*TRUE) - slope(*own)), given


def test_gaussian_data_are_found_in_one_step():
    own = np.zeros(N), np.zeros(N)
    learned = FORM.learn(*draws(own), own)
    # a ridge of one per cent of the draws' information
    np.testing.assert_allclose(learned[0], TRUE[0], atol=0.15)
    np.testing.assert_allclose(learned[1], TRUE[1], atol=0.15)


@pytest.mark.parametrize("log_precision", [-5.0, 3.0, 6.0])
def test_gaussian_data_are_found_from_afar(log_precision):
    learned = np.full(N, log_precision), np.full(N, 4.0)
    for _ in range(10):  # each within its bounds
        learned = FORM.learn(*draws(learned), learned)
    np.testing.assert_allclose(learned[0], TRUE[0], atol=1e-3)
    np.testing.assert_allclose(learned[1], TRUE[1], atol=1e-3)


def test_the_truth_stays():
    y, gradient, given = draws(TRUE)
    learned = FORM.learn(y, gradient, given, TRUE)
    np.testing.assert_allclose(learned, TRUE, atol=1e-10)


def test_damping_takes_a_part_of_the_step():
    own = np.zeros(N), np.zeros(N)
    y, gradient, given = draws(own)
    whole, half = (FORM.learn(y, gradient, given, own, d) for d in (1.0, 0.5))
    np.testing.assert_allclose(half, 0.5 * np.array(whole))


def test_points_stay_where_they_are_in_z():
    own = np.zeros(N), np.zeros(N)
    y, _, given = draws(own)
    there = FORM.moved(y, given, own, TRUE)
    np.testing.assert_allclose(FORM.moved(there, given, TRUE, own), y)
    shift, root, _ = FORM._posterior(given, *own)
    new_shift, new_root, _ = FORM._posterior(given, *TRUE)
    np.testing.assert_allclose(new_shift + there / new_root, shift + y / root)


def test_units_shrink_as_the_data_say_more():
    _, _, given = draws(TRUE)
    given = [part[:1] for part in given]
    vague = np.full(N, -30.0), np.zeros(N)
    factor = FORM.unit_change(given, vague, TRUE)
    np.testing.assert_allclose(factor, np.sqrt(1 + np.exp(TRUE[0]) * given[1][0] ** 2))
