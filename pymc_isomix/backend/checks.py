"""Checks of what the user passes, made before anything compiles."""

from numbers import Integral, Real

import numpy as np
import pymc as pm
from pymc.vartypes import discrete_types


def check_choice(name, value, choices):
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_count(name, value, *, least=1):
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")


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
            "IsoMix needs a model: make it inside `with model:` or pass model= "
            "(pm.fit does not pass its own on)"
        ) from error
    if not model.free_RVs:
        raise TypeError("the model has no free random variables: there is nothing to fit")
    if discrete := [rv.name for rv in model.free_RVs if rv.dtype in discrete_types]:
        raise TypeError(
            f"IsoMix fits continuous variables only; discrete: {', '.join(discrete)}. "
            "Marginalise them, with pymc_extras.marginalize for example"
        )
    return model


def refuse_what_pm_fit_drops(caller, model):
    """Raise if ``pm.fit`` was given arguments that it drops beside an Inference instance.

    Parameters
    ----------
    caller : frame
        Of whoever called ``IsoMix.fit``; only a frame of ``pm.fit`` is looked into, since nothing
        else tells what it was given.
    model : pymc.Model
    """
    if caller.f_code is not pm.fit.__code__:
        return
    given = caller.f_locals
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
