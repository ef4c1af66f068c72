"""What the package promises: its names, their signatures, its types, and the round trip."""

import inspect
import re
import subprocess
import sys
from importlib.resources import files

import pymc as pm
import pytest
import xarray as xr
from pymc.variational.inference import Inference
from pymc.variational.opvi import Approximation, Group
from pytensor.compile.mode import Mode

import pymc_isomix as pmi


def parameters(function):
    return dict(inspect.signature(function).parameters)


def test_all_names_are_exported():
    classes = ["IsoMix", "IsotropicMixture", "IsotropicMixtureGroup", "JoinedMixture"]
    plots = ["plot_components", "plot_elbo", "plot_khat", "plot_modes", "plot_shares"]
    assert sorted(pmi.__all__) == [
        *classes,
        "as_prior",
        "fit",
        "fit_ensemble",
        "fit_many",
        "join",
        "load",
        *plots,
        "resume",
    ]
    assert all(hasattr(pmi, name) for name in pmi.__all__)


def test_star_import_gives_just_them():
    namespace = {}
    exec("from pymc_isomix import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(pmi.__all__)


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", pmi.__version__)


def test_package_is_typed():
    assert files(pmi).joinpath("py.typed").is_file()


def test_kinds_of_the_classes():
    assert issubclass(pmi.IsoMix, Inference)
    assert issubclass(pmi.IsotropicMixture, Approximation)
    assert issubclass(pmi.IsotropicMixtureGroup, Group)
    assert Group.group_for_short_name("isotropic_mixture") is pmi.IsotropicMixtureGroup
    assert Group.group_for_short_name("isomix") is pmi.IsotropicMixtureGroup


@pytest.mark.parametrize("name", pmi.__all__)
def test_exported_names_are_documented(name):
    documented = inspect.getdoc(getattr(pmi, name))
    assert "Parameters\n" in documented
    assert not documented.startswith("\n")


def test_only_the_number_of_components_is_positional():
    for function in (pmi.IsoMix, pmi.IsoMix.paper):
        kinds = {name: one.kind for name, one in parameters(function).items()}
        assert kinds.pop("n_components") is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert set(kinds.values()) <= {
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        }


def test_options_of_the_inference():
    public = {name for name in parameters(pmi.IsoMix) if not name.startswith("_")}
    agreed = {
        "n_components",
        "variance_update",
        "shared_variance",
        "metric",
        "weights",
        "step_size",
        "n_samples",
        "start",
        "start_sigma",
        "init",
        "random_seed",
        "model",
    }
    assert agreed <= public
    documented = inspect.getdoc(pmi.IsoMix)
    # numpydoc: "name : type", several names before one colon where they belong together
    names = {
        name.strip()
        for line in documented.splitlines()
        if " : " in line and not line.startswith(" ")
        for name in line.split(" : ")[0].split(",")
    }
    assert public <= names


def test_paper_fixes_what_the_paper_does():
    with pm.Model() as model:
        pm.Normal("theta", shape=3)
    for fixed in ("metric", "weights"):
        with pytest.raises(TypeError, match=fixed):
            pmi.IsoMix.paper(model=model, **{fixed: "uniform"})
    inference = pmi.IsoMix.paper(2, model=model)
    assert inference.approx.shared_params["metric"].get_value() == 1.0
    rule = inference.objective.op.rule
    assert (rule.learn_weights, rule.absolute_step, rule.shared_variance) == (False, True, False)


def test_fit_of_the_inference_takes_what_pymc_s_takes():
    ours, theirs = parameters(pmi.IsoMix.fit), parameters(Inference.fit)
    assert list(ours)[:5] == list(theirs)[:5]
    for name in ("n", "score", "callbacks", "progressbar", "backend"):
        assert ours[name].default == theirs[name].default
    assert "kwargs" in ours
    assert list(parameters(pmi.IsoMix.refine)) == list(parameters(Inference.refine))


def test_fit_in_one_call_takes_the_options_of_the_inference():
    options = parameters(pmi.fit)
    assert next(iter(options.values())).kind is inspect.Parameter.POSITIONAL_ONLY  # n, or a model
    assert options["n"].kind is inspect.Parameter.KEYWORD_ONLY
    assert {"draws", "model", "random_seed", "progressbar", "callbacks", "backend"} <= set(options)
    with pytest.raises(TypeError, match="n_particles"):
        pmi.fit(1, n_particles=3)


def test_sample_takes_what_pymc_s_takes():
    ours, theirs = parameters(pmi.IsotropicMixture.sample), parameters(Approximation.sample)
    assert [name for name in ours if name in theirs] == list(theirs)
    assert {n: ours[n].default for n in theirs} == {n: p.default for n, p in theirs.items()}
    # what is added leaves a sample as PyMC gives it
    assert {n: ours[n].default for n in set(ours) - set(theirs)} == {
        "importance": "none",
        "transitions": 0,
        "force": False,
        "progressbar": True,
    }


def test_pm_fit_round_trip():
    with pm.Model(coords={"group": ["a", "b"], "observation": [7, 8, 9]}) as model:
        theta = pm.Normal("theta", dims="group")
        total = pm.Deterministic("total", theta.sum())
        pm.Normal("y", total, 1.0, observed=[1.0, 2.0, 3.0], dims="observation")
        inference = pmi.IsoMix(n_components=2, variance_update="bures", random_seed=1)
        approx = pm.fit(
            n=20,
            method=inference,
            compile_kwargs={"mode": Mode(linker="py", optimizer="fast_compile")},
            progressbar=False,
        )
    draws = approx.sample(10)
    assert isinstance(draws, xr.DataTree)
    assert inference.approx is approx
    assert approx.model is model
    assert set(draws.posterior.data_vars) == {"theta", "total"}
    assert draws.posterior["theta"].dims == ("chain", "draw", "group")
    assert draws.posterior.sizes == {"chain": 1, "draw": 10, "group": 2}
    assert list(draws.posterior.coords["group"].values) == ["a", "b"]
    assert list(draws.observed_data.coords["observation"].values) == [7, 8, 9]


def test_dir_lists_what_is_public():
    assert dir(pmi) == sorted(pmi.__all__)


LOGGING = """
import logging, sys
import pymc_isomix
if sys.argv[1] == "configured":
    logging.basicConfig(level=logging.INFO)
logging.getLogger("pymc_isomix.interface").info("a line")
"""


@pytest.mark.parametrize("configured", ["configured", "as it is"])
def test_every_line_of_the_log_is_seen_once(configured):
    command = [sys.executable, "-c", LOGGING, configured]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert seen.count("a line") == 1


def test_import_is_quick():
    """What takes long to import is imported when it is used."""
    late = ("jaxlib", "arviz_stats", "arviz_plots", "scipy.stats", "scipy.linalg", "scipy.cluster")
    code = f"import sys, pymc_isomix; print(sorted(set({late}) & set(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "[]"
