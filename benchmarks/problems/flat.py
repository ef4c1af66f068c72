"""A model as JAX functions of flat unconstrained points, its variables in the model's order."""

from functools import cached_property

import numpy as np


class FlatModel:
    """Functions of points (d,)."""

    def __init__(self, model):
        self.model = model

    @cached_property
    def _first(self):
        point = self.model.initial_point(0)
        return [np.asarray(point[value.name], dtype=float) for value in self.model.value_vars]

    @property
    def initial(self):
        """The model's initial point."""
        return np.concatenate([np.ravel(value) for value in self._first])

    @property
    def n_dim(self):
        return len(self.initial)

    def _function(self, outputs):
        from pymc.sampling.jax import get_jaxified_graph

        graph = get_jaxified_graph(self.model.value_vars, outputs)
        ends = np.cumsum([value.size for value in self._first])[:-1]
        shapes = [value.shape for value in self._first]

        def function(point):
            import jax.numpy as jnp

            parts = jnp.split(point, ends)
            return graph(*(p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)))

        return function

    def log_density(self):
        """Log joint density, a function of a point."""
        function = self._function([self.model.logp()])
        return lambda point: function(point)[0]

    def constrained(self, names):
        """Values of variables, in model space, a function of a point."""
        return self._function(self.model.replace_rvs_by_values([self.model[n] for n in names]))
