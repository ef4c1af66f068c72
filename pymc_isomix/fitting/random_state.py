"""State of the random generators of a compiled step: a fit goes on with the same numbers."""

import numpy as np
from pytensor.tensor.random.type import RandomType


def generator_states(step):
    """States of the random generators of a compiled step, fit for JSON."""
    states = []
    for value in _generators(step):
        if isinstance(value.storage[0], np.random.Generator):
            states.append(value.storage[0].bit_generator.state)
        else:  # JAX
            states.append({"jax_state": np.asarray(value.storage[0]["jax_state"]).tolist()})
    return states


def restore_generators(step, states):
    """Set the random generators of a compiled step, where they are as many and of the same kind."""
    generators = _generators(step)
    if len(generators) != len(states):
        return
    for value, state in zip(generators, states, strict=True):
        if isinstance(value.storage[0], np.random.Generator) and "jax_state" not in state:
            value.storage[0].bit_generator.state = state
        elif isinstance(value.storage[0], dict) and "jax_state" in state:
            value.storage[0] = {
                **value.storage[0],
                "jax_state": np.array(state["jax_state"], "uint32"),
            }


def reseed_generators(step, seed):
    """Seed the random generators of a compiled step anew."""
    for i, value in enumerate(_generators(step)):
        rng = np.random.default_rng([seed, i])
        if isinstance(value.storage[0], np.random.Generator):
            value.storage[0].bit_generator.state = rng.bit_generator.state
        else:  # JAX
            shape = np.shape(value.storage[0]["jax_state"])
            state = rng.integers(2**32, size=shape, dtype=np.uint32)
            value.storage[0] = {**value.storage[0], "jax_state": state}


def _generators(step):
    """Containers of the random generators among the inputs of a compiled function."""
    if not hasattr(step, "maker"):  # not compiled by PyTensor
        return []
    inputs = zip(step.maker.fgraph.inputs, step.input_storage, strict=True)
    return [storage for variable, storage in inputs if isinstance(variable.type, RandomType)]
