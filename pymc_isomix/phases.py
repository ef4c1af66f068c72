r"""What the fit does over its iterations: which step sizes, when to respawn, when to stop.

Two controllers with the same three methods, which the loop calls: :class:`Scheduled` follows a
schedule for n steps; :class:`Phased` explores at a constant step until the ELBO has stopped
rising, respawns dead components, explores again, and settles with decaying steps whose last
iterates it averages.
"""

import logging

import numpy as np

from pymc_isomix import schedules
from pymc_isomix.convergence import IterateAverage, has_plateaued

logger = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between two looks at the ELBO
SETTLE_STEPS = 400
AVERAGE_EVERY = 5  # neighbouring iterates say nearly the same
DEAD_SHARE = 0.02  # of 1/K: a component with less weight is put to better use
MAX_RESPAWNS = 3
MAX_HALVINGS = 10


class Scheduled:
    """n steps by a schedule, and the last iterate."""

    name = "Fitting"

    def __init__(self, step_size, schedule, n, first=0):
        self.sizes = schedules.step_sizes(step_size, schedule, max(first + n, 1))[first:]

    def step_size(self, i):
        """Step size of step i = 0, 1, ..."""
        return self.sizes[i]

    def after_step(self, i, losses):
        """Return a reason to stop, None to go on."""
        return None

    def recover(self, i, lost):
        """Try to go on after a refused step; False when that cannot be done."""
        return False

    def finish(self):
        """Leave the parameters as the answer."""


class Phased:
    """Explore, respawn, settle.

    Parameters
    ----------
    group : IsotropicMixtureGroup
    step_size : float
    n : int
        Budget of steps.
    stop_early : bool
        Whether a plateau ends exploring; otherwise the budget does.
    learn_weights : bool
        Without learned weights no component is ever dead.
    rng : numpy.random.Generator
    """

    def __init__(self, group, step_size, n, *, stop_early, learn_weights, rng):
        self.group, self.rng = group, rng
        self.base_step, self.n = step_size, n
        self.stop_early, self.learn_weights = stop_early, learn_weights
        self.settle_steps = min(SETTLE_STEPS, (n + 1) // 2)
        self.phase_start = 0  # step at which the current stretch of exploring began
        self.settle_start = None
        self.n_respawns = self.n_halvings = 0
        self.average = IterateAverage()

    @property
    def name(self):
        """Name of the phase, for the progress bar."""
        return "Exploring" if self.settle_start is None else "Settling"

    def step_size(self, i):
        """Step size of step i = 0, 1, ..."""
        if self.settle_start is None and i >= self.n - self.settle_steps:
            self.settle_start = i
        if self.settle_start is None:
            return self.base_step
        progress = (i - self.settle_start) / self.settle_steps
        return self.base_step / np.sqrt(1 + 20 * progress)

    def after_step(self, i, losses):
        """Move on between the phases; return a reason to stop, None to go on."""
        done = i + 1
        if self.settle_start is not None:
            taken = done - self.settle_start
            if taken > self.settle_steps // 2 and taken % AVERAGE_EVERY == 0:
                self.average.add(self.group.parameter_values())
            return "converged" if taken >= self.settle_steps and done < self.n else None
        if done % CHECK_EVERY == 0 and has_plateaued(losses[self.phase_start : done]):
            if self.n_respawns < MAX_RESPAWNS and self.respawn_dead():
                self.n_respawns += 1
                self.phase_start = done
            elif self.stop_early:
                self.settle_start = done
        return None

    def recover(self, i, lost):
        """Respawn components that lost all their draws; halve the step when none did.

        Parameters
        ----------
        lost : (K,) boolean array
        """
        self.n_halvings += 1
        if lost.all() or self.n_halvings > MAX_HALVINGS:
            return False
        if lost.any():
            logger.info(f"step {i + 1}: respawned component {', '.join(map(str, np.flatnonzero(lost)))}")
            self.respawn(lost)
        else:
            self.base_step /= 2
            logger.info(f"step {i + 1} was not finite: step size halved to {self.base_step:g}")
        return True

    def respawn_dead(self):
        """Respawn components of negligible weight; return whether there were any."""
        weights = np.exp(self.group.parameter_values()["log_weights"])
        dead = weights < DEAD_SHARE / len(weights)
        if not self.learn_weights or not dead.any():
            return False
        self.respawn(dead)
        return True

    def respawn(self, lost):
        """Put components beside living ones, chosen by weight, and share the weight."""
        q = self.group.parameter_values()
        weights = np.where(lost, 0, np.exp(q["log_weights"]))
        weights /= weights.sum()
        parents = self.rng.choice(len(weights), size=lost.sum(), p=weights)
        n_children = np.bincount(parents, minlength=len(weights))
        weights /= 1 + n_children
        weights[lost] = weights[parents]
        offsets = self.group.scale_noise(
            0.7 * self.rng.normal(size=(lost.sum(), self.group.ddim)), parents
        )
        q["means"][lost] = q["means"][parents] + offsets
        halved = q["log_variances"] - np.log(2) * (n_children > 0)
        q["log_variances"] = np.where(lost, 0, halved)
        q["log_variances"][lost] = halved[parents]
        q["log_weights"] = np.log(weights / weights.sum())
        self.group.set_parameter_values(q)

    def finish(self):
        """Put the average of the last iterates in place."""
        if self.average.count:
            self.group.set_parameter_values(self.average.mean)
