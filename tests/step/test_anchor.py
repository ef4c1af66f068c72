import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix import IsoMix
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.coordinates import PSEUDO, Coordinates
from pymc_isomix.sites.find import find_coordinates
from pymc_isomix.step.anchor import Anchor

ONE = pt.as_tensor(1.0)  # the identity metric


def at_anchor(move):
    """Corrected values of log p = a + b z + c z^2 of a minibatch whose a and b are wrong."""
    anchor = Anchor.allocate(1, "float64")
    if move:
        anchor.move(np.array([2.0]), 1.0 + 2 * 2.0 + 3 * 4.0, np.array([2.0 + 6 * 2.0]))
    points = pt.as_tensor([[0.0], [1.0]])
    z = pt.concatenate([points, anchor.point[None]])[:, 0]
    log_density, gradient = 10.0 + 20.0 * z + 3.0 * z**2, (20.0 + 6.0 * z)[:, None]
    *corrected, _ = anchor.correct(points, anchor.at(None, None), log_density, gradient, ONE)
    return pytensor.function([], corrected, mode="FAST_COMPILE")()


def test_level_and_slope_are_those_of_all_the_data():
    log_density, gradient = at_anchor(move=True)
    np.testing.assert_allclose(log_density, [1.0, 6.0])
    np.testing.assert_allclose(gradient, [[2.0], [8.0]])


def test_without_an_anchor_a_minibatch_stays_as_it_is():
    log_density, gradient = at_anchor(move=False)
    np.testing.assert_array_equal(log_density, [10.0, 33.0])
    np.testing.assert_array_equal(gradient, [[20.0], [26.0]])


def test_an_anchor_that_is_not_finite_is_not_taken():
    anchor = Anchor.allocate(1, "float64")
    anchor.move(np.array([2.0]), -np.inf, np.array([0.0]))
    assert anchor.is_set.get_value() == 0


def test_where_draws_do_not_see_the_noise_of_the_anchor_it_is_not_taken_off():
    anchor, rng = Anchor.allocate(50, "float64"), np.random.default_rng(1)
    anchor.move(np.zeros(50), 0.0, np.ones(50))
    noise, share = pt.vector("noise", shape=(50,)), pt.scalar("share")
    gradient = pt.stack([2 + share * noise, 1 + noise])  # of one draw, and of the anchor
    at = anchor.at(None, None)
    _, corrected, updates = anchor.correct(pt.zeros((1, 50)), at, pt.zeros(2), gradient, ONE)
    step = pytensor.function([noise, share], corrected, updates=updates, mode="FAST_COMPILE")
    for true_share, left in ((1.0, 0.0), (0.0, 0.0), (0.8, -0.2), (0.2, 0.2)):
        for _ in range(60):
            drawn = 10 * rng.normal(size=50)
            (found,) = step(drawn, true_share)
        np.testing.assert_allclose(found, 2 + left * drawn, atol=1e-9)


def minibatches(likelihood, n_rows=20_000, n_dim=3):
    """A regression on minibatches, one row in a hundred, and the rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_rows, n_dim))
    y = x @ rng.normal(size=n_dim) + rng.logistic(size=n_rows)
    y = (y > 0).astype(float) if likelihood == "logistic" else y
    with pm.Model() as model:
        rows, seen = pm.Minibatch(x, y, batch_size=n_rows // 100)
        slopes = pm.Normal("slopes", 0.0, 1.0, shape=n_dim)
        if likelihood == "logistic":
            pm.Bernoulli("y", logit_p=rows @ slopes, observed=seen, total_size=n_rows)
        else:
            pm.Normal("y", rows @ slopes, 1.0, observed=seen, total_size=n_rows)
    return model, x, y


def laplace(likelihood, x, y):
    """Mean and standard deviations of the posterior: exact for normal, good to 1/n else."""
    slopes = np.zeros(x.shape[1])
    for _ in range(20):
        fitted = 1 / (1 + np.exp(-x @ slopes)) if likelihood == "logistic" else x @ slopes
        curvature = fitted * (1 - fitted) if likelihood == "logistic" else np.ones(len(y))
        precision = (x.T * curvature) @ x + np.eye(len(slopes))
        slopes = slopes + np.linalg.solve(precision, x.T @ (y - fitted) - slopes)
    return slopes, np.sqrt(np.diag(np.linalg.inv(precision)))


@pytest.mark.parametrize("likelihood", ["normal", "logistic"])
def test_minibatches_end_where_all_the_data_do_and_stop(likelihood):
    model, x, y = minibatches(likelihood)
    approx = IsoMix(10, random_seed=1, model=model).fit(progressbar=False, backend="jax")
    assert approx.history.stop_reason == "converged"
    mean, sd = laplace(likelihood, x, y)
    points, _ = approx.draw_unconstrained(20_000, np.random.default_rng(1))
    # standard errors: .007 of a mean, in standard deviations, and half a percent of those
    np.testing.assert_allclose((points.mean(axis=0) - mean) / sd, 0.0, atol=0.1)
    np.testing.assert_allclose(points.std(axis=0) / sd, 1.0, atol=0.05)


def test_with_sites_the_anchor_keeps_its_place_and_what_the_data_say_there():
    """In y, level and slope are those of log p(C(y)) + log |dC/dy|, whatever the coordinates."""
    with pm.Model() as model:
        tau = pm.HalfNormal("tau", 1.0)
        pm.Normal("theta", pm.Normal("mu"), tau, shape=3)
    coordinates, rng = find_coordinates(FlatSpace.of(model)), np.random.default_rng(0)
    pseudo = {name: pytensor.shared(rng.normal(size=3)) for name in PSEUDO}
    now = Coordinates(coordinates, {name: v.get_value() for name, v in pseudo.items()})
    exact = CompiledModel(coordinates.space, "float64", coordinates=now)
    plain = CompiledModel(coordinates.space, "float64")
    z = rng.normal(size=(1, 5))
    anchor = Anchor.allocate(5, "float64")
    log_density, gradient = plain.log_density_and_gradient(z)
    anchor.move(z[0], log_density[0], gradient[0])
    y, level, slope = pytensor.function([], list(anchor.at(coordinates, pseudo)))()
    expected, expected_slope = exact.log_density_and_gradient(y[None])
    np.testing.assert_allclose(exact.to_unconstrained(y[None])[0], z, rtol=1e-9)
    np.testing.assert_allclose(level, expected[0], rtol=1e-9)
    np.testing.assert_allclose(slope, expected_slope[0], rtol=1e-9)
