"""How far exact transitions move means and standard deviations: paired draws, standard errors."""

import numpy as np

SLOW = 0.4  # acceptance rate of a chain, where 0.8 is aimed at
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
    a standard deviation, with its influence :math:`\psi = ((x - \bar x)^2 / s^2 - 1) / 2`.

    Parameters
    ----------
    before, after : (S, d) array
        Unconstrained space.

    Returns
    -------
    dict of str to (d,) array
        By :data:`COLUMNS`: moments after; the difference of the means, in standard deviations
        after; that of the log standard deviations; and the standard errors of both.
    """
    root_n = np.sqrt(len(before))
    moments = [(draws.mean(axis=0), draws.std(axis=0)) for draws in (before, after)]
    (mean, sd), (new_mean, new_sd) = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        influence, new_influence = (
            0.5 * ((draws - m) / s) ** 2
            for draws, (m, s) in zip((before, after), moments, strict=True)
        )
        columns = (
            new_mean,
            new_sd,
            (new_mean - mean) / new_sd,
            (after - before).std(axis=0) / root_n / new_sd,
            np.log(new_sd / sd),
            (new_influence - influence).std(axis=0) / root_n,
        )
    return dict(zip(COLUMNS, columns, strict=True))


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
