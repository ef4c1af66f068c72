"""What the user named, at draws, in its own units."""

import numpy as np
import pymc as pm

import pymc_isomix as pmi
from pymc_isomix.model import named


def test_variables_in_their_own_units():
    with pm.Model(coords={"side": ["left", "right"]}) as model:
        x = pm.Normal("x", dims="side")
        tau = pm.HalfNormal("tau")
        pm.Deterministic("effect", tau * x, dims="side")
        pm.Deterministic("constant", pm.math.exp(0 * tau))
        pm.Deterministic("count", pm.math.floor(tau).astype("int64"))
        pm.Deterministic("broken", pm.math.log(x[0]))
        pm.VonMises("angle", 0.0, 1.0)
    compiled = pmi.IsotropicMixture(n_components=1, model=model, random_seed=1).compiled_model()
    points = np.random.default_rng(1).normal(size=(400, 4))
    labels, values, few = named.named_draws(compiled, points, points[:3])
    # no variable that lies there as it is, no constant, integer, angle, or number that is none
    assert list(labels) == ["tau", "effect[left]", "effect[right]"]
    tau = np.exp(points[:, 2])
    np.testing.assert_allclose(values, np.column_stack([tau, tau[:, None] * points[:, :2]]))
    np.testing.assert_array_equal(few, values[:3])


def test_large_ones_are_left_out(monkeypatch):
    monkeypatch.setattr(named, "MOST_COLUMNS", 5)
    with pm.Model() as model:
        tau = pm.HalfNormal("tau")
        pm.Deterministic("many", tau * np.arange(1, 6))
        pm.Deterministic("few", tau * np.arange(1, 4))
    compiled = pmi.IsotropicMixture(n_components=1, model=model, random_seed=1).compiled_model()
    labels, values = named.named_draws(compiled, np.zeros((1, 1)), np.ones((2, 1)))[0::2]
    assert values.shape == (2, len(labels))
    labels = named.named_draws(compiled, np.array([[0.0], [1.0]]))[0]
    assert list(labels) == ["tau", "few[0]", "few[1]", "few[2]"]


def test_nothing_to_name():
    with pm.Model() as model:
        pm.Normal("x")
    compiled = pmi.IsotropicMixture(n_components=1, model=model, random_seed=1).compiled_model()
    labels, values = named.named_draws(compiled, np.zeros((7, 1)))
    assert labels.shape == (0,)
    assert values.shape == (7, 0)
