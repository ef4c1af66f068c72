"""What ``"auto"`` and ``None`` stand for among the arguments of ``IsoMix``."""

import logging
import math

logger = logging.getLogger(__name__)

STEP_SIZE = 0.3
DENSE_UP_TO = 500  # dimensions; a dense metric costs O(d^3) a step
FEWEST_DRAWS = 150  # in a step: with fewer, noise keeps small mixtures from their optimum


def step_size(given):
    """Return the step size."""
    return STEP_SIZE if isinstance(given, str) and given == "auto" else given


def metric(given, n_dim):
    """Return the kind of metric, and say which was chosen."""
    if given != "auto":
        return given
    chosen = "dense" if n_dim <= DENSE_UP_TO else "diag"
    logger.info(f"metric='auto': {chosen}, for {n_dim} dimensions")
    return chosen


def n_samples(given, n_components):
    """Return the draws of each component in a step."""
    return max(3, math.ceil(FEWEST_DRAWS / n_components)) if given is None else given
