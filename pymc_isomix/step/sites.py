r"""The step of the sites: path gradients in log c and m, divided by their Fisher information.

The centres of the components stay where they are in unconstrained space, so that the noise vanishes
where q = p.
"""

from typing import Any, NamedTuple

import pytensor.tensor as pt

STEP = 1 / 3  # relative to that of the means, as for the metric
LARGEST_LOG_PRECISION, LARGEST_VALUE = 0.1, 0.3  # of one step; of m in standard deviations
FLOOR = 0.02  # of the Fisher information, where the data's share is next to none


class AtSites(NamedTuple):
    """What the step of the sites needs of points y."""

    points: Any  # (S, d) coordinates y
    given: list  # at each site, tuples of (S, ...)


def new_pseudo(coordinates, pseudo, draws, means, scores, draw_weights, step_size):
    r"""Take one step on the pseudo-observations.

    .. math:: \frac{dF}{d\phi} = \sum_k w_k \, \mathbb E\left[s_k \cdot \left(\frac{\partial
        y}{\partial \phi}(\mu_k) - \frac{\partial y}{\partial \phi}(z)\right)\right]

    with :math:`\partial y / \partial \phi` at fixed z. The Fisher information is half the mean
    square of the share for log c, and the mean of share / variance for m.

    Parameters
    ----------
    coordinates : Coordinates
    pseudo : dict of (P,) TensorVariable
    draws, means : AtSites
        The S draws, and the K means.
    scores : (S, d) TensorVariable
        Path gradients at the draws, in y.
    draw_weights : (S,) TensorVariable
        w_k / B of each draw, zero for a draw left out.
    step_size : scalar

    Returns
    -------
    dict of (P,) TensorVariable
    """
    n_components = means.points.type.shape[0]
    weighted = scores * draw_weights[:, None]
    of_means = weighted.reshape((n_components, -1, weighted.type.shape[1])).sum(axis=1)  # (K, d)
    new: dict = {name: [] for name in pseudo}
    for (form, place, own), at_draws, at_means in zip(
        coordinates.at(pseudo), draws.given, means.given, strict=True
    ):
        here = form.pullback(draws.points[:, place], at_draws, *own, weighted[:, place])
        there = form.pullback(means.points[:, place], at_means, *own, of_means[:, place])
        by_log_precision, by_value = (t - h for t, h in zip(there, here, strict=True))
        share, spread = form.share(at_draws, *own), form.spread(at_draws, *own)
        typical = spread.mean(axis=0)
        fisher = draw_weights @ share**2 / 2 + FLOOR
        change = pt.clip(
            STEP * step_size * by_log_precision / fisher,
            -LARGEST_LOG_PRECISION,
            LARGEST_LOG_PRECISION,
        )
        fisher_value = draw_weights @ (share / spread) ** 2 + FLOOR / typical**2
        move = STEP * step_size * by_value / fisher_value / typical
        new["log_precisions"].append(own[0] - change)
        new["values"].append(own[1] - typical * pt.clip(move, -LARGEST_VALUE, LARGEST_VALUE))
    return {name: pt.concatenate(parts) for name, parts in new.items()}


def moved_means(coordinates, means, old, new):
    """Keep means where they are in z while the pseudo-observations move: y (K, d).

    Parameters
    ----------
    coordinates : Coordinates
    means : AtSites
    old, new : dicts of (P,) TensorVariable
    """
    points = means.points
    for (form, place, own), (_, _, moved), given in zip(
        coordinates.at(old), coordinates.at(new), means.given, strict=True
    ):
        z, _ = form.to_unconstrained(means.points[:, place], given, *own)
        points = pt.set_subtensor(points[:, place], form.to_coordinates(z, given, *moved))
    return points
