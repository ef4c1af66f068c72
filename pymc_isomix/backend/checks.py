"""Checks of what the user passes, made before anything compiles."""

from numbers import Integral, Real

import numpy as np
import pymc as pm
from pymc.distributions.continuous import FlatRV, HalfFlatRV
from pymc.distributions.simulator import SimulatorRV
from pymc.vartypes import discrete_types
from pytensor.compile.mode import Mode, predefined_modes
from pytensor.gradient import NullTypeGradError
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.random.op import RandomVariable

from pymc_isomix.backend.upstream import dropped_by_pm_fit

BACKENDS = ("jax", "numba", "c")


def check_choice(name, value, choices):
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_count(name, value, *, least=1):
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")


def check_seed(seed):
    """Return a seed: the integer itself, None, or one drawn from a NumPy generator."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**30))
    if seed is not None:
        check_count("random_seed", seed, least=0)
    return seed


def check_fit(n, backend, callbacks):
    """Raise unless the arguments of a fit are what they should be.

    PyMC compiles for some backends by a name of its own; others are PyTensor's names of modes.
    """
    check_count("n", n, least=0)
    known = backend in BACKENDS or isinstance(backend, Mode)
    if backend is not None and not known and str(backend).upper() not in predefined_modes:
        raise ValueError(
            f"backend must be one of {', '.join(map(repr, BACKENDS))}, or None; got {backend!r}"
        )
    if callable(callbacks):
        raise TypeError(f"callbacks must be a list of callables; got {callbacks!r}: put it in [ ]")
    for callback in callbacks or ():
        if not callable(callback):
            raise TypeError(f"callbacks must be a list of callables; it holds {callback!r}")


def check_number(name, value, *, zero=False):
    """Raise unless ``value`` is a finite positive number, or zero where that is allowed."""
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool))
    finite = is_number and bool(np.isfinite(float(value)))
    if not finite or value < 0 or (value == 0 and not zero):
        rule = "non-negative" if zero else "positive"
        raise ValueError(f"{name} must be a {rule} finite number; got {value!r}")


def check_model(model):
    """Return the model, or that of the context; raise unless it has only continuous variables."""
    try:
        model = pm.modelcontext(model)
    except TypeError as error:
        raise TypeError(
            "there is no model: call this inside `with model:`, or pass model= (to IsoMix itself, "
            "since pm.fit does not pass its own on)"
        ) from error
    if not model.free_RVs:
        raise TypeError("the model has no free random variables: there is nothing to fit")
    if discrete := [rv.name for rv in model.free_RVs if rv.dtype in discrete_types]:
        raise TypeError(
            f"IsoMix fits continuous variables only; discrete: {', '.join(discrete)}. "
            "Marginalise them, with pymc_extras.marginalize for example"
        )
    if flat := _improper(model):
        raise TypeError(
            f"the posterior is improper: {', '.join(flat)} has a flat prior, and no data and no "
            "potential depend on it. Give it a proper prior, or take it out"
        )
    if (culprit := _without_gradient(model)) is not None:
        raise TypeError(
            f"IsoMix needs the gradient of the log density, and {culprit} has none. Give the Op a "
            "pullback, write it with PyTensor or JAX (pytensor.wrap_jax), or use pm.sample_smc"
        )
    return model


def _improper(model):
    """Names of free variables with a flat prior on which nothing depends."""
    flat = [rv for rv in model.free_RVs if isinstance(rv.owner.op, FlatRV | HalfFlatRV)]
    if not flat:
        return []
    others = [rv for rv in [*model.basic_RVs, *model.potentials] if rv not in flat]
    used = set(ancestors(others))
    return [rv.name for rv in flat if rv not in used]


def _without_gradient(model):
    """Name an Op between the free variables and the log density that has no gradient, or None.

    A look at the graph costs nothing; only where there is a suspect is the gradient taken.
    """
    free = set(model.free_RVs)
    depends = set(free)
    suspects = []
    for node in toposort([*model.basic_RVs, *model.potentials]):
        if depends.isdisjoint(node.inputs):
            continue
        depends.update(node.outputs)
        if isinstance(node.op, SimulatorRV):
            suspects.append(f"pm.Simulator {node.outputs[-1].name!r}")
        elif not isinstance(node.op, RandomVariable) and _has_no_pullback(node.op):
            suspects.append(f"the Op {type(node.op).__name__}")
    if suspects:
        try:
            model.dlogp()
        except (NotImplementedError, NullTypeGradError):
            return suspects[0]
    return None


def _has_no_pullback(op):
    kind = type(getattr(op, "core_op", op))
    return all(
        getattr(kind, name, None) is getattr(Op, name, None)
        for name in ("pullback", "L_op", "grad")
    )


def refuse_what_pm_fit_drops(caller, model):
    """Raise if ``pm.fit`` was given arguments that it drops beside an Inference instance.

    Parameters
    ----------
    caller : frame
        Of whoever called ``IsoMix.fit``; only a frame of ``pm.fit`` is looked into, since nothing
        else tells what it was given.
    model : pymc.Model
    """
    given = dropped_by_pm_fit(caller)
    if given is None:
        return
    dropped = [name for name in ("start", "random_seed") if given.get(name) is not None]
    dropped += ["inf_kwargs"] if set(given.get("inf_kwargs") or ()) - set(dropped) else []
    if dropped:
        raise ValueError(
            f"pm.fit drops {', '.join(dropped)} when method is an instance; "
            "pass it to IsoMix(...) instead"
        )
    if given.get("model") is not None and given["model"] is not model:
        raise ValueError(
            "pm.fit was called for another model than the one that IsoMix was made for; "
            "pass model= to IsoMix"
        )
