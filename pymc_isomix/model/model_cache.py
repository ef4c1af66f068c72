"""What was compiled for a model, kept with the model: a second fit compiles nothing."""

import pytensor

from pymc_isomix.backend.compilation import compile_lock

MOST = 32  # things kept of one model; the oldest goes first


class ModelCache(dict):
    """A dictionary that a copy of its model, or a file of it, begins anew."""

    def __reduce__(self):
        return type(self), ()

    def __deepcopy__(self, memo):
        return type(self)()

    def add(self, key, value):
        """Keep a value, and return it."""
        if len(self) >= MOST:
            del self[next(iter(self))]
        self[key] = value
        return value


def model_cache(model):
    """Return what is kept of a model.

    It is an attribute of the model, so that it goes when the model does: what is compiled may refer
    to the model, which a weak dictionary would keep alive.
    """
    return model.__dict__.setdefault("_isomix_cache", ModelCache())


def cached(model, key, make):
    """Return what is kept of a model under a key, made now if it is not there yet."""
    with compile_lock:  # a thread that wants the same waits for it
        store = model_cache(model)
        return store[key] if key in store else store.add(key, make())


def graph_key(space):
    """Return what a graph of a space's model holds as constants: the same key, the same graph.

    Shared variables are inputs of what is compiled: their values are those of the day.
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
