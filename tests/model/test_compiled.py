"""A model at draws: which data, in chunks, and what a sample holds of it."""

import cloudpickle
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc.pytensorf import compile
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix import IsotropicMixture
from pymc_isomix.fitting.record import History
from pymc_isomix.model import compiled, traces
from pymc_isomix.model.compiled import (
    CompiledModel,
    n_observations,
    rows_per_row_of_minibatch,
    without_minibatches,
)
from pymc_isomix.results import importance

ROWS = np.random.default_rng(1).normal(1.0, 1.0, size=60)


def exact(minibatch=False, **coords):
    with pm.Model(**coords) as model:
        mu = pm.Normal("mu", 0.0, 2.0)
        if minibatch:
            pm.Normal("y", mu, 1.0, observed=pm.Minibatch(ROWS, batch_size=5), total_size=60)
        else:
            pm.Normal("y", mu, 1.0, observed=ROWS)
    variance = 1 / (1 / 4 + 60)
    params = {
        "means": np.array([[variance * ROWS.sum()], [variance * ROWS.sum() + 0.01]]),
        "log_variances": np.zeros(2),
        "log_weights": np.zeros(2),
        "metric": np.array([np.sqrt(variance)]),
    }
    return IsotropicMixture(params=params, model=model, random_seed=1)


def log_joint(mu):
    return stats.norm(0, 2).logpdf(mu) + stats.norm(mu[:, None], 1).logpdf(ROWS).sum(axis=1)


EVIDENCE = stats.multivariate_normal(np.zeros(60), np.eye(60) + 4.0).logpdf(ROWS)


def test_statistics_of_the_draws():
    approx = exact()
    tree = approx.sample(200, random_seed=1)
    found = tree.sample_stats
    mu = tree.posterior["mu"].values[0]
    np.testing.assert_allclose(found["lp"].values[0], log_joint(mu), rtol=1e-10)
    np.testing.assert_allclose(found["log_q"].values[0], approx.log_density(mu[:, None]))
    xr.testing.assert_allclose(found["log_weight"], found["lp"] - found["log_q"])
    np.testing.assert_allclose(found["log_weight"], EVIDENCE, atol=0.3)
    assert float(found["weight"].sum()) == pytest.approx(1.0)
    assert set(np.unique(found["component"])) == {0, 1}
    assert found["component"].dtype.kind == "i"
    assert "fit" not in tree.children


def test_weights_of_a_minibatch_are_left_out_of_a_sample():
    tree = exact(minibatch=True).sample(20)
    assert set(tree.sample_stats.data_vars) == {"log_q", "component"}
    assert "evidence_share" not in tree.isomix
    assert "diagnostics" not in tree.children


def test_diagnostics_and_resampling_use_all_the_data():
    approx = exact(minibatch=True)
    result = approx.diagnostics(500, random_seed=1, n_probes=0)
    assert result["log_evidence"].item() == pytest.approx(EVIDENCE, abs=0.01)
    tree = approx.sample(20, random_seed=1, importance="psis")
    mu = tree.posterior["mu"].values[0]
    np.testing.assert_allclose(tree.sample_stats["lp"].values[0], log_joint(mu), rtol=1e-10)


@pytest.mark.parametrize("total_size", [30, (30, None), (30, 2), (None, 2)])
def test_minibatches_of_matrices_use_all_the_data(total_size):
    rows = ROWS.reshape(30, 2)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 2.0)
        pm.Normal("y", mu, 1.0, observed=pm.Minibatch(rows, batch_size=5), total_size=total_size)
    approx = IsotropicMixture(params=exact().params_dict, model=model, random_seed=1)
    result = approx.diagnostics(500, random_seed=1, n_probes=0)
    assert result["log_evidence"].item() == pytest.approx(EVIDENCE, abs=0.01)


def test_minibatches_within_a_softmax_use_all_the_data():
    # A softmax is a graph of its own, made for the shape of its input.
    x = np.linspace(-1, 1, 12).reshape(6, 2)
    answer = np.array([0, 1, 2, 0, 1, 2], dtype="int32")

    def model(x, answer):
        with pm.Model() as model:
            slope = pm.Normal("slope", shape=(2, 3))
            pm.Categorical("answer", logit_p=x @ slope, observed=answer, total_size=6)
        return model

    of_some = without_minibatches(model(*pm.Minibatch(x, answer, batch_size=4)))
    point = {"slope": np.arange(6.0).reshape(2, 3)}
    for name in ("compile_logp", "compile_dlogp"):
        found = getattr(of_some, name)(mode="FAST_COMPILE")(point)
        exact = getattr(model(x, answer), name)(mode="FAST_COMPILE")(point)
        np.testing.assert_allclose(found, exact, rtol=1e-12)


def test_a_model_of_the_context_stands_in():
    approx = exact(minibatch=True)
    with exact().model:
        found = approx.sample(20, random_seed=1).sample_stats
    np.testing.assert_allclose(found["log_weight"], EVIDENCE, atol=0.3)


def test_a_model_of_other_variables_is_refused_by_their_names():
    approx = exact()
    with pm.Model():
        pm.HalfNormal("mu")
        pm.Normal("more")
        with pytest.raises(
            ValueError, match=r"other free variables .*differ in more, mu\. Leave that"
        ):
            approx.sample(10)


def test_too_few_draws_for_khat_are_not_resampled(monkeypatch):
    """A NaN is no k-hat of at most one, with ``force`` neither."""
    approx = exact()
    monkeypatch.setattr(importance, "FEWEST_DRAWS", 10_000)
    for force in (False, True):
        with pytest.raises(ValueError, match="k-hat of at most 1; it is nan"):
            approx.sample(10, importance="psis", force=force)


def test_other_randomness_is_refused():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        _, noise = pt.random.normal(size=(), rng=pt.random.shared_rng(seed=1), return_next_rng=True)
        pm.Potential("noise", mu * noise)
    approx = IsotropicMixture(model=model, random_seed=1)
    with pytest.raises(ValueError, match=r"random, and not only through pm\.Minibatch"):
        approx.diagnostics(50)
    with pytest.raises(ValueError, match=r"random, and not only through pm\.Minibatch"):
        approx.sample(50, importance="psis")
    assert "lp" not in approx.sample(50).sample_stats


def test_a_log_density_that_fails_leaves_the_draws(caplog):
    def build(n):
        with pm.Model() as model:
            x = pm.Data("x", np.zeros(n))
            mu = pm.Normal("mu")
            pm.Normal("y", mu + x, 1.0, observed=np.zeros(3))
        return model

    approx = IsotropicMixture(model=build(3), random_seed=1)
    with caplog.at_level("INFO", "pymc_isomix"), build(4):
        tree = approx.sample(10)
    assert tree.posterior["mu"].shape == (1, 10)
    assert "lp" not in tree.sample_stats
    assert "the draws have no weights" in caplog.text


@pytest.mark.parametrize(("padded", "expected"), [(False, [10] * 10 + [1]), (True, [10] * 11)])
def test_chunks_make_the_whole(padded, expected):
    approx = exact()
    points = approx.draw_unconstrained(101, np.random.default_rng(1))[0]
    calls = []

    def evaluate(points):
        calls.append(len(points))
        return [log_joint(points[:, 0]), points]

    log_p, same = compiled._in_chunks(evaluate, 10, padded=padded)(points)
    assert calls == expected  # of one size: another shape would compile anew
    np.testing.assert_allclose(log_p, log_joint(points[:, 0]), rtol=1e-10)
    np.testing.assert_array_equal(same, points)


def test_values_in_model_space_are_evaluated_in_chunks_too(monkeypatch):
    sizes = []

    def evaluate(points):
        sizes.append(len(points))
        return {"x": points[:, 0]}

    monkeypatch.setattr(traces, "compile_constrained", lambda space, dtype: evaluate)
    points = np.arange(400.0).reshape(400, 1)
    found = CompiledModel(exact().space, "float64").constrained(points)
    np.testing.assert_array_equal(found["x"], points[:, 0])
    assert sizes == [150, 150, 100]


def test_gradient():
    approx = exact()
    points = approx.draw_unconstrained(5, np.random.default_rng(1))[0]
    log_p, gradient = approx.compiled_model().log_density_and_gradient(points)
    np.testing.assert_allclose(log_p, log_joint(points[:, 0]), rtol=1e-10)
    expected = -points / 4 + (ROWS - points).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8)


@pytest.mark.parametrize("n_points", [0, 1, 151])
def test_the_backend_of_the_fit_evaluates(n_points):
    space = exact().space
    points = np.linspace(-1.0, 2.0, n_points)[:, None]
    on_jax, on_numpy = (CompiledModel(space, "float64", backend) for backend in ("jax", ""))
    for ours, theirs in zip(
        on_jax.log_density_and_gradient(points),
        on_numpy.log_density_and_gradient(points),
        strict=True,
    ):
        assert isinstance(ours, np.ndarray)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_points_of_another_precision():
    approx = exact()
    narrow = CompiledModel(approx.space, "float32", "")
    log_p, gradient = narrow.log_density_and_gradient(np.array([[0.5], [1.0]]))
    assert log_p.dtype == gradient.dtype == np.float32
    np.testing.assert_allclose(log_p, log_joint(np.array([0.5, 1.0])), rtol=1e-5)


def test_weights_and_gradients_compile_once(monkeypatch):
    calls = []
    monkeypatch.setattr(
        compiled, "compile", lambda *args, **kwargs: calls.append(1) or compile(*args, **kwargs)
    )
    approx = exact()
    model = approx.compiled_model()
    model.log_density(np.zeros((2, 1)))
    model.log_density_and_gradient(np.zeros((3, 1)))
    approx.diagnostics(50, n_probes=2)
    assert len(calls) == 1


def test_without_sites_coordinates_are_the_unconstrained_space():
    model, points = exact().compiled_model(), np.array([[0.5], [2.0]])
    unconstrained, log_determinant = model.to_unconstrained(points)
    np.testing.assert_array_equal(unconstrained, points)
    np.testing.assert_array_equal(log_determinant, 0.0)
    np.testing.assert_array_equal(model.from_unconstrained(points), points)


def test_compiled_once_until_the_model_grows(monkeypatch):
    whole, calls = compiled.traces.compile_constrained, []
    monkeypatch.setattr(
        compiled.traces, "compile_constrained", lambda *given: calls.append(1) or whole(*given)
    )
    approx = exact()
    for _ in range(2):
        approx.sample(3)
        assert len(calls) == 1
    with approx.model as model:
        pm.Deterministic("twice", 2 * model["mu"])
    assert "twice" in approx.sample(3).posterior
    assert len(calls) == 2


def test_a_fit_moves_the_model_to_its_backend():
    approx = exact()
    assert approx.compiled_model().backend == ""
    approx.history = History(backend="jax")
    assert approx.compiled_model().backend == "jax"


def test_compiled_functions_are_not_pickled():
    approx = exact()
    before = approx.sample(5, random_seed=1).posterior
    copy = cloudpickle.loads(cloudpickle.dumps(approx))
    xr.testing.assert_equal(
        copy.sample(5, random_seed=1).posterior.to_dataset(), before.to_dataset()
    )


def test_a_scan_is_not_quick(monkeypatch):
    import pytensor

    with pm.Model() as model:
        rate = pm.Normal("rate")
        powers = pytensor.scan(
            lambda previous, rate: previous * rate,
            outputs_info=pt.ones(()),
            non_sequences=rate,
            n_steps=3,
            return_updates=False,
        )
        pm.Normal("y", powers[-1], 1.0, observed=0.5)
    approx = IsotropicMixture(model=model, random_seed=1)
    assert not approx.compiled_model().is_quick
    assert exact().compiled_model().is_quick
    assert not exact(minibatch=True).compiled_model().is_quick
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        points = np.array([[0.5], [2.0]])
        log_p = approx.compiled_model().log_density(points)
    expected = stats.norm.logpdf(points[:, 0]) + stats.norm.logpdf(0.5, points[:, 0] ** 3)
    np.testing.assert_allclose(log_p, expected, rtol=1e-10)


# Resampling by importance


def shifted(sd=1.0, n_dim=1):
    with pm.Model() as model:
        pm.Normal("x", shape=n_dim)
    params = {
        "means": np.full((1, n_dim), 0.5),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.full(n_dim, sd),
    }
    return IsotropicMixture(params=params, model=model, random_seed=1)


def test_resampled_draws_are_the_posterior_s():
    tree = shifted(sd=1.3).sample(2000, random_seed=1, importance="psis")
    x = tree.posterior["x"].values
    # 8000 draws in the pool, of which weights leave a half: five standard errors of 4000
    assert x.mean() == pytest.approx(0.0, abs=5 / np.sqrt(4000))
    assert x.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * 4000))
    np.testing.assert_allclose(tree.sample_stats["weight"], 1 / 2000)
    assert tree.diagnostics["n_draws"].item() == 8000


def test_resampling_is_refused_where_weights_cannot_be_believed():
    approx = shifted(sd=0.2, n_dim=10)
    with pytest.raises(ValueError, match="needs a Pareto k-hat of at most 1; it is"):
        approx.sample(100, random_seed=1, importance="psis")
    forced = approx.sample(100, random_seed=1, importance="psis", force=True)
    assert forced.posterior["x"].shape == (1, 100, 10)


# Moving by transitions


def test_moved_draws_are_the_posterior_s():
    tree = shifted(sd=0.5, n_dim=2).sample(2000, random_seed=1, transitions=20)
    x = tree.posterior["x"].values
    np.testing.assert_allclose(x.mean(axis=(0, 1)), 0.0, atol=4 / np.sqrt(2000))
    np.testing.assert_allclose(x.std(axis=(0, 1)), 1.0, atol=4 / np.sqrt(2 * 2000))
    statistics = tree.sample_stats
    assert set(statistics.data_vars) == {"lp", "acceptance_rate", "energy"}
    np.testing.assert_allclose(statistics["lp"], stats.norm.logpdf(x).sum(axis=-1))
    assert statistics.attrs["transitions"] == 20
    assert 0.6 < statistics["acceptance_rate"].mean() < 0.95
    # the draws that were moved were half as wide
    report = tree.diagnostics
    np.testing.assert_allclose(report["log_sd_drift"], np.log(2), atol=0.1)
    np.testing.assert_allclose(report["transitions_sd"], x.std(axis=(0, 1)))
    assert ": the approximation is too narrow there" in report.attrs["advice"]


def test_resampled_draws_are_moved():
    tree = shifted(sd=1.3).sample(500, random_seed=1, importance="psis", transitions=3)
    assert tree.sample_stats.attrs["transitions"] == 3
    # what they drifted is no drift of the approximation
    assert tree.diagnostics["n_transitions"].item() == 0


def test_same_seed_same_moved_draws():
    once, again = (shifted().sample(50, random_seed=1, transitions=2) for _ in range(2))
    xr.testing.assert_equal(once.posterior.to_dataset(), again.posterior.to_dataset())


def test_transitions_see_all_the_data_or_refuse():
    tree = exact(minibatch=True).sample(20, random_seed=1, transitions=2)
    mu = tree.posterior["mu"].values[0]
    np.testing.assert_allclose(tree.sample_stats["lp"].values[0], log_joint(mu), rtol=1e-10)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        _, noise = pt.random.normal(size=(), rng=pt.random.shared_rng(seed=1), return_next_rng=True)
        pm.Potential("noise", mu * noise)
    approx = IsotropicMixture(model=model, random_seed=1)
    with pytest.raises(ValueError, match="weights and transitions would mean nothing"):
        approx.sample(50, transitions=1)


def test_number_of_transitions_is_checked():
    with pytest.raises(ValueError, match="transitions must be an integer of at least 0"):
        shifted().sample(10, transitions=-1)


def test_an_interrupt_while_transitions_run_gives_draws(monkeypatch, caplog):
    approx = shifted()
    whole, calls = compiled.CompiledModel.log_density_and_gradient, []

    def interrupted(model, points):
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return whole(model, points)

    monkeypatch.setattr(compiled.CompiledModel, "log_density_and_gradient", interrupted)
    with caplog.at_level("WARNING", "pymc_isomix"):
        tree = approx.sample(50, random_seed=1, transitions=20)
    assert tree.posterior["x"].shape == (1, 50, 1)
    assert f"after {tree.sample_stats.attrs['transitions']} of 20" in caplog.text
    assert tree.sample_stats.attrs["transitions"] == 2


def test_choice_of_importance_is_checked():
    with pytest.raises(ValueError, match="importance must be one of 'none', 'psis'"):
        shifted().sample(10, importance="sir")


def test_fit_in_one_call_has_every_group():
    with exact().model:
        tree = pmi.fit(3, n_components=2, draws=30, random_seed=1, progressbar=False, backend="jax")
    assert {"posterior", "sample_stats", "fit", "isomix", "diagnostics"} <= set(tree.children)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_observations_are_those_of_all_the_data(batch_size):
    y = np.zeros(40)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        seen = y if batch_size is None else pm.Minibatch(y, batch_size=batch_size)
        pm.Normal("y", mu, 1.0, observed=seen, total_size=None if batch_size is None else 40)
        pm.Normal("more", mu, 1.0, observed=np.zeros((2, 3)))
    assert n_observations(model) >= 46
    assert rows_per_row_of_minibatch(model) == (1.0 if batch_size is None else 4.0)
