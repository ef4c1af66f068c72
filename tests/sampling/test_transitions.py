"""Transitions that leave the posterior as it is, mend what is off, and survive what fails."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.sampling import progress
from pymc_isomix.sampling.transitions import (
    Chains,
    from_whitened,
    leapfrog,
    to_whitened,
    transitions,
)

SD = np.array([0.5, 3.0, 1.0])
S = 2000


def gaussian(at):
    """Independent normal distributions with mean 1."""
    away = (at - 1.0) / SD
    return -0.5 * (away**2).sum(axis=1), -away / SD


def model_of(density):
    return SimpleNamespace(
        log_density_and_gradient=density, log_density=lambda points: density(points)[0]
    )


def mixture(scale=1.0, metric=SD):
    return Mixture(np.ones((1, 3)), np.array([2 * np.log(scale)]), np.zeros(1), metric)


def moved_from(q, density=gaussian, n=20, seed=1, **options):
    points = q.draw(S, np.random.default_rng(seed))[0]
    return points, transitions(
        model_of(density), q, points, n, np.random.default_rng(seed), **options
    )


@pytest.mark.parametrize("metric", [SD, np.diag(SD)])
def test_the_posterior_stays(metric):
    before, moved = moved_from(mixture(metric=metric))
    assert moved.n_done == 20
    assert moved.acceptance_rate.mean() == pytest.approx(0.8, abs=0.1)
    for i in range(3):
        ours = (moved.points[:, i] - 1) / SD[i]
        assert stats.kstest(ours, "norm").pvalue > 0.001
        # and yet the chains went far: nothing is left of where they began
        assert abs(np.corrcoef(before[:, i], moved.points[:, i])[0, 1]) < 4 / np.sqrt(S)
    np.testing.assert_allclose(moved.log_density, gaussian(moved.points)[0])


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_wrong_scales_are_mended(scale):
    _, moved = moved_from(mixture(scale))
    np.testing.assert_allclose(moved.points.std(axis=0) / SD, 1.0, atol=4 / np.sqrt(2 * S))
    np.testing.assert_allclose((moved.points.mean(axis=0) - 1) / SD, 0.0, atol=4 / np.sqrt(S))


def test_same_seed_same_draws():
    np.testing.assert_array_equal(
        moved_from(mixture(), n=2)[1].points, moved_from(mixture(), n=2)[1].points
    )


def test_states_of_the_latest_transitions():
    """Every other one of the latest half, and where the chains ended."""
    _, moved = moved_from(mixture(), n=9, n_recent=5)
    ends = moved_from(mixture(), n=9)[1]
    assert moved.recent.shape == (3, S, 3)  # after 5, 7 and 9
    np.testing.assert_array_equal(moved.recent[-1], ends.points)
    np.testing.assert_array_equal(ends.recent, ends.points[None])
    same = [(one == ends.points).all(axis=1).mean() for one in moved.recent]
    assert same[0] < same[1] < same[2]  # a proposal may be refused


def test_whitened_coordinates_and_back():
    lower = np.array([[2.0, 0.0], [1.5, 0.5]])
    q = Mixture(np.array([[1.0, -1.0]]), np.array([0.3]), np.zeros(1), lower)
    points = q.draw(5, np.random.default_rng(1))[0]
    at = to_whitened(q, points)
    np.testing.assert_allclose(from_whitened(q, at), points)
    np.testing.assert_allclose(at @ (np.exp(0.15) * lower).T, points - [1.0, -1.0])


def test_a_trajectory_can_be_gone_back_and_keeps_its_energy():
    rng = np.random.default_rng(1)
    at, momentum = rng.normal(size=(2, 10, 3))
    start = Chains(at, momentum, *gaussian(at))
    end = leapfrog(gaussian, start, 0.02, 50)
    assert np.abs(end.energy - start.energy).max() < 0.01
    back = leapfrog(gaussian, end._replace(momentum=-end.momentum), 0.02, 50)
    np.testing.assert_allclose(back.at, at, atol=1e-10)


# Faults


def test_outside_the_support():
    """Half of the draws begin where the log density is -inf, with no gradient to lead them."""

    def half(at):
        log_p, gradient = gaussian(at)
        outside = at[:, 0] < 1.0
        return np.where(outside, -np.inf, log_p), np.where(outside[:, None], np.nan, gradient)

    before, moved = moved_from(mixture(), half)
    assert (before[:, 0] < 1.0).mean() == pytest.approx(0.5, abs=0.1)
    inside = moved.points[:, 0] >= 1.0
    assert inside.mean() > 0.8
    assert np.isfinite(moved.log_density[inside]).all()
    # half a normal distribution is left
    away = (moved.points[inside, 0] - 1.0) / SD[0]
    assert away.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.1)


def test_a_gradient_that_is_not_finite_spoils_no_other_chain():
    calls = []

    def broken(at):
        log_p, gradient = gaussian(at)
        calls.append(1)
        gradient[7] = np.nan
        return log_p, gradient

    _, moved = moved_from(mixture(), broken)
    _, whole = moved_from(mixture())
    assert np.isfinite(moved.points).all()
    assert moved.points.std(axis=0) == pytest.approx(whole.points.std(axis=0), rel=0.1)


def test_chains_that_never_accept_stay_where_they_are():
    calls = []

    def nowhere_else(at):
        calls.append(1)
        log_p, gradient = gaussian(at)
        return (log_p if len(calls) == 1 else np.full(len(at), np.nan)), gradient

    before, moved = moved_from(mixture(), nowhere_else)
    np.testing.assert_allclose(moved.points, before)
    np.testing.assert_array_equal(moved.acceptance_rate, 0.0)
    np.testing.assert_allclose(moved.log_density, gaussian(before)[0])


@pytest.mark.parametrize(("call", "n_done"), [(1, 0), (3, 0), (8 * 5 + 3, 5)])
def test_an_interrupt_leaves_the_draws_so_far(call, n_done, caplog):
    calls = []

    def interrupted(at):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return gaussian(at)

    with caplog.at_level("WARNING", "pymc_isomix"):
        before, moved = moved_from(mixture(), interrupted)
    assert f"those after {n_done} of 20 transitions" in caplog.text
    assert moved.n_done == n_done
    expected = before if not n_done else moved_from(mixture(), n=n_done)[1].points
    np.testing.assert_array_equal(moved.points, expected)


@pytest.mark.parametrize(("patience", "shown"), [(0.0, True), (60.0, False)])
def test_progress_is_shown_where_it_lasts(monkeypatch, capsys, patience, shown):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    moved_from(mixture(), n=2, progressbar=True)
    assert ("Transitions" in capsys.readouterr().out) == shown
    moved_from(mixture(), n=2)
    assert "Transitions" not in capsys.readouterr().out
