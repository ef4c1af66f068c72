"""Model space at draws: variables in their own units, and deterministics."""

from typing import Any

import numpy as np
from pymc.logprob.transforms import CircularTransform

from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import axis_labels

MOST_COLUMNS = 2000  # numbers per draw; the largest variables are left out
CONSTANT = 1e-9  # relative range of a constant with rounding errors


def named_draws(compiled: CompiledModel, *batches: Any) -> tuple:
    """Evaluate variables in their own units, and deterministics, at draws z.

    Untransformed variables, angles, integers, constants, and variables that are not finite at some
    draw are left out.

    Parameters
    ----------
    *batches : (S, d) array
        Draws in unconstrained space; the first batch shows what varies.

    Returns
    -------
    labels : (m,) array of str
    *values : (S, m) array
        Of each batch.
    """
    model = compiled.model
    variables = [
        variable
        for variable in (*model.free_RVs, *model.deterministics)
        if not isinstance(model.rvs_to_transforms.get(variable, ...), CircularTransform | None)
        and np.issubdtype(variable.dtype, np.floating)
    ]
    chosen, total = set(), 0
    if variables:
        one = compiled.constrained(batches[0][:1])
        for variable in sorted(variables, key=lambda v: one[v.name].size):
            total += one[variable.name].size
            if total <= MOST_COLUMNS:
                chosen.add(variable.name)
    names = [v.name for v in variables if v.name in chosen]
    labels = [label for name in names for label in _labels(model, name, one[name].shape[1:])]
    values = [_columns(compiled, batch, names) for batch in batches]
    with np.errstate(invalid="ignore"):
        shown = np.all([np.isfinite(value).all(axis=0) for value in values], axis=0)
        shown &= np.ptp(values[0], axis=0) > CONSTANT * np.abs(values[0]).max(axis=0)
    return np.array(labels, dtype=str)[shown], *(value[:, shown] for value in values)


def _columns(compiled, points, names):
    """Evaluate in chunks, to save memory for variables that are left out."""
    chunks = []
    for start in range(0, len(points) if names else 0, compiled.at_once):
        found = compiled.constrained(points[start : start + compiled.at_once])
        flat = [np.reshape(found[name], (len(found[name]), -1)) for name in names]
        chunks.append(np.concatenate(flat, axis=1))
    return np.concatenate(chunks) if chunks else np.zeros((len(points), 0))


def _labels(model, name, shape):
    dims = model.named_vars_to_dims.get(name) or (None,) * len(shape)
    axes = [axis_labels(model, dim, length) for dim, length in zip(dims, shape, strict=True)]
    for index in np.ndindex(*shape):
        place = ", ".join(str(axis[i]) for axis, i in zip(axes, index, strict=True))
        yield f"{name}[{place}]" if shape else name
