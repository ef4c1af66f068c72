"""Steps with a compiled function, many per call if the backend can loop."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pymc_isomix.backend.jax_compilation import AheadOfTime
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting.random_state import generators, seeded_for_jax
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.coordinates import Coordinates
from pymc_isomix.step.anchor import Anchor
from pymc_isomix.step.bounds import StepRule
from pymc_isomix.step.objective import StepInfo

MOST_STEPS = 50  # in one call
CALL_SECONDS = 0.3  # so that progress and interrupts are not delayed


class Parameters(Protocol):
    """The variational parameters as numbers; mixture and coordinates are settable."""

    mixture: Mixture
    coordinates: Coordinates
    space: FlatSpace


class StepState(Protocol):
    """What a step takes and gives besides its compiled function."""

    group: Parameters
    rule: StepRule
    info: StepInfo
    anchor: Anchor | None
    n_draws: int  # per step, over all components
    shared: dict[str, Any]  # shared variables by name, without those of the model

    def set_step_size(self, step_size: float) -> None:
        """Set the size of the next step."""

    def move_anchor(self) -> None:
        """Move the anchor of minibatches to the mean of the mixture."""


class OneByOne:
    """One call of the compiled function per step.

    Parameters
    ----------
    function : callable
        The compiled step; returns the negative ELBO, NaN for a refused step.
    operator : StepState
    """

    most = 1

    def __init__(self, function: Any, operator: Any) -> None:
        self.function, self.operator = function, operator

    def to_numpy(self) -> None:
        """Do nothing: the values of shared variables are NumPy arrays."""

    @property
    def generators(self) -> list:
        """Storage of the random generators."""
        return generators(self.function)

    def take(self, step_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take one step.

        Parameters
        ----------
        step_sizes : (n,) array
            At most ``most``.

        Returns
        -------
        losses : (t,) array
            Of the t steps taken: all n, or up to the first refused step.
        log_evidence : (t, K) array
        """
        self.operator.set_step_size(step_sizes[0])
        loss = float(self.function())
        log_evidence = self.operator.info.log_evidence.get_value(borrow=True)
        return np.array([loss]), np.asarray(log_evidence)[None]


class Loop:
    """Steps in a loop inside JAX, compiled, for all approximations of one model and shape.

    Parameters
    ----------
    step : callable
        From the state, a value of each input, to (loss, new values of those that are updated).
    storage : list of one-element lists
        Storage of the inputs, those of the approximation and of the model.
    shared : dict of shared variables
        Those of an approximation, by name.
    generators : list of int
        The inputs that are random generators, in the order of their seeds.
    updates : dict of int to int
        Outputs of the step by the input that they update.
    """

    def __init__(
        self, step: Any, storage: list, shared: dict, generators: list[int], updates: dict
    ) -> None:
        self.step = step
        names = {id(variable.container.storage): name for name, variable in shared.items()}
        self.names = [names.get(id(one)) for one in storage]
        self.generators, self.updates = generators, updates
        self.data = [
            None if self.names[i] or i in generators else one for i, one in enumerate(storage)
        ]
        watched = (self.names.index(name) for name in ("step_size", "info.log_evidence"))
        self.run = AheadOfTime(_loop(step, updates, *watched))

    def bind(self, operator: Any, seed: int, meanwhile: Callable | None = None) -> "Looped":
        """Bind the loop to an approximation; run ``meanwhile`` while XLA compiles."""
        seeded = seeded_for_jax(len(self.generators), seed)
        states = dict(zip(self.generators, seeded, strict=True))
        shared = operator.shared
        storage = [
            [states[i]] if i in states else shared[name].container.storage if name else data
            for i, (name, data) in enumerate(zip(self.names, self.data, strict=True))
        ]
        return Looped(self, storage, operator, meanwhile)


class Looped:
    """A loop of steps bound to an approximation, which saves calls from Python.

    The numbers equal those of single calls.

    Parameters
    ----------
    loop : Loop
    storage : list of one-element lists
        Storage of the state: shared variables and generators.
    operator : StepState
    meanwhile : callable, optional
        Called while XLA compiles.
    """

    def __init__(
        self, loop: Loop, storage: list, operator: Any, meanwhile: Callable | None = None
    ) -> None:
        import jax

        self.loop, self.storage, self.operator = loop, storage, operator
        self.most = 1  # until a call has been timed
        # Python numbers would have another type after the first call, and JAX would
        # compile again
        for i in loop.updates:
            self.storage[i][0] = jax.tree.map(np.asarray, self.storage[i][0])
        self._call(np.zeros(0), meanwhile)  # compiles

    @property
    def generators(self) -> list:
        """Storage of the random generators."""
        return [self.storage[i] for i in self.loop.generators]

    def to_numpy(self) -> None:
        """Turn JAX arrays in shared variables into NumPy arrays.

        Other readers, above all numba, may not accept JAX arrays.
        """
        for i in self.loop.updates:
            if i not in self.loop.generators:
                self.storage[i][0] = np.array(self.storage[i][0])

    def take(self, step_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take several steps; see :meth:`OneByOne.take`."""
        start = time.perf_counter()
        taken, losses, log_evidence = self._call(step_sizes)
        self.operator.set_step_size(step_sizes[taken - 1])
        seconds = (time.perf_counter() - start) / taken
        self.most = int(np.clip(CALL_SECONDS / seconds, 1, MOST_STEPS))
        return losses[:taken], log_evidence[:taken]

    def _call(self, step_sizes, meanwhile=None):
        padded = np.zeros(MOST_STEPS)
        padded[: len(step_sizes)] = step_sizes
        taken, state, losses, log_evidence = self.loop.run(
            tuple(storage[0] for storage in self.storage),
            padded,
            np.asarray(len(step_sizes)),
            meanwhile=meanwhile,
        )
        result = int(taken), np.asarray(losses), np.asarray(log_evidence)
        for i in self.loop.updates:
            self.storage[i][0] = state[i]
        return result


def _loop(step, updates, step_size, log_evidence):
    """Return a loop over the step: from (state, step sizes, n) to (t, state, losses, evidence).

    The state is the inputs of the step; ``step_size`` and ``log_evidence`` are places in it.
    """
    import jax
    import jax.numpy as jnp

    def body(carry):
        taken, state, losses, evidence, step_sizes, n = carry
        size = jnp.asarray(step_sizes[taken], state[step_size].dtype)
        outputs = step(*(size if i == step_size else value for i, value in enumerate(state)))
        state = tuple(
            jax.tree.map(_like, outputs[updates[i]], value) if i in updates else value
            for i, value in enumerate(state)
        )
        losses = losses.at[taken].set(jnp.asarray(outputs[0], losses.dtype))
        evidence = evidence.at[taken].set(state[log_evidence])
        return taken + 1, state, losses, evidence, step_sizes, n

    def goes_on(carry):
        taken, _, losses, _, _, n = carry
        return (taken < n) & ~jnp.isnan(losses[taken - 1])  # losses[-1] is zero at first

    def _like(value, old):
        return jnp.asarray(value, old.dtype).reshape(old.shape)

    def run(state, step_sizes, n):
        state = jax.tree.map(jnp.asarray, state)
        losses = jnp.zeros(MOST_STEPS + 1)  # the last is never set
        evidence = jnp.zeros((MOST_STEPS, *state[log_evidence].shape), state[log_evidence].dtype)
        carry = (0, state, losses, evidence, step_sizes, n)
        return jax.lax.while_loop(goes_on, body, carry)[:4]

    return run
