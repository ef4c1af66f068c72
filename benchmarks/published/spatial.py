"""Fields on areas, points and grids."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"


def adjacency(rng, n):
    """Points in a square, neighbours where a triangulation has an edge."""
    from scipy.spatial import Delaunay

    points = rng.uniform(size=(n, 2))
    w = np.zeros((n, n), int)
    for a, b, c in Delaunay(points).simplices:
        for i, j in ((a, b), (b, c), (a, c)):
            w[i, j] = w[j, i] = 1
    return points, w


def smooth_field(rng, points, length):
    """A draw of a smooth field at points."""
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    cov = np.exp(-0.5 * (distance / length) ** 2) + 1e-6 * np.eye(len(points))
    return np.linalg.cholesky(cov) @ rng.normal(size=len(points))


def traffic(n):
    """Accidents of census tracts by population, with a neighbourhood and a social index."""
    rng = np.random.default_rng(1)
    points, w = adjacency(rng, n)
    population = rng.lognormal(6, 0.7, n)
    fragmentation = rng.normal(0, 1, n)
    field = 0.6 * smooth_field(rng, points, 0.2) + 0.3 * rng.normal(size=n)
    y = rng.poisson(population * np.exp(-4.5 + 0.1 * fragmentation + field))
    return y, population, fragmentation, w


BYM = f"{GALLERY}: The Besag-York-Mollie Model for Spatial Data, D. Saunders"


def bym(n):
    """Spatial and unstructured effects, mixed by rho."""
    y, population, fragmentation, w = traffic(n)
    degree = np.diag(w.sum(1)) - w
    # the pseudoinverse of a connected graph's Laplacian, faster than pinv
    variances = np.diag(np.linalg.inv(degree + 1 / n)) - 1 / n
    scaling = np.exp(np.mean(np.log(variances)))
    with pm.Model(coords={"area": np.arange(n)}) as model:
        beta0, beta1 = pm.Normal("beta0", 0, 1), pm.Normal("beta1", 0, 1)
        theta = pm.Normal("theta", 0, 1, dims="area")
        phi = pm.ICAR("phi", W=w, dims="area")
        sigma, rho = pm.HalfNormal("sigma", 1), pm.Beta("rho", 0.5, 0.5)
        mixture = pt.sqrt(1 - rho) * theta + pt.sqrt(rho / scaling) * phi
        mixture = pm.Deterministic("mixture", mixture, dims="area")
        mu = pt.exp(np.log(population) + beta0 + beta1 * fragmentation + sigma * mixture)
        pm.Poisson("y", mu, observed=y)
    return model


@published("bym, new york", BYM)
def bym_new_york():
    """1921 census tracts."""
    return bym(1921)


@published("bym, 200 areas", f"{BYM}; a borough")
def bym_borough():
    return bym(200)


CAR = f"{GALLERY}: Conditional Autoregressive (CAR) Models for Spatial Data, C. Hassan, D. Saunders"


def lip_cancer():
    """Cases of lip cancer in 56 Scottish counties, expected ones, and work outdoors."""
    rng = np.random.default_rng(2)
    points, w = adjacency(rng, 56)
    expected, outdoors = rng.gamma(1.2, 8, 56) + 1, rng.choice([0, 0.01, 0.07, 0.1, 0.16, 0.24], 56)
    rate = np.exp(-0.3 + 3.5 * outdoors + 0.5 * smooth_field(rng, points, 0.25))
    return rng.poisson(expected * rate), expected, outdoors, w


@published("lip cancer, car", CAR)
def lip_cancer_car():
    y, expected, outdoors, w = lip_cancer()
    with pm.Model(coords={"area": np.arange(56)}) as model:
        beta0, beta1 = pm.Normal("beta0", 0, 1), pm.Normal("beta1", 0, 1)
        tau, alpha = pm.Gamma("tau_s", 3, 1), pm.Beta("alpha", 1, 1)
        s = pm.CAR("s", mu=np.zeros(56), tau=tau, alpha=alpha, W=w, dims="area")
        offset = np.log(expected)
        pm.Poisson("y", pt.exp(offset + beta0 + beta1 * outdoors + s), observed=y, dims="area")
    return model


@published("lip cancer, independent and fixed car", CAR)
def lip_cancer_car_fixed():
    """Independent effects beside a field of fixed dependence."""
    y, expected, outdoors, w = lip_cancer()
    with pm.Model(coords={"area": np.arange(56)}) as model:
        beta0, beta1 = pm.Normal("beta0", 0, 1), pm.Normal("beta1", 0, 1)
        tau_ind, tau = pm.Gamma("tau_ind", 3.2761, 1.81), pm.Gamma("tau_s", 3, 1)
        theta = pm.Normal("theta", 0, tau=tau_ind, dims="area")
        s = pm.CAR("s", mu=np.zeros(56), tau=tau, alpha=0.95, W=w, dims="area")
        eta = np.log(expected) + beta0 + beta1 * outdoors + theta + s
        pm.Poisson("y", pt.exp(eta), observed=y, dims="area")
    return model


@published(
    "log-gaussian cox process",
    f"{GALLERY}: Marked log-Gaussian Cox process of spatial point patterns, C. Krapu",
)
def cox_process():
    """Counts of anemones in 150 cells, a latent Gaussian process."""
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.linspace(0, 280, 15), np.linspace(0, 180, 10))
    cells = np.column_stack([x.ravel(), y.ravel()])
    field = smooth_field(rng, cells / 280, 0.15)
    counts = rng.poisson(np.exp(0.6 + 0.6 * field))
    area = 400.0
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 3)
        rho = pm.Uniform("rho", 25, 300)
        variance = pm.InverseGamma("variance", alpha=1, beta=1)
        cov = variance * pm.gp.cov.Matern52(2, ls=rho)
        gp = pm.gp.Latent(mean_func=pm.gp.mean.Constant(mu), cov_func=cov)
        log_intensity = gp.prior("log_intensity", X=cells)
        intensity = pm.Deterministic("intensity", pt.exp(log_intensity))
        pm.Poisson("counts", mu=intensity * area / 400, observed=counts)
    return model


@published(
    "oceanic tools",
    f"{GALLERY}: Statistical Rethinking lectures 16, Gaussian processes; Kline's data",
)
def oceanic_tools():
    """Tools of ten islands by population, a Gaussian process over distances."""
    rng = np.random.default_rng(4)
    tools = [13, 22, 24, 43, 33, 19, 40, 28, 55, 71]
    population = np.array([1100, 1500, 3600, 4791, 7400, 8000, 9200, 13000, 17500, 275000])
    places = rng.uniform(0, 4, (10, 2))
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    with pm.Model(coords={"island": np.arange(10)}) as model:
        alpha_bar = pm.Exponential("alpha_bar", 1)
        beta, gamma = pm.Exponential("beta", 1), pm.Exponential("gamma", 1)
        eta2, rho2 = pm.Exponential("eta_squared", 2), pm.Exponential("rho_squared", 0.5)
        cov = eta2 * pt.exp(-rho2 * distance**2) + 0.01 * np.eye(10)
        chol = pt.linalg.cholesky(cov)
        z = pm.Normal("z", 0, 1, dims="island")
        alpha = pm.Deterministic("alpha", pt.dot(chol, z), dims="island")
        rate = alpha_bar / gamma * population**beta * pt.exp(alpha)
        pm.Poisson("T", rate, observed=tools)
    return model


@published(
    "primates",
    f"{GALLERY}: Statistical Rethinking lectures 16; phylogenetic regression of primates",
)
def primates():
    """151 species, covariance by an Ornstein-Uhlenbeck kernel over the tree."""
    rng = np.random.default_rng(5)
    family, genus = np.arange(151) // 12, np.arange(151) // 3
    distance = np.where(np.equal.outer(family, family), 0.3, 0.9)
    distance = np.where(np.equal.outer(genus, genus), 0.1, distance)
    np.fill_diagonal(distance, 0)
    m, g = rng.normal(size=(2, 151))
    own = np.linalg.cholesky(np.exp(-2 * distance) + 1e-6 * np.eye(151)) @ rng.normal(size=151)
    b = 0.8 * m + 0.1 * g + 0.4 * own
    with pm.Model() as model:
        alpha, beta_m, beta_g = (
            pm.Normal(n, 0, s) for n, s in (("alpha", 1), ("beta_M", 0.5), ("beta_G", 0.5))
        )
        eta2 = pm.TruncatedNormal("eta_squared", 1, 0.25, lower=0.001)
        rho = pm.TruncatedNormal("rho", 3, 0.25, lower=0.001)
        cov = eta2 * pt.exp(-rho * distance) + 1e-6 * np.eye(151)
        mean = alpha + beta_m * m + beta_g * g
        pm.MvNormal("B", mean, cov=cov, observed=b)
    return model
