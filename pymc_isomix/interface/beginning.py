"""The start of a default fit: Gaussians by second-order steps, before any mixture is compiled."""

import logging
import time
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from rich.console import Console

from pymc_isomix.backend.compilation import jax_failure
from pymc_isomix.backend.upstream import forget_expressions
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting import tails, warm_start
from pymc_isomix.fitting.loop import Callbacks, Trace
from pymc_isomix.fitting.record import CONVERGED, GAUSSIAN, TAILS
from pymc_isomix.fitting.second_order import Batch
from pymc_isomix.fitting.target import ModelTarget
from pymc_isomix.interface.operator import MixtureKL
from pymc_isomix.interface.settings import DENSE_UP_TO
from pymc_isomix.model.compiled import CompiledModel, rows_per_row_of_minibatch
from pymc_isomix.model.periodic import periodic_dimensions
from pymc_isomix.model.starts import starting_means
from pymc_isomix.sites.blocks import Block, BlockMixture
from pymc_isomix.sites.coordinates import Coordinates

logger = logging.getLogger(__name__)

# Rows of all the data per row of a minibatch, up to which a few thousand gradients of all the data
# cost less than the fifteen hundred steps with minibatches that they save
MOST_ROWS = 100
LIGHT, LEAST_SHARE = 0.02, 1e-5  # of the posterior: below, a mode gets no mixture; no block
NOTHING = 1e-30  # of the posterior
FEW_DIMENSIONS, N_FROM_PRIOR = 30, 20  # up to so many dimensions, so many prior draws climb, too
N_OF_BLOCK = 1000  # draws for the mass of a mode


class Watch:
    """Record each batch of draws of a Gaussian as an iteration, and on_batch callbacks.

    Parameters
    ----------
    trace : Trace
        Filled in; the length of its losses is the budget.
    approx : IsotropicMixture
        Callbacks see this.
    kind : {"dense", "diag"}
        Of the metric.
    callbacks : Callbacks
    """

    def __init__(self, trace: Trace, approx: Any, kind: str, callbacks: Callbacks) -> None:
        self.trace, self.approx, self.group, self.kind = trace, approx, approx.groups[0], kind
        self.callbacks = callbacks
        self.last: Batch | None = None
        self.show = lambda text: None

    def __call__(self, batch: Batch) -> None:
        """Record one batch; end the fit when the budget is spent."""
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
            self.callbacks.call(trace)

    def put(self, batches: list[Batch], shares: np.ndarray, **options: Any) -> None:
        """Put Gaussians in place of the approximation's parameters."""
        group = self.group
        n_components = group.mixture.n_components
        mixture = warm_start.as_mixture(batches, shares, n_components, kind=self.kind, **options)
        self.put_mixture(mixture)
        self.put_coordinates(self.coordinates_of(batches[0]))

    def coordinates_of(self, batch: Batch) -> Coordinates:
        """Return the coordinates of a Gaussian, which may have a shape."""
        return self.group.coordinate_map.of(batch.gaussian.parameters)

    def put_coordinates(self, coordinates: Coordinates) -> None:
        """Put coordinates, with a shape or without, in place of those of PyMC's group."""
        self.group.coordinates = coordinates
        forget_expressions(self.approx)

    def put_mixture(self, mixture: Mixture) -> None:
        """Put a mixture with one metric in place of the parameters of PyMC's group."""
        diagonal = self.group.mixture.log_variances.ndim == 2
        self.group.mixture = mixture.with_diagonal_variances() if diagonal else mixture

    def block(self, batch: Any) -> Any:
        """Return a Gaussian as a block of one component."""
        mixture = warm_start.as_mixture([batch], np.ones(1), 1, kind=self.kind)
        return Block(mixture, self.coordinates_of(batch))


class Beginning:
    """Gaussians at the modes of a posterior, and the decision how to continue from them.

    Parameters
    ----------
    trace : Trace
        Filled in.
    approx : IsotropicMixture
    operator : MixtureKL
    callbacks : Callbacks

    Attributes
    ----------
    ended : bool
        Whether the fit has ended: exact, interrupted, or its budget spent.
    modes : list of Batch
        Modes that need separate mixtures because their shapes differ; empty if one mixture is
        enough.
    is_warm : bool
        Whether a mixture starts from Gaussians.
    """

    def __init__(
        self, trace: Trace, approx: Any, operator: MixtureKL, callbacks: Callbacks
    ) -> None:
        self.trace, self.approx, self.operator = trace, approx, operator
        group = approx.groups[0]
        mixture = group.mixture
        self.kind = "diag" if mixture.metric.ndim < 2 else "dense"
        self.watch = Watch(trace, approx, self.kind, callbacks)
        self.compiled = CompiledModel(
            group.space, mixture.means.dtype.name, operator.backend, group.coordinates
        )
        self.batches: list = []
        self.modes: list = []
        self.ended = self.is_warm = self.mends = False

    def begin(self, *, stop_early: bool, with_shape: bool, progressbar: bool, theme: Any) -> None:
        """Fit a Gaussian at each mode, and decide whether they are enough.

        Parameters
        ----------
        stop_early : bool
            Whether exact Gaussians end the fit.
        with_shape : bool
            Whether coordinates may get a shape.
        progressbar, theme
            See :func:`pymc_isomix.fitting.loop.run`.
        """
        trace, group = self.trace, self.approx.groups[0]
        if rows_per_row_of_minibatch(group.space.model) > MOST_ROWS:
            return
        # drawn here, so that the random numbers of other fits do not change
        self.rng = np.random.default_rng(self.approx.rng.randint(2**30, dtype=np.int64))
        mixture, coordinates = group.mixture, group.coordinates
        with Console(theme=theme).status("Compiling") if progressbar else nullcontext() as status:
            if status is not None:
                self.watch.show = status.update
            with jax_failure(self.operator.backend == "jax"):
                try:
                    target = ModelTarget(self.compiled)
                except ValueError as error:  # random by more than minibatches
                    logger.info(f"the fit does not start from Gaussians: {error}")
                    return
                target.evaluate(mixture.means[:1], coordinates.parameters)
            self.mends = with_shape
            trace.compile_seconds += time.perf_counter() - trace.began
            try:
                with np.errstate(all="ignore"):  # starts may be extremely far away
                    batches = warm_start.warm_start(
                        target,
                        self._starts(mixture.means),
                        coordinates.parameters,
                        self.rng,
                        dense=self.kind == "dense",
                        with_shape=with_shape,
                        # who chooses the starts chooses the modes
                        explores=self.approx.history.settings.get("start") is None,
                        on_batch=self.watch,
                    )
                if batches and batches[0].is_useful:
                    self._judge(target, batches, stop_early)
                else:  # the mixture starts without them; callbacks have seen Gaussians
                    self.watch.put_mixture(mixture)
                    self.watch.put_coordinates(coordinates)
            except (KeyboardInterrupt, StopIteration) as interruption:
                trace.reason = str(interruption) or "interrupted"
                self.ended = True
                if self.watch.last is not None:
                    self.watch.put([self.watch.last], np.ones(1))
            finally:
                trace.n_gradients[GAUSSIAN] = target.n_gradients

    def _starts(self, means):
        """Return starts (S, d) of ascents: the components', and some from the prior.

        In few dimensions, if the user chose no starts, prior draws reach modes outside the box of
        the components.
        """
        group = self.approx.groups[0]
        settings = self.approx.history.settings
        chosen = settings.get("start") is not None or settings.get("init") != "jitter"
        if chosen or group.space.n_dim > FEW_DIMENSIONS:
            return means
        seed = int(self.rng.integers(2**30))
        try:
            z = starting_means(group.space, N_FROM_PRIOR, init="prior", random_seed=seed)
        except ValueError:  # an improper prior, or one that is hardly ever inside the support
            return means
        y = self.compiled.from_unconstrained(z)
        return np.concatenate([means, y[np.isfinite(y).all(axis=1)]])

    def _judge(self, target, batches, stop_early):
        """End the fit if the Gaussians are exact; otherwise prepare the start of mixtures."""
        watch, group = self.watch, self.approx.groups[0]
        n_components = group.mixture.n_components
        shares = warm_start.masses(batches)
        chosen = np.arange(len(batches))
        if len(batches) > n_components:  # the heaviest, if there are too few components
            chosen = np.argsort(-shares, kind="stable")[:n_components]
        # a step may overflow at a mode of no mass
        batches = [batches[i] for i in chosen if shares[i] > NOTHING]
        shares = warm_start.masses(batches)
        watch.put(batches, shares)
        one_shape = warm_start.have_one_shape(batches, shares)
        one_shape = one_shape or warm_start.lie_along_bend(target, batches)
        # in many dimensions, steps of a mixture cost more than they gain
        too_many = self.kind == "dense" and group.space.n_dim > DENSE_UP_TO
        if stop_early and (
            n_components == 1 or too_many or warm_start.is_exact(target, batches, shares, self.rng)
        ):
            self.trace.reason, self.ended = CONVERGED, True
            if not one_shape:
                with np.errstate(divide="ignore"):  # a share may be zero
                    log_shares = np.log(shares)
                self.unite([watch.block(batch) for batch in batches], log_shares)
            return
        self.batches, self.is_warm = batches, True
        if one_shape:
            watch.put(batches, shares, spread=warm_start.SPREAD, rng=self.rng)
        else:
            self.modes = [b for b, share in zip(batches, shares, strict=True) if share > LIGHT]

    def start_at(self, batch: Any) -> None:
        """Put the components at one mode, to start its mixture."""
        self.watch.put([batch], np.ones(1), spread=warm_start.SPREAD, rng=self.rng)

    def fitted_block(self) -> Any:
        """Return the present mixture of one mode."""
        group = self.approx.groups[0]
        return Block(group.mixture.used, group.coordinates)

    @property
    def may_mend(self) -> bool:
        """Whether tails may be mended: a fit of one block, which has converged."""
        return self.mends and self.trace.reason == CONVERGED and self.approx.union is None

    def mend_tails(self) -> bool:
        """Mend thin tails of a fit of one block.

        Returns
        -------
        bool
            Whether its coordinates have got a shape.
        """
        group = self.approx.groups[0]
        old = group.coordinates
        straight = self.compiled.at(old.straight)
        fitted = mended = tails.Fitted(group.mixture, old.shape, old.shear)
        angles = periodic_dimensions(group.space)
        n_evaluated = 0

        def evaluate(points):
            nonlocal n_evaluated
            n_evaluated += len(points)
            return straight.log_density_and_gradient(points)

        # stretched draws may lie far out; an interrupt leaves the fit as it is
        with np.errstate(all="ignore"), suppress(KeyboardInterrupt):
            mended = tails.mend(evaluate, fitted, self.rng, among=~angles)
        self.trace.n_gradients[TAILS] = n_evaluated
        if mended is fitted:
            return False
        self.watch.put_mixture(mended.mixture)
        self.watch.put_coordinates(old.with_bend(mended.shape, mended.shear))
        return not old.map.has_shape

    def unite_modes(self, blocks: Any) -> None:
        """Join the mixtures of modes, and Gaussians of light ones, by their masses."""
        fitted = [id(batch) for batch in self.modes]
        light = [self.watch.block(b) for b in self.batches if id(b) not in fitted]
        blocks = [*blocks, *light]
        densities, points, sizes = [], [], [N_OF_BLOCK] * len(blocks)
        for block in blocks:
            y, _ = block.mixture.draw(N_OF_BLOCK, self.rng)
            at_y, _, z, log_determinant = self.compiled.at(block.coordinates).evaluate(y)
            densities.append(at_y - log_determinant)
            points.append(z)
        z, log_p = np.concatenate(points), np.concatenate(densities)
        log_q = np.stack([block.evaluate(z)[0] for block in blocks], axis=1)
        log_p = np.where(np.isfinite(log_p), log_p, -np.inf)
        self.trace.n_gradients["joining"] = sum(sizes)
        with np.errstate(divide="ignore"):
            self.unite(blocks, np.log(warm_start.shares_of(log_p, log_q, sizes)))

    def unite(self, blocks: Any, log_weights: Any) -> None:
        """Make blocks the approximation. PyMC's expressions use one metric."""
        heavy = [j for j, log_weight in enumerate(log_weights) if log_weight > np.log(LEAST_SHARE)]
        union = BlockMixture.of([blocks[j] for j in heavy], np.asarray(log_weights)[heavy])
        group = self.approx.groups[0]
        self.watch.put_mixture(union.with_one_metric(group.mixture.n_components))
        self.watch.put_coordinates(union.coordinates)
        self.approx.union = union
