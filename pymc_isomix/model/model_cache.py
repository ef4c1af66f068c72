"""Compiled functions of a model, cached with it: a second fit compiles nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import pymc as pm
import pytensor

from pymc_isomix.backend.compilation import compile_lock
from pymc_isomix.model.space import FlatSpace

MOST = 32  # entries per model; the oldest is dropped first


class ModelCache(dict):
    """A dictionary that is empty in copies and pickles of its model."""

    def __reduce__(self):
        return type(self), ()

    def __deepcopy__(self, memo):
        return type(self)()

    def add(self, key: Sequence, value: Any) -> Any:
        """Store a value, and return it."""
        if len(self) >= MOST:
            del self[next(iter(self))]
        self[key] = value
        return value


def model_cache(model: pm.Model) -> ModelCache:
    """Return the cache of a model.

    It is an attribute of the model and is freed with it. Its functions may refer to the model, so a
    weak dictionary would keep the model alive.
    """
    return model.__dict__.setdefault("_isomix_cache", ModelCache())


def cached(model: pm.Model, key: Sequence, make: Callable) -> Any:
    """Return the cached value of a key, and make it if it is missing."""
    with compile_lock:  # other threads wait for the value
        store = model_cache(model)
        return store[key] if key in store else store.add(key, make())


def graph_key(space: FlatSpace) -> tuple:
    """Return the key of a model's graph: everything that it holds as constants.

    Shared variables are inputs of compiled functions, so their values may change.
    """
    model = space.model
    constants = [
        (variable, constant.data.shape, constant.data.tobytes())
        for variable, constant in space.constants().items()
    ]
    elsewhere = [(name, value.tobytes()) for name, value in space.elsewhere.items()]
    return (
        (*model.basic_RVs, *model.deterministics, *model.potentials),
        (*model.rvs_to_values.values(), *model.rvs_to_transforms.values()),
        tuple(
            (name, place.start, place.stop, tuple(map(int, shape)), dtype)
            for name, place, shape, dtype in space.ordering.values()
        ),
        tuple(constants),
        tuple(elsewhere),
        model.check_bounds,
        pytensor.config.floatX,
    )
