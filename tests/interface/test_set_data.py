"""What a fit knows belongs to its data: ``pm.set_data`` before sampling, as for prediction."""

import logging

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pymc_isomix as pmi

N = 12
X = np.linspace(-1.0, 1.0, N)
Y = 2.0 * X + np.sin(7.0 * np.arange(N)) / 3
NEW = {
    "another length": ({"x": np.array([3.0, 4.0, 5.0]), "y_data": np.zeros(3)}, list("abc")),
    "other values": ({"x": X + 3.0, "y_data": np.zeros(N)}, list(range(N))),
}


def line():
    with pm.Model(coords={"observation": range(N)}) as model:
        x = pm.Data("x", X, dims="observation")
        y = pm.Data("y_data", Y, dims="observation")
        slope = pm.Normal("slope", 0.0, 10.0)
        mu = pm.Deterministic("mu", slope * x, dims="observation")
        pm.Normal("y", mu, 0.5, observed=y, dims="observation")
    return model


def with_sites():
    """The scale of the effects depends on data, which the coordinates hold as constants."""
    with pm.Model(coords={"observation": range(N)}) as model:
        x = pm.Data("x", X, dims="observation")
        y = pm.Data("y_data", Y, dims="observation")
        scale = pm.HalfNormal("scale", 1.0)
        slopes = pm.Normal("slopes", 0.0, scale, shape=2)
        slope = pm.Deterministic("slope", slopes.sum())
        mu = pm.Deterministic("mu", pt.stack([x, x], axis=1) @ slopes, dims="observation")
        pm.Normal("y", mu, 0.5, observed=y, dims="observation")
    assert slope.name == "slope"
    return model


def with_minibatches():
    with pm.Model(coords={"observation": range(N)}) as model:
        x = pm.Data("x", X, dims="observation")
        y = pm.Data("y_data", Y, dims="observation")
        x_batch, y_batch = pm.Minibatch(x, y, batch_size=6)
        slope = pm.Normal("slope", 0.0, 10.0)
        pm.Normal("y", slope * x_batch, 0.5, observed=y_batch, total_size=N)
    return model


FITS = [
    (line, "jax"),
    (line, "numba"),
    (with_sites, "jax"),
    (with_sites, None),
    (with_minibatches, "jax"),
    (with_minibatches, None),
]


def figures(approx):
    """Diagnostics, draws and moved draws."""
    report = approx.diagnostics(200, n_probes=2, transitions=2, progressbar=False)
    moved = approx.sample(10, transitions=2, random_seed=2, progressbar=False)
    return report, approx.sample(40, random_seed=2), moved


@pytest.fixture(scope="module", params=FITS, ids=lambda fit: f"{fit[0].__name__}-{fit[1]}")
def fitted(request):
    build, backend = request.param
    if backend is not None:
        pytest.importorskip(backend)
    model = build()
    inference = pmi.IsoMix(2, random_seed=1, model=model)
    options = {"backend": backend} if backend else {"compile_kwargs": {"mode": "FAST_COMPILE"}}
    approx = inference.fit(20, progressbar=False, **options)
    return inference, *figures(approx)


@pytest.fixture
def restored(fitted):
    inference, *before = fitted
    model = inference.approx.model
    yield inference, *before
    pm.set_data({"x": X, "y_data": Y}, coords={"observation": range(N)}, model=model)


def put(model, new):
    values, coords = NEW[new]
    pm.set_data(values, coords={"observation": coords}, model=model)


@pytest.mark.parametrize("new", NEW)
def test_draws_weights_and_verdict_are_those_before(restored, new, caplog):
    inference, report, *trees = restored
    approx = inference.approx
    put(approx.model, new)
    with caplog.at_level(logging.INFO, "pymc_isomix"):
        report_after, *trees_after = figures(approx)
    for name in ("khat", "log_evidence", "sd_reweighted"):
        np.testing.assert_array_equal(report_after[name], report[name])
    for tree, after in zip(trees, trees_after, strict=True):
        np.testing.assert_array_equal(after.posterior["slope"], tree.posterior["slope"])
        for name in tree.sample_stats:
            np.testing.assert_array_equal(after.sample_stats[name], tree.sample_stats[name])
    how = "from shape (12,) to (3,)" if new == "another length" else "in 12 of 12 values"
    assert f"x {how}" in caplog.text
    assert "deterministics use the data that the model has now" in caplog.text


@pytest.mark.parametrize("new", NEW)
def test_prediction_in_the_usual_order(restored, new):
    inference, _, tree, _ = restored
    values, coords = NEW[new]
    with inference.approx.model as model:
        put(model, new)
        idata = inference.approx.sample(40, random_seed=2)
        if "mu" not in model.named_vars:
            return
        predicted = pm.sample_posterior_predictive(
            idata,
            var_names=["mu"],
            predictions=True,
            progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        ).predictions["mu"]
    assert predicted.coords["observation"].values.tolist() == coords
    slope = tree.posterior["slope"].values
    np.testing.assert_allclose(predicted, slope[..., None] * values["x"], rtol=1e-10)


@pytest.mark.parametrize("new", NEW)
def test_the_tree_says_of_what_data_it_is(restored, new):
    inference, _, tree, _ = restored
    put(inference.approx.model, new)
    after = inference.approx.sample(3)
    np.testing.assert_array_equal(after.observed_data["y"], Y)
    if "observation" in after.observed_data["y"].dims:
        assert after.observed_data["observation"].values.tolist() == list(range(N))
    assert after.observed_data.attrs["data"] == "of the fit"
    np.testing.assert_array_equal(after.constant_data["x"], NEW[new][0]["x"])
    assert after.constant_data.attrs["data"].startswith("of the model when drawn")
    assert after.sample_stats.attrs["data"] == "of the fit"
    assert "data" not in tree.sample_stats.attrs


def test_nuts_in_the_coordinates_of_the_fit_samples_its_posterior():
    model = line()
    precision = 1 / 10**2 + X @ X / 0.5**2
    mean, sd = X @ Y / 0.5**2 / precision, precision**-0.5
    approx = pmi.IsotropicMixture(
        n_components=1, start={"slope": mean}, start_sigma=sd, init_width=0.0, model=model
    )
    put(model, "another length")
    tree = approx.sample_nuts(
        200,
        tune=100,
        chains=1,
        random_seed=1,
        progressbar=False,
        compute_convergence_checks=False,
        compile_kwargs={"mode": "FAST_COMPILE"},
    )
    # 200 draws, worth 50 at least
    assert tree.posterior["slope"].mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(50))
    assert tree.sample_stats.attrs["data"] == "of the fit"


def test_nuts_init_says_that_nuts_takes_other_data(caplog):
    model = line()
    approx = pmi.IsotropicMixture(n_components=1, random_seed=1, model=model)
    put(model, "other values")
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        approx.nuts_init(1, random_seed=1, compile_kwargs={"mode": "FAST_COMPILE"})
    assert "x in 12 of 12 values" in caplog.text
    assert "approx.sample_nuts() uses the data of the fit" in caplog.text


@pytest.fixture
def inference():
    inference = pmi.IsoMix(2, random_seed=1, model=line())
    inference.fit(3, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"})
    return inference


def test_a_fit_that_goes_on_with_other_data_says_so(inference, caplog):
    approx = inference.approx
    put(approx.model, "other values")
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        inference.refine(2, progressbar=False)
    assert "x in 12 of 12 values" in caplog.text
    assert "with the new data" in caplog.text
    assert not approx.space_of_context().changes()
    fresh = pmi.IsotropicMixture(values=approx.mixture.as_dict(), model=approx.model)
    points = approx.mixture.means
    expected = fresh.compiled_model().log_density(points)
    np.testing.assert_allclose(approx.compiled_model().log_density(points), expected, rtol=1e-10)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        pmi.resume(approx).fit(2, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"})
    assert "have changed" not in caplog.text


def test_refining_with_another_length_says_to_fit(inference):
    put(inference.approx.model, "another length")
    with pytest.raises(ValueError, match=r"x from shape \(12,\) to \(3,\).* call fit\(\)"):
        inference.refine(2, progressbar=False)
    inference.fit(2, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"})
    assert np.isfinite(inference.approx.sample(3).sample_stats["lp"]).all()


def test_a_file_is_told_from_other_data(tmp_path, inference, caplog):
    approx, path = inference.approx, tmp_path / "fit.nc"
    approx.save(path)
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        pmi.load(path, line())
    assert "other data" not in caplog.text
    put(approx.model, "another length")
    with caplog.at_level(logging.WARNING, "pymc_isomix"):
        pmi.load(path, approx.model)
    assert "x (shape (12,) then, (3,) now)" in caplog.text
    assert "load before pm.set_data" in caplog.text


@pytest.mark.parametrize("groups", [["a", "b", "c"], ["c", "d"]])
def test_new_groups_are_none_of_the_fit(groups):
    with pm.Model(coords={"group": ["a", "b"]}) as model:
        seen = pm.Data("seen", [1.0, 2.0], dims="group")
        effect = pm.Normal("effect", dims="group")
        pm.Normal("y", effect, 1.0, observed=seen, dims="group")
    approx = pmi.IsotropicMixture(n_components=1, random_seed=1, model=model)
    idata = approx.sample(20, random_seed=1)
    pm.set_data({"seen": np.zeros(len(groups))}, coords={"group": groups}, model=model)
    with pytest.raises(
        ValueError, match=r"dim 'group' of effect .*Call sample\(\) before pm\.set_data"
    ):
        approx.sample(20)
    with pytest.raises(ValueError, match="dim 'group' of effect"):
        approx.sample_nuts(20)
    predicted = pm.sample_posterior_predictive(
        idata,
        model=model,
        sample_vars=["effect"],
        var_names=["effect"],
        predictions=True,
        progressbar=False,
        compile_kwargs={"mode": "FAST_COMPILE"},
    ).predictions["effect"]
    assert predicted.coords["group"].values.tolist() == groups


def test_joined_fits_keep_their_data():
    model = line()
    fits = [pmi.IsotropicMixture(n_components=2, random_seed=s, model=model) for s in (1, 2)]
    joined = pmi.join(fits, random_seed=1)
    before = joined.sample(20, random_seed=1)
    put(model, "another length")
    after = joined.sample(20, random_seed=1)
    np.testing.assert_array_equal(after.sample_stats["lp"], before.sample_stats["lp"])
    assert after.posterior["mu"].shape == (1, 20, 3)
