"""The stopping rule, and the average of the last iterates."""

from typing import Any

import numpy as np

TOLERANCE = 0.05  # nats: a smaller gain over a third of the phase ends it
OF_NOISE, LARGEST_TOLERANCE = 0.25, 0.5  # standard deviations of a loss; nats
MIN_WINDOW, MAX_WINDOW = 50, 300  # steps
FAR = 1.0  # nats above the latest losses


def has_plateaued(losses: Any) -> Any:
    r"""Tell whether the loss has surely stopped falling.

    The latest third of the losses is compared with the third before it, 50 to 300 steps each. The
    loss has stopped falling if the fall of the means plus two standard errors is below
    0.05 nats, or below a quarter of the noise of a single loss if that is larger, up to half a
    nat. The remaining KL(q || p) is of the order of that noise squared times the number of draws,
    so a fall far below it is not worth more steps. If the noise is too large to tell, the answer is
    no. The windows begin with the first loss at most a nat above the latest ones, to exclude the
    way from a far start.

    Parameters
    ----------
    losses : (t,) array
        Negative ELBO of the steps of this phase, nats.

    Examples
    --------
    >>> has_plateaued(np.zeros(300)), has_plateaued(np.linspace(100, 0, 300))
    (True, False)
    """
    losses = losses[np.isfinite(losses)]  # refused steps have no loss
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
        if fall + 2 * error < max(TOLERANCE, min(OF_NOISE * noise, LARGEST_TOLERANCE)):
            return True
    return False


def recent_fall(losses: np.ndarray, window: int) -> tuple[float, float]:
    """Fall of the mean between the last two windows of finite losses, and its standard error.

    The noise variance comes from successive differences, which exclude a trend.
    """
    before, latest = losses[-2 * window : -window], losses[-window:]
    variance = 0.5 * np.mean(np.diff(losses[-2 * window :]) ** 2)
    return before.mean() - latest.mean(), np.sqrt(2 * variance / window)


def divergence_by_noise(losses: Any, n_draws: Any) -> Any:
    r"""Estimate KL(q || p), nats, from the noise of the losses alone.

    If :math:`\log q - \log p` is nearly normal over q, its mean is KL (for a normalised p) and its
    variance is twice that. The variance of a loss, a mean over draws, shows its share. Modes that q
    lacks do not count.

    Parameters
    ----------
    losses : (t,) array
        Negative ELBO of the steps, nats; the latest 50 count.
    n_draws : float
        Number of draws per loss, or the number with equal weights that has the same noise.
    """
    latest = losses[np.isfinite(losses)][-MIN_WINDOW:]
    return 0.25 * n_draws * np.mean(np.diff(latest) ** 2)


class IterateAverage:
    """Running mean of the variational parameters.

    Means are averaged in unconstrained space, variances and weights as logarithms.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict = {}

    def add(self, values: dict) -> None:
        """Add parameters {name: array}; ``-inf`` log weights stay so."""
        self.count += 1
        for name, value in values.items():
            previous = self.mean.get(name, value)
            with np.errstate(invalid="ignore"):  # -inf - -inf
                step = (value - previous) / self.count
            self.mean[name] = previous + np.nan_to_num(step, nan=0.0)
