"""A compiled model as second-order steps see it: counted, in coordinates that learn."""

import numpy as np

from pymc_isomix.family import shape as shapes
from pymc_isomix.sites.chains import Chain
from pymc_isomix.sites.coordinates import PSEUDO, Coordinates


class ModelTarget:
    """A model's log density in coordinates, whose evaluations are counted.

    Parameters
    ----------
    compiled : CompiledModel
        In the coordinates at the start.

    Attributes
    ----------
    n_gradients : int
        Points at which log density and gradient were evaluated so far.
    """

    def __init__(self, compiled):
        compiled.prepare()
        self.compiled, self.map = compiled, compiled.coordinates.map.straight
        self.n_gradients = 0

    @property
    def has_chains(self):
        """Whether effects are chains in time."""
        return any(isinstance(site.form, Chain) for site in self.map.sites)

    def evaluate(self, points, parameters):
        """Log density (S,) and gradient (S, d) at points y (S, d)."""
        self.n_gradients += len(points)
        compiled = self.compiled.at(Coordinates(self.map.of(parameters), parameters))
        return compiled.log_density_and_gradient(np.ascontiguousarray(points))

    def learn(self, points, gradients, centre, parameters, damping):
        """Learn the pseudo-observations by regression; see :class:`second_order.Target`."""
        new = {name: value.copy() for name, value in parameters.items()}
        factor, n, shape = np.ones(points.shape[1]), len(points), None
        both = np.concatenate([points, centre])
        if (of_map := self.map.of(parameters)).has_shape:  # the sites know x alone
            shape = of_map.shape(parameters)
            both, log_slope, slope_of_log_slope = of_map.bend(both, parameters)
            gradients = (gradients - slope_of_log_slope[:n]) / np.exp(log_slope[:n])
        points, centre = both[:n], both[n:].copy()
        for form, place, of_site, given in self._sites(both, parameters):
            at_draws, at_centre = [part[:n] for part in given], [part[n:] for part in given]
            old = [parameters[name][of_site] for name in PSEUDO]
            learned = form.learn(points[:, place], gradients[:, place], at_draws, old, damping)
            if not all(np.isfinite(part).all() for part in learned):
                continue
            for name, value in zip(PSEUDO, learned, strict=True):
                new[name][of_site] = value
            centre[:, place] = form.moved(centre[:, place], at_centre, old, learned)
            factor[place] = form.unit_change(at_draws, old, learned)
        return new, centre if shape is None else shapes.straighten(centre, shape), factor

    def moved(self, points, old, new):
        """Map points y (S, d) of the old parameters to those of the same z under the new ones."""
        before, after = self.map.of(old), self.map.of(new)
        points = before.bend(points, old)[0] if before.has_shape else points.copy()
        for form, place, of_site, given in self._sites(points, old):
            pairs = [[values[name][of_site] for name in PSEUDO] for values in (old, new)]
            points[:, place] = form.moved(points[:, place], given, *pairs)
        return shapes.straighten(points, after.shape(new)) if after.has_shape else points

    def _sites(self, points, parameters):
        """Yield form, place in y, place in the parameters, and what is given."""
        points = np.ascontiguousarray(points)
        flat = iter(self.map.evaluate("given", points, parameters))
        for site, of_site in zip(self.map.sites, self.map.places, strict=True):
            given = [next(flat) for _ in range(site.form.n_learned_from + len(site.slopes))]
            if site.form.is_elementwise:
                given = [np.broadcast_to(part, (len(points), site.form.n_dim)) for part in given]
            if given:
                yield site.form, self.map.place_of(site), of_site, given
