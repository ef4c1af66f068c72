"""The Inference object for ``pm.fit``."""

import logging
import sys
from functools import partial, partialmethod

import numpy as np
from pymc.variational.inference import Inference, State

from pymc_isomix.backend.checks import (
    check_choice,
    check_count,
    check_model,
    check_number,
    refuse_what_pm_fit_drops,
)
from pymc_isomix.family.metric import KINDS
from pymc_isomix.fitting import schedules, steppers
from pymc_isomix.fitting.controllers import Phased, Scheduled
from pymc_isomix.fitting.loop import Trace, run
from pymc_isomix.fitting.record import History, describe_settings
from pymc_isomix.interface import settings as defaults
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.interface.objective import MixtureKL
from pymc_isomix.results.table import log_end
from pymc_isomix.step.bounds import StepRule
from pymc_isomix.step.updates import VARIANCE_STEPS
from pymc_isomix.target import starts

logger = logging.getLogger(__name__)


class IsoMix(Inference):
    r"""Variational inference with a mixture of isotropic Gaussians.

    Pass it to ``pm.fit(method=IsoMix(...))``.

    Gradient descent on the means, entropic mirror or Bures descent on the variances of [1]_, and,
    beyond the paper, a learned metric and learned weights. :meth:`paper` is the paper's own
    algorithm.

    Parameters
    ----------
    n_components : int
        K, the components of the mixture.
    variance_update : {"mirror", "bures", "natural", "fixed"}
        Geometry of the variances: entropic mirror descent, Bures-Wasserstein, natural gradient, or
        none.
    shared_variance : bool
        One variance for all components.
    metric : {"auto", "identity", "diag", "dense"}
        Shape that all components share: dense up to 500 dimensions and diagonal above for
        ``"auto"``.
    weights : {"learned", "uniform"}
    step_size : "auto" or float
        Dimensionless step :math:`\gamma`, relative to each component's variance; 0.3 when
        ``"auto"``.
    schedule : {"auto", "constant", "sqrt", "linear"} or callable
        Factor of the step size by iteration t of n: 1, :math:`1/\sqrt{1 + t}`, :math:`1 - t/n`, or
        a function of t. ``"auto"`` explores at a constant step until the ELBO has stopped rising,
        respawns components of negligible weight, then settles with decaying steps and averages
        the last iterates; any other follows its n steps and keeps the last iterate.
    n_samples : int, optional
        Draws of each component in a step, B; when not given, as many as make 150, at least 3.
    start : dict, list of K dicts, or (K, d) array, optional
        Start in model space by variable name, for all components (then ``init`` spreads them around
        it) or for each; or the first means in unconstrained space.
    start_sigma : float or dict, optional
        First standard deviation of the components in unconstrained space, 0.1 when not given.
    init : {"jitter", "prior", "uniform"}
        How components without a start of their own are placed: the model's initial point plus
        uniform noise, draws from the prior, or uniformly in a box around zero, in unconstrained
        space.
    init_width : float
        Half width of that noise or box.
    random_seed : int, optional
    convergence : "auto" or None
        None runs all iterations; otherwise the fit stops by itself once the ELBO has stopped
        rising. Only the ``"auto"`` schedule stops by itself.
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
    <pymc_isomix.interface.approximation.IsotropicMixture object at ...>
    """

    def __init__(
        self,
        n_components=50,
        *,
        variance_update="mirror",
        shared_variance=False,
        metric="auto",
        weights="learned",
        step_size="auto",
        schedule="auto",
        n_samples=None,
        start=None,
        start_sigma=None,
        init="jitter",
        init_width=1.0,
        random_seed=None,
        convergence="auto",
        model=None,
        _absolute_step=False,
        _approx=None,
    ):
        self._settings = describe_settings(locals())
        self._step_size = defaults.step_size(step_size)
        self._schedule, self._convergence = schedule, convergence
        check_choice("variance_update", variance_update, tuple(VARIANCE_STEPS))
        check_choice("metric", metric, ("auto", *KINDS))
        check_choice("weights", weights, ("learned", "uniform"))
        check_choice("convergence", convergence, ("auto", None))
        check_choice("init", init, starts.INITS)
        check_count("n_components", n_components)
        n_samples = defaults.n_samples(n_samples, n_components)
        check_count("n_samples", n_samples)
        schedules.check_schedule(self._step_size, schedule)
        check_number("init_width", init_width, zero=True)
        model = check_model(model)
        approx = _approx or IsotropicMixture(
            n_components=n_components,
            metric=metric,
            start=start,
            start_sigma=start_sigma,
            init=init,
            init_width=init_width,
            random_seed=random_seed,
            model=model,
        )
        rule = StepRule(
            variance_update=variance_update,
            shared_variance=shared_variance,
            learn_weights=weights == "learned",
            absolute_step=_absolute_step,
            n_samples=n_samples,
        )
        super().__init__(MixtureKL, approx, None, rule=rule)

    @classmethod
    def paper(
        cls,
        n_components=10,
        *,
        step_size=0.1,
        schedule="constant",
        n_samples=10,
        start_sigma=1.0,
        **kwargs,
    ):
        r"""Return the paper's own algorithm: identity metric, uniform weights, an absolute step.

        Parameters
        ----------
        n_components : int
        step_size : float
            :math:`\gamma` of Eqs. 11 to 14, in squared units of the unconstrained space.
        schedule, n_samples, start_sigma, **kwargs
            As for :class:`IsoMix`; ``metric`` and ``weights`` are fixed.

        References
        ----------
        .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Algorithm 1.
        """
        return cls(
            n_components,
            metric="identity",
            weights="uniform",
            step_size=step_size,
            schedule=schedule,
            n_samples=n_samples,
            start_sigma=start_sigma,
            _absolute_step=True,
            **kwargs,
        )

    def fit(self, n=10000, score=None, callbacks=None, progressbar=True, *, backend=None, **kwargs):
        """Fit the approximation; ``pm.fit(n, method=self, ...)`` calls this.

        Parameters
        ----------
        n : int
            Iterations.
        score : bool, optional
            False keeps no loss history.
        callbacks : list of callables, optional
            Each gets (approximation, losses so far, iteration from 1) after every step;
            ``StopIteration`` ends the fit.
        progressbar : bool
        backend : str, optional
            When not given, JAX where it is installed and can compile the model, unless
            ``compile_kwargs`` or PyTensor's configuration name a mode; else PyMC's default.
        **kwargs
            As in :meth:`pymc.variational.inference.Inference.fit`: ``compile_kwargs``,
            ``obj_optimizer`` (for the means only), ``total_grad_norm_constraint``,
            ``include_transformed``, and so on.

        Returns
        -------
        IsotropicMixture
            Its ``hist`` is the negative ELBO of each iteration, on the full data's scale.

        Raises
        ------
        FloatingPointError
            If a component has no draw with a finite log density, or a parameter would not be
            finite. The default schedule first respawns such a component, and halves the step
            size up to ten times. The approximation keeps the last finite parameters.
        """
        refuse_what_pm_fit_drops(sys._getframe(1), self.approx.model)
        check_count("n", n, least=0)
        self.approx.history = self.approx.history or History(settings=self._settings)
        self.approx.history.begin()
        fit = partial(
            super().fit, n, score=score, callbacks=callbacks, progressbar=progressbar, **kwargs
        )
        if backend is None and steppers.prefers_jax(kwargs.get("compile_kwargs")):
            try:
                return fit(backend="jax")
            except steppers.JAXCompilationError as error:
                logger.warning(f"{error} It is compiled with PyMC's default backend instead.")
        return fit(backend=backend)

    def __getstate__(self):
        """Leave out the compiled step, which cannot be unpickled on the jax backend."""
        return {**self.__dict__, "state": None}

    def _controller(self, n, done):
        if self._schedule != "auto":
            return Scheduled(self._step_size, self._schedule, n, first=done)
        return Phased(
            self.objective.op,
            self._step_size,
            n,
            stop_early=self._convergence == "auto",
            learn_weights=self.objective.op.rule.learn_weights,
            rng=np.random.default_rng(self.approx.rng.randint(2**30, dtype=np.int64)),
        )

    def _iterate(self, first, n, step, progressbar, theme, callbacks, *, score):
        """Take up to n steps; however they end, history and parameters stay as they are then."""
        operator = self.objective.op
        operator.n_dropped.set_value(np.int64(0))
        if not isinstance(step, steppers.OneByOne | steppers.Looped):
            step = steppers.stepper(step, operator)
        trace = Trace(np.full(n, np.nan))
        first += self.approx.history.take_up(step.function)
        try:
            with steppers.one_blas_thread():
                run(
                    trace,
                    step,
                    self._controller(n, first),
                    operator,
                    callbacks,
                    first=first,
                    score=score,
                    progressbar=progressbar,
                    theme=theme,
                )
        finally:
            if score:
                self.hist: np.ndarray = np.concatenate([self.hist, trace.done])
            self.approx.hist = self.hist
            self.approx.history.append(trace, step.function)
            for shared in self.approx.params:  # the jax backend leaves arrays of its own
                shared.set_value(np.asarray(shared.get_value()))
        self.stop_reason = trace.reason
        log_end(self.approx, first + trace.taken)
        if n_dropped := int(operator.n_dropped.get_value()):
            logger.warning(
                f"{n_dropped:,d} draws with a log density or gradient that is not finite were "
                "left out of the averages"
            )
        return State(first + trace.taken, step=step, callbacks=callbacks, score=score)

    _iterate_with_loss = partialmethod(_iterate, score=True)
    _iterate_without_loss = partialmethod(_iterate, score=False)
