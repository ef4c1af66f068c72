"""Posteriors with several modes by nature, and the true masses of the modes.

A sinusoid of unknown frequency, whose marginal posterior over frequencies is known exactly, and the
localisation of four sensors from noisy distances, whose truth is a long tempered run, done twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.neighbors import KNeighborsClassifier

NOTABLE = 0.1  # mass of a mode that has to be found
FOUND = 0.25  # share of its mass at which a mode counts as found
LARGEST_FREQUENCY = 5.0
NOISE = 0.7  # of the sinusoid
ANCHORS = np.array([[0.1, 0.1], [0.9, 0.2], [0.4, 0.9]])
RADIUS, DISTANCE_NOISE = 0.4, 0.03
GAP = 0.25  # between modes of the sensors' places, by single linkage


@dataclass
class Multimodal:
    """A model, the masses of its modes, and which mode a point belongs to."""

    name: str
    model: pm.Model
    masses: np.ndarray  # (M,)
    mode_of: Callable  # {name: (S, ...)} -> (S,) integers
    box: float  # half width in unconstrained space
    notes: dict = field(default_factory=dict)
    exact: Callable | None = None  # (n, rng) -> (n, d) draws, unconstrained

    def shares(self, draws):
        """Share of the draws at each mode, (M,)."""
        modes = self.mode_of(draws)
        return np.bincount(modes, minlength=len(self.masses))[: len(self.masses)] / len(modes)

    def judge(self, draws):
        """Whether every notable mode is found, and the largest error of their masses."""
        shares, notable = self.shares(draws), self.masses >= NOTABLE
        found = (shares[notable] >= FOUND * self.masses[notable]).all()
        return bool(found), float(np.abs(shares - self.masses)[notable].max()), shares[notable]


def sinusoid(seed=4):
    """Fit a sin + b cos of unknown frequency to twelve noisy observations."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 4, 12))
    y = np.sin(2 * np.pi * 1.7 * t + 1) + NOISE * rng.normal(size=12)
    with pm.Model() as model:
        frequency = pm.Uniform("frequency", 0, LARGEST_FREQUENCY)
        amplitude = pm.Normal("amplitude", 0, 1, shape=2)
        angle = 2 * np.pi * frequency * t
        mu = amplitude[0] * pt.sin(angle) + amplitude[1] * pt.cos(angle)
        pm.Normal("y", mu, NOISE, observed=y)

    grid = (np.arange(20_000) + 0.5) / 20_000 * LARGEST_FREQUENCY
    angle = 2 * np.pi * grid[:, None] * t
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (grid, rows, 2)
    covariance = NOISE**2 * np.eye(12) + basis @ basis.transpose(0, 2, 1)
    fit = np.einsum("i,gi->g", y, np.linalg.solve(covariance, y[None, :, None])[..., 0])
    density = np.exp(-0.5 * (fit - fit.min() + np.linalg.slogdet(covariance)[1]))
    density /= density.sum()
    inner = (density[1:-1] < density[:-2]) & (density[1:-1] <= density[2:])
    edges = grid[1:-1][inner]
    masses = np.add.reduceat(density, np.r_[0, np.flatnonzero(inner) + 1])

    def mode_of(draws):
        return np.searchsorted(edges, draws["frequency"])

    def exact(n, rng):
        chosen = rng.choice(len(grid), size=n, p=density)
        precision = np.eye(2) + basis[chosen].swapaxes(1, 2) @ basis[chosen] / NOISE**2
        mean = np.linalg.solve(precision, basis[chosen].swapaxes(1, 2) @ y[:, None] / NOISE**2)
        factor = np.linalg.cholesky(np.linalg.inv(precision))
        both = (mean + factor @ rng.normal(size=(n, 2, 1)))[..., 0]
        return np.column_stack([np.log(grid[chosen] / (LARGEST_FREQUENCY - grid[chosen])), both])

    return Multimodal(f"sinusoid {seed}", model, masses, mode_of, box=4.0, exact=exact)


class Network:
    """Four sensors and three anchors: who sees whom, and at what distance."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        places = np.r_[rng.uniform(0, 1, (4, 2)), ANCHORS]
        pairs = [(i, j) for i in range(4) for j in range(i + 1, 7)]
        self.first, self.second = np.array(pairs).T
        distance = np.linalg.norm(places[self.first] - places[self.second], axis=1)
        self.seen = rng.uniform(size=len(pairs)) < np.exp(-(distance**2) / (2 * RADIUS**2))
        self.distance = distance + DISTANCE_NOISE * rng.normal(size=len(pairs))

    def log_likelihood(self, x, library):
        """Of sensor places x (4, 2): seen pairs by distance, the others by not being seen."""
        every = library.concatenate([x, ANCHORS], axis=0)
        square = ((every[self.first] - every[self.second]) ** 2).sum(-1) + 1e-12
        offset = (library.sqrt(square) - self.distance) / DISTANCE_NOISE
        seen = -0.5 * offset**2 - square / (2 * RADIUS**2)
        unseen = library.log1p(-library.exp(-square / (2 * RADIUS**2)))
        return library.where(self.seen, seen, unseen).sum()

    def tempered_draws(self, seed, n=6000, moves=60):
        """Draws (n, 4, 2) by adaptive tempering from the prior N(0.5, 0.5), one sensor a move."""
        level_of = jax.vmap(lambda x: self.log_likelihood(x, jnp))

        @jax.jit
        def move(key, x, temperature, n_moves):
            def once(_, state):
                x, level, key = state
                key, *keys = jax.random.split(key, 5)
                mask = jnp.arange(4)[:, None] == jax.random.randint(keys[0], (n, 1, 1), 0, 4)
                size = 0.3 * 10 ** jax.random.uniform(keys[1], (n, 1, 1), minval=-1.7, maxval=0.5)
                proposal = x + mask * size * jax.random.normal(keys[2], x.shape)
                new = level_of(proposal)
                prior = 2 * ((x - 0.5) ** 2 - (proposal - 0.5) ** 2).sum((1, 2))
                log_ratio = temperature * (new - level) + prior
                accept = jnp.log(jax.random.uniform(keys[3], (n,))) < log_ratio
                x = jnp.where(accept[:, None, None], proposal, x)
                return x, jnp.where(accept, new, level), key

            return jax.lax.fori_loop(0, n_moves, once, (x, level_of(x), key))[:2]

        rng = np.random.default_rng(seed)
        x, temperature = rng.normal(0.5, 0.5, (n, 4, 2)), 0.0
        level = np.asarray(level_of(x))
        while temperature < 1:
            raised = next_temperature(level, temperature)
            weights = np.exp((raised - temperature) * (level - level.max()))
            positions = (np.arange(n) + rng.uniform()) / n
            keep = np.searchsorted(np.cumsum(weights) / weights.sum(), positions).clip(0, n - 1)
            temperature, key = raised, jax.random.key(rng.integers(2**30))
            n_moves = moves if temperature < 1 else 5 * moves
            x, level = map(np.asarray, move(key, x[keep], temperature, n_moves))
        return x


def next_temperature(level, temperature):
    """The temperature that keeps half of the effective sample size, by bisection."""
    low, high = temperature, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        weights = np.exp((middle - temperature) * (level - level.max()))
        enough = weights.sum() ** 2 / (weights**2).sum() > 0.5 * len(level)
        low, high = (middle, high) if enough else (low, middle)
    return 1.0 if high > 0.999 else low


def sensors(seed=0):
    """Localise four sensors; modes are groups of the tempered draws that no gap parts."""
    network = Network(seed)
    with pm.Model() as model:
        x = pm.Normal("x", 0.5, 0.5, shape=(4, 2))
        pm.Potential("distances", network.log_likelihood(x, pt))
    runs = [network.tempered_draws(again).reshape(-1, 8) for again in (1, 2)]
    sample = np.concatenate([run[:3000] for run in runs])
    group = fcluster(linkage(sample, "single"), GAP, "distance") - 1
    by_size = np.argsort(np.argsort(-np.bincount(group)))
    classifier = KNeighborsClassifier(1).fit(sample, by_size[group])

    def mode_of(draws):
        return classifier.predict(np.asarray(draws["x"]).reshape(-1, 8))

    n_modes = len(by_size)
    masses = [np.bincount(mode_of({"x": run}), minlength=n_modes) / len(run) for run in runs]
    notes = {"runs_differ_by": float(np.abs(masses[0] - masses[1]).max())}
    return Multimodal(f"sensors {seed}", model, sum(masses) / 2, mode_of, box=1.5, notes=notes)


PROBLEMS = {
    "sinusoid 4": lambda: sinusoid(4),
    "sinusoid 9": lambda: sinusoid(9),
    "sensors 0": lambda: sensors(0),
    "sensors 1": lambda: sensors(1),
}
