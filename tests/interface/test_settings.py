import numpy as np
import pymc as pm
import pytest

from pymc_isomix import IsoMix
from pymc_isomix.interface.settings import STEP_SIZE, Settings, metric_kind


@pytest.mark.parametrize(("n_dim", "kind"), [(500, "dense"), (501, "diag")])
def test_metric_by_the_number_of_dimensions(n_dim, kind, caplog):
    with caplog.at_level("INFO"):
        assert metric_kind("auto", n_dim) == kind
    assert f"metric='auto': {kind}, for {n_dim} dimensions" in caplog.text
    assert metric_kind("identity", n_dim) == "identity"


@pytest.mark.parametrize(("n_components", "n_samples"), [(1, 150), (4, 38), (50, 3), (1000, 3)])
def test_a_step_has_enough_draws(n_components, n_samples):
    assert Settings(n_components=n_components).draws_of_each() == n_samples
    assert Settings(n_components=n_components, n_samples=7).draws_of_each() == 7


@pytest.mark.parametrize(("n_components", "n_samples"), [(1, 50), (40, 2), (50, 1), (1000, 1)])
def test_fewer_draws_where_sites_have_many_elements(n_components, n_samples):
    settings = Settings(n_components=n_components)
    assert settings.draws_of_each(501) == settings.rule(501).n_samples == n_samples
    assert settings.draws_of_each(500) == settings.rule().n_samples >= 3
    assert Settings(n_components=n_components, n_samples=7).draws_of_each(501) == 7


def test_step_size():
    assert Settings(step_size="auto").first_step == STEP_SIZE
    assert Settings(step_size=0.1).first_step == 0.1


def test_defaults_reach_the_fit():
    with pm.Model() as model:
        pm.Normal("theta", shape=3)
    inference = IsoMix(random_seed=1, model=model)
    means = inference.approx.groups[0].shared_params["means"].get_value()
    assert np.shape(means) == (50, 3)
    assert inference.objective.op.rule.n_samples == 3


def test_component_variances_are_checked():
    with pytest.raises(ValueError, match=r"component_variances.*isotropic.*diagonal.*'full'"):
        Settings(component_variances="full")
