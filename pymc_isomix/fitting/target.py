"""A compiled model as second-order steps see it: counted, in coordinates that learn."""

import numpy as np

from pymc_isomix.family import shape as shapes
from pymc_isomix.sites.chains import Chain
from pymc_isomix.sites.coordinates import PSEUDO, SHEAR, Coordinates

OF_OWN = 0.2, 8.0  # least and largest precision, relative to that of the draws
LEAST_EIGENVALUE = 1e-3  # of correlations given the others


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

    def decorrelate(self, points, gradients, centre, parameters):
        """Learn how what is of no site is correlated, from draws y (S, d) of a diagonal Gaussian.

        With precisions A by regression of the gradient on the draws, :math:`A^{-1} = T D T^T` with
        a unit lower triangular T, by which the shear is multiplied.

        Returns
        -------
        new : dict of arrays
        centre : (C, d) array
            The points ``centre``, at the same z, in the new coordinates.
        factor : (d,) array
            By which the units of y change: conditional ones become those given what is before.
        """
        places, factor = self.map.sheared, np.ones(points.shape[1])
        if not len(places) or self.map.of(parameters).has_shape:
            return parameters, centre, factor
        y = points[:, places]
        correlations, deviations = _given_others(y - y.mean(axis=0), gradients[:, places])
        root = np.linalg.cholesky(np.linalg.inv(correlations))
        unit = np.diagonal(root)
        change = deviations[:, None] * root / (unit * deviations)
        factor[places] = unit
        centre = centre.copy()
        centre[:, places] = np.linalg.solve(change, centre[:, places].T).T
        shear = (parameters[SHEAR] @ change).astype(points.dtype)
        return {**parameters, SHEAR: shear}, centre, factor

    def moved(self, points, old, new):
        """Map points y (S, d) of the old parameters to those of the same z under the new ones."""
        before, after = self.map.of(old), self.map.of(new)
        points = before.bend(points, old)[0] if before.has_shape else points.copy()
        if len(places := self.map.sheared):
            z = points[:, places] @ old[SHEAR].T
            points[:, places] = np.linalg.solve(new[SHEAR], z.T).T
        for form, place, of_site, given in self._sites(points, old):
            pairs = [[values[name][of_site] for name in PSEUDO] for values in (old, new)]
            points[:, place] = form.moved(points[:, place], given, *pairs)
        return shapes.straighten(points, after.shape(new)) if after.has_shape else points

    def _sites(self, points, parameters):
        """Yield form, place in y, place in the parameters, and what is given."""
        points = np.ascontiguousarray(points)
        flat = iter(self.map.evaluate("given", points, parameters))
        for site, of_site in zip(self.map.sites, self.map.places, strict=True):
            given = [next(flat) for _ in range(site.form.n_learned_from)]
            if site.form.is_elementwise:
                given = [np.broadcast_to(part, (len(points), site.form.n_dim)) for part in given]
            if given:
                yield site.form, self.map.place_of(site), of_site, given


def _given_others(offsets, gradients):
    """Precisions by regression of gradients on draws (S, n), as correlations and deviations.

    The matrix (n, n) has a unit diagonal; what noise may have made of an entry is left out of it.
    The deviations (n,) are those given all others.
    """
    n_draws, n = offsets.shape
    normal = offsets.T @ offsets
    normal[np.diag_indices(n)] *= 1 + 1e-8
    slopes = np.linalg.solve(normal, offsets.T @ gradients)
    left = gradients - gradients.mean(axis=0) - offsets @ slopes
    noise = (left**2).sum(axis=0) / max(n_draws - n - 1, 1)
    errors = np.diagonal(np.linalg.inv(normal))[:, None] * noise  # variances of slopes
    precisions, errors = -(slopes + slopes.T) / 2, (errors + errors.T) / 4
    variances = offsets.var(axis=0)
    own = np.clip(np.diagonal(precisions), *(bound / variances for bound in OF_OWN))
    across = np.sqrt(own[:, None] * own)
    squares, errors = (precisions / across) ** 2, errors / across**2
    correlations = precisions / across * squares / (squares + 4 * errors + 1e-12)
    np.fill_diagonal(correlations, 1.0)
    values, vectors = np.linalg.eigh(correlations)
    correlations = (vectors * np.maximum(values, LEAST_EIGENVALUE)) @ vectors.T
    return correlations, 1 / np.sqrt(own)
