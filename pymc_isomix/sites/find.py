"""Find the sites of a model in its graph: effects whose scale depends on other variables."""

import logging
import math
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt
from pymc.data import MinibatchOp
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable

from pymc_isomix.family.sites import Elementwise
from pymc_isomix.sites.coordinates import PSEUDO, Coordinates, Site
from pymc_isomix.sites.families import location_scale
from pymc_isomix.sites.usage import follow

logger = logging.getLogger(__name__)

FIRST_LOG_ODDS = 0.0  # of the pseudo-observations: half of what is known


def find_coordinates(space):
    """Find the sites of the variables of a space, and say which.

    Parameters
    ----------
    space : FlatSpace

    Returns
    -------
    Coordinates
        Without sites where the model has none that are recognised.
    """
    sites = _without_circles([_candidates(space, name) for name in space.variables])
    coordinates = Coordinates(space, sites)
    if coordinates:
        names = ", ".join(space.variables[site.name].name for site in coordinates.sites)
        logger.info(f"coordinates='auto': {names} by the model's own scales")
    return coordinates


def _candidates(space, name):
    """Return the sites that a value variable may be, the best first."""
    rv, shape = space.variables[name], space.ordering[name][2]
    model = space.model
    transform = model.rvs_to_transforms[rv]
    prior = location_scale(rv.owner.op, rv, transform)
    if prior is None or 0 in shape:
        return []
    added, factor = None, None
    if transform is None:
        added, factor = follow(model, rv)
    prior_location, prior_scale = (pt.as_tensor(p) for p in prior)
    location, scale = prior_location, prior_scale
    if factor is not None:
        location, scale = factor * location, factor * scale
    own = _in_values(space, [location, scale, prior_location, prior_scale], shape)
    if own is None or not own.parents or name in own.parents:
        return []
    found = [own]
    if added is not None:  # where it makes no circle
        whole = _in_values(space, [location + added, scale, prior_location, prior_scale], shape)
        found = [whole, own] if whole is not None and name not in whole.parents else [own]
    return [
        Site(name, Elementwise(math.prod(shape)), given.expressions, given.parents)
        for given in found
    ]


class _Given(NamedTuple):
    """Expressions in value variables, and the names of those that they depend on."""

    expressions: tuple
    parents: frozenset


def _in_values(space, expressions, shape):
    """Express in value variables, flat, and None where that cannot be."""
    model = space.model
    expressions = model.replace_rvs_by_values(expressions)
    above = list(ancestors(expressions))
    if any(v.owner and isinstance(v.owner.op, RandomVariable | MinibatchOp) for v in above):
        return None
    data: dict = {v: pt.as_tensor(v.get_value()) for v in above if isinstance(v, SharedVariable)}
    if any(not hasattr(v, "get_value") or v.type.ndim is None for v in data):
        return None
    expressions = graph_replace(expressions, data, strict=False) if data else expressions
    values = {v.name for v in ancestors(expressions) if v in set(model.value_vars)}
    if not values <= set(space.ordering):
        return None  # of another group
    try:
        flat = [pt.broadcast_to(_narrow(e, shape), shape).ravel() for e in expressions]
    except ValueError:
        return None
    return _Given(tuple(flat), frozenset(values))


def _narrow(expression, shape):
    """Drop axes of length one that the value does not have, as that of a zero-sum transform."""
    if expression.ndim > len(shape):
        raise ValueError("more axes than the value")
    return expression


def _without_circles(candidates):
    """Put sites after those that they depend on, leaving out what would close a circle.

    Parameters
    ----------
    candidates : list of lists of Site
        Of each variable, the best first.
    """
    kept: list = []
    for options in candidates:
        for site in options:
            graph = {s.name: set(s.parents) for s in [*kept, site]}
            try:
                order = list(TopologicalSorter(graph).static_order())
            except CycleError:
                continue
            kept = sorted([*kept, site], key=lambda s: order.index(s.name))
            break
    return kept


def starting_coordinates(coordinates, points):
    """Place the pseudo-observations where the effects are, each worth half of what is known.

    Parameters
    ----------
    coordinates : Coordinates
    points : (K, d) array
        Where the components start, unconstrained space.

    Returns
    -------
    means : (K, d) array
        The same points, coordinates y.
    pseudo : dict of (P,) arrays
        Empty without sites.
    """
    if not coordinates:
        return points, {}
    nothing = {name: np.zeros(coordinates.n_pseudo, points.dtype) for name in PSEUDO}
    given = coordinates.by_site(coordinates.evaluate("given", points, nothing))
    typical = [
        site.form.typical(given) for site, given in zip(coordinates.sites, given, strict=True)
    ]
    pseudo = {
        "log_precisions": np.concatenate([FIRST_LOG_ODDS - 2 * scale for _, scale in typical]),
        "values": np.concatenate([location for location, _ in typical]),
    }
    pseudo = {name: value.astype(points.dtype) for name, value in pseudo.items()}
    return coordinates.evaluate("coordinates", points, pseudo)[0], pseudo
