"""Checks of arguments, before anything compiles."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_choice(name: str, value: Any, choices: Sequence) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_count(name: str, value: float, *, least: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")


def check_seed(seed: Any) -> int | None:
    """Return a seed: the integer itself, None, or one drawn from a NumPy generator."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**30))
    if seed is not None:
        check_count("random_seed", seed, least=0)
    return seed


def check_number(name: str, value: float, *, zero: bool = False) -> None:
    """Raise unless ``value`` is a finite positive number, or zero if that is allowed."""
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool))
    finite = is_number and bool(np.isfinite(float(value)))
    if not finite or value < 0 or (value == 0 and not zero):
        rule = "non-negative" if zero else "positive"
        raise ValueError(f"{name} must be a {rule} finite number; got {value!r}")
