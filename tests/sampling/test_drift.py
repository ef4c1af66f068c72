"""Drift of moments: its size and its standard errors."""

import numpy as np
import pytest
from scipy import stats

from pymc_isomix.sampling.drift import COLUMNS, drift, unknown


def pairs(rng, n, sd=1.0, mean=0.0, correlation=0.8):
    """Standard normal draws, and correlated ones with other moments."""
    before = rng.normal(size=(n, 1))
    noise = rng.normal(size=(n, 1))
    return before, mean + sd * (correlation * before + np.sqrt(1 - correlation**2) * noise)[None]


def test_sizes():
    found = drift(*pairs(np.random.default_rng(1), 100_000, sd=1.5, mean=0.3))
    assert found["log_sd_drift"][0] == pytest.approx(np.log(1.5), abs=0.01)
    assert found["mean_drift"][0] == pytest.approx(0.2, abs=0.01)
    assert found["transitions_mean"][0] == pytest.approx(0.3, abs=0.02)
    assert found["transitions_sd"][0] == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("name", ["mean_drift", "log_sd_drift"])
def test_standard_errors(name):
    rng = np.random.default_rng(1)
    found = [drift(*pairs(rng, 400)) for _ in range(500)]
    measured = np.std([one[name][0] for one in found])
    claimed = np.mean([one[f"{name}_se"][0] for one in found])
    # 500 repetitions know a standard deviation to 1 / sqrt(1000), 3 %
    assert claimed == pytest.approx(measured, rel=0.12)


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_tails(sd):
    """Shares beyond the quantiles .05 and .95 of a standard normal, of one sd times as wide."""
    found = drift(*pairs(np.random.default_rng(1), 50_000, sd=sd))
    expected = stats.norm.cdf(stats.norm.ppf(0.05) / sd)
    for name in ("lower_tail", "upper_tail"):
        # the quantile itself is known to sqrt(.05 .95 / N), times a ratio of densities
        error = found[f"{name}_se"][0] + 2 * np.sqrt(0.05 * 0.95 / 50_000)
        assert found[name][0] == pytest.approx(expected, abs=4 * error)


def test_tails_survive_a_change_of_scale():
    before, after = pairs(np.random.default_rng(1), 1000, sd=1.4, mean=0.3)
    one, other = drift(before, after), drift(np.exp(before), np.exp(after))
    for name in ("lower_tail", "lower_tail_se", "upper_tail", "upper_tail_se"):
        np.testing.assert_allclose(other[name], one[name], atol=1e-3)


def test_what_does_not_vary_is_not_compared():
    found = drift(np.ones((50, 1)), np.ones((2, 10, 1)))
    assert all(np.isnan(column).all() for column in found.values())


def chains(rng, correlation, n=100, n_more=900, n_states=5):
    """Standard normal draws, of which the first n go on as stationary chains."""
    before = rng.normal(size=(n + n_more, 1))
    states = [before[:n]]
    for _ in range(n_states):
        noise = rng.normal(size=(n, 1))
        states.append(correlation * states[-1] + np.sqrt(1 - correlation**2) * noise)
    return before, np.array(states[1:])


@pytest.mark.parametrize("correlation", [0.0, 0.7, 0.98])
def test_chains_of_several_states(correlation):
    """No drift, with its standard error, and less of it than ends of chains alone would show."""
    rng = np.random.default_rng(2)
    runs = [chains(rng, correlation) for _ in range(600)]
    for name in ("mean_drift", "log_sd_drift"):
        found = np.array([drift(*run)[name][0] for run in runs])
        claimed = np.mean([drift(*run)[f"{name}_se"][0] for run in runs])
        assert abs(found.mean()) < 4 * claimed / np.sqrt(600) + 0.002  # of a ratio's own bias
        # 600 repetitions know a standard deviation to 3 %
        assert claimed == pytest.approx(found.std(), rel=0.12)
        pairs = [drift(before[: after.shape[1]], after[-1:]) for before, after in runs]
        assert claimed < np.std([one[name][0] for one in pairs])


def funnel(rng, n):
    """Draws of the width of Neal's funnel."""
    return rng.normal(size=(n, 1)) * np.exp(1.5 * rng.normal(size=(n, 1)))


def test_heavy_tails_are_not_taken_for_drift():
    """Of 200 pairs of independent draws, 4.6 % lie beyond two standard errors: 9 +- 3."""
    rng = np.random.default_rng(4)
    found = [drift(funnel(rng, 1000), funnel(rng, 1000)[None]) for _ in range(200)]
    beyond = [abs(one["log_sd_drift"][0]) > 2 * one["log_sd_drift_se"][0] for one in found]
    assert sum(beyond) <= 18
    sizes = [abs(one["log_sd_drift"][0]) - 2 * one["log_sd_drift_se"][0] for one in found]
    assert max(sizes) < np.log(1.15)


def test_another_scale_is_seen_under_heavy_tails():
    """A factor of 1.5; 1000 pairs have a standard error of about .08."""
    rng = np.random.default_rng(5)
    found = [drift(funnel(rng, 1000), 1.5 * funnel(rng, 1000)[None]) for _ in range(20)]
    sizes = np.array([one["log_sd_drift"][0] for one in found])
    errors = np.array([one["log_sd_drift_se"][0] for one in found])
    assert abs(sizes.mean() - np.log(1.5)) < 4 * errors.mean() / np.sqrt(20)
    assert sizes.std() == pytest.approx(errors.mean(), rel=0.6)  # of 20: known to 16 %


def test_what_did_not_move_did_not_drift():
    draws = np.random.default_rng(1).normal(size=(50, 2))
    found = drift(draws, draws[None])
    for name in ("mean_drift", "mean_drift_se", "log_sd_drift", "log_sd_drift_se"):
        np.testing.assert_array_equal(found[name], 0.0)


def test_unknown():
    found = unknown(3)
    assert found["n_transitions"] == 0
    assert all(np.isnan(found[name]).all() and found[name].shape == (3,) for name in COLUMNS)
