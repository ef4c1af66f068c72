"""Joined fits of a hierarchy on JAX do all that a single fit does."""

import numpy as np
import pymc as pm
import pytest
from scipy.special import logsumexp

import pymc_isomix as pmi

pytest.importorskip("jax")

EFFECTS = np.array([2.0, -1.0, 0.5])
DRAWS = 200


@pytest.fixture(scope="module")
def model():
    with pm.Model(coords={"group": list("abc")}) as model:
        tau = pm.HalfNormal("tau", 2.0)
        theta = pm.Normal("theta", 0.0, tau, dims="group")
        pm.Normal("y", theta, 0.5, observed=EFFECTS, dims="group")
    return model


@pytest.fixture(scope="module")
def fits(model):
    options = {"backend": "jax", "progressbar": False}
    return [
        pmi.IsoMix(3, random_seed=seed, model=model, schedule="constant").fit(60, **options)
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def joined(fits):
    joined = pmi.join(fits, random_seed=1)
    assert joined.coordinates
    assert joined.history.backend == "jax"
    return joined


@pytest.mark.parametrize("how", [{}, {"importance": "psis", "force": True}, {"transitions": 2}])
def test_samples(joined, how):
    tree = joined.sample(DRAWS, random_seed=1, progressbar=False, **how)
    assert tree.posterior["theta"].shape == (1, DRAWS, 3)
    assert np.isfinite(tree.posterior["tau"].values).all()
    assert "diagnostics" in tree.children
    assert "share" in tree["isomix"]
    assert len(tree["isomix"]["component"]) == joined.mixture.n_components


def test_weights_of_draws_are_p_over_q(joined, model):
    tree = joined.sample(DRAWS, random_seed=1, include_transformed=True)
    posterior = tree.posterior.isel(chain=0)
    points = np.column_stack([posterior["tau_log__"], posterior["theta"]])
    log_q = tree.sample_stats["log_q"].values[0]
    np.testing.assert_allclose(log_q, joined.log_density(points), rtol=1e-6)
    logp = model.compile_logp()
    values = zip(posterior["tau_log__"].values, posterior["theta"].values, strict=True)
    log_p = [logp({"tau_log__": tau, "theta": theta}) for tau, theta in values]
    np.testing.assert_allclose(tree.sample_stats["lp"].values[0], log_p, rtol=1e-6)


def test_diagnoses(joined):
    report = joined.diagnostics(DRAWS, n_probes=2, transitions=5, progressbar=False)
    assert np.isfinite(report["khat"].item())
    assert np.isfinite(report["log_evidence"].item())


def test_starts_nuts(joined):
    start = joined.nuts_init(chains=3, random_seed=1)
    assert len(start["initvals"]) == 3
    assert {"tau", "theta"} == set(start["initvals"][0])


def test_samples_by_nuts(joined):
    tree = joined.sample_nuts(
        10,
        tune=10,
        chains=1,
        cores=1,
        random_seed=1,
        progressbar=False,
        compute_convergence_checks=False,
    )
    assert tree.posterior["theta"].shape == (1, 10, 3)


def test_saved_and_loaded_it_is_the_same(joined, model, tmp_path):
    path = tmp_path / "joined.nc"
    joined.save(path)
    loaded = pmi.load(path, model)
    points = np.random.default_rng(0).normal(size=(10, 4))
    np.testing.assert_array_equal(loaded.log_density(points), joined.log_density(points))
    same = [
        one.sample(20, random_seed=3, progressbar=False).posterior["theta"].values
        for one in (loaded, joined)
    ]
    np.testing.assert_array_equal(*same)


def test_log_density_is_that_of_the_weighted_union(joined, fits):
    points = fits[0].groups[0].density.draw_unconstrained(20, np.random.default_rng(0))[0]
    sources = [block.source for block in joined.mixture.blocks]
    parts = [
        np.log(weight) + block.evaluate(points)[0]
        for weight, block in zip(joined.mixture.block_weights, joined.mixture.blocks, strict=True)
    ]
    np.testing.assert_allclose(joined.log_density(points), logsumexp(parts, axis=0), rtol=1e-6)
    assert set(sources) <= {0, 1}


@pytest.mark.parametrize("plot", ["plot_components", "plot_khat", "plot_modes", "plot_shares"])
def test_plots(joined, plot):
    pytest.importorskip("arviz_plots")
    import matplotlib.pyplot as plt

    assert getattr(pmi, plot)(joined.sample(DRAWS, random_seed=1, progressbar=False)) is not None
    plt.close("all")
