"""Starting points of the components."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pymc as pm
from pymc.initial_point import make_initial_point_fn
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc_isomix.backend.compilation import CHEAP, compiling, one_at_a_time
from pymc_isomix.model.batching import stabilise
from pymc_isomix.model.fitted_data import known_value
from pymc_isomix.model.model_cache import cached, graph_key
from pymc_isomix.model.space import FlatSpace

INITS = ("jitter", "prior", "uniform")
RETRIES = 50
PRIOR_TRIES = 10  # the last of the tries
START_SIGMA = 0.1  # first standard deviation of the components; they grow within tens of steps


@compiling(cxx="")
def starting_means(
    space: FlatSpace,
    n_components: int,
    *,
    start: Any = None,
    init: str = "jitter",
    init_width: float = 1.0,
    random_seed: int | None = None,
) -> np.ndarray:
    """Find a start for every component at which the model's log density is finite.

    Parameters
    ----------
    start, init, init_width
        As for :class:`pymc_isomix.IsoMix`.

    Returns
    -------
    (K, d) array
        Unconstrained space.

    Raises
    ------
    ValueError
        If a start has the wrong shape or names no variable, or no finite start is found; names
        component and variable.
    """
    with nullcontext() if space.data is None else space.data.in_place():
        return _starting_means(space, n_components, start, init, init_width, random_seed)


def _starting_means(space, n_components, start, init, init_width, random_seed):
    rng = np.random.default_rng(random_seed)
    n_dim = space.n_dim
    check = finite_check(space)
    if isinstance(start, list | tuple) and start and isinstance(start[0], dict):
        if len(start) != n_components:
            raise ValueError(
                f"start must be one dict or a list of n_components = {n_components} dicts; "
                f"got {len(start)}"
            )
        start = np.stack(
            [
                _centre(space, one, _initial_point_sampler(space, one, "support_point")(0), k)
                for k, one in enumerate(start)
            ]
        )
    if start is not None and not isinstance(start, dict):
        try:
            means = np.asarray(start, dtype=float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"start must be a dict, a list of dicts or a numeric array; got {start!r}"
            ) from error
        if means.shape != (n_components, n_dim):
            raise ValueError(
                f"start must have shape (n_components, d) = {(n_components, n_dim)} as an array in "
                f"unconstrained space; got {means.shape}"
            )
        for k, mean in enumerate(means):
            if (offenders := check(mean)) is not None:
                raise ValueError(_message(space, k, offenders, "Choose a start inside the support"))
        return means

    strategy = "prior" if init == "prior" else "support_point"
    draw_start = _initial_point_sampler(space, start, strategy)
    centre = None
    if init != "prior":
        centre = _centre(space, start, draw_start(rng.integers(2**30)), 0)
    from_prior = None
    if init == "uniform" and start is None:
        centre = np.zeros(n_dim)
    means = np.empty((n_components, n_dim))
    for k in range(n_components):
        for attempt in range(RETRIES):
            if init == "prior":
                means[k] = draw_start(rng.integers(2**30))
            elif attempt >= RETRIES - PRIOR_TRIES and start is None:
                from_prior = from_prior or _prior_sampler(space)
                means[k] = from_prior(rng.integers(2**30))
            else:
                # the support may lie elsewhere or be narrow, so every other try is closer
                width = init_width * (1.0 if attempt % 2 == 0 else 0.8**attempt)
                means[k] = centre + rng.uniform(-width, width, size=n_dim)
            if (offenders := check(means[k])) is None:
                break
        else:
            way_out = "pass start=" if start is None else "choose a start inside the support"
            advice = (
                f"All {RETRIES} draws of init={init!r} failed: {way_out}, another init= or a "
                "smaller init_width=. model.debug() shows impossible data"
            )
            raise ValueError(_message(space, k, offenders, advice))
    return means


def starting_scale(
    space: FlatSpace, metric: str, start_sigma: Any, *, diagonal: bool = False
) -> tuple[Any, np.ndarray]:
    """Return the components' first log variances and the first metric.

    Parameters
    ----------
    metric : {"identity", "diag", "dense"}
    start_sigma : float, dict or None
        As for :class:`pymc_isomix.IsoMix`. Isotropic components with an identity metric have the
        root mean square in all dimensions.
    diagonal : bool
        Whether components have one variance per dimension.

    Returns
    -------
    log_variance : (d,) array where components are diagonal, else a float
    metric : () , (d,) or (d, d) array
    """
    sigma = np.full(space.n_dim, START_SIGMA)
    if isinstance(start_sigma, dict):
        values = {rv.name: name for name, rv in space.variables.items()}
        for name, value in start_sigma.items():
            # PyMC's own start_sigma names value variables, such as tau_log__
            value_name = values.get(name, name)
            if value_name not in space.ordering:
                raise ValueError(
                    f"start_sigma has {name!r}, which is not a variable of the model; "
                    f"the variables are {sorted(values)}"
                )
            _, place, shape, _ = space.ordering[value_name]
            sigma[place] = np.ravel(_broadcast("start_sigma", value, shape, name))
    elif start_sigma is not None:
        sigma[:] = _broadcast("start_sigma", start_sigma, ())
    if not np.all(np.isfinite(sigma) & (sigma > 0)):
        raise ValueError(f"start_sigma must be positive and finite; got {start_sigma!r}")
    if metric == "identity" and diagonal:
        return 2 * np.log(sigma), np.ones(())
    log_variance = np.log(np.mean(sigma**2))
    sigma = sigma / np.exp(0.5 * log_variance)
    if diagonal:
        log_variance = np.full(space.n_dim, log_variance)
    if metric == "identity":
        return log_variance, np.ones(())
    return log_variance, np.diag(sigma) if metric == "dense" else sigma


def _centre(space, start, flat, component):
    """Replace non-finite values of a point (d,) by zero; raise if ``start`` caused them."""
    given = {_name_of(variable): v for variable, v in (start or {}).items()}
    for name, (_, place, _, _) in space.ordering.items():
        if np.all(np.isfinite(flat[place])):
            continue
        rv_name = space.variables[name].name
        for key in (rv_name, name):
            if key in given:
                value = np.array2string(np.asarray(given[key]), threshold=5)
                advice = f"start has {value} there: choose a start inside the support"
                raise ValueError(_message(space, component, [rv_name], advice))
    # PyMC's initial point of an ordered variable has equal values, which map to -inf
    return np.where(np.isfinite(flat), flat, 0.0)


def _name_of(variable):
    """Name of a variable, which the user may give by its name or as itself."""
    return variable.name if isinstance(variable, Variable) else str(variable)


def _prior_sampler(space):
    """Return a function from a seed to a draw of the prior, or to zeros if it is improper."""
    try:
        everywhere = {rv.name: "prior" for rv in space.model.free_RVs}  # overrides initval
        return _initial_point_sampler(space, everywhere, "prior")
    except ValueError:
        return lambda seed: np.zeros(space.n_dim)


def _initial_point_sampler(space, start, strategy):
    """Return a function from a seed to a flat unconstrained point.

    ``start`` may come from ``pm.find_MAP``. Its unconstrained values count for variables that it
    does not name otherwise, and its deterministics are ignored.
    """
    model = space.model
    known = {rv.name for rv in model.free_RVs}
    derived = {v.name for v in model.deterministics}
    shapes = model.eval_rv_shapes() if start else {}
    overrides, unconstrained = {}, {}
    for variable, value in (start or {}).items():
        name = _name_of(variable)
        if name in space.ordering and name not in known:
            unconstrained[name] = _broadcast("start", value, space.ordering[name][2], name)
        elif name in known:
            overrides[variable] = value
        elif name not in derived:
            raise ValueError(
                f"start has {name!r}, which is not a free variable of the model; those are "
                f"{sorted(known)}"
            )
        if name not in known:
            continue
        if not isinstance(value, str | Variable):  # not PyMC's strategies and expressions
            _broadcast("start", value, tuple(map(int, shapes[name])), name)
    named = {_name_of(variable) for variable in overrides}
    unconstrained = {n: v for n, v in unconstrained.items() if space.variables[n].name not in named}
    try:
        sampler = _point_function(space, overrides, strategy)
        _draw(sampler, 0)
    except NotImplementedError as error:
        raise ValueError(
            f"init='prior' needs a proper prior for every variable ({error}); "
            "use init='jitter' or pass start="
        ) from error

    def sample(seed):
        values = _draw(sampler, int(seed))
        return (
            np.full(space.n_dim, np.nan)
            if values is None
            else space.flatten(values | unconstrained)
        )

    return sample


def _draw(sampler, seed):
    """Draw a point, which may not be finite; None if a draw of a prior divides by zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            return sampler(seed)
        except ZeroDivisionError:  # of InverseGamma(.001, .001), whose inverse underflows
            return None


def _point_function(space, overrides, strategy):
    """Return PyMC's function from a seed to an initial point; cached unless values are given."""
    model, options = space.model, {"default_strategy": strategy, "return_transformed": True}

    def make():
        return one_at_a_time(make_initial_point_fn(model=model, overrides=overrides, **options))

    initial = tuple(model.rvs_to_initial_values.values())
    if not all(isinstance(value, str | None) for value in (*initial, *overrides.values())):
        return make()
    return cached(model, ("point", strategy, *overrides.items(), initial, graph_key(space)), make)


def _broadcast(argument, value, shape, name=None):
    """Broadcast a value of an argument, or of its entry ``name``, to its shape."""
    try:
        return np.broadcast_to(np.asarray(value, dtype=float), shape)
    except (TypeError, ValueError) as error:
        entry = "" if name is None else f" for {name!r}"
        raise ValueError(
            f"{argument} must be numeric of shape {shape}{entry}; got {value!r}"
        ) from error


def offending_variables(space: FlatSpace, flat: np.ndarray) -> list:
    """Name the variables whose log density is not finite at a flat unconstrained point."""
    return finite_check(space)(flat) or []


def finite_check(space: FlatSpace) -> Callable:
    """Return a function from a flat point to the variables with no finite log density, or None."""
    return cached(space.model, ("finite", graph_key(space)), lambda: _finite_check(space))


@compiling(cxx="")
def _finite_check(space):
    model = space.model
    terms_of = model.free_RVs + model.observed_RVs + model.potentials
    names = [variable.name for variable in terms_of]
    terms = stabilise(model.logp(sum=False))  # one per variable, in that order
    with warnings.catch_warnings():
        # PyMC clones a minibatch of counts or booleans; any clone will do here
        warnings.filterwarnings("ignore", message="RNG Variable .* multiple distinct clients")
        options = {"inputs": model.value_vars, "mode": CHEAP, "on_unused_input": "ignore"}
        evaluate = one_at_a_time(model.compile_fn(terms, **options))

    def check(flat):
        point = space.unflatten(flat)
        for name, value in point.items():
            if not np.all(np.isfinite(value)):
                return [space.variables[name].name]
        with np.errstate(all="ignore"):
            values = evaluate({**space.elsewhere, **point})
        offenders = [n for n, v in zip(names, values, strict=True) if not np.isfinite(np.sum(v))]
        return offenders or None

    return check


def _message(space, component, offenders, advice):
    if data := data_not_finite(space.model, offenders):
        return (
            f"{'; '.join(data)}. Remove them, or let PyMC impute missing observations: pass a "
            "masked array to observed="
        )
    names = ", ".join(offenders)
    return f"start of component {component}: the log density of {names} is not finite. {advice}"


def data_not_finite(model: pm.Model, names: list[str]) -> list:
    """Say which data of some variables, or of their parents, are not finite, and how many."""
    said = {}
    for name in names:
        variable = model[name]
        own = [model.rvs_to_values[variable]] if variable in model.observed_RVs else []
        for roots, whose in (
            (ancestors(own), f"the observed data of {name}"),
            (ancestors([variable]), f"an array on which {name} depends"),
        ):
            for root in roots:
                value = _data_of(root)
                if value is None or root in said:
                    continue
                n_nan, n_infinite = int(np.isnan(value).sum()), int(np.isinf(value).sum())
                if n_nan or n_infinite:
                    what = f"the data {root.name!r}" if root.name else whose
                    counts = [
                        f"{n} {kind}" for n, kind in ((n_nan, "NaN"), (n_infinite, "inf")) if n
                    ]
                    said[root] = f"{what}, shape {value.shape}, have {' and '.join(counts)}"
    return list(said.values())


def _data_of(root):
    """Value of a shared variable or constant array of floats, else None."""
    value = known_value(root)
    is_data = isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f"
    return np.asarray(value) if is_data else None  # pm.set_data makes masked arrays of NaN
