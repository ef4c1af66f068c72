"""The fit: PyMC's loop around the compiled step, what may go wrong in it, and what comes out."""

import io
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import rich.console
import xarray as xr
from pymc.variational.callbacks import CheckParametersConvergence, Tracker
from pytensor.compile.debug.monitormode import MonitorMode
from pytensor.compile.mode import Mode
from scipy import stats
from threadpoolctl import threadpool_info, threadpool_limits

import pymc_isomix as pmi
from pymc_isomix import IsoMix, IsotropicMixture
from pymc_isomix.backend.compilation import CompiledApart
from pymc_isomix.fitting.loop import hint_at_cost
from pymc_isomix.fitting.second_order import Batch
from pymc_isomix.fitting.steppers import OneByOne

FAST_COMPILE = {"mode": "FAST_COMPILE"}
QUIET = {"progressbar": False, "backend": "jax"}  # compiles in a few seconds, runs fast
# compiles in less, runs slowly: for a few steps
NUMPY = Mode(linker="py", optimizer="fast_compile")
BRIEF = {"progressbar": False, "compile_kwargs": {"mode": NUMPY}}
CXX = pytensor.config.cxx  # conftest turns it off while tests run


def get_params(inference):
    return {shared.name: np.array(shared.get_value()) for shared in inference.approx.params}


def share_step(inference, mode, **options):
    """Compile the step once, for all fits of an inference whose options are the same."""
    objective = inference.objective
    step = objective.stepper(compile_kwargs={"mode": mode}, whole=False, **options)
    step.to_numpy()
    objective.stepper = lambda **kwargs: step
    return inference


@pytest.fixture(scope="module")
def compiled_paper():
    """Two components on a shifted normal; a NaN shift leaves no draw a finite density."""
    with pm.Model(coords={"group": ["a", "b"]}) as model:
        shift = pm.Data("shift", 0.0)
        theta = pm.Normal("theta", 0.0, 2.0, dims="group")
        tau = pm.HalfNormal("tau", 1.0)
        pm.Normal("y", theta + shift, 1 + tau, observed=[1.5, -2.0], dims="group")
    inference = IsoMix.paper(2, step_size=0.02, random_seed=1, model=model)
    return share_step(inference, "JAX"), get_params(inference)


@pytest.fixture
def paper(compiled_paper):
    """An inference as if it were new, whose step is compiled already; it takes exactly n steps."""
    inference, params = compiled_paper
    for shared in inference.approx.params:
        shared.set_value(params[shared.name])
    inference.hist = np.asarray(())
    inference.state = None
    inference.approx.__dict__.pop("hist", None)
    inference.objective.op.info.n_dropped.set_value(np.int64(0))
    inference.approx.model.set_data("shift", 0.0)
    return inference


def stop_at(iteration, reason):
    def callback(approx, losses, i):
        if i == iteration:
            raise reason

    return callback


# The loop


def test_pm_fit_round_trip(paper):
    approx = pm.fit(n=12, method=paper, model=paper.approx.model, **QUIET)
    assert approx is paper.approx
    assert isinstance(approx, IsotropicMixture)
    assert approx.hist is paper.hist
    assert approx.hist.shape == (12,)
    assert np.isfinite(approx.hist).all()
    for shared in approx.params:
        assert isinstance(
            shared.container.storage[0], np.ndarray
        )  # the backend's own are converted
    posterior = approx.sample(5).posterior
    assert posterior["theta"].dims == ("chain", "draw", "group")
    assert list(posterior.coords["group"].values) == ["a", "b"]


def test_loss_falls(paper):
    paper.fit(300, **QUIET)
    # Its noise in one step is below 1 nat here; the fall is 10 to 20.
    assert paper.hist[-50:].mean() < paper.hist[:5].mean() - 3


def test_callbacks_get_approximation_losses_and_iteration(paper):
    seen = []

    def watch(approx, losses, i):
        seen.append((approx, np.array(losses), i))

    paper.fit(4, callbacks=[watch], **QUIET)
    assert all(approx is paper.approx for approx, _, _ in seen)
    assert [i for _, _, i in seen] == [1, 2, 3, 4]
    for n, (_, losses, _) in enumerate(seen, start=1):
        np.testing.assert_array_equal(losses, paper.hist[:n])


def test_blas_has_one_thread_while_a_fit_runs_and_its_own_number_again_after(paper):
    def n_threads(*_):
        pools = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
        seen.append(pools)

    seen: list = []
    with threadpool_limits(2, user_api="blas"):
        n_threads()
        paper.fit(2, callbacks=[n_threads], **QUIET)
        n_threads()
    assert set(seen[1]) == set(seen[2]) == {1}
    assert seen[3] == seen[0]


def test_tracker(paper):
    means = paper.approx.shared_params["means"]
    tracker = Tracker(
        means=lambda: np.array(means.get_value()),
        last_loss=lambda approx, losses, i: losses[-1],
        iteration=lambda *arguments: arguments[-1],
    )
    paper.fit(6, callbacks=[tracker], **QUIET)
    assert tracker["iteration"] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(tracker["last_loss"], paper.hist)
    np.testing.assert_array_equal(tracker["means"][-1], means.get_value())
    assert np.all(np.diff(tracker["means"], axis=0) != 0)  # every step moves every mean


@pytest.mark.parametrize("diff", ["relative", "absolute"])
def test_parameters_convergence_ends_the_fit(paper, diff):
    callback = CheckParametersConvergence(every=5, tolerance=1e6, diff=diff)
    paper.fit(50, callbacks=[callback], **QUIET)
    assert paper.hist.shape == (5,)
    assert paper.stop_reason == "Convergence achieved at 5"


def test_parameters_that_move_do_not_end_the_fit(paper):
    callback = CheckParametersConvergence(every=5, tolerance=1e-9)
    paper.fit(12, callbacks=[callback], **QUIET)
    assert paper.hist.shape == (12,)


def test_callbacks_of_pymc_evaluate_an_approximation_that_jax_fits():
    """PyMC's own ``Tracker`` of moments, with the values of each step."""
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("theta", 0.0, 2.0), 1.0, observed=3.0)
    inference = IsoMix(2, schedule="constant", random_seed=1, model=model)
    approx = inference.approx
    of_each_step = []
    tracker = Tracker(mean=approx.mean.eval, std=approx.std.eval)
    converged = CheckParametersConvergence(every=2, tolerance=1e-9)

    def watch(approx, losses, i):
        assert all(type(shared.get_value(borrow=True)) is np.ndarray for shared in approx.params)
        m = approx.mixture
        second = m.weights @ (m.standard_deviations**2 + m.means**2)
        of_each_step.append((m.mean, np.sqrt(second - m.mean**2)))

    inference.fit(6, callbacks=[watch, tracker, converged], backend="jax", progressbar=False)
    means, deviations = map(np.array, zip(*of_each_step, strict=True))
    np.testing.assert_allclose(tracker["mean"], means, rtol=1e-10)
    np.testing.assert_allclose(tracker["std"], deviations, rtol=1e-10)
    assert np.all(np.diff(means, axis=0) != 0)


@pytest.mark.parametrize("n", [1, 5, 50])  # PyMC's own loop fails below 10
@pytest.mark.parametrize("reason", [StopIteration("enough"), StopIteration(), KeyboardInterrupt()])
def test_stop_at_the_first_iteration(paper, n, reason):
    before = get_params(paper)
    approx = paper.fit(n, callbacks=[stop_at(1, reason)], **QUIET)
    assert approx.hist.shape == (1,)
    assert np.isfinite(approx.hist).all()
    assert np.all(get_params(paper)["means"] != before["means"])
    assert approx.sample(3).posterior["tau"].shape == (1, 3)
    paper.refine(2, progressbar=False)  # with the same callback, which has had its iteration
    assert approx.hist.shape == (3,)


@pytest.mark.parametrize("reason", [StopIteration("enough"), KeyboardInterrupt()])
@pytest.mark.parametrize("score", [True, False])
def test_an_interruption_keeps_what_was_fitted(paper, reason, score):
    kept = []
    callbacks = [lambda *_: kept.append(get_params(paper)), stop_at(3, reason)]
    approx = paper.fit(50, score=score, callbacks=callbacks, **QUIET)
    assert approx.hist.shape == ((3,) if score else (0,))
    for name, value in get_params(paper).items():
        np.testing.assert_array_equal(value, kept[2][name])
    assert paper.state.i == 2
    assert np.isfinite(approx.sample(3).posterior["theta"]).all()


class FromPython(OneByOne):
    """Steps of a Python function, which has no random generators."""

    generators = ()


def test_ctrl_c_during_a_step(paper, monkeypatch):
    step, kept = paper.objective.step_function(), []

    def interrupted_step():
        if len(kept) == 3:
            raise KeyboardInterrupt
        loss = step()
        kept.append(get_params(paper))
        return loss

    one_by_one = FromPython(interrupted_step, paper.objective.op)
    monkeypatch.setattr(paper.objective, "stepper", lambda **kwargs: one_by_one)
    approx = paper.fit(50, **QUIET)
    assert approx.hist.shape == (3,)
    np.testing.assert_array_equal(get_params(paper)["means"], kept[-1]["means"])


def test_an_error_of_a_callback_is_the_user_s(paper):
    with pytest.raises(ZeroDivisionError):
        paper.fit(50, callbacks=[stop_at(3, ZeroDivisionError())], **QUIET)
    assert paper.approx.hist.shape == (3,)
    assert isinstance(paper.approx.shared_params["means"].container.storage[0], np.ndarray)


def test_refine_goes_on(paper):
    iterations = []
    paper.fit(4, callbacks=[lambda approx, losses, i: iterations.append(i)], **QUIET)
    first, before = paper.hist.copy(), get_params(paper)
    paper.refine(3, progressbar=False)
    assert iterations == [1, 2, 3, 4, 5, 6, 7]
    assert paper.approx.hist is paper.hist
    assert paper.hist.shape == (7,)
    np.testing.assert_array_equal(paper.hist[:4], first)
    assert np.all(get_params(paper)["means"] != before["means"])
    assert paper.state.i == 6


def test_refine_needs_a_fit(paper):
    with pytest.raises(TypeError, match=r"Need to call `\.fit` first"):
        paper.refine(1)


def test_a_second_fit_starts_where_the_first_ended(paper):
    paper.fit(3, **QUIET)
    before, seen = get_params(paper), []
    paper.fit(2, callbacks=[lambda approx, losses, i: seen.append((len(losses), i))], **QUIET)
    assert seen == [(1, 1), (2, 2)]
    assert paper.hist.shape == (5,)  # PyMC's, too, holds both
    # two steps of 0.02 at gradients of order ten
    assert np.abs(get_params(paper)["means"] - before["means"]).max() < 2


def test_no_score_keeps_no_history(paper):
    losses = []
    approx = paper.fit(5, score=False, callbacks=[lambda *a: losses.append(a[1])], **QUIET)
    assert losses == [None] * 5
    assert approx.hist.shape == (0,)
    paper.refine(2, progressbar=False)
    assert approx.hist.shape == (0,)
    assert paper.state.i == 6


def test_no_iterations_leave_the_start():
    with pm.Model() as model:
        pm.Normal("theta", 0.0, 1.0)
    inference = IsoMix.paper(
        3, start={"theta": 17.0}, start_sigma={"theta": 13.0}, init_width=0.0, model=model
    )
    # nothing to compile
    inference.objective.stepper = lambda **kwargs: FromPython(None, inference.objective.op)
    draws = inference.fit(0, **QUIET).sample(8000, random_seed=1).posterior["theta"]
    # 8000 draws, four standard errors
    assert draws.mean().item() == pytest.approx(17.0, abs=4 * 13 / np.sqrt(8000))
    assert draws.std().item() == pytest.approx(13.0, rel=4 / np.sqrt(2 * 8000))
    assert inference.approx.hist.shape == (0,)


@pytest.mark.parametrize("n", [-1, 2.5, "many"])
def test_number_of_iterations_is_checked(paper, n):
    with pytest.raises(ValueError, match=f"n must be an integer of at least 0; got {n!r}"):
        paper.fit(n, **QUIET)


def test_progress_bar(paper, capsys):
    paper.fit(30, progressbar=True, backend="jax")
    shown = capsys.readouterr().out
    assert "Fitting" in shown
    assert "ELBO -" in shown
    assert "2 of 2 components alive" in shown
    paper.fit(30, **QUIET)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("sqrt", [1, 2**-0.5, 3**-0.5, 0.5, 5**-0.5, 6**-0.5]),
        ("linear", [1, 0.75, 0.5, 0.25, 1 / 3, 1 / 6]),  # to zero at 4, then at 6
        (lambda t: 1 / (1 + t) ** 2, [1, 1 / 4, 1 / 9, 1 / 16, 1 / 25, 1 / 36]),
    ],
)
def test_schedule_goes_on_in_refine(paper, monkeypatch, schedule, factors):
    monkeypatch.setattr(paper, "settings", replace(paper.settings, schedule=schedule))
    shared, sizes = paper.objective.op.step_size, []
    callbacks = [lambda *_: sizes.append(float(shared.get_value()))]
    paper.fit(4, callbacks=callbacks, **QUIET)
    paper.refine(2, progressbar=False)
    np.testing.assert_allclose(sizes, 0.02 * np.array(factors), rtol=1e-6)


# Options of PyMC's fit


def test_options_of_the_step():
    with pm.Model() as model:
        tau = pm.HalfNormal("tau", 1.0)
        pm.Normal("y", 0.0, tau, observed=[1.5, -2.0])
    inference = IsoMix.paper(2, step_size=1e-3, random_seed=1, model=model)
    counter = pytensor.shared(np.int64(0))
    before = get_params(inference)
    approx = pm.fit(
        5,
        method=inference,
        model=model,
        obj_n_mc=3,
        obj_optimizer=pm.sgd(learning_rate=1.0),
        total_grad_norm_constraint=0.1,
        more_updates={counter: counter + 1},
        include_transformed=True,
        **BRIEF,
    )
    assert int(counter.get_value()) == 5
    moved = get_params(inference)["means"] - before["means"]
    # A thousand times the step size, bounded by the norm of all gradients.
    assert 1e-3 < np.abs(moved).max() <= 5 * 0.1
    assert set(approx.state.mean) == {"tau", "tau_log__"}


@pytest.mark.parametrize(
    ("options", "apart"),
    [({"backend": "FAST_COMPILE"}, True), ({"compile_kwargs": FAST_COMPILE}, False)],
    ids=["by a backend", "by a mode"],
)
def test_a_mode_compiles_the_whole_step(options, apart, monkeypatch):
    """As numba would; a backend compiles the model alone."""
    monkeypatch.setattr("pymc_isomix.interface.operator.compiles_slowly", lambda mode: True)
    with pm.Model() as model:
        pm.Normal("x")
    inference = IsoMix.paper(2, random_seed=1, model=model)
    inference.fit(2, progressbar=False, **options)
    nodes = inference.state.step.function.maker.fgraph.apply_nodes
    assert any(isinstance(node.op, CompiledApart) for node in nodes) is apart


def test_backend_excludes_another_mode(paper):
    with pytest.raises(ValueError, match="Can only define one of `backend`"):
        paper.fit(1, backend="jax", compile_kwargs={"mode": "JAX"})


def test_unknown_option_is_refused(paper):
    with pytest.raises(TypeError, match="learning_rate"):
        IsoMix(1, model=paper.approx.model).fit(1, learning_rate=0.1, **QUIET)


@pytest.mark.usefixtures("capsys")
def test_profile():
    with pm.Model() as model:
        pm.HalfNormal("scale")
    inference = IsoMix.paper(2, random_seed=1, model=model)
    summary = io.StringIO()
    inference.run_profiling(n=3, compile_kwargs={"mode": NUMPY}).summary(summary)
    text = summary.getvalue()
    assert "Time in 3 calls to Function.__call__" in text
    assert "pytensor.scan.op.Scan" not in text


@pytest.mark.slow
# The C backend says so where PyTensor was installed without one; slower, not wrong.
@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation")
@pytest.mark.parametrize("backend", ["numba", "c"])
def test_other_backends(conjugate_gaussian, backend):
    if backend == "c" and not CXX:
        pytest.skip("no C++ compiler")
    inference = IsoMix(1, random_seed=1, convergence=None, model=conjugate_gaussian.model)
    with pytensor.config.change_flags(cxx=CXX):
        approx = inference.fit(700, backend=backend, progressbar=False)
    assert_gaussian(approx, conjugate_gaussian.mean, conjugate_gaussian.std)


# Recovery


def assert_gaussian(approx, mean, std):
    """Assert mean within 0.02 standard deviations, and standard deviations within 3 per cent."""
    fitted_mean, fitted_std = (node.eval(**FAST_COMPILE) for node in (approx.mean, approx.std))
    np.testing.assert_allclose((fitted_mean - mean) / std, 0.0, atol=0.02)
    np.testing.assert_allclose(fitted_std / std, 1.0, atol=0.03)


@pytest.fixture(scope="module")
def fitted_default():
    """Two components, all defaults, on a posterior that one would fit exactly."""
    with pm.Model(coords={"group": ["a", "b"]}) as model:
        theta = pm.Normal("theta", 0.0, 2.0, dims="group")
        pm.Normal("y", theta, [1.0, 0.5], observed=[1.5, -2.0], dims="group")
        approx = pm.fit(3000, method=IsoMix(2, random_seed=1), model=model, **QUIET)
    return approx


def test_default_fit_recovers_a_conjugate_posterior(fitted_default):
    precision = 1 / 4 + 1 / np.array([1.0, 0.25])
    mean = np.array([1.5, -2.0]) / [1.0, 0.25] / precision
    # Two components differ from the exact answer, and by the noise of the last steps.
    fitted_mean, fitted_std = (
        node.eval(**FAST_COMPILE) for node in (fitted_default.mean, fitted_default.std)
    )
    np.testing.assert_allclose((fitted_mean - mean) * np.sqrt(precision), 0.0, atol=0.1)
    np.testing.assert_allclose(fitted_std * np.sqrt(precision), 1.0, atol=0.1)


def test_fitted_approximation_survives_cloudpickle(fitted_default):
    copy = cloudpickle.loads(cloudpickle.dumps(fitted_default))
    np.testing.assert_array_equal(copy.hist, fitted_default.hist)
    xr.testing.assert_equal(
        copy.sample(5, random_seed=1).posterior.dataset,
        fitted_default.sample(5, random_seed=1).posterior.dataset,
    )


def test_unfitted_inference_survives_cloudpickle():
    with pm.Model() as model:
        pm.HalfNormal("scale")
    inference = IsoMix.paper(2, random_seed=1, model=model)
    copy = cloudpickle.loads(cloudpickle.dumps(inference))
    assert copy.fit(3, **BRIEF).hist.shape == (3,)
    assert inference.hist.shape == (0,)


def test_no_convergence_check_runs_all_iterations(conjugate_gaussian):
    model = conjugate_gaussian.model
    inference = IsoMix(1, metric="diag", convergence=None, random_seed=1, model=model)
    approx = inference.fit(700, **QUIET)
    assert approx.hist.shape == (700,)
    assert_gaussian(approx, conjugate_gaussian.mean, conjugate_gaussian.std)
    # The step's noise vanishes where the approximation is exact.
    assert -approx.hist[-1] == pytest.approx(conjugate_gaussian.log_evidence, abs=1e-3)
    inference.refine(20, progressbar=False)
    assert approx.hist.shape == (720,)
    assert_gaussian(approx, conjugate_gaussian.mean, conjugate_gaussian.std)


N_ROWS = 1000
ROWS = np.random.default_rng(1).normal(size=N_ROWS)
# The rows scatter less than the model believes: it is their scatter that makes minibatches noisy.
RESPONSE = 1.0 + 2.0 * ROWS + 0.15 * np.random.default_rng(2).normal(size=N_ROWS)
ROW_NOISE, COEFFICIENT_PRIOR = 3.0, 5.0


def regression(batch_size=None):
    with pm.Model() as model:
        x, y = ROWS, RESPONSE
        if batch_size is not None:
            x, y = pm.Minibatch(x, y, batch_size=batch_size)
        beta = pm.Normal("beta", 0.0, COEFFICIENT_PRIOR, shape=2)
        pm.Normal("y", beta[0] + beta[1] * x, ROW_NOISE, observed=y, total_size=N_ROWS)
    return model


def regression_posterior():
    design = np.column_stack([np.ones(N_ROWS), ROWS])
    covariance = np.linalg.inv(design.T @ design / ROW_NOISE**2 + np.eye(2) / COEFFICIENT_PRIOR**2)
    return covariance @ design.T @ RESPONSE / ROW_NOISE**2, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("batch_size", [None, 200])
def test_one_component_on_a_conjugate_regression(batch_size):
    # Steps of 1/t average all minibatches: the score of a minibatch has, in units of the
    # posterior, a standard deviation of sqrt(1000 / 200) * 0.15 / 3 = 0.11, that of 800 of them
    # 0.004, a fifth of the tolerance. A minibatch that lost its scale would give a standard
    # deviation 2.2 times too large; rows apart from their responses, a slope near zero.
    inference = IsoMix(
        1,
        n_samples=10,
        step_size=0.5,
        schedule=lambda t: 1 / (1 + t / 25),
        random_seed=1,
        model=regression(batch_size),
    )
    approx = inference.fit(800, **QUIET)
    assert approx.hist.shape == (800,)
    assert_gaussian(approx, *regression_posterior())


def test_seed_decides_a_fit_and_numpy_s_global_state_does_not():
    with pm.Model() as model:
        pm.HalfNormal("scale")
    fits, start = [], [[0.0], [1.0]]
    for seed, global_seed in ((3, 0), (3, 1), (4, 1)):
        # Legacy on purpose: nothing may read that state, nor move it.
        np.random.seed(global_seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        inference = IsoMix.paper(2, start=start, random_seed=seed, model=model)
        fits.append((inference.fit(5, **BRIEF), inference.approx.sample(3).posterior["scale"]))
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    (first, first_draws), (second, second_draws), (other, other_draws) = fits
    np.testing.assert_array_equal(first.hist, second.hist)
    np.testing.assert_array_equal(
        first.shared_params["means"].get_value(), second.shared_params["means"].get_value()
    )
    np.testing.assert_array_equal(first_draws, second_draws)
    assert np.all(first.hist != other.hist)
    assert not np.any(first_draws == other_draws)


def test_single_precision():
    with pytensor.config.change_flags(floatX="float32"), pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 2.0, shape=2)
        pm.Normal("y", theta, 1.0, observed=np.array([1.5, -2.0], dtype="float32"))
        approx = IsoMix(2, random_seed=1, model=model).fit(20, **BRIEF)
        for shared in approx.params:
            assert shared.get_value().dtype == np.float32
            assert not np.isnan(shared.get_value()).any()
        assert approx.sample(3).posterior["theta"].dtype == np.float32


# The call that does it all


def test_fit_in_one_call(conjugate_gaussian):
    iterations = []
    draws = pmi.fit(
        20,
        draws=7,
        n_components=2,
        metric="identity",
        random_seed=1,
        callbacks=[lambda approx, losses, i: iterations.append(i)],
        model=conjugate_gaussian.model,
        **BRIEF,
    )
    assert isinstance(draws, xr.DataTree)
    assert iterations[:3] == [1, 2, 3]
    assert draws.posterior["theta"].sizes == {"chain": 1, "draw": 7, "group": 2}
    assert list(draws.posterior.coords["group"].values) == ["a", "b"]
    np.testing.assert_array_equal(draws.observed_data["y"], [1.5, -2.0])


# Densities that are not finite


@pytest.fixture(scope="module")
def compiled_cliff():
    """A normal variable whose density ends at zero, where draws of every component fall."""
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 1.0)
        pm.Potential("cliff", pm.math.switch(theta > 0, 0.0, -np.inf))
    inference = IsoMix.paper(2, step_size=0.01, start=[[0.3], [0.4]], start_sigma=0.5, model=model)
    return share_step(inference, NUMPY)


def test_draws_without_a_density_are_left_out_and_counted(compiled_cliff, caplog):
    inference = compiled_cliff
    with caplog.at_level(logging.WARNING):
        approx = inference.fit(20, **QUIET)
    n_dropped = int(inference.objective.op.info.n_dropped.get_value())
    assert 0 < n_dropped < 20 * 2 * 10
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("pymc_isomix")]
    assert message.startswith(
        f"the fit ignored {n_dropped:,d} draws that had no finite log density"
    )
    assert np.isfinite(approx.hist).all()
    for value in get_params(inference).values():
        assert np.isfinite(value).all()


def test_no_warning_where_every_draw_has_a_density(paper, caplog):
    with caplog.at_level(logging.WARNING):
        paper.fit(5, **QUIET)
    assert not [r for r in caplog.records if r.name.startswith("pymc_isomix")]


@pytest.mark.parametrize("score", [True, False])
def test_no_density_at_all_names_component_variable_and_iteration(paper, score):
    kept = []

    def lose_the_data(approx, losses, i):
        kept.append(get_params(paper))
        if i == 3:
            approx.model.set_data("shift", np.nan)

    message = r"iteration 4: component 0 .*at variable y\. .*keeps the last finite parameters"
    with pytest.raises(FloatingPointError, match=message):
        paper.fit(50, score=score, callbacks=[lose_the_data], **QUIET)
    for name, value in get_params(paper).items():
        np.testing.assert_array_equal(value, kept[-1][name])
    assert paper.approx.history.stop_reason == "step 4 failed"
    assert paper.approx.hist.shape == ((3,) if score else (0,))
    assert np.isfinite(paper.approx.sample(3).posterior["theta"]).all()


def window_inference(method, **kwargs):
    """Two components, the second at a window too narrow for its draws."""
    with pm.Model() as model:
        theta = pm.Normal("theta")
        allowed = (abs(theta) < 3) | (abs(theta - 10) < 1e-6)
        pm.Potential("window", pm.math.switch(allowed, 0.0, -np.inf))
    start = [[0.0], [10.0]]
    return method(2, start=start, start_sigma=0.1, random_seed=1, model=model, **kwargs)


def test_a_component_that_lost_all_draws_is_named():
    message = r"iteration 1: component 1 has no draw with a finite log density .*its mean has one"
    inference = window_inference(IsoMix.paper)
    with pytest.raises(FloatingPointError, match=message):
        inference.fit(50, **BRIEF)
    np.testing.assert_array_equal(get_params(inference)["means"], [[0.0], [10.0]])
    assert inference.approx.hist.shape == (0,)


def test_a_component_that_lost_all_draws_loses_its_weight_and_is_respawned_by_default():
    approx = window_inference(IsoMix, metric="identity").fit(1000, **QUIET)
    assert not np.isnan(approx.history.elbo).any()
    assert np.all(np.abs(approx.mixture.means) < 3)


def test_a_posterior_cut_by_a_hard_constraint_has_its_moments():
    """Two normals cut at zero, 31 % of each outside; standard errors of 4000 draws are 1 %."""
    with pm.Model() as model:
        x = pm.Normal("x", 0.5, 1.0, shape=2)
        pm.Potential("cut", pt.switch(pt.all(x > 0), 0.0, -np.inf))
    inference = IsoMix(10, start={"x": [1.0, 1.0]}, random_seed=1, model=model)
    approx = inference.fit(**QUIET)
    assert approx.history.stop_reason == "converged"
    draws = approx.sample(4000, random_seed=1).posterior["x"].values[0]
    truth = stats.truncnorm(-0.5, np.inf, 0.5, 1.0)
    assert draws.min() > 0
    np.testing.assert_allclose(draws.mean(axis=0), truth.mean(), rtol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), truth.std(), rtol=0.05)


@pytest.fixture(scope="module")
def compiled_nan_optimiser():
    with pm.Model() as model:
        pm.Normal("level")
        pm.HalfNormal("scale", size=2)
    inference = IsoMix.paper(2, random_seed=1, model=model)
    return share_step(inference, NUMPY, obj_optimizer=pm.adam(learning_rate=float("nan")))


@pytest.mark.parametrize("score", [True, False])
def test_a_parameter_that_turns_nan_is_named(compiled_nan_optimiser, score):
    inference = compiled_nan_optimiser
    before = get_params(inference)
    message = r"iteration 1: .*parameter .*at variable level, scale_log__\. .*keeps the last finite"
    with pytest.raises(FloatingPointError, match=message):
        inference.fit(100, score=score, **QUIET)
    for name, value in get_params(inference).items():
        np.testing.assert_array_equal(value, before[name])


# Bad input


@pytest.fixture
def nothing_compiles(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a function was compiled")

    monkeypatch.setattr(pytensor.compile.maker.FunctionMaker, "__init__", refuse)


@pytest.fixture(scope="module")
def small_model():
    with pm.Model() as model:
        theta = pm.Normal("theta", shape=2)
        pm.Normal("y", theta, 1.0, observed=[0.0, 1.0])
    return model


def test_this_very_check_notices_a_compilation(nothing_compiles):
    with pytest.raises(AssertionError, match="a function was compiled"):
        pytensor.function([], pytensor.tensor.zeros(()), **FAST_COMPILE)


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 0}, "n_components must be an integer of at least 1; got 0"),
        ({"n_components": -2}, "n_components must be an integer of at least 1; got -2"),
        ({"n_components": 2.0}, "n_components must be an integer of at least 1; got 2.0"),
        ({"n_components": True}, "n_components must be an integer of at least 1; got True"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1; got 0"),
        (
            {"variance_update": "adam"},
            "variance_update must be one of 'mirror', 'bures', 'natural', 'fixed'; got 'adam'",
        ),
        ({"metric": "full"}, "metric must be one of .*'dense'; got 'full'"),
        ({"weights": "fixed"}, "weights must be one of 'learned', 'uniform'; got 'fixed'"),
        ({"init": "adapt_diag"}, "init must be one of 'jitter', .*; got 'adapt_diag'"),
        ({"init_width": -1.0}, "init_width must be a non-negative finite number; got -1.0"),
        ({"init_width": np.nan}, "init_width must be a non-negative finite number; got nan"),
        ({"convergence": "always"}, "convergence must be one of 'auto', None; got 'always'"),
        ({"step_size": 0.0}, "step_size must be a positive finite number; got 0.0"),
        ({"step_size": -0.1}, "step_size must be a positive finite number; got -0.1"),
        ({"step_size": np.inf}, "step_size must be a positive finite number; got inf"),
        ({"step_size": "fast"}, "step_size must be a positive finite number; got 'fast'"),
        ({"schedule": "cosine"}, "schedule must be a function .*; got 'cosine'"),
        (
            {"schedule": lambda t: -1.0},
            "schedule must give positive, finite step sizes; iteration 0 has -",
        ),
    ],
)
def test_argument_that_breaks_its_rule(small_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        IsoMix(model=small_model, **arguments)
    method = {name: value for name, value in arguments.items() if name not in ("metric", "weights")}
    if method:
        with pytest.raises(ValueError, match=message):
            IsoMix.paper(model=small_model, **method)


class BlackBox(pytensor.graph.op.Op):
    """An Op without a gradient."""

    def make_node(self, x):
        return pytensor.graph.basic.Apply(self, [pt.as_tensor(x)], [pt.dscalar()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(-np.sum(inputs[0] ** 2))


def simulate(rng, level, size):
    return rng.normal(level, 1, size=size)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (lambda level: pm.Potential("box", BlackBox()(level)), r"the Op BlackBox has none\. Give"),
        (
            lambda level: pm.Simulator("sim", simulate, level, epsilon=1.0, observed=np.ones(3)),
            r"pm\.Simulator 'sim' has none\. .* or use pm\.sample_smc",
        ),
    ],
)
def test_a_model_without_a_gradient_is_refused_by_name(likelihood, message):
    with pm.Model() as model:
        likelihood(pm.Normal("level"))
    with pytest.raises(TypeError, match=message):
        IsoMix(model=model)


def test_an_op_without_a_gradient_that_needs_none_is_none_of_our_business():
    with pm.Model() as model:
        level = pm.Normal("level")
        pm.Deterministic("box", BlackBox()(level))
    IsoMix(2, model=model)


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("potential", [True, False])
def test_a_flat_prior_that_nothing_depends_on_is_refused(potential):
    with pm.Model() as model:
        pm.Flat("anywhere")
        pm.Normal("level")
        if potential:
            pm.Potential("constant", pt.constant(0.0))
    with pytest.raises(TypeError, match=r"improper: anywhere has a flat prior.* Give it a proper"):
        IsoMix(model=model)


def test_a_generator_is_a_seed():
    with pm.Model() as model:
        pm.Normal("level")
    means = [
        IsoMix(2, random_seed=np.random.default_rng(seed), model=model).approx.mixture.means
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])
    with pytest.raises(ValueError, match="random_seed must be an integer of at least 0; got 'one'"):
        IsoMix(2, random_seed="one", model=model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backend": "torch"}, ValueError, r"backend must be one of 'jax', .*; got 'torch'"),
        ({"callbacks": print}, TypeError, r"callbacks must be a list of .*got <.*print.*put it in"),
        ({"callbacks": [print, 3]}, TypeError, r"callbacks must be a list .*; it contains 3"),
    ],
)
@pytest.mark.usefixtures("no_step_compiles")
def test_what_a_fit_is_given_is_checked_first(small_model, arguments, error, message):
    with pytest.raises(error, match=message):
        IsoMix(2, model=small_model).fit(10, **arguments)


def test_state_counts_as_pymc_s_own_classes_do(paper, small_model):
    def stop_at(limit):
        def stop(approx, losses, i):
            if i == limit:
                raise StopIteration

        return [stop]

    with small_model:
        advi = pm.ADVI(random_seed=1)
    fits = []
    for inference, options in [(advi, {"progressbar": False, "backend": "jax"}), (paper, QUIET)]:
        inference.fit(20, **options)
        counts = [inference.state.i]
        inference.fit(20, callbacks=stop_at(12), **options)
        fits.append([*counts, inference.state.i])
    assert fits == [[19, 11], [19, 11]]
    seen = []
    paper.fit(3, callbacks=[lambda approx, losses, i: seen.append(i)], **QUIET)
    paper.refine(2)
    assert seen == [1, 2, 3, 4, 5]  # ours count on, where PyMC's say 3 twice


@pytest.mark.filterwarnings("error")
def test_no_warning_of_others_reaches_the_user(small_model):
    IsoMix(2, model=small_model).fit(1, **QUIET)


def test_while_compiling_it_says_so(small_model, monkeypatch):
    said = []

    @contextmanager
    def status(self, message):
        said.append(message)
        yield

    monkeypatch.setattr(rich.console.Console, "status", status)
    IsoMix(2, model=small_model).fit(1, **BRIEF)
    assert not said
    IsoMix(2, model=small_model).fit(1, **BRIEF | {"progressbar": True})
    assert set(said) == {"Compiling"}


def test_fits_in_threads_give_the_numbers_of_fits_one_by_one():
    """And leave PyTensor's mode and the threads of BLAS as they were."""

    def fit(seed):
        with pm.Model() as model:
            x = pm.Normal("x", 0.0, 1.0, shape=2)
            pm.Normal("y", x.sum(), 1.0, observed=1.0)
        return IsoMix(2, random_seed=seed, model=model).fit(30, **QUIET).hist

    def state():
        pools = [pool["num_threads"] for pool in threadpool_info()]
        return pytensor.config.mode, pytensor.config.cxx, pytensor.config.linker, pools

    alone = [fit(seed) for seed in (1, 2)]
    before = state()
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, (1, 2)))
    assert state() == before
    np.testing.assert_array_equal(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "numba"])
# where other tests have set JAX to 64 bits, PyTensor's sums of 32 bits come in 64
@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning")
def test_all_of_it_in_single_precision(backend, tmp_path):
    options = {"progressbar": False, "backend": backend}
    with pytensor.config.change_flags(floatX="float32"), pm.Model():
        scale = pm.HalfNormal("scale")
        x = pm.Normal("x", 0.0, 1.0, shape=2)
        pm.Normal("y", x[0], 1 + scale, observed=np.array([1.0, 2.0], "float32"))
        approx = IsoMix(3, random_seed=1).fit(400, **options)
        assert {p.dtype for p in approx.params} == {"float32"}
        assert approx.sample(100).posterior["x"].shape == (1, 100, 2)
        assert approx.sample(50, importance="psis", force=True).posterior["x"].shape[1] == 50
        # as in double precision; the standard error of 500 draws is 0.02
        assert float(approx.diagnostics(500, n_probes=3)["elbo"]) == pytest.approx(-3.78, abs=0.1)
        assert approx.nuts_init(2)["chains"] == 2
        approx.save(tmp_path / "fit.nc")
        loaded = pmi.load(tmp_path / "fit.nc")
        assert {p.dtype for p in loaded.params} == {"float32"}
        assert len(pmi.resume(loaded).fit(5, **options).hist) == len(approx.hist) + 5


def test_a_slow_step_gets_a_hint(caplog):
    with caplog.at_level(logging.INFO):
        hint_at_cost(0.1, 15)
        hint_at_cost(2.0, 1)
        assert not caplog.records
        hint_at_cost(2.0, 15)
    assert "A step takes 2.0 s, with 15 draws per component" in caplog.text


@pytest.mark.usefixtures("nothing_compiles")
def test_discrete_variables_are_refused_with_advice():
    with pm.Model() as model:
        pm.Normal("level")
        pm.Categorical("kind", p=[0.5, 0.5])
        pm.Poisson("count", 3.0)
    message = r"continuous variables only; discrete: kind, count\. Marginalise them"
    with pytest.raises(TypeError, match=message):
        IsoMix(model=model)
    with pytest.raises(TypeError, match=message):
        pmi.fit(10, model=model)


@pytest.mark.usefixtures("nothing_compiles")
def test_model_without_free_variables():
    with pm.Model() as model:
        pm.Normal("y", observed=[1.0])
    with pytest.raises(TypeError, match="no free random variables"):
        IsoMix(model=model)


@pytest.mark.usefixtures("nothing_compiles")
def test_no_model_at_all():
    with pytest.raises(TypeError, match="call this inside `with model:`, or pass model="):
        IsoMix()


@pytest.fixture
def no_step_compiles(monkeypatch):
    """Let the cheap checks of a start evaluate the density, but nothing build a step."""

    def refuse(*args, **kwargs):
        raise AssertionError("a step was built")

    monkeypatch.setattr("pymc_isomix.interface.operator.MixtureObjective.updates", refuse)


@pytest.mark.usefixtures("no_step_compiles")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": np.zeros((3, 2))}, r"start must have shape .* = \(2, 2\) .*got \(3, 2\)"),
        ({"start": [{}, {}, {}]}, "start must be one dict or a list of n_components = 2 dicts"),
        ({"start": {"phi": 0.0}}, "start has 'phi', which is not a free variable"),
        ({"start": {"theta": [0.0, np.inf]}}, "component 0: .*theta is not finite"),
        ({"start_sigma": 0.0}, "start_sigma must be positive and finite; got 0.0"),
        ({"start_sigma": {"phi": 1.0}}, "start_sigma has 'phi', which is not a variable"),
    ],
)
def test_bad_start_is_refused_before_a_step_is_compiled(small_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        pmi.fit(10, n_components=2, model=small_model, **arguments)


@pytest.mark.usefixtures("no_step_compiles")
@pytest.mark.parametrize(
    ("arguments", "dropped"),
    [
        ({"start": {"theta": 0.0}}, "start"),
        ({"random_seed": 0}, "random_seed"),
        ({"start": {}, "random_seed": 1}, "start, random_seed"),
        ({"inf_kwargs": {"n_components": 3}}, "inf_kwargs"),
        ({"inf_kwargs": {"start": {}}}, "inf_kwargs"),
    ],
)
def test_what_pm_fit_would_drop_is_refused(paper, arguments, dropped):
    message = f"pm.fit drops {dropped} when method is an instance; pass it to IsoMix"
    with pytest.raises(ValueError, match=message):
        pm.fit(5, method=paper, model=paper.approx.model, **arguments, **QUIET)


@pytest.mark.usefixtures("no_step_compiles")
def test_another_model_given_to_pm_fit_is_refused(paper, small_model):
    with pytest.raises(ValueError, match="a different model from the one that IsoMix was made for"):
        pm.fit(5, method=paper, model=small_model, **QUIET)
    with pytest.raises(ValueError, match="a different model"), small_model:
        pm.fit(5, method=paper, **QUIET)


def test_start_sigma_beside_an_instance_is_refused_by_pymc(paper):
    with pytest.raises(NotImplementedError, match="start_sigma is only available"):
        pm.fit(5, method=paper, model=paper.approx.model, start_sigma={"theta": 1.0})


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize("draws", [0, 2.5])
def test_number_of_draws_of_one_call_is_checked_first(small_model, draws):
    with pytest.raises(ValueError, match=f"draws must be an integer of at least 1; got {draws}"):
        pmi.fit(10, draws=draws, model=small_model)


class LargestOutput:
    """Largest number of elements among the results of all nodes of a compiled function."""

    def __init__(self):
        self.size = 0

    def __call__(self, fgraph, i, node, thunk):
        for container in thunk.outputs:
            self.size = max(self.size, np.size(container[0]))


def test_a_step_of_diagonal_components_in_many_dimensions_makes_no_large_array():
    """d = 1e5, K = 10: no array is larger than the features of the draws, (S, 2 d + 1)."""
    n_dim, n_components, n_samples = 100_000, 10, 1
    with pm.Model() as model:
        pm.Normal("x", shape=n_dim)
    inference = IsoMix.paper(
        n_components,
        component_variances="diagonal",
        n_samples=n_samples,
        step_size=0.01,
        random_seed=1,
        model=model,
    )
    largest = LargestOutput()
    mode = MonitorMode(post_func=largest, optimizer="fast_compile")
    step = inference.objective.step_function(compile_kwargs={"mode": mode})
    assert np.isfinite(step())
    assert get_params(inference)["log_variances"].shape == (n_components, n_dim)
    assert 0 < largest.size <= n_components * n_samples * (2 * n_dim + 1)


@pytest.mark.parametrize("update", ["mirror", "bures", "natural"])
def test_diagonal_components_find_the_deviations_of_each_dimension(conjugate_gaussian, update):
    """One component with an identity metric is exact, which no isotropic one is."""
    inference = IsoMix(
        1,
        variance_update=update,
        component_variances="diagonal",
        metric="identity",
        n_samples=20,
        random_seed=1,
        model=conjugate_gaussian.model,
    )
    approx = inference.fit(600, **QUIET)
    mixture = approx.mixture
    np.testing.assert_allclose(mixture.means[0], conjugate_gaussian.mean, atol=1e-3)
    np.testing.assert_allclose(mixture.standard_deviations[0], conjugate_gaussian.std, rtol=1e-3)
    assert "1 component with diagonal variances, identity metric" in str(approx)
    report = approx.diagnostics(200, n_probes=2, transitions=2)
    np.testing.assert_allclose(report["elbo"], conjugate_gaussian.log_evidence, atol=1e-3)


def test_one_diagonal_for_all(conjugate_gaussian):
    inference = IsoMix(
        3,
        component_variances="diagonal",
        shared_variance=True,
        schedule="constant",
        random_seed=1,
        model=conjugate_gaussian.model,
    )
    mixture = inference.fit(20, **BRIEF).mixture
    assert mixture.log_variances.shape == (3, 2)
    np.testing.assert_allclose(mixture.log_variances, mixture.log_variances[[0, 0, 0]], rtol=1e-12)
    assert mixture.log_variances[0, 0] != mixture.log_variances[0, 1]


@pytest.mark.parametrize("n_components", [1, 2])
def test_more_modes_than_components_leave_the_heaviest(n_components):
    """Modes of .2, .3 and .5 at -20, 0 and 20, of unequal widths."""
    with pm.Model() as model:
        x = pm.Flat("x")
        weights, centres, widths = np.array([0.2, 0.3, 0.5]), np.array([-20.0, 0, 20]), [1, 2, 0.5]
        terms = np.log(weights / widths) - 0.5 * ((x - centres) / widths) ** 2
        pm.Potential("modes", pt.logsumexp(terms))
    start = np.array([[-20.0], [0.0], [20.0]])[:n_components]
    inference = IsoMix(n_components, start=start[::-1] + 0.1, random_seed=1, model=model)
    approx = inference.fit(progressbar=False)
    assert approx.density.n_components <= n_components
    assert approx.history.stop_reason == "converged"
    np.testing.assert_allclose(approx.density.weights.sum(), 1.0)


def test_one_component_among_modes_that_all_starts_find():
    with pm.Model() as model:
        x = pm.Uniform("x", -30, 30)
        pm.Potential("modes", pt.logsumexp(-0.5 * (x - np.array([-20.0, 0.0, 20.0])) ** 2))
    approx = IsoMix(1, random_seed=1, model=model).fit(progressbar=False)  # prior draws climb, too
    assert approx.density.n_components == 1


def test_gaussians_of_no_use_leave_the_start_of_the_mixture_as_it_was(monkeypatch):
    """Callbacks, which see the Gaussians, change nothing; nor is the mixture's exploring short."""
    monkeypatch.setattr(Batch, "is_useful", property(lambda batch: False))
    hists = []
    for callbacks in (None, [lambda approx, losses, i: None]):
        with pm.Model() as model:
            pm.Normal("x", 3.0, 2.0, shape=2)
        inference = IsoMix(3, random_seed=1, model=model)
        approx = inference.fit(400, callbacks=callbacks, progressbar=False)
        hists.append(approx.hist)
        exploring = (approx.history.phase == "exploring").sum()
        assert exploring >= 100  # two windows of the stopping rule of a cold start
    np.testing.assert_allclose(*hists, rtol=1e-9)


def test_a_vague_prior_of_a_variance_is_fitted():
    """Its prior draws start ascents that end e^400 out, at modes of no mass."""
    with pm.Model() as model:
        variance = pm.InverseGamma("variance", 0.001, 0.001)
        effect = pm.Normal("effect", 0, pm.math.sqrt(variance), shape=1)
        pm.Normal("y", effect, 12, observed=[28.0])
    approx = pmi.IsoMix(5, model=model, random_seed=1).fit(300, progressbar=False)
    assert np.isfinite(approx.hist).all()
    assert np.abs(approx.mixture.means).max() < 100
