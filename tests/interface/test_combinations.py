"""What PyMC allows together: minibatches, initial values, data that change, ordered variables."""

from itertools import product

import numpy as np
import pymc as pm
import pytest
from pymc.distributions.transforms import ordered

import pymc_isomix as pmi

FIRST = np.array([-2.0, 3.0, -1.5, 3.5])
OTHER = FIRST[::-1] + 1.0
NOISE = 0.8


def build(minibatch, initval, is_ordered):
    with pm.Model() as model:
        data = pm.Data("data", FIRST)
        (seen,) = (pm.Minibatch(data, batch_size=2),) if minibatch else (data,)
        transform = {"default_transform": ordered} if is_ordered else {}
        start = {"initval": np.array([-1.0, 1.0])} if initval else {}
        levels = pm.Normal("levels", 0.0, 3.0, shape=2, **transform, **start)
        options = {"total_size": len(FIRST)} if minibatch else {}
        pm.Normal("y", levels.sum(), NOISE, observed=seen, **options)
    return model


def log_joint(levels, data):
    """Log density of the levels (S, 2) and all the data, in model space."""
    prior = -0.5 * (levels / 3.0) ** 2 - np.log(3.0) - 0.5 * np.log(2 * np.pi)
    residual = (data[:, None] - levels.sum(axis=1)) / NOISE
    likelihood = -0.5 * residual**2 - np.log(NOISE) - 0.5 * np.log(2 * np.pi)
    return prior.sum(axis=1) + likelihood.sum(axis=0)


def expected(tree, data, is_ordered):
    """Log joint density of draws in unconstrained space; ordered is z, z + exp(z')."""
    levels = tree.posterior["levels"].values[0]
    jacobian = np.log(levels[:, 1] - levels[:, 0]) if is_ordered else 0.0
    return log_joint(levels, data) + jacobian


CASES = [(*case, "jax") for case in product([False, True], repeat=3)] + [(True, True, True, "c")]


@pytest.mark.parametrize(("minibatch", "initval", "is_ordered", "backend"), CASES)
def test_density_of_all_the_data_before_and_after_set_data(minibatch, initval, is_ordered, backend):
    """Draws keep the density of the fit's data; the next fit has that of its own."""
    if backend == "jax":
        pytest.importorskip("jax")
    model = build(minibatch, initval, is_ordered)
    how = {"backend": "jax"} if backend == "jax" else {"compile_kwargs": {"mode": "FAST_COMPILE"}}

    def fit():
        inference = pmi.IsoMix(1, n_samples=4, random_seed=1, model=model)
        return inference.fit(3, progressbar=False, **how)

    def check(approx, data):
        tree = approx.sample(
            5, random_seed=2, importance="psis", force=True, include_transformed=True
        )
        levels = tree.posterior["levels"]
        assert levels.shape == (1, 5, 2)
        if is_ordered:
            assert (levels[..., 1] > levels[..., 0]).all()
        np.testing.assert_allclose(
            tree.sample_stats["lp"].values[0], expected(tree, data, is_ordered), rtol=1e-8
        )

    first = fit()
    check(first, FIRST)
    pm.set_data({"data": OTHER}, model=model)
    check(first, FIRST)
    check(fit(), OTHER)
