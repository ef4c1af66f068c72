"""The maps of sites: identities, against SciPy and against numerical derivatives."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

from pymc_isomix.sites.elementwise import Elementwise, Rotated
from pymc_isomix.sites.matrices import Matrix, Scaled

N, ROWS = 3, 4
FORMS = {
    "centred": Elementwise(N),
    "non-centred": Elementwise(N),
    "matrix": Matrix(1, ROWS, N, centred=False),
    "centred matrix": Matrix(1, N, N, centred=True),
    "blocks": Matrix(2, 2, 2, centred=False),
    "large": Matrix(1, 6, 6, centred=False),
    "scaled": Scaled(np.random.default_rng(3).normal(size=(ROWS, N)), 2),
    "large scaled": Scaled(np.random.default_rng(3).normal(size=(4, 6)), 2),
    "rotated": Rotated(np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]),
}


class Numbers:
    """A form with everything that it needs as numbers, and compiled functions of S points."""

    def __init__(self, name, n_points=5):
        form, rng = FORMS[name], np.random.default_rng(1)
        if isinstance(form, Elementwise):
            location = rng.normal(size=(n_points, N))
            scale = np.exp(rng.normal(size=(n_points, N)))
            prior = (location, scale) if name == "centred" else (0 * location, 1 + 0 * scale)
            self.given = [location, scale, *prior]
        else:
            shape = (n_points, form.batch, form.rows, form.columns)
            factor = rng.normal(size=shape)
            if isinstance(form, Scaled):
                factor = np.exp(rng.normal(size=(n_points, form.batch, form.columns)))
            if form.centred:
                factor = np.tril(factor) + 2 * np.eye(form.columns)
            z_shape = (n_points, form.n_dim)
            prior = [rng.normal(size=z_shape), np.exp(rng.normal(size=z_shape))]
            self.given = [rng.normal(size=shape[:-1]), factor, *prior]
        self.form = form
        self.log_precision = rng.normal(size=form.n_pseudo)
        self.value = rng.normal(size=form.n_pseudo)
        self.y = rng.normal(size=(n_points, form.n_dim))
        self.compiled = {}

    def __call__(self, method, *arguments, given=None, own=None):
        """Call a method of the form with (arguments, given, log c, m)."""
        given = self.given if given is None else given
        own = (self.log_precision, self.value) if own is None else own
        numbers = [*map(np.asarray, arguments), *given, *own]
        if method not in self.compiled:
            inputs = [pt.tensor(shape=x.shape, dtype="float64") for x in numbers]
            head, tail = inputs[: len(arguments)], inputs[len(arguments) :]
            last = head[1:] if method == "pullback" else []
            outputs = getattr(self.form, method)(*head[:1], tuple(tail[:-2]), *tail[-2:], *last)
            outputs = list(outputs) if isinstance(outputs, tuple | list) else outputs
            self.compiled[method] = pytensor.function(
                inputs, outputs, mode="FAST_COMPILE", on_unused_input="ignore"
            )
        return self.compiled[method](*numbers)


@pytest.fixture(scope="module", params=FORMS)
def numbers(request):
    with pytensor.config.change_flags(cxx=""):
        yield Numbers(request.param)


def test_there_and_back(numbers):
    z, _ = numbers("to_unconstrained", numbers.y)
    np.testing.assert_allclose(numbers("to_coordinates", z), numbers.y, rtol=1e-9, atol=1e-9)


def test_log_determinant_is_that_of_the_jacobian(numbers):
    n = numbers.form.n_dim
    _, log_determinant = numbers("to_unconstrained", numbers.y)
    step = 1e-6
    columns = []
    for axis in np.eye(n) * step:
        up, down = (numbers("to_unconstrained", numbers.y + sign * axis)[0] for sign in (1, -1))
        columns.append((up - down) / (2 * step))
    jacobian = np.stack(columns, axis=-1)  # (S, n, n)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(jacobian)[1], atol=1e-6)


def test_pullback_is_the_derivative_at_fixed_z(numbers):
    z, _ = numbers("to_unconstrained", numbers.y)
    cotangent = np.random.default_rng(2).normal(size=numbers.y.shape)
    analytic = np.concatenate(numbers("pullback", numbers.y, cotangent))
    numeric, step = [], 1e-6
    both = np.concatenate([numbers.log_precision, numbers.value])
    for axis in np.eye(len(both)) * step:
        values = [
            (cotangent * numbers("to_coordinates", z, own=np.split(both + sign * axis, 2))).sum()
            for sign in (1, -1)
        ]
        numeric.append((values[0] - values[1]) / (2 * step))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-6)


def effects(form, given, z):
    """The effects theta of points z, (S, B, r)."""
    if isinstance(form, Elementwise):
        location, scale, prior_location, prior_scale = given
        z = z @ getattr(form, "basis", np.eye(N))
        return (location + scale * (z - prior_location) / prior_scale)[:, None]
    location, _, prior_location, prior_scale = given
    if form.centred:
        return z.reshape(len(z), form.batch, -1)
    blocks = ((z - prior_location) / prior_scale).reshape(len(z), form.batch, -1)
    return location + (dense(form, given) @ blocks[..., None])[..., 0]


def dense(form, given):
    """G, (S, B, r, n)."""
    return form.basis * given[1][..., None, :] if isinstance(form, Scaled) else given[1]


def log_joint(numbers, z):
    """Log density of the prior of z and of Gaussian data equal to the pseudo-observations."""
    form, given = numbers.form, numbers.given
    theta = effects(form, given, z)
    noise = np.exp(-0.5 * numbers.log_precision).reshape(theta.shape[1:])
    data = numbers.value.reshape(theta.shape[1:])
    log_p = stats.norm(theta, noise).logpdf(data).sum(axis=(1, 2))
    if isinstance(form, Elementwise):
        inner = z @ getattr(form, "basis", np.eye(N))
        log_p += stats.norm(given[2], given[3]).logpdf(inner).sum(axis=1)
    elif form.centred:
        for s, (location, factor) in enumerate(zip(*given[:2], strict=True)):
            covariance = factor[0] @ factor[0].T
            log_p[s] += stats.multivariate_normal(location[0], covariance).logpdf(z[s])
    else:
        log_p += stats.norm(given[2], given[3]).logpdf(z).sum(axis=1)
    return log_p


def test_a_gaussian_likelihood_leaves_a_standard_gaussian(numbers):
    """With pseudo-observations equal to independent Gaussian data, p(z | data) is N(0, I) in y."""
    # what remains is the evidence of each point's own (f, g), the same wherever y is
    rest = []
    for y in (numbers.y, np.random.default_rng(3).normal(size=numbers.y.shape)):
        z, log_determinant = numbers("to_unconstrained", y)
        log_p = log_joint(numbers, z) + log_determinant
        rest.append(log_p - stats.norm.logpdf(y).sum(axis=1))
    np.testing.assert_allclose(rest[1], rest[0], rtol=1e-9, atol=1e-9)


def test_share_and_spread_are_those_of_the_gaussian_posterior(numbers):
    """By the draws' own linear algebra: prior precision I, data precision c."""
    form, given = numbers.form, numbers.given
    share, spread = numbers("share"), numbers("deviation")
    precision = np.exp(numbers.log_precision)
    if isinstance(form, Elementwise):
        variance = 1 / (given[1] ** -2 + precision)
    else:
        factor = dense(form, given)
        weighted = np.swapaxes(factor, -1, -2) * precision.reshape(form.batch, 1, form.rows)
        posterior = np.linalg.inv(np.eye(form.columns) + weighted @ factor)
        variance = np.einsum("sbri,sbij,sbrj->sbr", factor, posterior, factor)
        variance = variance.reshape(len(variance), -1)
    np.testing.assert_allclose(spread**2, variance, rtol=1e-9)
    np.testing.assert_allclose(share, precision * variance, rtol=1e-9)
    assert np.all((share >= 0) & (share <= 1))


@pytest.mark.parametrize("log_precision", [-80.0, 80.0])
def test_no_data_is_non_centred_and_exact_data_is_centred(log_precision):
    numbers = Numbers("centred")
    own = (np.full(N, log_precision), numbers.value)
    z, _ = numbers("to_unconstrained", numbers.y, own=own)
    location, scale = numbers.given[:2]
    if log_precision < 0:
        np.testing.assert_allclose(z, location + scale * numbers.y)
    else:
        np.testing.assert_allclose(z, np.broadcast_to(numbers.value, z.shape), atol=1e-10)


def test_a_scale_of_zero_is_finite_where_the_model_multiplies_by_it():
    numbers = Numbers("non-centred")
    given = [numbers.given[0], 0 * numbers.given[1], *numbers.given[2:]]
    z, log_determinant = numbers("to_unconstrained", numbers.y, given=given)
    np.testing.assert_array_equal(z, numbers.y)
    np.testing.assert_array_equal(log_determinant, 0)
