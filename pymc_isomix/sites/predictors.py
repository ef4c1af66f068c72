r"""Sites of a predictor: normal variables in which an argument of the likelihood is affine.

Given all other variables, the rows of a predictor are :math:`\theta = f + G \zeta`, with f and G of
any form. Examples are a level below nonlinear curves, abilities times discriminations, scores
times loadings, and correlated intercepts and slopes. A pseudo-observation per row makes the
variables Gaussian given the rest, as in :class:`pymc_isomix.sites.matrices.Matrix`.
"""

import math
from functools import cached_property
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
from pymc_isomix.sites.matrices import Matrix, Predictor
from pymc_isomix.sites.usage import clients_of
from pymc_isomix.sites.values import ModelGraph

MOST_ENTRIES, MOST_PRODUCTS = 2**15, 2**17  # of G, and of G^T C G; all blocks together
MOST_COLUMNS = 32  # of a block
MOST_ELEMENTS = 2000  # elements with evaluated columns
MOST_CELLS = 2**26  # entries of all columns, half a gigabyte
AT_ONCE = 2**22  # entries of columns that are evaluated together
PARALLEL = 1e-6  # relative length of what a row has beside an effect
TYPICAL = 0.3  # distance from the start, unconstrained, of where the zeros of G are looked for


def find(graph: ModelGraph, candidates: dict[str, list[Site]]) -> list[Site]:
    """Return sites of predictors.

    Parameters
    ----------
    candidates : dict of str to list of Site
        The possible sites of variables by their prior or use.
    """
    space, model = graph.space, graph.space.model
    normal = {
        name: rv
        for name, rv in space.variables.items()
        if isinstance(rv.owner.op, basic.NormalRV | basic.MvNormalRV)
        and model.rvs_to_transforms[rv] is None
        and 0 not in space.ordering[name][2]
        and all(type(site.form) in (Elementwise, Matrix) for site in candidates[name])
    }
    if not normal:
        return []
    matrices = {
        name: own[0]
        for name, own in candidates.items()
        if name in normal and own and type(own[0].form) is Matrix
    }
    search, clients = Search(graph, matrices), clients_of(model)
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
    arguments = *search.arguments, *model.potentials
    is_linear = all(together(one).degree < 2 for one in arguments)
    if is_linear and not matrices:
        return []
    parents = set(ancestors([v for rv in search.free for v in rv.owner.inputs]))
    wanted = []
    for name, rv in normal.items():
        if rv in parents:  # other variables' priors inform it too, and no predictor has them
            continue
        own = Affine(effects[name], search.free, scales[name])
        ends = search.ends(own)
        varies = any(own(end).varies or together(end).degree == 2 for end in ends)
        if varies and (name in matrices or not is_linear):
            wanted.append(name)
        elif name in matrices and not varies and search.mixes(name):
            wanted.append(name)
            search.steady.add(name)
    found: list = []
    wanted.sort(key=lambda name: -math.prod(space.ordering[name][2]))
    while wanted:
        names, rows = search.grow(wanted)
        site = None if rows is None else _site(graph, names, rows, matrices.get(names[0]))
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
    """The rows of a predictor, in blocks that share no variable.

    If ``weights`` are given, the rows of a block are combinations of those of the expressions: a
    constant matrix ``mixing`` times the effects of a matrix site.
    """

    ends: list  # the expressions with the rows as elements
    elements: np.ndarray  # (B, n), of the variables, one behind the other
    rows: np.ndarray  # (B, r), of the expressions, one behind the other; with weights (R,)
    block: np.ndarray  # (B, r), whether a block has so many; with weights (R,), the block
    weights: Any = None  # (R, n)
    mixing: Any = None  # (B, n, n)

    @classmethod
    def of(
        cls, ends: list[Values], columns: np.ndarray, group: Any, to_effects: Any = None
    ) -> "Rows | None":
        """Sort columns (E, R) of elements into blocks; None if a site would cost too much.

        Elements of the same ``group`` (E,) belong to one block. If ``to_effects`` (B, n, n) turn
        columns into constant ones of effects, combinations of rows do, as many as elements.
        """
        n_elements, n_rows = columns.shape
        element, row = np.nonzero(columns)
        if not np.isfinite(columns).all():
            return None
        own, first = np.arange(n_elements), np.unique(group, return_index=True)[1][group]
        pairs = np.append(element, own), np.append(n_elements + row, first)
        edges = np.ones(len(pairs[0])), pairs
        graph = scipy.sparse.coo_array(edges, shape=(n_elements + n_rows,) * 2)
        _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
        blocks = [
            (np.flatnonzero(label[:n_elements] == one), np.flatnonzero(label[n_elements:] == one))
            for one in dict.fromkeys(label[:n_elements].tolist())
        ]
        if len({len(elements) for elements, _ in blocks}) > 1:
            if len(np.unique(element)) < n_elements:
                return None  # an element that no row depends on
            blocks = [(np.arange(n_elements), np.unique(row))]
        n, most = len(blocks[0][0]), max(len(rows) for _, rows in blocks)
        combines = most > n and np.shape(to_effects) == (len(blocks), n, n)
        entries = len(blocks) * (n if combines else most) * n
        if n > MOST_COLUMNS or entries > MOST_ENTRIES or entries * n > MOST_PRODUCTS:
            return None
        elements = np.array([elements for elements, _ in blocks])
        if combines:
            parts = [columns[np.ix_(*block)].T for block in blocks]
            bases = [_basis(part) for part in parts]
            mixing = np.stack([w.T @ part for w, part in zip(bases, parts, strict=True)])
            number = np.repeat(np.arange(len(blocks)), [len(rows) for _, rows in blocks])
            rows = np.concatenate([rows for _, rows in blocks])
            return cls(ends, elements, rows, number, np.concatenate(bases), mixing @ to_effects)
        padded = np.array([np.resize(rows, most) for _, rows in blocks])
        is_row = np.arange(most) < np.array([[len(rows)] for _, rows in blocks])
        return cls(ends, elements, padded, is_row)

    def in_blocks(self, flat: Any) -> Any:
        """Arrange the rows of all expressions, one behind the other, as (B, r)."""
        if self.weights is None:
            return pt.where(self.block, flat[self.rows], 0.0)
        weighted = self.weights.astype(flat.dtype) * flat[self.rows][:, None]
        return pt.zeros(self.elements.shape, dtype=flat.dtype)[self.block].inc(weighted)

    @property
    def n_rows(self) -> Any:
        """Rows of a block, r."""
        return (self.rows if self.weights is None else self.elements).shape[1]


def _basis(matrix):
    """Orthonormal basis (r, n) of the columns of a matrix (r, n), with zeros if there are fewer."""
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    basis = np.zeros(matrix.shape)
    basis[:, : left.shape[1]] = left * (singular > PARALLEL * singular.max(initial=0))
    return basis


class Search:
    """Look for the rows of predictors of some variables.

    Parameters
    ----------
    graph : ModelGraph
    matrices : dict of str to Site
        Sites by the prior's matrix or a product, with the elements of a block correlated.
    seed : int
        Of the generic point.
    """

    def __init__(self, graph: ModelGraph, matrices: Any, seed: int = 0) -> None:
        space = graph.space
        self.graph, self.space, self.free = graph, space, set(space.model.free_RVs)
        self.matrices, self.seed = matrices, seed
        self.found: dict = {}  # by names, what is slow to find
        self.steady: set = set()  # names of those by whose effects no coefficient varies
        # the expressions between the variables and the data
        self.arguments = [v for rv in space.model.observed_RVs for v in rv.owner.inputs]

    @cached_property
    def point(self) -> dict:
        """Values by name at a generic point."""
        rng = np.random.default_rng(self.seed)
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
        ends, columns = self.ends_and_columns(names)
        if columns is None:
            return None
        return Rows.of(ends, columns, self._groups(names), self._to_effects(names, ends))

    def _to_effects(self, names, ends):
        """Return the matrices (B, n, n) by which columns become those of constant coefficients.

        None if there are none: the variable has no matrix site, coefficients vary, or noise does.
        """
        [first, *others], of_one = names, len(ends) == 1
        rv, matrix = self.space.variables[first], self.matrices.get(first)
        if others or first not in self.steady or matrix is None:
            return None
        if not all(
            isinstance(unit, float) or (of_one and all(unit.type.broadcastable))
            for _, unit in (noise_of(self.space.model, end, [rv]) for end in ends)
        ):
            return None
        form = matrix.form
        if form.centred:
            return np.broadcast_to(np.eye(form.columns), (form.batch, form.columns, form.columns))
        if form.rows != form.columns:
            return None
        factor, scale = self.at_point(matrix.given[1], matrix.given[3])
        scale = scale.reshape((-1, form.batch)).T if form.last else scale.reshape((form.batch, -1))
        return scale[..., None] * np.linalg.inv(factor)

    def at_point(self, *expressions: Any) -> list[np.ndarray]:
        """Evaluate expressions of value variables at the generic point."""
        at = {v: pt.as_tensor(self.point[v.name]) for v in self.space.model.value_vars}
        found = graph_replace(list(expressions), at, strict=False)
        return [one.eval(mode=CHEAP) for one in found]

    def mixes(self, name: str) -> Any:
        """Tell whether rows combine effects of a matrix site, which observes each by itself."""
        site = self.matrices[name]
        form, n = site.form, site.form.columns
        _, columns = self.ends_and_columns([name])
        if columns is None:
            return False
        blocks = columns.T.reshape((-1, n, form.batch) if form.last else (-1, form.batch, n))
        blocks = blocks.mT if form.last else blocks
        factor = np.eye(n)[None] if form.centred else self.at_point(site.given[1])[0]
        length = np.linalg.norm(blocks, axis=-1)
        factor = factor / np.linalg.norm(factor, axis=-1, keepdims=True)
        along = np.abs((blocks[..., None, :] * factor).sum(axis=-1))
        return bool((length > (1 + PARALLEL) * along.max(axis=-1)).any())

    def _groups(self, names):
        """Return the numbers of the blocks to which the elements (E,) of variables belong."""
        found, start = [], 0
        for name in names:
            own = np.arange(math.prod(self.space.ordering[name][2]))
            if name in self.matrices:
                form = self.matrices[name].form
                own = own % form.batch if form.last else own // form.columns
            elif isinstance(self.space.variables[name].owner.op, basic.MvNormalRV):
                own = own // self.space.ordering[name][2][-1]
            found.append(start + own)
            start += own.max() + 1
        return np.concatenate(found)

    def ends_and_columns(self, names: list[str]) -> tuple[list[Values], np.ndarray | None]:
        """Return the affine expressions, and the effect of each element on them or None."""
        if (key := tuple(names)) not in self.found:
            n_elements = sum(math.prod(self.space.ordering[name][2]) for name in names)
            ends = self.ends(self._affine_in(names))
            found = self.graph.in_values(ends, None)
            columns = None
            if found is not None and ends and n_elements <= MOST_ELEMENTS:
                columns = self._columns(found.expressions, names, n_elements)
            self.found[key] = ends, columns
        return self.found[key]

    def _affine_in(self, names):
        return Affine([self.space.variables[name] for name in names], self.free)

    def _columns(self, ends, names, n_elements):
        """Evaluate the effect of each element on the rows, (E, R); None if they are too many."""
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
            if n_elements * nothing.size > MOST_CELLS:
                return None
            chunks = np.array_split(np.eye(n_elements), 1 + n_elements * nothing.size // AT_ONCE)
            return np.concatenate([function(units) for units in chunks]) - nothing


def _site(graph, names, rows, matrix):
    """Make the site of a predictor's variables; None if it cannot be expressed.

    ``matrix`` is the matrix site of the first variable, of which rows may be combinations.
    """
    space = graph.space
    variables = [space.variables[name] for name in names]
    shapes = [space.ordering[name][2] for name in names]
    priors = [_prior(rv, shape) for rv, shape in zip(variables, shapes, strict=True)]
    n_blocks, n = rows.elements.shape
    splits = np.cumsum([math.prod(shape) for shape in shapes])

    def scaled(effects):
        """Multiply standardised effects, constants (E,), by the prior's scales."""
        parts = np.split(effects, splits[:-1])
        return [
            scale(part.reshape(shape))
            for (_, scale), part, shape in zip(priors, parts, shapes, strict=True)
        ]

    def at(replaced):
        """Rows (B, r) with replaced variables."""
        ends = graph_replace(rows.ends, dict(zip(variables, replaced, strict=True)), strict=False)
        return in_blocks(
            (end - shift) / unit for end, (shift, unit) in zip(ends, noise, strict=True)
        )

    def in_blocks(ends):
        return rows.in_blocks(pt.concatenate([end.ravel() for end in ends]))

    def elements(parts):
        return pt.concatenate([part.ravel() for part in parts])[rows.elements]  # (B, n)

    noise = [noise_of(graph.space.model, end, variables) for end in rows.ends]
    means = [mean for mean, _ in priors]
    # of an element of each block
    units = [scaled(np.isin(np.arange(splits[-1]), chosen)) for chosen in rows.elements.T]
    if rows.mixing is None:
        nothing = at([pt.zeros_like(mean) for mean in means])
        factor = pt.stack([at(unit) - nothing for unit in units], axis=-1)
    else:
        factor = pt.as_tensor(1 / noise[0][1])  # the rest is known in value variables
    joint = any(isinstance(rv.owner.op, basic.MvNormalRV) for rv in variables)
    if joint:
        scale = pt.stack([elements(unit) for unit in units], axis=-1)  # (B, n, n)
    else:
        scale = elements(scaled(np.ones(splits[-1]))).ravel()
    slopes = slopes_of(graph.space.model, rows.ends)
    if slopes is None:
        return None
    slope = in_blocks(one * unit for one, (_, unit) in zip(slopes, noise, strict=True))
    r = rows.n_rows
    given = graph.in_values(
        [at(means), factor, elements(means).ravel(), scale],
        [
            (n_blocks, r),
            (n_blocks, r, n),
            (n_blocks * n,),
            (n_blocks, n, n) if joint else (n_blocks * n,),
        ],
    )
    learned_from = graph.in_values([slope], [(n_blocks, r)])
    if given is None or learned_from is None or not given.parents.isdisjoint(names):
        return None
    location, factor, *prior = given.expressions
    parents = given.parents
    if rows.mixing is not None:
        factor = rows.mixing.astype(factor.dtype) @ matrix.given[1] * factor
        parents |= matrix.parents
    form = Predictor(n_blocks, r, n, joint=joint)
    first, *others = names
    return Site(
        first,
        form,
        (location, factor, *prior),
        parents,
        None,
        tuple(others),
        rows.elements.ravel(),
        learned_from.expressions,
    )


def _prior(rv, shape):
    """Return the mean of a normal variable, and its scale as a function of constant effects."""
    mean, scale = rv.owner.op.dist_params(rv.owner)
    mean = pt.broadcast_to(mean, shape).astype(rv.dtype)
    if isinstance(rv.owner.op, basic.MvNormalRV):
        root = pt.linalg.cholesky(scale, lower=True)
        return mean, lambda effects: (root @ effects.astype(rv.dtype)[..., None])[..., 0]
    return mean, lambda effects: scale * effects.astype(rv.dtype)


def noise_of(model: pm.Model, end: Any, variables: list) -> tuple[Any, Any]:
    """Return data and scale of the noise with which rows are observed; 0 and 1 if unknown.

    In units of the noise the precision of Gaussian data is one, whatever the scale is.
    """
    for rv in model.observed_RVs:
        prior, value = location_scale(rv.owner.op, rv, None), model.rvs_to_values[rv]
        if prior is None or prior[0] is not end:
            continue
        scale, alike = prior[1], end.type.broadcastable == value.type.broadcastable
        if alike and set(variables).isdisjoint(ancestors([scale])):
            return value.astype(end.dtype), scale
    return 0.0, 1.0


def slopes_of(model: pm.Model, ends: list[Values]) -> Any:
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
