import numpy as np
import pytest

from pymc_isomix.fitting.plateau import (
    MAX_WINDOW,
    MIN_WINDOW,
    OF_NOISE,
    TOLERANCE,
    IterateAverage,
    divergence_by_noise,
    has_plateaued,
    recent_fall,
)


def noisy(trend, noise, seed):
    return np.asarray(trend) + noise * np.random.default_rng(seed).normal(size=len(trend))


@pytest.mark.parametrize("seed", range(5))
def test_constant_loss_with_little_noise_has_plateaued(seed):
    assert has_plateaued(noisy(np.full(400, 12.0), 0.1, seed))


def test_too_few_losses_say_no():
    assert not has_plateaued(np.zeros(2 * MIN_WINDOW - 1))
    assert has_plateaued(np.zeros(2 * MIN_WINDOW))


def test_noise_that_could_hide_a_fall_says_no():
    """Two standard errors of the fall are 2 * 3 * sqrt(2 / 133) = 0.7 nats, above the tolerance."""
    assert not has_plateaued(noisy(np.zeros(400), 3.0, 0))


def test_false_stops_are_rare():
    """A fall of three tolerances a window is taken for a plateau at most at the rate of 2 sigma.

    The standard error of the fall is 0.3 sqrt(2 / 133) = 0.037, so that it must come out four
    standard errors too small: of 1000 trials none is expected.
    """
    window = 400 // 3
    trend = -3 * TOLERANCE / window * np.arange(400)
    stops = sum(has_plateaued(noisy(trend, 0.3, seed)) for seed in range(1000))
    assert stops <= 2


def test_long_runs_look_at_recent_losses_only():
    falling = np.linspace(1e6, 0, 2000)
    assert not has_plateaued(falling)
    assert has_plateaued(np.concatenate([falling, noisy(np.zeros(600), 0.05, 0)]))


def test_the_way_from_a_far_start_does_not_count():
    """Two windows after it are enough, and no fewer; a slow fall near the end still counts."""
    way, there = np.geomspace(1e4, 2.0, 300), noisy(np.zeros(99), 0.05, 0)
    assert not has_plateaued(np.concatenate([way, there]))
    assert has_plateaued(np.concatenate([way, there, [0.0]]))
    assert not has_plateaued(np.concatenate([way, np.linspace(0.9, 0.0, 100)]))


@pytest.mark.parametrize(("sd", "mean"), [(1.05, 0.0), (1.0, 0.1)])
def test_divergence_from_the_noise_is_that_of_gaussians(sd, mean):
    """q = N(mean, sd^2), p = N(0, 1), the losses with a trend that does not count.

    Four thousand losses know a variance to 2.2 % (1 / sqrt(2000)); half the variance of the log
    ratio differs from KL(q || p) by sd - 1, relatively, where that is small.
    """
    rng, n_draws = np.random.default_rng(0), 30
    draws = mean + sd * rng.normal(size=(50, 100, n_draws))
    log_ratio = -0.5 * ((draws - mean) / sd) ** 2 - np.log(sd) + 0.5 * draws**2
    trend = np.linspace(0.005, 0, 100)
    found = np.mean([divergence_by_noise(trend + x.mean(axis=1), n_draws) for x in log_ratio])
    divergence = -np.log(sd) + 0.5 * (sd**2 + mean**2 - 1)
    assert found == pytest.approx(divergence, rel=0.2)


def test_average_is_the_mean_of_what_was_added():
    rng = np.random.default_rng(0)
    values = [{"means": rng.normal(size=(2, 3)), "log_weights": rng.normal(size=2)} for _ in "1234"]
    average = IterateAverage()
    for value in values:
        average.add(value)
    for name in values[0]:
        expected = np.mean([value[name] for value in values], axis=0)
        np.testing.assert_allclose(average.mean[name], expected, rtol=1e-14)
    assert average.count == 4


def test_average_keeps_a_dropped_component_dropped():
    average = IterateAverage()
    for _ in range(3):
        average.add({"log_weights": np.array([0.0, -np.inf])})
    np.testing.assert_array_equal(average.mean["log_weights"], [0.0, -np.inf])


def test_losses_of_refused_steps_hide_no_plateau():
    losses = noisy(np.full(400, 12.0), 0.1, 0)
    losses[[0, 150, 399]] = np.nan
    assert has_plateaued(losses)
    assert not has_plateaued(np.full(400, np.nan))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_a_plateau_is_seen_through_noise(noise):
    """A quarter of the noise is three standard errors of the fall, at windows of 300 losses."""
    assert has_plateaued(noisy(np.full(900, 12.0), noise, 0))
    falling = np.linspace(3 * OF_NOISE * noise * 3, 0, 900)  # by three tolerances a window
    assert not has_plateaued(noisy(falling, noise, 0))


def test_noise_below_a_fifth_of_a_nat_changes_nothing():
    """A quarter of it is less than the tolerance: the same answer at every length."""
    noise = 0.9 * TOLERANCE / OF_NOISE
    losses = noisy(np.exp(-np.arange(1500) / 150), noise, 1)
    for t in range(100, 1500, 50):
        third = max(MIN_WINDOW, t // 3)
        falls = [recent_fall(losses[:t], window) for window in {third, min(third, MAX_WINDOW)}]
        assert has_plateaued(losses[:t]) == any(f + 2 * error < TOLERANCE for f, error in falls)


def test_what_much_noise_may_hide_is_not_taken_for_a_plateau():
    """Half a nat is the most: two standard errors of six nats of noise are a whole one."""
    assert not has_plateaued(noisy(np.zeros(900), 6.0, 0))
