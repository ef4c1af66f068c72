"""Coordinates y of a model's unconstrained space z.

:class:`CoordinateMap` is the map between y and z of a model, with symbolic parameters.
:class:`Coordinates` is that map at given parameters.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import CHEAP, compiling, one_at_a_time
from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.family.shear import Shear
from pymc_isomix.model.batching import stabilise
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.model.vectorising import batch, batch_in_chunks
from pymc_isomix.sites.forms import Form

PSEUDO = ("log_precisions", "values")  # parameters of all sites, flat
SHEAR = "shear"  # the parameter of dimensions without a site
LARGEST_SHEAR = 200  # dimensions without a site, beside chains
SHAPE = {field: f"shape_{field}" for field in Shape._fields}  # their names as parameters


@dataclass(frozen=True, eq=False)
class Site:
    """A value variable whose effect has a location and scale that depend on other variables.

    Parameters
    ----------
    name : str
        Of the value variable.
    form : Form
        The map between y and z.
    given : tuple of TensorVariable
        Location, scale and so on, as expressions of the model's other value variables.
    parents : frozenset of str
        Names of these value variables.
    part : slice, optional
        The part of a vector that belongs to the site; the rest may be among the parents.
    others : tuple of str
        Names of further value variables that belong to the site completely.
    woven : (n,) integer array, optional
        Places of the elements of the site among the concatenated elements of these variables.
    slopes : tuple of TensorVariable
        What else the form learns from, as expressions of all value variables.
    """

    name: str
    form: Form
    given: tuple
    parents: frozenset
    part: slice | None = None
    others: tuple = ()
    woven: Any = None
    slopes: tuple = ()

    @property
    def variables(self) -> tuple:
        """Names of the value variables of the site."""
        return (self.name, *self.others)


class CoordinateMap:
    """The map between coordinates y and unconstrained space z, both (d,), for any parameters.

    A shear and a shape bend y to x, and the sites map x to z. The map is false if it has none of
    them, because y is then z. Next to chains, which may have thousands of steps, the few dimensions
    without a site are *sheared*: a constant lower triangular matrix with a unit diagonal holds
    their correlations, so that a diagonal metric is enough. The shape comes after the shear. If a
    coordinate has a heavy tail, its correlations are those of a Gaussian, and bend with it.

    Parameters
    ----------
    space : FlatSpace
        The space of the model.
    sites : list of Site
        Parents come first.
    data : dict of shared variable to array, optional
        Data that the sites hold as constants.
    has_shape : bool
        Whether the map has a shape.
    sheared : (n,) integer array, optional
        Places of the sheared dimensions, which the sites decide.
    related : dict, optional
        Maps of the same sites, by whether they have a shape and a shear.
    """

    def __init__(
        self,
        space: FlatSpace,
        sites: Sequence = (),
        data: dict | None = None,
        *,
        has_shape: bool = False,
        sheared: Any = None,
        related: Any = None,
    ) -> None:
        self.space, self.sites, self.data = space, list(sites), data or {}
        starts = np.cumsum([0, *(site.form.n_pseudo for site in self.sites)]).tolist()
        self.places = [slice(*pair) for pair in pairwise(starts)]
        self.n_pseudo = starts[-1]

        self.functions: dict = {}
        self.has_shape = has_shape
        self.sheared = self._what_is_sheared() if sheared is None else sheared
        self._related: dict = {} if related is None else related
        self._related[has_shape, bool(len(self.sheared))] = self

    @property
    def has_chains(self) -> bool:
        """Whether a site is a chain in time."""
        return any(site.form.is_chain for site in self.sites)

    @property
    def of_chains(self) -> np.ndarray:
        """Which dimensions of y are elements of chains, (d,) booleans."""
        found = np.zeros(self.space.n_dim, bool)
        for site in self.sites:
            found[self.place_of(site)] = site.form.is_chain
        return found

    def _what_is_sheared(self):
        """Places of the sheared dimensions in a point; empty without chains."""
        if self.elements is None or not self.has_chains:
            return np.arange(0)
        of_none = np.flatnonzero(~self.elements)
        return of_none[: len(of_none) if 2 <= len(of_none) <= LARGEST_SHEAR else 0]

    def _related_map(self, has_shape, sheared):
        key = has_shape, bool(len(sheared))
        if key not in self._related:
            options = {"has_shape": has_shape, "sheared": sheared, "related": self._related}
            CoordinateMap(self.space, self.sites, self.data, **options)  # adds itself
        return self._related[key]

    def with_shape(self) -> "CoordinateMap":
        """Return the map whose coordinates have a shape, with the same sites."""
        return self._related_map(True, self.sheared)

    @property
    def without_shape(self) -> Any:
        """The map whose coordinates have no shape."""
        return self._related_map(False, self.sheared)

    @property
    def straight(self) -> Any:
        """The map of the sites alone, from x to z. Only this one is compiled for arrays."""
        return self._related_map(False, np.arange(0))

    @property
    def is_bent(self) -> Any:
        """Whether x is not y."""
        return self.has_shape or bool(len(self.sheared))

    def shear(self, parameters: dict) -> Values:
        """Return the shear among the parameters, or None."""
        return Shear(self.sheared, parameters[SHEAR]) if len(self.sheared) else None

    def bend(self, points: np.ndarray, parameters: dict) -> Any:
        """Map y (..., d) to x, arrays or symbols, as :func:`pymc_isomix.family.shape.bend` does."""
        if shear := self.shear(parameters):
            points = shear.apply(points)
        if not self.has_shape:
            return points, 0.0 * points, 0.0 * points
        with np.errstate(all="ignore"):  # far out
            return shapes.bend(points, self.shape(parameters))

    def straighten(self, bent: Any, parameters: dict) -> Any:
        """Map x (..., d) to y, the inverse of :meth:`bend`."""
        if self.has_shape:
            with np.errstate(all="ignore"):
                bent = shapes.straighten(bent, self.shape(parameters))
        shear = self.shear(parameters)
        return shear.undo(bent) if shear else bent

    def pull_back(
        self, log_density: Any, gradient: np.ndarray, slopes: Any, parameters: dict
    ) -> Any:
        """Turn log density (S,) and gradient (S, d) in x into those in y.

        Parameters
        ----------
        slopes : pair of (S, d) array or TensorVariable
            Log slope, and its slope, from :meth:`bend`.
        """
        if self.has_shape:
            with np.errstate(all="ignore"):
                log_density, gradient = shapes.log_density_and_gradient(
                    log_density, gradient, *slopes
                )
        shear = self.shear(parameters)
        return log_density, shear.pull_back(gradient) if shear else gradient

    def of(self, parameters: dict) -> "Coordinates":
        """Return the coordinates of these parameters, by name: with or without a shape."""
        has_shape = set(SHAPE.values()) <= set(parameters)
        return Coordinates(self.with_shape() if has_shape else self.without_shape, parameters)

    @property
    def n_elements(self) -> int:
        """Number of elements of the sites whose map takes linear time."""
        return sum(site.form.n_pseudo for site in self.sites if not site.form.is_dense)

    @property
    def elements(self) -> np.ndarray | None:
        """Dimensions of y that belong to sites, (d,) booleans; None if all do."""
        of_sites = np.zeros(self.space.n_dim, bool)
        for site in self.sites:
            of_sites[self.place_of(site)] = True
        return None if of_sites.all() else of_sites

    @property
    def parameter_shapes(self) -> dict:
        """Shapes of the parameters, by name; empty for the identity."""
        shapes: dict[str, tuple] = dict.fromkeys(PSEUDO, (self.n_pseudo,)) if self.sites else {}
        if len(self.sheared):
            shapes[SHEAR] = self.space.n_dim, len(self.sheared)
        return shapes | (
            dict.fromkeys(SHAPE.values(), (self.space.n_dim,)) if self.has_shape else {}
        )

    @property
    def key(self) -> Any:
        """The identity of a map, for comparisons: the map without its shape."""
        if self.has_shape:
            return "shape", self.without_shape.key
        return self if self else None

    def shape(self, parameters: dict) -> Shape:
        """Return the shape among the parameters."""
        return Shape(*(parameters[name] for name in SHAPE.values()))

    def describe(self) -> dict:
        """Describe the structure for JSON; equal for maps with the same parameters."""
        shape = {"has_shape": True} if self.has_shape else {}
        shear = {"n_sheared": len(self.sheared)} if len(self.sheared) else {}
        return {"sites": self.names, "n_pseudo": self.n_pseudo, **shear, **shape}

    def __getstate__(self):
        """Leave out the compiled functions: they are made again when asked for."""
        return {**self.__dict__, "functions": {}}

    def __bool__(self):
        return bool(self.sites) or self.has_shape

    def variables(self, dtype: str) -> dict:
        """Symbolic variables of the parameters, by name."""
        return {
            name: pt.tensor(name, shape=shape, dtype=dtype)
            for name, shape in self.parameter_shapes.items()
        }

    def forward(self, point: Values, parameters: dict) -> tuple[dict, Values, Any]:
        """Map a symbolic point y (d,), and return what is given at each site.

        Parameters
        ----------
        parameters : dict of TensorVariable
            By the names of :attr:`parameter_shapes`.

        Returns
        -------
        values : dict of str to TensorVariable
            z by the name of the value variable.
        log_determinant : scalar TensorVariable
        given : list of tuples of TensorVariable
        """
        if self.is_bent:
            bent, log_slope, _ = self.bend(point, parameters)
            values, log_determinant, given = self.straight.forward(bent, parameters)
            return values, log_determinant + log_slope.sum(), given
        values, given = self.space.unflatten(point), []
        log_determinant = pt.zeros((), point.dtype)
        for site, place in zip(self.sites, self.places, strict=True):
            here = self._given(values, point.dtype, [site])[0]
            z, log_scale, here = site.form.forward(
                _taken(values, site), here, *self._own(parameters, place)
            )
            values |= _put(values, site, z)
            log_determinant += log_scale
            given.append(here)
        return values, log_determinant, given

    def backward(self, point: Values, parameters: dict) -> tuple[dict, Values, list[tuple]]:
        """Map a symbolic unconstrained point z (d,) to y (d,), with log |dy/dz| and what is given.

        All that is given depends on z alone, so the order of the sites does not matter.
        """
        if self.is_bent:
            values, log_determinant, given = self.straight.backward(point, parameters)
            points = self.straighten(self.space.flatten(values), parameters)
            log_determinant -= self.bend(points, parameters)[1].sum()
            return self.space.unflatten(points), log_determinant, given
        values = self.space.unflatten(point)
        given, points, log_determinant = self._given(values, point.dtype), dict(values), 0.0
        for site, place, here in zip(self.sites, self.places, given, strict=True):
            own = self._own(parameters, place)
            y = site.form.to_coordinates(_taken(values, site), here, *own)
            points |= _put(values, site, y)
            log_determinant -= site.form.to_unconstrained(y, here, *own)[1]
        return points, log_determinant, given

    def batched(
        self,
        points: Values,
        parameters: dict,
        *,
        backward: bool = False,
        on_jax: bool = False,
        learning: bool = False,
    ) -> tuple[Values, Values, list[tuple]]:
        """Map symbolic points (S, d), y to z or backward, with log determinant and what is given.

        Parameters
        ----------
        learning : bool
            Whether what is given is what the forms learn from.

        Returns
        -------
        points : (S, d) TensorVariable
        log_determinant : (S,) TensorVariable
        given : list of tuples of (S, ...) TensorVariable
        """
        point, variables, outputs, given = self._at_point(points.dtype, backward, learning)
        replacements = {variable: parameters[name] for name, variable in variables.items()}
        outputs = graph_replace(outputs, replacements, strict=False)
        many = batch_in_chunks if on_jax else batch
        flat, log_determinant, *rest = many(outputs, point, points)
        return flat, log_determinant, self.by_site(rest, given)

    def _at_point(self, dtype, backward, learning):
        """Return the map of one point: (y or z, parameters, image, what is given)."""
        if (key := ("point", dtype, backward, learning)) not in self.functions:
            point = pt.vector("point", shape=(self.space.n_dim,), dtype=dtype)
            variables = self.variables(dtype)
            through = self.backward if backward else self.forward
            values, log_determinant, given = through(point, variables)
            if learning:
                given = self.learned_from(given, values, dtype)
            outputs = [
                self.space.flatten(values),
                log_determinant,
                *(part for here in given for part in here),
            ]
            self.functions[key] = point, variables, stabilise(outputs), given
        return self.functions[key]

    def function(self, what: str, dtype: str) -> Callable:
        """Return a compiled function of points (S, d) and the parameters.

        Parameters
        ----------
        what : {"unconstrained", "coordinates", "given", "share"}
            z and log |dz/dy| at y; y, log |dy/dz| and what is given, flat, at z; what regressions
            need of that, flat, at y; or the mean over points y of the share of each
            pseudo-observation, (P,).
        """
        if (what, dtype) not in self.functions:
            points = pt.matrix("points", shape=(None, self.space.n_dim), dtype=dtype)
            variables = self.variables(dtype)
            *outputs, given = self.batched(
                points, variables, backward=what == "coordinates", learning=what == "given"
            )
            if what == "coordinates":
                outputs += [part for here in given for part in here]
            if what == "given":
                outputs = [part for here in given for part in here]
            if what == "share":
                shares = [
                    form.share(here, *own).mean(axis=0)
                    for (form, _, own), here in zip(self.at(variables), given, strict=True)
                ]
                outputs = [pt.concatenate(shares)]
            inputs = [points, *variables.values()]
            with compiling(cxx=""):
                self.functions[what, dtype] = one_at_a_time(
                    pytensor.function(inputs, outputs, mode=CHEAP, on_unused_input="ignore")
                )
        return self.functions[what, dtype]

    def evaluate(self, what: str, points: np.ndarray, parameters: dict) -> list[np.ndarray]:
        """Evaluate :meth:`function` at points (S, d), with parameters as arrays by name."""
        numbers = [parameters[name] for name in self.parameter_shapes]
        with np.errstate(all="ignore"):
            return self.function(what, points.dtype.name)(points, *numbers)

    @property
    def names(self) -> list:
        """Names of the sites' value variables, in order."""
        return [name for site in self.sites for name in site.variables]

    @property
    def labels(self) -> np.ndarray:
        """Labels of the pseudo-observations, (P,) strings: element, or site and row."""
        labels = []
        for site in self.sites:
            own = list(self.space.labels[self.place_of(site)])
            if (kind := site.form.pseudo_names) is not None:
                own = [f"{site.name}, {kind} {i}" for i in range(site.form.n_pseudo)]
            labels += own
        return np.array(labels)

    def learned_from(self, given: list[tuple], values: Any, dtype: str) -> list[Values]:
        """Return what the regressions of each site need, tuples, from z by value variable."""
        return [
            (*here[: site.form.n_learned_from], *self._at_values(site.slopes, values, dtype))
            for site, here in zip(self.sites, given, strict=True)
        ]

    def by_site(self, flat: list, given: list[tuple] | None = None) -> list[tuple]:
        """Group a flat list of what is given by site, as ``given`` is, or the sites' own."""
        parts = iter(flat)
        given = [site.given for site in self.sites] if given is None else given
        return [tuple(next(parts) for _ in here) for here in given]

    def at(self, parameters: dict) -> Iterator:
        """Yield each site's form, its place in a point, and its own (log c, m)."""
        for site, place in zip(self.sites, self.places, strict=True):
            yield site.form, self.place_of(site), self._own(parameters, place)

    def place_of(self, site: Site) -> Any:
        """Return the places of a site in a point, a slice or integers."""
        if site.woven is not None:
            places = [self.space.ordering[name][1] for name in site.variables]
            return np.concatenate([np.arange(p.start, p.stop) for p in places])[site.woven]
        whole = self.space.ordering[site.name][1]
        if site.part is None:
            return whole
        return slice(*(whole.start + i for i in site.part.indices(whole.stop - whole.start)[:2]))

    def _own(self, parameters, place):
        return [parameters[name][place] for name in PSEUDO]

    def _given(self, values, dtype, sites=None):
        """Evaluate what is given at sites, from z by the name of the value variable."""
        sites = self.sites if sites is None else sites
        return [self._at_values(site.given, values, dtype, site.parents) for site in sites]

    def _at_values(self, expressions, values, dtype, names=None):
        """Evaluate expressions of value variables, those of some names, or of all."""
        if not expressions:
            return ()
        variables = {v.name: v for v in self.space.model.value_vars}
        names = values if names is None else names
        replacements = {variables[n]: values[n].astype(variables[n].dtype) for n in names}
        found = graph_replace(list(expressions), replacements, strict=False)
        return tuple(pt.as_tensor(part).astype(dtype) for part in found)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates y of unconstrained space z: a map at given parameters.

    False if y is z. Parameters have names, so files, averages of iterates and joined fits need not
    know their meaning.

    Parameters
    ----------
    map : CoordinateMap
        The structure.
    parameters : dict of array
        By the names of ``map.parameter_shapes``; empty if y is z.

    Raises
    ------
    ValueError
        If names or shapes differ from those of the map.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     tau = pm.HalfNormal("tau")
    ...     theta = pm.Normal("theta", 0, tau, shape=3)
    ...     coordinates = pmi.IsoMix(2, random_seed=1).approx.coordinates
    >>> coordinates.names, sorted(coordinates.parameters)
    (['theta'], ['log_precisions', 'values'])
    >>> z, log_determinant = coordinates.to_unconstrained(np.zeros((5, 4)))
    >>> z.shape, log_determinant.shape
    ((5, 4), (5,))
    """

    map: CoordinateMap
    parameters: dict = field(default_factory=dict)

    def __post_init__(self):
        shapes = {name: np.shape(value) for name, value in self.parameters.items()}
        if shapes != self.map.parameter_shapes:
            raise ValueError(
                f"parameters must have the shapes {self.map.parameter_shapes}; got {shapes}"
            )

    def __bool__(self):
        return bool(self.map)

    @property
    def space(self) -> FlatSpace:
        """The places of the variables in a flat point."""
        return self.map.space

    @property
    def names(self) -> list:
        """Names of the sites' value variables, in order."""
        return self.map.names

    @property
    def labels(self) -> np.ndarray:
        """Label each pseudo-observation, (P,) strings."""
        return self.map.labels

    @property
    def is_shaped(self) -> np.ndarray:
        """Which dimensions have a shape, (d,) booleans."""
        return shapes.is_shaped(self.shape)

    @property
    def shape(self) -> Shape:
        """The :class:`Shape` of the coordinates, the identity if they have none."""
        if self.map.has_shape:
            return self.map.shape(self.parameters)
        return shapes.identity(self.space.n_dim)

    @property
    def straight(self) -> "Coordinates":
        """The coordinates x of the sites alone."""
        names = self.map.straight.parameter_shapes
        return Coordinates(self.map.straight, {name: self.parameters[name] for name in names})

    @property
    def shear(self) -> Shear | None:
        """The :class:`Shear` of the coordinates, or None."""
        return self.map.shear(self.parameters)

    def with_bend(self, shape: Shape, shear: Shear | None = None) -> "Coordinates":
        """Return coordinates of the same sites with another shape and shear."""
        bend = dict(zip(SHAPE.values(), shape, strict=True))
        if shear is not None:
            bend[SHEAR] = shear.matrix
        return Coordinates(self.map.with_shape(), self.parameters | bend)

    def replace(self, **parameters: Any) -> "Coordinates":
        """Return coordinates of the same structure with other parameters."""
        return Coordinates(self.map, {**self.parameters, **parameters})

    def to_unconstrained(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points y (S, d), an array, to z (S, d) and the log determinant (S,) of dz/dy."""
        bent, log_slope, _ = self.bend(points)
        z, log_determinant = bent, np.zeros(len(points), points.dtype)
        if self.map.sites:
            z, log_determinant = self.map.straight.evaluate("unconstrained", bent, self.parameters)
        return z, log_determinant + log_slope.sum(axis=1)

    def from_unconstrained(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points z (S, d), an array, to y (S, d) and log |dy/dz| (S,)."""
        bent, log_determinant = points, np.zeros(len(points), points.dtype)
        if self.map.sites:
            bent, log_determinant, *_ = self.map.straight.evaluate(
                "coordinates", points, self.parameters
            )
        y = self.straighten(bent)
        return y, log_determinant - self.bend(y)[1].sum(axis=1)

    def bend(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map points y (S, d) to x, as :func:`pymc_isomix.family.shape.bend` does."""
        return self.map.bend(points, self.parameters)

    def straighten(self, points: np.ndarray) -> np.ndarray:
        """Map points x (S, d) to y."""
        return self.map.straighten(points, self.parameters)

    def shares(self, points: np.ndarray) -> np.ndarray:
        """Mean share (P,) of each pseudo-observation over points y (S, d)."""
        return self.map.straight.evaluate("share", self.bend(points)[0], self.parameters)[0]

    def forward(self, point: Values) -> tuple[dict, Values]:
        """Map a symbolic point y (d,) to z by the name of the value variable, and log |dz/dy|."""
        constants = {name: pt.constant(value) for name, value in self.parameters.items()}
        values, log_determinant, _ = self.map.forward(point, constants)
        return values, log_determinant


def _taken(values, site):
    """Take the elements of a site from the values of variables, flat."""
    if site.woven is not None:
        return pt.concatenate([values[name].ravel() for name in site.variables])[site.woven]
    value = values[site.name]
    return value.ravel() if site.part is None else value[site.part]


def _put(values, site, new):
    """Put the elements of a site into the values of its variables: {name: value}."""
    if site.woven is None:
        value = values[site.name]
        whole = site.part is None
        new = new.reshape(value.shape) if whole else pt.set_subtensor(value[site.part], new)
        return {site.name: new}
    new, found, start = new[np.argsort(site.woven)], {}, 0
    for name in site.variables:
        shape = values[name].type.shape
        length = math.prod(shape)
        found[name] = new[start : start + length].reshape(shape)
        start += length
    return found
