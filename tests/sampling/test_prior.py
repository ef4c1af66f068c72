"""An approximation as the prior of another model: exactly the same density, and the same values."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats
from scipy.special import logsumexp

import pymc_isomix as pmi
from pymc_isomix.backend.compilation import CHEAP
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.sampling.prior import standardise

KINDS = [(metric, log_variances) for metric in (0, 1, 2) for log_variances in (1, 2)]


def some_mixture(metric_ndim=2, variances_ndim=1, n_dim=3, n_components=4):
    rng = np.random.default_rng(1)
    metric = np.tril(rng.normal(size=(n_dim, n_dim))) + 2 * np.eye(n_dim)
    return Mixture(
        means=rng.normal(size=(n_components, n_dim)),
        log_variances=rng.normal(size=(n_components, n_dim)[:variances_ndim]) / 2,
        log_weights=rng.normal(size=n_components),
        metric=[np.array(0.7), np.diag(metric), metric][metric_ndim],
    ).replace()


def covariances(mixture):
    """Covariance (K, d, d) of each component, without the package's own arithmetic."""
    root = mixture.metric * np.eye(mixture.n_dim) if mixture.metric.ndim < 2 else mixture.metric
    own = np.exp(mixture.log_variances).reshape(mixture.n_components, -1)
    return np.stack([root @ np.diag(np.ones(mixture.n_dim) * e) @ root.T for e in own])


def marginal_log_density(mixture, kept, points):
    joint = [
        log_w + stats.multivariate_normal(mean[kept], cov[np.ix_(kept, kept)]).logpdf(points)
        for log_w, mean, cov in zip(
            mixture.log_weights, mixture.means, covariances(mixture), strict=True
        )
    ]
    return logsumexp(joint, axis=0)


def places_kept(approx, *names):
    """How long the free variable is that variables are made of."""
    with pm.Model() as model:
        pmi.as_prior(approx, list(names))
    return model.initial_point(0)["prior"].size


def values_at(model, u, *variables):
    """Values of variables, flat, at a value u of the free variable."""
    flat = [v.ravel() for v in model.replace_rvs_by_values(list(variables))]
    evaluate = model.compile_fn(pt.concatenate(flat), inputs=model.value_vars, mode=CHEAP)
    return evaluate({"prior": np.asarray(u)})


def three_variables():
    with pm.Model(coords={"axis": ["x", "y"]}) as model:
        pm.Normal("a", 0, 1)
        b = pm.Normal("b", 0, 1, dims="axis")
        pm.Deterministic("twice", 2 * b, dims="axis")
        pm.Normal("seen", b, 1, observed=[0.5, 1.0], dims="axis")
    return model


@pytest.fixture(scope="module")
def approx():
    approx = pmi.IsotropicMixture(n_components=4, metric="dense", model=three_variables())
    approx.mixture = some_mixture()
    return approx


@pytest.fixture(scope="module")
def schools():
    """Eight schools, centred: theta is a site, with any pseudo-observations."""
    rng = np.random.default_rng(2)
    with pm.Model(coords={"school": list("ABC")}):
        mu = pm.Normal("mu", 0.0, 5.0)
        tau = pm.HalfCauchy("tau", 5.0)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Normal("y", theta, 10.0, observed=[28.0, 8.0, -3.0], dims="school")
        approx = pmi.IsoMix(n_components=4, random_seed=1).approx
    approx.mixture = some_mixture(n_dim=5)
    approx.groups[0].coordinates = approx.coordinates.replace(
        log_precisions=rng.normal(size=3), values=rng.normal(size=3)
    )
    return approx


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2]])
def test_standardised_moments_and_density(kind, kept):
    mixture, kept = some_mixture(*kind), np.array(kept)
    if kind == (2, 2):
        kept = np.arange(3)  # its marginals have no common metric
    found = standardise(mixture, kept)
    root = found.root if found.root.ndim == 2 else np.diag(found.root)
    centred = mixture.means - mixture.weights @ mixture.means
    exact = np.einsum("k,kij->ij", mixture.weights, covariances(mixture))
    exact += centred.T @ (mixture.weights[:, None] * centred)
    exact = exact[np.ix_(kept, kept)]
    dense = kind[0] == 2
    np.testing.assert_allclose(
        (root @ root.T)[dense | np.eye(len(kept), dtype=bool)],
        exact[dense | np.eye(len(kept), dtype=bool)],
    )
    u = np.random.default_rng(3).normal(size=(5, len(kept)))
    whitening = found.whitening if dense else np.diag(found.whitening)
    simple = Mixture(found.means, found.log_variances, found.log_weights, np.array(1.0))
    log_density = simple.log_density(u @ whitening.T)
    log_density += np.linalg.slogdet(whitening)[1] - np.linalg.slogdet(root)[1]
    np.testing.assert_allclose(
        log_density, marginal_log_density(mixture, kept, found.centre + u @ root.T)
    )


def test_the_density_of_the_free_variable(approx):
    with pm.Model() as model:
        prior = pmi.as_prior(approx)
    u = np.random.default_rng(4).normal(size=3)
    points = values_at(model, u, prior["a"], prior["b"])
    standard = standardise(approx.mixture, np.arange(3))
    log_density = float(model.compile_logp(mode=CHEAP)({"prior": u}))
    log_density -= np.linalg.slogdet(standard.root)[1]
    assert log_density == pytest.approx(
        marginal_log_density(approx.mixture, np.arange(3), points), rel=1e-10
    )


def test_draws_are_those_of_the_mixture(approx):
    n = 4000
    with pm.Model() as model:
        pmi.as_prior(approx, "twice")
        with pytensor.config.change_flags(mode=CHEAP):
            drawn = pm.sample_prior_predictive(n, random_seed=1).prior
    assert model.initial_point(0)["prior"].size == 2  # a is integrated out
    twice, centre = drawn["twice"].values[0], approx.mixture.mean[1:]
    exact = 4 * standardise(approx.mixture, np.array([1, 2])).root[0, 0] ** 2
    # 4 standard errors; that of a variance with a kurtosis up to 6
    assert twice.mean(0) == pytest.approx(2 * centre, abs=4 * twice.std(0).max() / n**0.5)
    assert twice[:, 0].var() == pytest.approx(exact, rel=4 * (5 / n) ** 0.5)
    kernel = [
        stats.kstest(twice[:, i], lambda x, i=i: cdf(approx.mixture, i + 1, x / 2))[1]
        for i in (0, 1)
    ]
    assert min(kernel) > 1e-3


def cdf(mixture, i, x):
    sd = np.sqrt(covariances(mixture)[:, i, i])
    return stats.norm.cdf((x[:, None] - mixture.means[:, i]) / sd) @ mixture.weights


def test_dims_and_coords_come_along(approx):
    with pm.Model() as model:
        prior = pmi.as_prior(approx, ["b", "a"])
    assert list(prior) == ["b", "a"]
    assert model.named_vars_to_dims == {"b": ("axis",)}
    assert model.coords == {"axis": ("x", "y")}


def test_values_with_sites_are_those_of_the_coordinates(schools):
    y = schools.mixture.draw(3, np.random.default_rng(5))[0]
    z = schools.coordinates.to_unconstrained(y)[0]
    standard = standardise(schools.mixture, np.arange(5))
    u = np.linalg.solve(standard.root, (y - standard.centre).T).T
    with pm.Model() as model:
        prior = pmi.as_prior(schools)
    found = np.array([values_at(model, one, *prior.values()) for one in u])
    found[:, 1] = np.log(found[:, 1])
    np.testing.assert_allclose(found, z, rtol=1e-10)


def test_a_part_keeps_what_it_depends_on(schools, approx):
    kept = [places_kept(schools, *names) for names in (["mu"], ["mu", "tau"], ["theta"])]
    assert kept == [1, 2, 5]  # theta is seen by the scale tau around mu
    assert places_kept(approx, "twice") == 2
    diagonal = pmi.IsotropicMixture(
        n_components=4, metric="dense", component_variances="diagonal", model=three_variables()
    )
    assert places_kept(diagonal, "a") == 3


def test_a_transform_that_depends_on_another_variable():
    with pm.Model():
        top = pm.HalfNormal("top")
        pm.Uniform("x", 0, top)
        approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
    with pm.Model() as model:
        x = pmi.as_prior(approx, "x")["x"]
    assert model.initial_point(0)["prior"].size == 2
    root = standardise(approx.mixture, np.arange(2)).root
    log_top, logit = approx.mixture.mean + root * [0.3, -0.4]
    (found,) = values_at(model, [0.3, -0.4], x)
    assert found == pytest.approx(np.exp(log_top) / (1 + np.exp(-logit)))


def test_data_of_a_deterministic_stay_as_they_are():
    with pm.Model() as fitted:
        x = pm.Data("x", [1.0, 2.0])
        pm.Deterministic("line", pm.Normal("slope") * x)
        approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
    with pm.Model() as model:
        line = pmi.as_prior(approx, "line")["line"]
    fitted.set_data("x", [5.0, 5.0])
    first, second = values_at(model, [0.2], line)
    assert second == pytest.approx(2 * first)


@pytest.mark.parametrize(
    ("var_names", "name", "message"),
    [
        ("c", "prior", r"'c', which is not a free variable or deterministic.*a, b, twice"),
        ("seen", "prior", "'seen', which is not a free variable"),
        ("a", "taken", r"already has a variable 'taken'; pass another name="),
        (["a", "taken2"], "prior", "not a free variable"),
        ("b", "prior", "dim 'axis' of 'b' has different coords"),
    ],
)
def test_refusals(approx, var_names, name, message):
    with pm.Model(coords={"axis": ["y", "x"]}):
        pm.Normal("taken")
        with pytest.raises(ValueError, match=message):
            pmi.as_prior(approx, var_names, name=name)


def test_refuses_draws_the_fitted_model_and_no_model(approx):
    with pm.Model(), pytest.raises(TypeError, match=r"got dict\. Draws do not contain the mixture"):
        pmi.as_prior({})
    with approx.model, pytest.raises(ValueError, match="not to the fitted one"):
        pmi.as_prior(approx)
    with pytest.raises(TypeError, match="No model on context"):
        pmi.as_prior(approx)


def test_refuses_what_another_group_has():
    with pm.Model() as model:
        top = pm.HalfNormal("top")
        x = pm.Uniform("x", 0, top)
        group = pmi.IsotropicMixtureGroup([x], n_components=2)
    with pm.Model(), pytest.raises(ValueError, match="x depend on top_log__, which the approx"):
        pmi.as_prior(group, "x")
    assert model.free_RVs == [top, x]


def test_refuses_a_random_deterministic():
    with pm.Model():
        noise = pm.Normal.dist()
        pm.Deterministic("noisy", pm.Normal("a") + noise)
        approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
    with pm.Model(), pytest.raises(ValueError, match="'noisy' depends on a random variable"):
        pmi.as_prior(approx, "noisy")


def line(x, y, fitted=None):
    """A regression line with known noise, from a first prior or from what a fit learned."""
    with pm.Model(coords={"term": ["level", "slope"]} if fitted is None else {}) as model:
        prior = {} if fitted is None else pmi.as_prior(fitted)
        beta = prior["beta"] if prior else pm.Normal("beta", 0, 2, dims="term")
        pm.Normal("y", beta[0] + beta[1] * x, 1.0, observed=y)
        return pm.fit(method=pmi.IsoMix(1, random_seed=1), progressbar=False), model


def test_two_halves_in_sequence_give_the_posterior_of_all():
    x = np.linspace(2, 3, 20)
    y = 1 - 2 * x + np.random.default_rng(6).normal(size=20)
    features = np.stack([np.ones(20), x], axis=1)
    precision = features.T @ features + np.eye(2) / 4
    mean, cov = np.linalg.solve(precision, features.T @ y), np.linalg.inv(precision)
    evidence = stats.multivariate_normal(np.zeros(20), np.eye(20) + 4 * features @ features.T)
    first, _ = line(x[::2], y[::2])
    second, _ = line(x[1::2], y[1::2], first)
    # one Gaussian is exact here, and the evidence of the halves adds up
    elbo = sum(approx.diagnostics(progressbar=False)["elbo"].item() for approx in (first, second))
    assert elbo == pytest.approx(evidence.logpdf(y), abs=1e-3)
    standard = standardise(first.mixture, np.arange(2))
    root = standard.root @ second.mixture.root * np.exp(0.5 * second.mixture.log_variances[0])
    assert standard.centre + standard.root @ second.mixture.mean == pytest.approx(mean, abs=1e-3)
    np.testing.assert_allclose(root @ root.T, cov, rtol=1e-2)


@pytest.mark.slow
def test_two_modes_stay_two():
    """Data that never tell the sign of theta: its modes keep half of the mass each."""
    y = 4 + np.random.default_rng(7).normal(size=20)

    def fit(y, fitted=None):
        with pm.Model():
            theta = pmi.as_prior(fitted)["theta"] if fitted else pm.Normal("theta", 0, 3)
            pm.Normal("y", theta**2, 1, observed=y)
            return pm.fit(method=pmi.IsoMix(random_seed=1), progressbar=False)

    first = fit(y[:10])
    second, whole = fit(y[10:], first), fit(y)
    theta, exact = (
        approx.sample(8000, random_seed=1).posterior["theta"].values[0]
        for approx in (second, whole)
    )
    # weights of mixtures are good to .025, and a share of draws to .006
    assert (theta > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert np.abs(theta).std() == pytest.approx(np.abs(exact).std(), rel=0.05)
    assert second.diagnostics(progressbar=False).verdict == "good"


@pytest.mark.slow
def test_a_hierarchy_in_sequence():
    """Means and scale of groups from two halves, against quadrature on all the data."""
    rng = np.random.default_rng(1)
    theta = rng.normal(0.5, 0.6, 8)
    group = np.tile(np.arange(8), 3)
    y = rng.normal(theta[group], 1.0, size=(2, 24))

    def fit(y, fitted=None):
        with pm.Model(coords={"group": list("abcdefgh")}):
            if fitted is None:
                mu, tau = pm.Normal("mu", 0, 2), pm.HalfNormal("tau", 1)
                effect = pm.Normal("theta", mu, tau, dims="group")
            else:
                effect = pmi.as_prior(fitted)["theta"]
            pm.Normal("y", effect[group], 1.0, observed=y)
            return pm.fit(method=pmi.IsoMix(random_seed=2), progressbar=False)

    second = fit(y[1], fit(y[0]))
    draws = second.sample(4000, random_seed=1, transitions=20, progressbar=False).posterior
    # integrate over mu and log tau
    level = y.mean(axis=0).reshape(3, 8).mean(axis=0)
    mu, log_tau = np.meshgrid(np.linspace(-3, 4, 300), np.linspace(-7, 2, 600), indexing="ij")
    variance = np.exp(2 * log_tau) + 1 / 6
    log_p = sum(stats.norm.logpdf(one, mu, np.sqrt(variance)) for one in level)
    log_p += stats.norm.logpdf(mu, 0, 2) - np.exp(2 * log_tau) / 2 + log_tau
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    share = 6 / (6 + np.exp(-2 * log_tau))
    for g in range(8):
        mean = share * level[g] + (1 - share) * mu
        exact = (w * mean).sum()
        sd = np.sqrt((w * (share / 6 + (mean - exact) ** 2)).sum())
        own = draws["theta"].sel(group="abcdefgh"[g]).values
        # 5 standard errors of 4000 draws, and what a fit leaves
        assert own.mean() == pytest.approx(exact, abs=(5 / 4000**0.5 + 0.03) * sd)
        assert own.std() == pytest.approx(sd, rel=5 / 8000**0.5 + 0.03)
