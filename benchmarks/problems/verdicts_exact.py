"""Fifty models with exact draws, each fitted twice, about half of the fits wrong on purpose.

``MODELS[name]`` is what builds a model and draws (S, d), unconstrained space, and the options of
the second fit. The first is as it comes, the second in a way that users meet: one component, no
metric, too few steps, starts in one place, no sites. Draws are exact: by grids in one and two
dimensions, which also serve where dimensions are independent, and by formulas.
"""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import pymc_isomix as pmi

S = 20_000
ONE = {"n_components": 1}
IDENTITY = {"metric": "identity", "n_components": 1}
DIAGONAL = {"metric": "diag", "n_components": 1}
AFFINE = {"coordinates": "affine"}
AFFINE_ONE = {"coordinates": "affine", "n_components": 1}
LOW, HIGH = -15.0, 15.0
AXES = {1: (5000, 5000, 20_000), 2: (150, 100, 300)}  # points, by dimensions, as it closes in
NEGLIGIBLE = 1e-9  # of the largest marginal probability on an axis


def early(n):
    return {"n": n, "schedule": "constant"}


def by_grid(build, low=LOW, high=HIGH):
    """Draw from a model of one or two dimensions on a grid that closes in on the mass."""
    with pm.Model() as model:
        build()
    approx = pmi.IsotropicMixture(n_components=1, model=model)
    n_dim, density = approx.space.n_dim, approx.compiled_model().log_density
    bounds = [(low, high)] * n_dim
    for size in AXES[n_dim]:
        axes = [np.linspace(*bound, size) for bound in bounds]
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, n_dim)
        log_p = np.nan_to_num(density(mesh), nan=-np.inf, posinf=-np.inf)
        p = np.exp(log_p - log_p.max()).reshape([len(axis) for axis in axes])
        bounds = []
        for i, axis in enumerate(axes):
            marginal = p.sum(axis=tuple(j for j in range(n_dim) if j != i))
            where = np.flatnonzero(marginal > NEGLIGIBLE * marginal.max())
            bounds.append((axis[max(where[0] - 1, 0)], axis[min(where[-1] + 1, len(axis) - 1)]))
    rng = np.random.default_rng(0)
    draws = mesh[rng.choice(len(mesh), S, p=p.ravel() / p.sum())]
    return model, draws + (rng.random(draws.shape) - 0.5) * [axis[1] - axis[0] for axis in axes]


def independent(build, n_dim):
    """Take so many independent copies of a model of one dimension; build(shape) builds either."""
    _, draws = by_grid(lambda: build(()))
    with pm.Model() as model:
        build((n_dim,))
    rng = np.random.default_rng(1)
    return model, np.column_stack([rng.permutation(draws[:, 0]) for _ in range(n_dim)])


def observed(seed, draw):
    return draw(np.random.default_rng(seed))


# One and two dimensions


def exponential_rate():
    rows = observed(1, lambda r: r.exponential(0.3, size=9))
    return by_grid(lambda: pm.Exponential("y", pm.Gamma("rate", 1, 0.5), observed=rows))


def negative_binomial():
    rows = observed(2, lambda r: r.negative_binomial(2, 0.2, size=30))

    def build():
        mu, alpha = pm.Gamma("mu", 2, 0.2), pm.Exponential("alpha", 0.5)
        pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=rows)

    return by_grid(build)


def pareto_tail():
    rows = observed(3, lambda r: 1 + r.pareto(2.0, size=12))
    return by_grid(lambda: pm.Pareto("y", pm.HalfNormal("alpha", 5), 1.0, observed=rows))


def cauchy_location():
    return by_grid(
        lambda: pm.Cauchy("y", pm.Normal("mu", 0, 20), 0.5, observed=[-4.0, -3.6, 4.0, 4.5])
    )


def laplace_slope():
    x = np.linspace(-1, 1, 25)
    y = observed(4, lambda r: 2 * x + r.laplace(0, 0.5, size=25))

    def build():
        slope, scale = pm.Normal("slope", 0, 5), pm.HalfNormal("scale", 2)
        pm.Laplace("y", slope * x, scale, observed=y)

    return by_grid(build)


def no_successes():
    return by_grid(lambda: pm.Binomial("y", 10, pm.Beta("p", 0.5, 0.5), observed=0), -60, 15)


def zero_inflated():
    rows = observed(5, lambda r: r.poisson(3.0, size=40) * (r.random(40) < 0.6))

    def build():
        psi, mu = pm.Beta("psi", 2, 2), pm.Gamma("mu", 2, 0.5)
        pm.ZeroInflatedPoisson("y", psi, mu, observed=rows)

    return by_grid(build)


def degrees_of_freedom():
    rows = observed(6, lambda r: r.standard_t(3, size=60))

    def build():
        nu, sigma = pm.Gamma("nu", 2, 0.1), pm.HalfNormal("sigma", 2)
        pm.StudentT("y", nu=nu, mu=0, sigma=sigma, observed=rows)

    return by_grid(build)


def probit():
    x = observed(7, lambda r: r.normal(size=40))
    y = observed(8, lambda r: (r.normal(size=40) < 0.5 + x).astype(int))

    def build():
        b = pm.Normal("b", 0, 3, shape=2)
        pm.Bernoulli("y", pm.math.invprobit(b[0] + b[1] * x), observed=y)

    return by_grid(build)


def separated_logistic():
    """All successes above a place: the slope is known by its prior alone."""
    x = np.linspace(-2, 2, 12)

    def build():
        b = pm.Normal("b", 0, 4, shape=2)
        pm.Bernoulli("y", logit_p=b[0] + b[1] * x, observed=(x > 0.1).astype(int))

    return by_grid(build)


def decay():
    t = np.linspace(0, 4, 15)
    y = observed(9, lambda r: 3 * np.exp(-0.8 * t) + 0.3 * r.normal(size=15))

    def build():
        a, b = pm.HalfNormal("a", 5), pm.HalfNormal("b", 2)
        pm.Normal("y", a * pm.math.exp(-b * t), 0.3, observed=y)

    return by_grid(build)


def frequency():
    t = np.arange(8.0)
    y = observed(10, lambda r: np.sin(1.3 * t) + 0.8 * r.normal(size=8))
    return by_grid(lambda: pm.Normal("y", pm.math.sin(pm.Uniform("w", 0, 3) * t), 0.8, observed=y))


def gumbel():
    rows = observed(11, lambda r: r.gumbel(2.0, 1.5, size=15))

    def build():
        mu, beta = pm.Normal("mu", 0, 10), pm.HalfNormal("beta", 5)
        pm.Gumbel("y", mu, beta, observed=rows)

    return by_grid(build)


def wald():
    rows = observed(12, lambda r: r.wald(2.0, 3.0, size=12))

    def build():
        mu, lam = pm.HalfNormal("mu", 5), pm.HalfNormal("lam", 10)
        pm.Wald("y", mu=mu, lam=lam, observed=rows)

    return by_grid(build)


def gamma_shape_and_rate():
    rows = observed(13, lambda r: r.gamma(4.0, 0.5, size=25))

    def build():
        alpha, beta = pm.HalfNormal("alpha", 10), pm.HalfNormal("beta", 10)
        pm.Gamma("y", alpha, beta, observed=rows)

    return by_grid(build)


def beta_shapes():
    rows = observed(14, lambda r: r.beta(2.0, 5.0, size=20))

    def build():
        a, b = pm.HalfNormal("a", 10), pm.HalfNormal("b", 10)
        pm.Beta("y", a, b, observed=rows)

    return by_grid(build)


def lognormal():
    rows = observed(15, lambda r: r.lognormal(1.0, 0.8, size=8))

    def build():
        mu, sigma = pm.Normal("mu", 0, 5), pm.HalfCauchy("sigma", 1)
        pm.LogNormal("y", mu, sigma, observed=rows)

    return by_grid(build)


def one_sided():
    """All data are above a bound near the mean: location and scale hardly known apart."""
    rows = observed(16, lambda r: np.abs(r.normal(size=30)) + 0.2)

    def build():
        mu, sigma = pm.Normal("mu", 0, 3), pm.HalfNormal("sigma", 2)
        pm.TruncatedNormal("y", mu, sigma, lower=0.2, observed=rows)

    return by_grid(build)


def autoregression():
    y = np.zeros(60)
    noise = np.random.default_rng(17).normal(size=60)
    for i in range(1, 60):
        y[i] = 0.95 * y[i - 1] + noise[i]

    def build():
        rho, sigma = pm.Uniform("rho", -1, 1), pm.HalfNormal("sigma", 2)
        pm.Normal("y", rho * y[:-1], sigma, observed=y[1:])

    return by_grid(build)


def michaelis_menten():
    x = np.array([0.1, 0.2, 0.5, 1.0, 2.0])
    y = observed(18, lambda r: 2 * x / (1.5 + x) + 0.05 * r.normal(size=5))

    def build():
        most, half = pm.HalfNormal("most", 5), pm.HalfNormal("half", 5)
        pm.Normal("y", most * x / (half + x), 0.05, observed=y)

    return by_grid(build)


def skewness():
    rows = observed(19, lambda r: np.abs(r.normal(size=25)) + 0.2 * r.normal(size=25))

    def build():
        alpha = pm.Normal("alpha", 0, 10)
        pm.SkewNormal("y", mu=0.0, sigma=1.0, alpha=alpha, observed=rows)

    return by_grid(build, -40, 60)


def ring():
    def build():
        x = pm.Flat("x", shape=2)
        pm.Potential("ring", -0.5 * ((pm.math.sqrt((x**2).sum() + 1e-6) - 3) / 0.4) ** 2)

    return by_grid(build)


def cross():
    def build():
        x = pm.Flat("x", shape=2)
        arms = [-0.5 * ((x[0] / a) ** 2 + (x[1] / b) ** 2) for a, b in ((4, 0.4), (0.4, 4))]
        pm.Potential("cross", pm.math.logsumexp(pt.stack(arms)))

    return by_grid(build, -25, 25)


def unequal_modes():
    def build():
        x = pm.Flat("x", shape=2)
        wide = np.log(0.7) - 0.5 * (((x + 4) / 1.5) ** 2).sum() - 2 * np.log(1.5)
        narrow = np.log(0.3) - 0.5 * (((x - 5) / 0.3) ** 2).sum() - 2 * np.log(0.3)
        pm.Potential("modes", pm.math.logaddexp(wide, narrow))

    return by_grid(build)


def three_in_a_row():
    def build():
        x = pm.Flat("x")
        modes = [np.log(w) - 0.5 * (x - m) ** 2 for w, m in ((0.2, -8.0), (0.5, 0.0), (0.3, 9.0))]
        pm.Potential("modes", pm.math.logsumexp(pt.stack(modes)))

    return by_grid(build, -20, 20)


def rosenbrock():
    def build():
        x = pm.Flat("x", shape=2)
        pm.Potential("valley", -0.5 * (1 - x[0]) ** 2 - 4.0 * (x[1] - x[0] ** 2) ** 2)

    return by_grid(build, -10, 40)


def weak_box():
    def build():
        p = pm.Uniform("p", 0, 1, shape=2)
        pm.Normal("y", p.sum(), 1.0, observed=1.2)

    return by_grid(build, -25, 25)


def two_laplace():
    def build():
        x = pm.Laplace("x", 0, 1, shape=2)
        pm.Normal("y", x[0] - x[1], 0.5, observed=1.0)

    return by_grid(build)


def few_data_scale():
    return by_grid(
        lambda: pm.Normal("y", 0, pm.HalfCauchy("sigma", 1), observed=[0.3, -0.2]), -15, 15
    )


def hyperbola():
    def build():
        a, b = pm.Normal("a", 0, 2), pm.Normal("b", 0, 2)
        pm.Normal("y", a * b, 0.3, observed=2.0)

    return by_grid(build)


def one_shrunk_coefficient():
    def build():
        spread = pm.HalfCauchy("spread", 1)
        pm.Normal("y", pm.Normal("beta", 0, spread), 0.5, observed=0.4)

    return by_grid(build)


def poisson_lognormal():
    def build():
        mu = pm.Normal("mu", 0, 2)
        pm.Poisson("y", pm.math.exp(pm.Normal("z", mu, 1)), observed=[3])

    return by_grid(build)


def label_switching():
    rows = observed(20, lambda r: np.r_[r.normal(-1.5, 1, 15), r.normal(1.5, 1, 15)])

    def build():
        m = pm.Normal("m", 0, 3, shape=2)
        logps = [pm.logp(pm.Normal.dist(m[i], 1.0), rows) for i in (0, 1)]
        pm.Potential("y", pm.math.logaddexp(*logps).sum())

    return by_grid(build)


def censored_weibull():
    rows = observed(21, lambda r: 3 * r.weibull(1.5, size=20))
    late = rows > 3

    def build():
        alpha, beta = pm.HalfNormal("alpha", 3), pm.HalfNormal("beta", 5)
        pm.Weibull("y", alpha, beta, observed=rows[~late])
        pm.Potential("censored", -late.sum() * (3 / beta) ** alpha)

    return by_grid(build)


def geometric():
    return by_grid(lambda: pm.Geometric("y", pm.Beta("p", 1, 1), observed=[1, 4, 2, 9, 3]))


def kumaraswamy():
    rows = observed(22, lambda r: r.beta(2.0, 3.0, size=12))

    def build():
        a, b = pm.HalfNormal("a", 5), pm.HalfNormal("b", 5)
        pm.Kumaraswamy("y", a, b, observed=rows)

    return by_grid(build)


def plateau():
    """Level between soft walls: no Gaussian is like it."""

    def build():
        x = pm.Flat("x")
        pm.Potential("walls", -((x / 8) ** 10))

    return by_grid(build, -20, 20)


# More dimensions


def gaussian(n_dim, seed, spread=3.0):
    """A Gaussian whose principal axes differ, in any direction."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(n_dim, n_dim)))
    scales = np.exp(rng.uniform(-spread, spread, size=n_dim))
    precision = axes @ np.diag(scales**-2.0) @ axes.T
    with pm.Model() as model:
        x = pm.Flat("x", shape=n_dim)
        pm.Potential("density", -0.5 * x @ pt.as_tensor(precision) @ x)
    return model, (rng.normal(size=(S, n_dim)) * scales) @ axes.T


def student(n_dim, nu):
    rng = np.random.default_rng(23)
    root = np.tril(rng.normal(size=(n_dim, n_dim))) + 2 * np.eye(n_dim)
    with pm.Model() as model:
        pm.MvStudentT("x", nu=nu, mu=np.zeros(n_dim), scale=root @ root.T, shape=n_dim)
    normal = rng.normal(size=(S, n_dim)) @ root.T
    return model, normal / np.sqrt(rng.chisquare(nu, size=(S, 1)) / nu)


def shapes_that_differ():
    rng = np.random.default_rng(24)
    places = np.array([[-6.0, 0, 0], [6, 0, 0], [0, 8, 0]])
    scales = np.array([[2.0, 0.3, 1], [0.3, 2, 1], [1, 1, 0.2]])
    weights = np.array([0.5, 0.2, 0.3])
    with pm.Model() as model:
        x = pm.Flat("x", shape=3)
        terms = [
            np.log(w) - 0.5 * (((x - m) / s) ** 2).sum() - np.log(s).sum()
            for w, m, s in zip(weights, places, scales, strict=True)
        ]
        pm.Potential("density", pm.math.logsumexp(pt.stack(terms)))
    mode = rng.choice(3, S, p=weights)
    return model, places[mode] + scales[mode] * rng.normal(size=(S, 3))


def unknown_noise():
    """A regression with a conjugate prior: coefficients and noise, exactly."""
    rng = np.random.default_rng(25)
    x = rng.normal(size=(30, 4))
    y = x @ [1.0, -1, 0.5, 0] + 0.7 * rng.normal(size=30)
    with pm.Model() as model:
        variance = pm.InverseGamma("variance", 2, 1)
        beta = pm.Normal("beta", 0, pm.math.sqrt(variance) * 3, shape=4)
        pm.Normal("y", x @ beta, pm.math.sqrt(variance), observed=y)
    precision = x.T @ x + np.eye(4) / 9
    mean = np.linalg.solve(precision, x.T @ y)
    rate = 1 + 0.5 * (y @ y - mean @ precision @ mean)
    drawn = rate / rng.gamma(2 + 15, size=S)
    root = np.linalg.cholesky(np.linalg.inv(precision))
    coefficients = mean + np.sqrt(drawn)[:, None] * rng.normal(size=(S, 4)) @ root.T
    # beta is a site: unconstrained z is beta itself
    return model, np.column_stack([np.log(drawn), coefficients])


def bent_among_many():
    rng = np.random.default_rng(26)
    with pm.Model() as model:
        x = pm.Normal("x", 0, 1.5)
        pm.Normal("y", x**2 - 2, 0.4)
        pm.Normal("others", 0, 3, shape=10)
    x = 1.5 * rng.normal(size=S)
    bent = x**2 - 2 + 0.4 * rng.normal(size=S)
    return model, np.column_stack([x, bent, 3 * rng.normal(size=(S, 10))])


def log_gammas():
    rng = np.random.default_rng(27)
    shapes = np.linspace(0.4, 4, 10)
    with pm.Model() as model:
        pm.Gamma("x", shapes, 1.0)
    return model, np.log(rng.gamma(shapes, size=(S, 10)))


def two_scales(shape):
    x = pm.Flat("x", shape=shape)
    near, far = -0.5 * (x / 0.2) ** 2 - np.log(0.2), -0.5 * (x / 3) ** 2 - np.log(3)
    pm.Potential("density", pm.math.logaddexp(near, far).sum())


def student_funnel():
    rng = np.random.default_rng(28)
    with pm.Model() as model:
        v = pm.Normal("v", 0, 1.5)
        pm.StudentT("x", nu=5, mu=0, sigma=pm.math.exp(v), shape=3)
    v = 1.5 * rng.normal(size=(S, 1))
    return model, np.column_stack([v, np.exp(v) * rng.standard_t(5, size=(S, 3))])


def smooth_curve():
    """A Gaussian process with a known kernel, at thirty places, ten of them seen."""
    rng = np.random.default_rng(29)
    t = np.linspace(0, 3, 30)
    covariance = np.exp(-0.5 * (t[:, None] - t) ** 2) + 1e-4 * np.eye(30)
    seen = np.arange(0, 30, 3)
    y = np.sin(2 * t[seen]) + 0.2 * rng.normal(size=10)
    precision = np.linalg.inv(covariance)
    with pm.Model() as model:
        f = pm.Flat("f", shape=30)
        pm.Potential("prior", -0.5 * f @ pt.as_tensor(precision) @ f)
        pm.Normal("y", f[seen], 0.2, observed=y)
    of_data = np.zeros((30, 30))
    of_data[seen, seen] = 25.0
    posterior = np.linalg.inv(precision + of_data)
    mean = posterior[:, seen] @ (25.0 * y)
    return model, rng.multivariate_normal(mean, posterior, size=S)


def cauchy_coefficients(shape):
    x = pm.Cauchy("x", 0, 1, shape=shape)
    pm.Potential("data", -0.5 * ((x - 1.5) ** 2).sum())


def two_levels():
    """Groups of known spread around a mean, seen with known noise: all Gaussian."""
    rng = np.random.default_rng(30)
    y = rng.normal(2, np.hypot(1.0, 0.5), size=12)
    with pm.Model() as model:
        mean = pm.Normal("mean", 0, 5)
        pm.Normal("y", pm.Normal("group", mean, 1.0, shape=12), 0.5, observed=y)
    precision = np.zeros((13, 13))
    precision[0, 0] = 1 / 25 + 12
    precision[0, 1:] = precision[1:, 0] = -1
    precision[1:, 1:] = 5 * np.eye(12)
    covariance = np.linalg.inv(precision)
    centre = covariance @ np.r_[0, 4 * y]
    return model, rng.multivariate_normal(centre, covariance, size=S)


def spread_of_groups():
    """Twenty groups, whose spread has a prior with a heavy tail, and noise that is known."""
    rng = np.random.default_rng(31)
    y = rng.normal(0, np.hypot(0.3, 1.0), size=20)
    with pm.Model() as model:
        tau = pm.HalfCauchy("tau", 1)
        pm.Normal("y", pm.Normal("theta", 0, tau, shape=20), 1.0, observed=y)
    t = np.linspace(-12, 5, 20_000)
    variance = 1 + np.exp(2 * t)
    log_p = t - np.log1p(np.exp(2 * t)) - 10 * np.log(variance) - 0.5 * (y @ y) / variance
    p = np.exp(log_p - log_p.max())
    t = rng.choice(t, S, p=p / p.sum())
    share = (1 / (1 + np.exp(-2 * t)))[:, None]
    return model, np.column_stack([t, share * y + np.sqrt(share) * rng.normal(size=(S, 20))])


def in_one_place(n_components, place):
    return {"n_components": n_components, "start": np.tile(np.atleast_1d(place), (n_components, 1))}


# by model: what it is, and how it is fitted the second time
MODELS = {
    "exponential rate": (exponential_rate, early(6)),
    "negative binomial": (negative_binomial, early(8)),
    "Pareto tail": (pareto_tail, early(6)),
    "Cauchy location": (cauchy_location, ONE),
    "Laplace slope": (laplace_slope, early(8)),
    "no successes": (no_successes, early(10)),
    "zero-inflated Poisson": (zero_inflated, ONE),
    "degrees of freedom": (degrees_of_freedom, ONE),
    "probit": (probit, early(8)),
    "separated logistic": (separated_logistic, IDENTITY),
    "decay": (decay, IDENTITY),
    "frequency": (frequency, ONE),
    "Gumbel": (gumbel, early(8)),
    "Wald": (wald, ONE),
    "gamma shape and rate": (gamma_shape_and_rate, IDENTITY),
    "beta shapes": (beta_shapes, IDENTITY),
    "log-normal": (lognormal, early(10)),
    "one-sided": (one_sided, ONE),
    "autoregression": (autoregression, early(10)),
    "Michaelis-Menten": (michaelis_menten, IDENTITY),
    "skewness": (skewness, ONE),
    "ring": (ring, ONE),
    "cross": (cross, ONE),
    "unequal modes": (unequal_modes, in_one_place(50, [-4.0, -4.0])),
    "three in a row": (three_in_a_row, in_one_place(20, 0.0)),
    "Rosenbrock": (rosenbrock, ONE),
    "weak box": (weak_box, ONE),
    "two Laplace": (two_laplace, IDENTITY),
    "few data, scale": (few_data_scale, ONE),
    "hyperbola": (hyperbola, in_one_place(20, [1.4, 1.4])),
    "one shrunk coefficient": (one_shrunk_coefficient, AFFINE_ONE),
    "Poisson-log-normal": (poisson_lognormal, AFFINE_ONE),
    "label switching": (label_switching, ONE),
    "censored Weibull": (censored_weibull, early(8)),
    "geometric": (geometric, early(6)),
    "Kumaraswamy": (kumaraswamy, ONE),
    "plateau": (plateau, early(12)),
    "Gaussian, d = 20": (lambda: gaussian(20, 1), DIAGONAL),
    "Gaussian, d = 60": (lambda: gaussian(60, 2, 2.0), {"metric": "identity"}),
    "Student, d = 5": (lambda: student(5, 5), DIAGONAL),
    "shapes that differ": (shapes_that_differ, ONE),
    "unknown noise": (unknown_noise, early(12)),
    "bent among many": (bent_among_many, ONE),
    "log-gammas": (log_gammas, ONE),
    "two scales, d = 6": (lambda: independent(two_scales, 6), ONE),
    "Student funnel": (student_funnel, AFFINE_ONE),
    "smooth curve": (smooth_curve, DIAGONAL),
    "Cauchy coefficients": (lambda: independent(cauchy_coefficients, 15), early(8)),
    "two levels": (two_levels, early(10)),
    "spread of groups": (spread_of_groups, AFFINE),
}
