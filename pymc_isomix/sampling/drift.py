"""The change of means and standard deviations under transitions, with standard errors."""

import numpy as np

from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.named import named_draws
from pymc_isomix.model.periodic import circular_mean, wrap
from pymc_isomix.sampling.transitions import Moved

SLOW = 0.4  # acceptance rate of a chain; the target is 0.8
HEAVY = 9.0  # kurtosis, 3 for a Gaussian
LEAST_VARIANCE = 0.1  # of the variance of the states after, at least, in the regression
SCALARS = ("n_transitions", "acceptance_rate", "slow_chains")
COLUMNS = (
    "transitions_mean",
    "transitions_sd",
    "mean_drift",
    "mean_drift_se",
    "log_sd_drift",
    "log_sd_drift_se",
    "lower_tail",
    "lower_tail_se",
    "upper_tail",
    "upper_tail_se",
)
NAMED_DRAWS = 1000  # draws before, in model space
TAIL = 0.05  # share of the draws before in each tail


def drift(before: np.ndarray, after: np.ndarray) -> dict:
    r"""Compare the moments of draws before and after transitions.

    The average of each chain over the states after is compared with its start by regression. If
    chains forget their starts, their states count. If they hardly move, the difference counts.
    Standard errors are those of the regression. For the logarithm of a standard deviation they use
    the influence :math:`\psi = ((x - \bar x)^2 / s^2 - 1) / 2`. If the kurtosis is above 9, a few
    draws determine the standard deviation, so scales are compared by the mean of :math:`\psi = \log
    |x - \operatorname{median}|`.

    Parameters
    ----------
    before : (N, d) array
        Draws in unconstrained space; the first S are the starts of the chains.
    after : (T, S, d) array
        States of the chains.

    Returns
    -------
    dict of str to (d,) array
        By :data:`COLUMNS`: moments after; the difference of the means, in standard deviations
        after; the difference of the log standard deviations, or scales; the shares after below the
        quantile .05 of the draws before, and above .95; and standard errors. NaN if all draws
        before are equal.

    References
    ----------
    .. [1] Cochran (1977), Sampling techniques, 3rd edition, section 12.6: regression estimates from
       double samples.
    """
    mean, sd = before.mean(axis=0), before.std(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        start, end = (before - mean) / sd, (after - mean) / sd
        shift, shift_error = _change(start, end)
        pooled = end.var(axis=(0, 1))
        variance = 1 + _change(start**2, end**2)[0] - shift**2
        variance = np.maximum(variance, LEAST_VARIANCE * pooled)
        new_sd = np.sqrt(variance)
        end = (end - shift) / new_sd
        log_ratio, error = np.log(new_sd), _change(start**2 / 2, end**2 / 2)[1]
        kurtosis = [(start**4).mean(axis=0), (end**4).mean(axis=(0, 1))]
        heavy = np.mean(kurtosis, axis=0) > HEAVY
        if heavy.any():
            sizes = _log_sizes(before[:, heavy], after[..., heavy])
            log_ratio[heavy], error[heavy] = _change(*sizes)
        low, high = np.quantile(before, [TAIL, 1 - TAIL], axis=0)
        tails = [
            _change(*((sign * draws > sign * bound).astype(float) for draws in (before, after)))
            for sign, bound in ((-1, low), (1, high))
        ]
    (lower, lower_error), (upper, upper_error) = tails
    varies = np.where(sd > 0, 0.0, np.nan)
    columns = (
        mean + sd * shift,
        sd * new_sd,
        shift / new_sd,
        shift_error / new_sd,
        log_ratio,
        error,
        TAIL + lower,
        lower_error,
        TAIL + upper,
        upper_error,
    )
    return {name: column + varies for name, column in zip(COLUMNS, columns, strict=True)}


def _change(before, after):
    """Change of the mean from before (N, d) to after (T, S, d), and its standard error."""
    n_chains = after.shape[1]
    own, latest = before[:n_chains], after.mean(axis=0)
    apart = own - own.mean(axis=0)
    slope = (apart * (latest - latest.mean(axis=0))).mean(axis=0) / (apart**2).mean(axis=0)
    left = latest - slope * own
    change = left.mean(axis=0) - (1 - slope) * before.mean(axis=0)
    variance = left.var(axis=0) / n_chains + (1 - slope) ** 2 * before.var(axis=0) / len(before)
    return change, np.sqrt(variance)


def _log_sizes(before, after):
    """Log distances of draws to their median, whose mean is stable under heavy tails, too."""
    centre = np.median(before, axis=0)
    least = 0.01 * np.median(np.abs(before - centre), axis=0)
    return [np.log(np.maximum(np.abs(draws - centre), least)) for draws in (before, after)]


def figures(
    compiled: CompiledModel, before: np.ndarray, moved: Moved, angles: np.ndarray | None = None
) -> dict:
    """Return the figures of transitions: :func:`drift`, acceptance and slow chains.

    Parameters
    ----------
    before : (N, d) array
        Draws in unconstrained space; the first ones are the starts of the chains.
    angles : (d,) booleans, optional
        Dimensions whose turns are all one place.

    Returns
    -------
    dict
        By :data:`SCALARS` and :data:`COLUMNS`. ``model_space`` has labels and the same columns for
        variables in their own units, if these differ from unconstrained space.
    """
    if not moved.n_done:
        return unknown(before.shape[1])
    n_states, n_chains, n_dim = moved.recent.shape
    after, _ = compiled.to_unconstrained(moved.recent.reshape(-1, n_dim))
    rate = moved.acceptance_rate
    scalars = (moved.n_done, float(rate.mean()), float((rate < SLOW).mean()))
    labels, *named = named_draws(compiled, before[: max(NAMED_DRAWS, n_chains)], after)
    if angles is not None and angles.any():
        centre = circular_mean(before, np.full(len(before), 1 / len(before)), angles)
        before, after = (wrap(draws, centre, angles) for draws in (before, after))
    found, of_named = (
        drift(draws, states.reshape(n_states, n_chains, -1))
        for draws, states in ((before, after), named)
    )
    return {
        **found,
        **dict(zip(SCALARS, scalars, strict=True)),
        "model_space": _with_moments_before(labels, named[0], of_named) if len(labels) else {},
    }


def _with_moments_before(labels, draws, found):
    return {"labels": labels, "mean": draws.mean(axis=0), "sd": draws.std(axis=0), **found}


def unknown(n_dim: int) -> dict:
    """Return the figures without transitions."""
    return {
        **dict.fromkeys(COLUMNS, np.full(n_dim, np.nan)),
        **dict(zip(SCALARS, (0, np.nan, np.nan), strict=True)),
        "model_space": {},
    }
