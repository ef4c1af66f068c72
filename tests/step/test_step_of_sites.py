"""The step of the sites: its gradients against numerical ones, its bounds, its fixed point."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.sites.coordinates import PSEUDO
from pymc_isomix.sites.find import find_coordinates, starting_coordinates
from pymc_isomix.step import sites
from pymc_isomix.step.sites import AtSites, moved_means, new_pseudo
from pymc_isomix.target.space import FlatSpace

K, B = 2, 3


class Nested:
    """A nested hierarchy with means, draws and scores as numbers."""

    def __init__(self):
        with pm.Model() as model:
            tau = pm.HalfNormal("tau")
            region = pm.Normal("region", pm.Normal("mu"), tau, shape=2)
            pm.Normal("county", region, tau**2, shape=2)
        self.coordinates = find_coordinates(FlatSpace.of(model))
        rng, n_dim = np.random.default_rng(1), self.coordinates.space.n_dim
        starts = 0.5 * rng.normal(size=(K, n_dim))
        self.means, self.pseudo = starting_coordinates(self.coordinates, starts)
        self.offsets = 0.3 * rng.normal(size=(K * B, n_dim))
        self.points = np.repeat(self.means, B, axis=0) + self.offsets
        self.scores = rng.normal(size=(K * B, n_dim))
        self.draw_weights = rng.dirichlet(np.ones(K * B))

    def step(self, step_size):
        """New pseudo-observations, and the means that belong to them."""
        pseudo = {name: pt.as_tensor(value) for name, value in self.pseudo.items()}
        at_draws, at_means = (
            AtSites(pt.as_tensor(x), self.coordinates.batched(pt.as_tensor(x), pseudo)[2])
            for x in (self.points, self.means)
        )
        new = new_pseudo(
            self.coordinates,
            pseudo,
            at_draws,
            at_means,
            pt.as_tensor(self.scores),
            pt.as_tensor(self.draw_weights),
            step_size,
        )
        means = moved_means(self.coordinates, at_means, pseudo, new)
        outputs = [*new.values(), means]
        *values, means = pytensor.function([], outputs, mode="FAST_COMPILE")()
        return dict(zip(new, values, strict=True)), means


@pytest.fixture(scope="module")
def nested():
    with pytensor.config.change_flags(cxx=""):
        yield Nested()


def test_gradient_is_that_of_the_path_with_centres_fixed_in_z(nested):
    """Numerically: z of the same noise as log c and m move, the means staying where they are."""
    coordinates, pseudo = nested.coordinates, nested.pseudo
    z_means = coordinates.to_unconstrained(nested.means, pseudo)[0]
    z, step = coordinates.to_unconstrained(nested.points, pseudo)[0], 1e-5
    n_dim = z.shape[1]
    scores_z = np.empty_like(z)  # (dy/dz)^T s
    for i in range(n_dim):
        moved = [
            coordinates.from_unconstrained(z + sign * step * np.eye(n_dim)[i], pseudo)[0]
            for sign in (1, -1)
        ]
        scores_z[:, i] = (nested.scores * (moved[0] - moved[1]) / (2 * step)).sum(axis=1)

    def path(changed):
        means = coordinates.from_unconstrained(z_means, changed)[0]
        points = np.repeat(means, B, axis=0) + nested.offsets
        moved = coordinates.to_unconstrained(points, changed)[0]
        return nested.draw_weights @ (scores_z * moved).sum(axis=1)

    small = 1e-9  # so small a step is not cut: its direction is the gradient over the Fisher matrix
    new, _ = nested.step(small)
    for name in PSEUDO:
        for i in range(coordinates.n_pseudo):
            axis = step * np.eye(coordinates.n_pseudo)[i]
            up, down = ({**pseudo, name: pseudo[name] + sign * axis} for sign in (1, -1))
            expected = (path(up) - path(down)) / (2 * step)
            got = (pseudo[name][i] - new[name][i]) / (small * sites.STEP) * fisher(nested, name)[i]
            assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


def fisher(nested, name):
    """Half the mean square share, or share over variance, with the floors."""
    pseudo = {name: pt.as_tensor(value) for name, value in nested.pseudo.items()}
    given = nested.coordinates.batched(pt.as_tensor(nested.points), pseudo)[2]
    parts = []
    for (form, _, own), here in zip(nested.coordinates.at(pseudo), given, strict=True):
        share, spread = (f(here, *own).eval() for f in (form.share, form.spread))
        if name == "log_precisions":
            parts.append(nested.draw_weights @ share**2 / 2 + sites.FLOOR)
        else:
            typical = spread.mean(axis=0)
            of_value = nested.draw_weights @ (share / spread) ** 2 + sites.FLOOR / typical**2
            parts.append(of_value)
    return np.concatenate(parts)


def test_means_stay_where_they_are_in_unconstrained_space(nested):
    new, means = nested.step(0.3)
    before = nested.coordinates.to_unconstrained(nested.means, nested.pseudo)[0]
    after = nested.coordinates.to_unconstrained(means, new)[0]
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-12)


def test_no_step_without_a_score(nested):
    scores, nested.scores = nested.scores, np.zeros_like(nested.scores)
    new, means = nested.step(0.3)
    nested.scores = scores
    for name in PSEUDO:
        np.testing.assert_array_equal(new[name], nested.pseudo[name])
    np.testing.assert_allclose(means, nested.means, atol=1e-14)


def test_steps_are_bounded(nested):
    new, _ = nested.step(1e6)
    change = np.abs(new["log_precisions"] - nested.pseudo["log_precisions"])
    assert change.max() == pytest.approx(sites.LARGEST_LOG_PRECISION)
    assert np.all(np.isfinite(new["values"]))
