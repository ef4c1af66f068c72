"""Fitting an approximation further, in another process for example."""

from pymc_isomix.family import metric as metrics
from pymc_isomix.interface.inference import IsoMix

FIXED = ("n_components", "metric", "start", "start_sigma", "init", "init_width", "random_seed")


def resume(approx, **changes):
    """Make the inference that fits an approximation further, where its last fit stopped.

    The approximation keeps its parameters, its history and its random numbers, and it is the one
    that is fitted. A schedule other than ``"auto"`` goes on with its next step: n and then m steps
    give what n + m give (``"linear"`` apart, which falls to zero each time). ``"auto"`` explores
    and settles again. The state of an ``obj_optimizer`` of your own starts anew.

    Parameters
    ----------
    approx : IsotropicMixture
        Fitted by :class:`IsoMix`, or loaded.
    **changes
        Arguments of :class:`IsoMix` that shall differ from those of the last fit, ``schedule`` for
        example. A function given as ``schedule`` is not in a file: pass it again.

    Returns
    -------
    IsoMix

    Raises
    ------
    ValueError
        If ``changes`` name what the approximation fixes, its ``n_components`` for example.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 10)
    ...     approx = pmi.IsoMix(n_components=2, random_seed=1).approx
    >>> pmi.resume(approx, schedule="constant").approx is approx
    True
    """
    if fixed := sorted(set(changes) & {*FIXED, "model"}):
        raise ValueError(f"{', '.join(fixed)} cannot change: the approximation fixes it")
    values = approx.parameter_values()
    saved = {} if approx.history is None else dict(approx.history.settings)
    absolute = saved.pop("absolute_step", False)
    settings = {name: value for name, value in saved.items() if name not in FIXED} | changes
    if str(settings.get("schedule")).startswith("function "):
        raise ValueError("schedule was a function, which is not recorded: pass schedule= again")
    inference = IsoMix(
        len(values["means"]),
        metric=metrics.kind(values["metric"]),
        model=approx.model,
        _absolute_step=absolute,
        _approx=approx,
        **settings,
    )
    if approx.history is not None:
        approx.history.resume(changes)
        inference.hist = approx.hist
    return inference
