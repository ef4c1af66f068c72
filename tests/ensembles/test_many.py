"""One model fitted to many data sets, against exact answers and single fits."""

import numpy as np
import pymc as pm
import pytest

import pymc_isomix as pmi

FIT = {"n": 600, "n_components": 1, "random_seed": 1, "progressbar": False}
VALUES = np.random.default_rng(0).normal([0.0, 5.0, -8.0], 1.0, size=(4, 3)).T  # (3, 4)


@pytest.fixture(scope="module")
def model():
    with pm.Model() as model:
        y = pm.Data("y", np.zeros(4))
        mu = pm.Normal("mu", 0, 10, shape=2)
        pm.Normal("seen", mu[0], 1, observed=y)
    return model


@pytest.fixture(scope="module")
def tree(model):
    longer = np.concatenate([VALUES[1], VALUES[1]])
    datasets = [{"y": v} for v in VALUES] + [{"y": longer}, {"y": np.full(4, np.nan)}]
    return pmi.fit_many(model, datasets, **FIT)


def test_each_data_set_has_its_own_posterior(tree):
    posterior = tree.posterior["mu"]
    assert posterior.dims == ("dataset", "chain", "draw", "mu_dim_0")
    sums, counts = np.append(VALUES.sum(axis=1), 2 * VALUES[1].sum()), np.array([4, 4, 4, 8])
    variance = 1 / (0.01 + counts)
    draws = posterior.isel(mu_dim_0=0, chain=0).values
    # four standard errors of 500 draws
    assert (np.abs(draws.mean(axis=1) - variance * sums) < 4 * np.sqrt(variance / 500)).all()
    np.testing.assert_allclose(draws.var(axis=1), variance, rtol=4 * np.sqrt(2 / 500))
    assert tree.fit["verdict"].values.tolist() == ["good"] * 4


def test_failures_are_kept_apart(tree):
    assert tree.posterior["dataset"].values.tolist() == [0, 1, 2, 3]
    assert tree.failures["failure"].values.tolist() == [4]
    assert "have 4 NaN" in tree.failures["error"].item()


def test_the_order_does_not_count(tree, model):
    one = pmi.fit_many(model, [{"y": VALUES[0]}], **FIT)
    np.testing.assert_array_equal(one.posterior["mu"][0], tree.posterior["mu"][0])
    assert (model["y"].get_value() == 0).all()  # the user's own model stays as it is


def test_arguments_are_checked_first(model):
    with pytest.raises(ValueError, match="data set 0 has z, which is not"):
        pmi.fit_many(model, [{"z": 1}])
    with pytest.raises(ValueError, match="at least one"):
        pmi.fit_many(model, [])
