"""The step in PyMC's ``Operator`` and ``ObjectiveFunction``."""

import logging
from dataclasses import fields
from functools import partial
from threading import Thread
from typing import Any

import numpy as np
import pytensor
from pymc.pytensorf import compile, floatX
from pymc.variational.opvi import ObjectiveFunction, ObjectiveUpdates, Operator
from pymc.variational.updates import total_norm_constraint
from pytensor.compile.mode import get_mode

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.checks import check_count
from pymc_isomix.backend.compilation import (
    CHEAP_FAST,
    backend_name,
    compiles_slowly,
    compiling,
    is_jax,
    jax_failure,
    mode_for_xla,
    without_wrong_rewrites,
)
from pymc_isomix.backend.jax_compilation import rewritten_for_jax, roots_of
from pymc_isomix.backend.jax_ops import teach_jax
from pymc_isomix.backend.upstream import collect_default_updates
from pymc_isomix.fitting import steppers
from pymc_isomix.fitting.steppers import Loop
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.interface.group import IsotropicMixtureGroup
from pymc_isomix.model.compiled import CompiledModel, has_minibatches
from pymc_isomix.model.model_cache import graph_key, model_cache
from pymc_isomix.results.importance import get_ready, import_psis
from pymc_isomix.step.anchor import Anchor
from pymc_isomix.step.bounds import StepRule
from pymc_isomix.step.objective import StepInfo, StepOptions, step_updates

logger = logging.getLogger(__name__)


def _is_set(value):
    """Tell whether an argument is neither None nor empty."""
    return value is not None and not (isinstance(value, list | tuple | dict) and not value)


class MixtureObjective(ObjectiveFunction):
    """Builds the step: draws, model, estimates, and the updates of all parameters."""

    def mode_of(self, compile_kwargs: dict) -> Any:
        """Return the PyTensor mode of a step, and record its backend."""
        mode = get_mode(compile_kwargs.get("mode"))
        self.op.backend = backend_name(mode)
        return mode

    @compiling()
    def step_function(
        self,
        *,
        score: bool = True,
        compile_kwargs: dict | None = None,
        whole: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Compile the step, which returns the loss, NaN for a refused step.

        On numba and C only the model is compiled, unless ``whole``; the arithmetic of the mixture
        runs in NumPy. Further parameters are those of :meth:`updates`.

        Raises
        ------
        JAXCompilationError
            If JAX cannot compile the step.
        """
        compile_kwargs = dict(compile_kwargs or {})
        mode, flags = self.mode_of(compile_kwargs), {}
        random_seed = self.approx.rng.randint(2**30, dtype=np.int64)
        own_gradient = bool(kwargs.get("more_obj_params"))  # it comes after the model's rewrites
        if is_jax(mode):
            teach_jax()
            if not own_gradient:
                compile_kwargs["mode"] = mode_for_xla(mode)
        elif whole:
            compile_kwargs["mode"] = without_wrong_rewrites(mode)
        elif compiles_slowly(mode) and not own_gradient:
            kwargs["model_mode"] = without_wrong_rewrites(mode)
            compile_kwargs["mode"], flags = CHEAP_FAST, {"cxx": ""}
        updates = self.updates(**kwargs)
        with jax_failure(is_jax(mode)), pytensor.config.change_flags(**flags):
            return compile(
                [], updates.loss, updates=updates, random_seed=random_seed, **compile_kwargs
            )

    @compiling()
    def stepper(self, *, compile_kwargs: dict, whole: bool, **kwargs: Any) -> Any:
        """Return the stepper of a fit, compiled now or by an earlier fit of the model.

        On JAX it is a loop. The model stores it unless special settings change the step.
        """
        mode = self.mode_of(compile_kwargs)
        if not is_jax(mode) or set(compile_kwargs) - {"mode"}:
            function = self.step_function(compile_kwargs=compile_kwargs, whole=whole, **kwargs)
            return steppers.OneByOne(function, self.op)
        is_plain = mode is get_mode("JAX") and not any(map(_is_set, kwargs.values()))
        key = self.op.key if is_plain else None
        seed = self.approx.rng.randint(2**30, dtype=np.int64)
        if key in (store := model_cache(self.op.model)):
            return store[key].bind(self.op, seed)
        teach_jax()
        updates = self.updates(**kwargs)
        # gradients of the model's parameters come after the rewrites of the model
        mode = mode if kwargs.get("more_obj_params") else mode_for_xla(mode)
        with jax_failure():
            looped = self._loop(updates, mode).bind(self.op, seed, self._get_ready if key else None)
        if key is not None:
            store.add(key, looped.loop)
            Thread(target=import_psis).start()  # while JAX takes the steps
        return looped

    def _get_ready(self):
        """Compile the functions that judge the fit."""
        with jax_failure():
            get_ready(self.approx.compiled_model(self.op.backend))

    def _loop(self, updates, mode):
        rngs = collect_default_updates(outputs=[updates.loss, *updates.values()])
        every = {**updates, **rngs}
        outputs = [updates.loss, *every.values()]
        roots = roots_of(every, outputs)
        n_updates = len(every)
        return Loop(
            rewritten_for_jax(roots, outputs, mode),
            [variable.container.storage for variable in roots],
            self.op.shared,
            generators=list(range(len(updates), n_updates)),
            updates={i: i + 1 for i in range(n_updates)},
        )

    def updates(
        self,
        obj_n_mc: Any = None,
        tf_n_mc: Any = None,
        obj_optimizer: Any = None,
        test_optimizer: Any = None,
        more_obj_params: Any = None,
        more_tf_params: Any = None,
        more_updates: Any = None,
        more_replacements: Any = None,
        total_grad_norm_constraint: Any = None,
        model_mode: Any = None,
        n_devices: int = 1,
    ) -> Any:
        r"""Build the updates of one step, and the loss.

        Parameters
        ----------
        obj_n_mc : int, optional
            Draws per component, instead of the rule's.
        obj_optimizer : callable, optional
            ``(gradients, params) -> updates``, for example ``pm.adam(learning_rate=0.01)``. It
            replaces the step of the means and gets the gradient :math:`K \partial F/\partial
            \mu_k`. Variances, weights and metric keep their rules.
        more_obj_params : list of shared variables, optional
            Parameters of the model itself, updated by ``obj_optimizer`` to increase the ELBO.
        more_updates, more_replacements : dict, optional
            As in PyMC.
        total_grad_norm_constraint : float, optional
            Bound on the joint norm of the gradients of all means and variances.
        model_mode : Mode, optional
            Compile the model by itself with this mode.
        n_devices : int
            Devices of JAX that share the evaluations of the model; on the jax backend.
        """
        check_devices(n_devices, self.op, obj_n_mc)
        if more_obj_params and obj_optimizer is None:
            raise ValueError("more_obj_params needs obj_optimizer, which updates them")
        group = self.op.group
        means, more_obj_params = group.shared_params["means"], more_obj_params or []

        def optimise(loss, gradient):
            gradients = [gradient, *(pytensor.grad(loss, one) for one in more_obj_params)]
            updates = dict(obj_optimizer(gradients, [means, *more_obj_params]))
            return updates.pop(means), updates

        constrain = None
        if total_grad_norm_constraint is not None:
            constrain = partial(total_norm_constraint, max_norm=total_grad_norm_constraint)
        options = StepOptions(
            n_samples=obj_n_mc,
            model_mode=model_mode,
            n_devices=n_devices,
            on_jax=self.op.backend == "jax" and n_devices == 1,
            more_replacements=more_replacements,
            constrain=constrain,
            optimiser=None if obj_optimizer is None else optimise,
            anchor=None if more_replacements or more_obj_params else self.op.anchor,
        )
        loss, updates = step_updates(
            self.op.rule,
            group.shared_params,
            group.space,
            self.op.step_size,
            self.op.info,
            group.coordinate_map,
            options,
        )
        result = ObjectiveUpdates({**updates, **(more_updates or {})})
        result.loss = loss
        return result


def check_devices(n_devices: int, operator: "MixtureKL", n_samples: Any = None) -> None:
    """Raise unless JAX has so many devices, and the draws divide evenly among them."""
    check_count("n_devices", n_devices)
    if n_devices == 1:
        return
    if operator.backend != "jax":
        raise ValueError(
            f"n_devices={n_devices} needs the jax backend; this fit is on {operator.backend}"
        )
    import jax

    if n_devices > jax.device_count():
        raise ValueError(
            f"n_devices must be at most {jax.device_count()}, the devices of JAX; got {n_devices}"
        )
    n_components = operator.group.shared_params["means"].type.shape[0]
    n_draws = n_components * (n_samples or operator.rule.n_samples)
    if n_draws % n_devices:
        raise ValueError(
            f"n_devices must divide the draws of a step, n_components * n_samples = {n_draws}; got "
            f"{n_devices}"
        )


class MixtureKL(Operator):
    r"""Kullback-Leibler divergence :math:`KL(q \| p)` of a mixture, on the scale of the full data.

    Parameters
    ----------
    approx : IsotropicMixture
    rule : StepRule

    Attributes
    ----------
    step_size : shared scalar
        Size of the next step.
    info : StepInfo
        Results of the last step besides the parameters.
    anchor : Anchor or None
        None without minibatches.
    moves_anchor : bool
        Whether all data can be evaluated at an anchor.
    backend : str
        Backend of the compiled step, or of the model in it.
    """

    objective_class = MixtureObjective

    def __init__(self, approx: IsotropicMixture, rule: StepRule | None = None) -> None:
        super().__init__(approx)
        self.rule = StepRule() if rule is None else rule
        means = self.group.shared_params["means"]
        self.backend = ""
        self.step_size = pytensor.shared(floatX(np.asarray(0.1)), "step_size")
        n_components, n_dim = means.type.shape
        self.info = StepInfo.allocate(n_components, n_dim, means.dtype)
        self.anchor: Anchor | None = None
        self.moves_anchor = has_minibatches(self.model)
        if self.moves_anchor:
            self.anchor = Anchor.allocate(n_dim, means.dtype)

    @property
    def group(self) -> IsotropicMixtureGroup:
        """The group of variables that is fitted."""
        return self.approx.groups[0]

    @property
    def n_draws(self) -> int:
        """Draws per step, over all components."""
        return len(self.info.n_finite.get_value(borrow=True)) * self.rule.n_samples

    def move_anchor(self) -> None:
        """Put the anchor of minibatches at the mixture's mean, with one evaluation of all data."""
        assert self.anchor is not None
        if not self.moves_anchor:
            return
        mixture, group = self.approx.mixture, self.group
        point, _ = group.coordinates.to_unconstrained(mixture.mean[None])
        # of the fitted model, not that of the context
        compiled = CompiledModel(group.space, mixture.means.dtype.name, self.backend)
        try:
            log_density, gradient = compiled.log_density_and_gradient(point)
        except ValueError as error:  # random by more than minibatches
            logger.info(f"minibatches are fitted without noise reduction: {error}")
            self.moves_anchor = False  # logged once
            return
        self.anchor.move(point[0], log_density[0], gradient[0])

    @property
    def shared(self) -> dict:
        """Shared variables of the step by name, without those of the model."""
        found = {"step_size": self.step_size, **self.group.shared_params}
        for name in ("info", "anchor"):
            if (record := getattr(self, name)) is not None:
                found |= {f"{name}.{f.name}": getattr(record, f.name) for f in fields(record)}
        return found

    @property
    def key(self) -> tuple | None:
        """Return the key of a step without special settings."""
        group = self.group
        if group.user_params is not None or len(self.approx.groups) > 1:
            return None
        types = tuple((name, variable.type) for name, variable in self.shared.items())
        return "step", self.rule, types, group.coordinate_map.key, graph_key(group.space)

    def set_step_size(self, step_size: float) -> None:
        """Set the size of the next step."""
        self.step_size.set_value(np.asarray(step_size, dtype=self.step_size.dtype))

    def apply(self, f: Any) -> Values:
        """Apply the operator: log q - log p, for PyMC's ``score_function``."""
        return self.logq - self.logp
