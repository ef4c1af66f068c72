"""What the peers are measured on: posteriors with reference draws, as models and as functions."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pymc as pm
from measure import flatten, scaled_w1
from pymc.blocking import DictToArrayBijection

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
    def places(self):
        """(shape, slice) of each value variable in a flat unconstrained point."""
        point = self.model.initial_point(0)
        ends = np.cumsum([np.size(point[value.name]) for value in self.model.value_vars])
        return [
            (np.shape(point[value.name]), slice(end - np.size(point[value.name]), end))
            for value, end in zip(self.model.value_vars, ends, strict=True)
        ]

    @property
    def n_dim(self):
        return self.places[-1][1].stop

    @cached_property
    def initial(self):
        """The model's initial point, flat."""
        point = self.model.initial_point(0)
        return DictToArrayBijection.map({v.name: point[v.name] for v in self.model.value_vars}).data

    def _unflatten(self, x):
        return [x[place].reshape(shape) for shape, place in self.places]

    def log_density(self):
        """JAX function of a flat unconstrained point (d,)."""
        from pymc.sampling.jax import get_jaxified_graph

        graph = get_jaxified_graph(self.model.value_vars, [self.model.logp()])
        return lambda x: graph(*self._unflatten(x))[0]

    @cached_property
    def _to_model_space(self):
        import jax
        from pymc.sampling.jax import get_jaxified_graph

        variables = [self.model[name] for name in self.params]
        outputs = self.model.replace_rvs_by_values(variables)
        graph = get_jaxified_graph(self.model.value_vars, outputs)
        return jax.jit(jax.vmap(lambda x: graph(*self._unflatten(x))))

    def starts(self, seed, n):
        """(n, d) flat points, uniform within ``width`` of zero."""
        return np.random.default_rng(seed).uniform(-self.width, self.width, (n, self.n_dim))

    def distance(self, draws):
        """Scaled W1 per parameter; of flat unconstrained draws (S, d), or of {name: (S, ...)}."""
        if not isinstance(draws, dict):
            values = self._to_model_space(np.asarray(draws))
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
