"""One step of the fit as one graph: draws, model, estimates, and the updates of all parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values, shared_arrays
from pymc_isomix.backend.jax_ops import compute_once, shard_rows, standard_normal
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics
from pymc_isomix.model.batching import batched_log_density
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.learning import AtSites, moved_means, new_pseudo
from pymc_isomix.step import estimator
from pymc_isomix.step.bounds import StepRule


@dataclass(frozen=True, eq=False)
class StepInfo:
    """Results of a step besides the parameters, in shared variables.

    Parameters
    ----------
    n_finite : (K,) integers
        Draws per component with a finite log density and gradient.
    finite_components, finite_dimensions : (K,) and (d,) booleans
        Whether the new parameters were finite, before a step was refused.
    log_evidence : (K,)
        Log mean of p/q over the draws of each component, nats.
    n_dropped : integer
        Draws left out so far.
    """

    n_finite: Any
    finite_components: Any
    finite_dimensions: Any
    log_evidence: Any
    n_dropped: Any

    @classmethod
    def allocate(cls, n_components: int, n_dim: int, dtype: str) -> "StepInfo":
        """Make the shared variables."""
        first = {
            "n_finite": np.zeros(n_components, "int64"),
            "finite_components": np.ones(n_components, bool),
            "finite_dimensions": np.ones(n_dim, bool),
            "log_evidence": np.zeros(n_components, dtype),
            "n_dropped": np.zeros((), "int64"),
        }
        return cls(**shared_arrays(first))

    @property
    def lost_components(self) -> np.ndarray:
        """Components without a finite draw, (K,) booleans."""
        return np.asarray(self.n_finite.get_value(borrow=True)) == 0


@dataclass(frozen=True)
class StepOptions:
    r"""Settings of a single fit.

    Parameters
    ----------
    n_samples : int, optional
        Draws per component, instead of the rule's.
    model_mode : Mode, optional
        Compile the model by itself with this mode.
    more_replacements : dict, optional
        Applied to the model's log density.
    constrain : callable, optional
        Bounds the list of gradients [g (K, d), c (K,) or (K, d)].
    optimiser : callable, optional
        ``(loss, gradient) -> (new means, more updates)`` takes the step of the means from their
        gradient :math:`K \partial F/\partial \mu_k`.
    anchor : Anchor, optional
        Removes noise from the log density of a minibatch.
    n_devices : int
        JAX devices over which the draws are spread.
    on_jax : bool
        Whether JAX compiles the step, for one device.
    """

    n_samples: int | None = None
    model_mode: Any = None
    more_replacements: dict | None = None
    constrain: Callable | None = None
    optimiser: Callable | None = None
    anchor: Any = None
    n_devices: int = 1
    on_jax: bool = False


def step_updates(
    rule: StepRule,
    params: dict,
    space: FlatSpace,
    step_size: Values,
    info: StepInfo,
    coordinates: Any = None,
    options: StepOptions | None = None,
) -> tuple[Values, dict]:
    r"""Build the updates of one step, and the loss.

    Parameters
    ----------
    params : dict of shared variables
        The mixture's, by name.
    coordinates : CoordinateMap, optional
        The sites, if there are any; their parameters are among ``params``.

    Returns
    -------
    loss : scalar TensorVariable
        Negative ELBO, nats; NaN when the step is refused.
    updates : dict of shared variable to TensorVariable
    """
    options = StepOptions() if options is None else options
    anchor = options.anchor
    means, log_variances = params["means"], params["log_variances"]
    log_weights, metric = params["log_weights"], params["metric"]
    n_components, n_dim = means.type.shape
    n_samples = rule.n_samples if options.n_samples is None else options.n_samples

    whitened_means = metrics.whiten(metric, means - density.mean(means, log_weights))
    noise = standard_normal((n_components, n_samples, n_dim), means.dtype)
    draws = estimator.draw(noise, means, whitened_means, log_variances, metric)
    points = pt.specify_shape(draws.coordinates, (n_components * n_samples, n_dim))
    points = shard_rows(points, options.n_devices)
    has_sites = bool(coordinates and coordinates.sites)
    of_coordinates = {n: params[n] for n in coordinates.parameter_shapes} if coordinates else {}
    at_anchor = None if anchor is None else anchor.at(coordinates, of_coordinates)
    behind = [] if at_anchor is None else [at_anchor[0][None]]
    target = batched_log_density(
        space,
        pt.concatenate([points, *behind]) if behind else points,
        coordinates=coordinates,
        parameters=of_coordinates,
        more_replacements=options.more_replacements,
        mode=options.model_mode,
        on_jax=options.on_jax,
    )
    log_p, gradient_p = target.log_density, target.gradient
    given, learned = target.given, {}
    if anchor is not None:
        log_p, gradient_p, learned = anchor.correct(points, at_anchor, log_p, gradient_p, metric)
        given = [tuple(part[:-1] for part in here) for here in given]
    log_p, gradient_p = compute_once(log_p), compute_once(gradient_p)
    estimates = estimator.estimate(
        draws, log_p, gradient_p, whitened_means, log_variances, log_weights, metric
    )
    # of the mixture cut to the support, about which the finite draws say something
    mass = pt.exp(log_weights) * estimates.n_finite.astype(means.dtype) / n_samples
    loss = mass @ estimates.divergence / mass.sum() - pt.log(mass.sum())

    gradient, curvature = estimates.mean_gradient, estimates.curvature
    if has_sites and coordinates.has_chains and curvature.ndim == 2:
        # one variance of each component for the elements of chains, thousands of which would be
        # noise from few draws; the others have their own
        own = pt.mean(curvature[:, np.flatnonzero(coordinates.of_chains)], axis=1, keepdims=True)
        curvature = pt.switch(coordinates.of_chains, own, curvature)
    if options.constrain is not None:
        gradient, curvature = options.constrain([gradient, curvature])
    if rule.shared_variance:
        curvature = pt.ones_like(curvature) * (pt.exp(log_weights) @ curvature)
    new = {"log_variances": rule.new_log_variances(log_variances, curvature, step_size)}
    extra: dict = {}
    if options.optimiser is None:
        at = rule.variances_of_mean_step(log_variances, new["log_variances"])
        elements = coordinates.elements if has_sites and metric.ndim == 1 else None
        new["means"] = rule.new_means(means, gradient, at, metric, step_size, elements=elements)
    else:
        new["means"], extra = options.optimiser(loss, metrics.unwhiten_gradient(metric, gradient))
    if rule.learn_weights and n_components > 1:
        new["log_weights"] = rule.new_log_weights(
            log_weights, estimates.divergence, step_size, lost=pt.eq(estimates.n_finite, 0)
        )
    if has_sites:
        given_at_means = coordinates.batched(means, of_coordinates, on_jax=options.on_jax)[2]
        at_means = AtSites.of(coordinates, of_coordinates, means, given_at_means)
        moved, scaling = new_pseudo(
            coordinates,
            of_coordinates,
            AtSites.of(coordinates, of_coordinates, draws.coordinates, given),
            at_means,
            gradient=pt.switch(pt.isfinite(gradient_p), gradient_p, 0.0),
            scores=metrics.unwhiten_gradient(metric, estimates.scores),
            draw_weights=estimates.draw_weights,
            step_size=step_size,
            metric=metric,
        )
        # the step of the means is added to their places in the new coordinates
        new["means"] += moved_means(coordinates, at_means, of_coordinates, moved) - means
        new |= moved
    if metric.ndim > 0:
        # without sites, a dense metric is only for the correlations
        enough = n_components * n_samples / n_dim if has_sites else 1.0
        new["metric"] = rule.new_metric(
            metric, estimates.metric_gradient, step_size, draws_a_dimension=enough
        )
        if has_sites:
            new["metric"] = metrics.scale_rows(new["metric"], scaling)
    extra |= learned
    extra[info.log_evidence] = estimates.log_evidence
    return guarded(new, params, estimates.n_finite, n_samples, loss, extra, info)


def guarded(
    new: dict,
    params: dict,
    n_finite: Values,
    n_samples: int,
    loss: Values,
    extra: dict,
    info: StepInfo,
) -> tuple[Values, dict]:
    """Refuse the whole step and keep the old values if one would not be finite.

    A component without a finite draw also refuses the step. With learned weights, only a step
    without any finite draw is refused, because a single component then loses its weight instead.
    """
    finite = pt.isfinite(new["means"])
    variances_finite = pt.isfinite(density.as_matrix(new["log_variances"])).all(axis=1)
    rows = finite.all(axis=1) & variances_finite
    has_draws = n_finite > 0  # (K,)
    if "log_weights" in new:
        accepted = rows.all() & has_draws.any() & ~pt.isnan(new["log_weights"]).any()
    else:
        accepted = rows.all() & has_draws.all()
    for name, value in new.items():
        if name not in ("means", "log_variances", "log_weights"):  # which are checked above
            accepted &= pt.isfinite(value).all()
    values = {params[name]: value for name, value in new.items()} | extra
    updates = {
        shared: pt.switch(accepted, value, shared).astype(shared.dtype)
        for shared, value in values.items()
    }
    updates |= {
        info.n_finite: n_finite.astype("int64"),
        info.finite_components: rows,
        info.finite_dimensions: finite.all(axis=0),
        info.n_dropped: info.n_dropped + (n_samples - n_finite).sum(),
    }
    return pt.switch(accepted, loss, np.nan), updates
