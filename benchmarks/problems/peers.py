"""What the peers are measured on: posteriors with reference draws, as models and as functions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pymc as pm
from measure import flatten, scaled_w1

from problems.flat import FlatModel
from problems.models import planted_modes, two_labels
from problems.posteriors import BUILDERS, PARAMS, load_draws, load_model

WIDTH = 2.0  # half width of the starts around zero, as Stan and NumPyro have it
N_REFERENCE = 10_000


@dataclass
class Problem:
    """A posterior, exact draws of it, and how far from zero starts have to lie to cover it."""

    name: str
    model: pm.Model
    params: tuple[str, ...]
    reference: np.ndarray  # (N, d), model space
    width: float = WIDTH
    covering: bool = False  # several modes, so that starts must cover the box

    @cached_property
    def flat(self):
        """The model as functions of flat points."""
        return FlatModel(self.model)

    def starts(self, seed, n):
        """(n, d) flat points, uniform within ``width`` of zero."""
        return np.random.default_rng(seed).uniform(-self.width, self.width, (n, self.flat.n_dim))

    def distance(self, draws):
        """Scaled W1 per parameter; of flat unconstrained draws (S, d), or of {name: (S, ...)}."""
        if not isinstance(draws, dict):
            import jax

            values = jax.vmap(self.flat.constrained(self.params))(np.asarray(draws))
            draws = dict(zip(self.params, map(np.asarray, values), strict=True))
        _, columns = flatten(draws, self.params)
        if not np.isfinite(columns).all():
            return np.full(columns.shape[1], np.inf)
        return scaled_w1(columns, self.reference)


def from_grid(log_density, edges, seed):
    """Exact draws of a 2-dimensional density, by a fine grid."""
    axis = np.linspace(*edges, 1500)
    joint = log_density(axis[:, None], axis[None, :])
    weights = np.exp(joint - joint.max()).ravel()
    rng = np.random.default_rng(seed)
    index = rng.choice(weights.size, size=N_REFERENCE, p=weights / weights.sum())
    jitter = rng.uniform(-0.5, 0.5, (N_REFERENCE, 2)) * (axis[1] - axis[0])
    return axis[np.column_stack(np.unravel_index(index, (1500, 1500)))] + jitter


def planted():
    """Four Gaussian modes in ten dimensions, on axes of one scale: one width covers them."""
    modes = planted_modes(10, 4).standardised()
    draws = modes.draws(N_REFERENCE)
    return Problem("planted", modes.model(), ("x",), draws, float(modes.box.max()), True)


def labels():
    """Two components whose labels can switch."""
    model = two_labels()
    rng = np.random.default_rng(8)
    y = np.r_[rng.normal(-2, 1, size=40), rng.normal(2, 1, size=40)]

    def log_density(first, second):
        total = -0.5 * (first**2 + second**2) / 25
        for value in y:
            total = total + np.logaddexp(-0.5 * (value - first) ** 2, -0.5 * (value - second) ** 2)
        return total

    return Problem("two labels", model, ("mu",), from_grid(log_density, (-6, 6), 0), 10.0, True)


def squares():
    """Two parameters seen through their squares: four modes of mass .07 to .53."""
    rng = np.random.default_rng(9)
    y = 1 + 0.5 * rng.normal(size=(20, 2))
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.5, 1, shape=2)
        pm.Normal("y", theta**2, 0.5, observed=y)

    def log_density(first, second):
        total = 0.0
        for j, theta in enumerate((first, second)):
            total = total - 0.5 * (theta - 0.5) ** 2
            total = total - 2 * ((y[:, j].mean() - theta**2) ** 2) * len(y)
        return total

    draws = from_grid(log_density, (-2.5, 2.5), 0)
    return Problem("two squares", model, ("theta",), draws, 3.0, True)


MULTIMODAL = {"planted": planted, "two labels": labels, "two squares": squares}
NAMES = (*BUILDERS, *MULTIMODAL)


def load(name, database):
    """Build the problem of that name."""
    if name in MULTIMODAL:
        return MULTIMODAL[name]()
    _, reference = flatten(load_draws(database, name), PARAMS[name])
    return Problem(name, load_model(database, name), PARAMS[name], reference)
