"""Choices, ratings and purchases: logits, comparisons, item responses, customers, diffusions."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"
DISCRETE = f"{GALLERY}: Discrete Choice and Random Utility Models, N. Forde"


def log_beta(x, y):
    return pt.gammaln(x) + pt.gammaln(y) - pt.gammaln(x + y)


def softmax_rows(utility):
    return np.exp(utility) / np.exp(utility).sum(axis=-1, keepdims=True)


def heating():
    """900 households, five systems, costs of installation and operation."""
    rng = np.random.default_rng(1)
    install, operate = (
        rng.normal([780, 960, 990, 820, 1050], 100, (900, 5)),
        rng.normal([170, 160, 480, 430, 220], 30, (900, 5)),
    )
    utility = -0.002 * install - 0.006 * operate + np.array([1.7, 0.3, 1.6, 1.8, 0])
    p = softmax_rows(utility)
    return install, operate, np.array([rng.choice(5, p=row) for row in p])


@published("heating choice", DISCRETE)
def heating_choice():
    install, operate, choice = heating()
    coords = {"alternative": ["gc", "gr", "ec", "er", "hp"], "obs": np.arange(900)}
    with pm.Model(coords=coords) as model:
        b_install, b_operate = pm.Normal("beta_ic", 0, 1), pm.Normal("beta_oc", 0, 1)
        alphas = pm.Normal("alpha", 0, 1, shape=4)
        utility = pt.concatenate([alphas, [0.0]]) + b_install * install + b_operate * operate
        p = pm.Deterministic("p", pm.math.softmax(utility, axis=1), dims=("obs", "alternative"))
        pm.Categorical("y", p=p, observed=choice, dims="obs")
    return model


@published("heating choice, correlated", DISCRETE)
def heating_correlated():
    """Intercepts with a covariance by LKJ."""
    install, operate, choice = heating()
    coords = {"alternative": ["gc", "gr", "ec", "er"], "obs": np.arange(900)}
    with pm.Model(coords=coords) as model:
        b_install, b_operate = pm.Normal("beta_ic", 0, 1), pm.Normal("beta_oc", 0, 1)
        sd = pm.Exponential.dist(1.0, shape=4)
        chol, *_ = pm.LKJCholeskyCov("chol", n=4, eta=2, sd_dist=sd)
        alphas = pm.MvNormal("alpha", 0, chol=chol, dims="alternative")
        utility = pt.concatenate([alphas, [0.0]]) + b_install * install + b_operate * operate
        pm.Categorical("y", logit_p=utility, observed=choice, dims="obs")
    return model


@published("crackers, mixed logit", DISCRETE)
def crackers():
    """3156 purchases of 136 persons, four brands, intercepts of each person."""
    rng = np.random.default_rng(2)
    person = np.sort(rng.integers(0, 136, 3156))
    display, feature = rng.binomial(1, 0.1, (2, 3156, 4))
    price = rng.normal([0.68, 0.95, 0.88, 0.55], 0.1, (3156, 4))
    own = rng.normal(0, 1, (136, 4)) * [0.8, 1.0, 0.6, 0]
    utility = 0.1 * display + 0.4 * feature - 3 * price + [0.5, 1.2, -1, 0] + own[person]
    choice = np.array([rng.choice(4, p=row) for row in softmax_rows(utility)])
    coords = {"alternative": ["sunshine", "keebler", "nabisco"], "person": np.arange(136)}
    with pm.Model(coords=coords) as model:
        b_display, b_feature = pm.Normal("beta_disp", 0, 1), pm.Normal("beta_feat", 0, 1)
        b_price = pm.TruncatedNormal("beta_price", 0, 1, upper=0)
        alpha = pm.Normal("alpha", 0, 1, dims="alternative")
        sd = pm.HalfNormal("sd_person", 1, dims="alternative")
        z = pm.Normal("z_person", 0, 1, dims=("person", "alternative"))
        effects = pm.Deterministic(
            "beta_individual", alpha + sd * z, dims=("person", "alternative")
        )
        last = pt.zeros((3156, 1))
        utility = pt.concatenate([effects[person], last], axis=1)
        utility = utility + b_display * display + b_feature * feature + b_price * price
        pm.Categorical("y", logit_p=utility, observed=choice)
    return model


@published("hierarchical logit", "Stan case studies: Hierarchical multinomial logit, J. Savage")
def hierarchical_logit():
    """200 persons, ten tasks of three products; four attributes with a covariance of tastes."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 10, 3, 4))
    factor = 0.5 * rng.normal(size=(4, 4)) + np.eye(4)
    taste = np.array([1, -1, 0.5, 0]) + rng.normal(size=(200, 4)) @ factor.T
    utility = np.einsum("ntjk,nk->ntj", x, taste)
    choice = np.array([rng.choice(3, p=row) for row in softmax_rows(utility).reshape(-1, 3)])
    with pm.Model(coords={"person": np.arange(200), "attribute": np.arange(4)}) as model:
        mean = pm.Normal("mean", 0, 1, dims="attribute")
        sd = pm.HalfNormal.dist(1, shape=4)
        chol, *_ = pm.LKJCholeskyCov("chol", n=4, eta=4, sd_dist=sd)
        z = pm.Normal("z", 0, 1, dims=("person", "attribute"))
        taste = pm.Deterministic("taste", mean + pt.dot(z, chol.T), dims=("person", "attribute"))
        utility = (x * taste[:, None, None, :]).sum(-1).reshape((2000, 3))
        pm.Categorical("y", logit_p=utility, observed=choice)
    return model


@published(
    "mode choice", "Stan user's guide: multi-logit regression; Greene's travel modes (statsmodels)"
)
def mode_choice():
    import statsmodels.datasets as data

    frame = data.modechoice.load_pandas().data
    x = frame[["gc", "ttme"]].to_numpy().reshape(210, 4, 2)
    income = frame["hinc"].to_numpy().reshape(210, 4)[:, 0]
    x, income = (x - x.mean((0, 1))) / x.std((0, 1)), (income - income.mean()) / income.std()
    choice = frame["choice"].to_numpy().reshape(210, 4).argmax(1)
    with pm.Model() as model:
        alpha, beta = pm.Normal("alpha", 0, 5, shape=3), pm.Normal("beta", 0, 5, shape=2)
        gamma = pm.Normal("gamma", 0, 5, shape=3)
        own = pt.concatenate([alpha + gamma * income[:, None], pt.zeros((210, 1))], axis=1)
        pm.Categorical("y", logit_p=own + x @ beta, observed=choice)
    return model


@published("bradley-terry", "Stan case studies: Bradley-Terry rankings, B. Carpenter")
def bradley_terry():
    """Fifty players, five hundred matches, abilities with an unknown spread."""
    rng = np.random.default_rng(4)
    ability = rng.normal(0, 1.2, 50)
    player = np.array([rng.choice(50, 2, replace=False) for _ in range(500)])
    win = rng.binomial(1, 1 / (1 + np.exp(ability[player[:, 0]] - ability[player[:, 1]])))
    with pm.Model(coords={"player": np.arange(50)}) as model:
        sigma = pm.LogNormal("sigma", 0, 0.5)
        alpha = pm.Normal("alpha", 0, sigma, dims="player")
        pm.Bernoulli("y", logit_p=alpha[player[:, 1]] - alpha[player[:, 0]], observed=win)
    return model


@published(
    "foul calls",
    f"{GALLERY}: NBA Foul Analysis with Item Response Theory, A. Rochford, L. Itzigsohn",
)
def foul_calls():
    """Rasch: the disadvantaged player's ability and the committing one's."""
    rng = np.random.default_rng(5)
    committing, disadvantaged = rng.integers(0, 100, (2, 7000))
    theta, b = rng.normal(0, 0.5, 100), rng.normal(0, 0.4, 100)
    eta = -0.4 + theta[disadvantaged] - b[committing]
    foul = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    coords = {"disadvantaged": np.arange(100), "committing": np.arange(100)}
    with pm.Model(coords=coords) as model:
        mu_theta, sigma_theta = pm.Normal("mu_theta", 0, 100), pm.HalfCauchy("sigma_theta", 2.5)
        z_theta = pm.Normal("Delta_theta", 0, 1, dims="disadvantaged")
        theta = pm.Deterministic("theta", z_theta * sigma_theta + mu_theta, dims="disadvantaged")
        sigma_b = pm.HalfCauchy("sigma_b", 2.5)
        z_b = pm.Normal("Delta_b", 0, 1, dims="committing")
        b = pm.Deterministic("b", z_b * sigma_b, dims="committing")
        eta = theta[disadvantaged] - b[committing]
        pm.Bernoulli("y", logit_p=eta, observed=foul)
    return model


@published("item response, 2pl", "posteriordb: irt_2pl (Stan case studies: D. C. Furr)")
def item_response():
    rng = np.random.default_rng(6)
    a, theta, b = rng.lognormal(0, 0.5, 20), rng.normal(0, 1, 100), rng.normal(0, 1, 20)
    y = rng.binomial(1, 1 / (1 + np.exp(-a[:, None] * (theta - b[:, None]))))
    with pm.Model(coords={"item": np.arange(20), "person": np.arange(100)}) as model:
        sigma_theta, sigma_a, sigma_b = (
            pm.HalfCauchy(name, 2) for name in ("sigma_theta", "sigma_a", "sigma_b")
        )
        mu_b = pm.Normal("mu_b", 0, 5)
        theta = pm.Normal("theta", 0, sigma_theta, dims="person")
        a = pm.LogNormal("a", 0, sigma_a, dims="item")
        b = pm.Normal("b", mu_b, sigma_b, dims="item")
        pm.Bernoulli("y", logit_p=a[:, None] * (theta - b[:, None]), observed=y)
    return model


@published(
    "graded responses",
    "Bayesian Item Response Modeling with brms and Stan, P.-C. Bürkner: graded responses",
)
def graded_responses():
    """316 persons, 24 items of verbal aggression with three grades; a slope of each item."""
    rng = np.random.default_rng(7)
    theta, slope = rng.normal(0, 1, 316), rng.lognormal(0, 0.3, 24)
    cuts = np.sort(rng.normal(0, 1.2, (24, 2)), axis=1)
    latent = slope * theta[:, None] + rng.logistic(size=(316, 24))
    y = (latent[..., None] > cuts).sum(-1)
    with pm.Model(coords={"person": np.arange(316), "item": np.arange(24)}) as model:
        theta = pm.Normal("theta", 0, 1, dims="person")
        slope = pm.LogNormal("slope", 0, 1, dims="item")
        start = np.tile([-1.0, 1.0], (24, 1))
        ordered = pm.distributions.transforms.ordered
        cuts = pm.Normal("cuts", 0, 3, shape=(24, 2), transform=ordered, initval=start)
        pm.OrderedLogistic(
            "y", eta=slope * theta[:, None], cutpoints=cuts, compute_p=False, observed=y
        )
    return model


def purchases():
    """Frequency, recency and age of 2357 customers in weeks, as CDNOW's."""
    rng = np.random.default_rng(8)
    n = 2357
    age = rng.uniform(27, 39, n)
    rate, drop = rng.gamma(0.24, 1 / 4.4, n), rng.beta(0.8, 2.4, n)
    frequency, recency = np.zeros(n), np.zeros(n)
    for i in range(n):
        t = rng.exponential(1 / max(rate[i], 1e-9))
        while t < age[i]:
            frequency[i] += 1
            recency[i] = t
            if rng.uniform() < drop[i]:
                break
            t += rng.exponential(1 / max(rate[i], 1e-9))
    return frequency, recency, age


@published("bg/nbd", "pymc-marketing: BG/NBD Model, after Fader, Hardie and Lee (2005)")
def bg_nbd():
    x, t_x, age = purchases()
    with pm.Model() as model:
        a, b, alpha, r = (pm.HalfFlat(name) for name in ("a", "b", "alpha", "r"))
        a1 = pt.gammaln(r + x) - pt.gammaln(r) + r * pt.log(alpha)
        a2 = pt.gammaln(a + b) + pt.gammaln(b + x) - pt.gammaln(b) - pt.gammaln(a + b + x)
        a3 = -(r + x) * pt.log(alpha + age)
        a4 = pt.log(a) - pt.log(b + pt.maximum(x, 1) - 1) - (r + x) * pt.log(t_x + alpha)
        pm.Potential("likelihood", (a1 + a2 + pt.switch(x > 0, pt.logaddexp(a3, a4), a3)).sum())
    return model


@published("bg/nbd, hierarchical", "pymc-marketing: BG/NBD with pooled dropout (kappa, phi) priors")
def bg_nbd_pooled():
    x, t_x, age = purchases()
    with pm.Model() as model:
        phi = pm.Uniform("phi_dropout", 0, 1)
        kappa = pm.Pareto("kappa_dropout", alpha=1, m=1)
        a = pm.Deterministic("a", phi * kappa)
        b = pm.Deterministic("b", (1 - phi) * kappa)
        alpha, r = pm.Weibull("alpha", alpha=2, beta=10), pm.Weibull("r", alpha=2, beta=1)
        a1 = pt.gammaln(r + x) - pt.gammaln(r) + r * pt.log(alpha)
        a2 = pt.gammaln(a + b) + pt.gammaln(b + x) - pt.gammaln(b) - pt.gammaln(a + b + x)
        a3 = -(r + x) * pt.log(alpha + age)
        a4 = pt.log(a) - pt.log(b + pt.maximum(x, 1) - 1) - (r + x) * pt.log(t_x + alpha)
        pm.Potential("likelihood", (a1 + a2 + pt.switch(x > 0, pt.logaddexp(a3, a4), a3)).sum())
    return model


@published("gamma-gamma spend", "pymc-marketing: Gamma-Gamma Model, after Fader and Hardie (2013)")
def gamma_gamma():
    rng = np.random.default_rng(9)
    x = rng.geometric(0.35, 946)
    nu = rng.gamma(3.7, 1 / 15.4, 946)
    spend = rng.gamma(6.25 * x, 1 / (nu * x))
    with pm.Model() as model:
        p, q, v = pm.HalfFlat("p"), pm.HalfFlat("q"), pm.HalfFlat("v")
        log_p = pt.gammaln(p * x + q) - pt.gammaln(p * x) - pt.gammaln(q) + q * pt.log(v)
        log_p += (p * x - 1) * np.log(spend) + p * x * np.log(x)
        log_p -= (p * x + q) * pt.log(x * spend + v)
        pm.Potential("likelihood", log_p.sum())
    return model


@published(
    "contract retention", "pymc-marketing: shifted beta-geometric model, Fader and Hardie (2007)"
)
def shifted_beta_geometric():
    """Two cohorts of a thousand, eight years."""
    rng = np.random.default_rng(10)
    churn = rng.beta(np.repeat([[0.7], [0.5]], 1000, 1), np.repeat([[1.2], [0.4]], 1000, 1))
    years = rng.geometric(np.clip(churn, 1e-6, 1))
    left = np.array([[(row == t).sum() for t in range(1, 8)] for row in years])
    stayed = (years > 7).sum(1)
    t = np.arange(1, 8)
    with pm.Model(coords={"cohort": ["regular", "highend"]}) as model:
        phi, kappa = pm.Uniform("phi", 0, 1, dims="cohort"), pm.Pareto("kappa", 1, 1, dims="cohort")
        alpha = pm.Deterministic("alpha", phi * kappa, dims="cohort")
        beta = pm.Deterministic("beta", (1 - phi) * kappa, dims="cohort")
        a, b = alpha[:, None], beta[:, None]
        died = (left * (log_beta(a + 1, b + t - 1) - log_beta(a, b))).sum()
        alive = (stayed * (log_beta(alpha, beta + 7) - log_beta(alpha, beta))).sum()
        pm.Potential("likelihood", died + alive)
    return model


def log_first_passage(t, drift, boundary, start):
    """Log density of the lower boundary's first passage, both of Navarro and Fuss's series.

    Seven terms of each, which suffices for either at the times where it is taken.
    """
    scaled = t / boundary**2
    k = np.arange(-3, 4)[:, None]
    w = start + 2 * k
    small = (w * pt.exp(-(w**2) / (2 * scaled))).sum(0) / pt.sqrt(2 * np.pi * scaled**3)
    n = np.arange(1, 8)[:, None]
    waves = n * pt.exp(-(n**2) * np.pi**2 * scaled / 2) * pt.sin(n * np.pi * start)
    large = np.pi * waves.sum(0)
    density = pt.maximum(pt.switch(scaled < 0.25, small, large), 1e-29)
    exponent = -drift * boundary * start - drift**2 * t / 2
    return pt.log(density) + exponent - 2 * pt.log(boundary)


def simulate_diffusion(rng, n, drift, boundary, start, delay):
    """Times and boundaries by small steps."""
    x, t = np.full(n, start * boundary), np.zeros(n)
    running = np.ones(n, bool)
    while running.any():
        x[running] += drift * 2e-3 + np.sqrt(2e-3) * rng.normal(size=running.sum())
        t[running] += 2e-3
        running &= (x > 0) & (x < boundary) & (t < 20)
    return t + delay, x >= boundary


def diffusion_likelihood(rt, upper, v, a, z, t):
    decision = pt.maximum(rt - t, 1e-4)
    signed, start = pt.switch(upper, -v, v), pt.switch(upper, 1 - z, z)
    below = pt.switch(rt > t, 0.0, -100.0 * (t - rt) - 66)
    return pt.switch(rt > t, log_first_passage(decision, signed, a, start), below)


@published(
    "drift diffusion", "HSSM: Main Tutorial, A. Fengler et al.; likelihood of Navarro and Fuss"
)
def drift_diffusion():
    rng = np.random.default_rng(11)
    rt, upper = simulate_diffusion(rng, 500, 0.5, 3.0, 0.5, 0.5)
    with pm.Model() as model:
        v = pm.Normal("v", 0, 2)
        a = pm.HalfNormal("a", 2, initval=2.0)
        z = pm.Uniform("z", 0.1, 0.9)
        t = pm.HalfNormal("t", 2, initval=0.1)
        pm.Potential("likelihood", diffusion_likelihood(rt, upper, v, a, z, t).sum())
    return model


@published(
    "drift diffusion, hierarchical", "HSSM: Hierarchical Modeling; likelihood of Navarro and Fuss"
)
def drift_diffusion_hierarchical():
    """Fourteen persons, 284 trials each; drifts by conflict, thresholds and delays vary."""
    rng = np.random.default_rng(12)
    person = np.repeat(np.arange(14), 284)
    hard = rng.integers(0, 2, len(person))
    rt, upper = np.zeros(len(person)), np.zeros(len(person), bool)
    for i in range(14):
        a, t, v = rng.normal(2.2, 0.2), rng.normal(0.3, 0.03), rng.normal(0.9, 0.25)
        for level in (0, 1):
            at = (person == i) & (hard == level)
            rt[at], upper[at] = simulate_diffusion(rng, at.sum(), v - 0.4 * level, a, 0.5, t)
    with pm.Model(coords={"person": np.arange(14)}) as model:
        v_mean, v_sd = pm.Normal("v_Intercept", 0, 2), pm.HalfNormal("v_sd", 0.5)
        v_hard = pm.Normal("v_hard", 0, 1)
        v_z = pm.Normal("v_offset", 0, 1, dims="person")
        a_mean, a_sd = pm.Gamma("a_mean", mu=2, sigma=0.75), pm.HalfNormal("a_sd", 0.5)
        a = pm.Gamma("a", mu=a_mean, sigma=a_sd + 0.01, dims="person", initval=np.full(14, 2.0))
        t = pm.Gamma("t", mu=0.4, sigma=0.2, dims="person", initval=np.full(14, 0.15))
        z = pm.Beta("z", 10, 10)
        v = v_mean + v_sd * v_z[person] + v_hard * hard
        log_p = diffusion_likelihood(rt, upper, v, a[person], z, t[person])
        pm.Potential("likelihood", log_p.sum())
    return model


@published("fecundability", "Weinberg and Gladen (1986): beta-geometric waits, smokers and others")
def fecundability():
    """Cycles to conception of 586 women; probabilities vary by beta distributions."""
    smoke = np.array([29, 16, 17, 4, 3, 9, 4, 5, 1, 1, 1, 3])
    other = np.array([198, 107, 55, 38, 18, 22, 7, 9, 5, 3, 6, 6])
    with pm.Model(coords={"group": ["smokers", "others"]}) as model:
        mu = pm.Beta("mu", 1, 1, dims="group")
        kappa = pm.Gamma("kappa", 2, 0.1, dims="group")
        total = pt.as_tensor(0.0)
        for i, (counts, longer) in enumerate(((smoke, 7), (other, 12))):
            a, b = mu[i] * kappa[i], (1 - mu[i]) * kappa[i]
            t = np.arange(1, 13)
            total += (counts * (log_beta(a + 1, b + t - 1) - log_beta(a, b))).sum()
            total += longer * (log_beta(a, b + 12) - log_beta(a, b))
        pm.Potential("likelihood", total)
    return model
