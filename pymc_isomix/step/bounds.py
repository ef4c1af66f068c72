"""Safe steps: the updates of one step, with bounds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics
from pymc_isomix.step import updates

# Bounds that keep dimensionless steps safe far from the optimum
MAX_MEAN_SHIFT = (
    0.3  # in units of sqrt(d eps_k), the typical distance of a component's draws from its mean
    # (root mean square over the dimensions, each in its own units, of a diagonal component)
)
MAX_VARIANCE_CHANGE = 0.6  # of a log variance
MAX_METRIC_CHANGE = 0.2  # spectral norm of the relative change
MAX_EXCESS = 3.0  # nats, of the divergence of a component over the mean
# Steps of the metric and the weights, relative to those of the means and variances
METRIC_STEP = 1 / 3
WEIGHT_STEP = 1 / 3
ACROSS_STEP = 0.2  # off the metric's diagonal, times draws per dimension if below one


@dataclass(frozen=True)
class StepRule:
    r"""The settings of a step.

    Parameters
    ----------
    variance_update : {"mirror", "bures", "natural", "fixed"}
    shared_variance : bool
        One variance, or one diagonal, for all components.
    learn_weights : bool
    absolute_step : bool
        Use the paper's step :math:`\gamma`, in squared units of z, without bounds. Otherwise steps
        are dimensionless, :math:`\gamma \epsilon_k`, and bounded.
    n_samples : int
        Draws per component, B.
    """

    variance_update: str = "mirror"
    shared_variance: bool = False
    learn_weights: bool = True
    absolute_step: bool = False
    n_samples: int = 10

    @property
    def has_own_variances(self) -> Any:
        """Whether each component learns its own variance."""
        return not self.shared_variance and self.variance_update != "fixed"

    def new_log_variances(
        self, log_variances: Values, curvature: Values, step_size: Values
    ) -> Values:
        """Log variances, (K,) or (K, d), after a step along the curvature c_k of that shape."""
        update = self._update
        if self.absolute_step:
            if not update.relative:
                step_size = step_size * pt.exp(-log_variances)
            return update.step(log_variances, curvature, step_size=step_size)
        largest = MAX_VARIANCE_CHANGE * update.factor / 2
        change = pt.clip(update.factor * step_size * curvature, -largest, largest)
        return update.step(log_variances, change, step_size=1.0)

    def variances_of_mean_step(self, old: Values, new: Values) -> Values:
        """Choose the log variances for the step of the means, from those before and after."""
        return new if self._update.relative else old

    @property
    def _update(self):
        return updates.VARIANCE_UPDATES[self.variance_update]

    def new_means(
        self,
        means: Values,
        gradient: Values,
        log_variances: Values,
        metric: Values,
        step_size: Values,
        *,
        elements: np.ndarray | None = None,
    ) -> Values:
        """Means (K, d) in z after a step along the whitened gradient g_k (K, d).

        The elements of sites, given by (d,) booleans, have a separate bound. A common bound would
        grow with their number, too far for the few scales that all of them pull at.
        """
        if self.absolute_step and not self._update.relative:
            return updates.mean_step(means, metrics.unwhiten(metric, gradient), step_size=step_size)
        variances = pt.exp(log_variances)
        shift = density.as_matrix(variances) * gradient
        if not self.absolute_step:
            n_dim = float(means.type.shape[1])
            if elements is not None:
                parts = np.stack([elements, ~elements]).astype(means.dtype)  # (2, d)
                squared = (gradient * shift) @ (parts / parts.sum(axis=1, keepdims=True)).T
            elif variances.ndim == 1:
                squared = (shift**2).sum(axis=1) / (n_dim * variances)
            else:
                squared = (gradient * shift).sum(axis=1) / n_dim
            length = step_size * pt.sqrt(squared)
            factor = pt.minimum(1.0, MAX_MEAN_SHIFT / pt.maximum(length, 1e-12))
            if elements is not None:
                shift = (factor @ parts) * shift
            else:
                step_size = step_size * factor
        return updates.mean_step(means, metrics.unwhiten(metric, shift), step_size=step_size)

    def new_log_weights(
        self, log_weights: Values, divergences: Values, step_size: Values, *, lost: Values
    ) -> Values:
        """Log weights (K,) after a step against the divergences f_k (K,).

        A component without a finite draw, one of ``lost`` (K,), takes the largest possible loss.
        """
        worst = pt.switch(lost, -np.inf, divergences).max() + MAX_EXCESS
        divergences = pt.switch(lost, worst, divergences)
        return updates.weight_step(
            log_weights, divergences, step_size=WEIGHT_STEP * step_size, largest=MAX_EXCESS
        )

    def new_metric(
        self, metric: Values, gradient: Values, step_size: Values, *, draws_a_dimension: float = 1.0
    ) -> Values:
        """Metric after a step along its gradient M."""
        few = draws_a_dimension < 1
        return metrics.step(
            metric,
            gradient,
            step_size=METRIC_STEP * step_size,
            largest=MAX_METRIC_CHANGE,
            across=ACROSS_STEP * draws_a_dimension if few else None,
        )
