"""Flat unconstrained space: the place of each variable in a vector z (d,)."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Variable

from pymc_isomix.backend.arrays import Values
from pymc_isomix.model.fitted_data import FittedData


@dataclass(frozen=True, eq=False)
class FlatSpace:
    """The places of a model's value variables in a flat point.

    Parameters
    ----------
    model : pymc.Model
    ordering : mapping of value variable name to (name, slice, shape, dtype)
        As in ``pymc.variational.opvi.Group.ordering``; it may leave variables out.
    data : FittedData, optional
        The data of a fit, which replace those of the model. Without them the present data of the
        model count.
    """

    model: pm.Model
    ordering: Any
    data: FittedData | None = None

    @classmethod
    def of(cls, model: pm.Model) -> "FlatSpace":
        """Return the places of all of a model's variables, in the model's order."""
        ordering, start = {}, 0
        for name, value in model.initial_point(0).items():
            size = np.size(value)
            dtype = str(np.asarray(value).dtype)
            ordering[name] = (name, slice(start, start + size), np.shape(value), dtype)
            start += size
        return cls(model, ordering)

    @cached_property
    def n_dim(self) -> int:
        """Number of dimensions, d."""
        return sum(place.stop - place.start for _, place, _, _ in self.ordering.values())

    @cached_property
    def variables(self) -> dict:
        """Random variables by the name of their value variable, in the order of a flat point."""
        by_value = {self.model.rvs_to_values[rv].name: rv for rv in self.model.free_RVs}
        return {name: by_value[name] for name in self.ordering if name in by_value}

    @cached_property
    def elsewhere(self) -> dict:
        """Initial values, by name, of the value variables without a place."""
        missing = [v.name for v in self.model.value_vars if v.name not in self.ordering]
        if not missing:
            return {}
        initial = self.model.initial_point(0)
        return {name: initial[name] for name in missing}

    def unflatten(self, flat: Values) -> dict:
        """Split a point (d,), NumPy array or TensorVariable, into values by name."""
        return {
            name: flat[place].reshape(shape).astype(dtype)
            for name, place, shape, dtype in self.ordering.values()
        }

    def flatten(self, values: dict) -> Values:
        """Join values by name, NumPy arrays or TensorVariables, into a point (d,)."""
        parts = [values[name] for name in self.ordering]
        if any(isinstance(part, Variable) for part in parts):
            return pt.concatenate([part.ravel() for part in parts])
        return np.concatenate([np.ravel(part) for part in parts])

    def replacements(self, values: dict) -> dict:
        """Return replacements of the model's value variables, from values by name."""
        values = {**self.elsewhere, **values}
        return {value: pt.as_tensor(values[value.name]) for value in self.model.value_vars}

    def with_model(self, model: pm.Model) -> "FlatSpace":
        """Return the same places for another model with the same variables."""
        return replace(self, model=model)

    def with_data(self, data: FittedData | None) -> "FlatSpace":
        """Return the same places, with the data of a fit, or None for the model's own."""
        return replace(self, data=data)

    def value_of(self, variable: Values) -> np.ndarray:
        """Value of a shared variable of the model."""
        if self.data is None:
            return variable.get_value(borrow=True)
        return self.data.value(variable)

    def changes(self) -> str:
        """Describe how the model's data differ from those of the fit; empty if they do not."""
        return "" if self.data is None else self.data.changes()

    def refuse_other_dims(self) -> None:
        """Raise ValueError if dims of free variables have changed since the fit."""
        if self.data is None:
            return
        for rv in self.variables.values():
            for dim in self.model.named_vars_to_dims.get(rv.name) or ():
                then, now = self.data.coords.get(dim), self.model.coords.get(dim)
                length = self.model.dim_lengths.get(dim)
                if isinstance(length, SharedVariable):
                    same_length = int(self.value_of(length)) == int(length.get_value())
                    if same_length and (then is None or list(then) == list(now or ())):
                        continue
                    raise ValueError(
                        f"dim {dim!r} of {rv.name} has changed its coords or its length since the "
                        "fit, which has no draws for new elements. Call sample() before "
                        "pm.set_data, and let pm.sample_posterior_predictive draw them: "
                        f"sample_vars=[{rv.name!r}, ...]"
                    )

    def constants(self) -> dict:
        """Lengths of dims and masks in the data, with constants to replace them.

        They make shapes symbolic, which JAX cannot compile. Other data may change during a fit.
        """
        variables = [v for v in self.model.data_vars if v.type.dtype == "bool"]
        variables += self.model.dim_lengths.values()
        return {
            variable: pt.constant(np.array(self.value_of(variable)), dtype=variable.type.dtype)
            for variable in variables
            if isinstance(variable, SharedVariable)
        }

    @cached_property
    def labels(self) -> np.ndarray:
        """Label each dimension, ``tau_log__`` or ``beta[Intercept]``, (d,) strings.

        Labels use the name of the value variable and the model's coords, or positions if a
        transform changes the shape.
        """
        labels = []
        for name, _, shape, _ in self.ordering.values():
            rv = self.variables.get(name)
            dims = (rv is not None and self.model.named_vars_to_dims.get(rv.name)) or ()
            axes = [
                axis_labels(self.model if self.data is None else self.data, dim, length)
                for dim, length in zip(dims or (None,) * len(shape), shape, strict=False)
            ]
            if len(axes) != len(shape):
                axes = [np.arange(length) for length in shape]
            for index in np.ndindex(*shape):
                place = ", ".join(str(axis[i]) for axis, i in zip(axes, index, strict=True))
                labels.append(f"{name}[{place}]" if shape else name)
        return np.array(labels)

    def describe(self) -> list[dict]:
        """Describe the variables in the order of a flat point: name, shape, transform."""
        return [
            {
                "name": rv.name,
                "shape": [int(length) for length in self.ordering[name][2]],
                "transform": type(self.model.rvs_to_transforms[rv]).__name__,
            }
            for name, rv in self.variables.items()
        ]

    def check_same_variables(self, model: pm.Model) -> None:
        """Raise ValueError unless a model has the same free variables, in any order."""
        here, there = (
            {rv.name: type(m.rvs_to_transforms[rv]).__name__ for rv in m.free_RVs}
            for m in (self.model, model)
        )
        if here != there:
            differing = sorted({*here.items()} ^ {*there.items()})
            raise ValueError(
                "the model in the `with` block has other free variables than the fitted one; they "
                f"differ in {', '.join(sorted({name for name, _ in differing}))}. Leave that "
                "block, or use a model with the same variables"
            )


def axis_labels(model: Any, dim: str | None, length: int) -> np.ndarray:
    """Labels of one axis: the coords of its dim if they fit, else positions.

    ``model`` is any object with ``coords``.
    """
    labels = model.coords.get(dim)
    return np.arange(length) if labels is None or len(labels) != length else np.asarray(labels)
