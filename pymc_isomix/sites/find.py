"""The search for the sites of a model: effects whose scale depends on other variables."""

import logging
import math
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.transforms import ZeroSumTransform

from pymc_isomix.model.fitted_data import same
from pymc_isomix.model.model_cache import graph_key, model_cache
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites import joint_effects, predictors
from pymc_isomix.sites.chains import Chain
from pymc_isomix.sites.coordinates import PSEUDO, SHEAR, CoordinateMap, Site
from pymc_isomix.sites.elementwise import Elementwise, Rotated, Whitened
from pymc_isomix.sites.families import location_scale
from pymc_isomix.sites.matrices import Matrix, Scaled
from pymc_isomix.sites.products import linear_map
from pymc_isomix.sites.series import CHAINS, chain_prior, is_scanned, trend_prior
from pymc_isomix.sites.spatial import FIELDS, spectral
from pymc_isomix.sites.usage import constant_of, follow, varies
from pymc_isomix.sites.values import ModelGraph

logger = logging.getLogger(__name__)

# largest distance of an effect at the start, in standard deviations given the scales: if the user
# chose the start, and if not (jitter of a smooth process is a thousand of them away)
FARTHEST, TYPICAL = 100.0, 3.0
LARGEST_MATRIX = 128**2  # entries of the factor of a site; larger ones keep a constant basis
LARGEST_BASIS = 2000  # rows and columns of a constant matrix
LEAST_LOG_SCALE = -5.0  # relative to the largest, for the start of pseudo-observations


def find_coordinates(space: FlatSpace, *, log: bool = True) -> CoordinateMap:
    """Find the sites of the variables of a space, and log them.

    Parameters
    ----------
    log : bool
        False if they are not in use.

    Returns
    -------
    CoordinateMap
        Without sites if none are recognised.
    """
    key = "coordinates", graph_key(space)
    coordinates, weaker = model_cache(space.model).get(key) or (None, {})
    if coordinates is None or not all(
        same(variable.get_value(borrow=True), value) for variable, value in coordinates.data.items()
    ):
        graph, weaker = ModelGraph(space), {}
        candidates = {name: _candidates(graph, name, weaker) for name in space.variables}
        found = predictors.find(graph, candidates) or joint_effects.find(graph, candidates)
        for site in reversed(found):  # the best, and first of all
            candidates = {site.name: [site, *candidates.pop(site.name)], **candidates}
        sites = _without_circles(space, candidates, weaker)
        coordinates = CoordinateMap(space, sites, graph.data)
        model_cache(space.model).add(key, (coordinates, weaker))
    if not log:
        return coordinates
    if coordinates:
        names = ", ".join(space.variables[name].name for name in coordinates.names)
        logger.info(f"coordinates='auto' adapts {names} to the scales in the model")
    if weaker:
        reasons = "; ".join(
            f"{space.variables[name].name} ({reason})" for name, reason in weaker.items()
        )
        logger.info(f"coordinates='auto' adapts only in part: {reasons}")
    return coordinates


def _candidates(graph, name, weaker):
    """Return the possible sites of a value variable, the best first.

    ``weaker`` gets the reason if a site is missing, or weaker than its kind could be.
    """
    rv, shape = graph.space.variables[name], graph.space.ordering[name][2]
    if 0 in shape:
        return []
    found = [
        *_of_chain(graph, name, rv, shape),
        *_of_linear_map(graph, name, rv, shape, weaker),
        *_spectral(graph, name, rv, shape, weaker),
        *_elementwise(graph, name, rv, shape),
    ]
    if not (found and found[0].form.is_chain):
        if isinstance(rv.owner.op, CHAINS):
            weaker[name] = "its steps or first values have no known location and scale"
        elif is_scanned(graph.space.model, rv):
            weaker[name] = (
                "no chain is found in a scan: use pm.AR, a random walk or cumulative sums"
            )
    return found


def _of_chain(graph, name, rv, shape):
    """Return the sites of a chain in time."""
    space = graph.space
    shapes_of = {space.variables[n]: space.ordering[n][2] for n in space.variables}
    trend = trend_prior(space.model, rv, shapes_of)
    found = chain_prior(space.model, rv, shape)
    names = {variable: n for n, variable in space.variables.items()}
    return [
        *([] if trend is None else _chain_sites(graph, name, trend, (names[trend.slope],))),
        *([] if found is None else _chain_sites(graph, name, found)),
    ]


def _chain_sites(graph, name, found, others=()):
    form = Chain(found.batch, found.n_time, found.order, centred=found.centred, last=found.last)
    by_time = (found.batch, found.n_time)
    by_lag = (found.batch, found.order, found.n_time)
    if found.centred:
        prior = [pt.as_tensor(p) for p in found.prior]
        shapes: list = [()] * 2
    else:
        shape = (form.n_dim,) if others else graph.space.ordering[name][2]
        prior = [pt.broadcast_to(pt.as_tensor(p), shape).ravel() for p in found.prior]
        shapes = [(form.n_dim,)] * 2
    woven = found.woven if others else None
    nothing, one = pt.zeros((1, 1)), pt.ones((1, 1))
    options = [] if found.noise is None else [(found.added, found.factor, found.noise)]
    options += [(added, found.factor, one) for added in (found.added, nothing)]
    return [
        site
        for seen in options
        for site in _site(
            graph,
            name,
            form,
            [found.offset, found.coefs, found.scale, *seen, *prior],
            [by_time, by_lag, *[by_time] * 4, *shapes],
            flat=False,
            part=found.part,
            alone=True,
            others=others,
            woven=woven,
        )
    ]


def _elementwise(graph, name, rv, shape):
    model = graph.space.model
    transform = model.rvs_to_transforms[rv]
    prior = location_scale(rv.owner.op, rv, transform)
    if prior is None:
        return []
    added, factor = None, None
    if transform is None or isinstance(transform, ZeroSumTransform):
        added, factor = follow(model, rv, shape)
    prior_location, prior_scale = (pt.as_tensor(p) for p in prior)
    location, scale = prior_location, prior_scale
    if factor is not None:
        location, scale = factor * location, factor * scale
    options = [location] if added is None else [location + added, location]
    form = Elementwise(math.prod(shape))
    found = [
        _site(graph, name, form, [option, scale, prior_location, prior_scale], [shape] * 4)
        for option in options
    ]
    # additions alone do not make an effect a site
    return [one for sites in found for one in sites] if found[-1] else []


def _of_linear_map(graph, name, rv, shape, weaker):
    """Return the sites of a matrix times a standardised variable."""
    linear = linear_map(graph.space.model, rv, shape)
    if linear is None:
        return []
    rows = graph.n_rows(linear.matrix)
    batch, n = linear.batch, linear.columns
    if rows is None:
        return []
    wide = linear.scale.type.broadcastable != (True,) * linear.scale.ndim
    if linear.varying or wide or batch > 1:
        basis = None if wide or linear.basis is None else graph.at_start(linear.basis)
        to_rows = None
        if basis is not None and batch * rows * n > LARGEST_MATRIX >= batch * n * n:
            # data of many rows determine as many combinations as there are columns
            to_rows, basis = np.linalg.qr(basis)
            rows = n
        if not batch * max(rows, n) * n <= LARGEST_MATRIX:
            found = _rotated(graph, name, linear, rows) if batch == 1 else []
            what = "in the basis of the start" if found else "by element"
            weaker[name] = f"{what}: its matrix, {rows} x {n}, is too large to factor per draw"
            return found or _by_elements(graph, name, linear, rows)
        form: Any
        factor_shape: tuple
        if basis is not None:
            form, factor_shape = Scaled(basis, batch, last=linear.last), (batch, n)
            factor = linear.column_scales * linear.scale.squeeze()
        else:
            form = Matrix(batch, rows, n, centred=linear.centred, last=linear.last)
            factor_shape = (batch, rows, n)
            scale = pt.broadcast_to(linear.scale, (batch, rows))
            factor = pt.broadcast_to(linear.matrix, (batch, rows, n)) * scale[..., None]
        prior = [pt.broadcast_to(pt.as_tensor(p), shape).ravel() for p in linear.prior]
        shapes = [(batch, rows), factor_shape, (batch * n,), (batch * n,)]
        return [
            site
            for location in _locations(linear)
            for site in _site(
                graph,
                name,
                form,
                [_combined(location, to_rows), factor, *prior],
                shapes,
                flat=False,
            )
        ]
    return _rotated(graph, name, linear, rows)


def _combined(location, to_rows):
    """Project a location (B, r) onto combinations of its rows (r, n)."""
    if to_rows is None:
        return location
    whole = pt.broadcast_to(location, (location.shape[0], len(to_rows)))
    return whole @ to_rows.astype(location.dtype)


def _by_elements(graph, name, linear, rows):
    """Return an elementwise site for a matrix that is too large for a basis."""
    if linear.batch > 1:
        return []
    square = (linear.matrix * pt.broadcast_to(linear.scale, (1, rows))[0, :, None]) ** 2
    scale = pt.sqrt(square.sum(axis=1 if linear.centred else 0))
    location = pt.broadcast_to(linear.location, (1, rows))[0] if linear.centred else pt.zeros(())
    prior = [location, scale] if linear.centred else [pt.as_tensor(p) for p in linear.prior]
    shapes = [(linear.columns,)] * 4
    form = Elementwise(linear.columns)
    return _site(graph, name, form, [location, scale, *prior], shapes, flat=False)


def _locations(linear):
    """Return the location of a linear map, or none if it is only an addition."""
    return [linear.location] if linear.centred else [linear.location, pt.zeros((1, 1))]


def _rotated(graph, name, linear, rows):
    """Return the site of a matrix with one scale, in its basis at the start.

    It is exact for a constant matrix. Otherwise each direction has its scale at the start.
    """
    if max(rows, linear.columns) > LARGEST_BASIS:
        return []
    if not linear.centred and not all(
        constant_of(pt.as_tensor(p)) == i for i, p in enumerate(linear.prior)
    ):
        return []
    constant = not linear.varying and all(linear.scale.type.broadcastable)
    matrix = linear.matrix
    if not constant:
        matrix *= pt.broadcast_to(linear.scale, (1, rows))[0, :, None]
    at_start = graph.at_start(matrix)
    if at_start is None:
        return []
    one_scale = all(linear.scale.type.broadcastable)
    basis = linear.basis if one_scale and not constant else None
    basis = None if basis is None else graph.at_start(basis)
    n, dtype = linear.columns, matrix.dtype
    left, singular, right = np.linalg.svd(at_start)
    least = min(n, rows)
    to_basis = np.zeros((n, rows), dtype)
    to_basis[:least] = left.T[:least]
    if constant:
        scale = linear.scale.squeeze() * np.pad(singular, (0, n - least)).astype(dtype)
    elif basis is not None:  # the product of two constants, computed once
        of_columns = ((to_basis @ basis) * right).astype(dtype)
        scale = linear.scale.squeeze() * (of_columns @ linear.column_scales)
    else:
        scale = ((to_basis @ matrix) * right.astype(dtype)).sum(axis=1)
    found = []
    for added in _locations(linear):
        added = pt.broadcast_to(added, (1, rows))[0]
        location = pt.as_tensor(to_basis) @ added
        shapes: list = [(n,)] * 4
        form, given = Rotated(right.T), [location, scale, pt.zeros(()), pt.ones(())]  # the noise
        if linear.centred and constant:
            form, given = Rotated(left), [location, scale, location, scale]
        elif linear.centred:
            form, given = Whitened(right.T), [*given, added, matrix]
            shapes += [(n,), (n, n)]
        found += _site(graph, name, form, given, shapes, flat=False)
    return found


def _spectral(graph, name, rv, shape, weaker):
    """Return the site of a field on a graph, with one scale or none."""
    if not isinstance(rv.owner.op, FIELDS) or len(shape) != 1:
        return []
    if shape[0] > LARGEST_BASIS:
        weaker[name] = f"by element: its graph has {shape[0]} nodes, too many for a basis"
        return []
    prior = spectral(rv.owner.op, rv)
    if prior is None:
        weaker[name] = "by element: its graph is not constant, or has islands"
        return []
    added, factor = follow(graph.space.model, rv, shape)
    factor = pt.ones(()) if factor is None else factor
    if not all(factor.type.broadcastable):
        return []
    factor, dtype = factor.squeeze(), rv.dtype
    to_basis = pt.as_tensor(prior.inverse.astype(dtype))
    prior_location = to_basis @ pt.broadcast_to(prior.mean, shape)
    form, found = Rotated(prior.basis, prior.inverse), []
    for extra in ([] if added is None else [added]) + [pt.zeros((1,))]:
        location = factor * prior_location + to_basis @ pt.broadcast_to(extra, shape)
        given = [location, factor * prior.scales, prior_location, prior.scales]
        found += _site(graph, name, form, given, [shape] * 4)
    return found


def _site(
    graph,
    name,
    form,
    expressions,
    shapes,
    *,
    flat=True,
    part=None,
    alone=False,
    others=(),
    woven=None,
):
    """Make a site from expressions in the model's graph, in a list; empty if they are unusable."""
    given = graph.in_values(expressions, shapes, flat=flat)
    if given is None or (part is None and not given.parents.isdisjoint((name, *others))):
        return []
    if not (given.parents - {name} or alone):
        return []
    return [Site(name, form, given.expressions, given.parents, part, others, woven)]


def _without_circles(space, candidates, weaker):
    """Sort sites after those that they depend on, without circles.

    Parameters
    ----------
    candidates : dict of str to list of Site
        Per variable, the best first.
    weaker : dict of str to str
        Gets the reason for each site that is left out.
    """
    placed: list = []
    for name, options in candidates.items():
        if any(name in s.others for s in placed):
            continue
        for site in options:
            others = [s for s in placed if s.name not in site.others]
            owner = {name: s.name for s in [*others, site] for name in s.variables}
            graph = {
                s.name: {owner.get(name, name) for name in s.parents} - {s.name}
                for s in [*others, site]
            }
            try:
                order = list(TopologicalSorter(graph).static_order())
            except CycleError:
                continue
            placed = sorted([*others, site], key=lambda s: order.index(s.name))
            break
        else:
            # a factor of a product with a fixed prior loses nothing: another factor is the scale
            rv, free = space.variables[name], set(space.model.free_RVs)
            if options and any(varies(one, free, rv) for one in rv.owner.inputs):
                weaker[name] = "it scales effects that its own scale depends on"
    return placed


def starting_coordinates(
    coordinates: CoordinateMap, points: np.ndarray, farthest: float = FARTHEST
) -> tuple[np.ndarray, dict]:
    """Place the pseudo-observations at the effects, with shares of one half.

    Parameters
    ----------
    points : (K, d) array
        Starts of the components, unconstrained space.
    farthest : float
        Largest distance of an effect at the start, in standard deviations given the scales.

    Returns
    -------
    means : (K, d) array
        The points, coordinates y.
    pseudo : dict of (P,) arrays
        Empty without sites.
    """
    if not coordinates:
        return points, {}
    n_sheared = len(coordinates.sheared)
    shear = {SHEAR: np.zeros((points.shape[1], n_sheared))} if n_sheared else {}
    nothing = dict.fromkeys(PSEUDO, np.zeros(coordinates.n_pseudo))
    nothing = {name: value.astype(points.dtype) for name, value in nothing.items()}
    given = coordinates.by_site(coordinates.straight.evaluate("coordinates", points, nothing)[2:])
    typical = [
        site.form.typical(given) for site, given in zip(coordinates.sites, given, strict=True)
    ]
    pseudo = {
        # elements with a relatively tiny scale have no information from data
        "log_precisions": np.concatenate(
            [-2 * np.maximum(scale, scale.max() + LEAST_LOG_SCALE) for _, scale in typical]
        ),
        "values": np.concatenate([location for location, _ in typical]),
        **shear,
    }
    pseudo = {name: value.astype(points.dtype) for name, value in pseudo.items()}
    means = coordinates.straight.evaluate("coordinates", points, pseudo)[0]
    for _, place, _ in coordinates.at(pseudo):
        # an effect may start 1e40 standard deviations away
        means[:, place] = np.clip(means[:, place], -farthest, farthest)
    return means, pseudo
