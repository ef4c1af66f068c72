r"""The step of the sites: path gradients in log c and m, divided by their Fisher information.

The components stay where they are in unconstrained space, as far as means and metric can keep them
there. Only the part of the gradient that neither of them can absorb updates a pseudo-observation.
For narrow components this part vanishes for any c and m. A regression, which needs no components,
therefore draws c and m to those of the data, as much as the Fisher information leaves open.
"""

from typing import Any, NamedTuple

import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values
from pymc_isomix.sites.chains import N_GIVEN
from pymc_isomix.sites.coordinates import PSEUDO, CoordinateMap
from pymc_isomix.sites.regression import RIDGE, least_squares

STEP = 1 / 3  # relative to that of the means, as for the metric
LARGEST_LOG_PRECISION, LARGEST_VALUE = 0.1, 0.3  # bounds of a step; of m in standard deviations
LEAST_TYPICAL = 1e-15  # standard deviation: a block of a predictor may have fewer rows than others
FLOOR = RIDGE  # of the Fisher information, for pseudo-observations that hardly affect components


class AtSites(NamedTuple):
    """Values at points y for the step of the sites."""

    points: Any  # (S, d) coordinates y
    given: list  # at each site, tuples of (S, ...)
    bent: Any  # (S, d) x, which the sites see
    slope: Any = None  # (S, d) dx/dy; None without a shape
    slope_of_log_slope: Any = None  # (S, d)

    @classmethod
    def of(
        cls, coordinates: CoordinateMap, parameters: dict, points: Values, given: list[tuple]
    ) -> "AtSites":
        """Make the values for coordinates with a shape or without."""
        bent, log_slope, slope_of_log_slope = coordinates.bend(points, parameters)
        if not coordinates.has_shape:
            return cls(points, given, bent)
        return cls(points, given, bent, pt.exp(log_slope), slope_of_log_slope)

    def to_bent(self, scores: Values) -> Values:
        """Turn path gradients in y into those in x, at the dimensions of sites."""
        return scores if self.slope is None else scores / self.slope

    def gradient_to_bent(self, gradient: Values) -> Values:
        """Turn the gradient of a log density of y into that of x, at the dimensions of sites."""
        if self.slope is None:
            return gradient
        return (gradient - self.slope_of_log_slope) / self.slope


def new_pseudo(
    coordinates: CoordinateMap,
    pseudo: dict,
    draws: AtSites,
    means: AtSites,
    *,
    gradient: Values,
    scores: Values,
    draw_weights: Values,
    step_size: Values,
    metric: Values,
) -> tuple[dict, Values]:
    r"""Take one step on the pseudo-observations.

    .. math:: \frac{dF}{d\phi} = \sum_k w_k \, \mathbb E\left[s_k \cdot \left(\frac{\partial
        y}{\partial \phi}(\mu_k) - \frac{\partial y}{\partial \phi}(z)\right)\right]

    with :math:`\partial y / \partial \phi` at fixed z, so the means do not move in z. A change of
    log c also scales y by half the share. For an elementwise site, the rows of the metric
    compensate the average, :math:`\tfrac12 \bar s \, d \log c`, which adds the gradient
    :math:`\tfrac12 \bar s \, dF / d \log \ell`. The Fisher information of log c is half the
    variance of the share (half its mean square if no metric compensates). That of m is the mean
    square of share / standard deviation, less the value at the component's mean. For an elementwise
    site, the floor of both is the information of a regression.

    Parameters
    ----------
    draws, means : AtSites
        The S draws, and the K means.
    gradient : (S, d) TensorVariable
        Gradient of the log density of y at the draws; zero for a draw left out.
    scores : (S, d) TensorVariable
        Path gradients at the draws, in y.
    draw_weights : (S,) TensorVariable
        w_k / B of each draw, zero for a draw left out.

    Returns
    -------
    new : dict of (P,) TensorVariable
    scaling : (d,) TensorVariable
        Factors of the rows of the metric.
    """
    n_components, n_dim = means.points.type.shape

    def by_component(values):  # (S, n) -> (K, B, n)
        return values.reshape((n_components, -1, values.type.shape[1]))

    weighted = scores * draw_weights[:, None]
    of_means = by_component(weighted).sum(axis=1)  # (K, d)
    offsets = by_component(draws.points) - means.points[:, None]
    by_log_scale = (by_component(weighted) * offsets).sum(axis=(0, 1))  # (d,), of the metric's rows
    scaling = pt.ones(n_dim, dtype=scores.dtype)
    # the sites see only x
    weighted, of_means = draws.to_bent(weighted), means.to_bent(of_means)
    gradient = draws.gradient_to_bent(gradient)
    new: dict = {name: [] for name in PSEUDO}
    for (form, place, own), at_draws, at_means in zip(
        coordinates.at(pseudo), draws.given, means.given, strict=True
    ):
        if form.is_chain:
            changed, factor = _new_of_chain(
                form, draws, place, at_draws, own, gradient, draw_weights, step_size
            )
            for name, value in zip(new, changed, strict=True):
                new[name].append(value)
            if metric.ndim > 0:
                scaling = pt.set_subtensor(scaling[place], factor)
            continue
        here = form.pullback(draws.bent[:, place], at_draws, *own, weighted[:, place])
        there = form.pullback(means.bent[:, place], at_means, *own, of_means[:, place])
        by_log_precision, by_value = (t - h for t, h in zip(there, here, strict=True))
        share, deviation = (
            pt.specify_shape(part, (None, form.n_pseudo))
            for part in (form.share(at_draws, *own), form.deviation(at_draws, *own))
        )
        typical = pt.maximum(deviation.mean(axis=0), LEAST_TYPICAL)
        fisher = draw_weights @ share**2 / 2
        scaled = form.is_elementwise and metric.ndim > 0
        if scaled:
            half = draw_weights @ share / 2
            by_log_precision += half * by_log_scale[place]
            fisher = pt.maximum(fisher - 2 * half**2, 0)
        varying = by_component(deviation) - form.deviation(at_means, *own)[:, None]  # (K, B, n)
        # the share is precision times variance, which may be zero
        varying = pt.exp(own[0]) * varying.reshape(share.shape)
        fisher_value = draw_weights @ varying**2 + FLOOR / typical**2
        if form.is_elementwise:
            slope = form.slope(draws.bent[:, place], gradient[:, place], at_draws, *own)
            wanted = least_squares(slope, own[0], draw_weights)
            by_log_precision -= FLOOR * wanted[0]
            by_value -= FLOOR * wanted[1] / typical**2
        change = pt.clip(
            STEP * step_size * by_log_precision / (fisher + FLOOR),
            -LARGEST_LOG_PRECISION,
            LARGEST_LOG_PRECISION,
        )
        if scaled:
            scaling = pt.set_subtensor(scaling[place], pt.exp(-half * change))
        move = STEP * step_size * by_value / fisher_value / typical
        new["log_precisions"].append(own[0] - change)
        new["values"].append(own[1] - typical * pt.clip(move, -LARGEST_VALUE, LARGEST_VALUE))
    return {name: pt.concatenate(parts) for name, parts in new.items()}, scaling


def _new_of_chain(form, draws, place, given, own, gradient, draw_weights, step_size):
    """Take one step on the pseudo-observations of a chain, by regression alone.

    A pseudo-observation changes y at all earlier times, so its path gradient is mostly about its
    neighbours. The regression is about itself.

    Returns
    -------
    new : log c and m, (n,) TensorVariable
    factor : (n,) TensorVariable
        Factors of the rows of the metric, because the unit of y changes.
    """
    slope = form.slope(draws.bent[:, place], gradient[:, place], given, *own)
    change, move, variance = least_squares(slope, own[0], draw_weights, form.noise(given))
    typical = pt.sqrt(variance)
    step = STEP * step_size
    change = pt.clip(step * change, -LARGEST_LOG_PRECISION, LARGEST_LOG_PRECISION)
    move = typical * pt.clip(step * move / typical, -LARGEST_VALUE, LARGEST_VALUE)
    new = [own[0] + change, own[1] + move]
    before = form.log_unit(given, *own)
    after = form.log_unit(given[:N_GIVEN], *new)
    return new, pt.exp(draw_weights @ (before - after))


def moved_means(coordinates: CoordinateMap, means: AtSites, old: dict, new: dict) -> Values:
    """Return means y (K, d) that stay in place in z while the pseudo-observations move.

    Parameters
    ----------
    old, new : dicts of (P,) TensorVariable
    """
    points = means.bent
    for (form, place, own), (_, _, moved), given in zip(
        coordinates.at(old), coordinates.at(new), means.given, strict=True
    ):
        z, _ = form.to_unconstrained(means.bent[:, place], given, *own)
        points = pt.set_subtensor(points[:, place], form.to_coordinates(z, given, *moved))
    return coordinates.straighten(points, old)
