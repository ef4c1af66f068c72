r"""Sites of crossed effects with few levels: all effects of a linear predictor together.

Elements of different families of effects share rows of data, as those of ethnicity and of sex by
ethnicity. If a family has few levels, its scale is hardly known, and with it changes what the other
families have to explain. Given all scales, the effects are jointly Gaussian up to the likelihood of
the rows :math:`\theta = f + A \operatorname{diag}(s) \zeta`, with a constant design A. The site
maps them as Laplace's method does given the hyperparameters.
"""

import math

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random import basic

from pymc_isomix.sites.coordinates import Site
from pymc_isomix.sites.elementwise import Elementwise
from pymc_isomix.sites.matrices import ScaledPredictor
from pymc_isomix.sites.predictors import Search, noise_of, slopes_of
from pymc_isomix.sites.values import ModelGraph

FEW_LEVELS = 10  # of the smallest family: with more, effects one by one are good enough
MOST_COLUMNS, MOST_CELLS = 150, 2**19  # of A; entries
ALIKE = 1e-6  # relative difference of a constant design at two points


def find(graph: ModelGraph, candidates: dict[str, list[Site]]) -> list[Site]:
    """Return the site of all effects of a linear predictor, in a list; empty if there is none.

    Parameters
    ----------
    candidates : dict of str to list of Site
        The possible sites of variables by their prior or use.
    """
    space, model = graph.space, graph.space.model
    informed = set(ancestors([v for rv in model.free_RVs for v in rv.owner.inputs]))
    parts = {}
    for name, rv in space.variables.items():
        is_normal = isinstance(rv.owner.op, basic.NormalRV) and not model.rvs_to_transforms[rv]
        # other variables' priors inform parents, too, and no predictor has them
        if is_normal and rv not in informed and 0 not in space.ordering[name][2]:
            part = _elements(graph, name, rv, candidates[name])
            if part is not None:
                parts[name] = part
    size_of = {name: math.prod(space.ordering[name][2]) for name in parts}
    sizes = [size for name, size in size_of.items() if candidates[name]]
    total = sum(size_of.values())
    if len(sizes) < 2 or min(sizes) >= FEW_LEVELS or total > MOST_COLUMNS:
        return []
    site = _site(graph, list(parts), list(parts.values()))
    return [] if site is None else [site]


def _elements(graph, name, rv, options):
    """Given scale of effects, and prior location and scale, of a variable's elements; or None."""
    if options:
        site = options[-1]  # without what is added to the effects
        usable = type(site.form) is Elementwise and not site.others and site.part is None
        return (site.given[1:], site.parents) if usable else None
    shape = graph.space.ordering[name][2]
    mean, scale = rv.owner.op.dist_params(rv.owner)
    given = graph.in_values([mean, scale], [shape] * 2, flat=True)
    if given is None or given.parents:
        return None
    mean, scale = given.expressions
    return (scale, mean, scale), given.parents


def _site(graph, names, parts):
    """Make the site of some variables; None if the design varies, or no datum sees one of them."""
    space = graph.space
    scales, locations, prior_scales = (
        pt.concatenate([given[i] for given, _ in parts]) for i in range(3)
    )
    designs = []
    for seed in (0, 1):
        search = Search(graph, {}, seed)
        ends, columns = search.ends_and_columns(names)
        if columns is None or not columns.size or columns.size > MOST_CELLS:
            return None
        ends_of_names = np.cumsum([math.prod(space.ordering[name][2]) for name in names])
        if not all(part.any() for part in np.split(columns, ends_of_names[:-1])):
            return None
        scale, prior_scale = search.at_point(scales, prior_scales)
        designs.append(columns.T * (prior_scale / scale))
    design, again = designs
    largest = ALIKE * np.abs(design).max()
    if not np.isfinite(design).all() or not np.allclose(design, again, rtol=ALIKE, atol=largest):
        return None
    variables = [space.variables[name] for name in names]
    noise = [noise_of(space.model, end, variables) for end in ends]
    if any(not isinstance(unit, float) and not all(unit.type.broadcastable) for _, unit in noise):
        return None
    if len({id(unit) for _, unit in noise}) > 1:
        return None
    slopes = slopes_of(space.model, ends)
    if slopes is None:
        return None
    means = {
        rv: pt.broadcast_to(rv.owner.op.dist_params(rv.owner)[0], space.ordering[name][2]).astype(
            rv.dtype
        )
        for name, rv in zip(names, variables, strict=True)
    }
    unit = pt.as_tensor(noise[0][1]).squeeze()

    def rows(of_ends):
        return pt.concatenate([one.ravel() for one in of_ends])[None]

    at_means = graph_replace(ends, means, strict=False)
    shifted = [end - shift for end, (shift, _) in zip(at_means, noise, strict=True)]
    n_rows = len(design)
    given = graph.in_values([rows(shifted) / unit, unit], [(1, n_rows), ()])
    learned_from = graph.in_values([rows(slopes) * unit], [(1, n_rows)])
    if given is None or learned_from is None:
        return None
    parents = given.parents.union(*(own for _, own in parts))
    if not parents.isdisjoint(names):
        return None
    location, unit = given.expressions
    first, *others = names
    return Site(
        first,
        ScaledPredictor(design),
        (location, (scales / unit)[None], locations, prior_scales),
        parents,
        None,
        tuple(others),
        np.arange(design.shape[1]),
        learned_from.expressions,
    )
