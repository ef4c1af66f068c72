r"""Control of the iterations of a fit: step sizes, respawning, stopping.

:class:`Scheduled` follows a schedule for n steps; :class:`Phased` explores at a constant step
until the ELBO has stopped rising, respawns dead components, explores again, and settles with
decaying steps whose last iterates it averages.
"""

import logging
from typing import Any, Protocol, override

import numpy as np

from pymc_isomix.family import modes
from pymc_isomix.family.mixture import NAMES, Mixture
from pymc_isomix.fitting import schedules
from pymc_isomix.fitting.plateau import (
    IterateAverage,
    divergence_by_noise,
    has_plateaued,
    recent_fall,
)
from pymc_isomix.fitting.record import CONVERGED

logger = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between two looks at the ELBO
SETTLE_STEPS = 200  # after a plateau
EXACT, SETTLE_EXACT = 0.01, 100  # nats of KL while exploring; settling steps below it
LEAST_WITH_SITES = 600  # steps, because the ELBO hardly shows when coordinates have settled
MANY_ELEMENTS = 300  # above, the ELBO shows it
# for a mixture that starts from Gaussians, with the right metric and coordinates
LOOK_WARM, SETTLE_WARM = 25, 50  # steps
POOR = 0.1  # nats of KL(q || p) that are worth more steps
MOST_WARM = 250  # steps of exploring; later gains are slow
SMALL_GAIN = 0.02  # nats, from one look to the next
AVERAGE_EVERY = 5  # steps, because neighbouring iterates are nearly equal
MAX_RESPAWNS = 3
MAX_HALVINGS = 10
MOST_REFUSED_IN_A_ROW = 50  # steps; if nothing is finite, respawning does not help
RELIABLE_ERROR = 0.15  # relative standard error at which half of a correction is applied


class Controller(Protocol):
    """The interface between the loop and a controller."""

    @property
    def name(self) -> str:
        """Shown by the progress bar."""

    @property
    def phase(self) -> str:
        """Recorded for each step."""

    def step_sizes(self, i: Any, most: Any) -> np.ndarray:
        """Return sizes of step i and the following steps, at most ``most``, up to the next look."""

    def after_steps(self, losses: Any, log_evidence: Any) -> str | None:
        """Look at all losses (i,), and at the log evidence (t, K) of the last t steps.

        Return a reason to stop, or None.
        """

    def recover(self, i: Any, lost: Any) -> bool:
        """Recover from a refused step, in which components ``lost`` (K,) had no finite draw.

        Return False if that is impossible.
        """

    def finish(self) -> None:
        """Write the result into the parameters."""


def controller(
    operator: Any,
    settings: Any,
    n: int,
    done: int,
    rng: np.random.RandomState,
    begun: int = 0,
    warm: bool = False,
) -> Any:
    """Choose the controller of a run of n steps after ``done`` earlier ones.

    The first ``begun`` of the n steps were those of Gaussians. A ``warm`` mixture starts from them.
    """
    if settings.schedule != "auto":
        return Scheduled(settings.first_step, settings.schedule, n, first=done)
    return Phased(
        operator,
        settings.first_step,
        n,
        stop_early=settings.convergence == "auto",
        rng=np.random.default_rng(rng.randint(2**30, dtype=np.int64)),
        begun=begun,
        warm=warm,
    )


class Scheduled(Controller):
    """Take n steps by a schedule, and return the last iterate."""

    name, phase = "Fitting", "scheduled"

    def __init__(self, step_size: float, schedule: str, n: int, first: int = 0) -> None:
        self.sizes = schedules.step_sizes(step_size, schedule, max(first + n, 1))[first:]

    @override
    def step_sizes(self, i: int, most: int) -> np.ndarray:
        return self.sizes[i : i + most]

    @override
    def after_steps(self, losses: np.ndarray, log_evidence: np.ndarray) -> Any:
        return None

    @override
    def recover(self, i: Any, lost: Any) -> Any:
        return False

    @override
    def finish(self) -> None:
        pass


class Phased(Controller):
    """Explore, respawn, settle.

    Half of the budget is reserved for settling: if noise hides a plateau, as with minibatches, the
    average needs many iterates.

    Parameters
    ----------
    operator : StepState
    step_size : float
    n : int
        Budget of steps.
    stop_early : bool
        Whether a plateau ends exploring, or else the budget.
    rng : numpy.random.Generator
    begun : int
        Number of steps of Gaussians before the mixture.
    warm : bool
        Whether the mixture starts from the Gaussians.
    """

    def __init__(
        self,
        operator: Any,
        step_size: float,
        n: int,
        *,
        stop_early: bool,
        rng: np.random.Generator,
        begun: int = 0,
        warm: bool = False,
    ) -> None:
        self.operator, self.group, self.rng = operator, operator.group, rng
        self.log_evidence: list[np.ndarray] = []
        self.base_step, self.n = step_size, n
        self.stop_early, self.rule = stop_early, operator.rule
        n_elements = len(self.group.coordinates.parameters.get("values", ()))
        learns = not warm and 0 < n_elements <= MANY_ELEMENTS
        self.least_exploring = begun + LEAST_WITH_SITES if learns else 0
        self.check_every = LOOK_WARM if warm else CHECK_EVERY
        self.begun, self.warm = begun, warm
        self.phase_start = begun  # first step of the current exploration
        self.settle_start: int | None = None
        self.settle_steps = 0
        self.n_respawns = self.n_halvings = self.n_in_a_row = 0
        self.last_refused = -2
        self.average = IterateAverage()

    @property
    def name(self) -> str:
        """Name of the phase, for the progress bar."""
        return self.phase.capitalize()

    @property
    def phase(self) -> str:
        """Name of the phase, for the record."""
        return "exploring" if self.settle_start is None else "settling"

    @override
    def step_sizes(self, i: int, most: int) -> np.ndarray:
        half_spent = self.begun + (self.n - self.begun) // 2
        if self.settle_start is None and i >= half_spent:
            self.settle_start, self.settle_steps = i, self.n - i
        if self.settle_start is None:
            look = self.check_every
            next_look = min(i + look - (i - self.begun) % look, half_spent)
            return np.full(min(most, next_look - i), self.base_step)
        taken, half = i - self.settle_start, self.settle_steps // 2
        next_look = half if taken < half else taken + AVERAGE_EVERY - taken % AVERAGE_EVERY
        steps = np.arange(taken, min(taken + most, next_look, self.settle_steps))
        return self.base_step / (1 + 20 * steps / self.settle_steps)

    @override
    def after_steps(self, losses: np.ndarray, log_evidence: np.ndarray) -> Any:
        done = len(losses)
        if self.settle_start is not None:
            taken = done - self.settle_start
            if taken > self.settle_steps // 2:
                self.log_evidence.extend(log_evidence)
                if taken % AVERAGE_EVERY == 0:
                    group = self.group
                    self.average.add({**group.mixture.as_dict(), **group.coordinates.parameters})
            return CONVERGED if taken >= self.settle_steps and done < self.n else None
        if (done - self.begun) % self.check_every:
            return None
        self.anchor(done)
        if done < self.least_exploring or not self.has_explored(losses[self.phase_start :]):
            return None
        if self.n_respawns < MAX_RESPAWNS and self.respawn_dead():
            self.n_respawns += 1
            self.phase_start = done
        elif self.stop_early:
            steps = SETTLE_EXACT if self.divergence(losses) < EXACT else SETTLE_STEPS
            if self.warm:
                steps = SETTLE_WARM if self.divergence(losses) < POOR else 2 * SETTLE_WARM
            self.settle_start, self.settle_steps = done, min(steps, self.n - done)
        return None

    def has_explored(self, losses: np.ndarray) -> bool:
        """Tell whether the losses of this phase have stopped falling."""
        if not self.warm:
            return has_plateaued(losses)
        if len(losses) >= MOST_WARM:
            return True
        losses = losses[np.isfinite(losses)]
        if len(losses) < 2 * LOOK_WARM:
            return False
        if self.divergence(losses) < POOR:
            fall, error = recent_fall(losses, LOOK_WARM)
            return fall < max(SMALL_GAIN, 2 * error)
        window = 2 * LOOK_WARM  # noise and possible gains are larger
        return len(losses) >= 2 * window and recent_fall(losses, window)[0] < 2 * SMALL_GAIN

    def divergence(self, losses: Any) -> Any:
        """KL(q || p) by the noise of the losses, nats; see :func:`divergence_by_noise`."""
        weights = self.group.mixture.weights
        return divergence_by_noise(losses, self.rule.n_samples / (weights**2).sum())

    def anchor(self, done: int) -> None:
        """Reduce the noise of minibatches, if the model has any, from here on."""
        if self.operator.anchor is None:
            return
        if done - self.begun == self.check_every:  # earlier losses are too noisy to compare with
            self.phase_start = done
        self.operator.move_anchor()

    @override
    def recover(self, i: Any, lost: Any) -> Any:
        # respawns components that lost all draws; halves the step if none did
        self.n_in_a_row = self.n_in_a_row + 1 if i == self.last_refused + 1 else 1
        self.last_refused = i
        if lost.all() or self.n_in_a_row > MOST_REFUSED_IN_A_ROW:
            return False
        if lost.any():
            names = ", ".join(map(str, np.flatnonzero(lost)))
            logger.info(f"step {i + 1}: respawned component{'s' * bool(lost.sum() > 1)} {names}")
            self.respawn(lost)
            return True
        self.n_halvings += 1
        if self.n_halvings > MAX_HALVINGS:
            return False
        self.base_step /= 2
        logger.info(f"step {i + 1} was not finite: step size halved to {self.base_step:g}")
        return True

    def respawn_dead(self) -> Any:
        """Respawn components of negligible weight; return whether there were any."""
        dead = modes.is_dead(self.group.mixture)
        if not self.rule.learn_weights or not dead.any():
            return False
        self.respawn(dead)
        return True

    def respawn(self, lost: Any) -> None:
        """Put components next to living ones, chosen by weight, and share the weight."""
        q = self.group.mixture
        weights = np.where(lost, 0, q.weights)
        if not weights.any():  # the lost components had all weight
            weights = 1.0 - lost
        parents = self.rng.choice(len(weights), size=lost.sum(), p=weights / weights.sum())
        n_children = np.bincount(parents, minlength=len(weights))
        noise = 0.7 * self.rng.normal(size=(lost.sum(), q.n_dim))
        means, log_variances = q.means.copy(), q.log_variances.copy()
        means[lost] = q.means[parents] + q.offsets(noise, parents)
        if self.rule.has_own_variances:
            log_variances[n_children > 0] -= np.log(2)
            log_variances[lost] = log_variances[parents]
        if self.rule.learn_weights:
            weights = weights / (1 + n_children)
            weights[lost] = weights[parents]
        else:
            weights = q.weights
        self.group.mixture = q.replace(
            means=means, log_variances=log_variances, log_weights=np.log(weights)
        )
        # do not average iterates of the old component with those of the new one
        self.average, self.log_evidence = IterateAverage(), []

    @override
    def finish(self) -> None:
        """Set the parameters to the average of the last iterates, and correct its weights."""
        if not self.average.count:
            return
        q = self.average.mean
        if self.rule.learn_weights:
            q["log_weights"] = q["log_weights"] + evidence_correction(np.array(self.log_evidence))
        of_coordinates = {name: q.pop(name) for name in set(q) - set(NAMES)}
        self.group.coordinates = self.group.coordinates.replace(**of_coordinates)
        self.group.mixture = Mixture(**q).replace()


def evidence_correction(log_evidence: np.ndarray) -> np.ndarray:
    r"""Return log factors that turn weights of least KL(q || p) into shares of the evidence.

    If the family fits one mode worse than another by D nats, its weight at the best ELBO is too
    small by a factor :math:`e^{-D}`. The share of component k in the evidence is :math:`\int r_k(z)
    p(z) dz = w_k \, \mathbb E_{q_k}[p/q]`, which is one EM step on the weights by importance
    sampling. Each factor is shrunk towards 1 by its relative standard error.

    Parameters
    ----------
    log_evidence : (T, K) array
        :math:`\log \operatorname{mean}_b p/q` of each component at T steps.

    Returns
    -------
    (K,) array
        Log factors of the weights, not normalised.
    """
    if not np.isfinite(log_evidence.max()):
        return np.zeros(log_evidence.shape[1])
    scaled = np.exp(log_evidence - log_evidence.max())
    mean = scaled.mean(axis=0)
    known = mean > 0  # a weight stays if its evidence is zero or out of range
    with np.errstate(divide="ignore", invalid="ignore"):
        error = scaled.std(axis=0) / np.sqrt(len(scaled)) / mean
        reliability = 1 / (1 + (error / RELIABLE_ERROR) ** 2)
        factors = reliability * (np.log(mean) - np.median(np.log(mean[known])))
    return np.where(known, factors, 0.0)
