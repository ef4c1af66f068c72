"""A few HMC transitions of many chains at once, from draws of the approximation."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.family import metric as metrics
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.sampling.progress import LateProgress

logger = logging.getLogger(__name__)

LEAPFROGS = 8  # in a transition
TARGET_ACCEPTANCE = 0.8
FIRST_STEP = 0.8  # in standard deviations, for one dimension
GAIN = 2.0  # change of the log step size per excess of the acceptance rate
APART = 2  # transitions between two recorded states of a chain
RIDGE = 1e-8  # of each variance, added to a singular covariance
JITTER = 0.6, 1.0  # of each chain's step, so that no trajectory returns to its start


class Moved(NamedTuple):
    """The result of transitions."""

    points: np.ndarray  # (S, d), coordinates y
    recent: np.ndarray  # (T, S, d), states at some of the latest transitions, with the last
    log_density: np.ndarray  # (S,) of y
    acceptance_rate: np.ndarray  # (S,) mean without the first quarter of the transitions
    energy: np.ndarray  # (S,) at the last transition
    n_done: int
    step_size: float  # in standard deviations


def transitions(
    compiled: CompiledModel,
    mixture: Any,
    points: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    progressbar: bool = False,
    n_recent: int = 1,
) -> Moved:
    r"""Move draws by Hamiltonian Monte Carlo, one chain per draw.

    The chains move in coordinates :math:`u = R^{-1}(y - \bar\mu)`, where :math:`R R^T` is the
    covariance of the mixture within its modes. All chains share one step size with separate jitter.
    It adapts to an acceptance rate of 0.8. Draws of the posterior stay draws of the posterior, and
    others come closer to it.

    Parameters
    ----------
    n : int
        Transitions.
    n_recent : int
        States to return per chain, at every other transition of the last half.

    Returns
    -------
    Moved
        After fewer transitions if the user interrupts.

    References
    ----------
    .. [1] Neal (2011), MCMC using Hamiltonian dynamics, arXiv:1206.1901, section 5.2.
    """
    root = whitening_root(mixture)
    centre = mixture.mean

    def density(at):
        """Log density and gradient at whitened points; not finite means out of reach."""
        log_p, gradient = compiled.log_density_and_gradient(centre + metrics.unwhiten(root, at))
        gradient = metrics.whiten_gradient(root, np.where(np.isfinite(gradient), gradient, 0.0))
        return np.where(np.isfinite(log_p), log_p, -np.inf), gradient

    at = to_whitened(mixture, points)
    step, n_chains = FIRST_STEP * mixture.n_dim**-0.25, len(points)
    done, since = 0, 0
    rates, chains, recent = np.zeros(n_chains), None, {}
    try:
        chains = Chains(at, np.zeros_like(at), *density(at))
        with (
            LateProgress("Transitions", n, disable=not progressbar) as progress,
            np.errstate(all="ignore"),
        ):
            while done < n:
                momentum = rng.normal(size=at.shape)
                own_step = step * rng.uniform(*JITTER, size=(n_chains, 1))
                start = chains._replace(momentum=momentum)
                end = leapfrog(density, start, own_step, LEAPFROGS)
                rate = np.exp(np.minimum(start.energy - end.energy, 0.0))
                rate = np.where(np.isfinite(end.energy), rate, 0.0)
                accepted = rng.random(n_chains) < rate
                # the step size settles in the first quarter
                first, total = (done, rate) if done == n // 4 else (since, rates + rate)
                # one assignment, so that an interrupt finds a complete state
                chains, rates, since, done = _choose(accepted, end, start), total, first, done + 1
                step *= np.exp(GAIN / np.sqrt(done) * (rate.mean() - TARGET_ACCEPTANCE))
                if done > n // 2 and n - done in range(0, APART * n_recent, APART):
                    recent[done] = chains.at
                progress.update(done)
    except KeyboardInterrupt:
        logger.warning(f"Interrupted: the draws are those after {done} of {n} transitions.")
        if chains is None:
            chains = Chains(at, np.zeros_like(at), np.full(n_chains, np.nan), at)
    states = points[None]
    if done:
        states = np.array([*(recent | {done: chains.at}).values()])
        states = (centre + metrics.unwhiten(root, states)).astype(points.dtype)
    rates = rates / max(done - since, 1)
    return Moved(states[-1], states, chains.log_density, rates, chains.energy, done, float(step))


class Chains(NamedTuple):
    """The state of chains on their trajectories."""

    at: np.ndarray  # (S, d) whitened
    momentum: np.ndarray  # (S, d)
    log_density: np.ndarray  # (S,)
    gradient: np.ndarray  # (S, d)

    @property
    def energy(self) -> np.ndarray:
        """Hamiltonian (S,)."""
        return 0.5 * (self.momentum**2).sum(axis=1) - self.log_density


def leapfrog(density: Callable, start: Chains, step: Any, n_steps: int) -> Chains:
    """Follow the Hamiltonian flow, all chains at once.

    Parameters
    ----------
    density : callable
        From points (S, d) to the log density (S,) and its gradient (S, d).
    step : (S, 1) array or float
    """
    at, log_p = start.at, start.log_density
    momentum = start.momentum + 0.5 * step * start.gradient
    for i in range(n_steps):
        at = at + step * momentum
        log_p, gradient = density(at)
        momentum = momentum + (step if i < n_steps - 1 else 0.5 * step) * gradient
    return Chains(at, momentum, log_p, gradient)


def _choose(accepted, end, start):
    """Choose per chain between two states."""
    pairs = zip(end, start, strict=True)
    rows = accepted[:, None]
    return Chains(*(np.where(rows if new.ndim == 2 else accepted, new, old) for new, old in pairs))


def whitening_root(mixture: Any) -> np.ndarray:
    """Root R of the covariance within the modes: lower triangular (d, d), or a diagonal (d,).

    A covariance that is singular to machine precision, as in a fit that runs off along a line, gets
    the smallest diagonal that makes it regular.
    """
    covariance = mixture.within_mode_covariance.astype(float)
    if covariance.ndim == 1:
        return np.sqrt(covariance)
    try:
        return scipy.linalg.cholesky(covariance, lower=True)
    except np.linalg.LinAlgError:
        ridge = np.diag(RIDGE * np.diag(covariance))
        return scipy.linalg.cholesky(covariance + ridge, lower=True)


def to_whitened(mixture: Any, points: np.ndarray) -> np.ndarray:
    """Map coordinates y (S, d) to u."""
    return metrics.whiten(whitening_root(mixture), points - mixture.mean)


def from_whitened(mixture: Any, at: np.ndarray) -> np.ndarray:
    """Map whitened coordinates u (S, d) to y."""
    return mixture.mean + metrics.unwhiten(whitening_root(mixture), at)
