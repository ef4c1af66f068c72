"""Finite and infinite mixtures, topics, annotators: the labels summed out."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"
ordered = pm.distributions.transforms.ordered


@published("gaussian mixture", f"{GALLERY}: Gaussian Mixture Model, A. Flaxman")
def gaussian_mixture():
    rng = np.random.default_rng(1)
    x = rng.normal(np.array([-5, 0, 5])[rng.integers(0, 3, 500)], 2)
    with pm.Model(coords={"cluster": range(3)}) as model:
        mu = pm.Normal("μ", 0, 5, transform=ordered, initval=[-4, 0, 4], dims="cluster")
        sigma = pm.HalfNormal("σ", 1, dims="cluster")
        weights = pm.Dirichlet("w", np.ones(3), dims="cluster")
        pm.NormalMixture("x", w=weights, mu=mu, sigma=sigma, observed=x)
    return model


@published("two gaussians", "posteriordb: low_dim_gauss_mix, M. Betancourt")
def two_gaussians():
    rng = np.random.default_rng(2)
    y = rng.normal(np.where(rng.uniform(size=1000) < 0.4, -2.75, 2.75), 1)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 2, shape=2, transform=ordered, initval=[-1, 1])
        sigma = pm.HalfNormal("sigma", 2, shape=2)
        theta = pm.Beta("theta", 5, 5)
        components = [pm.logp(pm.Normal.dist(mu[i], sigma[i]), y) for i in (0, 1)]
        mixed = pt.logaddexp(pt.log(theta) + components[0], pt.log1p(-theta) + components[1])
        pm.Potential("likelihood", mixed.sum())
    return model


@published(
    "multivariate mixture",
    f"{GALLERY}: Marginalized Gaussian Mixture Model, A. Rochford",
)
def multivariate_mixture():
    """Three clusters in two dimensions, covariances by LKJ, first coordinates in order."""
    rng = np.random.default_rng(3)
    centres = np.array([[-2.0, 0.0], [0.5, 1.5], [3.0, -1.0]])
    factors = rng.normal(0, 0.5, (3, 2, 2))
    label = rng.integers(0, 3, 400)
    x = centres[label] + np.einsum("nij,nj->ni", factors[label], rng.normal(size=(400, 2)))
    x += 0.3 * rng.normal(size=(400, 2))
    with pm.Model() as model:
        weights = pm.Dirichlet("w", np.full(3, 5.0))
        first = pm.Normal("first", 0, 3, shape=3, transform=ordered, initval=[-2, 0, 2])
        second = pm.Normal("second", 0, 3, shape=3)
        components = []
        for i in range(3):
            sd = pm.Exponential.dist(1.0, shape=2)
            chol, *_ = pm.LKJCholeskyCov(f"chol_{i}", n=2, eta=2, sd_dist=sd)
            mean = pt.stack([first[i], second[i]])
            components.append(pm.MvNormal.dist(mu=mean, chol=chol))
        pm.Mixture("x", w=weights, comp_dists=components, observed=x)
    return model


def sticks(beta):
    """Weights of broken sticks."""
    left = pt.concatenate([[1.0], pt.extra_ops.cumprod(1 - beta)[:-1]])
    return beta * left


@published(
    "dirichlet process, old faithful",
    f"{GALLERY}: Dirichlet process mixtures for density estimation, A. Rochford",
    report=("alpha", "density"),
)
def dirichlet_process():
    """Thirty components; they swap labels, so the density at eight points is compared."""
    rng = np.random.default_rng(4)
    y = np.where(rng.uniform(size=272) < 0.36, rng.normal(55, 6, 272), rng.normal(80, 6, 272))
    y = (y - y.mean()) / y.std()
    with pm.Model(coords={"component": np.arange(30)}) as model:
        alpha = pm.Gamma("alpha", 1, 1)
        beta = pm.Beta("beta", 1, alpha, dims="component")
        weights = pm.Deterministic("w", sticks(beta) / sticks(beta).sum(), dims="component")
        tau = pm.Gamma("tau", 1, 1, dims="component")
        lam = pm.Gamma("lambda_", 10, 1, dims="component")
        mu = pm.Normal("mu", 0, tau=lam * tau, dims="component")
        pm.NormalMixture("obs", weights, mu, tau=lam * tau, observed=y)
        at = pm.logp(pm.Normal.dist(mu, tau=lam * tau), np.linspace(-2, 2, 8)[:, None])
        pm.Deterministic("density", (weights * pt.exp(at)).sum(-1))
    return model


@published(
    "dirichlet process, sunspots",
    f"{GALLERY}: Dirichlet process mixtures for density estimation, A. Rochford",
    report=("alpha", "density"),
)
def dirichlet_process_counts():
    """Fifty Poisson components for yearly sunspots."""
    import statsmodels.datasets as data

    y = data.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy().round().astype(int)
    with pm.Model(coords={"component": np.arange(50)}) as model:
        alpha = pm.Gamma("alpha", 1, 1)
        beta = pm.Beta("beta", 1, alpha, dims="component")
        weights = pm.Deterministic("w", sticks(beta) / sticks(beta).sum(), dims="component")
        mu = pm.Uniform("mu", 0, 300, dims="component")
        pm.Mixture("obs", weights, pm.Poisson.dist(mu, shape=50), observed=y)
        at = pm.logp(pm.Poisson.dist(mu), np.arange(5, 165, 20)[:, None])
        pm.Deterministic("density", (weights * pt.exp(at)).sum(-1))
    return model


@published(
    "dependent density",
    f"{GALLERY}: Dependent density regression, A. Rochford (LIDAR)",
    report=("alpha", "mean", "sd"),
)
def dependent_density():
    """Twenty lines, whose weights are probits of the covariate; moments are compared."""
    rng = np.random.default_rng(5)
    x = np.sort(rng.uniform(-1.7, 1.7, 221))
    y = np.where(x < 0, 0.8, 0.8 - 1.3 * x) + rng.normal(0, 0.05 + 0.25 * (x > 0), 221)
    y = (y - y.mean()) / y.std()
    with pm.Model(coords={"component": np.arange(20)}) as model:
        alpha, beta = (
            pm.Normal("alpha", 0, 5, dims="component"),
            pm.Normal("beta", 0, 5, dims="component"),
        )
        v = pm.math.clip(0.5 * pt.erfc(-(alpha + beta * x[:, None]) / np.sqrt(2)), 1e-9, 1 - 1e-9)
        left = pt.concatenate(
            [pt.ones((221, 1)), pt.extra_ops.cumprod(1 - v, axis=1)[:, :-1]], axis=1
        )
        weights = v * left
        weights = weights / weights.sum(axis=1, keepdims=True)
        gamma, delta = (
            pm.Normal("gamma", 0, 10, dims="component"),
            pm.Normal("delta", 0, 10, dims="component"),
        )
        mu = gamma + delta * x[:, None]
        tau = pm.Gamma("tau", 1, 1, dims="component")
        pm.NormalMixture("obs", weights, mu, tau=tau, observed=y)
        mean = (weights * mu).sum(1)
        square = (weights * (mu**2 + 1 / tau)).sum(1)
        pm.Deterministic("mean", mean[::20])
        pm.Deterministic("sd", pt.sqrt(square - mean**2)[::20])
    return model


@published(
    "dirichlet multinomial", f"{GALLERY}: Dirichlet mixtures of multinomials, B. J. Smith et al."
)
def dirichlet_multinomial():
    """Trees of five species in ten forests."""
    rng = np.random.default_rng(6)
    fraction = np.array([0.45, 0.3, 0.15, 0.09, 0.01])
    counts = np.array([rng.multinomial(50, rng.dirichlet(6 * fraction)) for _ in range(10)])
    species = ["pine", "oak", "ebony", "rosewood", "mahogany"]
    with pm.Model(coords={"tree": species, "forest": np.arange(10)}) as model:
        frac = pm.Dirichlet("frac", np.ones(5), dims="tree")
        conc = pm.LogNormal("conc", 1, 1)
        pm.DirichletMultinomial("counts", n=50, a=frac * conc, observed=counts)
    return model


@published(
    "dirichlet mixture of multinomials",
    f"{GALLERY}: Dirichlet mixtures of multinomials, B. J. Smith et al.",
)
def explicit_multinomial():
    """The same, each forest's proportions as variables."""
    rng = np.random.default_rng(6)
    fraction = np.array([0.45, 0.3, 0.15, 0.09, 0.01])
    counts = np.array([rng.multinomial(50, rng.dirichlet(6 * fraction)) for _ in range(10)])
    with pm.Model(coords={"tree": np.arange(5), "forest": np.arange(10)}) as model:
        frac = pm.Dirichlet("frac", np.ones(5), dims="tree")
        conc = pm.LogNormal("conc", 1, 1)
        p = pm.Dirichlet("p", frac * conc, dims=("forest", "tree"))
        pm.Multinomial("counts", n=50, p=p, observed=counts)
    return model


@published(
    "topics",
    "posteriordb: ldaK5 (Stan user's guide: latent Dirichlet allocation)",
    report=("word",),
)
def topics():
    """25 documents of 262 words in all, two topics; probabilities of words are compared."""
    rng = np.random.default_rng(7)
    phi = rng.dirichlet(np.full(5, 0.3), 2)
    document = np.sort(rng.integers(0, 25, 262))
    topic = (rng.uniform(size=262) < rng.beta(0.5, 0.5, 25)[document]).astype(int)
    word = np.array([rng.choice(5, p=phi[t]) for t in topic])
    with pm.Model() as model:
        theta = pm.Dirichlet("theta", np.full((25, 2), 0.5))
        phi = pm.Dirichlet("phi", np.full((2, 5), 0.5))
        p = theta @ phi
        pm.Categorical("w", p=p[document], observed=word)
        pm.Deterministic("word", p[::3])
    return model


@published("annotators", "Stan user's guide: noisy categorical measurement (Dawid and Skene)")
def annotators():
    """Forty-five patients, five anaesthetists, four categories."""
    rng = np.random.default_rng(8)
    truth = rng.choice(4, 45, p=[0.4, 0.4, 0.15, 0.05])
    right = 0.15 * np.eye(4) * 4 + 0.1
    y = np.array([[rng.choice(4, p=right[t] / right[t].sum()) for _ in range(5)] for t in truth])
    concentration = np.where(np.eye(4) > 0, 2.5 * 4, 1.0)
    with pm.Model() as model:
        pi = pm.Dirichlet("pi", np.full(4, 3.0))
        beta = pm.Dirichlet("theta", np.broadcast_to(concentration, (5, 4, 4)))
        logs = sum(pt.log(beta)[j][:, y[:, j]].T for j in range(5))  # (patient, true category)
        pm.Potential("likelihood", pt.logsumexp(pt.log(pi) + logs, axis=1).sum())
    return model


@published(
    "zero-inflated poisson", f"{GALLERY} and Stan user's guide: zero-inflated counts of monks"
)
def zero_inflated():
    rng = np.random.default_rng(9)
    y = rng.poisson(1, 365) * (rng.uniform(size=365) > 0.2)
    with pm.Model() as model:
        ap, al = pm.Normal("ap", -1.5, 1), pm.Normal("al", 1, 0.5)
        p, rate = pm.Deterministic("p", pm.math.invlogit(ap)), pm.Deterministic("rate", pt.exp(al))
        pm.ZeroInflatedPoisson("y", 1 - p, rate, observed=y)
    return model


@published(
    "galaxy velocities", "Richardson and Green (1997): mixtures of normals, velocities of galaxies"
)
def galaxies():
    """82 velocities, six components in order."""
    rng = np.random.default_rng(10)
    centres = np.array([9.7, 16, 19.8, 22.9, 26.5, 33])
    y = rng.normal(centres[rng.choice(6, 82, p=[0.09, 0.03, 0.4, 0.4, 0.05, 0.03])], 0.9)
    with pm.Model() as model:
        start = np.linspace(10, 33, 6)
        mu = pm.Normal("mu", 20, 10, shape=6, transform=ordered, initval=start)
        sigma = pm.LogNormal("sigma", 0, 0.5, shape=6)
        pm.NormalMixture("y", pm.Dirichlet("w", np.ones(6)), mu, sigma, observed=y)
    return model
