r"""Sites of a predictor: normal variables in which what the data depend on is affine.

Given all other variables, the rows of a predictor are :math:`\theta = f + G \zeta` with f and G of
any form: a level below curves with parameters of their own, abilities times discriminations, scores
times loadings. A pseudo-observation of each row makes the variables Gaussian given the rest, as
:class:`pymc_isomix.sites.matrices.Matrix` does.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random import basic
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pymc_isomix.backend.compilation import CHEAP, compiling
from pymc_isomix.sites import values
from pymc_isomix.sites.affine import Affine
from pymc_isomix.sites.coordinates import Site
from pymc_isomix.sites.elementwise import Elementwise
from pymc_isomix.sites.matrices import Predictor
from pymc_isomix.sites.usage import clients_of

MOST_ENTRIES = 2**15  # of G, all blocks together
MOST_COLUMNS = 32  # of a block
MOST_ELEMENTS = 2000  # whose columns are looked at one by one
TYPICAL = 0.3  # how far from the start, in unconstrained space, the zeros of G are looked for


def find(space, candidates):
    """Return sites of predictors.

    Parameters
    ----------
    candidates : dict of str to list of Site
        The sites that variables may be by their own prior or use.
    """
    model = space.model
    free = set(model.free_RVs)
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
    roots = _roots(model)
    leaves = _leaves(space, candidates, free)
    together = Affine([one for own in leaves.values() for one in own], free)
    if all(together(root).degree < 2 for root in roots):
        return []
    children = set(ancestors([v for rv in free for v in rv.owner.inputs]))
    wanted = {}
    for name, rv in normal.items():
        if rv in children:
            continue
        of_effect = Affine(leaves[name], free)
        ends = [end for root in roots for end in of_effect.ends(root)]
        if any(of_effect(end).varies or together(end).degree == 2 for end in ends):
            wanted[name] = rv
    found: list = []
    taken: set = set()
    order = sorted(wanted, key=lambda name: -math.prod(space.ordering[name][2]))
    for name in order:
        if name in taken:
            continue
        group, rows = _grow(space, name, [n for n in order if n not in taken], roots, free)
        site = None if rows is None else _site(space, group, rows, roots, free)
        if site is not None:
            found.append(site)
            taken.update(group)
    return found


def _roots(model):
    """Return the expressions in which the data meet the variables."""
    inputs = [v for rv in model.observed_RVs for v in rv.owner.inputs]
    return [*inputs, *model.potentials]


def _leaves(space, candidates, free):
    """Return, for each variable, the expressions that are its effects: itself, or scaled."""
    clients, found = clients_of(space.model), {}
    for name, rv in space.variables.items():
        found[name] = [rv]
        if candidates[name]:
            scales = {space.variables[parent] for parent in candidates[name][-1].parents}
            found[name] = list(_effects(rv, scales | {rv}, clients, free))
    return found


def _effects(rv, known, clients, free):
    """Yield the last expressions that are affine in a variable, and depend on known ones alone."""
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

    ends: list  # the expressions whose elements the rows are
    elements: np.ndarray  # (B, n), of the variables, one behind the other
    rows: np.ndarray  # (B, r), of the expressions, one behind the other
    is_row: np.ndarray  # (B, r), False where a block has fewer


def _grow(space, name, others, roots, free):
    """Return as many variables as have a predictor in common, and its rows."""
    group, rows = [name], _rows(space, [name], roots, free)
    if rows is None:
        return group, None
    for other in others:
        if other in group:
            continue
        variables = [space.variables[n] for n in (*group, other)]
        jointly = Affine(variables, free)
        if any(jointly(end).degree == 2 for end in rows.ends):
            continue
        more = _rows(space, [*group, other], roots, free)
        if more is not None:
            group, rows = [*group, other], more
    return group, rows


def _rows(space, names, roots, free):
    """Return the rows of the predictor of some variables; None where they are too many."""
    variables = [space.variables[name] for name in names]
    affine = Affine(variables, free)
    ends = list(dict.fromkeys(end for root in roots for end in affine.ends(root)))
    sizes = [math.prod(space.ordering[name][2]) for name in names]
    if sum(sizes) > MOST_ELEMENTS:
        return None
    columns = _columns(space, names, ends)
    if columns is None or not np.isfinite(columns).all():
        return None
    return _blocks(ends, columns)


def _blocks(ends, columns):
    """Sort rows and elements by block; None where a site of them would cost too much."""
    element, row = np.nonzero(columns)
    n_elements, n_rows = columns.shape
    if len(np.unique(element)) < n_elements:
        return None  # an element that no row depends on
    graph = coo_array(
        (np.ones(len(element)), (element, n_elements + row)),
        shape=(n_elements + n_rows,) * 2,
    )
    _, label = connected_components(graph, directed=False)
    label_of_row = label[n_elements:]
    blocks = [
        (np.flatnonzero(label[:n_elements] == one), np.flatnonzero(label_of_row == one))
        for one in dict.fromkeys(label[:n_elements].tolist())
    ]
    if len({len(elements) for elements, _ in blocks}) > 1:
        blocks = [(np.arange(n_elements), np.unique(row))]
    n, most = len(blocks[0][0]), max(len(rows) for _, rows in blocks)
    if n > MOST_COLUMNS or len(blocks) * most * n > MOST_ENTRIES:
        return None
    padded = np.array([np.resize(rows, most) for _, rows in blocks])
    is_row = np.arange(most) < np.array([[len(rows)] for _, rows in blocks])
    return Rows(ends, np.array([elements for elements, _ in blocks]), padded, is_row)


def _columns(space, names, ends):
    """Evaluate what each element does to the rows, (E, R), at a point that is not special."""
    found = values.in_values(space, ends, None)
    if found is None:
        return None
    rng = np.random.default_rng(0)
    at = {}
    for value in space.model.value_vars:
        initial = space.model.initial_point(0)[value.name]
        at[value] = pt.constant(initial + TYPICAL * rng.normal(size=np.shape(initial)))
    shapes = [space.ordering[name][2] for name in names]
    places = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    elements = pt.vector("elements", shape=(int(places[-1]),), dtype="float64")
    by_name = {value.name: value for value in space.model.value_vars}
    for name, shape, (start, stop) in zip(names, shapes, pairwise(places), strict=True):
        at[by_name[name]] = elements[start:stop].reshape(shape)
    at = {value: new.astype(value.dtype) for value, new in at.items()}
    rows = pt.concatenate(
        [e.ravel() for e in graph_replace(list(found.expressions), at, strict=False)]
    )
    with compiling(cxx=""):
        function = pytensor.function([elements], rows, mode=CHEAP)
    with np.errstate(all="ignore"):
        nothing = function(np.zeros(places[-1]))
        return np.array([function(unit) - nothing for unit in np.eye(places[-1])])


def _site(space, names, rows, roots, free):
    """Make the site of a predictor's variables; None where it cannot be expressed."""
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
        """Rows (B, r) where the variables are what replaces them."""
        ends = graph_replace(rows.ends, dict(zip(variables, replaced, strict=True)), strict=False)
        flat = pt.concatenate([end.ravel() for end in ends])
        return pt.where(rows.is_row, flat[rows.rows], 0.0)

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
    slope = _slope(space.model, rows)
    if slope is None:
        return None
    r = rows.rows.shape[1]
    given = values.in_values(
        space,
        [at(means), pt.stack(columns, axis=-1), *prior],
        [(n_blocks, r), (n_blocks, r, n), (n_blocks * n,), (n_blocks * n,)],
    )
    slopes = values.in_values(space, [slope], [(n_blocks, r)])
    if given is None or slopes is None or not given.parents.isdisjoint(names):
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
        slopes.expressions,
    )


def _slope(model, rows):
    """Slope (B, r) of the log likelihood in the rows; None where it has none."""
    moves = [end.type() for end in rows.ends]
    moved = {end: end + move for end, move in zip(rows.ends, moves, strict=True)}
    total = 0.0
    try:
        for rv in model.observed_RVs:
            inputs = graph_replace(rv.owner.inputs, moved, strict=False)
            if all(new is old for new, old in zip(inputs, rv.owner.inputs, strict=True)):
                continue
            node = rv.owner.clone_with_new_inputs(inputs)
            new = node.outputs[rv.owner.outputs.index(rv)]
            total += pm.logp(new, model.rvs_to_values[rv], warn_rvs=False).sum()
        for potential in model.potentials:
            total += graph_replace(potential, moved, strict=False).sum()
        slopes = pytensor.grad(total, moves, disconnected_inputs="ignore")
    except (NotImplementedError, ValueError, TypeError):
        return None
    flat = pt.concatenate([slope.ravel() for slope in slopes])
    nowhere = {move: pt.zeros_like(end) for end, move in zip(rows.ends, moves, strict=True)}
    flat = graph_replace(flat, nowhere)
    return pt.where(rows.is_row, flat[rows.rows], 0.0)
