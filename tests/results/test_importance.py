"""Importance weights: ArviZ's smoothing, our conventions around it."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from pymc_isomix.results import importance

DRAWS = 4000


def student_against_normal(df):
    """Log weights of a Student t at draws from a standard normal."""
    z = stats.norm.rvs(size=DRAWS, random_state=1)
    return stats.t(df).logpdf(z) - stats.norm.logpdf(z)


def test_weights_are_arviz_s():
    log_weight = student_against_normal(5)
    smoothed, khat = array_stats.psislw(-log_weight)
    ours = importance.smooth(log_weight + 123.0)
    np.testing.assert_allclose(ours.weight, np.exp(smoothed), rtol=1e-12)
    assert ours.khat == pytest.approx(khat)
    assert ours.effective == pytest.approx(1 / np.sum(np.exp(smoothed) ** 2))


def test_sign_of_the_weights():
    # q wider than p has bounded weights; q narrower has a heavy tail of them
    z = stats.norm.rvs(size=DRAWS, random_state=1)
    wide = stats.norm(0, 0.7).logpdf(z) - stats.norm.logpdf(z)
    narrow = stats.norm(0, 2.0).logpdf(z) - stats.norm.logpdf(z)
    assert importance.smooth(wide).khat < 0.3 < 0.6 < importance.smooth(narrow).khat


def test_evidence_and_its_error():
    draws = stats.norm.rvs(size=(50, DRAWS), random_state=1)
    log_weight = 7.0 + stats.norm(0.3, 0.8).logpdf(draws) - stats.norm.logpdf(draws)
    results = [importance.smooth(one) for one in log_weight]
    errors = np.array([(r.log_evidence - 7.0) / r.log_evidence_se for r in results])
    # 50 standardised errors: their root mean square is within four of its standard errors
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(1.0, abs=4 / np.sqrt(100))


def test_draws_that_are_not_finite_weigh_nothing_and_count():
    log_weight = student_against_normal(8)
    spoiled = log_weight.copy()
    spoiled[:40] = [-np.inf] * 20 + [np.nan] * 10 + [np.inf] * 10  # one per cent
    result, clean = importance.smooth(spoiled), importance.smooth(log_weight[40:])
    np.testing.assert_array_equal(result.weight[:40], 0.0)
    np.testing.assert_allclose(result.weight[40:], clean.weight)
    assert result.khat == clean.khat
    assert result.log_evidence == pytest.approx(clean.log_evidence + np.log(0.99))


def test_equal_weights_need_no_tail():
    result = importance.smooth(np.full(100, -3.0))
    np.testing.assert_allclose(result.weight, 0.01)
    assert result.khat == -np.inf
    assert result.log_evidence == pytest.approx(-3.0)
    assert result.log_evidence_se == pytest.approx(0.0, abs=1e-9)


def test_no_finite_draw():
    result = importance.smooth(np.full(100, -np.inf))
    assert result.khat == np.inf
    assert result.log_evidence == -np.inf
    assert result.effective == 0


@pytest.mark.parametrize("n_draws", [1, 2, 24])
def test_too_few_draws_for_a_tail(n_draws):
    log_weight = student_against_normal(8)[:n_draws]
    result = importance.smooth(log_weight)
    expected = np.exp(log_weight) / np.exp(log_weight).sum()
    np.testing.assert_allclose(result.weight, expected)
    assert np.isnan(result.khat) or n_draws == 1


def test_resampling_is_in_proportion():
    weight = np.array([0.1, 0.0, 0.65, 0.25])
    chosen = importance.resample(weight, 1000, np.random.default_rng(1))
    # systematic: each count is within one of what it should be
    assert np.all(np.abs(np.bincount(chosen, minlength=4) - 1000 * weight) <= 1)
    assert np.any(np.diff(chosen) < 0)
