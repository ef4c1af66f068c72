"""The Gaussian conditional as one map: numbers and gradients as step by step."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph

from pymc_isomix.model.batching import stabilise
from pymc_isomix.sites.conditional import gaussian_map
from pymc_isomix.sites.matrices import Matrix, Scaled

POINTS = 3
FORMS = {
    "wide": Matrix(2, 5, 6, centred=False),
    "last": Matrix(2, 5, 6, centred=False, last=True),
    "centred": Matrix(1, 6, 6, centred=True),
    "scaled": Scaled(np.random.default_rng(3).normal(size=(5, 6)), 2),
    "scaled, last": Scaled(np.random.default_rng(3).normal(size=(9, 6)), 2, last=True),
}


@pytest.fixture(scope="module", params=FORMS)
def compiled(request):
    """Both ways: z, log determinant, gradients of a function of them, shares, and pullbacks."""
    form = FORMS[request.param]
    rng = np.random.default_rng(1)
    shape = (POINTS, form.batch, form.rows, form.columns)
    factor = rng.normal(size=shape)
    if form.centred:
        factor = np.tril(factor) + 2 * np.eye(form.columns)
    if isinstance(form, Scaled):
        factor = factor[..., 0, :]
    numbers = [
        rng.normal(size=(POINTS, form.n_dim)),  # y
        rng.normal(size=shape[:-1]),
        factor,
        rng.normal(size=(POINTS, form.n_dim)),
        np.exp(rng.normal(size=(POINTS, form.n_dim))),
        rng.normal(size=form.n_pseudo),
        rng.normal(size=form.n_pseudo),
        rng.normal(size=(POINTS, form.n_dim)),  # cotangent
    ]
    points = [pt.tensor(shape=x.shape) for x in numbers]
    one = [pt.tensor(shape=x.shape[1:]) for x in numbers[:5]]
    own, cotangent = points[5:7], points[7]
    results, ignoring = [], {"disconnected_inputs": "ignore"}  # a prior, where centred
    for way in (form.forward, step_by_step(form)):
        z, log_determinant, given = way(one[0], tuple(one[1:]), *own)
        if len(given) == 4:
            form = Matrix(form.batch, form.rows, form.columns, centred=form.centred, last=form.last)
        target = (z**3).sum() + 2.0 * log_determinant
        outputs = [z, log_determinant, *pytensor.grad(target, one, **ignoring), *given]
        batch = dict(zip(one, points[:5], strict=True))
        z, log_determinant, *rest = vectorize_graph(stabilise(outputs), batch)
        gradients, given = rest[:5], rest[5:]
        results += [z, log_determinant, *gradients]
        results += [form.share(given, *own), form.deviation(given, *own)]
        results += form.pullback(points[0], given, *own, cotangent)
        results += [form.to_unconstrained(points[0], given, *own)[0]]
        results += pytensor.grad(target, own, **ignoring)
    with pytensor.config.change_flags(cxx=""):
        inputs = [*points, *one]
        function = pytensor.function(inputs, results, mode="FAST_COMPILE", on_unused_input="ignore")
        found = function(*numbers, *(x[0] for x in numbers[:5]))
    return found[: len(found) // 2], found[len(found) // 2 :]


def step_by_step(form):
    """The map of a form, of a dense matrix, without the Op."""
    plain = Matrix(form.batch, form.rows, form.columns, centred=form.centred, last=form.last)

    def forward(y, given, *own):
        if isinstance(form, Scaled):
            given = (given[0], form.basis * given[1][..., None, :], *given[2:])
        return *plain.to_unconstrained(y, given, *own), given

    return forward


def test_numbers_and_gradients_are_those_step_by_step(compiled):
    for ours, expected in zip(*compiled, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    assert sum(np.abs(part).max() > 1e-3 for part in compiled[0]) >= len(compiled[0]) - 2


def test_gradient_of_the_determinant_alone():
    rng = np.random.default_rng(2)
    numbers = [rng.normal(size=(1, 5)), rng.normal(size=(1, 5)), rng.normal(size=(1, 5, 5))]
    numbers += [rng.normal(size=(1, 5)), rng.normal(size=(1, 5))]
    inputs = [pt.tensor(shape=x.shape) for x in numbers]
    log_determinant = gaussian_map(*inputs)[1]
    factor, log_precision = inputs[2], inputs[3]
    precision = pt.eye(5) + (factor.mT * pt.exp(log_precision)[..., None, :]) @ factor
    plain = -0.5 * pt.log(pt.linalg.det(precision[0]))
    wrt = [factor, log_precision]
    outputs = [*pytensor.grad(log_determinant, wrt), *pytensor.grad(plain, wrt)]
    with pytensor.config.change_flags(cxx=""):
        function = pytensor.function(inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore")
        found = function(*numbers)
    for ours, expected in zip(found[:2], found[2:], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
