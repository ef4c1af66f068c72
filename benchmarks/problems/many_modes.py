"""Posteriors with many modes, for ensembles."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from problems.models import Planted


def twelve_modes(seed=0, *, n_dim=20, n_modes=12, separation=10.0):
    """Twelve Gaussian modes in 20 dimensions, of masses from .2 down to .02 and unequal shapes."""
    rng = np.random.default_rng(seed)
    weights = np.geomspace(0.2, 0.02, n_modes)
    width, means = 8.0, []
    while len(means) < n_modes:
        candidate = rng.uniform(-width, width, n_dim)
        if all(np.linalg.norm(candidate - mean) >= separation for mean in means):
            means.append(candidate)
    deviations = np.exp(rng.uniform(np.log(0.4), np.log(1.6), (n_modes, n_dim)))
    return Planted(weights / weights.sum(), np.array(means), deviations, np.full(n_dim, width))


def forty_modes(seed=0, *, width=40.0):
    """Forty Gaussian modes of deviation 1 and equal mass, anywhere in a square of side 80."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-width, width, (40, 2))
    return Planted(np.full(40, 1 / 40), means, np.ones((40, 2)), np.full(2, width))


def sensors(seed=2, *, n_unknown=8, n_known=3, radius=0.3, noise=0.02):
    """Places of sensors in a square from noisy distances of those that see each other.

    A pair at distance r sees each other with probability exp(-r^2 / (2 radius^2)); that a pair
    does not is information too. Sensors with few neighbours may lie on either side of them.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (n_unknown + n_known, 2))
    first, second = np.triu_indices(len(places), 1)
    wanted = first < n_unknown  # a pair of known ones says nothing
    first, second = first[wanted], second[wanted]
    distance = np.linalg.norm(places[first] - places[second], axis=1)
    seen = rng.random(len(distance)) < np.exp(-0.5 * (distance / radius) ** 2)
    measured = distance + noise * rng.normal(size=len(distance))
    with pm.Model() as model:
        unknown = pm.Uniform("place", 0, 1, shape=(n_unknown, 2))
        everywhere = pt.concatenate([unknown, places[n_unknown:]])
        squares = ((everywhere[first] - everywhere[second]) ** 2).sum(axis=1) + 1e-12
        log_seen = -0.5 * squares / radius**2
        pm.Potential("unseen", pt.log1mexp(log_seen[~seen]).sum())
        pm.Potential("seen", log_seen[seen].sum())
        pm.Normal("distance", pt.sqrt(squares[seen]), noise, observed=measured[seen])
    return model
