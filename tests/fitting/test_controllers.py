from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting import controllers
from pymc_isomix.fitting.controllers import Phased, Scheduled, evidence_correction
from pymc_isomix.sites.coordinates import PSEUDO
from pymc_isomix.step.bounds import StepRule


class FakeCoordinates(NamedTuple):
    """Holds parameters as coordinates do."""

    parameters: dict

    def replace(self, **parameters):
        return FakeCoordinates({**self.parameters, **parameters})


class FakeGroup:
    """Holds parameters as a group does."""

    def __init__(self, weights, *, n_dim=2):
        self.coordinates = FakeCoordinates({})
        n_components = len(weights)
        self.mixture = Mixture(
            means=np.arange(n_components)[:, None] * 100.0 * np.ones(n_dim),
            log_variances=np.linspace(-2, 0, n_components),
            log_weights=np.log(weights),
            metric=np.eye(n_dim),
        )


NOISY = 0.1 * np.random.default_rng(0).normal(size=5000)  # without a trend


def phased(group, n=1000, *, stop_early=True, **rule):
    operator = SimpleNamespace(group=group, rule=StepRule(**rule), anchor=None)
    return Phased(operator, 0.3, n, stop_early=stop_early, rng=np.random.default_rng(0))


def run(controller, losses, most=1):
    """Take all steps, at most so many at once; return step sizes and the reason to stop."""
    sizes = []
    while len(sizes) < len(losses):
        some = controller.step_sizes(len(sizes), most)
        assert 1 <= len(some) <= most
        sizes.extend(some)
        evidence = np.zeros((len(some), controller.group.mixture.n_components))
        if (reason := controller.after_steps(losses[: len(sizes)], evidence)) is not None:
            return np.array(sizes), reason
    return np.array(sizes), None


def test_scheduled_follows_its_schedule_on_after_earlier_steps():
    controller = Scheduled(0.5, "sqrt", 3, first=2)
    np.testing.assert_allclose(controller.step_sizes(0, 9), 0.5 / np.sqrt([3, 4, 5]))
    np.testing.assert_allclose(controller.step_sizes(1, 1), 0.5 / np.sqrt([4]))
    assert controller.after_steps(np.zeros(1), np.zeros((1, 2))) is None
    assert not controller.recover(0, np.array([True, False]))


@pytest.mark.parametrize("more", [0, 1])
def test_coordinates_have_time_to_settle_unless_they_are_many(more):
    group, n_elements = FakeGroup([0.5, 0.5]), controllers.MANY_ELEMENTS + more
    group.coordinates = FakeCoordinates({name: np.zeros(n_elements) for name in PSEUDO})
    sizes, _ = run(phased(group, n=5000), NOISY)
    exploring = 2 * controllers.CHECK_EVERY if more else controllers.LEAST_WITH_SITES
    assert len(sizes) == exploring + controllers.SETTLE_STEPS


def test_plateau_ends_exploring_and_the_fit():
    sizes, reason = run(phased(FakeGroup([0.5, 0.5]), n=5000), NOISY)
    exploring = 2 * controllers.CHECK_EVERY  # two windows of 50 losses
    assert reason == "converged"
    assert len(sizes) == exploring + controllers.SETTLE_STEPS
    np.testing.assert_array_equal(sizes[:exploring], 0.3)
    assert np.all(np.diff(sizes[exploring:]) < 0)


def test_a_hundred_steps_settle_what_is_all_but_exact():
    """Half the variance of a draw: 20 draws of equal weight, or 10 of one that has it all."""
    for weights, n_draws in (([0.5, 0.5], 20), ([1 - 1e-12, 1e-12], 10)):
        for factor, steps in ((0.7, controllers.SETTLE_EXACT), (1.4, controllers.SETTLE_STEPS)):
            noise = np.sqrt(2 * factor * controllers.EXACT / n_draws)
            controller = phased(FakeGroup(weights), n=5000, learn_weights=False)
            sizes, reason = run(controller, NOISY / NOISY.std() * noise)
            assert reason == "converged"
            assert len(sizes) - np.sum(sizes == 0.3) == steps - 1  # the first is as before


@pytest.mark.parametrize("n", [2, 7, 73, 1000, 5000])
@pytest.mark.parametrize("stop_early", [True, False])
def test_steps_at_once_are_those_one_by_one(n, stop_early):
    """Same sizes, same averaged iterates, same record of the evidence."""
    results = []
    for most in (1, 3, 50):
        controller = phased(FakeGroup([0.5, 0.5]), n=n, stop_early=stop_early)
        sizes, reason = run(controller, np.zeros(n), most)
        results.append((sizes, reason, controller.average.count, len(controller.log_evidence)))
    for sizes, *rest in results[1:]:
        np.testing.assert_array_equal(sizes, results[0][0])
        assert rest == list(results[0][1:])


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_without_a_plateau_the_second_half_settles(n):
    falling = -np.arange(float(n)) * 10
    sizes, reason = run(phased(FakeGroup([0.5, 0.5]), n=n), falling)
    assert reason is None
    assert len(sizes) == n
    np.testing.assert_array_equal(sizes[: n // 2], 0.3)
    assert np.all(np.diff(sizes[n // 2 :]) < 0)


def test_all_iterations_run_when_it_must_not_stop_early():
    sizes, reason = run(phased(FakeGroup([0.5, 0.5]), stop_early=False), np.zeros(1000))
    assert reason is None
    assert len(sizes) == 1000


def test_dead_components_are_respawned_beside_living_ones():
    group = FakeGroup([0.6, 1e-9, 0.4 - 2e-9, 1e-9])
    before = group.mixture
    assert phased(group).respawn_dead()
    weights = group.mixture.weights
    np.testing.assert_allclose(weights.sum(), 1)
    nearest = np.abs(group.mixture.means[:, None] - before.means[[0, 2]]).max(2)
    assert nearest.min(1).max() < 10  # modes lie 200 apart
    owner = nearest.argmin(1)
    masses = [weights[owner == 0].sum(), weights[owner == 1].sum()]
    np.testing.assert_allclose(masses, [0.6, 0.4], atol=1e-8)  # each mode keeps its mass
    np.testing.assert_array_equal(group.mixture.means[[0, 2]], before.means[[0, 2]])


def test_nothing_is_respawned_when_all_live_or_weights_are_uniform():
    assert not phased(FakeGroup([0.5, 0.5])).respawn_dead()
    assert not phased(FakeGroup([1 - 1e-9, 1e-9]), learn_weights=False).respawn_dead()


def test_refused_step_halves_the_step_size_until_it_gives_up():
    controller = phased(FakeGroup([0.5, 0.5]))
    nothing_lost = np.zeros(2, bool)
    for halvings in range(1, controllers.MAX_HALVINGS + 1):
        assert controller.recover(0, nothing_lost)
        assert controller.step_sizes(0, 1) == pytest.approx(0.3 / 2**halvings)
    assert not controller.recover(0, nothing_lost)


def test_respawning_does_not_count_as_halving_but_nowhere_is_nowhere():
    controller = phased(FakeGroup([0.5, 0.5]))
    lost = np.array([False, True])
    assert all(controller.recover(i, lost) for i in range(0, 200, 2))
    assert controller.step_sizes(0, 1) == 0.3
    in_a_row = [
        controller.recover(i, lost) for i in range(300, 302 + controllers.MOST_REFUSED_IN_A_ROW)
    ]
    assert in_a_row == [True] * controllers.MOST_REFUSED_IN_A_ROW + [False] * 2


def test_all_components_lost_is_the_end():
    assert not phased(FakeGroup([0.5, 0.5])).recover(0, np.ones(2, bool))


def test_evidence_correction_without_noise_is_the_ratio():
    log_evidence = np.log([1.0, 2.0, 4.0])
    factors = evidence_correction(np.tile(log_evidence, (50, 1)))
    np.testing.assert_allclose(factors - factors[0], log_evidence, atol=1e-12)


def test_evidence_correction_does_not_believe_noise():
    """A relative error of twice the reliable one leaves a fifth of the correction."""
    steps = 400
    spread = 2 * controllers.RELIABLE_ERROR * np.sqrt(steps)
    draws = np.tile([0.0, 1.0], steps // 2)  # mean 1/2, so the values are 1 +- spread after scaling
    noisy = 8 * np.maximum(1 + spread * (2 * draws - 1), 1e-6)
    log_evidence = np.log(np.column_stack([np.ones(steps), np.ones(steps), noisy]))
    error = noisy.std() / np.sqrt(steps) / noisy.mean()
    expected = np.log(noisy.mean()) / (1 + (error / controllers.RELIABLE_ERROR) ** 2)
    np.testing.assert_allclose(evidence_correction(log_evidence), [0, 0, expected], atol=1e-10)


def test_a_component_without_any_evidence_keeps_its_weight():
    log_evidence = np.column_stack([np.zeros(10), np.full(10, -np.inf), np.ones(10)])
    factors = evidence_correction(log_evidence)
    assert np.isfinite(factors).all()
    assert factors[1] == 0


def test_evidence_correction_when_most_components_have_none():
    """A fit cut short, one component a thousand nats ahead: the weights stay."""
    log_evidence = np.tile([-1e4, -1e4, -5.0, -1e4], (10, 1))
    np.testing.assert_array_equal(evidence_correction(log_evidence), np.zeros(4))
    np.testing.assert_array_equal(evidence_correction(np.full((10, 2), -np.inf)), np.zeros(2))


# Respawning keeps what the user asked for


@pytest.mark.parametrize("rule", [{"shared_variance": True}, {"variance_update": "fixed"}])
def test_respawning_leaves_variances_that_are_not_each_component_s_own(rule):
    group = FakeGroup([0.5, 0.5 - 1e-9, 1e-9])
    group.mixture = group.mixture.replace(log_variances=np.full(3, -1.0))
    phased(group, **rule).respawn(np.array([False, False, True]))
    np.testing.assert_array_equal(group.mixture.log_variances, -1.0)


def test_respawning_leaves_uniform_weights():
    group = FakeGroup(np.full(4, 0.25))
    phased(group, learn_weights=False).respawn(np.array([False, True, False, False]))
    np.testing.assert_allclose(group.mixture.weights, 0.25)


def test_a_recovery_while_settling_starts_the_average_anew():
    group = FakeGroup([0.5, 0.5])
    controller = phased(group, n=1000, stop_early=False)
    for done in range(500, 900):
        controller.step_sizes(done, 1)
        controller.after_steps(np.zeros(done + 1), np.zeros((1, 2)))
    assert controller.average.count > 0
    controller.recover(900, np.array([False, True]))
    moved = group.mixture.means[1].copy()
    for done in range(900, 1000):
        controller.step_sizes(done, 1)
        controller.after_steps(np.zeros(done + 1), np.zeros((1, 2)))
    controller.finish()
    np.testing.assert_allclose(group.mixture.means[1], moved)  # not halfway to its old place


def test_log_weights_sum_to_one_at_the_end():
    group = FakeGroup([0.5, 0.5])
    controller = phased(group, n=10)
    controller.average.add({**group.mixture.as_dict(), "log_weights": np.log([0.3, 0.3])})
    controller.log_evidence = [np.array([0.0, 1.0])] * 10
    controller.finish()
    np.testing.assert_allclose(np.exp(group.mixture.log_weights).sum(), 1, rtol=1e-12)


def test_respawned_diagonal_components_take_the_shape_of_their_parents():
    group = FakeGroup([0.5, 0.5 - 1e-9, 1e-9])
    own = np.log([[1.0, 4.0], [0.1, 0.2], [7.0, 7.0]])
    group.mixture = group.mixture.replace(log_variances=own)
    controller = phased(group)
    assert controller.respawn_dead()
    after = group.mixture.log_variances
    parent = int(np.flatnonzero((after[:2] != own[:2]).any(axis=1))[0])
    np.testing.assert_allclose(after[parent], own[parent] - np.log(2))
    np.testing.assert_array_equal(after[2], after[parent])
    np.testing.assert_array_equal(after[1 - parent], own[1 - parent])
