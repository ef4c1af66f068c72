"""How far exact transitions move means and standard deviations: paired draws, standard errors."""

import numpy as np

SLOW = 0.4  # acceptance rate of a chain, where 0.8 is aimed at
HEAVY = 9.0  # kurtosis, 3 for a Gaussian
SCALARS = ("n_transitions", "acceptance_rate", "slow_chains")
COLUMNS = (
    "transitions_mean",
    "transitions_sd",
    "mean_drift",
    "mean_drift_se",
    "log_sd_drift",
    "log_sd_drift_se",
)


def drift(before, after):
    r"""Compare the moments of draws before and after transitions.

    The draws are pairs, the start and the end of a chain, so that standard errors are those of
    the differences: of :math:`x' - x` for a mean, and of :math:`\psi' - \psi` for the logarithm of
    a standard deviation, with its influence :math:`\psi = ((x - \bar x)^2 / s^2 - 1) / 2`. Where
    the kurtosis is above 9, a few draws make the standard deviation; there, scales are compared by
    the mean of :math:`\psi = \log |x - \operatorname{median}|`.

    Parameters
    ----------
    before, after : (S, d) array
        Unconstrained space.

    Returns
    -------
    dict of str to (d,) array
        By :data:`COLUMNS`: moments after; the difference of the means, in standard deviations
        after; that of the log standard deviations, or scales; and the standard errors of both.
    """
    root_n = np.sqrt(len(before))
    moments = [(draws.mean(axis=0), draws.std(axis=0)) for draws in (before, after)]
    (mean, sd), (new_mean, new_sd) = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = [(draws - m) / s for draws, (m, s) in zip((before, after), moments, strict=True)]
        influence, new_influence = (0.5 * x**2 for x in standard)
        log_ratio = np.log(new_sd / sd)
        heavy = np.mean([(x**4).mean(axis=0) for x in standard], axis=0) > HEAVY
        if heavy.any():
            sizes = _log_sizes(before[:, heavy], after[:, heavy])
            influence[:, heavy], new_influence[:, heavy] = sizes
            log_ratio[heavy] = (sizes[1] - sizes[0]).mean(axis=0)
        columns = (
            new_mean,
            new_sd,
            (new_mean - mean) / new_sd,
            (after - before).std(axis=0) / root_n / new_sd,
            log_ratio,
            (new_influence - influence).std(axis=0) / root_n,
        )
    return dict(zip(COLUMNS, columns, strict=True))


def _log_sizes(before, after):
    """Log distances of draws to their median, whose mean is well known under heavy tails too."""
    centre = np.median(np.concatenate([before, after]), axis=0)
    least = 0.01 * np.median(np.abs(before - centre), axis=0)
    return [np.log(np.maximum(np.abs(draws - centre), least)) for draws in (before, after)]


def figures(compiled, before, moved):
    """Return what transitions tell of an approximation: :func:`drift`, and how they went.

    Parameters
    ----------
    compiled : CompiledModel
    before : (S, d) array
        Coordinates y of the draws.
    moved : Moved

    Returns
    -------
    dict
        By :data:`SCALARS` and :data:`COLUMNS`.
    """
    if not moved.n_done:
        return unknown(before.shape[1])
    draws, after = (compiled.to_unconstrained(points)[0] for points in (before, moved.points))
    rate = moved.acceptance_rate
    scalars = (moved.n_done, float(rate.mean()), float((rate < SLOW).mean()))
    return {**drift(draws, after), **dict(zip(SCALARS, scalars, strict=True))}


def unknown(n_dim):
    """Return the same where no transitions were made."""
    return {
        **dict.fromkeys(COLUMNS, np.full(n_dim, np.nan)),
        **dict(zip(SCALARS, (0, np.nan, np.nan), strict=True)),
    }
