"""Animals that are not always seen, counts in the field, growth and doses."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published


@published(
    "occupancy", "Stan case studies: Multi-species occupancy, M. Joseph; posteriordb: butterfly"
)
def occupancy():
    """Twenty-eight species seen, fifty supposed, twenty sites of eighteen visits."""
    rng = np.random.default_rng(1)
    sites, visits, n, total = 20, 18, 28, 50
    effects = rng.multivariate_normal([0, 0], [[4, 0.5], [0.5, 1.5]], n)
    present = rng.uniform(size=(n, sites)) < 1 / (1 + np.exp(-effects[:, :1] + 0.5))
    y = rng.binomial(visits, 1 / (1 + np.exp(-effects[:, 1:] + 1.5))) * present
    with pm.Model(coords={"species": np.arange(total)}) as model:
        alpha, beta = pm.Cauchy("alpha", 0, 2.5), pm.Cauchy("beta", 0, 2.5)
        omega = pm.Beta("Omega", 2, 2)
        sigma = pm.HalfCauchy("sigma_uv", 2.5, shape=2)
        rho = 2 * pm.Beta("rho_raw", 2, 2) - 1
        z = pm.Normal("z", 0, 1, shape=(total, 2))
        u = sigma[0] * z[:, 0]
        v = sigma[1] * (rho * z[:, 0] + pt.sqrt(1 - rho**2) * z[:, 1])
        logit_psi = pm.Deterministic("logit_psi", alpha + u, dims="species")
        logit_theta = pm.Deterministic("logit_theta", beta + v, dims="species")
        log_psi, log_not = -pt.softplus(-logit_psi)[:, None], -pt.softplus(logit_psi)[:, None]
        seen = pm.logp(pm.Binomial.dist(visits, logit_p=logit_theta[:n, None]), y)
        never = -visits * pt.softplus(logit_theta)[:, None]
        at_site = pt.switch(
            y > 0, log_psi[:n] + seen, pt.logaddexp(log_psi[:n] + seen, log_not[:n])
        )
        hidden = sites * pt.logaddexp(log_psi[n:] + never[n:], log_not[n:])[:, 0]
        likelihood = at_site.sum() + n * pt.log(omega)
        likelihood += pt.logaddexp(pt.log(omega) + hidden, pt.log1p(-omega)).sum()
        pm.Potential("likelihood", likelihood)
    return model


def captures(rng, n, occasions, p):
    """Histories of those that were caught at least once."""
    y = rng.binomial(1, p, (n, occasions))
    return y[y.sum(1) > 0]


@published("capture-recapture, m0", "posteriordb: M0_model (Kery and Schaub), H. Itô")
def capture_constant():
    """87 animals seen in three occasions, 150 more supposed."""
    y = captures(np.random.default_rng(2), 100, 3, 0.5)
    counts, extra = y.sum(1), 150
    with pm.Model() as model:
        omega, p = pm.Uniform("omega", 0, 1), pm.Uniform("p", 0, 1)
        seen = pt.log(omega) + pm.logp(pm.Binomial.dist(3, p), counts)
        never = pt.logaddexp(pt.log(omega) + 3 * pt.log1p(-p), pt.log1p(-omega))
        pm.Potential("likelihood", seen.sum() + extra * never)
    return model


@published("capture-recapture, mtb", "posteriordb: Mtb_model (Kery and Schaub), H. Itô")
def capture_behaviour():
    """Occasions differ, and animals that were caught shun traps."""
    rng = np.random.default_rng(3)
    first = np.array([0.3, 0.4, 0.5, 0.25, 0.35])
    y = np.zeros((150, 5), int)
    for t in range(5):
        caught = y[:, t - 1] if t else np.zeros(150)
        y[:, t] = rng.uniform(size=150) < np.where(caught, first[t] * 0.6, first[t])
    y = y[y.sum(1) > 0]
    before = np.column_stack([np.zeros(len(y)), y[:, :-1]])
    with pm.Model() as model:
        omega = pm.Uniform("omega", 0, 1)
        alpha = pm.Normal("alpha", 0, 2, shape=5)
        gamma = pm.Normal("gamma", 0, 2)
        eta = alpha + gamma * before
        seen = pt.log(omega) + (y * eta - pt.softplus(eta)).sum(1)
        never = pt.logaddexp(pt.log(omega) - pt.softplus(alpha).sum(), pt.log1p(-omega))
        pm.Potential("likelihood", seen.sum() + 150 * never)
    return model


@published("capture-recapture, mh", "posteriordb: Mh_model (Kery and Schaub), H. Itô")
def capture_heterogeneous():
    """Animals differ in how readily they are caught: 385 latent effects."""
    rng = np.random.default_rng(4)
    p = 1 / (1 + np.exp(-rng.normal(-1, 1, 200)))
    y = captures(rng, 200, 5, p[:, None]).sum(1)
    n, total = len(y), 385
    with pm.Model() as model:
        omega, mean_p = pm.Uniform("omega", 0, 1), pm.Uniform("mean_p", 0, 1)
        sigma = pm.Uniform("sigma", 0, 5)
        z = pm.Normal("eps_raw", 0, 1, shape=total)
        eps = pm.Deterministic("eps", pm.math.logit(mean_p) + sigma * z)
        seen = pt.log(omega) + pm.logp(pm.Binomial.dist(5, logit_p=eps[:n]), y)
        never = pt.logaddexp(pt.log(omega) - 5 * pt.softplus(eps[n:]), pt.log1p(-omega))
        pm.Potential("likelihood", seen.sum() + never.sum())
    return model


@published(
    "cormack-jolly-seber", "Stan user's guide: Cormack-Jolly-Seber; dippers of Lebreton et al."
)
def cormack_jolly_seber():
    """Survival of 294 birds between seven years, given capture."""
    rng = np.random.default_rng(5)
    y = np.zeros((294, 7), int)
    first = rng.integers(0, 6, 294)
    for i, start in enumerate(first):
        y[i, start] = alive = 1
        for t in range(start + 1, 7):
            alive = alive and rng.uniform() < 0.56
            y[i, t] = alive and rng.uniform() < 0.9
    last = 6 - y[:, ::-1].argmax(1)
    with pm.Model(coords={"year": np.arange(6)}) as model:
        phi, p = pm.Uniform("phi", 0, 1, dims="year"), pm.Uniform("p", 0, 1, dims="year")
        unseen = [pt.as_tensor(np.array(1.0))]
        for t in reversed(range(6)):
            unseen.append(1 - phi[t] + phi[t] * (1 - p[t]) * unseen[-1])
        unseen = pt.stack(unseen[::-1])  # never again from year t on
        later = np.arange(1, 7)
        between = (later > first[:, None]) & (later <= last[:, None])
        seen = y[:, 1:] * pt.log(p) + (1 - y[:, 1:]) * pt.log1p(-p) + pt.log(phi)
        pm.Potential("likelihood", (between * seen).sum() + pt.log(unseen)[last].sum())
    return model


@published("peregrines", "posteriordb: GLM_Poisson_model (Kery and Schaub), H. Itô")
def peregrines():
    rng = np.random.default_rng(6)
    year = (np.arange(40) - 20) / 20
    counts = rng.poisson(np.exp(4 + 1.2 * year + 0.07 * year**2 - 0.24 * year**3))
    with pm.Model() as model:
        alpha = pm.Uniform("alpha", -20, 20)
        beta = pm.Uniform("beta", -10, 10, shape=3)
        log_lambda = alpha + beta[0] * year + beta[1] * year**2 + beta[2] * year**3
        pm.Poisson("C", pt.exp(log_lambda), observed=counts)
    return model


@published("tits", "posteriordb: GLMM1_model (Kery and Schaub), H. Itô; coal tits by site")
def tits():
    """235 sites, nine years, centred effects of sites, a tenth of the counts missing."""
    rng = np.random.default_rng(7)
    rate = np.exp(rng.normal(2, 1.2, 235))[:, None]
    counts = rng.poisson(rate, (235, 9))
    seen = rng.uniform(size=(235, 9)) > 0.1
    site = np.nonzero(seen)[0]
    with pm.Model(coords={"site": np.arange(235)}) as model:
        mu = pm.Normal("mu_alpha", 0, 10)
        sigma = pm.Uniform("sd_alpha", 0, 5)
        alpha = pm.Normal("alpha", mu, sigma, dims="site")
        pm.Poisson("obs", pt.exp(alpha)[site], observed=counts[seen])
    return model


@published("dugongs", "posteriordb: dugongs_model (BUGS examples), Ratkowsky")
def dugongs():
    age = np.array([1, 1.5, 1.5, 1.5, 2.5, 4, 5, 5, 7, 8, 8.5, 9, 9.5, 9.5, 10, 12, 12, 13, 13])
    age = np.append(age, [14.5, 15.5, 15.5, 16.5, 17, 22.5, 29, 31.5])
    length = [1.8, 1.85, 1.87, 1.77, 2.02, 2.27, 2.15, 2.26, 2.47, 2.19, 2.26, 2.4, 2.39, 2.41]
    length += [2.5, 2.32, 2.32, 2.43, 2.47, 2.56, 2.65, 2.47, 2.64, 2.56, 2.7, 2.72, 2.57]
    with pm.Model() as model:
        alpha, beta = pm.Normal("alpha", 0, 1000), pm.Normal("beta", 0, 1000)
        rate = pm.Uniform("lambda", 0.5, 1)
        tau = pm.Gamma("tau", 1e-4, 1e-4)
        pm.Deterministic("sigma", tau**-0.5)
        pm.Normal("Y", alpha - beta * rate**age, tau=tau, observed=length)
    return model


@published("soil carbon", "Stan case studies: Soil Carbon Modeling, B. Carpenter; posteriordb")
def soil_carbon():
    """Two pools that feed each other and decay: the CO2 that has evolved by 25 times."""
    rng = np.random.default_rng(8)
    times = np.linspace(1, 70, 25)
    evolved = 7.7 * (0.6 * (1 - np.exp(-0.06 * times)) + 0.1 * times / 70)
    y = np.abs(evolved + 0.1 * rng.normal(size=25))
    with pm.Model() as model:
        k1, k2 = pm.HalfNormal("k1", 1), pm.HalfNormal("k2", 1)
        a21, a12 = pm.HalfNormal("alpha21", 1), pm.HalfNormal("alpha12", 1)
        gamma, sigma = pm.Beta("gamma", 10, 1), pm.HalfCauchy("sigma", 1)
        # the linear system in closed form, by its eigenvalues
        trace, det = -(k1 + k2), k1 * k2 - a12 * k2 * a21 * k1
        root = pt.sqrt(pt.square(trace) / 4 - det + 1e-12)
        fast, slow = trace / 2 - root, trace / 2 + root
        c1, c2 = 7.7 * gamma, 7.7 * (1 - gamma)
        total = c1 + c2
        rate = -k1 * c1 + a12 * k2 * c2 - k2 * c2 + a21 * k1 * c1
        b = (rate - slow * total) / (fast - slow)
        remaining = b * pt.exp(fast * times) + (total - b) * pt.exp(slow * times)
        pm.Normal("eCO2", total - remaining, sigma, observed=y)
    return model


@published("dose response", "rstanemax: sigmoidal Emax models, K. Yoshida; here of twenty assays")
def dose_response():
    """Twenty assays of eight doses, a sigmoid each, all four parameters vary."""
    rng = np.random.default_rng(9)
    assay, log_dose = np.repeat(np.arange(20), 8), np.tile(np.linspace(-3, 3, 8), 20)
    ec50, top, slope = rng.normal(0, 0.7, 20), rng.normal(10, 1, 20), rng.lognormal(0.2, 0.2, 20)
    y = 1 + top[assay] / (1 + np.exp(-slope[assay] * (log_dose - ec50[assay])))
    y += 0.5 * rng.normal(size=160)
    with pm.Model(coords={"assay": np.arange(20)}) as model:
        bottom = pm.Normal("bottom", 0, 2)
        parts = {}
        for name, mean, sd in (("top", 10, 5), ("log_ec50", 0, 2), ("log_slope", 0, 1)):
            mu, scale = pm.Normal(f"mu_{name}", mean, sd), pm.HalfNormal(f"sd_{name}", 1)
            parts[name] = pm.Normal(name, mu, scale, dims="assay")[assay]
        curve = pm.math.sigmoid(pt.exp(parts["log_slope"]) * (log_dose - parts["log_ec50"]))
        pm.Normal("y", bottom + parts["top"] * curve, pm.HalfNormal("sigma", 1), observed=y)
    return model


@published("n-mixture", "Stan examples: N-mixture model of repeated counts (Royle, 2004)")
def n_mixture():
    """Abundance at 150 sites, three visits; the abundance is summed out to sixty."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=150)
    abundance = rng.poisson(np.exp(1.2 + 0.7 * x))
    y = rng.binomial(abundance[:, None], 0.45, (150, 3))
    n = np.arange(61)
    from scipy.special import gammaln

    top = n[None, :, None]
    choose = np.where(
        top >= y[:, None],
        gammaln(top + 1) - gammaln(y[:, None] + 1) - gammaln(np.maximum(top - y[:, None], 0) + 1),
        -1e10,
    ).sum(-1)
    misses = np.maximum(3 * n - y.sum(1)[:, None], 0)
    with pm.Model() as model:
        alpha, beta = pm.Normal("alpha", 0, 3, shape=2), pm.Normal("beta", 0, 2)
        log_rate = alpha[0] + alpha[1] * x
        log_p, log_q = -pt.softplus(-beta), -pt.softplus(beta)
        prior = n * log_rate[:, None] - pt.exp(log_rate)[:, None] - gammaln(n + 1)
        likelihood = choose + y.sum(1)[:, None] * log_p + misses * log_q
        pm.Potential("likelihood", pt.logsumexp(prior + likelihood, axis=1).sum())
    return model
