"""NUTS in the approximation's coordinates: exact draws under the model's own names."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import pymc_isomix as pmi
from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.sampling.transported import seen_from_u

ROWS = np.random.default_rng(1).normal(1.0, 2.0, size=20)
QUIET = {"progressbar": False, "compute_convergence_checks": False, "cores": 1}
LOWER = np.array([[0.5, 0.0], [0.1, 0.2]])


def build(minibatch=False):
    with pm.Model(coords={"row": range(20)}) as model:
        mu = pm.Normal("mu", 0.0, 2.0)
        sigma = pm.HalfNormal("sigma", 3.0)
        pm.Deterministic("ratio", mu / sigma)
        if minibatch:
            batch = pm.Minibatch(ROWS, batch_size=5)
            pm.Normal("y", mu, sigma, observed=batch, total_size=20)
        else:
            pm.Normal("y", mu, sigma, observed=ROWS, dims="row")
    return model


def approximation(model, metric=LOWER):
    params = {
        "means": np.array([[1.0, 0.6], [1.1, 0.5]]),
        "log_variances": np.zeros(2),
        "log_weights": np.zeros(2),
        "metric": metric,
    }
    return pmi.IsotropicMixture(params=params, model=model, random_seed=1)


def log_joint(mu, log_sigma):
    sigma = np.exp(log_sigma)
    prior = stats.norm(0, 2).logpdf(mu) + stats.halfnorm(0, 3).logpdf(sigma) + log_sigma
    return prior + stats.norm.logpdf(ROWS[:, None, None], mu, sigma).sum(axis=0)


@pytest.mark.parametrize("metric", [LOWER, np.array([0.5, 0.2])])
@pytest.mark.parametrize("minibatch", [False, True])
def test_the_model_from_u(metric, minibatch):
    approx = approximation(build(minibatch), metric)
    model = seen_from_u(approx.compiled_model(), approx.mixture)
    assert [rv.name for rv in model.free_RVs] == ["coordinates_of_the_fit"]
    root = approx.mixture.root + 0.0
    weights = approx.mixture.weights
    offsets = approx.mixture.means - approx.mixture.mean
    covariance = root @ root.T + (weights[:, None] * offsets).T @ offsets
    if metric.ndim == 1:
        covariance = np.diag(np.diag(covariance))
    at = np.array([0.3, -0.8])
    y = approx.mixture.mean + np.linalg.cholesky(covariance) @ at
    log_p = model.compile_logp(mode=CHEAP)({"coordinates_of_the_fit": at})
    np.testing.assert_allclose(log_p, log_joint(*y).item(), rtol=1e-8)


def sampled(nuts_sampler, draws=300, **options):
    approx = approximation(build())
    return approx.sample_nuts(
        draws,
        tune=200,
        chains=2,
        nuts_sampler=nuts_sampler,
        random_seed=1,
        **QUIET,
        **options,
    )


@pytest.fixture(scope="module")
def by_pymc():
    return sampled("pymc", compile_kwargs={"mode": CHEAP})


def test_draws_come_back_under_the_model_s_names(by_pymc):
    posterior = by_pymc.posterior
    assert set(posterior.data_vars) == {"mu", "sigma", "ratio"}
    assert dict(posterior.sizes) == {"chain": 2, "draw": 300}
    np.testing.assert_allclose(posterior["ratio"], posterior["mu"] / posterior["sigma"])
    assert by_pymc.observed_data["y"].dims == ("row",)
    statistics = by_pymc.sample_stats
    assert {"lp", "diverging", "energy", "acceptance_rate"} <= set(statistics.data_vars)
    expected = log_joint(posterior["mu"].values, np.log(posterior["sigma"].values))
    np.testing.assert_allclose(statistics["lp"], expected, rtol=1e-8)


def exact_moments():
    mu, log_sigma = np.meshgrid(np.linspace(-3, 5, 301), np.linspace(-0.5, 2, 301), indexing="ij")
    log_p = log_joint(mu, log_sigma)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = (p * mu).sum()
    return mean, np.sqrt((p * (mu - mean) ** 2).sum())


def agrees_with_the_posterior(posterior):
    mean, sd = exact_moments()
    mu = posterior["mu"].values
    # at least a third of the draws are effective
    assert mu.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(mu.size / 3))
    assert mu.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * mu.size / 3))


def test_draws_are_exact(by_pymc):
    agrees_with_the_posterior(by_pymc.posterior)


@pytest.mark.slow
@pytest.mark.parametrize(
    "nuts_sampler",
    [
        "nutpie",
        "numpyro",
        pytest.param(
            "blackjax",
            marks=pytest.mark.xfail(
                raises=(TypeError, ValueError),
                strict=False,
                reason="PyMC 6.4 calls blackjax 1.7 by what it does not have",
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the samplers themselves
def test_any_sampler(nuts_sampler):
    pytest.importorskip(nuts_sampler)
    tree = sampled(nuts_sampler)
    agrees_with_the_posterior(tree.posterior)
    assert "diverging" in tree.sample_stats


@pytest.mark.parametrize(
    ("argument", "value"),
    [("draws", 0), ("tune", -1), ("chains", 0), ("nuts_sampler", "emcee")],
)
def test_arguments_are_checked(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be"):
        approximation(build()).sample_nuts(**{argument: value})


def test_nowhere_to_start():
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Potential("nowhere", pm.math.switch(x > 1e6, 0.0, -np.inf))
    params = {
        "means": np.zeros((1, 1)),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.ones(1),
    }
    approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
    with pytest.raises(ValueError, match="draws of component 0 have a log density that is not"):
        approx.sample_nuts(10)


def test_a_model_of_the_context_gains_no_variable():
    approx = approximation(build())
    with approx.model:
        seen_from_u(approx.compiled_model(), approx.mixture)
    assert "coordinates_of_the_fit" not in approx.model.named_vars
