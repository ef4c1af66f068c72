"""Sites of predictors: which are found, and that they are the Gaussian conditionals."""

import numpy as np
import pymc as pm
import pytest

from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites import matrix_regression, predictors
from pymc_isomix.sites.coordinates import Coordinates
from pymc_isomix.sites.find import find_coordinates
from pymc_isomix.sites.matrices import Matrix, Predictor, ScaledPredictor

RNG = np.random.default_rng(0)
TIME = np.linspace(0, 2, 7)
CURVE = 1 + 2 * np.exp(-TIME) + 0.2 * RNG.normal(size=7)
PERSON, ITEM = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
RATING = RNG.normal(size=12)
GROUP = np.array([0, 0, 1, 1, 2, 2, 2])


def decay():
    level, height = pm.Normal("level", 1, 2), pm.Normal("height", 0, 3)
    rate = pm.LogNormal("rate", 0, 0.5)
    pm.Normal("y", level + height * np.exp(-1.0 * TIME) ** rate, 0.2, observed=CURVE)


def noise():
    """Exact whatever the scale of the noise is."""
    level, rate = pm.Normal("level", 1, 2), pm.LogNormal("rate", 0, 0.5)
    scale = pm.HalfNormal("scale") * np.linspace(0.5, 1, 7)
    pm.Normal("y", level + np.exp(-1.0 * TIME) ** rate, scale, observed=CURVE)


def abilities():
    ability = pm.Normal("ability", shape=3)
    discrimination, ease = pm.LogNormal("discrimination", shape=4), pm.Normal("ease", shape=4)
    mean = discrimination[ITEM] * ability[PERSON] + ease[ITEM]
    pm.Normal("y", mean, 0.5, observed=RATING)


def unequal():
    """The last person has fewer ratings than the others."""
    ability = pm.Normal("ability", 0.3, pm.HalfNormal("spread"), shape=3)
    discrimination = pm.LogNormal("discrimination", shape=4)
    mean = (discrimination[ITEM] * ability[PERSON])[:10]
    pm.Normal("y", mean, 0.5, observed=RATING[:10])


def potential():
    slope, power = pm.Normal("slope", 1, 2), pm.LogNormal("power")
    pm.Potential("fit", -2 * ((CURVE - slope * TIME**power) ** 2).sum())


def root():
    """A factor of the covariance of two effects, which varies."""
    spread, slant = pm.HalfNormal("spread", shape=2), pm.Normal("slant")
    return pm.math.stack([[spread[0], 0.0], [slant, spread[1]]])


def growth():
    """Rows of a multivariate normal variable; each wave has a noise of its own."""
    effect = pm.MvNormal("effect", pm.Normal("mean", shape=2), chol=root(), shape=(4, 2))
    mean = effect[:, :1] + effect[:, 1:] * np.arange(3)
    pm.Normal("y", mean, pm.HalfNormal("noise", shape=3), observed=RATING.reshape(4, 3))


def growth_alike():
    """More waves than effects, with a common noise: combinations of rows do."""
    effect = pm.MvNormal("effect", pm.Normal("mean", shape=2), chol=root(), shape=(4, 2))
    mean = effect[:, :1] + effect[:, 1:] * np.arange(3)
    pm.Normal("y", mean, pm.HalfNormal("noise"), observed=RATING.reshape(4, 3))


def columns_of_groups():
    """Groups are the last axis, and the prior of the noise is not standard."""
    effect = root() @ pm.Normal("effect", 0.5, 2, shape=(2, 4))
    at = np.array([0, 0, 0, 1, 1, 1, 2])
    pm.Normal("y", effect[0, at] + effect[1, at] * TIME, pm.HalfNormal("noise"), observed=CURVE)


def factors():
    """Scores that are correlated in the prior, times loadings."""
    score = pm.MvNormal("score", np.zeros(2), chol=root(), shape=(4, 2))
    pm.Normal("y", score @ pm.Normal("loading", shape=(2, 3)), 0.5, observed=RATING.reshape(4, 3))


def correlated_slopes():
    """More data than effects in a group, fewer in another, and none in the last."""
    effect = pm.Normal("mu", shape=2) + pm.Normal("effect", shape=(4, 2)) @ root().T
    at = np.array([0, 0, 0, 1, 1, 1, 2])
    mean = effect[at, 0] + effect[at, 1] * TIME
    pm.Normal("y", mean, pm.HalfNormal("noise"), observed=CURVE)


def crossed(factor=1.0):
    """Two families of effects, one centred, and an intercept that has a prior of its own."""
    of_person = pm.HalfNormal("spread") * pm.Normal("person", shape=3)
    of_item = pm.Normal("item", 0.5, pm.HalfNormal("spread_of_items"), shape=4)
    mean = pm.Normal("mean", 1, 3) + of_person[PERSON] + factor * of_item[ITEM]
    pm.Normal("y", mean, pm.HalfNormal("noise"), observed=RATING)


EXACT = {
    crossed: {"mean", "person", "item"},
    growth: {"effect"},
    growth_alike: {"effect"},
    columns_of_groups: {"effect"},
    factors: {"score"},
    correlated_slopes: {"effect"},
    decay: {"level", "height"},
    noise: {"level"},
    abilities: {"ability", "ease"},
    unequal: {"ability"},
    potential: {"slope"},
}


def found(build):
    with pm.Model() as model:
        build()
    return FlatSpace.of(model), find_coordinates(FlatSpace.of(model), log=False)


@pytest.fixture(scope="module", params=EXACT, ids=lambda build: build.__name__)
def exact(request):
    """Space, coordinates after two regressions on draws, and the names of the site."""
    space, coordinates = found(request.param)
    compiled = CompiledModel(space, "float64")
    rng = np.random.default_rng(1)
    parameters = {name: np.zeros(n) for name, (n,) in coordinates.parameter_shapes.items()}
    [site] = coordinates.sites
    for _ in range(6):
        points = rng.normal(size=(40, space.n_dim))
        given = coordinates.evaluate("given", points, parameters)
        place = coordinates.place_of(site)
        own = list(parameters.values())
        learned = site.form.learn(points[:, place], None, given, own, 1.0)
        parameters = dict(zip(parameters, learned, strict=True))
    return compiled, Coordinates(coordinates, parameters), EXACT[request.param]


def test_is_found(exact):
    _, coordinates, names = exact
    [site] = coordinates.map.sites
    assert isinstance(site.form, Predictor | ScaledPredictor)
    assert set(site.variables) == names


def test_map_has_an_inverse_and_its_determinant(exact):
    _, coordinates, _ = exact
    y = RNG.normal(size=(5, coordinates.space.n_dim))
    z, log_determinant = coordinates.to_unconstrained(y)
    again, backward = coordinates.from_unconstrained(z)
    np.testing.assert_allclose(again, y, atol=1e-8)
    np.testing.assert_allclose(backward, -log_determinant, atol=1e-8)
    step = 1e-6 * np.eye(y.shape[1])
    moved = coordinates.to_unconstrained(np.concatenate([y[0] + step, y[0] - step]))[0]
    jacobian = (moved[: len(step)] - moved[len(step) :]) / 2e-6
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_determinant[0], atol=1e-6)


def test_is_standard_normal_given_the_rest_where_data_are_gaussian(exact):
    compiled, coordinates, _ = exact
    [site] = coordinates.map.sites
    place = coordinates.map.place_of(site)
    y = np.repeat(RNG.normal(size=(1, coordinates.space.n_dim)), 20, axis=0)
    y[:, place] = RNG.normal(size=(20, site.form.n_dim))
    z, log_determinant = coordinates.to_unconstrained(y)
    log_p = compiled.log_density(z) + log_determinant
    normal = -0.5 * (y[:, place] ** 2).sum(axis=1)
    np.testing.assert_allclose(log_p - normal, np.full(20, (log_p - normal)[0]), atol=1e-6)


def test_an_evaluation_has_what_is_learned_from(exact):
    _, coordinates, _ = exact
    y = RNG.normal(size=(3, coordinates.space.n_dim))
    compiled = CompiledModel(coordinates.space, "float64", coordinates=coordinates)
    found = compiled.evaluate_to_learn(y)[2]
    expected = coordinates.map.evaluate("given", y, coordinates.parameters)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.broadcast_to(one, other.shape), other, rtol=1e-8, atol=1e-8)


def test_no_number_where_rounding_makes_the_precision_singular():
    factor = 1e9 * np.array([[[[1.0, 1.0], [1.0, 1.0 + 1e-12]]]])
    location = value = log_precision = np.zeros((1, 1, 2))
    own = log_precision[0], value[0]
    conditional = matrix_regression.Conditional.of(location, factor, *own)
    assert np.isnan(conditional.coordinates(np.zeros((1, 1, 2)))).all()


def linear():
    pm.Normal("y", pm.Normal("a") + pm.Normal("b") * TIME, pm.HalfNormal("s"), observed=CURVE)


def varying_intercepts():
    effect = pm.HalfNormal("tau") * pm.Normal("effect", shape=3)
    pm.Normal("y", pm.Normal("mu") + effect[GROUP] + pm.Normal("b") * TIME, 1, observed=CURVE)


def log_link():
    pm.Poisson("y", pm.math.exp(pm.Normal("a") + pm.Normal("b") * TIME), observed=[1] * 7)


def separate_effects():
    """Each datum sees one of the correlated effects, as a matrix site does."""
    effect = pm.Normal("effect", shape=(4, 2)) @ root().T
    pm.Normal("y", effect[[0, 0, 1, 1, 2, 3, 3], [0, 1, 0, 1, 0, 0, 1]], 1, observed=CURVE)


def hazard():
    """What is nonlinear in the shape is beside the rate in the log density, not in an argument."""
    rate, shape = pm.Normal("a") + pm.Normal("b") * TIME, pm.LogNormal("shape")
    log_hazard = pm.math.log(shape) + (shape - 1) * np.log(TIME + 1) + rate
    pm.Potential("y", (log_hazard - pm.math.exp(rate) * (TIME + 1) ** shape).sum())


def counts():
    """The likelihood of rows need not be Gaussian."""
    of_person = pm.Normal("person", 0, pm.HalfNormal("spread"), shape=3)
    of_item = pm.HalfNormal("spread_of_items") * pm.Normal("item", shape=4)
    pm.Poisson("y", pm.math.exp(of_person[PERSON] + of_item[ITEM]), observed=np.arange(12))


def varying_design():
    crossed(factor=pm.LogNormal("factor", shape=12))


def unseen():
    """No datum depends on the second family."""
    of_person = pm.Normal("person", 0, pm.HalfNormal("spread"), shape=3)
    pm.Normal("item", 0, pm.HalfNormal("spread_of_items"), shape=4)
    pm.Poisson("y", pm.math.exp(of_person[PERSON]), observed=np.arange(12))


def only_many_levels():
    of_person = pm.Normal("person", 0, pm.HalfNormal("spread"), shape=12)
    of_row = pm.HalfNormal("spread_of_rows") * pm.Normal("row", shape=12)
    pm.Poisson("y", pm.math.exp(of_person + of_row), observed=np.arange(12))


@pytest.mark.parametrize(
    ("build", "n_joint"),
    [(counts, 1), (varying_design, 0), (unseen, 0), (only_many_levels, 0)],
)
def test_crossed_effects_with_few_levels_are_joint(build, n_joint):
    _, coordinates = found(build)
    joint = [site for site in coordinates.sites if isinstance(site.form, ScaledPredictor)]
    assert len(joint) == n_joint


@pytest.mark.parametrize("build", [linear, varying_intercepts, log_link, separate_effects, hazard])
def test_nothing_is_found_where_all_is_linear_in_effects(build):
    _, coordinates = found(build)
    assert not any(isinstance(site.form, Predictor) for site in coordinates.sites)


def test_effects_on_very_many_rows_stay_a_matrix(monkeypatch):
    monkeypatch.setattr(predictors, "MOST_CELLS", 10)
    _, coordinates = found(growth)
    assert [type(site.form) for site in coordinates.sites] == [Matrix]


def test_rows_learn_gaussian_data_at_once():
    rng = np.random.default_rng(2)
    value, precision = rng.normal(size=(2, 5)), np.exp(rng.normal(size=(2, 5)))
    theta = value + rng.normal(size=(30, 2, 5)) / np.sqrt(precision)
    own = np.log(precision) + rng.normal(size=(2, 5)), value + 0.5 / np.sqrt(precision)
    log_precision, learned = matrix_regression.learn_rows(
        theta, precision * (value - theta), own, 1.0
    )
    np.testing.assert_allclose(log_precision, np.log(precision), rtol=1e-10)
    np.testing.assert_allclose(learned, value, rtol=1e-10)


def test_rows_without_data_keep_their_own():
    own = np.array([[0.3, 0.3]]), np.array([[1.0, 1.0]])
    theta = np.stack([np.zeros(9), np.linspace(-1, 1, 9)], axis=1)[:, None]
    log_precision, learned = matrix_regression.learn_rows(theta, -theta, own, 1.0)
    np.testing.assert_allclose(log_precision[0], [0.3, 0.0], atol=1e-10)
    np.testing.assert_allclose(learned[0], [1.0, 0.0], atol=1e-10)
