"""The loop around the compiled step: progress, callbacks, and failed steps."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pymc.progress_bar import CustomProgress
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.theme import Theme

from pymc_isomix.family import modes
from pymc_isomix.fitting.controllers import Controller
from pymc_isomix.fitting.steppers import Looped, OneByOne, StepState
from pymc_isomix.model import starts

logger = logging.getLogger(__name__)

UPDATE_EVERY = 20  # steps between two updates of the progress bar
AVERAGED_LOSSES = 100
SLOW_STEP = 0.5  # seconds


class RareCallback:
    """A callback that may be called once per call of many steps, and not after each step."""


@dataclass
class Trace:
    """The record of a run, which is valid however the run ends."""

    losses: np.ndarray
    taken: int = 0
    reason: str = "all iterations done"
    phases: list[str] = field(default_factory=list)
    step_sizes: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    compile_seconds: float = 0.0  # before and within the run
    n_gradients: dict[str, int] = field(default_factory=dict)  # evaluations of the model, by phase

    @property
    def done(self) -> np.ndarray:
        """Losses of the steps taken."""
        return self.losses[: self.taken]


@dataclass(frozen=True)
class Callbacks:
    """The user's callbacks.

    Parameters
    ----------
    functions : sequence of callable
        Each is called with (approximation, losses, iteration) after every step.
    approx : IsotropicMixture
    first : int
        Iterations of earlier runs.
    score : bool
        Whether they get the losses.
    """

    functions: Sequence[Callable]
    approx: Any
    first: int
    score: bool

    def __bool__(self) -> bool:
        return bool(self.functions)

    @property
    def are_rare(self) -> bool:
        """Whether all of them may be called once per call of many steps."""
        return all(isinstance(function, RareCallback) for function in self.functions)

    def call(self, trace: Trace) -> None:
        """Call them after the latest step of a run."""
        losses = trace.done if self.score else None
        for function in self.functions:
            function(self.approx, losses, self.first + trace.taken)


def run(
    trace: Trace,
    stepper: OneByOne | Looped,
    controller: Controller,
    operator: StepState,
    callbacks: Callbacks,
    *,
    progressbar: bool,
    theme: Theme,
) -> bool:
    """Take steps until the controller, a callback, the user or the budget ends it.

    Parameters
    ----------
    trace : Trace
        Filled in during the run; the length of its losses is the budget.

    Returns
    -------
    bool
        Whether the user or a callback ended it.

    Raises
    ------
    FloatingPointError
        If a step fails for good.
    """
    budget, begun, first = len(trace.losses), trace.taken, callbacks.first
    n_draws = operator.n_draws
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[state]}"))
    console = Console(theme=theme)
    try:
        with CustomProgress(*columns, console=console, disable=not progressbar) as progress:
            task = progress.add_task(controller.name, total=budget, state="")
            shown = -UPDATE_EVERY
            while trace.taken < budget:
                most = stepper.most if callbacks.are_rare else 1
                step_sizes, phase = controller.step_sizes(trace.taken, most), controller.phase
                began = time.perf_counter()
                losses, log_evidence = stepper.take(step_sizes)
                done = trace.taken + len(losses)
                trace.losses[trace.taken : done] = losses
                trace.step_sizes.extend(step_sizes[: len(losses)])
                trace.phases.extend([phase] * len(losses))
                seconds = time.perf_counter() - began
                if trace.taken == begun:  # the first call may compile
                    trace.compile_seconds += seconds
                if trace.taken == begun + 1:
                    hint_at_cost(seconds, operator.rule.n_samples)
                trace.n_gradients[phase] = trace.n_gradients.get(phase, 0) + len(losses) * n_draws
                if np.isnan(losses[-1]) and not controller.recover(
                    done - 1, operator.info.lost_components
                ):
                    trace.taken = done - 1
                    trace.reason = f"step {first + done} failed"
                    raise FloatingPointError(describe_fault(operator, first + done))
                trace.taken = done
                if progressbar and done - shown >= UPDATE_EVERY:
                    shown = done
                    progress.update(
                        task,
                        completed=done,
                        description=controller.name,
                        state=describe_state(trace, operator),
                    )
                if callbacks:
                    stepper.to_numpy()
                    callbacks.call(trace)
                if (reason := controller.after_steps(trace.done, log_evidence)) is not None:
                    trace.reason = reason
                    break
            # fill the bar even if the fit converged before its budget
            progress.update(task, total=trace.taken, completed=trace.taken)
        controller.finish()
    except (KeyboardInterrupt, StopIteration) as interruption:
        trace.reason = str(interruption) or "interrupted"
        return True
    return False


@contextmanager
def showing(message: str, shown: bool) -> Iterator[None]:
    """Show a message while something takes long, if a progress bar is wanted."""
    with Console().status(message) if shown else nullcontext():
        yield


def hint_at_cost(seconds: float, n_samples: int) -> None:
    """Suggest cheaper settings if a step is slow."""
    if seconds > SLOW_STEP and n_samples > 1:
        logger.info(
            f"A step takes {seconds:.1f} s, with {n_samples} draws per component. If the log "
            "density is expensive, try n_samples=1 or fewer components (n_components=)."
        )


def describe_state(trace: Any, operator: Any) -> Any:
    """Describe the ELBO of the last steps, and the number of living components."""
    recent = trace.done[-AVERAGED_LOSSES:]
    recent = recent[np.isfinite(recent)]
    elbo = f"{-recent.mean():,.5g}" if recent.size else "not finite"
    alive = ~modes.is_dead(operator.group.mixture)
    return f"ELBO {elbo}, {alive.sum()} of {alive.size} components alive"


def describe_fault(operator: Any, iteration: int) -> str:
    """Name the component and the variable that made a step fail."""
    group = operator.group
    lost = operator.info.lost_components
    note = "The approximation keeps the last finite parameters."
    if lost.any():
        component = int(np.argmax(lost))
        mean = group.coordinates.to_unconstrained(group.mixture.means[component, None])[0][0]
        offenders = starts.offending_variables(group.space, mean)
        place = (
            f"at variable {', '.join(offenders)}"
            if offenders
            else "though its mean has one; its variance may be too large for the support"
        )
        return (
            f"iteration {iteration}: component {component} has no draw with a finite log density "
            f"and gradient, {place}. {note} Use another start, a smaller start_sigma or a smaller "
            "step_size."
        )
    finite = np.asarray(operator.info.finite_dimensions.get_value(borrow=True))
    places = {name: place for name, (_, place, _, _) in group.space.ordering.items()}
    names = [name for name, place in places.items() if not finite[place].all()] or list(places)
    wrong = np.flatnonzero(~np.asarray(operator.info.finite_components.get_value(borrow=True)))
    advice = f"{note} Use a smaller step_size."
    if not wrong.size:
        shared = "the weights, the metric" + (" or the coordinates" if group.coordinates else "")
        return (
            f"iteration {iteration}: {shared}, which the components share, would not be finite. "
            f"{advice}"
        )
    return (
        f"iteration {iteration}: a parameter of component {', '.join(f'{k}' for k in wrong)} "
        f"would not be finite, at variable {', '.join(names)}. {advice}"
    )
