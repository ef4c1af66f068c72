"""Recursions along time: as step by step, on NumPy in blocks and on JAX; their gradients."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.gradient import verify_grad
from pytensor.graph.replace import vectorize_graph

from pymc_isomix.backend import recursions
from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.backend.recursions import Linear, Riccati, closed_loop, companion
from pymc_isomix.model.batching import stabilise

LONG, SHORT = 60, 4  # the former in blocks
MODES = {"NumPy": CHEAP, "JAX": "JAX"}


def numbers(order, n_time):
    """Coefficients, variances and precisions of a chain; no information is lost in rounding."""
    rng = np.random.default_rng(order)
    coefs = 0.6 * rng.normal(size=(order, n_time))
    return coefs, np.exp(rng.normal(size=n_time)), np.exp(rng.normal(size=n_time))


def linear(matrices, steps, reverse, squared):
    """Step by step."""
    found, n_time = np.zeros_like(steps), steps.shape[-1]
    for t in range(n_time)[:: -1 if reverse else 1]:
        found[..., t] = steps[..., t]
        before = t + 1 if reverse else t - 1
        if 0 <= before < n_time:
            turn = matrices[..., t + 1].T if reverse else matrices[..., t]
            told = turn @ found[..., before]
            found[..., t] += told @ turn.T if squared else told
    return found


def riccati(coefs, variances, precisions):
    """Step by step, by inverse matrices: covariances are added, information is added."""
    order, n_time = coefs.shape
    found, noise = np.zeros((order, order, n_time)), np.zeros((order, order))
    for t in reversed(range(n_time)):
        if t + 1 < n_time:
            turn, noise[0, 0] = np.eye(order, k=-1), variances[t + 1]
            turn[0] = coefs[:, t + 1]
            behind = found[..., t + 1]
            found[..., t] = turn.T @ np.linalg.inv(np.eye(order) + behind @ noise) @ behind @ turn
        found[0, 0, t] += precisions[t]
    return found


def evaluated(op, values, mode):
    inputs = [pt.tensor(shape=value.shape) for value in values]
    return pytensor.function(inputs, op(*inputs), mode=mode)(*values)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("order", "n_time"), [(1, LONG), (2, LONG), (3, SHORT)])
def test_linear_is_that_step_by_step(order, n_time, reverse, squared, mode):
    rng = np.random.default_rng(0)
    matrices = 0.5 * rng.normal(size=(order, order, n_time))
    steps = rng.normal(size=(order, order, n_time) if squared else (order, n_time))
    found = evaluated(Linear(reverse=reverse, squared=squared), (matrices, steps), mode)
    expected = linear(matrices, steps, reverse, squared)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize(("order", "n_time"), [(1, LONG), (2, LONG), (3, LONG), (2, 1)])
def test_information_is_that_of_inverse_matrices(order, n_time, mode):
    values = numbers(order, n_time)
    found = evaluated(Riccati(), values, mode)
    np.testing.assert_allclose(found, riccati(*values), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("length", [1, 25, 26, 31])
def test_blocks_of_any_length(length):
    """Whether or not the last block is full."""
    values = numbers(1, length)
    found = evaluated(Riccati(), values, CHEAP)
    np.testing.assert_allclose(found, riccati(*values), rtol=1e-9)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_of_linear(reverse, squared):
    rng = np.random.default_rng(1)
    values = [rng.normal(size=(2, 2, SHORT)), rng.normal(size=(2, 2, SHORT)[not squared :])]
    verify_grad(Linear(reverse=reverse, squared=squared), values, rng=rng, mode=CHEAP)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gradient_of_the_information(order):
    verify_grad(Riccati(), list(numbers(order, SHORT)), rng=np.random.default_rng(2), mode=CHEAP)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_many_points_are_those_one_by_one(mode):
    """Values that are the same for all points are not repeated for each."""
    coefs, variances, precisions = numbers(2, LONG)
    many = np.exp(np.random.default_rng(3).normal(size=(3, LONG)))
    inputs = [pt.tensor(shape=value.shape) for value in (coefs, variances, precisions)]
    information = Riccati()(*inputs)
    odds, closed = closed_loop(*inputs[:2], information)[1:]
    state = Linear()(companion(closed), pt.stack([odds, inputs[2]], axis=-2))
    gradient = pytensor.grad((state**2).sum(), inputs)
    points = pt.tensor(shape=many.shape)
    # with lengths folded, as the model's graph is before there are many points
    outputs = vectorize_graph(stabilise([information, state, *gradient]), {inputs[1]: points})
    found = pytensor.function([points, inputs[0], inputs[2]], outputs, mode=mode)(
        many, coefs, precisions
    )
    one = pytensor.function(inputs, [information, state, *gradient], mode=CHEAP)
    for i, own in enumerate(many):
        for ours, expected in zip(found, one(coefs, own, precisions), strict=True):
            np.testing.assert_allclose(ours[i], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_loops_of_numba_are_those_of_numpy():
    coefs, variances, precisions = numbers(2, LONG)
    several = [np.stack([coefs, 0.5 * coefs]), variances, np.stack([precisions, 2 * precisions])]
    inputs = [pt.tensor(shape=value.shape) for value in several]
    information = Riccati()(*inputs)
    odds, closed = closed_loop(*inputs[:2], information)[1:]
    state = Linear()(companion(closed), pt.stack([odds, inputs[2]], axis=-2))
    outputs = [state, *pytensor.grad((state**2).sum(), inputs)]
    ours = pytensor.function(inputs, outputs, mode="NUMBA")(*several)
    expected = pytensor.function(inputs, outputs, mode=CHEAP)(*several)
    for found, own in zip(ours, expected, strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-8, atol=1e-12)


def test_lengths_are_known():
    matrices, steps = pt.tensor(shape=(None, 2, 2, 5)), pt.tensor(shape=(3, 1, 2, 5))
    state = Linear()(matrices, steps)
    assert state.type.shape == (3, None, 2, 5)
    shape = pytensor.function([matrices, steps], state.shape, mode="FAST_RUN")
    assert shape(np.zeros((4, 2, 2, 5)), np.zeros((3, 1, 2, 5))).tolist() == [3, 4, 2, 5]


def test_no_observations_leave_the_coefficients_as_they_are():
    coefs, variances, _ = numbers(2, SHORT)
    information = pt.zeros((2, 2, SHORT))
    _, odds, closed = closed_loop(pt.as_tensor(coefs), pt.as_tensor(variances), information)
    np.testing.assert_array_equal(odds.eval(), 1)
    np.testing.assert_array_equal(closed.eval(), coefs)


def test_a_long_chain_of_numpy_takes_blocks():
    blocks = recursions.Blocks(np, 10_000)
    assert blocks.length * blocks.n_blocks < 10_200
    assert blocks.length + blocks.n_blocks < 250
