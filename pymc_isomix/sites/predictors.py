r"""Sites of a predictor: normal variables in which an argument of the likelihood is affine.

Given all other variables, the rows of a predictor are :math:`\theta = f + G \zeta`, with f and G of
any form. Examples are a level below nonlinear curves, abilities times discriminations, and scores
times loadings. A pseudo-observation per row makes the variables Gaussian given the rest, as in
:class:`pymc_isomix.sites.matrices.Matrix`.
"""

import math
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import scipy  # which loads its parts when they are used
from pytensor.gradient import NullTypeGradError
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random import basic

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.model.vectorising import batch
from pymc_isomix.sites.affine import Affine
from pymc_isomix.sites.coordinates import Site
from pymc_isomix.sites.elementwise import Elementwise
from pymc_isomix.sites.families import location_scale
from pymc_isomix.sites.matrices import Predictor
from pymc_isomix.sites.usage import clients_of
from pymc_isomix.sites.values import ModelGraph

MOST_ENTRIES, MOST_PRODUCTS = 2**15, 2**17  # of G, and of G^T C G; all blocks together
MOST_COLUMNS = 32  # of a block
MOST_ELEMENTS = 2000  # elements with evaluated columns
AT_ONCE = 2**22  # entries of columns that are evaluated together
TYPICAL = 0.3  # distance from the start, unconstrained, of where the zeros of G are looked for


def find(graph: ModelGraph, candidates: dict[str, list[Site]]) -> list[Site]:
    """Return sites of predictors.

    Parameters
    ----------
    graph : ModelGraph
    candidates : dict of str to list of Site
        The possible sites of variables by their prior or use.
    """
    space, model = graph.space, graph.space.model
    normal = {
        name: rv
        for name, rv in space.variables.items()
        if isinstance(rv.owner.op, basic.NormalRV)
        and model.rvs_to_transforms[rv] is None
        and 0 not in space.ordering[name][2]
        and all(type(site.form) is Elementwise for site in candidates[name])
    }
    if not normal:
        return []
    search, clients = Search(graph), clients_of(model)
    scales = {
        name: {space.variables[parent] for site in candidates[name][-1:] for parent in site.parents}
        for name in space.variables
    }
    effects = {
        name: list(_effects(rv, scales[name] | {rv}, clients, search.free))
        if candidates[name]
        else [rv]
        for name, rv in space.variables.items()
    }
    known = set().union(*scales.values())
    leaves = {one for own in effects.values() for one in own} - known
    together = Affine(leaves, search.free)
    if all(together(one).degree < 2 for one in (*search.arguments, *model.potentials)):
        return []
    parents = set(ancestors([v for rv in search.free for v in rv.owner.inputs]))
    wanted = []
    for name, rv in normal.items():
        if rv in parents:  # other variables' priors inform it too, and no predictor has them
            continue
        own = Affine(effects[name], search.free, scales[name])
        ends = search.ends(own)
        if any(own(end).varies or together(end).degree == 2 for end in ends):
            wanted.append(name)
    found: list = []
    wanted.sort(key=lambda name: -math.prod(space.ordering[name][2]))
    while wanted:
        names, rows = search.grow(wanted)
        site = None if rows is None else _site(graph, names, rows)
        found += [] if site is None else [site]
        wanted = [name for name in wanted if name not in names]
    return found


def _effects(rv, known, clients, free):
    """Yield the last expressions that are affine in a variable and depend only on known ones."""
    affine, waiting, seen = Affine([rv], free), [rv], set()
    while waiting:
        here = waiting.pop()
        users = [output for node, _ in clients.get(here, ()) for output in node.outputs]
        onward = [
            output
            for output in users
            if affine(output).degree == 1
            and known.issuperset(free.intersection(ancestors([output], blockers=free)))
        ]
        waiting += [output for output in onward if output not in seen]
        seen.update(onward)
        if len(onward) < len(users):
            yield here


class Rows(NamedTuple):
    """The rows of a predictor, in blocks that share no variable."""

    ends: list  # the expressions with the rows as elements
    elements: np.ndarray  # (B, n), of the variables, one behind the other
    rows: np.ndarray  # (B, r), of the expressions, one behind the other
    is_row: np.ndarray  # (B, r), False where a block has fewer

    @classmethod
    def of(cls, ends: list[Values], columns: np.ndarray) -> "Rows | None":
        """Sort columns (E, R) of elements into blocks; None if a site would cost too much."""
        n_elements, n_rows = columns.shape
        element, row = np.nonzero(columns)
        if not np.isfinite(columns).all() or len(np.unique(element)) < n_elements:
            return None  # an element that no row depends on
        edges = np.ones(len(element)), (element, n_elements + row)
        graph = scipy.sparse.coo_array(edges, shape=(n_elements + n_rows,) * 2)
        _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
        blocks = [
            (np.flatnonzero(label[:n_elements] == one), np.flatnonzero(label[n_elements:] == one))
            for one in dict.fromkeys(label[:n_elements].tolist())
        ]
        if len({len(elements) for elements, _ in blocks}) > 1:
            blocks = [(np.arange(n_elements), np.unique(row))]
        n, most = len(blocks[0][0]), max(len(rows) for _, rows in blocks)
        entries = len(blocks) * most * n
        if n > MOST_COLUMNS or entries > MOST_ENTRIES or entries * n > MOST_PRODUCTS:
            return None
        padded = np.array([np.resize(rows, most) for _, rows in blocks])
        is_row = np.arange(most) < np.array([[len(rows)] for _, rows in blocks])
        return cls(ends, np.array([elements for elements, _ in blocks]), padded, is_row)


class Search:
    """Look for the rows of predictors of some variables.

    Parameters
    ----------
    graph : ModelGraph
    """

    def __init__(self, graph: ModelGraph) -> None:
        space = graph.space
        self.graph, self.space, self.free = graph, space, set(space.model.free_RVs)
        # the expressions between the variables and the data
        self.arguments = [v for rv in space.model.observed_RVs for v in rv.owner.inputs]

    @cached_property
    def point(self) -> dict:
        """Values by name at a generic point."""
        rng = np.random.default_rng(0)
        return {
            name: value + TYPICAL * rng.normal(size=np.shape(value))
            for name, value in self.space.model.initial_point(0).items()
        }

    def ends(self, affine: Affine) -> list[Values]:
        """Return the affine expressions by which the data depend on the leaves."""
        found = [end for one in self.arguments for end in affine.ends(one)]
        terms = self.space.model.potentials
        found += [end for term in terms for end in affine.ends(term, is_term=True)]
        return list(dict.fromkeys(found))

    def grow(self, names: list[str]) -> tuple[list[str], Rows | None]:
        """Return the first variable with as many others as share a predictor, and the rows."""
        first, *others = names
        group, rows = [first], self.rows([first])
        for other in others:
            jointly = self._affine_in([*group, other])
            if rows is not None and all(jointly(end).degree < 2 for end in rows.ends):
                more = self.rows([*group, other])
                group, rows = (group, rows) if more is None else ([*group, other], more)
        return group, rows

    def rows(self, names: list[str]) -> Rows | None:
        """Return the rows of the predictor of some variables; None if there are too many."""
        n_elements = sum(math.prod(self.space.ordering[name][2]) for name in names)
        affine = self._affine_in(names)
        ends = self.ends(affine)
        found = self.graph.in_values(ends, None)
        if found is None or n_elements > MOST_ELEMENTS:
            return None
        return Rows.of(ends, self._columns(found.expressions, names, n_elements))

    def _affine_in(self, names):
        return Affine([self.space.variables[name] for name in names], self.free)

    def _columns(self, ends, names, n_elements):
        """Evaluate the effect of each element on the rows, (E, R)."""
        elements = pt.vector("elements", shape=(n_elements,), dtype="float64")
        many = pt.matrix("many", shape=(None, n_elements), dtype="float64")
        own, start = {}, 0
        for name in names:
            shape = self.space.ordering[name][2]
            own[name] = elements[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        at = {
            value: pt.as_tensor(own.get(value.name, self.point[value.name])).astype(value.dtype)
            for value in self.space.model.value_vars
        }
        rows: Any = graph_replace(list(ends), at, strict=False)
        [flat] = batch([pt.concatenate([row.ravel() for row in rows])], elements, many)
        with compiling(cxx=""):
            function = pytensor.function([many], flat, mode=CHEAP)
        with np.errstate(all="ignore"):
            nothing = function(np.zeros((1, n_elements)))
            chunks = np.array_split(np.eye(n_elements), 1 + n_elements * nothing.size // AT_ONCE)
            return np.concatenate([function(units) for units in chunks]) - nothing


def _site(graph, names, rows):
    """Make the site of a predictor's variables; None if it cannot be expressed."""
    space = graph.space
    variables = [space.variables[name] for name in names]
    shapes = [space.ordering[name][2] for name in names]
    priors = [rv.owner.op.dist_params(rv.owner) for rv in variables]
    means, deviations = (
        [
            pt.broadcast_to(prior[i], shape).astype(rv.dtype)
            for prior, shape, rv in zip(priors, shapes, variables, strict=True)
        ]
        for i in (0, 1)
    )
    n_blocks, n = rows.elements.shape

    def at(replaced):
        """Rows (B, r) with replaced variables."""
        ends = graph_replace(rows.ends, dict(zip(variables, replaced, strict=True)), strict=False)
        return in_blocks(
            (end - shift) / unit for end, (shift, unit) in zip(ends, noise, strict=True)
        )

    def in_blocks(ends):
        return pt.where(rows.is_row, pt.concatenate([end.ravel() for end in ends])[rows.rows], 0.0)

    noise = [_noise(space.model, end, variables) for end in rows.ends]
    nothing = at([pt.zeros_like(one) for one in means])
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    columns = []
    for k in range(n):
        chosen = np.zeros(starts[-1])
        chosen[rows.elements[:, k]] = 1
        parts = [
            deviation * chosen[start:stop].reshape(shape).astype(deviation.dtype)
            for deviation, shape, (start, stop) in zip(
                deviations, shapes, pairwise(starts), strict=True
            )
        ]
        columns.append(at(parts) - nothing)
    order = rows.elements.ravel()
    prior = [pt.concatenate([one.ravel() for one in part])[order] for part in (means, deviations)]
    slopes = _slopes(space.model, rows.ends)
    if slopes is None:
        return None
    slope = in_blocks(one * unit for one, (_, unit) in zip(slopes, noise, strict=True))
    r = rows.rows.shape[1]
    given = graph.in_values(
        [at(means), pt.stack(columns, axis=-1), *prior],
        [(n_blocks, r), (n_blocks, r, n), (n_blocks * n,), (n_blocks * n,)],
    )
    learned_from = graph.in_values([slope], [(n_blocks, r)])
    if given is None or learned_from is None or not given.parents.isdisjoint(names):
        return None
    form = Predictor(n_blocks, r, n)
    first, *others = names
    return Site(
        first,
        form,
        given.expressions,
        given.parents,
        None,
        tuple(others),
        order,
        learned_from.expressions,
    )


def _noise(model, end, variables):
    """Return data and scale of the noise with which rows are observed; 0 and 1 if unknown.

    In units of the noise the precision of Gaussian data is one, whatever the scale is.
    """
    for rv in model.observed_RVs:
        prior, value = location_scale(rv.owner.op, rv, None), model.rvs_to_values[rv]
        if prior is None or prior[0] is not end:
            continue
        scale, alike = prior[1], end.type.broadcastable == value.type.broadcastable
        if alike and set(variables).isdisjoint(ancestors([scale])):
            return value.astype(end.dtype), pt.broadcast_to(scale, value.shape)
    return 0.0, 1.0


def _slopes(model, ends):
    """Slopes of the log likelihood in affine expressions; None without one."""
    moves = [end.type() for end in ends]
    moved = {end: end + move for end, move in zip(ends, moves, strict=True)}
    total: Any = 0.0
    try:
        for rv in model.observed_RVs:
            inputs = graph_replace(rv.owner.inputs, moved, strict=False)
            node = rv.owner.clone_with_new_inputs(inputs)
            new = node.outputs[rv.owner.outputs.index(rv)]
            total += pm.logp(new, model.rvs_to_values[rv], warn_rvs=False).sum()
        for potential in model.potentials:
            total += graph_replace(potential, moved, strict=False).sum()
        slopes: Any = pytensor.grad(total, moves, disconnected_inputs="ignore")
    except (NotImplementedError, NullTypeGradError):  # no log density, or no gradient
        return None
    nowhere = {move: pt.zeros_like(end) for end, move in zip(ends, moves, strict=True)}
    return graph_replace(slopes, nowhere, strict=False)
