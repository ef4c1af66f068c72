"""Models that several test modules fit, and settings for the whole run."""

import os
from typing import NamedTuple

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

import numpy as np
import pymc as pm
import pytensor
import pytest
from hypothesis import settings
from scipy import stats

# A first call compiles, which no deadline of Hypothesis allows for.
settings.register_profile("pymc_isomix", deadline=None, derandomize=True)
settings.load_profile("pymc_isomix")


@pytest.fixture(scope="session", autouse=True)
def without_c_compiler():
    """Compile no C: even FAST_COMPILE links fused inner graphs in C, a minute when cold."""
    with pytensor.config.change_flags(cxx=""):
        yield


@pytest.fixture
def fast_compile():
    """Compile PyTensor functions in less time than the default mode; they run more slowly."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


class ConjugateGaussian(NamedTuple):
    """A model and its exact answers; the posterior is Gaussian, independent over groups."""

    model: pm.Model
    mean: np.ndarray  # (2,)
    std: np.ndarray  # (2,)
    log_evidence: float


@pytest.fixture
def conjugate_gaussian():
    observed = np.array([1.5, -2.0])
    prior_std, noise_std = 2.0, np.array([1.0, 0.5])
    with pm.Model(coords={"group": ["a", "b"]}) as model:
        theta = pm.Normal("theta", 0.0, prior_std, dims="group")
        pm.Normal("y", theta, noise_std, observed=observed, dims="group")
    variance = 1 / (1 / prior_std**2 + 1 / noise_std**2)
    evidence = stats.norm(0.0, np.hypot(prior_std, noise_std))
    return ConjugateGaussian(
        model=model,
        mean=variance * observed / noise_std**2,
        std=np.sqrt(variance),
        log_evidence=float(evidence.logpdf(observed).sum()),
    )


EIGHT_SCHOOLS_EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
EIGHT_SCHOOLS_STANDARD_ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
EIGHT_SCHOOLS_COORDS = {"school": list("ABCDEFGH")}


@pytest.fixture
def eight_schools():
    """Eight schools in the centered form: a funnel in (log tau, theta)."""
    with pm.Model(coords=EIGHT_SCHOOLS_COORDS) as model:
        mu = pm.Normal("mu", 0.0, 5.0)
        tau = pm.HalfCauchy("tau", 5.0)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Normal(
            "y", theta, EIGHT_SCHOOLS_STANDARD_ERROR, observed=EIGHT_SCHOOLS_EFFECT, dims="school"
        )
    return model


@pytest.fixture
def eight_schools_noncentered():
    """Eight schools in the non-centered form, with `theta` as a deterministic."""
    with pm.Model(coords=EIGHT_SCHOOLS_COORDS) as model:
        mu = pm.Normal("mu", 0.0, 5.0)
        tau = pm.HalfCauchy("tau", 5.0)
        offset = pm.Normal("offset", dims="school")
        theta = pm.Deterministic("theta", mu + tau * offset, dims="school")
        pm.Normal(
            "y", theta, EIGHT_SCHOOLS_STANDARD_ERROR, observed=EIGHT_SCHOOLS_EFFECT, dims="school"
        )
    return model
