"""Sites found in models: which, and that they are exact where the likelihood is Gaussian."""

import warnings

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import toposort
from pytensor.tensor.math import Dot

from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites import find
from pymc_isomix.sites.chains import Chain
from pymc_isomix.sites.coordinates import CoordinateMap, Coordinates
from pymc_isomix.sites.elementwise import Elementwise, Rotated, Whitened
from pymc_isomix.sites.find import find_coordinates, starting_coordinates
from pymc_isomix.sites.matrices import Matrix, Scaled

RNG = np.random.default_rng(0)
GROUP = np.array([0, 0, 1, 2, 2, 2, 3, 3, 4, 4])
ROWS = RNG.normal(size=10)
NOISE = 0.7
MEANS = np.array([ROWS[g == GROUP].mean() for g in range(5)])
PRECISIONS = np.bincount(GROUP) / NOISE**2
TIME = np.linspace(0, 1, 5)[:, None]
X = RNG.normal(size=(10, 3))


def scale(name="tau"):
    return pm.HalfNormal(name, 1.0)


def centred():
    theta = pm.Normal("theta", pm.Normal("mu"), scale(), shape=5)
    pm.Normal("y", theta[GROUP], NOISE, observed=ROWS)


def student():
    """Not Gaussian given its scale: recognised, but not exact."""
    theta = pm.StudentT("theta", 4, mu=pm.Normal("mu"), sigma=scale(), shape=5)
    pm.Normal("y", theta[GROUP], NOISE, observed=ROWS)


def non_centred():
    z = pm.Normal("z", shape=5)
    theta = pm.Deterministic("theta", pm.Normal("mu") + scale() * z)
    pm.Normal("y", theta[GROUP], NOISE, observed=ROWS)


def indexed_then_multiplied():
    z = pm.Normal("z", shape=5)
    pm.Normal("y", pm.Normal("mu") + scale() * z[GROUP], NOISE, observed=ROWS)


def not_standard():
    z = pm.Normal("z", 1.0, 3.0, shape=5)
    pm.Normal("y", (z / scale())[GROUP] - pm.Normal("mu"), NOISE, observed=ROWS)


def two_scales():
    local = pm.HalfNormal("local", shape=5)
    z = pm.Normal("z", shape=5)
    pm.Normal("y", (scale() * (z * local))[GROUP], NOISE, observed=ROWS)


def by_number():
    z, tau, mu = pm.Normal("z", shape=5), scale(), pm.Normal("mu")
    theta = pt.stack([mu + z[i] * tau ** (1 + i) for i in (0, 1, 2, -2, -1)])
    pm.Normal("y", theta[GROUP], NOISE, observed=ROWS)


def by_column():
    z, tau = pm.Normal("z", shape=(5, 2)), scale()
    a, b = pm.Normal("mu") + tau * z[:, 0], tau**2 * z[:, 1]
    pm.Normal("y", pt.stack([a, b], axis=1).ravel(), NOISE, observed=ROWS)


def nested():
    region = pm.Normal("region", pm.Normal("mu"), scale("tau_region"), shape=2)
    county = pm.Normal("county", region[[0, 0, 1, 1, 1]], scale(), shape=5)
    pm.Normal("y", county[GROUP], NOISE, observed=ROWS)


def with_dims():
    model = pm.modelcontext(None)
    model.add_coords({"group": range(5)})
    theta = pm.Normal("theta", pm.Normal("mu"), scale(), dims="group")
    data = pm.Data("group_of_row", GROUP)
    pm.Normal("y", theta[data], NOISE, observed=ROWS)


def matrix_product():
    z = pm.Normal("z", shape=2)
    factor = pt.stack([pt.stack([scale(), 0.3]), pt.stack([0.0, 1.0]), pt.stack([1.0, -1.0])])
    pm.Normal("y", factor @ z, NOISE, observed=ROWS[:3])


def weighted_basis():
    """As HSGP is: a constant basis, coefficients with scales of their own."""
    beta = pm.Normal("beta", 0.0, scale() ** np.arange(3), shape=3)
    pm.Normal("y", X @ beta, NOISE, observed=ROWS)


def weighted_standard_basis():
    """The same, as PyMC writes it."""
    beta = pm.Normal("beta", 0.0, 1.0, shape=3)
    mean = pm.Normal("mu") + X @ (beta * scale() ** np.arange(3))
    pm.Normal("y", mean, NOISE, observed=ROWS)


def latent_process():
    kernel = pm.gp.cov.Matern52(1, ls=scale())
    f = pm.gp.Latent(cov_func=kernel).prior("f", X=TIME)
    pm.Normal("y", f, NOISE, observed=ROWS[:5])


def marginal():
    """The same process, centred."""
    kernel = pm.gp.cov.Matern52(1, ls=scale())
    covariance = kernel(TIME) + 1e-6 * pt.eye(5)
    f = pm.MvNormal("f", 0.3, covariance, shape=5)
    pm.Normal("y", f, NOISE, observed=ROWS[:5])


def correlated():
    factor, _, _ = pm.LKJCholeskyCov("factor", n=2, eta=2, sd_dist=pm.Exponential.dist(1))
    theta = pm.MvNormal("theta", pm.Normal("mu", shape=2), chol=factor, shape=(5, 2))
    pm.Normal("y", theta.ravel(), NOISE, observed=ROWS)


def correlated_by_a_full_root():
    root = pt.stack([pt.stack([scale(), 1.0]), pt.stack([0.5, -0.7])])
    theta = pm.MvNormal("theta", pm.Normal("mu", shape=2), cov=root @ root.T, shape=(5, 2))
    pm.Normal("y", theta.ravel(), NOISE, observed=ROWS)


def correlated_by_product():
    factor, _, _ = pm.LKJCholeskyCov("factor", n=2, eta=2, sd_dist=pm.Exponential.dist(1))
    z = pm.Normal("z", shape=(2, 5))
    theta = pm.Normal("mu", shape=2) + (factor @ z).T
    pm.Normal("y", theta.ravel(), NOISE, observed=ROWS)


def first_value():
    return pm.Normal.dist(0, 1)


def walk():
    x = pm.GaussianRandomWalk("x", mu=0.3, sigma=scale(), init_dist=first_value(), steps=4)
    pm.Normal("y", x, NOISE, observed=ROWS[:5])


def walk_from_a_wide_start():
    """The steps alone are Gaussian."""
    x = pm.GaussianRandomWalk("x", sigma=scale(), init_dist=pm.Flat.dist(), steps=5)
    pm.Normal("y", x[1:], NOISE, observed=ROWS[:5])


def walk_of_unknown_noise():
    """Pseudo-observations have the noise's units, whatever it is."""
    x = pm.GaussianRandomWalk("x", sigma=scale(), init_dist=first_value(), shape=5)
    noise = pm.HalfNormal("noise") * np.array([1.0, 2.0, 1.0, 1.0, 3.0])
    pm.Normal("y", x + pm.Normal("mu"), noise, observed=ROWS[:5])


def several_walks_of_unknown_noise():
    x = pm.GaussianRandomWalk("x", sigma=scale(), init_dist=first_value(), shape=(2, 5))
    noise = pm.HalfNormal("noise", shape=(2, 1))
    every = np.arange(5)
    pm.Normal("y", x[:, every], noise, observed=ROWS.reshape(2, 5))


def cumulative_sum_of_unknown_noise():
    steps = pt.concatenate([[pm.Normal("start")], scale() * pm.Normal("z", shape=5)])
    x = pt.cumsum(steps)[1:]
    pm.Normal("y", x[np.arange(5)], pm.HalfNormal("noise"), observed=ROWS[:5])


def walk_that_drifts():
    drift = pm.Normal("drift", shape=4)
    x = pm.GaussianRandomWalk("x", mu=drift, sigma=scale(), init_dist=first_value(), shape=5)
    pm.Normal("y", x, NOISE, observed=ROWS[:5])


def walk_that_is_multiplied():
    x = pm.GaussianRandomWalk("x", init_dist=first_value(), steps=4)
    pm.Normal("y", pm.Normal("mu") + scale() * x, NOISE, observed=ROWS[:5])


def several_walks():
    x = pm.GaussianRandomWalk(
        "x", sigma=scale() * np.array([1.0, 2.0]), init_dist=first_value(), shape=(2, 5)
    )
    pm.Normal("y", x, NOISE, observed=ROWS.reshape(2, 5))


def cumulative_sum():
    z = pm.Normal("z", shape=5)
    pm.Normal("y", pm.Normal("mu") + pt.cumsum(z) * scale(), NOISE, observed=ROWS[:5])


def cumulative_sum_from_a_start():
    steps = scale() * pm.Normal("z", 0.1, 2.0, shape=5)
    x = pt.cumsum(pt.concatenate([[pm.Normal("start")], steps]))
    pm.Normal("y", x[1:], NOISE, observed=ROWS[:5])


def several_cumulative_sums():
    z = pm.Normal("z", shape=(5, 2))
    x = pt.cumsum(z * scale() * np.array([1.0, 2.0]), axis=0)
    pm.Normal("y", x, NOISE, observed=ROWS.reshape(5, 2))


def sum_of_sums():
    slope = pm.Normal("slope") + pt.cumsum(pm.Normal("z", shape=5)) * scale()
    x = pt.cumsum(pt.concatenate([[pm.Normal("start")], slope]))
    pm.Normal("y", x[1:], NOISE, observed=ROWS[:5])


def trend():
    slope = pm.GaussianRandomWalk("slope", sigma=scale(), init_dist=first_value(), shape=5)
    x = pm.GaussianRandomWalk(
        "x", mu=slope[:-1], sigma=pm.HalfNormal("sd"), init_dist=first_value(), shape=5
    )
    pm.Normal("y", x, NOISE, observed=ROWS[:5])


def trend_without_delay():
    slope = pm.GaussianRandomWalk("slope", sigma=scale(), init_dist=first_value(), shape=5)
    x = pm.GaussianRandomWalk("x", mu=slope[1:], init_dist=first_value(), shape=5)
    pm.Normal("y", pm.Normal("mu") + x, NOISE, observed=ROWS[:5])


def trend_of_noise():
    slope = pm.Normal("slope") + scale() * pt.cumsum(pm.Normal("u", 0.0, 2.0, shape=5))
    x = pt.cumsum(slope + pm.HalfNormal("sd") * pm.Normal("z", 0.1, shape=5))
    pm.Normal("y", pm.Normal("mu") + x, NOISE, observed=ROWS[:5])


def trend_of_noise_with_a_delay():
    """The level moves by the slope of the step before."""
    slope = pm.Normal("slope") + scale() * pt.cumsum(pm.Normal("u", 0.0, 2.0, shape=5))
    before = pt.concatenate([[0.0], slope[:-1]])
    x = pt.cumsum(0.7 * before + pm.HalfNormal("sd") * pm.Normal("z", 0.1, shape=5))
    pm.Normal("y", pm.Normal("mu") + x, NOISE, observed=ROWS[:5])


def autoregression():
    x = pm.AR("x", rho=[0.1, 0.8], sigma=scale(), init_dist=first_value(), steps=4, constant=True)
    pm.Normal("y", x, NOISE, observed=ROWS[:5])


def autoregression_of_free_lags():
    rho = pm.Normal("rho", 0.3, 0.3, shape=2)
    x = pm.AR("x", rho=rho, sigma=scale(), init_dist=first_value(), steps=3)
    pm.Normal("y", pm.Normal("mu") + x, NOISE, observed=ROWS[:5])


def autoregression_from_a_vector():
    """From two values of a distribution that is no normal one: those are what they are."""
    start = pm.MvNormal.dist(np.zeros(2), np.eye(2) + 0.5)
    x = pm.AR("x", rho=[0.5, 0.3], sigma=scale(), init_dist=start, steps=5)
    pm.Normal("y", x[2:], NOISE, observed=ROWS[:5])


def several_autoregressions():
    rho = pm.Beta("rho", 2, 2, shape=(2, 1))
    x = pm.AR("x", rho=rho, sigma=scale(), init_dist=first_value(), shape=(2, 5))
    pm.Normal("y", x, NOISE, observed=ROWS.reshape(2, 5))


def diffusion():
    def drift_and_noise(x, rate, level, noise):
        return rate * (level - x), noise

    parameters = (pm.Beta("rate", 2, 2), pm.Normal("mu"), scale())
    x = pm.EulerMaruyama(
        "x", 0.5, drift_and_noise, parameters, init_dist=first_value(), steps=4, initval=np.zeros(5)
    )
    pm.Normal("y", x, NOISE, observed=ROWS[:5])


EDGES = np.array(
    [[0, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, 0]]
)
DEGREES = EDGES.sum(axis=0)


def field():
    phi = pm.ICAR("phi", W=EDGES, zero_sum_stdev=0.1)
    pm.Normal("y", pm.Normal("mu") + scale() * phi, NOISE, observed=ROWS[:5])


def field_of_unknown_scale():
    phi = pm.ICAR("phi", W=EDGES, sigma=scale(), zero_sum_stdev=0.1)
    pm.Normal("y", phi, NOISE, observed=ROWS[:5])


def autoregressive_field():
    phi = pm.CAR("phi", pm.Normal("mu") * np.ones(5), EDGES, pm.Beta("alpha", 2, 2), scale())
    pm.Normal("y", phi, NOISE / np.sqrt(DEGREES), observed=ROWS[:5])


def zero_sum():
    a = pm.ZeroSumNormal("a", sigma=scale(), shape=5)
    pm.Normal("y", a, NOISE, observed=ROWS[:5])


def zero_sum_multiplied():
    a = scale() * pm.ZeroSumNormal("a", shape=5)
    pm.Normal("y", a, NOISE, observed=ROWS[:5])


def build(function):
    with pm.Model() as model:
        function()
    return model


# the site that is looked at, its form, its parents
FOUND = {
    centred: ("theta", Elementwise, {"mu", "tau_log__"}),
    student: ("theta", Elementwise, {"mu", "tau_log__"}),
    non_centred: ("z", Elementwise, {"mu", "tau_log__"}),
    indexed_then_multiplied: ("z", Elementwise, {"mu", "tau_log__"}),
    not_standard: ("z", Elementwise, {"mu", "tau_log__"}),
    two_scales: ("z", Elementwise, {"local_log__", "tau_log__"}),
    by_number: ("z", Elementwise, {"mu", "tau_log__"}),
    by_column: ("z", Elementwise, {"mu", "tau_log__"}),
    nested: ("county", Elementwise, {"region", "tau_log__"}),
    with_dims: ("theta", Elementwise, {"mu", "tau_log__"}),
    matrix_product: ("z", Matrix, {"tau_log__"}),
    weighted_basis: ("beta", Scaled, {"tau_log__"}),
    latent_process: ("f_rotated_", Matrix, {"tau_log__"}),
    marginal: ("f", Matrix, {"tau_log__"}),
    correlated: ("theta", Matrix, {"mu", "factor_cholesky-cov-packed__"}),
    correlated_by_a_full_root: ("theta", Matrix, {"mu", "tau_log__"}),
    correlated_by_product: ("z", Matrix, {"mu", "factor_cholesky-cov-packed__"}),
    walk: ("x", Chain, {"tau_log__"}),
    walk_from_a_wide_start: ("x", Chain, {"tau_log__", "x"}),
    walk_that_drifts: ("x", Chain, {"drift", "tau_log__"}),
    walk_that_is_multiplied: ("x", Chain, {"mu", "tau_log__"}),
    several_walks: ("x", Chain, {"tau_log__"}),
    walk_of_unknown_noise: ("x", Chain, {"mu", "noise_log__", "tau_log__"}),
    several_walks_of_unknown_noise: ("x", Chain, {"noise_log__", "tau_log__"}),
    cumulative_sum_of_unknown_noise: ("z", Chain, {"start", "noise_log__", "tau_log__"}),
    cumulative_sum: ("z", Chain, {"mu", "tau_log__"}),
    cumulative_sum_from_a_start: ("z", Chain, {"start", "tau_log__"}),
    several_cumulative_sums: ("z", Chain, {"tau_log__"}),
    sum_of_sums: ("z", Chain, {"slope", "start", "tau_log__"}),
    trend: ("x", Chain, {"sd_log__", "tau_log__"}),
    trend_without_delay: ("x", Chain, {"mu", "tau_log__"}),
    trend_of_noise: ("z", Chain, {"mu", "slope", "sd_log__", "tau_log__"}),
    trend_of_noise_with_a_delay: ("z", Chain, {"mu", "slope", "sd_log__", "tau_log__"}),
    autoregression: ("x", Chain, {"tau_log__"}),
    autoregression_of_free_lags: ("x", Chain, {"mu", "rho", "tau_log__"}),
    autoregression_from_a_vector: ("x", Chain, {"tau_log__", "x"}),
    several_autoregressions: ("x", Chain, {"rho_logodds__", "tau_log__"}),
    diffusion: ("x", Chain, {"rate_logodds__", "mu", "tau_log__"}),
    field: ("phi", Rotated, {"mu", "tau_log__"}),
    field_of_unknown_scale: ("phi", Rotated, {"tau_log__"}),
    autoregressive_field: ("phi", Rotated, {"mu", "alpha_logodds__", "tau_log__"}),
    zero_sum: ("a_zerosum__", Elementwise, {"tau_log__"}),
    zero_sum_multiplied: ("a_zerosum__", Elementwise, {"tau_log__"}),
}
# Data as pseudo-observations, (values, precisions), by rows or by groups
BY_ROW = {
    by_column: ROWS,
    matrix_product: ROWS[:3],
    weighted_basis: ROWS,
    latent_process: ROWS[:5],
    marginal: ROWS[:5],
    correlated: ROWS,
    correlated_by_a_full_root: ROWS,
    correlated_by_product: ROWS,
    **dict.fromkeys((f for f, (_, form, _) in FOUND.items() if form is Chain), ROWS[:5]),
    trend: np.repeat(ROWS[:5], 2),  # of the slopes, too, of which they say nothing
    trend_without_delay: np.repeat(ROWS[:5], 2),
    trend_of_noise: np.repeat(ROWS[:5], 2),
    trend_of_noise_with_a_delay: np.repeat(ROWS[:5], 2),
    several_walks: ROWS,
    several_walks_of_unknown_noise: ROWS,
    several_cumulative_sums: ROWS.reshape(5, 2).T.ravel(),
    several_autoregressions: ROWS,
}


def named(functions):
    return pytest.mark.parametrize("function", functions, ids=lambda f: f.__name__)


def site_of(coordinates, name):
    return next(site for site in coordinates.sites if site.name == name)


@named(FOUND)
def test_the_site_is_found(function):
    name, form, parents = FOUND[function]
    coordinates = find_coordinates(FlatSpace.of(build(function)))
    site = site_of(coordinates, name)
    assert type(site.form) is form
    assert site.parents == parents


def start(function):
    """Coordinates of a model with pseudo-observations, and points z."""
    coordinates = find_coordinates(FlatSpace.of(build(function)))
    rng = np.random.default_rng(1)
    points = 0.5 * rng.normal(size=(3, coordinates.space.n_dim))
    pseudo = starting_coordinates(coordinates, points)[1]
    return coordinates, pseudo, points, rng


CHAINS = [f for f, (_, form, _) in FOUND.items() if form is Chain]


@named([centred, nested, two_scales, weighted_basis, correlated_by_product, zero_sum, *CHAINS])
def test_there_and_back_with_opposite_determinants(function):
    coordinates, pseudo, points, _ = start(function)
    y, backward = coordinates.of(pseudo).from_unconstrained(points)
    z, forward = coordinates.of(pseudo).to_unconstrained(y)
    np.testing.assert_allclose(z, points, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(forward, -backward, rtol=1e-9, atol=1e-9)


@named([nested, correlated_by_product, autoregressive_field, *CHAINS])
def test_determinant_is_that_of_the_jacobian(function):
    coordinates, pseudo, points, _ = start(function)
    y, _ = coordinates.of(pseudo).from_unconstrained(points[:1])
    steps = 1e-6 * np.eye(y.shape[1])
    up, down = (coordinates.of(pseudo).to_unconstrained(y + sign * steps)[0] for sign in (1, -1))
    expected = np.linalg.slogdet((up - down).T / 2e-6)[1]
    np.testing.assert_allclose(coordinates.of(pseudo).to_unconstrained(y)[1], expected, atol=1e-6)


EXACT = [f for f in FOUND if f not in (student, zero_sum, zero_sum_multiplied)]


@named(EXACT)
def test_gaussian_data_as_pseudo_observations_leave_a_standard_gaussian(function):
    """Whatever the scales, p(z | data, scales) is N(0, I) in y: location and scale are right."""
    coordinates, pseudo, points, rng = start(function)
    site = site_of(coordinates, FOUND[function][0])
    values, precisions = MEANS, PRECISIONS
    if function in BY_ROW:
        values = BY_ROW[function]
        precisions = np.full(len(values), NOISE**-2)
    if isinstance(site.form, Chain):  # in units of the noise
        precisions = np.ones(len(values))
    if function is not_standard:  # data of (z / tau) - mu
        values = MEANS
    if isinstance(site.form, Rotated):
        values, precisions = site.form.inverse @ ROWS[:5], np.full(5, NOISE**-2)
    expect_standard_gaussian(coordinates, site, (pseudo, values, precisions), points, rng)


def expect_standard_gaussian(coordinates, site, data, points, rng):
    """Check that the log density of y given the rest is that of N(0, I), but for a constant."""
    (pseudo, values, precisions), place = data, coordinates.place_of(site)
    here = coordinates.places[coordinates.sites.index(site)]
    pseudo["values"][here] = values
    pseudo["log_precisions"][here] = np.log(precisions)
    target = CompiledModel(
        coordinates.space,
        "float64",
        coordinates=Coordinates(coordinates, pseudo),
    )
    y, _ = coordinates.of(pseudo).from_unconstrained(points)
    y[:, place] = rng.normal(size=y[:, place].shape)
    other = y.copy()
    other[:, place] = rng.normal(size=y[:, place].shape)
    change = target.log_density(other) - target.log_density(y)
    expected = 0.5 * (y[:, place] ** 2 - other[:, place] ** 2).sum(axis=1)
    np.testing.assert_allclose(change, expected, rtol=1e-7, atol=1e-6)


def regression():
    sigma = scale("sigma")
    pm.Normal("y", pm.Normal("a") + X @ pm.Normal("b", shape=3), sigma, observed=ROWS)


def product_of_two():
    """Each is the other's scale: one of them may be a site, a circle may not be."""
    w, z = pm.Normal("w", shape=5), pm.Normal("z", shape=5)
    pm.Normal("y", w * z, NOISE, observed=ROWS[:5])


def no_hierarchy():
    pm.Beta("p", 2, 2)


@named([regression, no_hierarchy])
def test_no_site_where_no_scale_depends_on_another(function, caplog):
    with caplog.at_level("INFO"):
        assert not find_coordinates(FlatSpace.of(build(function)))
    assert "coordinates=" not in caplog.text


def test_no_circle():
    coordinates = find_coordinates(FlatSpace.of(build(product_of_two)))
    assert len(coordinates.sites) == 1


def test_sites_are_named_in_the_log(caplog):
    with caplog.at_level("INFO"):
        find_coordinates(FlatSpace.of(build(nested)))
    assert "coordinates='auto' adapts region, county to the scales in the model" in caplog.text


def test_parents_come_first():
    sites = find_coordinates(FlatSpace.of(build(nested))).sites
    assert [site.name for site in sites] == ["region", "county"]


def test_variables_of_another_group_make_no_site():
    model = build(centred)
    whole = FlatSpace.of(model)
    some = FlatSpace(model, {name: whole.ordering[name] for name in ("mu", "theta")})
    assert not find_coordinates(some)


def test_data_of_a_scale_are_those_of_the_fit():
    with pm.Model() as model:
        x = pm.Data("x", np.ones(3))
        pm.Normal("theta", 0.0, pt.exp(x * pm.Normal("mu")), shape=3)
    coordinates, points = find_coordinates(FlatSpace.of(model)), np.ones((1, 4))
    pseudo = starting_coordinates(coordinates, points)[1]
    before = coordinates.of(pseudo).to_unconstrained(points)
    with model:
        pm.set_data({"x": np.full(3, 2.0)})
    np.testing.assert_array_equal(coordinates.of(pseudo).to_unconstrained(points)[0], before[0])


def weaker_in(caplog):
    """What the log says of sites that are weaker than they might be."""
    return "".join(m for m in caplog.messages if "adapts only in part" in m)


def scan_of_noise():
    """A recursion along given noise; the scan has other inputs, too."""
    rho, start = pm.Normal("rho", shape=2), pm.Normal("start")
    noise = pm.Normal("noise", shape=6)
    x = pytensor.scan(
        lambda e, before, rho: rho[0] * before + rho[1] * e,
        sequences=[noise[:5]],
        outputs_info=[start],
        non_sequences=[rho],
        return_updates=False,
    )
    pm.Normal("y", x, 1, observed=np.zeros(5))


def scan_of_draws():
    """A family whose draws are made one after the other."""

    def step(before, rho):
        x = pm.Normal.dist(rho * before, 1)
        return x, pm.pytensorf.collect_default_updates([x])

    def dist(rho, start, size):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of updates, which PyMC needs
            return pytensor.scan(step, outputs_info=[start], non_sequences=[rho], n_steps=5)[0]

    parameters = pm.Normal("rho"), pm.Normal("start")
    pm.CustomDist("noise", *parameters, dist=dist, shape=(5,))


@pytest.mark.parametrize("function", [scan_of_noise, scan_of_draws])
def test_a_chain_in_a_scan_is_named(function, caplog):
    with caplog.at_level("INFO"):
        assert not find_coordinates(FlatSpace.of(build(function)))
    assert "only in part: noise (no chain is found in a scan" in weaker_in(caplog)
    assert "rho" not in weaker_in(caplog)


def test_a_covariance_is_no_chain(caplog):
    """PyMC draws the family by a scan."""
    with pm.Model() as model:
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=1, sd_dist=pm.Exponential.dist(1, shape=2))
        pm.MvNormal("y", chol=chol, observed=np.zeros((3, 2)))
    with caplog.at_level("INFO"):
        find_coordinates(FlatSpace.of(model))
    assert "chain" not in caplog.text


def test_too_large_a_matrix_is_left_to_its_elements(monkeypatch, caplog):
    monkeypatch.setattr(find, "LARGEST_MATRIX", 4)
    with caplog.at_level("INFO"):
        coordinates = find_coordinates(FlatSpace.of(build(weighted_basis)))
    # the coefficients have scales of their own
    assert type(coordinates.sites[0].form) is Elementwise
    assert "beta (by element: its matrix, 10 x 3, is too large" in weaker_in(caplog)


@pytest.mark.parametrize("function", [latent_process, marginal])
def test_a_process_too_large_for_a_basis_has_the_scales_of_its_elements(
    function, monkeypatch, caplog
):
    """By columns of the root where that multiplies noise, else marginal standard deviations."""
    monkeypatch.setattr(find, "LARGEST_MATRIX", 4)
    monkeypatch.setattr(find, "LARGEST_BASIS", 4)
    with caplog.at_level("INFO"):
        coordinates, pseudo, points, _ = start(function)
    name = FOUND[function][0]
    assert type(site_of(coordinates, name).form) is Elementwise
    assert "by element: its matrix, 5 x 5, is too large" in weaker_in(caplog)
    scales = coordinates.by_site(coordinates.evaluate("coordinates", points, pseudo)[2:])[0][1]
    kernel = pm.gp.cov.Matern52(1, ls=np.exp(points[0, 0]))(TIME).eval() + 1e-6 * np.eye(5)
    root = np.linalg.cholesky(kernel)
    expected = np.sqrt((root**2).sum(axis=0 if function is latent_process else 1))
    np.testing.assert_allclose(scales[0], expected, rtol=1e-5)
    y, _ = coordinates.of(pseudo).from_unconstrained(points)
    np.testing.assert_allclose(coordinates.of(pseudo).to_unconstrained(y)[0], points, atol=1e-9)


@pytest.mark.parametrize("function", [field, field_of_unknown_scale, autoregressive_field])
def test_a_field_of_too_many_nodes_has_the_scales_given_neighbours(function, monkeypatch, caplog):
    monkeypatch.setattr(find, "LARGEST_BASIS", 4)
    with caplog.at_level("INFO"):
        coordinates, pseudo, points, _ = start(function)
    site = site_of(coordinates, "phi")
    assert type(site.form) is Elementwise
    assert "phi (by element: its graph has 5 nodes" in weaker_in(caplog)
    given = coordinates.by_site(coordinates.evaluate("coordinates", points, pseudo)[2:])
    scales = given[coordinates.sites.index(site)][1]
    tau = np.exp(points[:, coordinates.space.ordering["tau_log__"][1]])
    expected = DEGREES**-0.5 * (tau if function is not autoregressive_field else tau**-0.5)
    np.testing.assert_allclose(scales, expected)


def circle():
    z = pm.Normal("z", shape=5)
    w = pm.Normal("w", 0.0, pm.math.exp(z), shape=5)
    pm.Normal("y", w * z, NOISE, observed=ROWS[:5])


def walk_of_vectors():
    factor = np.eye(2) * 0.5
    x = pm.MvGaussianRandomWalk(
        "x",
        mu=np.zeros(2),
        chol=factor,
        init_dist=pm.MvNormal.dist(np.zeros(2), np.eye(2)),
        shape=(5, 2),
    )
    pm.Normal("y", pm.Normal("mu") + scale() * x, NOISE, observed=ROWS.reshape(5, 2))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (walk_of_vectors, "x (its steps or first values have no known location and scale"),
        (circle, "w (it scales effects that its own scale depends on"),
    ],
)
def test_what_is_not_recognised_is_named_with_the_reason(function, reason, caplog):
    model = build(function)
    with caplog.at_level("INFO"):
        find_coordinates(FlatSpace.of(model))
    assert reason in weaker_in(caplog)
    caplog.clear()
    with caplog.at_level("INFO"):  # of a second fit, too
        find_coordinates(FlatSpace.of(model))
    assert weaker_in(caplog).count(reason) == 1


@pytest.mark.parametrize("function", [nested, product_of_two])
def test_nothing_is_said_where_nothing_is_missing(function, caplog):
    with caplog.at_level("INFO"):
        find_coordinates(FlatSpace.of(build(function)))
    assert not weaker_in(caplog)


@pytest.mark.parametrize(("function", "form"), [(latent_process, Rotated), (marginal, Whitened)])
def test_too_large_a_process_keeps_the_basis_that_it_has_at_the_start(function, form, monkeypatch):
    """There its covariance is exactly the model's; anywhere, the map is invertible."""
    monkeypatch.setattr(find, "LARGEST_MATRIX", 4)
    coordinates, pseudo, points, _ = start(function)
    site = site_of(coordinates, FOUND[function][0])
    initial = coordinates.space.model.initial_point(0)
    points[0] = np.concatenate([np.ravel(initial[v]) for v in coordinates.space.ordering])
    scales = coordinates.by_site(coordinates.evaluate("coordinates", points, pseudo)[2:])[0][1]
    kernel = pm.gp.cov.Matern52(1, ls=np.exp(points[0, 0]))(TIME).eval() + 1e-6 * np.eye(5)
    np.testing.assert_allclose(scales[0], np.sqrt(np.linalg.eigvalsh(kernel)[::-1]), rtol=1e-6)
    y, backward = coordinates.of(pseudo).from_unconstrained(points)
    z, forward = coordinates.of(pseudo).to_unconstrained(y)
    np.testing.assert_allclose(z, points, atol=1e-8)
    np.testing.assert_allclose(forward, -backward, atol=1e-8)
    steps = 1e-6 * np.eye(y.shape[1])
    up, down = (coordinates.of(pseudo).to_unconstrained(y[1] + s * steps)[0] for s in (1, -1))
    np.testing.assert_allclose(
        forward[1], np.linalg.slogdet(up - down)[1] - 6 * np.log(2e-6), atol=1e-4
    )
    assert type(site.form) is form


def test_a_tall_basis_is_observed_in_as_many_combinations_of_rows_as_it_has_columns(monkeypatch):
    """Those of its QR decomposition; Gaussian data in them leave a standard Gaussian."""
    monkeypatch.setattr(find, "LARGEST_MATRIX", 9)  # 3 x 3, of the 10 x 3
    coordinates, pseudo, points, rng = start(weighted_standard_basis)
    site = site_of(coordinates, "beta")
    assert (type(site.form), site.form.n_pseudo) == (Scaled, 3)
    data = pseudo, np.linalg.qr(X)[0].T @ ROWS, np.full(3, NOISE**-2)
    expect_standard_gaussian(coordinates, site, data, points, rng)


def test_effects_far_out_start_within_reach():
    with pm.Model() as model:
        pm.Normal("theta", 0.0, pt.exp(-50 * pm.HalfNormal("tau")), shape=3)
    coordinates = find_coordinates(FlatSpace.of(model))
    means, pseudo = starting_coordinates(coordinates, np.ones((2, 4)))
    assert np.abs(means[:, 1:]).max() == find.FARTHEST
    nearer, _ = starting_coordinates(coordinates, np.ones((2, 4)), find.TYPICAL)
    assert np.abs(nearer[:, 1:]).max() == find.TYPICAL
    np.testing.assert_array_equal(nearer[:, 0], 1)  # what is no effect stays
    assert np.isfinite(pseudo["log_precisions"]).all()


def test_without_sites_coordinates_are_unconstrained_space():
    coordinates = CoordinateMap(FlatSpace.of(build(regression)))
    points = np.ones((2, 5))
    assert starting_coordinates(coordinates, points) == (points, {})
    np.testing.assert_array_equal(coordinates.of({}).to_unconstrained(points)[0], points)


@pytest.mark.parametrize(
    ("function", "labels"),
    [
        (with_dims, ["theta[0]", "theta[1]"]),
        (weighted_basis, ["beta, row 0", "beta, row 1"]),
        (walk, ["x[0]", "x[1]"]),
        (cumulative_sum, ["z, step 0", "z, step 1"]),
        (field, ["phi, direction 0", "phi, direction 1"]),
    ],
)
def test_pseudo_observations_are_labelled_by_what_they_observe(function, labels):
    coordinates = find_coordinates(FlatSpace.of(build(function)))
    assert list(coordinates.labels[:2]) == labels
    assert len(coordinates.labels) == coordinates.n_pseudo


def test_too_large_a_basis_is_multiplied_once(monkeypatch):
    """Scales in the basis of the start, from products of constants and not from one at each point.

    They are those by the definition, diag(U^T G V) of the factor G.
    """
    monkeypatch.setattr(find, "LARGEST_MATRIX", 4)
    coordinates, pseudo, points, _ = start(weighted_standard_basis)
    assert type(site_of(coordinates, "beta").form) is Rotated
    scales = coordinates.by_site(coordinates.evaluate("coordinates", points, pseudo)[2:])[0][1]
    of_columns = np.exp(points[:, coordinates.space.ordering["tau_log__"][1]]) ** np.arange(3)
    at_start = np.exp(coordinates.space.model.initial_point(0)["tau_log__"]) ** np.arange(3)
    left, _, right = np.linalg.svd(X * at_start, full_matrices=False)
    expected = [np.diagonal(left.T @ (X * one) @ right.T) for one in of_columns]
    np.testing.assert_allclose(scales, expected, rtol=1e-5)
    products = [
        node
        for node in toposort(coordinates.sites[0].given)
        if isinstance(getattr(node.op, "core_op", node.op), Dot)
        and not any(1 in i.type.shape for i in node.inputs)
    ]
    assert not products
