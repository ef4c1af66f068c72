"""The Inference object for ``pm.fit``."""

import logging
import sys
import time
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import pymc as pm
from pymc.progress_bar import default_progress_theme
from pymc.pytensorf import resolve_backend_compile_kwargs
from pymc.variational.inference import Inference, State

from pymc_isomix.backend.compilation import JAXCompilationError, one_blas_thread, prefers_jax
from pymc_isomix.fitting.controllers import controller
from pymc_isomix.fitting.loop import Callbacks, Trace, run, showing
from pymc_isomix.fitting.random_state import generator_states, restore_generators
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.interface.beginning import Beginning
from pymc_isomix.interface.checks import (
    check_fit,
    check_model,
    refuse_what_pm_fit_drops,
)
from pymc_isomix.interface.operator import MixtureKL
from pymc_isomix.interface.settings import PAPER, Settings
from pymc_isomix.model.model_cache import graph_key

logger = logging.getLogger(__name__)

# arguments of a fit that are about the steps of a mixture, or change the model
OWN_STEPS = (
    "obj_n_mc",
    "obj_optimizer",
    "more_obj_params",
    "more_updates",
    "more_replacements",
    "total_grad_norm_constraint",
)


class IsoMix(Inference):
    r"""Variational inference with a mixture of isotropic Gaussians.

    Pass it to ``pm.fit(method=IsoMix(...))``.

    The means take gradient steps, and the variances take entropic mirror or Bures steps, as in
    Petit-Talamon, Lambert and Korba (2025). The metric and the weights are learned as well.
    :meth:`paper` is the paper's own algorithm.

    Parameters
    ----------
    n_components : int
        K, the largest number of components of the mixture, or of each mode if their shapes differ.
        A default fit uses fewer if Gaussians are exact.
    component_variances : {"auto", "isotropic", "diagonal"}
        One variance per component, or one per component and dimension, for modes of different
        shapes. ``"auto"`` is diagonal for models with a chain in time, and isotropic otherwise. The
        elements of chains always share one variance.
    variance_update : {"mirror", "bures", "natural", "fixed"}
        Geometry of the variances: entropic mirror descent, Bures-Wasserstein, natural gradient, or
        none.
    shared_variance : bool
        One variance, or one diagonal, for all components.
    metric : {"auto", "identity", "diag", "dense"}
        Shape that all components share. ``"auto"`` is dense up to 2000 dimensions in a default
        fit, up to 500 in others, and diagonal above.
    coordinates : {"auto", "affine"}
        ``"auto"`` measures the effects of a hierarchy in units of the scales that the model gives
        them. ``"affine"`` uses plain unconstrained space, with the metric alone.
    weights : {"learned", "uniform"}
        Learned weights end as shares of the evidence. Uniform weights stay 1/K, as in the paper.
    step_size : "auto" or float
        Dimensionless step :math:`\gamma`, relative to each component's variance. ``"auto"`` means
        0.3.
    schedule : {"auto", "constant", "sqrt", "linear"} or callable
        Factor of the step size by iteration t of n: 1, :math:`1/\sqrt{1 + t}`, :math:`1 - t/n`, or
        a function of t. ``"auto"`` begins with Gaussians by second-order steps. If those are not
        enough, it explores at a constant step until the ELBO stops rising, respawns components of
        negligible weight, settles with decaying steps, and averages the last iterates. Any other
        schedule takes its n steps and keeps the last iterate.
    n_samples : int, optional
        Draws per component and step, B. The default is 3, or more to make 150 draws per step (50
        if sites have more than 500 effects).
    start : dict, list of K dicts, or (K, d) array, optional
        Values in model space by variable name, for all components (``init`` then spreads them
        around it) or for each component; or the first means in unconstrained space. Your starts
        choose the modes. Without them, chains at high temperatures look for more modes.
    start_sigma : float or dict, optional
        First standard deviation of the components in unconstrained space; 0.1 by default.
    init : {"jitter", "prior", "uniform"}
        Place of components without a start: the model's initial point plus uniform noise, draws
        from the prior, or uniform draws from a box around zero in unconstrained space.
    init_width : float
        Half width of the noise or the box.
    random_seed : int or Generator, optional
    convergence : "auto" or None
        None runs all iterations. With ``"auto"``, the schedule ``"auto"`` stops when the ELBO stops
        rising.
    model : pymc.Model, optional
        The model of the context when not given.

    Raises
    ------
    ValueError
        If an argument breaks its rule, or no start has a finite log density.
    TypeError
        If the model has no free variables, or discrete ones.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), Variational Inference with Mixtures of
       Isotropic Gaussians, arXiv:2506.13613.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     mu = pm.Normal("mu", 0, 10)
    ...     y = pm.Normal("y", mu, 1, observed=[1.0, 2.0, 3.0])
    ...     inference = pmi.IsoMix(n_components=2, random_seed=1)
    >>> inference.approx
    <IsotropicMixture: 2 components, dense metric, d = 1; not fitted>
    """

    def __init__(
        self,
        n_components: Any = 50,
        *,
        component_variances: str = "auto",
        variance_update: str = "mirror",
        shared_variance: bool = False,
        metric: str = "auto",
        coordinates: str = "auto",
        weights: str = "learned",
        step_size: str = "auto",
        schedule: str = "auto",
        n_samples: int | None = None,
        start: np.ndarray | None = None,
        start_sigma: float | None = None,
        init: str = "jitter",
        init_width: float = 1.0,
        random_seed: int | np.random.Generator | None = None,
        convergence: str | None = "auto",
        model: Any = None,
    ) -> None:
        if isinstance(n_components, pm.Model):
            raise TypeError("pass the model by name: IsoMix(model=model)")
        self._begin(
            Settings(
                n_components=n_components,
                component_variances=component_variances,
                variance_update=variance_update,
                shared_variance=shared_variance,
                metric=metric,
                coordinates=coordinates,
                weights=weights,
                step_size=step_size,
                schedule=schedule,
                n_samples=n_samples,
                start=start,
                start_sigma=start_sigma,
                init=init,
                init_width=init_width,
                random_seed=random_seed,
                convergence=convergence,
            ),
            model,
        )

    def _begin(self, settings, model):
        """Make a new approximation for a model, and its inference."""
        model = check_model(model)
        self._adopt(IsotropicMixture(model=model, **settings.for_the_group), settings)
        self.approx.awaits_fit = True

    def _adopt(self, approx, settings):
        self.settings, self.goes_on, self._n_steps = settings, False, 0
        n_elements = approx.groups[0].coordinate_map.n_elements
        super().__init__(MixtureKL, approx, None, rule=settings.rule(n_elements))

    @classmethod
    def of(cls, approx: IsotropicMixture, settings: Settings) -> "IsoMix":
        """Return the inference that fits an approximation; :func:`pymc_isomix.resume` calls it."""
        inference = cls.__new__(cls)
        inference._adopt(approx, settings)
        return inference

    @classmethod
    def paper(
        cls,
        n_components: int = 10,
        *,
        step_size: float = 0.1,
        schedule: str = "constant",
        n_samples: int = 10,
        start_sigma: float = 1.0,
        model: pm.Model | None = None,
        **kwargs: Any,
    ) -> "IsoMix":
        r"""Return the paper's own algorithm: identity metric, uniform weights, an absolute step.

        Parameters
        ----------
        step_size : float
            :math:`\gamma` of Eqs. 11 to 14, in squared units of the unconstrained space.
        n_components, schedule, n_samples, start_sigma, model, **kwargs
            As for :class:`IsoMix`; ``metric``, ``coordinates`` and ``weights`` are fixed.

        References
        ----------
        .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Algorithm 1.
        """
        if taken := sorted(set(PAPER) & set(kwargs)):
            raise TypeError(f"IsoMix.paper fixes {', '.join(taken)}")
        settings = Settings(
            n_components=n_components,
            step_size=step_size,
            schedule=schedule,
            n_samples=n_samples,
            start_sigma=start_sigma,
            **kwargs,
            **PAPER,
        )
        (inference := cls.__new__(cls))._begin(settings, model)
        return inference

    def fit(
        self,
        n: int = 10000,
        score: Any = None,
        callbacks: list | None = None,
        progressbar: bool = True,
        progressbar_theme: Any = default_progress_theme,
        *,
        backend: str | None = None,
        include_transformed: bool = False,
        compile_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> IsotropicMixture:
        """Fit the approximation; ``pm.fit(n, method=self, ...)`` calls this.

        Parameters
        ----------
        n : int
            Iterations.
        score : bool, optional
            False records no losses.
        callbacks : list of callables, optional
            Each is called with (approximation, losses so far, iteration from 1) after every step.
            ``StopIteration`` ends the fit.
        progressbar, progressbar_theme, include_transformed
            As in :meth:`pymc.variational.inference.Inference.fit`.
        backend : str, optional
            The default is JAX if it is installed and can compile the model, unless
            ``compile_kwargs`` or PyTensor's configuration name a mode. Otherwise it is PyMC's
            default. Numba compiles only the model; ``compile_kwargs={"mode": "NUMBA"}`` compiles
            the whole step.
        compile_kwargs : dict, optional
            Arguments of ``pytensor.function``.
        **kwargs
            As in :meth:`pymc.variational.inference.Inference.fit`: ``obj_optimizer`` (for the means
            only), ``total_grad_norm_constraint`` and so on. ``n_devices`` is the number of devices
            over which JAX spreads the evaluations of the model.

        Returns
        -------
        IsotropicMixture
            Its ``hist`` is the negative ELBO per iteration, on the scale of the full data.

        Raises
        ------
        FloatingPointError
            If no component has a draw with a finite log density (with uniform weights, if any
            component has none), or a parameter would not be finite. Before that, the default
            schedule respawns such a component, or halves the step size, up to ten times. The last
            finite parameters stay.
        """
        refuse_what_pm_fit_drops(sys._getframe(1), self.approx.model)
        check_fit(n, backend, callbacks)
        signature(self.objective.updates).bind(**kwargs)  # or a TypeError
        group = self.approx.groups[0]
        self._say_changes()
        self.approx.take_data()
        self.approx.awaits_fit = False
        self.approx.history = self.approx.history or History(settings=self.settings.record())
        self._n_steps = len(self.approx.history.elbo) if self.goes_on else 0
        given = {
            "n": n,
            "callbacks": callbacks or [],
            "score": self._maybe_score(score),
            "progressbar": progressbar,
            "theme": progressbar_theme,
            "began": time.perf_counter(),
            "starts_warm": self.settings.starts_warm
            and not self._n_steps
            and all(kwargs.get(name) is None for name in OWN_STEPS),
            "restores": self.goes_on,
        }
        self.goes_on = False

        def fit_on(backend):
            resolved = resolve_backend_compile_kwargs(backend, compile_kwargs)
            self.objective.mode_of(resolved)
            whole = backend is None and "mode" in resolved
            compile_step = partial(
                self.objective.stepper, compile_kwargs=resolved, whole=whole, **kwargs
            )
            self.state = self._iterate(compile_step, **given)
            group.include_transformed = include_transformed
            return self.approx

        if backend is None and prefers_jax(compile_kwargs):
            try:
                return fit_on("jax")
            except JAXCompilationError as error:
                logger.warning(f"{error} It is compiled with PyMC's default backend instead.")
        return fit_on(backend)

    def refine(
        self, n: int, progressbar: bool = True, progressbar_theme: Any = default_progress_theme
    ) -> None:
        """Take n more steps with the step that the last fit compiled.

        Parameters are those of PyMC's method.

        Raises
        ------
        ValueError
            If lengths of dims, or masks, have changed: the compiled step holds them as constants.
        """
        if self.state is None:
            raise TypeError("Need to call `.fit` first")
        space = self.approx.space
        if graph_key(space.with_data(self.approx.fitted_data)) != graph_key(space):
            raise ValueError(
                f"the model's data have changed since the last fit: "
                f"{self.approx.fitted_data.changes()}. refine() uses the step that was compiled "
                "for the old data; call fit(), which continues from here with the new data"
            )
        self._say_changes()
        _, step, callbacks, score = self.state
        shown = {"progressbar": progressbar, "theme": progressbar_theme}
        self.state = self._iterate(step, n=n, callbacks=callbacks, score=score, **shown)

    def _say_changes(self):
        if self.approx.history is not None and (changes := self.approx.fitted_data.changes()):
            logger.warning(
                f"the model's data have changed since the last fit: {changes}. This fit continues "
                "from where that one ended, with the new data"
            )

    def __getstate__(self):
        """Leave out the compiled step, which cannot be unpickled on the jax backend."""
        return {**self.__dict__, "state": None}

    def _iterate(
        self, step, *, n, callbacks, score, began=None, starts_warm=False, restores=False, **shown
    ):
        """Take up to n steps; whatever ends them, history and parameters are recorded.

        ``step`` takes the steps of a mixture, or is a function that compiles it. With ``restores``
        the fit continues with the recorded random numbers. ``shown`` are the options of the
        progress bar.
        """
        operator, history, first = self.objective.op, self.approx.history, self._n_steps
        operator.info.n_dropped.set_value(np.int64(0))
        # earlier results are no longer valid
        self.approx.union = self.approx._report = None
        trace = Trace(np.full(n, np.nan), began=began or time.perf_counter())
        told = Callbacks(callbacks, self.approx, first, score)
        compiles_step, is_stale = step, False
        try:
            with one_blas_thread():
                beginning = Beginning(trace, self.approx, operator, told)
                if starts_warm:
                    early = self.settings.convergence == "auto"
                    with_shape = self.settings.coordinates == "auto"
                    beginning.begin(stop_early=early, with_shape=with_shape, **shown)
                if not beginning.ended:
                    step = self._compiled(step, trace, shown["progressbar"])
                    if restores:
                        restore_generators(step.generators, history.generators)
                    self._take_steps(beginning, step, trace, told, shown)
                if beginning.may_mend:
                    if not callable(step):
                        step.to_numpy()
                    with showing("Mending tails", shown["progressbar"]):
                        is_stale = beginning.mend_tails()
        finally:
            if score:
                self.hist: np.ndarray = np.concatenate([self.hist, trace.done])
            self.approx.hist = self.hist
            generators = []
            if not callable(step):
                generators = generator_states(step.generators)
                step.to_numpy()
            history.append(trace, backend=operator.backend, generators=generators)
        self.approx.take_data()  # they may have changed during the fit
        self.stop_reason = trace.reason
        self._n_steps = first + trace.taken
        logger.info(self.approx.closing_line(self._n_steps))
        if n_dropped := int(operator.info.n_dropped.get_value(borrow=True)):
            logger.warning(
                f"the fit ignored {n_dropped:,d} draws that had no finite log density or gradient. "
                "A few do no harm. diagnostics() counts such draws in the result"
            )
        if is_stale:  # refine() compiles the step anew, in coordinates with a shape
            step = compiles_step
        # PyMC's classes leave the number of the last iteration from 0, not of those done
        return State(max(self._n_steps - 1, 0), step, callbacks, score)

    def _take_steps(self, beginning, step, trace, callbacks, shown):
        """Take steps of one mixture, or of one at each mode, where their shapes differ."""
        operator, blocks = self.objective.op, []
        for mode in beginning.modes or [None]:
            if mode is not None:
                beginning.start_at(mode)
            decide = controller(
                operator,
                self.settings,
                len(trace.losses),
                callbacks.first,
                self.approx.rng,
                begun=trace.taken,
                warm=beginning.is_warm,
            )
            interrupted = run(trace, step, decide, operator, callbacks, **shown)
            if mode is not None:
                step.to_numpy()
                blocks.append(beginning.fitted_block())
            if interrupted:
                return
        if blocks:
            beginning.unite_modes(blocks)

    @staticmethod
    def _compiled(step, trace, progressbar):
        """Return what takes the steps of a mixture, compiled now where that has been put off."""
        if not callable(step):
            return step
        began = time.perf_counter()
        with showing("Compiling", progressbar):
            step = step()
        trace.compile_seconds += time.perf_counter() - began
        return step
