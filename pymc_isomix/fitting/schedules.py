"""Schedules: step sizes that are fixed before the first iteration."""

from typing import Any

import numpy as np

from pymc_isomix.backend.checks import check_number

NAMED = {
    "constant": lambda t, n: np.ones(n),
    "sqrt": lambda t, n: 1 / np.sqrt(1 + t),
    "linear": lambda t, n: 1 - t / n,
}


def check_schedule(step_size: float, schedule: Any) -> None:
    """Raise unless ``step_size`` is positive, and ``schedule`` known or a positive function."""
    check_number("step_size", step_size)
    if isinstance(schedule, str) and schedule == "auto":  # sizes follow the fit: phases.Phased
        return
    if not callable(schedule) and not (isinstance(schedule, str) and schedule in NAMED):
        raise ValueError(
            "schedule must be a function of the iteration or one of "
            f"{['auto', *NAMED]}; got {schedule!r}"
        )
    step_sizes(step_size, schedule, 1)


def step_sizes(step_size: float, schedule: Any, n: int) -> np.ndarray:
    r"""Evaluate the schedule.

    Parameters
    ----------
    step_size : float
        :math:`\gamma`.
    schedule : str or callable
        ``"constant"``; ``"sqrt"``, :math:`\gamma / \sqrt{1 + t}`; ``"linear"``,
        :math:`\gamma (1 - t/n)`; or a function from iteration t = 0, 1, ... to a factor of gamma.
    n : int
        Number of iterations.

    Returns
    -------
    (n,) array
        One step size per iteration.

    Raises
    ------
    ValueError
        If a step size is not positive and finite.

    Examples
    --------
    >>> step_sizes(0.5, "sqrt", 4).round(3).tolist()
    [0.5, 0.354, 0.289, 0.25]
    """
    t = np.arange(n)
    factors = (
        np.array([float(schedule(int(i))) for i in t])
        if callable(schedule)
        else NAMED[schedule](t, n)
    )
    sizes = step_size * factors
    if not np.all(np.isfinite(sizes) & (sizes > 0)):
        first = int(np.argmin(np.isfinite(sizes) & (sizes > 0)))
        raise ValueError(
            f"schedule must give positive, finite step sizes; iteration {first} has {sizes[first]}"
        )
    return sizes
