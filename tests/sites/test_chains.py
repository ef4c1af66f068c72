"""Chains: their map against dense matrices, a Kalman smoother and numerical derivatives."""

import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.sites import chains
from pymc_isomix.sites.chains import N_GIVEN, Chain

POINTS, STEPS = 4, 6
FORMS = {
    "walk": Chain(1, STEPS, 1, centred=True),
    "second order": Chain(1, STEPS, 2, centred=True),
    "third order": Chain(1, STEPS, 3, centred=False),
    "several": Chain(2, STEPS, 2, centred=True, last=True),
    "several sums": Chain(2, STEPS, 1, centred=False, last=True),
}


class Numbers:
    """A chain with everything that it needs as numbers, and dense matrices of each point."""

    def __init__(self, name):
        self.form = form = FORMS[name]
        rng = np.random.default_rng(len(name))
        shape = (POINTS, form.batch, STEPS)
        coefs = 0.5 * rng.normal(size=(POINTS, form.batch, form.order, STEPS))
        for k in range(form.order):
            coefs[..., k, : k + 1] = 0  # before the first
        prior = [
            rng.normal(size=(POINTS, form.n_dim)),
            np.exp(rng.normal(size=(POINTS, form.n_dim))),
        ]
        self.given = [rng.normal(size=shape), coefs, np.exp(rng.normal(size=shape))]
        self.given += [rng.normal(size=shape), rng.normal(size=shape)]
        self.given += [np.exp(0.2 * rng.normal(size=shape))]
        self.given += [np.zeros(POINTS), np.ones(POINTS)] if form.centred else prior
        self.own = [rng.normal(size=form.n_pseudo), rng.normal(size=form.n_pseudo)]
        self.y = rng.normal(size=(POINTS, form.n_dim))

    def __call__(self, method, *arrays):
        return self.form._numbers(method, *arrays, given=self.given, own=self.own)

    def series(self, flat):
        """(S, B T) as (S, B, T)."""
        if self.form.last:
            return flat.reshape(-1, STEPS, self.form.batch).swapaxes(1, 2)
        return flat.reshape(-1, self.form.batch, STEPS)

    def dense(self):
        """Of each point and series: x = f + G zeta, and the posterior mean and precision of x."""
        offset, coefs, scale, added, factor, noise = self.given[:6]
        system = np.broadcast_to(np.eye(STEPS), (*offset.shape, STEPS)).copy()
        for k in range(self.form.order):
            for t in range(k + 1, STEPS):
                system[..., t, t - k - 1] -= coefs[..., k, t]
        inverse = np.linalg.inv(system)
        mean = (inverse @ offset[..., None])[..., 0]
        root = inverse * scale[..., None, :]
        prior = np.linalg.inv(root @ np.swapaxes(root, -1, -2))
        log_precision, value = (part.reshape(self.form.batch, STEPS) for part in self.own)
        precision = np.exp(log_precision) / noise**2 * factor**2
        told = np.exp(log_precision) / noise**2 * factor * (value - added)
        posterior = prior + precision[..., None] * np.eye(STEPS)
        told += (prior @ mean[..., None])[..., 0]
        return mean, root, np.linalg.solve(posterior, told[..., None])[..., 0], posterior


@pytest.fixture(params=FORMS, scope="module")
def numbers(request):
    with pytensor.config.change_flags(cxx=""):
        yield Numbers(request.param)


def effects(numbers, z):
    """The chain x (S, B, T) of z."""
    if numbers.form.centred:
        return numbers.series(z)
    mean, root = numbers.dense()[:2]
    zeta = numbers.series((z - numbers.given[6]) / numbers.given[7])
    return mean + (root @ zeta[..., None])[..., 0]


def test_there_and_back(numbers):
    z, _ = numbers("to_unconstrained", numbers.y)
    np.testing.assert_allclose(numbers("to_coordinates", z), numbers.y, atol=1e-10)


def test_y_is_standard_normal_given_the_pseudo_observations(numbers):
    """(x - mean)^T precision (x - mean) = y^T y: a dense Kalman smoother says the same."""
    _, _, mean, precision = numbers.dense()
    x = effects(numbers, numbers("to_unconstrained", numbers.y)[0])
    apart = x - mean
    found = np.einsum("sbi,sbij,sbj->sb", apart, precision, apart)
    np.testing.assert_allclose(found, (numbers.series(numbers.y) ** 2).sum(axis=-1), rtol=1e-8)


def test_determinant(numbers):
    """That of the posterior; from x to z, where they differ, that of the prior."""
    _, root, _, precision = numbers.dense()
    expected = -0.5 * np.linalg.slogdet(precision)[1].sum(axis=-1)
    if not numbers.form.centred:
        expected -= np.linalg.slogdet(root)[1].sum(axis=-1)
        expected += np.log(numbers.given[7]).sum(axis=-1)
    np.testing.assert_allclose(numbers("to_unconstrained", numbers.y)[1], expected, rtol=1e-9)


def test_spread_and_share(numbers):
    variance = (
        np.linalg.inv(numbers.dense()[3]).diagonal(axis1=-2, axis2=-1) * numbers.given[4] ** 2
    )
    variance = variance.reshape(POINTS, -1)
    np.testing.assert_allclose(numbers("deviation") ** 2, variance, rtol=1e-8)
    precision = np.exp(numbers.own[0]) / flat_noise(numbers) ** 2
    np.testing.assert_allclose(numbers("share"), precision * variance, rtol=1e-8)


def flat_noise(numbers):
    """Noise of each pseudo-observation, (S, B T)."""
    return numbers.given[5].reshape(POINTS, -1)


def test_typical_is_that_of_the_prior(numbers):
    mean, root = numbers.dense()[:2]
    added, factor = numbers.given[3:5]
    deviation = np.abs(factor) * np.sqrt((root**2).sum(axis=-1)) / numbers.given[5]
    location, log_scale = numbers.form.typical(numbers.given)
    expected = np.median((added + factor * mean).reshape(POINTS, -1), axis=0)
    np.testing.assert_allclose(location, expected, rtol=1e-9)
    expected = np.median(np.log(deviation).reshape(POINTS, -1), axis=0)
    np.testing.assert_allclose(log_scale, expected, rtol=1e-9)


def test_an_explosive_chain_starts_finite():
    form = Chain(1, 2000, 1, centred=True)
    ones = np.ones((1, 1, 2000))
    given = [ones, 3 * ones[:, :, None], ones, 0 * ones, ones, ones, np.zeros(1), np.ones(1)]
    assert all(np.isfinite(part).all() for part in form.typical(given))
    z, log_determinant = form._numbers(
        "to_unconstrained", np.ones((1, 2000)), given=given, own=[np.zeros(2000), np.ones(2000)]
    )
    assert np.isfinite(z).all()
    assert np.isfinite(log_determinant).all()


def test_what_is_kept_at_a_point_is_what_would_be_computed_again(numbers):
    form, n = numbers.form, numbers.form.n_dim
    inputs = [pt.tensor(shape=value.shape) for value in (numbers.y, *numbers.given, *numbers.own)]
    y, given, own = inputs[0], tuple(inputs[1:-2]), inputs[-2:]
    kept = form.forward(y, given, *own)[2]
    gradient = pt.as_tensor(np.linspace(-1, 1, POINTS * n).reshape(POINTS, n))
    outputs = []
    for here in (given, kept):
        outputs += [*form.to_unconstrained(y, here, *own), form.share(here, *own)]
        outputs += [form.deviation(here, *own), form.log_unit(here, *own)]
        outputs += [form.to_coordinates(y, here, *own), *form.slope(y, gradient, here, *own)]
        outputs += form.pullback(y, here, *own, gradient)
    function = pytensor.function(inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore")
    found = function(numbers.y, *numbers.given, *numbers.own)
    half = len(found) // 2
    for plain, again in zip(found[:half], found[half:], strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-9, atol=1e-12)
    assert len(kept) > N_GIVEN


def test_pullback_is_the_derivative_at_fixed_z(numbers):
    form, step = numbers.form, 1e-5
    cotangent = np.random.default_rng(5).normal(size=numbers.y.shape)
    variables = [
        pt.tensor(shape=value.shape) for value in (numbers.y, *numbers.given, *numbers.own)
    ]
    y, *given, log_precision, value = variables
    pulled = form.pullback(y, tuple(given), log_precision, value, pt.as_tensor(cotangent))
    function = pytensor.function(variables, pulled, mode="FAST_COMPILE", on_unused_input="ignore")
    found = function(numbers.y, *numbers.given, *numbers.own)
    z, _ = numbers("to_unconstrained", numbers.y)
    for which, gradient in enumerate(found):
        for i in range(form.n_pseudo):
            moved = []
            for sign in (1, -1):
                own = [part.copy() for part in numbers.own]
                own[which][i] += sign * step
                moved.append(form._numbers("to_coordinates", z, given=numbers.given, own=own))
            expected = (cotangent * (moved[0] - moved[1])).sum() / (2 * step)
            assert gradient[i] == pytest.approx(expected, rel=1e-5, abs=1e-7)


class Data:
    """Gaussian data of a chain that each point sees with its own factor, and their density."""

    def __init__(self, numbers):
        rng = np.random.default_rng(8)
        self.precision = np.exp(rng.normal(size=numbers.form.n_pseudo))
        self.value = rng.normal(size=numbers.form.n_pseudo)

    def gradient(self, numbers):
        """Gradient (S, d) in y of the log density, by numerical derivatives of a quadratic."""
        steps = np.eye(numbers.form.n_dim)

        def log_density(y):
            z, log_determinant = numbers("to_unconstrained", y)
            x = effects(numbers, z)
            mean, root = numbers.dense()[:2]
            zeta = np.linalg.solve(root, (x - mean)[..., None])[..., 0]
            seen = (numbers.given[3] + numbers.given[4] * x).reshape(POINTS, -1)
            precision = self.precision / flat_noise(numbers) ** 2
            data = (precision * (self.value - seen) ** 2).sum(axis=-1)
            prior = (zeta**2).sum(axis=(-1, -2))
            return -0.5 * (data + prior) + log_determinant

        return np.stack(
            [(log_density(numbers.y + e) - log_density(numbers.y - e)) / 2 for e in steps], axis=-1
        )


def test_regression_finds_gaussian_data(numbers):
    """From four draws, whatever the pseudo-observations: their precisions and their values."""
    data = Data(numbers)
    gradient = data.gradient(numbers)
    left, weight, theta = numbers("slope", numbers.y, gradient)
    slope = left / (weight * flat_noise(numbers) ** 2)
    log_precision, value = numbers.own
    theta += value
    expected = data.precision * (data.value - theta) - np.exp(log_precision) * (value - theta)
    expected /= flat_noise(numbers) ** 2
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)
    own = numbers.own
    for _ in range(60):  # with a ridge, and bounds of each step
        new = numbers.form.learn(
            numbers.y, gradient_of(numbers, data, own), numbers.given, own, damping=1.0
        )
        own = new
    np.testing.assert_allclose(own[0], np.log(data.precision), atol=0.02)
    np.testing.assert_allclose(own[1], data.value, atol=0.02)


def test_regression_follows_data_that_go_far():
    """A thousand deviations in a few steps, where the effects are there already."""
    numbers = Numbers("walk")
    data = Data(numbers)
    data.value = data.value + 1000 * np.arange(1.0, STEPS + 1)
    added, factor = (numbers.series(part.reshape(POINTS, -1)) for part in numbers.given[3:5])
    z = ((numbers.series(data.value[None]) - added) / factor).reshape(POINTS, -1)
    own = [np.log(data.precision), numbers.own[1]]
    for _ in range(8):
        numbers.own, numbers.y = (
            own,
            numbers.form._numbers("to_coordinates", z, given=numbers.given, own=own),
        )
        gradient = data.gradient(numbers)
        own = numbers.form.learn(numbers.y, gradient, numbers.given, own)
    np.testing.assert_allclose(own[1], data.value, rtol=1e-3)


def gradient_of(numbers, data, own):
    """Gradient of the density of the data in y, with these pseudo-observations."""
    before, numbers.own = numbers.own, own
    try:
        return data.gradient(numbers)
    finally:
        numbers.own = before


def test_moved_is_the_same_point_and_units_are_those_of_y(numbers):
    form = numbers.form
    new = [numbers.own[0] + 0.7, numbers.own[1] - 0.2]
    moved = form.moved(numbers.y, numbers.given, numbers.own, new)
    z, _ = numbers("to_unconstrained", numbers.y)
    again = form._numbers("to_unconstrained", moved, given=numbers.given, own=new)[0]
    np.testing.assert_allclose(again, z, rtol=1e-8)
    # dy_t / dz_t, given what is before t, is the diagonal of the Jacobian
    change = form.unit_change(numbers.given, numbers.own, new)
    ratios = []
    for i in range(form.n_dim):
        step = 1e-4 * np.eye(form.n_dim)[i]
        slopes = [
            form._numbers("to_coordinates", z + step, given=numbers.given, own=own)[:, i]
            - form._numbers("to_coordinates", z - step, given=numbers.given, own=own)[:, i]
            for own in (new, numbers.own)
        ]
        ratios.append(np.exp(np.median(np.log(slopes[0] / slopes[1]))))
    np.testing.assert_allclose(change, ratios, rtol=1e-6)


def test_a_pickled_form_compiles_anew():
    form = Chain(1, STEPS, 1, centred=True)
    ones = np.ones((1, 1, STEPS))
    given = [ones, ones[:, :, None], ones, 0 * ones, ones, ones, np.zeros(1), np.ones(1)]
    own = [np.zeros(STEPS), np.zeros(STEPS)]
    y = np.ones((1, STEPS))
    before = form.moved(y, given, own, own)
    again = pickle.loads(pickle.dumps(form))
    np.testing.assert_array_equal(again.moved(y, given, own, own), before)


def test_on_jax_as_in_numpy(monkeypatch):
    """Of more points than at once, the last ones padded."""
    pytest.importorskip("jax")
    monkeypatch.setattr(chains, "AT_ONCE", 3)
    monkeypatch.setattr(chains, "LONG", 1)
    numbers = Numbers("several")
    gradient = numbers.y[::-1].copy()
    new = [numbers.own[0] + 0.3, numbers.own[1] - 0.1]

    def everything():
        learned = numbers.form.learn(numbers.y, gradient, numbers.given, numbers.own)
        moved = numbers.form.moved(numbers.y, numbers.given, numbers.own, new)
        return *learned, moved, numbers.form.unit_change(numbers.given, numbers.own, new)

    expected = everything()
    numbers.form.run_on_jax()
    assert numbers.form.on_jax
    try:
        for found, wanted in zip(everything(), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    finally:
        numbers.form.on_jax = False


def test_no_data_are_the_noise_itself():
    form = Chain(1, STEPS, 2, centred=False)
    numbers = Numbers("third order")
    given = [part[:, :, :2] if part.ndim == 4 else part for part in numbers.given]
    given[6:] = [np.zeros((POINTS, STEPS)), np.ones((POINTS, STEPS))]
    own = [np.full(STEPS, -80.0), np.zeros(STEPS)]
    z, _ = form._numbers("to_unconstrained", numbers.y, given=given, own=own)
    np.testing.assert_allclose(z, numbers.y, atol=1e-12)


def test_single_precision_stays():
    form = Chain(1, 400, 1, centred=True)
    ones = np.ones((2, 1, 400), "float32")
    given = [0 * ones, ones[:, :, None], 0.3 * ones, 0 * ones, ones, ones]
    given += [np.zeros(2, "float32"), np.ones(2, "float32")]
    own = [np.zeros(400, "float32"), np.zeros(400, "float32")]
    y = np.random.default_rng(0).normal(size=(2, 400)).astype("float32")
    z, _ = form._numbers("to_unconstrained", y, given=given, own=own)
    assert z.dtype == "float32"
    again = form._numbers("to_coordinates", z, given=given, own=own)
    np.testing.assert_allclose(again, y, atol=1e-4)
