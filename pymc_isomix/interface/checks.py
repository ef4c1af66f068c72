"""Checks of a model, and of the arguments of a fit, made before anything compiles."""

from difflib import get_close_matches
from typing import Any

import numpy as np
import pymc as pm
from pymc.distributions.continuous import FlatRV, HalfFlatRV
from pymc.distributions.simulator import SimulatorRV
from pymc.vartypes import discrete_types
from pytensor.compile import SharedVariable
from pytensor.compile.mode import Mode, predefined_modes
from pytensor.gradient import NullTypeGradError
from pytensor.graph.basic import Constant
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.random.op import RandomVariable

from pymc_isomix.backend.checks import check_count
from pymc_isomix.backend.upstream import dropped_by_pm_fit
from pymc_isomix.model.compiled import has_minibatches
from pymc_isomix.model.fitted_data import known_value

BACKENDS = ("jax", "numba", "c")
CLOSE = 0.78  # similarity of a misspelt name
# arguments of other samplers, and what to do instead
MEANT = {
    "chains": "draws are independent and form one chain. For many starts, use pmi.fit_ensemble",
    "cores": "a fit runs in one process. For parallel fits, use pmi.fit_ensemble(n_jobs=...)",
    "tune": "a fit has no tuning phase: n= bounds its iterations, and it stops by itself",
    "method": "pmi.fit always uses IsoMix; with pm.fit, write method=pmi.IsoMix(...)",
    "inf_kwargs": "pass the arguments of IsoMix directly",
    "samples": "use draws= for the returned draws, n_samples= for those in each step",
    "seed": "use random_seed=",
    "random_state": "use random_seed=",
    "nuts_sampler": "approx.sample_nuts() runs NUTS from a fit",
    "target_accept": "approx.sample_nuts() runs NUTS from a fit",
}


def check_fit(n: int, backend: str | None, callbacks: list | None) -> None:
    """Raise unless the arguments of a fit are valid.

    A backend is a name of PyMC's or the name of a PyTensor mode.
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
            raise TypeError(f"callbacks must be a list of callables; it contains {callback!r}")


def refuse_unknown(function: str, given: dict, known: set) -> None:
    """Raise TypeError for unknown arguments, and suggest what may be meant."""
    refuse_misspelt(function, given, known)
    for name in given:
        if name not in known:
            near = get_close_matches(name, MEANT, 1, CLOSE)
            raise TypeError(
                f"{function}() takes no {name}" + "".join(f": {MEANT[n]}" for n in near)
            )


def refuse_misspelt(function: str, given: dict, known: Any) -> None:
    """Raise TypeError for an argument whose name is nearly that of a known one."""
    for name in given:
        near = get_close_matches(name, known, 1, CLOSE)
        if near and name not in {*known, *MEANT}:
            raise TypeError(f"{function}() takes no {name}: did you mean {near[0]}=?")


def check_model(model: Any) -> pm.Model:
    """Return the model, or that of the context; raise unless it has only continuous variables."""
    model = given_model(model, " (to IsoMix, because pm.fit does not forward its own)")
    if not model.free_RVs:
        raise TypeError("the model has no free random variables: there is nothing to fit")
    if discrete := [rv.name for rv in model.free_RVs if rv.dtype in discrete_types]:
        raise TypeError(
            f"IsoMix fits continuous variables only; discrete: {', '.join(discrete)}. "
            "Marginalise them, for example with pymc_extras.marginalize"
        )
    if flat := _improper(model):
        raise TypeError(
            f"the posterior is improper: {', '.join(flat)} has a flat prior, and no data and no "
            "potential depend on it. Give it a proper prior, or remove it"
        )
    _refuse_misfitting_coords(model)
    if (culprit := _without_gradient(model)) is not None:
        raise TypeError(
            f"IsoMix needs the gradient of the log density, and {culprit} has none. Give the Op a "
            "pullback, write it with PyTensor or JAX (pytensor.wrap_jax), or use pm.sample_smc"
        )
    return model


def given_model(model: Any, hint: str = "") -> pm.Model:
    """Return the model, or that of the context; raise TypeError if there is none."""
    if model is not None and not isinstance(model, pm.Model):
        raise TypeError(f"model must be a pymc.Model; got {type(model).__name__}")
    try:
        return pm.modelcontext(model)
    except TypeError as error:
        raise TypeError(
            f"there is no model: call this inside `with model:`, or pass model={hint}"
        ) from error


def _refuse_misfitting_coords(model):
    """Raise ValueError if the length of a variable differs from that of its coords.

    Lengths are compared if they are known without a computation. A variable that depends on a
    minibatch is shorter than its dim. A deterministic may have any length, as in Bambi's cumulative
    models.
    """
    if has_minibatches(model):
        return
    for name, dims in model.named_vars_to_dims.items():
        if model[name] in model.deterministics:
            continue
        for dim, length in zip(dims, _known_shape(model, model[name]), strict=False):
            expected = known_value(model.dim_lengths.get(dim))
            if length is not None and expected is not None and length != expected:
                raise ValueError(
                    f"dim {dim!r} has length {int(expected)}, and {name} has length {length} along "
                    f"it: give coords of {dim!r} and {name} the same length"
                )


def _known_shape(model, variable):
    value = model.rvs_to_values.get(variable) if variable in model.observed_RVs else None
    static = variable.type.shape
    for data in (variable, value):
        if isinstance(data, SharedVariable | Constant):
            static = np.asarray(known_value(data)).shape
    return static


def _improper(model):
    """Names of free variables with a flat prior that nothing depends on."""
    flat = [rv for rv in model.free_RVs if isinstance(rv.owner.op, FlatRV | HalfFlatRV)]
    if not flat:
        return []
    others = [rv for rv in [*model.basic_RVs, *model.potentials] if rv not in flat]
    used = set(ancestors(others))
    return [rv.name for rv in flat if rv not in used]


def _without_gradient(model):
    """Name an Op without gradient between the free variables and the log density, or None.

    The gradient is built only if the graph has a suspect.
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


def refuse_what_pm_fit_drops(caller: Any, model: pm.Model) -> None:
    """Raise if ``pm.fit`` got arguments that it drops for an Inference instance.

    Parameters
    ----------
    caller : frame
        Of the caller of ``IsoMix.fit``. If it is ``pm.fit``, its locals hold the arguments, which
        are available nowhere else.
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
            "pm.fit was called with a different model from the one that IsoMix was made for; "
            "pass model= to IsoMix"
        )
