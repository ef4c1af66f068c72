"""State of the random generators of a compiled step, so that a fit continues with its numbers."""

from typing import Any

import numpy as np
import pytensor
from pytensor.tensor.random.type import RandomType

from pymc_isomix.backend.upstream import jax_dispatch, reseed_rngs


def generator_states(generators: list) -> list:
    """States of the random generators of a compiled step, for JSON.

    Parameters
    ----------
    generators : list of one-element lists
        Their storage.
    """
    return [
        value.bit_generator.state
        if isinstance(value, np.random.Generator)
        else {"jax_state": np.asarray(value["jax_state"]).tolist()}
        for (value,) in generators
    ]


def restore_generators(generators: list, states: list[dict]) -> None:
    """Set the random generators of a compiled step, if number and kind agree."""
    if len(generators) != len(states):
        return
    for storage, state in zip(generators, states, strict=True):
        value = storage[0]
        if isinstance(value, np.random.Generator) and "jax_state" not in state:
            value.bit_generator.state = state
        elif isinstance(value, dict) and "jax_state" in state:
            storage[0] = {**value, "jax_state": np.array(state["jax_state"], "uint32")}


def generators(step: Any) -> list:
    """Storage of the random generators among the inputs of a compiled function."""
    inputs = zip(step.maker.fgraph.inputs, step.input_storage, strict=True)
    return [one.storage for variable, one in inputs if isinstance(variable.type, RandomType)]


def seeded_for_jax(n: int, seed: int) -> list[dict]:
    """Return n states of JAX generators, seeded as PyMC seeds a compiled function."""
    _, jax_typify = jax_dispatch()
    rngs = [pytensor.shared(np.random.default_rng(0)) for _ in range(n)]
    reseed_rngs(rngs, seed)
    return [jax_typify(rng.get_value(borrow=True)) for rng in rngs]
