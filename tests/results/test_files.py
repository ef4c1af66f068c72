"""Files: what comes back, and what is refused."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor.compile.mode import Mode

import pymc_isomix as pmi
from pymc_isomix.results import files

NUMPY = Mode(linker="py", optimizer="fast_compile")
BRIEF = {"progressbar": False, "compile_kwargs": {"mode": NUMPY}}


def build_model(*, scale="scale", length=2, positive=pm.HalfNormal):
    with pm.Model() as model:
        pm.Normal("theta", 0.0, 2.0, shape=length)
        positive(scale, 1.0)
    return model


@pytest.fixture(scope="module")
def fitted():
    inference = pmi.IsoMix.paper(3, schedule="sqrt", random_seed=1, model=build_model())
    return inference.fit(6, **BRIEF)


def test_everything_comes_back(fitted, tmp_path):
    path = tmp_path / "fit.nc"
    fitted.save(path)
    loaded = pmi.load(path, build_model())
    for name, value in fitted.mixture.as_dict().items():
        read = loaded.mixture.as_dict()[name]
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read, value)
    np.testing.assert_array_equal(loaded.hist, fitted.hist)
    assert loaded.history.settings == fitted.history.settings
    assert loaded.history.versions == fitted.history.versions
    assert loaded.history.generators == fitted.history.generators
    xr.testing.assert_identical(loaded.history.to_dataset(), fitted.history.to_dataset())
    drawn = [approx.sample(5, random_seed=3).posterior.to_dataset() for approx in (fitted, loaded)]
    xr.testing.assert_equal(*drawn)
    assert loaded.rng.randint(2**30) == fitted.rng.randint(2**30)
    assert os.listdir(tmp_path) == [path.name]  # nothing is left beside it


@pytest.mark.parametrize("metric", ["identity", "diag", "dense"])
def test_one_component_of_every_kind_of_metric(tmp_path, metric):
    with pm.Model() as model:
        pm.Normal("x")
        approx = pmi.IsotropicMixture(n_components=1, metric=metric, random_seed=1)
        approx.save(tmp_path / "one.nc")
        loaded = pmi.load(tmp_path / "one.nc")
    assert loaded.model is model
    assert loaded.mixture.metric.shape == approx.mixture.metric.shape
    assert loaded.diagnostics(100, n_probes=0).verdict in ("good", "doubtful", "bad")


def test_a_component_without_weight_stays_so(tmp_path):
    with pm.Model():
        pm.Normal("x")
        approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
        approx.groups[0].mixture = approx.mixture.replace(log_weights=np.array([0.0, -np.inf]))
        approx.save(tmp_path / "fit.nc")
        loaded = pmi.load(tmp_path / "fit.nc")
    np.testing.assert_array_equal(loaded.mixture.log_weights, [0.0, -np.inf])


@pytest.mark.parametrize("mode", [NUMPY, "JAX"])
def test_a_fit_goes_on_with_the_same_numbers(tmp_path, mode):
    options = {"progressbar": False, "compile_kwargs": {"mode": mode}}

    def start():
        return pmi.IsoMix.paper(2, schedule="sqrt", random_seed=1, model=build_model())

    whole = start().fit(8, **options)
    start().fit(5, **options).save(tmp_path / "half.nc")
    inference = pmi.resume(pmi.load(tmp_path / "half.nc", build_model()))
    iterations = []
    resumed = inference.fit(3, callbacks=[lambda *a: iterations.append(a[2])], **options)
    assert iterations == [6, 7, 8]
    np.testing.assert_allclose(resumed.hist, whole.hist, rtol=1e-12)
    np.testing.assert_allclose(
        resumed.mixture.means,
        whole.mixture.means,
        rtol=1e-12,
    )
    np.testing.assert_array_equal(resumed.history.step_size, whole.history.step_size)
    inference.refine(1, progressbar=False)
    assert resumed.history.elbo.shape == (9,)
    assert inference.state.i == 8


# What is refused


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (build_model(scale="width"), "scale is only in the file; width is only in the model"),
        (build_model(length=3), r"theta has shape \[2\] in the file and \[3\] in the model"),
        (
            build_model(positive=lambda name, _: pm.Uniform(name, 0.0, 1.0)),
            "scale has transform LogTransform in the file and Interval in the model",
        ),
    ],
)
def test_another_model_is_refused(fitted, tmp_path, model, message):
    fitted.save(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match=message):
        pmi.load(tmp_path / "fit.nc", model)


def test_another_order_is_refused(fitted, tmp_path):
    with pm.Model() as model:
        pm.HalfNormal("scale", 1.0)
        pm.Normal("theta", 0.0, 2.0, shape=2)
    fitted.save(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match="their order"):
        pmi.load(tmp_path / "fit.nc", model)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_cut_short(fitted, tmp_path, share):
    path = tmp_path / "fit.nc"
    fitted.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="is not a whole file of an approximation"):
        pmi.load(path, build_model())


def test_a_file_of_something_else(tmp_path):
    xr.Dataset({"x": 1.0}).to_netcdf(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match=r"not written by approx\.save: it is another"):
        pmi.load(tmp_path / "fit.nc", build_model())


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fit\.nc"):
        pmi.load(tmp_path / "fit.nc", build_model())


@pytest.mark.parametrize("name", ["fit", "fit.pkl", "fit.zarr"])
def test_other_suffixes_are_refused(fitted, tmp_path, name):
    with pytest.raises(ValueError, match=r"path must end in \.nc \(netCDF\)"):
        fitted.save(tmp_path / name)


def test_another_format_is_refused(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FORMAT", 99)
    fitted.save(tmp_path / "fit.nc")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has format 99; this version .* reads 3"):
        pmi.load(tmp_path / "fit.nc", build_model())


# A process that dies while it saves

KILLED = """
    import os, signal, sys
    from pathlib import Path
    import xarray as xr
    import pymc as pm
    import pymc_isomix as pmi
    from pymc_isomix.results import files

    moment, path = sys.argv[1], Path(sys.argv[2])
    die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    if moment == "writing":
        write = xr.DataTree.to_netcdf
        def broken(tree, target):
            write(tree, target)
            os.truncate(target, target.stat().st_size // 2)
            die()
        xr.DataTree.to_netcdf = broken
    else:
        os.replace = die
    with pm.Model():
        pm.Normal("theta", 0.0, 2.0, shape=2)
        pm.HalfNormal("scale", 1.0)
        pmi.IsotropicMixture(n_components=3, random_seed=99).save(path)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_the_old_file_stays_whole(fitted, tmp_path, moment):
    path = tmp_path / "fit.nc"
    fitted.save(path)
    environment = {**os.environ, "PYTENSOR_FLAGS": "cxx=", "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), moment, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    loaded = pmi.load(path, build_model())
    np.testing.assert_array_equal(loaded.mixture.means, fitted.mixture.means)
    fitted.save(path)  # and saving goes on as before
    assert Path(path).exists()
    pmi.load(path, build_model())


def test_draws_of_arviz_are_told_from_an_approximation(fitted, tmp_path):
    path = tmp_path / "draws.nc"
    fitted.sample(10, random_seed=1).to_netcdf(path)
    with pytest.raises(ValueError, match=r"not written by approx\.save.* posterior.* arviz\.from_"):
        pmi.load(path, model=fitted.model)


def test_no_folder(fitted, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"an existing folder; there is no .*missing'"):
        fitted.save(tmp_path / "missing" / "fit.nc")


def test_a_library_that_is_missing_is_named(fitted, tmp_path, monkeypatch):
    name, message = "fit.nc", r"netCDF file needs h5netcdf or netCDF4: `pip install h5netcdf`"
    monkeypatch.setattr(files, "find_spec", lambda library: None)
    with pytest.raises(ImportError, match=message):
        fitted.save(tmp_path / name)
    with pytest.raises(ImportError, match=message):
        pmi.load(tmp_path / name, model=fitted.model)


def test_a_changed_random_state_or_setting_is_noticed(fitted, tmp_path):
    fitted.save(tmp_path / "fit.nc")
    tree = xr.open_datatree(tmp_path / "fit.nc").load()
    tree.close()
    for attrs, name in [
        (tree.attrs, "random_state"),
        (tree.attrs, "generators"),
        (tree.attrs, "variables"),
        (tree["fit"].attrs, "settings"),
    ]:
        kept = attrs[name]
        attrs[name] = kept.replace("1", "2") if "1" in kept else kept + " "
        tree.to_netcdf(tmp_path / "changed.nc")
        attrs[name] = kept
        with pytest.raises(ValueError, match="not a whole file of an approximation"):
            pmi.load(tmp_path / "changed.nc", model=fitted.model)


def test_another_format_is_said_though_its_checksum_is_unknown(fitted, tmp_path):
    fitted.save(tmp_path / "fit.nc")
    tree = xr.open_datatree(tmp_path / "fit.nc").load()
    tree.close()
    tree.attrs |= {"format": 99, "checksum": "of a kind to come"}
    tree.to_netcdf(tmp_path / "newer.nc")
    with pytest.raises(ValueError, match=r"has format 99; .*use the version that saved it"):
        pmi.load(tmp_path / "newer.nc", model=fitted.model)


def test_diagonal_components_come_back_and_go_on(tmp_path):
    def inference():
        options = {"schedule": "sqrt", "random_seed": 1, "model": build_model()}
        return pmi.IsoMix.paper(3, component_variances="diagonal", **options)

    approx, path = inference().fit(4, **BRIEF), tmp_path / "fit.nc"
    approx.save(path)
    loaded = pmi.load(path, build_model())
    assert loaded.mixture.log_variances.shape == (3, 3)
    np.testing.assert_array_equal(loaded.mixture.log_variances, approx.mixture.log_variances)
    drawn = [one.sample(5, random_seed=3).posterior.to_dataset() for one in (approx, loaded)]
    xr.testing.assert_equal(*drawn)
    resumed = pmi.resume(loaded)
    assert resumed.settings.component_variances == "diagonal"
    resumed.fit(2, **BRIEF)
    whole = inference().fit(6, **BRIEF)
    np.testing.assert_allclose(loaded.mixture.log_variances, whole.mixture.log_variances)
    with pytest.raises(ValueError, match="component_variances cannot change"):
        pmi.resume(loaded, component_variances="isotropic")
