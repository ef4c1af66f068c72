"""One step of the fit as one graph, in PyMC's Operator and ObjectiveFunction."""

import numpy as np
import pytensor
import pytensor.tensor as pt
from pymc.pytensorf import compile, floatX
from pymc.variational.opvi import ObjectiveFunction, ObjectiveUpdates, Operator
from pymc.variational.updates import total_norm_constraint
from pytensor.compile.mode import get_mode

from pymc_isomix.backend.compilation import CHEAP_FAST, compiles_slowly, without_garbage_collection
from pymc_isomix.backend.jax_ops import compute_once, standard_normal, teach_jax
from pymc_isomix.family import density
from pymc_isomix.family import metric as metrics
from pymc_isomix.fitting.steppers import JAXCompilationError, is_jax
from pymc_isomix.step import estimator
from pymc_isomix.step.bounds import StepRule
from pymc_isomix.target.batching import batched_log_density


class MixtureObjective(ObjectiveFunction):
    """Builds the step: draws, model, estimates, and the updates of all parameters."""

    @without_garbage_collection()
    def step_function(
        self, *, score=True, obj_optimizer=None, compile_kwargs=None, fn_kwargs=None, **kwargs
    ):
        """Compile the step; it always returns the loss, NaN when the step was refused.

        For a backend that takes time for each Op, only the model is compiled; the mixture's own
        arithmetic runs in NumPy beside it.

        Parameters are those of PyMC's method.

        Raises
        ------
        JAXCompilationError
            If it is compiled for JAX, and JAX cannot.
        """
        compile_kwargs = dict(compile_kwargs or fn_kwargs or {})  # the second is an older name
        mode = get_mode(compile_kwargs.get("mode"))
        flags: dict = {}
        if is_jax(mode):
            teach_jax()
        elif compiles_slowly(mode) and not kwargs.get("more_obj_params"):  # they need its gradient
            kwargs["model_mode"] = mode
            compile_kwargs["mode"], flags = CHEAP_FAST, {"cxx": ""}
        with pytensor.config.change_flags(traceback__limit=0):  # which takes a quarter of the time
            updates = self.updates(obj_optimizer=obj_optimizer, **kwargs)
        seed = self.approx.rng.randint(2**30, dtype=np.int64)
        try:
            with pytensor.config.change_flags(**flags):
                return compile(
                    [], updates.loss, updates=updates, random_seed=seed, **compile_kwargs
                )
        except Exception as error:
            if is_jax(mode):
                raise JAXCompilationError(error) from error
            raise

    def updates(
        self,
        obj_n_mc=None,
        tf_n_mc=None,
        obj_optimizer=None,
        test_optimizer=None,
        more_obj_params=None,
        more_tf_params=None,
        more_updates=None,
        more_replacements=None,
        total_grad_norm_constraint=None,
        model_mode=None,
    ):
        r"""Build the updates of one step, and the loss.

        Parameters
        ----------
        obj_n_mc : int, optional
            Draws of each component, instead of the rule's.
        obj_optimizer : callable, optional
            ``(gradients, params) -> updates``, ``pm.adam(learning_rate=0.01)`` for example:
            replaces the step of the means, which gets the gradient :math:`K \partial F/\partial
            \mu_k` in z. Variances, weights and metric keep theirs.
        more_obj_params : list of shared variables, optional
            Parameters of the model itself, updated by ``obj_optimizer`` to increase the ELBO.
        more_updates, more_replacements : dict, optional
            As in PyMC.
        total_grad_norm_constraint : float, optional
            Bound on the joint norm of the gradients of all means and variances.
        model_mode : Mode, optional
            Compile the model by itself with this mode.
        """
        if more_obj_params and obj_optimizer is None:
            raise ValueError("more_obj_params need obj_optimizer, which updates them")
        rule, group = self.op.rule, self.approx.groups[0]
        params = group.shared_params
        means, log_variances = params["means"], params["log_variances"]
        log_weights, metric = params["log_weights"], params["metric"]
        n_components, n_dim = means.type.shape
        n_samples = rule.n_samples if obj_n_mc is None else obj_n_mc

        whitened_means = metrics.whiten(metric, means - density.mean(means, log_weights))
        noise = standard_normal((n_components, n_samples, n_dim), means.dtype)
        draws = estimator.draw(noise, means, whitened_means, log_variances, metric)
        log_p, gradient_p = batched_log_density(
            self.approx.model,
            group.ordering,
            pt.specify_shape(draws.unconstrained, (n_components * n_samples, n_dim)),
            more_replacements=more_replacements,
            mode=model_mode,
        )
        log_p, gradient_p = compute_once(log_p), compute_once(gradient_p)
        estimates = estimator.estimate(
            draws, log_p, gradient_p, whitened_means, log_variances, log_weights, metric
        )
        loss = pt.exp(log_weights) @ estimates.divergence

        gradient, curvature = estimates.mean_gradient, estimates.curvature
        if total_grad_norm_constraint is not None:
            gradient, curvature = total_norm_constraint(
                [gradient, curvature], total_grad_norm_constraint
            )
        if rule.shared_variance:
            curvature = pt.ones_like(curvature) * (pt.exp(log_weights) @ curvature)
        step_size = self.op.step_size
        new = {"log_variances": rule.new_log_variances(log_variances, curvature, step_size)}
        extra = {}
        if obj_optimizer is None:
            eps_log = new["log_variances"] if rule.variance_update == "natural" else log_variances
            new["means"] = rule.new_means(means, gradient, eps_log, metric, step_size)
        else:
            optimised = [means, *(more_obj_params or [])]
            gradients = [metrics.unwhiten_gradient(metric, gradient)]
            if more_obj_params:
                gradients.extend(pytensor.grad(loss, parameter) for parameter in more_obj_params)
            extra = dict(obj_optimizer(gradients, optimised))
            new["means"] = extra.pop(means)
        if rule.learn_weights and n_components > 1:
            new["log_weights"] = rule.new_log_weights(log_weights, estimates.divergence, step_size)
        if metric.ndim > 0:
            new["metric"] = rule.new_metric(metric, estimates.metric_gradient, step_size)
        extra[self.op.log_evidence] = estimates.log_evidence
        return self._guarded(new, params, estimates.n_finite, n_samples, loss, extra, more_updates)

    def _guarded(self, new, params, n_finite, n_samples, loss, extra, more_updates):
        """Refuse the step as a whole, and keep the old values, when one would not be finite."""
        finite = pt.isfinite(new["means"])
        rows = finite.all(axis=1) & pt.isfinite(new["log_variances"])
        healthy = rows & (n_finite > 0)  # (K,)
        if "log_weights" in new:
            healthy &= ~pt.isnan(new["log_weights"])
        accepted = healthy.all()
        if "metric" in new:
            accepted &= ~pt.isnan(new["metric"]).any()
        result = ObjectiveUpdates()
        for name, value in new.items():
            result[params[name]] = pt.switch(accepted, value, params[name]).astype(
                params[name].dtype
            )
        for shared, value in extra.items():  # state of the user's optimiser
            result[shared] = pt.switch(accepted, value, shared).astype(shared.dtype)
        op = self.op
        result[op.n_finite] = n_finite.astype("int64")
        result[op.finite_components] = rows
        result[op.finite_dimensions] = finite.all(axis=0)
        result[op.n_dropped] = op.n_dropped + (n_samples - n_finite).sum()
        result.update(more_updates or {})
        result.loss = pt.switch(accepted, loss, np.nan)
        return result


class MixtureKL(Operator):
    r"""Kullback-Leibler divergence :math:`KL(q \| p)` of a mixture, on the scale of the full data.

    Parameters
    ----------
    approx : IsotropicMixture
    rule : StepRule

    Attributes
    ----------
    step_size : shared scalar
        Of the next step.
    n_finite : shared (K,) integers
        Draws of each component with a finite log density and gradient, in the last step.
    finite_components, finite_dimensions : shared (K,) and (d,) booleans
        Whether the last step's parameters were finite, before it was refused.
    n_dropped : shared integer
        Draws left out so far.
    """

    objective_class = MixtureObjective

    def __init__(self, approx, rule=None):
        super().__init__(approx)
        self.rule = StepRule() if rule is None else rule
        means = approx.groups[0].shared_params["means"]
        n_components, n_dim = means.type.shape
        self.step_size = pytensor.shared(floatX(np.asarray(0.1)), "step_size")
        self._step_size = None
        self.n_finite = pytensor.shared(
            np.zeros(n_components, "int64"), "n_finite", shape=(n_components,)
        )
        self.finite_components = pytensor.shared(
            np.ones(n_components, bool), "finite_components", shape=(n_components,)
        )
        self.finite_dimensions = pytensor.shared(
            np.ones(n_dim, bool), "finite_dimensions", shape=(n_dim,)
        )
        self.log_evidence = pytensor.shared(
            np.zeros(n_components, means.dtype), "log_evidence", shape=(n_components,)
        )
        self.n_dropped = pytensor.shared(np.int64(0), "n_dropped")

    def set_step_size(self, step_size):
        """Set the size of the next step."""
        if step_size != self._step_size:
            self._step_size = step_size
            self.step_size.set_value(np.asarray(step_size, dtype=self.step_size.dtype))

    def lost_components(self):
        """Tell which components had no finite draw in the last step, (K,) booleans."""
        return np.asarray(self.n_finite.get_value()) == 0

    def apply(self, f):
        """Apply the operator: log q - log p, for PyMC's ``score_function``."""
        return self.logq - self.logp
