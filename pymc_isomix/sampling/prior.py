"""The approximation as the prior of another model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.variable import TensorVariable

from pymc_isomix.family import density
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.model.fitted_data import shared_variables
from pymc_isomix.model.space import axis_labels
from pymc_isomix.sites.blocks import BlockMixture


def as_prior(
    approx: Any, var_names: Sequence[str] | None = None, *, name: str = "prior"
) -> dict[str, TensorVariable]:
    r"""Make the fitted mixture the prior of variables in the model of the context.

    Use it for data that arrive later. The joint prior is exactly the approximation, with its
    correlations, modes, transforms and coordinates. Nothing is estimated from draws.

    Parameters
    ----------
    approx : IsotropicMixture
        Or one mixture group of an approximation with several groups.
    var_names : str or list of str, optional
        Free variables or deterministics of the fitted model; all free variables by default.
        Variables that are left out are integrated out.
    name : str
        Name of the free variable that is added: a vector u with mean zero and unit covariance. The
        others are deterministic functions of it.

    Returns
    -------
    dict of str to TensorVariable
        The variables by name: deterministics of the model of the context, with their dims.

    Raises
    ------
    TypeError
        If ``approx`` is not an approximation, or there is no model in the context.
    ValueError
        If a name is unknown in the fitted model or taken in the new one, a dim has different coords
        there, or a variable depends on something that the approximation does not have.

    Notes
    -----
    The mixture lives in coordinates :math:`y = \bar\mu + R u`, and :math:`R R^T` is its covariance.
    u is the free variable; z and the values of the variables follow from it. Only the part of y
    remains that the variables depend on: their own places and, for effects of a hierarchy, those of
    their scales. Data that a deterministic depends on stay as they are now.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu, sigma = pm.Normal("mu", 0, 10), pm.HalfNormal("sigma")
    ...     approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
    >>> with pm.Model() as model:
    ...     prior = pmi.as_prior(approx, ["mu", "sigma"])
    ...     y = pm.Normal("y", prior["mu"], prior["sigma"], observed=[0.3])
    >>> model.free_RVs, model.deterministics
    ([prior], [mu, sigma])
    """
    density = getattr(approx, "density", None)
    if not isinstance(density, BlockMixture):
        raise TypeError(
            f"approx must be an IsotropicMixture; got {type(approx).__name__}. Draws do not "
            "contain the mixture: pass what pm.fit or pymc_isomix.load(path) returned"
        )
    if len(density.blocks) > 1:
        raise TypeError(
            "approx must be one fit, because joined fits have different coordinates. Use the fit "
            "with the largest weight, or draws"
        )
    model, space = pm.modelcontext(None), approx.space
    if model is space.model:
        raise ValueError(
            "as_prior adds variables to a new model, not to the fitted one: call it inside "
            "`with pm.Model():`"
        )
    expressions = _chosen(space.model, var_names)
    for taken in {name, *expressions} & set(model.named_vars):
        way_out = "pass another name=" if taken == name else "leave it out of var_names"
        raise ValueError(f"the new model already has a variable {taken!r}; {way_out}")
    dims = {own: _agreed_dims(space.model, model, own) for own in expressions}
    mixture, coordinates = density.sketch, density.coordinates
    dimensions = _places(space, mixture, coordinates, expressions)
    standard = standardise(mixture, dimensions)
    with model:
        u = _standard_variable(name, standard)
        part = standard.centre + (
            standard.root @ u if standard.root.ndim == 2 else standard.root * u
        )
        y = pt.set_subtensor(pt.zeros(space.n_dim, dtype=part.dtype)[dimensions], part)
        values, _ = coordinates.forward(y)
        replaced = graph_replace(
            list(expressions.values()),
            {v: values[v.name] for v in space.model.value_vars if v.name in values},
            strict=False,
        )
        return {
            own: pm.Deterministic(own, expression, dims=dims[own])
            for own, expression in zip(expressions, replaced, strict=True)
        }


class Standard(NamedTuple):
    """A mixture of some dimensions, standardised: y = centre + root u, v = whitening u.

    In v the components have ``means``, ``log_variances`` and ``log_weights``, without a metric.
    ``root`` and ``whitening`` are (n, n) for a dense metric, else diagonals (n,).
    """

    centre: np.ndarray
    root: np.ndarray
    whitening: np.ndarray
    unwhitening: np.ndarray
    means: np.ndarray
    log_variances: np.ndarray
    log_weights: np.ndarray


def standardise(mixture: Mixture, dimensions: np.ndarray) -> Standard:
    """Standardise the marginal of a mixture: mean zero, unit covariance.

    Parameters
    ----------
    dimensions : (n,) integer array
        Dimensions of the marginal; of diagonal components with a dense metric, all.
    """
    weights, means, log_variances = (
        mixture.weights,
        mixture.means[:, dimensions],
        mixture.log_variances,
    )
    centre, own = weights @ means, np.exp(log_variances)
    if log_variances.ndim == 2:
        log_variances, own = log_variances[:, dimensions], own[:, dimensions]
    within, offsets = weights @ own, means - centre
    if mixture.metric.ndim == 2:
        metric = mixture.metric
        if len(dimensions) < mixture.n_dim:
            metric = np.linalg.cholesky((metric @ metric.T)[np.ix_(dimensions, dimensions)])
        between = (weights[:, None] * offsets).T @ offsets
        root = np.linalg.cholesky(metric * within @ metric.T + between)
        whitening, unwhitening = np.linalg.solve(metric, root), np.linalg.solve(root, metric)
        whitened = np.linalg.solve(metric, offsets.T).T
    else:
        metric = np.broadcast_to(mixture.metric, (mixture.n_dim,))[dimensions]
        root = np.sqrt(metric**2 * within + weights @ offsets**2)
        whitening, unwhitening, whitened = root / metric, metric / root, offsets / metric
    parts = (centre, root, whitening, unwhitening, whitened, log_variances, mixture.log_weights)
    return Standard(*(np.asarray(part, dtype=means.dtype) for part in parts))


def _standard_variable(name, standard):
    """Make the free variable u (n,) in the model of the context."""
    means, log_variances, log_weights = (pt.constant(part) for part in standard[-3:])
    whitening, n_dim = standard.whitening, len(standard.centre)
    dense = whitening.ndim == 2
    diagonal = np.diag(whitening) if dense else whitening
    log_determinant = float(np.log(np.abs(diagonal)).sum())

    def logp(value):
        v = whitening @ value if dense else whitening * value
        log_q = density.log_density(v[None], means, log_variances, log_weights)[0]
        return log_q + log_determinant

    def dist(size):
        component = pm.Categorical.dist(p=pt.exp(log_weights), size=size)
        deviations = density.as_matrix(pt.exp(0.5 * log_variances)) * np.ones(n_dim)
        v = pm.Normal.dist(means[component], deviations[component])
        back = standard.unwhitening.astype(v.dtype)
        return v @ back.T if dense else v * back

    return pm.CustomDist(
        name,
        logp=logp,
        dist=dist,
        support_point=lambda rv, size: pt.zeros_like(rv),
        signature="->(d)",
        class_name="FittedMixture",
    )


def _chosen(model, var_names):
    """Return the variables as expressions of value variables and constants, by name."""
    free = [variable.name for variable in model.free_RVs]
    known = [*free, *(variable.name for variable in model.deterministics)]
    names = [var_names] if isinstance(var_names, str) else var_names
    names = free if names is None else list(dict.fromkeys(names))
    for own in names:
        if own not in known:
            raise ValueError(
                f"var_names has {own!r}, which is not a free variable or deterministic of the "
                f"fitted model; those are {', '.join(known)}"
            )
    by_name = {v.name: v for v in model.unobserved_value_vars}
    expressions = [by_name[own] for own in names]
    shared: dict = {
        v: pt.constant(v.get_value(), dtype=v.type.dtype) for v in shared_variables(expressions)
    }
    expressions = graph_replace(expressions, shared, strict=False) if shared else expressions
    found = dict(zip(names, expressions, strict=True))
    for own, expression in found.items():
        if any(v.owner and isinstance(v.owner.op, RandomVariable) for v in ancestors([expression])):
            raise ValueError(
                f"{own!r} depends on a random variable that is unnamed or observed: leave it out "
                "of var_names, and define it again in the new model"
            )
    return found


def _agreed_dims(fitted, model, own):
    """Return the dims of a variable, after giving the new model their coords, or None."""
    dims = fitted.named_vars_to_dims.get(own)
    for dim in dims or ():
        if dim is None:
            continue
        length = int(fitted.dim_lengths[dim].eval())
        if dim not in model.dim_lengths:
            model.add_coord(dim, fitted.coords.get(dim), length=length)
            continue
        there = int(model.dim_lengths[dim].eval())
        if list(axis_labels(model, dim, there)) != list(axis_labels(fitted, dim, length)):
            raise ValueError(
                f"dim {dim!r} of {own!r} has different coords in the new model; use the coords of "
                "the fitted model, or another dim name"
            )
    return dims


def _places(space, mixture, coordinates, expressions):
    """Return the dimensions of y (n,) that variables depend on, in order."""
    values = {v: v.name for v in space.model.value_vars}
    needed = {values[v] for v in ancestors(list(expressions.values())) if v in values}
    if missing := needed - set(space.ordering):
        raise ValueError(
            f"{', '.join(expressions)} depend on {', '.join(sorted(missing))}, which the "
            "approximation does not have; choose other var_names"
        )
    owners = [name for name, (_, p, _, _) in space.ordering.items() for _ in range(p.start, p.stop)]
    sheared = {owners[i] for i in coordinates.map.sheared}
    sites = [
        ({*site.variables}, {*site.variables, *site.parents, *sheared})
        for site in coordinates.map.sites
    ]
    groups, before = [(sheared, sheared), *sites], 0
    while len(needed) > before:
        before = len(needed)
        needed = needed.union(*(others for own, others in groups if not needed.isdisjoint(own)))
    places = [place for name, (_, place, _, _) in space.ordering.items() if name in needed]
    if mixture.metric.ndim == 2 and mixture.log_variances.ndim == 2:
        places = [slice(0, space.n_dim)]  # their marginals are not in the family
    return np.concatenate([np.arange(place.start, place.stop) for place in places])
