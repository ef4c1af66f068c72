import itertools
import logging

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.pytensorf import compile as pymc_compile
from pytensor.gradient import disconnected_grad
from pytensor.graph.traversal import ancestors
from scipy import stats

from pymc_isomix.backend.compilation import CHEAP_FAST
from pymc_isomix.model.batching import batched_log_density, stabilise
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.model.starts import finite_check
from pymc_isomix.model.traces import constrained_draws

STANDARD_ERRORS = 5
# As part of the graph around it, and compiled by itself
APART = pytest.mark.parametrize("mode", [None, "FAST_COMPILE"])


def flat_ordering(model, names=None):
    """Place of each value variable in a flat point, as PyMC's groups have it."""
    initial = model.initial_point(0)
    ordering, start = {}, 0
    for name in names or [value.name for value in model.value_vars]:
        value = initial[name]
        place = slice(start, start + value.size)
        ordering[name] = (name, place, value.shape, str(value.dtype))
        start = place.stop
    return ordering, start


def compile_batched(model, ordering=None, **kwargs):
    ordering, n_dim = ordering or flat_ordering(model)
    points = pt.tensor("points", shape=(None, n_dim), dtype=pytensor.config.floatX)
    outputs = batched_log_density(FlatSpace(model, ordering), points, **kwargs)[:2]
    return pymc_compile([points], list(outputs), mode="FAST_COMPILE", random_seed=1)


def numeric_gradient(function, point, step=1e-5):
    return np.array(
        [
            (function(point + step * axis) - function(point - step * axis)) / (2 * step)
            for axis in np.eye(len(point))
        ]
    )


def assert_equals(evaluate, log_p, points):
    """Compare with a function of one point, and its numerical gradient."""
    log_density, gradient = evaluate(points)
    assert log_density.shape == points.shape[:1]
    assert gradient.shape == points.shape
    np.testing.assert_allclose(log_density, [log_p(point) for point in points], rtol=1e-10)
    expected = [numeric_gradient(log_p, point) for point in points.astype(float)]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def normal_model(observed, total_size=None):
    with pm.Model() as model:
        # PyTensor takes the logarithm of a Python float such as 3.0 in single precision
        mu = pm.Normal("mu", 0.0, np.array(3.0))
        sigma = pm.HalfNormal("sigma", np.array(1.5))
        pm.Normal("y", mu, sigma, observed=observed, total_size=total_size)
    return model


def normal_log_density(data):
    def log_p(point):
        mu, log_sigma = point
        prior = stats.norm(0.0, 3.0).logpdf(mu) + stats.halfnorm(0.0, 1.5).logpdf(np.exp(log_sigma))
        return prior + log_sigma + stats.norm(mu, np.exp(log_sigma)).logpdf(data).sum()

    return log_p


POINTS = np.random.default_rng(0).normal(size=(4, 2))


@APART
def test_transforms_and_potentials_equal_the_model_one_by_one(mode):
    with pm.Model() as model:
        slopes = pm.Normal("slopes", 0.0, 2.0, shape=(2, 3))
        scale = pm.HalfNormal("scale", 1.5)
        shares = pm.Dirichlet("shares", np.array([1.0, 2.0, 3.0]))
        level = pm.Uniform("level", -1.0, 2.0)
        pm.Normal("y", level + slopes @ shares, scale, observed=np.array([0.3, -1.2]))
        pm.Potential("balance", -((slopes.sum() - level) ** 2))
    ordering, n_dim = flat_ordering(model)
    points = np.random.default_rng(0).normal(size=(5, n_dim))
    log_density, gradient = compile_batched(model, mode=mode)(points)
    one_by_one = model.compile_fn([model.logp(), model.dlogp()], mode="FAST_COMPILE")
    for s, point in enumerate(points):
        log_p, gradient_p = one_by_one(
            {name: point[place].reshape(shape) for name, place, shape, _ in ordering.values()}
        )
        np.testing.assert_allclose(log_density[s], log_p, rtol=1e-10)
        np.testing.assert_allclose(gradient[s], gradient_p, rtol=1e-10, atol=1e-10)


def test_the_ordering_places_the_variables():
    data = np.array([0.3, -1.2])
    model = normal_model(data)
    evaluate = compile_batched(model, flat_ordering(model, ["sigma_log__", "mu"]))
    assert_equals(evaluate, lambda point: normal_log_density(data)(point[::-1]), POINTS)


def test_one_point_is_a_batch_too_and_faults_stay_in_their_row():
    with pm.Model() as model:
        x = pm.Normal("x", shape=2)
        pm.Potential("support", pt.log(x[0]))
    evaluate = compile_batched(model)
    points = np.array([[1.0, 2.0], [-1.0, 2.0], [np.nan, 0.0], [0.5, -1.0]])
    log_density, gradient = evaluate(points)
    np.testing.assert_array_equal(np.isfinite(log_density), [True, False, False, True])
    alone = evaluate(points[3:])
    np.testing.assert_allclose(log_density[3], alone[0][0], rtol=1e-14)
    np.testing.assert_allclose(gradient[3], alone[1][0], rtol=1e-14)


@APART
def test_new_data_are_seen_without_compiling_again(mode):
    with pm.Model():
        data = pm.Data("data", np.array([1.0, 2.0]))
    evaluate = compile_batched(normal_model(data), mode=mode)
    assert_equals(evaluate, normal_log_density([1.0, 2.0]), POINTS)
    data.set_value(np.array([-3.0, 4.0, 0.0]))
    assert_equals(evaluate, normal_log_density([-3.0, 4.0, 0.0]), POINTS)


@APART
def test_more_replacements_reach_the_log_density(mode):
    with pm.Model():
        data = pm.Data("data", np.array([1.0, 2.0]))
    other = pt.as_tensor(np.array([5.0, -7.0]))
    evaluate = compile_batched(normal_model(data), more_replacements={data: other}, mode=mode)
    assert_equals(evaluate, normal_log_density([5.0, -7.0]), POINTS)


def autoregression(observed):
    """Residuals by a scan over the observations; the prior is outside it."""
    rho = pm.Normal("rho", 0.0, np.array(0.5), shape=2)

    def residual(value, previous, level, rho):
        level = 0.5 * level + rho[1]
        return level, value - rho[0] * previous - level

    _, residuals = pytensor.scan(
        residual,
        sequences=[observed[1:], observed[:-1]],
        outputs_info=[pt.zeros(()), None],
        non_sequences=[rho],
        return_updates=False,
    )
    pm.Potential("likelihood", -(residuals**2).sum())


def autoregression_log_density(data):
    def log_p(rho):
        level, total = 0.0, stats.norm(0.0, 0.5).logpdf(rho).sum()
        for previous, value in itertools.pairwise(data):
            level = 0.5 * level + rho[1]
            total -= (value - rho[0] * previous - level) ** 2
        return total

    return log_p


def test_a_scan_is_evaluated_one_by_one_and_said_once(caplog):
    with pm.Model() as model:
        data = pm.Data("data", np.array([0.1, 0.5, -0.3, 1.2, 0.7]))
        autoregression(data)
    with caplog.at_level(logging.INFO, logger="pymc_isomix"):
        evaluate = compile_batched(model)
    said = [record for record in caplog.records if "contains a scan" in record.message]
    assert len(said) == 1
    log_p = autoregression_log_density(data.get_value())
    assert_equals(evaluate, log_p, POINTS)
    data.set_value(np.array([1.0, -0.5, 0.0]))
    assert_equals(evaluate, autoregression_log_density([1.0, -0.5, 0.0]), POINTS)


def test_no_word_of_a_scan_where_there_is_none(caplog):
    with caplog.at_level(logging.INFO, logger="pymc_isomix"), pm.Model() as model:
        pm.Normal("x")
        compile_batched(model)
    assert not caplog.records


def test_a_random_draw_that_depends_on_the_point_cannot_be_looped():
    with pm.Model() as model:
        autoregression(pm.Data("data", np.array([0.1, 0.5, -0.3])))
        pm.Potential("noisy", disconnected_grad(pm.Normal.dist(model["rho"][0], 1.0)))
        with pytest.raises(
            NotImplementedError, match="draws random numbers given its own variables"
        ):
            compile_batched(model)


@pytest.mark.parametrize(("looped", "mode"), [(False, None), (True, None), (False, "FAST_COMPILE")])
def test_all_points_share_one_minibatch_and_the_average_is_the_full_data(looped, mode):
    data = np.random.default_rng(2).normal(1.0, 2.0, size=20)
    model = normal_model(pm.Minibatch(data, batch_size=5), total_size=20)
    if looped:
        with model:  # a scan that adds nothing
            zeros = pytensor.scan(
                lambda x: 0.0 * x, sequences=[pt.arange(2.0)], return_updates=False
            )
            pm.Potential("nothing", zeros.sum())
    evaluate = compile_batched(model, mode=mode)
    point = np.array([[0.4, 0.2]])
    log_density, gradient = evaluate(np.repeat(point, 3, axis=0))
    np.testing.assert_allclose(log_density, log_density[0], rtol=1e-14)
    np.testing.assert_allclose(gradient, gradient[:1].repeat(3, axis=0), rtol=1e-14)

    calls = 100 if looped else 400
    values = np.array([np.append(*evaluate(point)) for _ in range(calls)])
    assert len(np.unique(values[:, 0])) > calls / 2  # a new minibatch each time
    log_p = normal_log_density(data)
    full = np.append(log_p(point[0]), numeric_gradient(log_p, point[0]))
    error = values.std(axis=0, ddof=1) / np.sqrt(calls)
    assert np.all(error < 0.2 * np.abs(full))
    assert np.all(np.abs(values.mean(axis=0) - full) <= STANDARD_ERRORS * error)


def test_single_precision():
    with pytensor.config.change_flags(floatX="float32"):
        evaluate = compile_batched(normal_model(np.array([0.3, -1.2], dtype="float32")))
        points = POINTS.astype("float32")
        assert {value.dtype.name for value in evaluate(points)} == {"float32"}
    expected = [normal_log_density([0.3, -1.2])(point) for point in POINTS]
    np.testing.assert_allclose(evaluate(points)[0], expected, rtol=1e-5)


# Written by hand as a user would, with no care for large values
def bernoulli(b):
    pm.Bernoulli("y", p=pm.math.invlogit(np.eye(2) @ b), observed=[0, 1])


def binomial(b):
    pm.Binomial("y", n=5, p=pm.math.sigmoid(b), observed=[1, 4])


def hazard(b):
    pm.Bernoulli("y", p=1 - pt.exp(-pt.exp(np.eye(2) @ b)), observed=[0, 1])


def log_one_minus(b):
    terms = [pt.log(1 - pt.sigmoid(b)), pt.log1mexp(-pt.exp(b)), pt.log(1 - pt.exp(-pt.exp(b)))]
    pm.Potential("terms", sum(term.sum() for term in terms))


def tails(b):
    pm.Potential("below", pm.logcdf(pm.Normal.dist(0, 1), b).sum())
    pm.Censored("y", pm.Normal.dist(b, 1), lower=-1, upper=1, observed=[-1, 1])


def softmax(b):
    pm.Categorical("y", p=pm.math.softmax(b * np.ones((2, 1)), axis=-1), observed=[0, 1])
    pm.Potential("first", pt.log(pt.special.softmax(b))[0])


def log_sum_exp(b):
    pm.Potential("by_hand", pt.log(pt.exp(b).sum()))
    pm.Potential("own", pt.logsumexp(b))
    pm.NormalMixture("y", w=[0.3, 0.7], mu=b, sigma=0.1, observed=[1.0, 2.0])


UNSTABLE = [bernoulli, binomial, hazard, log_one_minus, tails, softmax, log_sum_exp]
EXTREME = np.array(
    [[50, 1], [-50, 3], [800, -800], [-800, 800], [30, -40], [5, 5], [0, 0]], dtype=float
)


def careless(likelihood):
    """A model of b (2,), and PyMC's own log density and gradient at the extreme points."""
    with pm.Model() as model:
        likelihood(pm.Normal("b", 0, 100, shape=2))
    log_p, gradient = model.compile_logp(), model.compile_dlogp()
    points = [{"b": b} for b in EXTREME]
    expected = np.array([log_p(point) for point in points]), np.array([*map(gradient, points)])
    assert np.isfinite(expected[0][0])
    return model, expected


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("likelihood", UNSTABLE)
def test_far_out_all_that_evaluates_a_model_gives_pymc_s_own_values(likelihood):
    model, expected = careless(likelihood)
    space, points = FlatSpace.of(model), pytensor.shared(EXTREME, shape=EXTREME.shape)
    for mode in ("JAX", "FAST_COMPILE", CHEAP_FAST):
        step = pymc_compile([], list(batched_log_density(space, points)[:2]), mode=mode)
        assert_same(step(), expected)
    apart = batched_log_density(space, points, mode="FAST_COMPILE")[:2]
    assert_same(pymc_compile([], list(apart), mode=CHEAP_FAST)(), expected)
    compiled = CompiledModel(space, "float64")
    assert_same(compiled.log_density_and_gradient(EXTREME), expected)
    assert_same([compiled.log_density(EXTREME)], expected[:1])
    check = finite_check(space)
    is_finite = [check(point) is None for point in EXTREME]
    np.testing.assert_array_equal(is_finite, np.isfinite(expected[0]))


@pytest.mark.slow
def test_far_out_numba_gives_pymc_s_own_values():
    model, expected = careless(hazard)
    apart = batched_log_density(FlatSpace.of(model), pt.as_tensor(EXTREME), mode="NUMBA")[:2]
    assert_same(pymc_compile([], list(apart), mode=CHEAP_FAST)(), expected)


def test_far_out_deterministics_are_finite():
    with pm.Model() as model:
        b = pm.Normal("b", 0, 100)
        pm.Deterministic("log_q", pt.log(1 - pt.sigmoid(b)))
    draws = constrained_draws(FlatSpace.of(model), np.array([[800.0], [0.0]]))
    np.testing.assert_allclose(draws["log_q"], [-800, -np.log(2)])


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_two_variables_with_missing_data_that_meet():
    """PyTensor takes the lengths of what stands for the missing data to be different ones."""
    rows = np.random.default_rng(0).normal(size=(3, 20))
    one, other = (
        np.ma.masked_array(row, np.arange(20) < n) for row, n in ((rows[0], 5), (rows[1], 4))
    )
    with pm.Model() as model:
        x = pm.Normal("x", observed=one)
        y = pm.Normal("y", pm.Normal("b") * x, observed=other)
        pm.Normal("seen", x + y, observed=rows[2])
    points = np.random.default_rng(1).normal(size=(2, 10))
    by_numpy, by_jax = (CompiledModel(FlatSpace.of(model), "float64", b) for b in ("", "jax"))
    found, expected = (c.log_density_and_gradient(points) for c in (by_jax, by_numpy))
    assert_same(found, expected)


MASK = np.array([[True, False, True], [False, True, True]])


def test_constant_masks_become_indices_on_jax_too():
    with pm.Model() as model:
        b = pm.Normal("b", shape=(2, 3))
        pm.Normal("y", b[MASK], 1.0, observed=np.arange(4.0))
        pm.Potential("set", (pt.set_subtensor(b[~MASK], 3.0) ** 3).sum())
        pm.Potential("add", (pt.inc_subtensor(b[:, MASK[0]], 1.0) ** 3).sum())
    log_p, gradient = model.compile_logp(), model.compile_dlogp()
    points = np.random.default_rng(0).normal(size=(4, 6))
    by_name = [{"b": point.reshape(2, 3)} for point in points]
    expected = np.array([*map(log_p, by_name)]), np.array([*map(gradient, by_name)])
    batch = pytensor.shared(points, shape=points.shape)
    evaluate = pymc_compile(
        [], list(batched_log_density(FlatSpace.of(model), batch)[:2]), mode="JAX"
    )
    assert_same(evaluate(), expected)


def test_dims_and_masks_among_the_data_are_constants_on_jax():
    with pm.Model(coords={"t": range(6)}) as model:
        mask = pm.Data("mask", MASK.ravel(), dims="t")
        walk = pm.GaussianRandomWalk("walk", init_dist=pm.Normal.dist(), dims="t")
        pm.Normal("y", walk[mask], observed=np.arange(4.0))
    points = np.random.default_rng(0).normal(size=(4, 6))
    batch = pytensor.shared(points, shape=points.shape)
    evaluate = pymc_compile(
        [], list(batched_log_density(FlatSpace.of(model), batch)[:2]), mode="JAX"
    )
    log_p = model.compile_logp()
    np.testing.assert_allclose(evaluate()[0], [log_p({"walk": point}) for point in points])


def test_data_with_dims_may_change_but_for_masks():
    with pm.Model(coords={"t": range(2)}) as model:
        data = pm.Data("data", [1.0, 2.0], dims="t")
        b = pm.Normal("b", dims="t")
        pm.Normal("y", b, observed=data, dims="t")
    evaluate = compile_batched(model)
    for values in ([1.0, 2.0], [5.0, 7.0]):
        model.set_data("data", values)
        log_density, _ = evaluate(np.zeros((1, 2)))
        np.testing.assert_allclose(log_density, model.compile_logp()({"b": np.zeros(2)}))


@APART
@pytest.mark.parametrize("check_bounds", [True, False])
def test_a_parameter_outside_its_bounds_at_one_point_says_nothing_of_the_others(mode, check_bounds):
    with pm.Model(check_bounds=check_bounds) as model:
        p = pm.Normal("p")
        pm.Bernoulli("y", p=p, observed=[1, 1, 0])
    log_density, gradient = compile_batched(model, mode=mode)(np.array([[0.5], [2.0]]))
    expected = stats.norm.logpdf(0.5) + 3 * np.log(0.5)
    np.testing.assert_allclose(log_density[0], expected)
    np.testing.assert_allclose(gradient[0], -0.5 + 2 / 0.5 - 1 / 0.5)
    assert not np.isfinite(log_density[1])


def test_no_rewrite_fails_at_a_minibatch():
    with pm.Model() as model:
        rows, groups = pm.Minibatch(np.zeros(20), np.zeros(20, dtype=int), batch_size=5)
        effect = pm.Normal("effect", shape=2)
        pm.Normal("y", effect[groups], observed=rows, total_size=20)
    with pytensor.config.change_flags(on_opt_error="raise"):
        evaluate = compile_batched(model)
    assert np.isfinite(evaluate(np.zeros((3, 2)))[0]).all()


def test_expressions_carry_no_traces():
    """PyTensor doubles that of a constant with each switch of equal branches that it removes.

    The model of correlated effects took all memory, and takes half a gigabyte.
    """
    x = pt.vector("x")
    outputs = stabilise([pt.switch(x > 0, 0.0, 2 * x).sum()])
    assert any(v.tag.trace for v in ancestors([x * 2]) if v.owner)
    assert not any(getattr(v.tag, "trace", None) for v in ancestors(outputs) if v is not x)
