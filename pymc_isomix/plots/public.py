"""Plots of a fit, from its DataTree alone, by arviz-plots."""

from typing import Any

import numpy as np
import xarray as xr

from pymc_isomix.plots import pair_plot
from pymc_isomix.plots.canvas import (
    Plot,
    group_of,
    import_arviz_plots,
    log_ticks,
    points,
    sparse,
)
from pymc_isomix.results import importance
from pymc_isomix.results.rules import NEARLY_EQUAL

ERRORS = 2  # standard errors each way
LEAST_DEPTH = 2.0  # nats of ELBO


def plot_components(
    dt: Any,
    *,
    var_names: str | list[str] | None = None,
    visuals: dict | None = None,
    **pc_kwargs: Any,
) -> Any:
    """Plot the components of the mixture as ellipses over draws, two dimensions at a time.

    The axes are the coordinates in which the ellipses of one standard deviation are exact. These
    are unconstrained space, where a transformed variable shows as ``tau_log__``, and units of their
    own scale for the effects of a hierarchy (see :func:`plot_shares`). A heavier component has a
    darker and wider line, and the colour shows its mode. The diagonal has the exact marginal
    densities, one curve per mode. The draws are new ones from the mixture. Components flagged
    ``dead`` are left out.

    Parameters
    ----------
    dt : DataTree or IsotropicMixture
        With the group ``isomix``: of :func:`fit` or :meth:`IsotropicMixture.sample`.
    var_names : str or list of str, optional
        Variables (``"beta"``, ``"tau"`` or ``"tau_log__"``) or elements (``"beta[Intercept]"``).
        The default is the five dimensions in which the means of the components explain the largest
        share of the variance, or all dimensions if there are fewer.
    visuals : mapping of {str : mapping or bool}, optional
        Options of each visual, False to leave it out: ``scatter`` (the draws), ``ellipse`` and
        ``dist`` (lines), ``xlabel``, ``ylabel``, ``legend`` (of up to ten modes), ``title``.
    **pc_kwargs
        Passed to :class:`arviz_plots.PlotMatrix`.

    Returns
    -------
    PlotMatrix

    Raises
    ------
    ImportError
        Without arviz-plots; the extra ``plots`` has it.
    ValueError
        If there is no group ``isomix``, or a name is not in it.
    """
    return pair_plot.draw(
        import_arviz_plots(), group_of(dt, "isomix"), var_names, visuals or {}, pc_kwargs
    )


def plot_elbo(dt: Any, *, visuals: dict | None = None, **pc_kwargs: Any) -> Any:
    """Plot the ELBO by iteration, its running median, and the phases of the fit.

    The axis covers the range in which the fit ended, because an early ELBO of -1e12 would hide
    everything else. The title counts the steps below the axis.

    Parameters
    ----------
    dt : DataTree or IsotropicMixture
        With the group ``fit``: of :func:`fit` or :meth:`IsotropicMixture.sample`.
    visuals : mapping of {str : mapping or bool}, optional
        Options of each visual, False to leave it out: ``phase`` (shading), ``elbo`` and ``median``
        (lines), ``legend``, ``xlabel``, ``ylabel``, ``title``.
    **pc_kwargs
        Passed to :meth:`arviz_plots.PlotCollection.wrap`.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ImportError
        Without arviz-plots; the extra ``plots`` has it.
    ValueError
        If there is no group ``fit``, or it has no steps.
    """
    azp = import_arviz_plots()
    group = group_of(dt, "fit")
    elbo, steps = group["elbo"], group["step"].values
    if not np.isfinite(elbo).any():
        raise ValueError("group 'fit' has no finite elbo: the fit took no step, or had score=False")
    median = elbo.rolling(step=max(1, elbo.size // 50), center=True, min_periods=1).median()
    low, high = _late_range(elbo.values)
    below = int((elbo < low).sum())
    plot = Plot(azp, _phase_runs(group), visuals, pc_kwargs, figsize=(8, 4), color=["phase"])
    plot.draw("phase", _spans, plot.collection.data, ignore_aes=(), alpha=0.15)
    plot.draw("elbo", azp.visuals.line_xy, points(steps, elbo), color="C0", width=0.5, alpha=0.5)
    plot.draw("median", azp.visuals.line_xy, points(steps, median), color="C0", width=1.8)
    plot.label("xlabel", azp.visuals.labelled_x, "step")
    plot.label("ylabel", azp.visuals.labelled_y, "ELBO (nats)")
    if below:
        text = f"{below:,d} of {elbo.size:,d} steps are below the axis"
        plot.label("title", azp.visuals.labelled_title, text)
    plot.limits(x=(steps[0] - 0.5, steps[-1] + 0.5), y=(low, high))
    plot.legend("phase", visual_kwargs={"linewidth": 8, "alpha": 0.3})
    return plot.collection


def plot_modes(dt: Any, *, visuals: dict | None = None, **pc_kwargs: Any) -> Any:
    """Plot the mass of each mode, with two standard errors each way.

    The title says if there is only one mode. It also gives the mass that ascents found outside the
    modes, if ``dt["diagnostics"]`` comes from :meth:`IsotropicMixture.diagnostics`.

    Parameters
    ----------
    dt : DataTree or IsotropicMixture
        With the group ``diagnostics``.
    visuals : mapping of {str : mapping or bool}, optional
        Options of each visual, False to leave it out: ``error`` (lines), ``mass`` (points),
        ``xlabel``, ``ylabel``, ``title``.
    **pc_kwargs
        Passed to :meth:`arviz_plots.PlotCollection.wrap`.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ImportError
        Without arviz-plots; the extra ``plots`` has it.
    ValueError
        If there is no group ``diagnostics``.
    """
    azp = import_arviz_plots()
    group = group_of(dt, "diagnostics")
    mass, error = group["mode_mass"].values, ERRORS * group["mode_mass_se"].values
    position = np.arange(mass.size)
    low, high = np.maximum(mass - error, 0), np.minimum(mass + error, 1)
    width = float(np.clip(2 + 0.35 * mass.size, 4, 12))
    masses = points(position, mass)
    plot = Plot(azp, masses, visuals, pc_kwargs, figsize=(width, 3.5))
    ends = points(position, y_bottom=low, y_top=high)
    plot.draw("error", azp.visuals.ci_line_y, ends, color="C0")
    plot.draw("mass", azp.visuals.scatter_xy, masses, color="C0", size=30)
    plot.label("xlabel", azp.visuals.labelled_x, "mode")
    plot.label("ylabel", azp.visuals.labelled_y, f"mass ± {ERRORS} standard errors")
    if title := _of_the_modes(group):
        plot.label("title", azp.visuals.labelled_title, title)
    plot.limits(x=(-0.6, mass.size - 0.4), y=(0, 1.05 * np.nanmax([mass, high])))
    ticks = sparse(position)
    names = [str(name) for name in group["mode"].values[ticks]]
    plot.set_axes(azp.visuals.set_xticks, values=ticks, labels=names)
    return plot.collection


def plot_khat(dt: Any, *, visuals: dict | None = None, **pc_kwargs: Any) -> Any:
    """Plot the tail of the importance weights that Pareto k-hat describes.

    The plot shows the share of draws with a larger weight against the weight, on log scales. Three
    Pareto tails start where PSIS begins the tail: with k-hat, with the largest k that is good for
    this number of draws, and with k = 1. If the draws stay above the second tail, their tail is too
    heavy for importance sampling to correct the approximation. The draws in ``dt`` must not be
    resampled (``importance="none"``).

    Parameters
    ----------
    dt : DataTree or IsotropicMixture
        With ``log_weight`` in the group ``sample_stats``.
    visuals : mapping of {str : mapping or bool}, optional
        Options of each visual, False to leave it out: ``weights`` (points), ``tails`` (lines),
        ``legend``, ``xlabel``, ``ylabel``, ``title`` (where the weights hardly differ).
    **pc_kwargs
        Passed to :meth:`arviz_plots.PlotCollection.wrap`.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ImportError
        Without arviz-plots; the extra ``plots`` has it.
    ValueError
        If there is no ``log_weight``, or fewer than 25 finite ones.

    References
    ----------
    .. [1] Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
       Journal of Machine Learning Research 25(72).
    """
    azp = import_arviz_plots()
    group = group_of(dt, "sample_stats")
    log_weight = np.ravel(group["log_weight"].values) if "log_weight" in group else np.empty(0)
    log_weight = np.sort(log_weight[np.isfinite(log_weight)])[::-1]
    n_draws = log_weight.size
    if n_draws < importance.FEWEST_DRAWS:
        raise ValueError(
            f"k-hat needs at least {importance.FEWEST_DRAWS} finite values of log_weight in group "
            f"'sample_stats'; got {n_draws}"
        )
    smooth, good_k = importance.smooth(log_weight), importance.good_khat(n_draws)
    weight = np.exp(log_weight - log_weight[0])
    weight /= weight.mean()
    share = np.arange(1, n_draws + 1) / n_draws
    n_tail = int(np.ceil(min(0.2 * n_draws, 3 * np.sqrt(n_draws))))
    curves = _pareto_tails(
        weight[: n_tail + 1], n_draws, {"k-hat": smooth.khat, "good up to": good_k, "bad from": 1.0}
    )
    plot = Plot(azp, curves, visuals, pc_kwargs, figsize=(6, 4), color=["k"], linestyle=["k"])
    # down to the median, where the tail surely ends
    shown = weight >= max(weight[n_draws // 2], 1e-2 * weight[n_tail], np.finfo(float).tiny)
    above = points(weight[shown], share[shown])
    plot.draw("weights", azp.visuals.scatter_xy, above, color="B1", size=8, width=0)
    plot.draw("tails", azp.visuals.line_xy, curves, ignore_aes=(), width=1.5)
    plot.label("xlabel", azp.visuals.labelled_x, "importance weight / mean weight")
    plot.label("ylabel", azp.visuals.labelled_y, "share of draws above")
    plot.set_axes(azp.visuals.set_xscale, scale="log")
    plot.set_axes(azp.visuals.set_yscale, scale="log")
    low, high = weight[shown][-1] / 1.2, weight[shown][0] * 3
    plot.limits(x=(low, high), y=(0.5 / n_draws, 0.7))
    plot.set_axes(log_ticks, low=low, high=high)
    if smooth.effective > NEARLY_EQUAL * n_draws:
        text = "all weights are nearly equal:\nk-hat is not informative"
        plot.label("title", azp.visuals.labelled_title, text)
    plot.legend("k", title="Pareto k")
    return plot.collection


def _of_the_modes(group):
    """Say whether there is one mode, and what mass is missing."""
    says = ["one mode holds the whole mixture"] if group["mode_mass"].size == 1 else []
    if "n_ascents" in group and (n_ascents := int(group["n_ascents"])):
        says.append(f"{int(group['n_ascents_at_modes'])} of {n_ascents} ascents ended at a mode")
        says.append(f"missing mass {float(group['missing_mass']):.3f}")
    return "\n".join(says)


def _phase_runs(group):
    """First and last step of each unbroken run of a phase: (phase, run, bound), else NaN."""
    phase, steps = group["phase"].values.astype(str), group["step"].values
    first = np.flatnonzero(np.r_[True, phase[1:] != phase[:-1]])
    last = np.r_[first[1:] - 1, phase.size - 1]
    names = list(dict.fromkeys(phase[first]))
    runs = np.full((len(names), first.size, 2), np.nan)
    for run, (start, end) in enumerate(zip(first, last, strict=True)):
        runs[names.index(phase[start]), run] = steps[start] - 0.5, steps[end] + 0.5
    return xr.Dataset({"value": (("phase", "run", "bound"), runs)}, coords={"phase": names})


def _spans(da, target, **options):
    """Shade the runs of one phase."""
    from arviz_plots.visuals import vspan

    spans = [vspan(run, target, **options) for run in da if np.isfinite(run).all()]
    return spans[0]


def _late_range(elbo):
    """Range of values that shows the late ELBO.

    The range reaches below the level of the last tenth by five times the median distance of the
    steps from it, and by at least ten times the noise of that tenth and two nats.
    """
    finite = elbo[np.isfinite(elbo)]
    late = finite[-max(1, finite.size // 10) :]
    level = np.median(late)
    noise = np.median(np.abs(late - level))
    depth = max(5 * (level - np.median(finite)), 10 * noise, LEAST_DEPTH)
    low = max(finite.min(), level - depth)
    high = min(finite.max(), level + max(10 * noise, 0.2 * depth))
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _pareto_tails(tail, n_draws, shapes):
    """Share of draws above a weight in Pareto tails of each shape, as lines from the same start.

    They share the cutoff, ``tail[-1]``, and the median of the excesses over it.
    """
    cutoff, start = tail[-1], (tail.size - 1) / n_draws
    excess = np.median(tail[:-1]) - cutoff
    share = np.geomspace(start, 0.5 / n_draws, 100)
    lines = []
    for shape in shapes.values():
        k = np.clip(shape, -10, 10) if abs(shape) > 1e-6 else 1e-6  # the limit is exponential
        growth = np.expm1(k * np.log(start / share)) / np.expm1(k * np.log(2))
        lines.append([cutoff + excess * growth, share])
    names = [f"{name} {k:.2f}" for name, k in shapes.items()]
    coords = {"k": names, "plot_axis": ["x", "y"]}
    return xr.Dataset({"value": (("k", "plot_axis", "point"), np.array(lines))}, coords=coords)
