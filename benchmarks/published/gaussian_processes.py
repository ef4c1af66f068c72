"""Gaussian processes: marginal, latent, of several outputs, and in a Hilbert-space basis."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"


def draw(rng, x, length, amplitude=1.0):
    """A smooth function at points on a line."""
    cov = amplitude**2 * np.exp(-0.5 * (np.subtract.outer(x, x) / length) ** 2)
    return np.linalg.cholesky(cov + 1e-6 * np.eye(len(x))) @ rng.normal(size=len(x))


@published(
    "gp, marginal", f"{GALLERY}: Marginal Likelihood Implementation, B. Engels, C. Fonnesbeck"
)
def gp_marginal():
    rng = np.random.default_rng(1)
    x = np.linspace(0, 10, 100)
    y = draw(rng, x, 1.0, 3.0) + 2 * rng.normal(size=100)
    with pm.Model() as model:
        ell = pm.Gamma("ell", alpha=2, beta=1)
        eta = pm.HalfCauchy("eta", 5)
        gp = pm.gp.Marginal(cov_func=eta**2 * pm.gp.cov.Matern52(1, ell))
        sigma = pm.HalfCauchy("sigma", 5)
        gp.marginal_likelihood("y", X=x[:, None], y=y, sigma=sigma)
    return model


@published(
    "gp, robust", f"{GALLERY}: Gaussian Processes: Latent Variable Implementation, B. Engels"
)
def gp_robust():
    """Fifty points with noise of Student's t."""
    rng = np.random.default_rng(2)
    x = np.linspace(0, 10, 50)
    y = draw(rng, x, 1.0, 4.0) + rng.standard_t(5, 50)
    with pm.Model() as model:
        ell = pm.Gamma("ell", alpha=2, beta=1)
        eta = pm.HalfNormal("eta", 5)
        gp = pm.gp.Latent(cov_func=eta**2 * pm.gp.cov.ExpQuad(1, ell))
        f = gp.prior("f", X=x[:, None])
        sigma, nu = pm.HalfNormal("sigma", 2), 1 + pm.Gamma("nu", alpha=2, beta=0.1)
        pm.StudentT("y", mu=f, lam=1.0 / sigma, nu=nu, observed=y)
    return model


@published(
    "gp classification", f"{GALLERY}: Gaussian Processes: Latent Variable Implementation, B. Engels"
)
def gp_classification():
    """Three hundred points."""
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1.5, 300)
    y = rng.binomial(1, 1 / (1 + np.exp(-(1 + draw(rng, x, 0.1, 1.5)))))
    with pm.Model() as model:
        ell = pm.InverseGamma("ell", mu=1.0, sigma=0.5)
        eta = pm.Exponential("eta", 1)
        gp = pm.gp.Latent(cov_func=eta**2 * pm.gp.cov.ExpQuad(1, ell))
        f = gp.prior("f", X=x[:, None])
        pm.Bernoulli("y", p=pm.math.invlogit(f), observed=y)
    return model


@published("gp, poisson", "posteriordb: gp_pois_regr, R. Trangucci")
def gp_poisson():
    x = np.linspace(-10, 10, 11)
    counts = [40, 37, 29, 12, 4, 3, 9, 19, 77, 82, 33]
    with pm.Model() as model:
        rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
        z = pm.Normal("f_tilde", 0, 1, shape=11)
        distance = np.subtract.outer(x, x) ** 2
        cov = alpha**2 * pt.exp(-0.5 * distance / rho**2) + 1e-10 * np.eye(11)
        f = pm.Deterministic("f", pt.dot(pt.linalg.cholesky(cov), z))
        pm.Poisson("k", pt.exp(f), observed=counts)
    return model


@published("gp, regression", "posteriordb: gp_regr, R. Trangucci")
def gp_regression():
    rng = np.random.default_rng(4)
    x = np.linspace(-10, 10, 11)
    y = draw(rng, x, 5.5, 3.0) + 2 * rng.normal(size=11)
    with pm.Model() as model:
        rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
        sigma = pm.HalfNormal("sigma", 1)
        cov = alpha**2 * pt.exp(-0.5 * np.subtract.outer(x, x) ** 2 / rho**2)
        pm.MvNormal("y", np.zeros(11), cov=cov + sigma * np.eye(11), observed=y)
    return model


@published("hsgp", f"{GALLERY}: HSGP Reference & First Steps, B. Engels, A. Andorra")
def hsgp():
    """Two thousand points, a basis of 200 for a process in one dimension."""
    rng = np.random.default_rng(5)
    x = np.sort(rng.uniform(0, 100, 2000))
    grid = np.linspace(0, 100, 500)
    y = np.interp(x, grid, draw(rng, grid, 1.0, 3.0)) + 2 * rng.normal(size=2000)
    with pm.Model() as model:
        ell = pm.LogNormal("ell", 0.5, 0.5)
        eta = pm.Exponential("eta", scale=5)
        gp = pm.gp.HSGP(m=[200], c=1.2, cov_func=eta**2 * pm.gp.cov.Matern52(1, ls=ell))
        f = gp.prior("f", X=x[:, None])
        pm.Normal("y", f, pm.Exponential("sigma", 1), observed=y)
    return model


@published("hsgp, hierarchical", f"{GALLERY}: HSGP Advanced Usage, A. Andorra, B. Engels")
def hsgp_hierarchical():
    """A shared process and ten of groups, whose amplitudes and lengths are related."""
    rng = np.random.default_rng(6)
    x = np.linspace(0, 10, 60)
    shared = draw(rng, x, 2.0, 1.5)
    own = np.column_stack([draw(rng, x, 1.2, 0.6) for _ in range(10)])
    y = shared[:, None] + own + 0.4 * rng.normal(size=(60, 10))
    centred = x - x.mean()
    with pm.Model(coords={"gp": np.arange(10), "basis": np.arange(20), "time": x}) as model:
        ell_mean, eta_mean = pm.LogNormal("ell_mean", 0.5, 0.4), pm.Exponential("eta_mean", 1)
        trend = pm.gp.HSGP(m=[20], c=1.8, cov_func=eta_mean**2 * pm.gp.cov.Matern52(1, ls=ell_mean))
        f_mean = trend.prior("f_mean", X=centred[:, None], dims="time")
        mu_ell, sd_ell = pm.Normal("log_ell_mu", 0, 0.5), pm.HalfNormal("log_ell_sd", 0.3)
        z = pm.Normal("log_ell_z", 0, 1, dims="gp")
        ell = pm.Deterministic("ell", pt.exp(mu_ell + sd_ell * z), dims="gp")
        scale = pm.Gamma("scale", mu=0.7, sigma=0.3)
        basis, _ = pm.gp.HSGP(
            m=[20], c=1.8, cov_func=pm.gp.cov.Matern52(1, ls=1.0)
        ).prior_linearized(centred[:, None])
        omega = np.arange(1, 21) * np.pi / (2 * 1.8 * np.abs(centred).max())
        # the spectral density of a Matern 5/2 kernel in one dimension
        density = 16 * 5**2.5 / 3 / ell[:, None] ** 5 * (5 / ell[:, None] ** 2 + omega**2) ** -3
        coefficients = pm.Normal("z_gp", 0, 1, dims=("gp", "basis"))
        weights = scale * coefficients * pt.sqrt(density)
        f = pm.Deterministic("f", f_mean[:, None] + pt.dot(basis, weights.T), dims=("time", "gp"))
        pm.Normal("y", f, pm.Exponential("sigma", 1), observed=y, dims=("time", "gp"))
    return model


@published("baby births", f"{GALLERY}: Baby Births Modelling with HSGPs, J. Orduz")
def births():
    """7305 days: a slow trend, a periodic year, days of the week by a zero-sum normal."""
    rng = np.random.default_rng(7)
    t = np.arange(7305)
    year, week = 2 * np.pi * t / 365.25, t % 7
    y = 0.3 * np.sin(t / 1500) + 0.2 * np.cos(year) - 0.1 * np.cos(2 * year)
    y += np.array([0.1, 0.3, 0.2, 0.2, 0.2, -0.4, -0.6])[week] + 0.3 * rng.normal(size=7305)
    scaled = (t - t.mean()) / t.std()
    per_year = 365.25 / t.std()
    with pm.Model(coords={"time": t, "day": np.arange(7)}) as model:
        amplitude = pm.LogNormal("amplitude_trend", np.log(0.3), 0.5)
        ls = pm.LogNormal("ls_trend", np.log(0.7), 0.5)
        kernel = amplitude**2 * pm.gp.cov.ExpQuad(1, ls=ls)
        f_trend = pm.gp.HSGP(m=[20], c=1.5, cov_func=kernel).prior("f_trend", X=scaled[:, None])
        scale = pm.HalfNormal("amplitude_year", 0.5)
        periodic = pm.gp.cov.Periodic(
            1, period=per_year, ls=pm.LogNormal("ls_year", np.log(1), 0.5)
        )
        gp = pm.gp.HSGPPeriodic(m=20, scale=scale, cov_func=periodic)
        f_year = gp.prior("f_year", X=scaled[:, None])
        day = pm.ZeroSumNormal("b_day_of_week", 1, dims="day")
        nu = pm.Gamma("nu", 8, 2)
        sigma = pm.HalfNormal("sigma", 0.5)
        pm.StudentT(
            "y", nu=nu, mu=f_trend + f_year + day[week], sigma=sigma, observed=y, dims="time"
        )
    return model


@published("gp, heteroskedastic", f"{GALLERY}: Heteroskedastic Gaussian Processes, J. Goertz")
def gp_heteroskedastic():
    """Latent processes for the mean and for the log of the noise; 20 inputs, 5 repeats."""
    rng = np.random.default_rng(8)
    x = np.tile(np.linspace(0, 1, 20), 5)
    mean = np.sin(2 * np.pi * x) * 0.8
    sd = 0.1 + 0.4 * x
    y = (mean + sd * rng.normal(size=100) - mean.mean()) / mean.std()
    inputs = np.linspace(0, 1, 20)[:, None]
    at = np.tile(np.arange(20), 5)
    with pm.Model() as model:
        ell = pm.InverseGamma("ell", mu=0.4, sigma=0.2)
        eta = pm.Gamma("eta", alpha=2, beta=1)
        mean_gp = pm.gp.Latent(cov_func=eta**2 * pm.gp.cov.ExpQuad(1, ls=ell))
        f = mean_gp.prior("f", X=inputs)
        sigma_ell = pm.InverseGamma("sigma_ell", mu=0.4, sigma=0.2)
        sigma_eta = pm.Gamma("sigma_eta", alpha=2, beta=1)
        cov = sigma_eta**2 * pm.gp.cov.ExpQuad(1, ls=sigma_ell)
        noise_gp = pm.gp.Latent(mean_func=pm.gp.mean.Constant(np.log(0.3)), cov_func=cov)
        log_sigma = noise_gp.prior("lg_sigma_f", X=inputs)
        pm.Normal("y", f[at], pt.exp(log_sigma)[at], observed=y)
    return model


@published(
    "motorcycle",
    "posteriordb: accel_gp (brms: heteroskedastic basis-function processes), A. Vehtari",
)
def motorcycle():
    """133 accelerations: a basis of forty for the mean and of twenty for the log of the noise."""
    rng = np.random.default_rng(9)
    x = np.sort(rng.gamma(4, 6.5, 133))
    y = -100 * np.exp(-(((x - 21) / 6) ** 2)) + 40 * np.exp(-(((x - 33) / 6) ** 2))
    y += rng.normal(0, np.where(x < 14, 2, 22))
    scaled = (x - x.mean()) / np.abs(x - x.mean()).max()
    with pm.Model() as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=-13, sigma=36)
        sigma_intercept = pm.StudentT("Intercept_sigma", nu=3, mu=0, sigma=10)
        parts = []
        for name, m, spread in (("mean", 40, 36.0), ("sigma", 20, 10.0)):
            sd = pm.HalfStudentT(f"sdgp_{name}", nu=3, sigma=spread)
            ls = pm.InverseGamma(f"lscale_{name}", 1.124909, 0.0177)
            z = pm.Normal(f"zgp_{name}", 0, 1, shape=m)
            omega = np.arange(1, m + 1) * np.pi / (2 * 1.25)
            basis = np.sin(omega * (scaled[:, None] + 1.25)) / np.sqrt(1.25)
            density = sd * pt.sqrt(np.sqrt(2 * np.pi) * ls) * pt.exp(-0.25 * ls**2 * omega**2)
            parts.append(basis @ (density * z))
        pm.Normal("y", intercept + parts[0], pt.exp(sigma_intercept + parts[1]), observed=y)
    return model


COREGION = (
    f"{GALLERY}: Multi-output Gaussian Processes: Coregionalization models, D. Phan, B. Engels"
)


@published("gp, several outputs", COREGION)
def gp_coregion():
    """Spin rates of five pitchers over time, Hadamard product of an input and an output kernel."""
    rng = np.random.default_rng(10)
    day = np.tile(np.arange(0, 40, 1.0), 5)
    pitcher = np.repeat(np.arange(5), 40)
    latent = np.column_stack([draw(rng, np.arange(40.0), 8) for _ in range(2)])
    mixing = rng.normal(size=(5, 2))
    y = (latent @ mixing.T).T.ravel() + 0.4 * rng.normal(size=200)
    y = (y - y.mean()) / y.std()
    x = np.column_stack([day, pitcher])
    with pm.Model() as model:
        ell = pm.Gamma("ell", alpha=2, beta=0.5)
        eta = pm.Gamma("eta", alpha=3, beta=1)
        cov = eta**2 * pm.gp.cov.ExpQuad(2, ls=ell, active_dims=[0])
        w = pm.Normal("W", 0, 3, shape=(5, 2), initval=rng.normal(size=(5, 2)))
        kappa = pm.Gamma("kappa", alpha=1.5, beta=1, shape=5)
        coregion = pm.gp.cov.Coregion(2, W=w, kappa=kappa, active_dims=[1])
        pm.Deterministic("B", w @ w.T + pt.diag(kappa))
        sigma = pm.HalfNormal("sigma", 3)
        gp = pm.gp.Marginal(cov_func=cov * coregion)
        gp.marginal_likelihood("y", x, y, sigma=sigma)
    return model


@published(
    "gp, kronecker", f"{GALLERY}: Kronecker Structured Covariances, R.-I. Vasiliu, B. Engels"
)
def gp_kronecker():
    rng = np.random.default_rng(11)
    x1, x2 = np.linspace(0, 5, 30)[:, None], np.linspace(0, 3, 20)[:, None]
    field = np.outer(draw(rng, x1[:, 0], 1.0), draw(rng, x2[:, 0], 1.0))
    y = field.ravel() + 0.25 * rng.normal(size=600)
    with pm.Model() as model:
        ls1, ls2 = pm.Gamma("ls1", alpha=4, beta=4), pm.Gamma("ls2", alpha=4, beta=4)
        eta = pm.HalfNormal("eta", 2)
        covs = [pm.gp.cov.ExpQuad(1, ls=ls1), eta**2 * pm.gp.cov.ExpQuad(1, ls=ls2)]
        gp = pm.gp.MarginalKron(cov_funcs=covs)
        sigma = pm.HalfNormal("sigma", 0.5)
        gp.marginal_likelihood("y", Xs=[x1, x2], y=y, sigma=sigma)
    return model


@published("student-t process", f"{GALLERY}: Student-t Process, M. Kochurov, B. Engels")
def student_process():
    """A hundred counts, a Poisson rate by a T process."""
    rng = np.random.default_rng(12)
    x = np.linspace(0, 10, 100)
    y = rng.poisson((1.0 + 0.3 * draw(rng, x, 1.0, 3.0)) ** 2)
    with pm.Model() as model:
        ell = pm.Gamma("ell", alpha=2, beta=2)
        eta = pm.HalfCauchy("eta", 3)
        nu = pm.Gamma("nu", alpha=2, beta=1)
        process = pm.gp.TP(scale_func=eta**2 * pm.gp.cov.ExpQuad(1, ell), nu=nu + 2.0)
        f = process.prior("f", X=x[:, None])
        pm.Poisson("y", mu=pt.square(f) + 1e-6, observed=y)
    return model


@published(
    "gp, circular", f"{GALLERY}: Gaussian Process (GP) smoothing of circular data, M. Kochurov"
)
def gp_circular():
    """A process over angles, a Weinland kernel."""
    rng = np.random.default_rng(13)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 80))
    y = np.sin(angle) + 0.5 * np.cos(3 * angle) + 0.2 * rng.normal(size=80)
    with pm.Model() as model:
        eta, tau = pm.HalfNormal("eta", 1), pm.HalfNormal("tau_", 10)
        kernel = pm.gp.cov.Circular(1, period=2 * np.pi, tau=tau + 4)
        gp = pm.gp.Marginal(cov_func=eta**2 * kernel)
        sigma = pm.HalfNormal("sigma", 1)
        gp.marginal_likelihood("y", X=angle[:, None], y=y, sigma=sigma)
    return model


@published("carbon dioxide", f"{GALLERY}: Gaussian Process for CO2 at Mauna Loa, B. Engels")
def carbon_dioxide():
    """Quarterly means since 1958: trend, period that decays, medium-term process, noise."""
    import statsmodels.datasets as data

    series = data.co2.load_pandas().data["co2"].resample("QS").mean().interpolate()
    y = series.to_numpy()
    t = np.arange(len(y)) / 4 / 10  # decades
    first, scale = y[0], y.std()
    y = (y - first) / scale
    with pm.Model() as model:
        n_per, n_med, n_trend = (
            pm.HalfCauchy("η_per", 2, initval=1.0),
            pm.HalfCauchy("η_med", 0.5, initval=0.1),
            pm.HalfCauchy("η_trend", 2, initval=2.0),
        )
        l_pdecay, l_psmooth = (
            pm.Gamma("ℓ_pdecay", alpha=10, beta=0.075),
            pm.Gamma("ℓ_psmooth", alpha=4, beta=3),
        )
        period = pm.Normal("period", 1 / 10, 0.005)
        l_med, alpha = pm.Gamma("ℓ_med", alpha=2, beta=0.75), pm.Gamma("α", alpha=5, beta=2)
        l_trend = pm.Gamma("ℓ_trend", alpha=4, beta=0.1)
        cov = pm.gp.cov
        seasonal = n_per**2 * cov.Periodic(1, period, l_psmooth) * cov.Matern52(1, l_pdecay)
        medium = n_med**2 * cov.RatQuad(1, l_med, alpha)
        trend = n_trend**2 * cov.ExpQuad(1, l_trend)
        gp = pm.gp.Marginal(cov_func=seasonal) + pm.gp.Marginal(cov_func=medium)
        gp = gp + pm.gp.Marginal(cov_func=trend)
        n_noise, l_noise = (
            pm.HalfNormal("η_noise", 0.5, initval=0.05),
            pm.Gamma("ℓ_noise", alpha=2, beta=4),
        )
        sigma = pm.HalfNormal("σ", 0.25, initval=0.05)
        noise = n_noise**2 * cov.Matern32(1, l_noise) + cov.WhiteNoise(sigma)
        gp.marginal_likelihood("y", X=t[:, None], y=y, sigma=noise)
    return model
