"""Autoregressions, walks, volatility, change points, differential equations, media mix."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"


def recursion(step, first, sequence, *constants):
    """First and what follows: ``step(element, last, *constants)`` over a sequence."""
    rest = pytensor.scan(
        step,
        sequences=[sequence],
        outputs_info=[first],
        non_sequences=list(constants),
        strict=True,
        return_updates=False,
    )
    return pt.concatenate([first[None], rest])


@published("ar(1)", f"{GALLERY}: Analysis of An AR(1) Model in PyMC, E. Herbst, C. Fonnesbeck")
def autoregression():
    rng = np.random.default_rng(1)
    y = np.zeros(10_000)
    noise = rng.normal(size=10_000)
    for t in range(1, 10_000):
        y[t] = 0.95 * y[t - 1] + noise[t]
    with pm.Model() as model:
        tau, coefficient = pm.Exponential("tau", 0.5), pm.Uniform("theta", -1, 1)
        centre = pm.Normal("center", 0, 1)
        rho = pt.stack([centre * (1 - coefficient), coefficient])
        start = pm.Normal.dist(0, 100)
        pm.AR("likelihood", rho=rho, tau=tau, constant=True, init_dist=start, observed=y[-100:])
    return model


@published(
    "structural time series", f"{GALLERY}: Forecasting with Structural AR Timeseries, N. Forde"
)
def structural_ar():
    """A latent AR(2) and a line, written with a latent series of 400 steps."""
    rng = np.random.default_rng(2)
    y = np.zeros(400)
    for t in range(1, 400):
        y[t] = -2 + 0.55 * y[t - 1] + 0.2 * y[t - 2] + rng.normal(0, 1)
    y += -0.3 + 0.05 * np.arange(400)
    steps = np.arange(400)
    with pm.Model(coords={"obs_id": steps}) as model:
        coefs = pm.Normal("coefs", [0.2, 0.2, 0.2], 0.5)
        sigma = pm.HalfNormal("sigma", 8)
        start = pm.Normal.dist(-1, 0.1, shape=2)
        ar1 = pm.AR(
            "ar", coefs, sigma=sigma, init_dist=start, constant=True, dims="obs_id", steps=398
        )
        alpha, beta = pm.Normal("alpha", -4, 0.2), pm.Normal("beta", 0.1, 0.2)
        trend = pm.Deterministic("trend", alpha + beta * steps, dims="obs_id")
        mu = pm.Deterministic("mu", ar1 + trend, dims="obs_id")
        pm.Normal("likelihood", mu, 1, observed=y, dims="obs_id")
    return model


@published(
    "structural time series, seasonal",
    f"{GALLERY}: Forecasting with Structural AR Timeseries, N. Forde",
)
def structural_seasonal():
    rng = np.random.default_rng(3)
    y = np.zeros(400)
    for t in range(1, 400):
        y[t] = 0.5 * y[t - 1] + 0.2 * y[t - 2] + rng.normal(0, 1)
    steps = np.arange(400)
    y += -0.3 + 0.05 * steps + 5 * np.sin(2 * np.pi * steps / 7)
    angle = 2 * np.pi * np.arange(1, 6)[:, None] * steps / 7
    fourier = np.concatenate([np.sin(angle), np.cos(angle)])[:6]  # three of each suffice for a week
    with pm.Model(coords={"obs_id": steps, "fourier": np.arange(6)}) as model:
        coefs = pm.Normal("coefs", [0.2, 0.2, 0.2], 0.5)
        sigma = pm.HalfNormal("sigma", 8)
        start = pm.Normal.dist(-1, 0.1, shape=2)
        ar1 = pm.AR(
            "ar", coefs, sigma=sigma, init_dist=start, constant=True, dims="obs_id", steps=398
        )
        alpha, beta = pm.Normal("alpha", -4, 0.2), pm.Normal("beta", 0.1, 0.2)
        weights = pm.Normal("beta_fourier", 0, 2, dims="fourier")
        seasonality = pm.Deterministic("seasonality", weights @ fourier, dims="obs_id")
        mu = pm.Deterministic("mu", ar1 + alpha + beta * steps + seasonality, dims="obs_id")
        pm.Normal("likelihood", mu, 1, observed=y, dims="obs_id")
    return model


@published("stochastic volatility", f"{GALLERY}: Stochastic Volatility model, J. Salvatier")
def stochastic_volatility():
    """Returns of 2905 days; their log volatility is a random walk."""
    rng = np.random.default_rng(4)
    volatility = np.cumsum(rng.normal(0, 0.08, 2905))
    returns = np.exp(-4.8 + 0.3 * np.tanh(volatility)) * rng.standard_t(8, 2905)
    with pm.Model(coords={"time": np.arange(2905)}) as model:
        step_size = pm.Exponential("step_size", 10)
        start = pm.Normal.dist(0, 100)
        walk = pm.GaussianRandomWalk("volatility", sigma=step_size, dims="time", init_dist=start)
        nu = pm.Exponential("nu", 0.1)
        pm.StudentT("returns", nu=nu, lam=pt.exp(-2 * walk), observed=returns, dims="time")
    return model


@published("stochastic volatility, ar", "Stan user's guide: stochastic volatility models")
def stochastic_volatility_ar():
    """Log volatility with a stationary start, written non-centred, 500 days."""
    rng = np.random.default_rng(5)
    h = np.zeros(500)
    for t in range(1, 500):
        h[t] = 0.95 * h[t - 1] + 0.25 * rng.normal()
    y = np.exp((h - 1) / 2) * rng.normal(size=500)
    with pm.Model() as model:
        mu = pm.Cauchy("mu", 0, 10)
        phi = pm.Uniform("phi", -1, 1)
        sigma = pm.HalfCauchy("sigma", 5)
        z = pm.Normal("h_std", 0, 1, shape=500)
        first = z[0] / pt.sqrt(1 - phi**2)
        rest = recursion(lambda noise, last, phi: phi * last + noise, first, z[1:], phi)
        h = pm.Deterministic("h", mu + sigma * rest)
        pm.Normal("y", 0, pt.exp(h / 2), observed=y)
    return model


@published("garch(1, 1)", "posteriordb: garch11")
def garch():
    rng = np.random.default_rng(6)
    y, sigma = np.zeros(200), 1.5
    y[0] = 5 + sigma * rng.normal()
    for t in range(1, 200):
        sigma = np.sqrt(1.3 + 0.5 * (y[t - 1] - 5) ** 2 + 0.25 * sigma**2)
        y[t] = 5 + sigma * rng.normal()
    with pm.Model() as model:
        mu, a0 = pm.Flat("mu"), pm.HalfFlat("alpha0")
        a1 = pm.Uniform("alpha1", 0, 1)
        b1 = pm.Uniform("beta1", 0, 1 - a1)
        variance = recursion(
            lambda square, last, b1: square + b1 * last,
            pt.as_tensor(np.array(1.5**2)),
            a0 + a1 * (y[:-1] - mu) ** 2,
            b1,
        )
        pm.Normal("y", mu, pt.sqrt(variance), observed=y)
    return model


@published("ar(5)", "posteriordb: arK")
def ar_five():
    rng = np.random.default_rng(7)
    y = list(rng.normal(size=5))
    for _ in range(195):
        y.append(np.dot([0.7, -0.3, 0.1, 0.05, -0.1], y[:-6:-1]) + 0.15 * rng.normal())
    y = np.array(y)
    lagged = np.column_stack([y[4 - k : 199 - k] for k in range(5)])
    with pm.Model() as model:
        alpha, beta = pm.Normal("alpha", 0, 10), pm.Normal("beta", 0, 10, shape=5)
        sigma = pm.HalfCauchy("sigma", 2.5)
        pm.Normal("y", alpha + lagged @ beta, sigma, observed=y[5:])
    return model


@published("arma(1, 1)", "posteriordb: arma11")
def arma():
    rng = np.random.default_rng(8)
    y, error = [0.0], [0.0]
    for _ in range(199):
        error.append(0.15 * rng.normal())
        y.append(0.1 + 0.8 * y[-1] + 0.4 * error[-2] + error[-1])
    y = np.array(y)
    with pm.Model() as model:
        mu, phi, theta = pm.Normal("mu", 0, 10), pm.Normal("phi", 0, 2), pm.Normal("theta", 0, 2)
        sigma = pm.HalfCauchy("sigma", 2.5)
        errors = recursion(
            lambda centred, last, theta: centred - theta * last,
            y[0] - (mu + phi * mu),
            y[1:] - mu - phi * y[:-1],
            theta,
        )
        pm.Potential("likelihood", pm.logp(pm.Normal.dist(0, sigma), errors).sum())
    return model


def macro_growth():
    """Quarterly growth of American output, investment and consumption, percent."""
    import statsmodels.datasets as data

    frame = data.macrodata.load_pandas().data
    return 100 * np.diff(np.log(frame[["realgdp", "realinv", "realcons"]].to_numpy()), axis=0)


@published("bvar", f"{GALLERY}: Bayesian Vector Autoregressive Models, N. Forde")
def bvar():
    """Two lags of two series, their errors correlated."""
    y = macro_growth()[:, :2]
    lags = np.stack([y[1:-1], y[:-2]], axis=1)  # (time, lag, equation)
    coords = {"lag": [1, 2], "equation": ["dgdp", "dinv"], "cross": ["dgdp", "dinv"]}
    with pm.Model(coords=coords) as model:
        intercept = pm.Normal("intercept", 0, 1, dims="equation")
        coefs = pm.Normal("lag_coefs", 0, 1, dims=("equation", "lag", "cross"))
        mean = intercept + pt.tensordot(lags, coefs, axes=[[1, 2], [1, 2]])
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("noise_chol", n=2, eta=1, sd_dist=sd)
        pm.MvNormal("obs", mean, chol=chol, observed=y[2:])
    return model


@published("hierarchical bvar", f"{GALLERY}: Bayesian Vector Autoregressive Models, N. Forde")
def hierarchical_bvar():
    """Eight countries, two lags of three series; coefficients and covariances by country."""
    rng = np.random.default_rng(9)
    base = np.array([[0.3, 0.05, 0.1], [0.6, 0.2, 0.5], [0.2, 0.0, 0.3]])
    series = []
    for _ in range(8):
        phi, y = base + rng.normal(0, 0.1, (3, 3)), np.zeros((50, 3))
        for t in range(1, 50):
            y[t] = [0.5, 0.3, 0.5] + phi @ y[t - 1] + rng.normal(0, [1, 2.5, 1.2])
        series.append(y)
    with pm.Model(coords={"equation": ["dgdp", "dcons", "dgfcf"], "lag": [1, 2]}) as model:
        rho = pm.Beta("rho", 2, 2)
        alpha_mean, alpha_sd = (
            pm.Normal("alpha_hat_location", 0, 0.1),
            pm.InverseGamma("alpha_hat_scale", 3, 0.5),
        )
        beta_mean, beta_sd = (
            pm.Normal("beta_hat_location", 0, 0.1),
            pm.InverseGamma("beta_hat_scale", 3, 0.5),
        )
        shared_sd = pm.Exponential.dist(1.0, shape=3)
        shared, *_ = pm.LKJCholeskyCov("omega_global", n=3, eta=1, sd_dist=shared_sd)
        for i, y in enumerate(series):
            z_scale = pm.InverseGamma(f"z_scale_beta_{i}", 3, 0.5)
            z_alpha = pm.InverseGamma(f"z_scale_alpha_{i}", 3, 0.5)
            coefs = pm.Normal(f"lag_coefs_{i}", beta_mean, beta_sd * z_scale, shape=(3, 2, 3))
            alpha = pm.Normal(f"alpha_{i}", alpha_mean, alpha_sd * z_alpha, dims="equation")
            lags = np.stack([y[1:-1], y[:-2]], axis=1)
            mean = alpha + pt.tensordot(lags, coefs, axes=[[1, 2], [1, 2]])
            own_sd = pm.Exponential.dist(1.0, shape=3)
            own, *_ = pm.LKJCholeskyCov(f"noise_chol_{i}", n=3, eta=10, sd_dist=own_sd)
            chol = rho * shared + (1 - rho) * own
            pm.MvNormal(f"obs_{i}", mean, chol=chol, observed=y[2:])
    return model


PASSENGERS = [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118]
PASSENGERS += [115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140]
PASSENGERS += [145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166]
PASSENGERS += [171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194]
PASSENGERS += [196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201]
PASSENGERS += [204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229]
PASSENGERS += [242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278]
PASSENGERS += [284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306]
PASSENGERS += [315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336]
PASSENGERS += [340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337]
PASSENGERS += [360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405]
PASSENGERS += [417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432]


@published("air passengers", f"{GALLERY}: Air passengers - Prophet-like model, M. Gorelli, D. Phan")
def air_passengers():
    """A line times a yearly Fourier series."""
    y = np.array(PASSENGERS) / max(PASSENGERS)
    t = np.arange(144) / 143
    order = np.arange(1, 11)
    angle = 2 * np.pi * order * (np.arange(144) / 12)[:, None]
    features = np.concatenate([np.cos(angle), np.sin(angle)[:, :-1]], axis=1)
    with pm.Model() as model:
        alpha, beta = pm.Normal("α", 0, 0.5), pm.Normal("β", 0, 0.5)
        trend = pm.Deterministic("trend", alpha + beta * t)
        weights = pm.Normal("β_fourier", 0, 0.1, shape=features.shape[1])
        seasonality = pm.Deterministic("seasonality", features @ weights)
        sigma = pm.HalfNormal("σ", 0.1)
        pm.Normal("likelihood", trend * (1 + seasonality), sigma, observed=y)
    return model


# two years without a record are given the counts of their neighbours
COAL = [4, 5, 4, 0, 1, 4, 3, 4, 0, 6, 3, 3, 4, 0, 2, 6, 3, 3, 5, 4, 5, 3, 1, 4, 4, 1, 5, 5, 3]
COAL += [4, 2, 5, 2, 2, 3, 4, 2, 1, 3, 2, 2, 1, 1, 1, 1, 3, 0, 0, 1, 0, 1, 1, 0, 0, 3, 1, 0]
COAL += [3, 2, 2, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 1, 1, 0, 2, 3, 3, 1, 1, 2]
COAL += [1, 1, 1, 1, 2, 4, 2, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1]


@published("coal mining", "Stan user's guide: change point models; PyMC's coal mining disasters")
def coal_mining():
    """The year of the change is summed out."""
    y = np.array(COAL)
    with pm.Model() as model:
        early, late = pm.Exponential("early_rate", 1), pm.Exponential("late_rate", 1)
        before = pt.cumsum(pm.logp(pm.Poisson.dist(early), y))
        after = pt.cumsum(pm.logp(pm.Poisson.dist(late), y)[::-1])[::-1]
        joint = before[:-1] + after[1:]
        pm.Potential("likelihood", pt.logsumexp(joint) - np.log(len(y) - 1))
        pm.Deterministic("year", 1852 + (pt.special.softmax(joint) * np.arange(len(y) - 1)).sum())
    return model


@published("interrupted time series", f"{GALLERY}: Interrupted time series analysis, B. T. Vincent")
def interrupted_series():
    """Deaths of England and Wales by month, temperature and a line, before the pandemic."""
    rng = np.random.default_rng(10)
    t = np.arange(170)
    month = t % 12
    temperature = 10 - 6 * np.cos(2 * np.pi * month / 12) + rng.normal(0, 1, 170)
    deaths = 45_000 + 25 * t - 700 * (temperature - 10) + rng.normal(0, 2000, 170)
    z = [(v - v.mean()) / v.std() for v in (deaths, t, temperature)]
    with pm.Model(coords={"month": np.arange(12)}) as model:
        intercept, b_t, b_temp = (
            pm.Normal(n, 0, 1) for n in ("intercept", "beta_time", "beta_temp")
        )
        effects = pm.ZeroSumNormal("month mu", 1, dims="month")
        mu = pm.Deterministic("mu", intercept + b_t * z[1] + effects[month] + b_temp * z[2])
        pm.TruncatedNormal("obs", mu, pm.HalfNormal("sigma", 1), lower=-4, observed=z[0])
    return model


@published("difference in differences", f"{GALLERY}: Difference in differences, B. T. Vincent")
def difference_in_differences():
    rng = np.random.default_rng(11)
    group, t = np.repeat([0, 1], 10), np.tile(np.repeat([0, 1], 5), 2).astype(float)
    y = 1 + 0.25 * t + 0.25 * group + 0.5 * t * group + rng.normal(0, 0.05, 20)
    with pm.Model() as model:
        intercept, delta = pm.Normal("control_intercept", 0, 5), pm.Normal("Δ", 0, 0.5)
        trend, treatment = pm.Normal("trend", 0, 5), pm.Normal("treatment effect", 0, 1)
        mu = pm.Deterministic("mu", intercept + delta * group + trend * t + treatment * t * group)
        pm.Normal("obs", mu, pm.HalfNormal("sigma", 1), observed=y)
    return model


@published("rolling regression", f"{GALLERY}: Rolling Regression, T. Wiecki")
def rolling_regression():
    """Intercept and slope of returns of gold miners on gold, each a random walk of 500 days."""
    rng = np.random.default_rng(12)
    x = rng.normal(0, 1, 500)
    slope = 0.9 + np.cumsum(rng.normal(0, 0.02, 500))
    y = 0.1 + slope * x + rng.normal(0, 0.3, 500)
    with pm.Model(coords={"time": np.arange(500)}) as model:
        sigma_alpha = pm.Exponential("sigma_alpha", 50)
        sigma_beta = pm.Exponential("sigma_beta", 50)
        start = pm.Normal.dist(0, 100)
        alpha = pm.GaussianRandomWalk("alpha", sigma=sigma_alpha, init_dist=start, dims="time")
        beta = pm.GaussianRandomWalk("beta", sigma=sigma_beta, init_dist=start, dims="time")
        sd = pm.HalfNormal("sd", 0.1)
        pm.Normal("y", alpha + beta * x, sd, observed=y)
    return model


@published(
    "multivariate random walk", f"{GALLERY}: Multivariate Gaussian Random Walk, L. Itzigsohn"
)
def multivariate_walk():
    """Three series whose intercepts and slopes walk together between ten sections of 200 rows."""
    rng = np.random.default_rng(13)
    section, t = np.repeat(np.arange(10), 20), np.arange(200) / 200
    cov = np.array([[1, 0.5, 0.2], [0.5, 1, 0.4], [0.2, 0.4, 1]])
    alpha = np.cumsum(rng.multivariate_normal(np.zeros(3), cov, 10), axis=0)
    beta = np.cumsum(rng.multivariate_normal(np.zeros(3), cov, 10), axis=0)
    y = alpha[section] + beta[section] * t[:, None] + rng.normal(0, 0.5, (200, 3))
    with pm.Model(coords={"series": np.arange(3), "section": np.arange(10)}) as model:
        walks = {}
        for name in ("alpha", "beta"):
            sd = pm.HalfCauchy.dist(2.5, shape=3)
            chol, *_ = pm.LKJCholeskyCov(f"chol_cov_{name}", n=3, eta=2, sd_dist=sd)
            z = pm.Normal(f"{name}_raw", 0, 1, dims=("section", "series"))
            steps = pt.concatenate([z[:1] * 3, pt.dot(z[1:], chol.T)])
            walks[name] = pm.Deterministic(
                name, pt.cumsum(steps, axis=0), dims=("section", "series")
            )
        mean = walks["alpha"][section] + walks["beta"][section] * t[:, None]
        sigma = pm.HalfNormal("sigma", 1, dims="series")
        pm.Normal("y", mean, sigma, observed=y)
    return model


@published(
    "ornstein-uhlenbeck", f"{GALLERY}: Inferring parameters of SDEs using a Euler-Maruyama scheme"
)
def euler_maruyama():
    rng = np.random.default_rng(14)
    x, path = 0.0, []
    for _ in range(2000):
        x += -0.78 * x * 0.1 + np.sqrt(0.1) * 0.5 * rng.normal()
        path.append(x)
    z = np.array(path)[::10] + rng.normal(0, 0.05, 200)
    with pm.Model() as model:
        lam = pm.Normal("l", 0, 1)
        s = pm.Uniform("s", 0.005, 0.5)
        x = pm.EulerMaruyama(
            "xh",
            dt=0.1,
            sde_fn=lambda x, lam, s: (-lam * x, s),
            sde_pars=(lam, s),
            shape=200,
            init_dist=pm.Normal.dist(0, 1),
            initval=z,
        )
        pm.Normal("zh", x, 5e-2, observed=z)
    return model


@published(
    "local level, nile",
    "Stan state space examples, J. Arnold: the local level of the Nile (Durbin, Koopman)",
)
def nile():
    import statsmodels.datasets as data

    y = data.nile.load_pandas().data["volume"].to_numpy()
    with pm.Model(coords={"year": np.arange(1871, 1971)}) as model:
        sigma_level, sigma = pm.HalfNormal("sigma_level", 100), pm.HalfNormal("sigma", 200)
        level = pm.GaussianRandomWalk(
            "level", sigma=sigma_level, init_dist=pm.Normal.dist(1000, 300), dims="year"
        )
        pm.Normal("volume", level, sigma, observed=y, dims="year")
    return model


@published(
    "local linear trend",
    "stan-statespace, sinhrks: Commandeur and Koopman's level, slope and season",
)
def local_linear_trend():
    """A level whose slope walks too, with a season; 192 months, as the UK drivers."""
    rng = np.random.default_rng(15)
    slope = np.cumsum(rng.normal(0, 0.02, 192))
    level = 7 + np.cumsum(0.05 * slope + rng.normal(0, 0.05, 192))
    season = 0.2 * np.sin(2 * np.pi * np.arange(12) / 12)
    y = level + season[np.arange(192) % 12] + rng.normal(0, 0.08, 192)
    with pm.Model(coords={"month": np.arange(12), "time": np.arange(192)}) as model:
        sds = [pm.HalfNormal(f"sigma_{n}", 0.2) for n in ("slope", "level", "irregular")]
        start = pm.Normal.dist(0, 0.1)
        slope = pm.GaussianRandomWalk("slope", sigma=sds[0], init_dist=start, dims="time")
        z = pm.Normal("level_z", 0, 1, dims="time")
        first = pm.Normal("level_0", 7, 2)
        steps = pt.concatenate([first[None], slope[:-1] + sds[1] * z[1:]])
        level = pm.Deterministic("level", pt.cumsum(steps), dims="time")
        season = pm.ZeroSumNormal("season", 0.5, dims="month")
        pm.Normal("y", level + season[np.arange(192) % 12], sds[2], observed=y, dims="time")
    return model


@published("hidden markov model", "posteriordb: hmm_example", report=("mu", "theta"))
def hidden_markov():
    """Two states, normal emissions; the forward algorithm sums them out."""
    rng = np.random.default_rng(16)
    state, y = 0, []
    for _ in range(100):
        state = state if rng.uniform() < 0.8 else 1 - state
        y.append(rng.normal((3, 10)[state], 1))
    y = np.array(y)
    with pm.Model() as model:
        theta = pm.Dirichlet("theta", np.ones((2, 2)))
        ordered = pm.distributions.transforms.ordered
        mu = pm.Normal("mu", [3, 10], 1, transform=ordered, initval=[3, 10], shape=2)
        emission = pm.logp(pm.Normal.dist(mu, 1), y[:, None])
        forward = recursion(
            lambda own, last, log_theta: pt.logsumexp(last[:, None] + log_theta, axis=0) + own,
            emission[0],
            emission[1:],
            pt.log(theta),
        )
        pm.Potential("likelihood", pt.logsumexp(forward[-1]))
    return model


def runge_kutta(rate, state, times, substeps, *parameters):
    """States at the times by the classical fourth-order method."""
    sizes = np.repeat(np.diff(times) / substeps, substeps)

    def step(h, state, *parameters):
        k1 = rate(state, *parameters)
        k2 = rate(state + h / 2 * k1, *parameters)
        k3 = rate(state + h / 2 * k2, *parameters)
        k4 = rate(state + h * k3, *parameters)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return recursion(step, state, pt.as_tensor(sizes), *parameters)[::substeps]


HARE = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1, 40.3, 57.0, 76.6, 52.3]
HARE += [19.5, 11.2, 7.6, 14.6, 16.2, 24.7]
LYNX = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4, 8.0, 12.3, 19.5, 45.7, 51.1]
LYNX += [29.7, 15.8, 9.7, 10.1, 8.6]


@published(
    "lotka-volterra",
    "Stan case studies: Predator-Prey Population Dynamics, B. Carpenter; posteriordb",
)
def lotka_volterra():
    y = np.column_stack([HARE, LYNX])
    with pm.Model() as model:
        theta = pm.TruncatedNormal(
            "theta", [1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05], lower=0,
            initval=[0.5, 0.025, 0.8, 0.025],
        )  # fmt: skip
        start = pm.LogNormal("z_init", np.log(10), 1, shape=2, initval=[30.0, 4.0])
        sigma = pm.LogNormal("sigma", -1, 1, shape=2)

        def rate(z, theta):
            growth = theta[0] - theta[1] * z[1]
            return pt.stack([growth * z[0], (theta[3] * z[0] - theta[2]) * z[1]])

        z = runge_kutta(rate, start, np.arange(21), 4, theta)
        pm.LogNormal("y", pt.log(z), sigma, observed=y)
    return model


@published(
    "sir epidemic",
    "Stan case studies: Bayesian workflow for disease transmission, L. Grinsztajn et al.",
)
def sir():
    """Influenza in a boarding school of 763, fourteen days, negative binomial."""
    cases = [3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]
    with pm.Model() as model:
        beta = pm.TruncatedNormal("beta", 2, 1, lower=0)
        gamma = pm.TruncatedNormal("gamma", 0.4, 0.5, lower=0)
        phi_inverse = pm.Exponential("phi_inv", 5)

        def rate(z, beta, gamma):
            infected = beta * z[0] * z[1] / 763
            return pt.stack([-infected, infected - gamma * z[1], gamma * z[1]])

        start = pt.as_tensor(np.array([762.0, 1.0, 0.0]))
        z = runge_kutta(rate, start, np.arange(15), 4, beta, gamma)
        mean = pt.maximum(z[1:, 1], 1e-6)
        pm.NegativeBinomial("cases", mu=mean, alpha=1 / phi_inverse, observed=cases)
        pm.Deterministic("R0", beta / gamma)
        pm.Deterministic("recovery_time", 1 / gamma)
    return model


@published(
    "pharmacokinetics",
    "posteriordb: one_comp_mm_elim_abs; absorption, Michaelis-Menten elimination",
)
def pharmacokinetics():
    rng = np.random.default_rng(17)
    times = np.concatenate([[0.0], np.linspace(0.5, 10, 20)])

    def rate(z, k_a, k_m, v_m, library=pt):
        absorbed = k_a * z[1]
        cleared = v_m / 0.45 * z[0] / (k_m + z[0])
        return library.stack([absorbed / 0.45 - cleared, -absorbed])

    state, path = np.array([0.0, 10.0]), []
    for _ in range(20):
        for _ in range(50):
            state = state + 0.01 * rate(state, 0.75, 0.25, 1.0, np)
        path.append(max(state[0], 1e-3))
    y = np.exp(np.log(path) + rng.normal(0, 0.1, 20))
    with pm.Model() as model:
        k_a, k_m, v_m = (pm.HalfCauchy(n, 1) for n in ("k_a", "K_m", "V_m"))
        sigma = pm.HalfCauchy("sigma", 1)
        z = runge_kutta(rate, pt.as_tensor(np.array([0.0, 10.0])), times, 4, k_a, k_m, v_m)
        pm.LogNormal("C_hat", pt.log(pt.maximum(z[1:, 0], 1e-6)), sigma, observed=y)
    return model


@published(
    "media mix",
    "pymc-marketing: MMM Example Notebook, J. Orduz; geometric adstock, logistic saturation",
)
def media_mix():
    rng = np.random.default_rng(18)
    n = 179
    x1, x2 = np.abs(rng.normal(0.4, 0.25, n)), rng.uniform(0, 1, n) * (rng.uniform(size=n) > 0.6)
    x1, x2 = x1 / x1.max(), x2 / x2.max()

    def adstock(x, alpha, library):
        weights = alpha ** np.arange(8)
        weights = weights / weights.sum()
        padded = np.concatenate([np.zeros(7), x])
        windows = np.stack([padded[7 - k : 7 - k + n] for k in range(8)], axis=1)
        return library.dot(windows, weights)

    t = np.arange(n)
    event1, event2 = (t == 40).astype(float), (t == 120).astype(float)
    angle = 2 * np.pi * np.arange(1, 3) * (t / 52)[:, None]
    fourier = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    saturated = [
        1 - 2 / (1 + np.exp(r * adstock(x, a, np))) for x, a, r in ((x1, 0.4, 4), (x2, 0.2, 3))
    ]
    y = 0.35 + 0.2 * t / n + 0.3 * saturated[0] + 0.2 * saturated[1] + 0.05 * event1 + 0.1 * event2
    y = y + 0.03 * fourier[:, 0] + rng.normal(0, 0.02, n)
    coords = {"channel": ["x1", "x2"], "control": ["event_1", "event_2", "t"], "fourier": range(4)}
    with pm.Model(coords=coords) as model:
        intercept = pm.Normal("intercept", 0.5, 0.2)
        alpha = pm.Beta("adstock_alpha", 1, 3, dims="channel")
        lam = pm.Gamma("saturation_lam", 3, 1, dims="channel")
        beta = pm.HalfNormal("saturation_beta", [0.5, 0.3], dims="channel")
        gamma_control = pm.Normal("gamma_control", 0, 0.05, dims="control")
        gamma_fourier = pm.Laplace("gamma_fourier", 0, 0.2, dims="fourier")
        contributions = []
        for i, x in enumerate((x1, x2)):
            carried = adstock(x, alpha[i], pt)
            saturated = (1 - pt.exp(-lam[i] * carried)) / (1 + pt.exp(-lam[i] * carried))
            contributions.append(beta[i] * saturated)
        pm.Deterministic("channel_contribution", pt.stack(contributions, axis=1))
        controls = np.column_stack([event1, event2, t])
        mu = intercept + sum(contributions) + controls @ gamma_control + fourier @ gamma_fourier
        pm.Normal("y", mu, pm.HalfNormal("y_sigma", 2), observed=y)
    return model


@published(
    "loss curves", "Stan case studies: Modelling Loss Curves in Insurance, M. Cooney; posteriordb"
)
def loss_curves():
    rng = np.random.default_rng(19)
    cohort, t = np.nonzero(np.add.outer(np.arange(10), np.arange(10)) < 10)
    t = t + 1.0
    premium = rng.normal(8000, 1000, 10)
    ratio = np.exp(rng.normal(-0.3, 0.15, 10))
    growth = t**1.3 / (t**1.3 + 2.0**1.3)
    loss = ratio[cohort] * premium[cohort] * growth + 100 * rng.normal(size=len(t))
    with pm.Model(coords={"cohort": np.arange(10)}) as model:
        omega, theta = pm.LogNormal("omega", 0, 0.5), pm.LogNormal("theta", 0, 0.5)
        mu_lr, sd_lr = pm.Normal("mu_LR", 0, 0.5), pm.LogNormal("sd_LR", 0, 0.5)
        ratio = pm.LogNormal("LR", mu_lr, sd_lr, dims="cohort")
        loss_sd = pm.LogNormal("loss_sd", 0, 0.7)
        growth = t**omega / (t**omega + theta**omega)
        mean = ratio[cohort] * premium[cohort] * growth
        pm.Normal("loss", mean, loss_sd * premium[cohort], observed=loss)
    return model
