"""The data of a fit, which ``pm.set_data`` does not change."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pymc as pm
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import compile_lock

LISTED = 5  # changes named in a message


@dataclass(frozen=True, eq=False)
class FittedData:
    """Values of the shared variables and coords of a model at one time.

    Nothing is copied, because ``set_value`` replaces arrays.

    Parameters
    ----------
    variables : dict of Container to (SharedVariable, value)
        By container, which clones of a shared variable share.
    coords : dict
    lengths : list of SharedVariable
        Lengths of dims among the variables.
    """

    variables: Any = field(default_factory=dict)
    coords: Any = field(default_factory=dict)
    lengths: Any = ()

    @classmethod
    def of(cls, model: pm.Model) -> "FittedData":
        """Record the present data of a model."""
        values = {
            variable.container: (variable, variable.get_value(borrow=True))
            for variable in [*shared_variables(_of_model(model)), *_dim_lengths(model)]
        }
        return cls(values, dict(model.coords), _dim_lengths(model))

    def value(self, variable: Values) -> np.ndarray:
        """Value of a shared variable at the fit, or now if the fit did not have it."""
        found = self.variables.get(variable.container)
        return variable.get_value(borrow=True) if found is None else found[1]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Set the model's data to these, within a ``with`` block."""
        with compile_lock:
            now = [(variable, variable.get_value(borrow=True)) for variable in self.changed()]
            try:
                for variable, _ in now:
                    variable.set_value(self.value(variable), borrow=True)
                yield
            finally:
                for variable, value in now:
                    variable.set_value(value, borrow=True)

    def changed(self) -> dict:
        """Return the shared variables whose values have changed, with their values at the fit."""
        pairs = self.variables.values()
        return {
            variable: value
            for variable, value in pairs
            if not same(variable.get_value(borrow=True), value)
        }

    def changes(self) -> str:
        """Describe the changed data; empty if nothing has changed."""
        said = []
        changed = self.changed()
        if not all(variable in self.lengths for variable in changed):  # what else tells them
            changed = {v: value for v, value in changed.items() if v not in self.lengths}
        for variable, value in changed.items():
            name, now = variable.name or "unnamed data", variable.get_value(borrow=True)
            if np.shape(value) != np.shape(now):
                said.append(f"{name} from shape {np.shape(value)} to {np.shape(now)}")
            elif np.ndim(value) == 0:
                what = "length of dim " if variable in self.lengths else ""
                said.append(f"{what}{name} from {value} to {now}")
            else:
                n_other = int(np.sum(~(np.asarray(value) == np.asarray(now))))
                said.append(f"{name} in {n_other} of {np.size(value)} values")
        more = [f"{len(said) - LISTED} more"] if len(said) > LISTED else []
        return ", ".join(said[:LISTED] + more)

    def digests(self) -> dict:
        """Return shape and digest of each named variable, for a file."""
        return {
            variable.name: [list(np.shape(value)), digest(value)]
            for variable, value in self.variables.values()
            if variable.name
        }


def same(value: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two values of data are equal."""
    if value is other:
        return True
    value, other = np.asarray(value), np.asarray(other)
    if value.shape != other.shape:
        return False
    return np.array_equal(value, other, equal_nan=value.dtype.kind in "fc")


def known_value(variable: Values) -> np.ndarray | None:
    """Value of a shared variable or a constant, else None."""
    if isinstance(variable, SharedVariable):
        return variable.get_value(borrow=True)
    return variable.data if isinstance(variable, Constant) else None


def digest(value: np.ndarray) -> str:
    """Digest the values of an array."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()


def shared_variables(outputs: list[Values]) -> list:
    """List the shared variables of expressions, without random generators."""
    return [
        variable
        for variable in ancestors(outputs)
        if isinstance(variable, SharedVariable) and not isinstance(variable.type, RandomType)
    ]


def _of_model(model):
    named = [*model.basic_RVs, *model.potentials, *model.deterministics, *model.data_vars]
    return [*named, *model.rvs_to_values.values()]


def _dim_lengths(model):
    return [v for v in model.dim_lengths.values() if isinstance(v, SharedVariable)]
