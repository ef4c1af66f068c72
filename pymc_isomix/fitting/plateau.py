"""When to stop, and the average of the last iterates."""

import numpy as np

TOLERANCE = 0.05  # nats: a smaller gain over a third of the phase is no reason to go on
OF_NOISE, LARGEST_TOLERANCE = 0.25, 0.5  # standard deviations of a loss; nats
MIN_WINDOW, MAX_WINDOW = 50, 300  # steps
FAR = 1.0  # nats above the latest losses


def has_plateaued(losses, tolerance=TOLERANCE):
    r"""Tell whether the loss has surely stopped falling.

    Compares the latest third of the losses with the third before it, at least 50 and, where the
    noise allows, at most 300 steps each: true when the fall of their means, plus two standard
    errors, is below ``tolerance``, or a quarter of the noise of a single loss where that is more,
    up to half a nat: what is left to the ELBO, KL(q || p), is of the order of that noise squared
    times the draws, and a fall so far below it is not worth the steps. Noise too large to tell
    says no. Windows begin after the way from a far start: with the first loss that is at most a nat
    above where the latest are.

    Parameters
    ----------
    losses : (t,) array
        Negative ELBO of the steps of this phase, nats.
    tolerance : float
        Nats.

    Examples
    --------
    >>> has_plateaued(np.zeros(300)), has_plateaued(np.linspace(100, 0, 300))
    (True, False)
    """
    losses = losses[np.isfinite(losses)]  # a refused step has none
    if len(losses) < 2 * MIN_WINDOW:
        return False
    near = losses <= losses[-MIN_WINDOW:].mean() + FAR
    losses = losses[near.argmax() :]
    third = max(MIN_WINDOW, len(losses) // 3)
    if len(losses) < 2 * third:
        return False
    for window in {third, min(third, MAX_WINDOW)}:
        fall, error = recent_fall(losses, window)
        noise = error * np.sqrt(window / 2)
        if fall + 2 * error < max(tolerance, min(OF_NOISE * noise, LARGEST_TOLERANCE)):
            return True
    return False


def recent_fall(losses, window):
    """Fall of the mean between the last two windows of finite losses, and its standard error.

    The noise variance comes from successive differences, so that a trend does not count as noise.
    """
    before, latest = losses[-2 * window : -window], losses[-window:]
    variance = 0.5 * np.mean(np.diff(losses[-2 * window :]) ** 2)
    return before.mean() - latest.mean(), np.sqrt(2 * variance / window)


def divergence_by_noise(losses, n_draws):
    r"""Estimate KL(q || p), nats, from the noise of the losses alone.

    Where :math:`\log q - \log p` is nearly normal over q it has mean KL and, once p is
    normalised, twice that as its variance, of which a loss, a mean over draws, shows its part.
    Modes that q does not have are not seen.

    Parameters
    ----------
    losses : (t,) array
        Negative ELBO of the steps, nats; the latest 50 count.
    n_draws : float
        Draws behind each loss, as many as equal weights would need for the same noise.
    """
    latest = losses[np.isfinite(losses)][-MIN_WINDOW:]
    return 0.25 * n_draws * np.mean(np.diff(latest) ** 2)


class IterateAverage:
    """Running mean of the variational parameters.

    Means are averaged in unconstrained space, variances and weights as logarithms.
    """

    def __init__(self):
        self.count = 0
        self.mean = {}

    def add(self, values):
        """Add parameters {name: array}; ``-inf`` log weights stay so."""
        self.count += 1
        for name, value in values.items():
            previous = self.mean.get(name, value)
            with np.errstate(invalid="ignore"):  # -inf - -inf
                step = (value - previous) / self.count
            self.mean[name] = previous + np.nan_to_num(step, nan=0.0)
