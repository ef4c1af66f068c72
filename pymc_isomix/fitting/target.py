"""The target of second-order steps: a compiled model with a counter, in coordinates that learn."""

from typing import Any

import numpy as np

from pymc_isomix.family import metric as metrics
from pymc_isomix.family.shear import Shear
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.sites.coordinates import PSEUDO, SHEAR

PRECISION_BOUNDS = 0.2, 8.0  # smallest and largest precision, relative to that of the draws
LEAST_EIGENVALUE = 1e-3  # of the matrix of partial correlations
FEW = 100  # draws, for the typical change of a unit


class Target:
    """The target of Gaussians: a log density in coordinates, whose parameters may learn.

    The coordinates of this class learn nothing.

    Attributes
    ----------
    has_chains : bool
        Whether effects are chains in time.
    """

    has_chains: Any = False

    def evaluate(self, points: np.ndarray, parameters: dict) -> tuple[np.ndarray, np.ndarray]:
        """Log density (S,) and gradient (S, d) at points y (S, d)."""
        raise NotImplementedError

    def learn(
        self,
        points: np.ndarray,
        gradients: np.ndarray,
        centre: np.ndarray,
        parameters: dict,
        damping: float,
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        """Learn the pseudo-observations of sites from draws y (S, d).

        Returns
        -------
        new : dict of arrays
        centre : (C, d) array
            The points ``centre``, at the same z, in the new coordinates.
        factor : (d,) array
            Typical factor by which the units of y shrink.
        """
        return parameters, centre, np.ones(points.shape[1])

    def decorrelate(
        self, points: np.ndarray, gradients: np.ndarray, centre: np.ndarray, parameters: dict
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        """Learn correlations of dimensions without a site; returns as :meth:`learn`."""
        return parameters, centre, np.ones(points.shape[1])

    def moved(self, points: np.ndarray, old: dict, new: dict) -> np.ndarray:
        """Map points y (S, d) to points of the same z under new parameters."""
        return points.copy()

    def shear(self, parameters: dict) -> Any:
        """Return the shear of coordinates with these parameters, or None."""
        return None

    def unsheared(
        self, mean: np.ndarray, root: np.ndarray, parameters: dict
    ) -> tuple[np.ndarray, np.ndarray, dict]:
        """Return mean (d,) and L (d, d) of a Gaussian without the shear, and its parameters."""
        return mean, root, parameters

    def sheared_by(
        self,
        places: np.ndarray,
        root: np.ndarray,
        centre: np.ndarray,
        parameters: dict,
        means: Any = 0.0,
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        """Shear what is of no site, so that a Gaussian of this root has no correlations.

        Parameters
        ----------
        places : (n,) integer array
            Of the Gaussian's dimensions. All others stay, and these too where they are not the
            ones that are sheared.
        root : (n, n) array
            Lower triangular.
        centre : (C, d) array
        parameters : dict of arrays
        means : (d, n) array, optional
            By which the means of the other dimensions follow these.

        Returns
        -------
        new : dict of arrays
        centre : (C, d) array
            The points at the same z in the new coordinates.
        scales : (n,) array
            Standard deviations of the Gaussian there.
        """
        return parameters, centre, metrics.deviations(root)


class ModelTarget(Target):
    """The log density of a model in coordinates, with a counter of evaluations.

    Parameters
    ----------
    compiled : CompiledModel
        In the coordinates at the start.

    Attributes
    ----------
    n_gradients : int
        Number of evaluated points.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        compiled.prepare()
        self.compiled, self.map = compiled, compiled.coordinates.map.without_shape
        self.n_gradients = 0
        self._latest: Any = None
        for site in self.map.sites:
            if compiled.is_on_jax:
                site.form.run_on_jax()

    @property
    def has_chains(self) -> bool:  # noqa: D102
        return self.map.has_chains

    @property
    def of_chains(self) -> np.ndarray:  # noqa: D102
        return self.map.of_chains

    def evaluate(self, points: np.ndarray, parameters: dict) -> tuple[np.ndarray, np.ndarray]:  # noqa: D102
        self.n_gradients += len(points)
        compiled = self.compiled.at(self.map.of(parameters))
        points = np.ascontiguousarray(points)
        log_density, gradient, given = compiled.evaluate_to_learn(points)
        self._latest = points, parameters, given
        return log_density, gradient

    def learn(
        self,
        points: np.ndarray,
        gradients: np.ndarray,
        centre: np.ndarray,
        parameters: dict,
        damping: float,
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        """Learn the pseudo-observations by regression."""
        new = {name: value.copy() for name, value in parameters.items()}
        factor, n, coordinates = np.ones(points.shape[1]), len(points), self.map.of(parameters)
        known = self._given_latest(points, parameters)
        # the sites see only x; a shear does not change the gradient there
        both, *slopes = coordinates.bend(np.concatenate([points, centre]))
        log_slope, slope_of_log_slope = (part[:n] for part in slopes)
        gradients = (gradients - slope_of_log_slope) / np.exp(log_slope)
        points, centre = both[:n], both[n:].copy()
        for form, place, of_site, given in self._sites(both, parameters, known):
            at_draws, at_centre = [part[:n] for part in given], [part[n:] for part in given]
            old = [parameters[name][of_site] for name in PSEUDO]
            learned = form.learn(points[:, place], gradients[:, place], at_draws, old, damping)
            if not all(np.isfinite(part).all() for part in learned):
                continue
            for name, value in zip(PSEUDO, learned, strict=True):
                new[name][of_site] = value
            centre[:, place] = form.moved(centre[:, place], at_centre, old, learned)
            some = [part[:FEW] for part in at_draws]
            factor[place] = form.unit_change(some, old, learned)
        return new, coordinates.straighten(centre), factor

    def decorrelate(
        self, points: np.ndarray, gradients: np.ndarray, centre: np.ndarray, parameters: dict
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        """Learn correlations of dimensions without a site, from draws y (S, d).

        The precisions A come from a regression of the gradient on the draws. The shear is
        multiplied by the unit lower triangular T of :math:`A^{-1} = T D T^T`. Units of y change
        from conditional ones to those given the dimensions before.
        """
        places, factor = self.map.sheared, np.ones(points.shape[1])
        if not len(places):
            return parameters, centre, factor
        offsets = points - points.mean(axis=0)
        correlations, deviations = _given_others(offsets[:, places], gradients[:, places])
        root = deviations[:, None] * np.linalg.cholesky(np.linalg.inv(correlations))
        # what the gradient of a site's element says beside itself
        variances = (offsets**2).mean(axis=0)
        values = gradients * variances + offsets
        means = _regression(offsets[:, places], values, self.of_chains)
        new, centre, scales = self.sheared_by(places, root, centre, parameters, means)
        factor[places] = scales / deviations
        return new, centre, factor

    def shear(self, parameters: dict) -> Any:  # noqa: D102
        shear = self.map.shear(parameters)
        return shear if shear and shear.matrix.any() else None

    def unsheared(self, mean: Any, root: Any, parameters: dict) -> Any:  # noqa: D102
        if (shear := self.shear(parameters)) is None:
            return mean, root, parameters
        root = metrics.of_rows(shear.apply(root.T))
        return shear.apply(mean), root, {**parameters, SHEAR: np.zeros_like(shear.matrix)}

    def sheared_by(  # noqa: D102
        self,
        places: np.ndarray,
        root: np.ndarray,
        centre: np.ndarray,
        parameters: dict,
        means: np.ndarray | float = 0.0,
    ) -> tuple[dict, np.ndarray, np.ndarray]:
        if not len(places) or not np.array_equal(places, self.map.sheared):
            return super().sheared_by(places, root, centre, parameters)
        scales = np.diagonal(root)
        change = np.zeros((centre.shape[1], len(places)))
        own = root / scales
        change += means @ own if np.ndim(means) else 0.0
        change[places] = own - np.eye(len(places))
        centre = Shear(places, change.astype(centre.dtype)).undo(centre)
        # one shear after the other
        shear = (change + parameters[SHEAR] @ own).astype(centre.dtype)
        return {**parameters, SHEAR: shear}, centre, scales

    def moved(self, points: np.ndarray, old: dict, new: dict) -> np.ndarray:  # noqa: D102
        if not len(points):
            return points
        bent = self.map.of(old).bend(points)[0]
        points = bent.copy()
        for form, place, of_site, given in self._sites(bent, old):
            pairs = [[values[name][of_site] for name in PSEUDO] for values in (old, new)]
            points[:, place] = form.moved(points[:, place], given, *pairs)
        return self.map.of(new).straighten(points)

    def _given_latest(self, points, parameters):
        """Return the given values at points (S, d) of the latest evaluation, or None.

        They cost nothing there. Alone, they would take NumPy longer than the gradient takes JAX.
        """
        if self._latest is None or self._latest[2] is None or self._latest[1] is not parameters:
            return None
        evaluated, _, given = self._latest
        row_of = {row.tobytes(): i for i, row in enumerate(evaluated)}
        rows = [row_of.get(row.tobytes()) for row in np.ascontiguousarray(points)]
        return None if None in rows else [part[rows] for part in given]

    def _sites(self, points, parameters, known=None):
        """Yield form, place in y, place in the parameters, and the given values.

        ``known`` are given values at the first of the points, where they are known.
        """
        n_known = len(known[0]) if known else 0
        points, known = np.ascontiguousarray(points), iter(known or ())
        flat = iter(self.map.straight.evaluate("given", points[n_known:], parameters))
        n_left = len(points) - n_known
        for site, of_site in zip(self.map.sites, self.map.places, strict=True):
            given = [next(flat) for _ in range(site.form.n_learned_from + len(site.slopes))]
            if site.form.is_elementwise:
                given = [np.broadcast_to(part, (n_left, site.form.n_dim)) for part in given]
            if n_known:
                given = [np.concatenate([next(known), part]) for part in given]
            if given:
                yield site.form, self.map.place_of(site), of_site, given


def _least_squares(offsets, values):
    """Regress values (S, d) on draws (S, n): slopes (n, d), and their variances (n, d)."""
    n_draws, n = offsets.shape
    normal = offsets.T @ offsets
    normal[np.diag_indices(n)] *= 1 + 1e-8
    slopes = np.linalg.solve(normal, offsets.T @ values)
    left = values - values.mean(axis=0) - offsets @ slopes
    noise = (left**2).sum(axis=0) / max(n_draws - n - 1, 1)
    return slopes, np.diagonal(np.linalg.inv(normal))[:, None] * noise


def _given_others(offsets, gradients):
    """Regress gradients on draws (S, n): partial correlations and deviations.

    The matrix (n, n) has a unit diagonal, and its entries are shrunk by their noise. The deviations
    (n,) are conditional on all others.
    """
    slopes, errors = _least_squares(offsets, gradients)
    precisions, errors = -(slopes + slopes.T) / 2, (errors + errors.T) / 4
    variances = offsets.var(axis=0)
    own = np.clip(np.diagonal(precisions), *(bound / variances for bound in PRECISION_BOUNDS))
    across = np.sqrt(own[:, None] * own)
    squares, errors = (precisions / across) ** 2, errors / across**2
    correlations = precisions / across * squares / (squares + 4 * errors + 1e-12)
    np.fill_diagonal(correlations, 1.0)
    values, vectors = np.linalg.eigh(correlations)
    correlations = (vectors * np.maximum(values, LEAST_EIGENVALUE)) @ vectors.T
    return correlations, 1 / np.sqrt(own)


def _regression(offsets, values, rows):
    """Regress values (S, d) on offsets (S, n): slopes (d, n), nothing but in some rows.

    Each column is shrunk by what noise has made of it as a whole: thousands of small slopes may
    count together, where each alone is hardly beyond its error.
    """
    slopes, errors = _least_squares(offsets, values)
    total = (slopes[:, rows] ** 2).sum(axis=1) + 1e-300
    signal = np.clip(1 - errors[:, rows].sum(axis=1) / total, 0, 1)
    return (slopes * signal[:, None] * rows).T
