"""What a joined mixture does as an approximation: samples, diagnoses, saves, starts NUTS."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest
import xarray as xr

import pymc_isomix as pmi

MODES, MASSES = np.array([-6.0, 6.0]), np.array([0.7, 0.3])


@pytest.fixture(scope="module")
def model():
    with pm.Model(coords={"axis": ["a", "b"]}) as model:
        x = pm.NormalMixture("x", w=MASSES, mu=MODES, sigma=[1.0, 0.5])
        pm.Normal("y", x, 1.0, dims="axis")
        pm.Deterministic("twice", 2 * x)
    return model


@pytest.fixture(scope="module")
def fits(model):
    """What fits of one mode each end with, without the fits."""
    found = []
    for mode, deviation in zip(MODES, [1.0, 0.5], strict=True):
        approx = pmi.IsotropicMixture(n_components=1, metric="dense", random_seed=1, model=model)
        root = np.array([[deviation, 0, 0], [deviation, 1, 0], [deviation, 0, 1]])
        group = approx.groups[0]
        group.mixture = group.mixture.replace(
            means=np.full((1, 3), mode), log_variances=np.zeros(1), metric=1.02 * root
        )
        found.append(approx)
    return found


@pytest.fixture(scope="module")
def joined(fits):
    return pmi.join(fits, random_seed=1)


def test_masses_are_those_of_the_posterior(joined):
    np.testing.assert_allclose(joined.mixture.block_weights, MASSES, atol=0.01)
    about = joined.table
    assert (about["weight_se"] < 0.005).all()
    assert about.attrs["n_fits"] == 2
    assert about.attrs["log_evidence"] == pytest.approx(0, abs=0.02)  # it is a density
    assert repr(joined).startswith("<JoinedMixture: 2 of 2 fits with weights 0.7, 0.3")
    assert "&lt;JoinedMixture" in joined._repr_html_()


def test_samples_as_a_fit_does(joined):
    tree = joined.sample(2000, random_seed=2)
    assert tree.posterior["y"].dims == ("chain", "draw", "axis")
    np.testing.assert_allclose(tree.posterior["twice"], 2 * tree.posterior["x"])
    # four standard errors of a share
    assert abs((tree.posterior["x"] < 0).mean().item() - 0.7) < 4 * np.sqrt(0.21 / 2000)
    assert {"isomix", "fit", "diagnostics", "ensemble"} <= set(tree.children)
    assert tree.isomix["mode"].values.tolist() == [0, 1]
    np.testing.assert_allclose(
        tree.isomix["unconstrained_sd"][1], 1.02 * np.array([0.5, 1.118, 1.118]), rtol=1e-3
    )
    resampled = joined.sample(500, random_seed=2, importance="psis", transitions=2)
    assert resampled.posterior.sizes["draw"] == 500


def test_log_density_is_exact(joined, fits):
    points = fits[0].groups[0].density.draw_unconstrained(20, np.random.default_rng(0))[0]
    parts = [
        np.log(w) + fit.log_density(points)
        for w, fit in zip(joined.mixture.block_weights, fits, strict=True)
    ]
    np.testing.assert_allclose(joined.log_density(points), np.logaddexp(*parts))


def test_diagnoses(joined):
    report = joined.diagnostics(2000, n_probes=4, transitions=5)
    assert report.verdict == "good"
    assert report["n_modes"] == 2
    assert "verdict: good" in repr(joined)


def test_saved_and_loaded_it_is_the_same(joined, model, tmp_path):
    joined.save(tmp_path / "joined.nc")
    loaded = pmi.load(tmp_path / "joined.nc", model)
    points = np.random.default_rng(0).normal(size=(10, 3))
    np.testing.assert_array_equal(loaded.log_density(points), joined.log_density(points))
    assert loaded.table.identical(joined.table)
    same = [one.sample(5).posterior["x"].values for one in (loaded, joined)]
    np.testing.assert_array_equal(*same)
    with pm.Model() as other:
        pm.Normal("z")
    with pytest.raises(ValueError, match="differ"):
        pmi.load(tmp_path / "joined.nc", other)


def test_a_file_that_was_changed_is_refused(joined, model, tmp_path):
    path = tmp_path / "joined.nc"
    joined.save(path)
    with xr.open_datatree(path) as tree:
        changed = tree.load()
    changed["block_0"]["means"][0, 0] += 1.0
    path = tmp_path / "changed.nc"
    changed.to_netcdf(path)
    with pytest.raises(ValueError, match="whole"):
        pmi.load(path, model)


def test_starts_nuts_in_every_mode(joined):
    start = joined.nuts_init(chains=10, random_seed=1)
    in_first = sum(point["x"] < 0 for point in start["initvals"])
    assert in_first == 7
    tree = joined.sample_nuts(
        20,
        tune=20,
        chains=2,
        random_seed=1,
        progressbar=False,
        cores=1,
        compute_convergence_checks=False,
    )
    assert set(np.sign(tree.posterior["x"].mean("draw").values)) == {-1, 1}


def test_is_no_prior_of_another_model(joined):
    with pm.Model(), pytest.raises(TypeError, match="one fit"):
        pmi.as_prior(joined)


def test_travels_by_cloudpickle(joined):
    again = cloudpickle.loads(cloudpickle.dumps(joined))
    points = np.zeros((1, 3))
    np.testing.assert_array_equal(again.log_density(points), joined.log_density(points))


def test_joins_approximations_of_one_model_only(fits, eight_schools):
    other = pmi.IsotropicMixture(n_components=1, model=eight_schools)
    with pytest.raises(ValueError, match="one model"):
        pmi.join([fits[0], other])
    with pytest.raises(ValueError, match="at least one"):
        pmi.join([])
    with pytest.raises(TypeError, match="IsotropicMixture"):
        pmi.join([1])
