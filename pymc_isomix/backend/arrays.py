"""Functions of NumPy arrays and of PyTensor variables alike."""

from types import ModuleType
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy  # which loads its parts when they are used

Values = Any  # a NumPy array or a TensorVariable


def operations(values: Values) -> ModuleType:
    """Return the module of functions for values: NumPy or PyTensor."""
    return np if isinstance(values, np.ndarray | np.generic) else pt


def solve_triangular(lower: Values, columns: Values, *, transposed: bool = False) -> Values:
    """Solve L X = B, or L^T X = B, with L (d, d) lower triangular and B (d, S)."""
    options: dict = {"lower": True, "trans": int(transposed)}
    if isinstance(lower, np.ndarray):
        return scipy.linalg.solve_triangular(lower, columns, **options)
    return pt.linalg.solve_triangular(lower, columns, b_ndim=2, **options)


def shared_arrays(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Make shared variables of fixed shapes at given values, by name."""
    return {name: pytensor.shared(v, name, shape=v.shape) for name, v in values.items()}
