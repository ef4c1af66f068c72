"""Fits with sites, from the model to what is done with the approximation."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest
from pymc.pytensorf import compile

import pymc_isomix as pmi

QUIET = {"progressbar": False}
X = np.random.default_rng(0).normal(size=(12, 6))


def schools(centred=True):
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        if centred:
            theta = pm.Normal("theta", mu, tau, dims="school")
        else:
            theta = mu + tau * pm.Normal("z", dims="school")
        pm.Normal("y", theta, error, observed=effect, dims="school")
    return model


def ridge():
    """A site with a matrix, too large to be unrolled."""
    with pm.Model() as model:
        scales = pm.HalfNormal("tau") * np.array([1.0, 2.0, 0.5, 1.0, 1.0, 1.0])
        beta = pm.Normal("beta", 0.0, scales, shape=6)
        pm.Normal("y", X @ beta, 0.5, observed=X @ [1.0, -2.0, 0.0, 0.0, 0.0, 1.0])
    return model


@pytest.fixture(scope="module", params=[schools, ridge], ids=lambda f: f.__name__)
def approx(request):
    pytest.importorskip("jax")
    inference = pmi.IsoMix(5, n_samples=10, random_seed=1, model=request.param())
    return inference.fit(60, **QUIET)


def test_log_density_and_its_symbol_agree(approx):
    outputs = approx.set_size_and_deterministic(
        [approx.symbolic_random, approx.symbolic_logq], 4, 0
    )
    points, log_q = compile([], outputs, mode="FAST_COMPILE", random_seed=1)()
    np.testing.assert_allclose(approx.groups[0].log_density(points), log_q, rtol=1e-9)


def test_the_model_and_the_sites_map_alike(approx):
    """What is compiled for the weights gives z, too: as the map of the sites by itself."""
    points = approx.mixture.draw(7, np.random.default_rng(1))[0]
    compiled = approx.compiled_model()
    log_p, gradient, z, log_determinant = compiled.evaluate(points)
    expected = approx.coordinates.to_unconstrained(points)
    np.testing.assert_allclose(z, expected[0], rtol=1e-9)
    np.testing.assert_allclose(log_determinant, expected[1], rtol=1e-9)
    for found, same in zip(compiled.to_unconstrained(points), expected, strict=True):
        np.testing.assert_allclose(found, same, rtol=1e-9)
    assert log_p.shape == (7,)
    assert gradient.shape == z.shape


def test_moments_are_those_of_draws(approx):
    """Within five standard errors of the draws, and what 2000 fixed draws may be off."""
    points, _ = approx.groups[0].density.draw_unconstrained(4000, np.random.default_rng(1))
    mean, std = (node.eval(mode="FAST_COMPILE") for node in (approx.mean, approx.std))
    assert np.all(
        np.abs(mean - points.mean(0)) < 5 * (1 / np.sqrt(4000) + 1 / np.sqrt(2000)) * points.std(0)
    )
    np.testing.assert_allclose(std, points.std(0), rtol=0.2)
    covariance = approx.cov.eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(np.sqrt(np.diagonal(covariance)), std)


def test_draws_statistics_and_shares(approx):
    tree = approx.sample(20, random_seed=1)
    statistics = tree.sample_stats
    np.testing.assert_allclose(statistics["log_weight"], statistics["lp"] - statistics["log_q"])
    share = tree.isomix["share"]
    assert share.dims == ("pseudo_observation",)
    assert np.all((share >= 0) & (share <= 1))


def test_files_and_pickles(approx, tmp_path):
    approx.save(tmp_path / "fit.nc")
    loaded = pmi.load(tmp_path / "fit.nc", approx.model)
    copied = cloudpickle.loads(cloudpickle.dumps(approx))
    expected = approx.sample(3, random_seed=1).posterior.to_dataset()
    for other in (loaded, copied):
        assert other.coordinates.names == approx.coordinates.names
        for name, drawn in other.sample(3, random_seed=1).posterior.items():
            np.testing.assert_allclose(drawn, expected[name], rtol=1e-12)


def test_the_sites_of_a_file_must_be_the_model_s(tmp_path):
    approx = pmi.IsotropicMixture(coordinates="auto", random_seed=1, model=schools())
    approx.save(tmp_path / "fit.nc")
    with pm.Model(coords={"school": list("ABCDEFGH")}) as other:
        pm.Normal("mu"), pm.HalfCauchy("tau", 5.0), pm.Normal("theta", dims="school")
    with pytest.raises(ValueError, match=r"sites of the file \(theta\) are not those of the mod"):
        pmi.load(tmp_path / "fit.nc", other)


def test_it_is_judged_and_fitted_further(approx):
    report = approx.diagnostics(200, n_probes=2, transitions=2, progressbar=False)
    assert report.verdict in ("good", "doubtful", "bad")
    assert "sites" in repr(approx)
    again = pmi.resume(cloudpickle.loads(cloudpickle.dumps(approx))).fit(4, **QUIET)
    assert again.history.elbo.size == approx.history.elbo.size + 4


@pytest.mark.parametrize(
    "make",
    [
        lambda model: pmi.IsoMix(2, coordinates="affine", random_seed=1, model=model),
        lambda model: pmi.IsoMix.paper(2, random_seed=1, model=model),
    ],
)
def test_affine_coordinates_and_the_paper_have_no_sites(make):
    approx = make(schools()).approx
    assert not approx.coordinates
    assert set(approx.shared_params) == {"means", "log_variances", "log_weights", "metric"}


def test_coordinates_are_one_of_two():
    with pytest.raises(ValueError, match="coordinates must be one of 'auto', 'affine'; got 'site'"):
        pmi.IsoMix(coordinates="site", model=schools())


@pytest.mark.slow
def test_both_ways_of_writing_have_the_same_evidence():
    """That of centred eight schools is -31.3113 by quadrature; KL below .01, as is asked."""
    for centred in (True, False):
        approx = pmi.IsoMix(random_seed=1, model=schools(centred)).fit(**QUIET)
        report = approx.diagnostics(20_000, n_probes=0, transitions=0)
        error = report["log_evidence_se"].item()
        assert report["log_evidence"].item() == pytest.approx(-31.3113, abs=5 * error + 0.001)
        assert report["log_evidence"].item() - report["elbo"].item() < 0.01


def test_coordinates_find_the_data_of_many_groups():
    """Twenty components that start apart turn narrow; each group's mean is found all the same."""
    pytest.importorskip("jax")
    rng = np.random.default_rng(1)
    rows = rng.integers(1, 8, 200)
    groups = np.repeat(np.arange(200), rows)
    y = rng.normal(1, 0.2, 200)[groups] + rng.normal(size=len(groups))
    with pm.Model() as model:
        tau = pm.HalfNormal("tau")
        theta = pm.Normal("theta", pm.Normal("mu", 0, 2), tau, shape=200)
        pm.Normal("y", theta[groups], pm.HalfNormal("sigma"), observed=y)
    inference = pmi.IsoMix(20, metric="diag", random_seed=1, model=model)
    found = inference.fit(200, **QUIET).coordinates.parameters
    means = np.bincount(groups, y) / rows
    assert np.corrcoef(found["values"], means)[0, 1] > 0.99
    assert np.corrcoef(found["log_precisions"], np.log(rows))[0, 1] > 0.99
