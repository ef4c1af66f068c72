"""What is behind a poor fit: found where it is, and nowhere else."""

import numpy as np
import pymc as pm
import pytest
import scipy

import pymc_isomix as pmi
from pymc_isomix.fitting.record import History
from pymc_isomix.results import causes

YEARS = np.arange(20)
COUNTS = np.random.default_rng(1).poisson(np.where(YEARS < 8, 6.0, 1.0))


def points_of(model, scale=1.0, n=200):
    """Draws around zero, and the gradient there."""
    approx = pmi.IsotropicMixture(n_components=1, model=model, random_seed=1)
    compiled = approx.compiled_model()
    points = scale * np.random.default_rng(1).normal(size=(n, approx.space.n_dim))
    return compiled, points, compiled.log_density_and_gradient(points)[1]


def switch_point(step):
    with pm.Model() as model:
        when = pm.Uniform("when", 0, 20)
        early, late = pm.Exponential("early", 1), pm.Exponential("late", 1)
        pm.Poisson("y", step(when, early, late), observed=COUNTS)
    return model


def jumping(when, early, late):
    return pm.math.switch(when >= YEARS, early, late)


def smooth(when, early, late):
    share = pm.math.sigmoid((when - YEARS) / 0.5)
    return share * early + (1 - share) * late


def test_a_jump_is_found_and_named():
    compiled, points, _ = points_of(switch_point(jumping))
    found = causes.find_jumps(compiled, points)
    assert [name for name, _ in found] == ["when"]
    # as high as a step in one of the years, by values alone
    ((_, size),) = found
    rates = np.exp(points[:, 1:3])
    likelihood = COUNTS[:, None] * np.log(rates[:, 0] / rates[:, 1]) - rates[:, 0] + rates[:, 1]
    assert 0.5 < size < np.abs(likelihood).max() * 1.5


def kinked():
    with pm.Model() as model:
        x = pm.Laplace("x", 0.0, 0.1, shape=3)
        pm.Normal("y", pm.math.abs(x.sum()), 0.01, observed=0.3)
    return model


def walled():
    with pm.Model() as model:
        x = pm.Normal("x", shape=2)
        pm.Potential("wall", pm.math.switch(x[0] > 0.1, 0.0, -np.inf))
    return model


def steep():
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 3.0)
        pm.Normal("x", 0.0, pm.math.exp(v), shape=3)
    return model


@pytest.mark.parametrize("model", [lambda: switch_point(smooth), kinked, walled, steep])
def test_no_jump_where_there_is_none(model):
    """Smooth steps, kinks, edges of the support and funnels are none."""
    compiled, points, _ = points_of(model())
    assert causes.find_jumps(compiled, points) == ()


def sum_of_two(prior):
    with pm.Model() as model:
        a, b = prior("a"), prior("b")
        pm.Normal("c")
        pm.Normal("y", a + b, 1.0, observed=np.ones(3))
    return model


@pytest.mark.parametrize(
    ("prior", "scale", "expected"),
    [
        (pm.Flat, 1.0, ("a - b", "b - a")),
        (pm.Flat, 1e6, ("a - b", "b - a")),
        (pm.Normal, 1.0, ("",)),
        (lambda name: pm.Normal(name, 0, 1e3), 1e3, ("",)),
    ],
)
def test_a_direction_without_end(prior, scale, expected):
    assert causes.flat_direction(*points_of(sum_of_two(prior), scale)) in expected


def test_a_variable_without_any_density():
    with pm.Model() as model:
        pm.Normal("x")
        pm.Flat("nowhere")
    assert causes.flat_direction(*points_of(model)) == "nowhere"


def test_heavy_tails_end():
    with pm.Model() as model:
        pm.Cauchy("x", 0, 1, shape=2)
    assert causes.flat_direction(*points_of(model, 1e3)) == ""


def test_an_improper_posterior_is_bad_and_says_along_what():
    """Of components that have run off until their covariance has no root."""
    params = {
        "means": np.array([[1e12, -1e12, 0.0]]),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.array([[1e12, 0, 0], [-1e12, 1e-3, 0], [0, 0, 1.0]]),
    }
    approx = pmi.IsotropicMixture(params=params, model=sum_of_two(pm.Flat), random_seed=1)
    approx.history = History(stop_reason="converged")
    report = approx.diagnostics(progressbar=False)
    assert report.verdict == "bad"
    assert "is flat along" in report.advice
    assert "proper, narrower priors" in report.advice
    assert approx.sample(20, transitions=2).posterior["a"].shape == (1, 20)


@pytest.mark.filterwarnings("ignore:total_size not provided")
@pytest.mark.parametrize(("total_size", "found"), [(None, ("y",)), (60, ())])
def test_a_minibatch_without_total_size(total_size, found):
    rows = np.random.default_rng(1).normal(size=60)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1.0, observed=pm.Minibatch(rows, batch_size=5), total_size=total_size)
        pm.Normal("other", mu, 1.0, observed=rows)
    assert causes.without_total_size(model) == found


@pytest.mark.filterwarnings("ignore:total_size not provided")
def test_advice_of_a_forgotten_total_size():
    rows = np.random.default_rng(1).normal(size=60)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1.0, observed=pm.Minibatch(rows, batch_size=5))
    approx = pmi.IsotropicMixture(n_components=1, model=model, random_seed=1)
    approx.history = History(stop_reason="converged")
    advice = approx.diagnostics(200, n_probes=0, progressbar=False).advice
    assert "Pass `total_size=`, the number of rows of the full data, to y" in advice
    assert "n_components" not in advice
    # Gaussians take all the data
    approx.history.elbo, approx.history.phase = np.zeros(5), np.array(["gaussian"] * 5)
    advice = approx.diagnostics(200, n_probes=0, progressbar=False).advice
    assert "total_size" not in advice


def test_what_affine_coordinates_leave_out(caplog):
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 3.0)
        pm.Normal("x", 0.0, pm.math.exp(v / 2), shape=3)
    approx = pmi.IsotropicMixture(
        params={
            "means": np.zeros((1, 4)),
            "log_variances": np.zeros(1),
            "log_weights": np.zeros(1),
            "metric": np.ones(4),
        },
        model=model,
        random_seed=1,
    )
    approx.history = History(stop_reason="converged", settings={"coordinates": "affine"})
    with caplog.at_level("INFO", "pymc_isomix"):
        report = approx.diagnostics(n_probes=0, progressbar=False)
    assert report.verdict != "good"
    assert '`IsoMix(coordinates="auto")`, which adapts x' in report.advice
    assert "sample_nuts" not in report.advice  # which would end wrong in these coordinates
    assert "coordinates='auto'" not in caplog.text  # they are not in use


@pytest.mark.parametrize(("shape", "found"), [(0.01, ["rate"]), (2.0, [])])
def test_a_vague_prior_is_named(shape, found):
    with pm.Model() as model:
        pm.Normal("wide", 0, 1000)  # of a variable without bounds, any unit will do
        pm.Gamma("rate", shape, shape)
    compiled, points, gradient = points_of(model)
    # of the logarithm of Gamma(a, a): trigamma(a) is its variance, about 1 / a^2 for a small a
    points[:, 1] *= np.sqrt(scipy.special.polygamma(1, shape))
    vague = causes.find_causes(compiled, points, gradient, points).vague
    assert [name for name, _ in vague] == found
    assert all(90 < sd < 110 for _, sd in vague)


def test_advice_of_a_vague_prior():
    with pm.Model() as model:
        pm.Gamma("rate", 0.01, 0.01)
    approx = pmi.IsotropicMixture(n_components=1, start_sigma=30.0, model=model, random_seed=1)
    approx.history = History(stop_reason="converged")
    report = approx.diagnostics(500, n_probes=0, transitions=0, progressbar=False)
    assert report.verdict != "good"
    assert "Give rate a prior that rules out implausible values" in report.advice


# The advice, followed


@pytest.mark.slow
def test_a_smooth_step_mends_a_jump():
    jumps = pmi.IsoMix(model=switch_point(jumping), random_seed=1).fit(progressbar=False)
    report = jumps.diagnostics(progressbar=False)
    assert report.verdict != "good"
    assert "by a smooth step" in report.advice
    mended = pmi.IsoMix(model=switch_point(smooth), random_seed=1).fit(progressbar=False)
    report = mended.diagnostics(progressbar=False)
    assert report.verdict == "good", report.advice


@pytest.mark.slow
def test_the_model_s_own_scales_mend_a_funnel():
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 3.0)
        pm.Normal("x", 0.0, pm.math.exp(v / 2), shape=9)
    fits = {}
    for coordinates in ("affine", "auto"):
        inference = pmi.IsoMix(coordinates=coordinates, model=model, random_seed=1)
        fits[coordinates] = inference.fit(progressbar=False)
    report = fits["affine"].diagnostics(progressbar=False)
    assert report.verdict != "good"
    assert 'coordinates="auto"' in report.advice
    assert fits["auto"].diagnostics(progressbar=False).verdict == "good"
    sd = fits["auto"].sample(4000, random_seed=1).posterior["v"].std().item()
    assert sd == pytest.approx(3.0, rel=0.1)
