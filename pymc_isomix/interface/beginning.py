"""The start of a default fit: Gaussians by second-order steps, before any mixture is compiled."""

import logging
import time
from contextlib import nullcontext

import numpy as np
from rich.console import Console

from pymc_isomix.backend.compilation import jax_failure
from pymc_isomix.fitting import warm_start
from pymc_isomix.fitting.target import ModelTarget
from pymc_isomix.model.compiled import CompiledModel, rows_per_row_of_minibatch

logger = logging.getLogger(__name__)

GAUSSIAN = "gaussian"  # name of the phase, in the record
# Rows of all the data per row of a minibatch, up to which a few thousand gradients of all the data
# cost less than the fifteen hundred steps with minibatches that they save
MOST_ROWS = 100


class Watch:
    """Record each batch of draws of a Gaussian as an iteration, and tell callbacks.

    Parameters
    ----------
    trace : Trace
        Filled in; the length of its losses is the budget.
    group : IsotropicMixtureGroup
        Holds what callbacks look at.
    callbacks, first, score
        See :func:`pymc_isomix.fitting.loop.run`.
    """

    def __init__(self, trace, approx, kind, callbacks, first, score):
        self.trace, self.approx, self.group, self.kind = trace, approx, approx.groups[0], kind
        self.callbacks, self.first, self.score = callbacks, first, score
        self.last = None
        self.show = lambda text: None

    def __call__(self, batch):
        """Record one batch; end the fit where the budget is spent."""
        trace = self.trace
        if trace.taken == len(trace.losses):
            raise StopIteration(trace.reason)
        trace.losses[trace.taken] = -batch.elbo
        trace.taken += 1
        trace.phases.append(GAUSSIAN)
        trace.step_sizes.append(1.0)
        self.last = batch
        self.show(f"Gaussian: ELBO {batch.elbo:,.5g}")
        if self.callbacks:
            self.put([batch], np.ones(1))
            for callback in self.callbacks:
                losses = trace.done if self.score else None
                callback(self.approx, losses, self.first + trace.taken)

    def put(self, batches, shares, **spread):
        """Put Gaussians in place of the approximation's parameters."""
        group = self.group
        n_components = group.mixture.n_components
        mixture = warm_start.as_mixture(batches, shares, n_components, kind=self.kind, **spread)
        diagonal = group.mixture.log_variances.ndim == 2
        group.mixture = mixture.with_diagonal_variances() if diagonal else mixture
        group.coordinates = group.coordinates.replace(**batches[0].gaussian.parameters)
        return mixture


def begin(trace, approx, operator, *, stop_early, callbacks, first, score, progressbar, theme):
    """Fit a Gaussian at each mode, and say whether that is all that the posterior needs.

    Parameters
    ----------
    trace : Trace
        Filled in.
    approx : IsotropicMixture
    operator : MixtureKL
    stop_early : bool
        Whether a Gaussian that is exact ends the fit.
    callbacks, first, score, progressbar, theme
        See :func:`pymc_isomix.fitting.loop.run`.

    Returns
    -------
    bool
        Whether the fit has ended: exact, interrupted, or its budget spent.
    """
    group = approx.groups[0]
    if rows_per_row_of_minibatch(group.space.model) > MOST_ROWS:
        return False
    mixture, coordinates = group.mixture, group.coordinates
    kind = "diag" if mixture.metric.ndim < 2 else "dense"
    compiled = CompiledModel(group.space, mixture.means.dtype.name, operator.backend, coordinates)
    rng = np.random.default_rng(approx.rng.randint(2**30, dtype=np.int64))
    watch = Watch(trace, approx, kind, callbacks, first, score)
    with Console(theme=theme).status("Compiling") if progressbar else nullcontext() as status:
        if status is not None:
            watch.show = status.update
        try:
            with jax_failure(operator.backend == "jax"):
                try:
                    target = ModelTarget(compiled)
                except ValueError as error:  # random by more than minibatches
                    logger.info(f"no Gaussian at the start: {error}")
                    return False
                target.evaluate(mixture.means[:1], coordinates.parameters)
            trace.compile_seconds += time.perf_counter() - trace.began
            batches = warm_start.warm_start(
                target,
                mixture.means,
                coordinates.parameters,
                rng,
                dense=kind == "dense",
                tell=watch,
            )
        except (KeyboardInterrupt, StopIteration) as interruption:
            trace.reason = str(interruption) or "interrupted"
            if watch.last is not None:
                watch.put([watch.last], np.ones(1))
            return True
    trace.n_gradients[GAUSSIAN] = target.n_gradients
    if not batches or not batches[0].is_of_use:
        return False
    shares = warm_start.masses(batches)
    gaussians = watch.put(batches, shares)
    if stop_early and (
        gaussians.n_components == 1 or warm_start.is_exact(target, batches, gaussians, rng)
    ):
        trace.reason = "converged"
        return True
    watch.put(batches, shares, spread=warm_start.SPREAD, rng=rng)
    return False
