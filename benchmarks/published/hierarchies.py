"""Multilevel models: groups within groups, crossed groups, poststratification."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"
RETHINKING = f"{GALLERY}: Statistical Rethinking lectures, D. Ocampo, after R. McElreath"


@published("eight schools", "posteriordb: eight_schools_centered, A. Gelman and J. Hill")
def eight_schools():
    y, error = [28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18]
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Normal("y", theta, error, observed=y, dims="school")
    return model


def radon_data():
    """919 houses of 85 counties: county, floor, the county's uranium, log radon."""
    rng = np.random.default_rng(1)
    sizes = np.maximum(1, np.round(rng.lognormal(1.6, 1.0, 85))).astype(int)
    sizes[np.argmax(sizes)] += 919 - sizes.sum()
    county = np.repeat(np.arange(85), sizes)
    floor = rng.binomial(1, 0.17, len(county))
    uranium = rng.normal(0, 0.4, 85)
    effects = rng.multivariate_normal([0, 0], [[0.1, 0.01], [0.01, 0.08]], 85)
    mean = 1.45 + 0.7 * uranium + effects[:, 0]
    log_radon = mean[county] + (-0.65 + effects[county, 1]) * floor
    return county, floor, uranium, log_radon + rng.normal(0, 0.72, len(county))


RADON = f"{GALLERY}: A Primer on Bayesian Methods for Multilevel Modeling, C. Fonnesbeck, C. Krapu"


@published("radon, varying intercepts", RADON)
def radon_intercepts():
    county, floor, _, y = radon_data()
    with pm.Model(coords={"county": np.arange(85), "obs": np.arange(len(y))}) as model:
        floor, county = pm.Data("floor", floor, dims="obs"), pm.Data("index", county, dims="obs")
        mu_a, sigma_a = pm.Normal("mu_a", 0, 10), pm.Exponential("sigma_a", 1)
        alpha = pm.Normal("alpha", mu_a, sigma_a, dims="county")
        beta = pm.Normal("beta", 0, 10)
        sigma = pm.Exponential("sigma", 1)
        pm.Normal("y", alpha[county] + beta * floor, sigma, observed=y, dims="obs")
    return model


@published("radon, correlated slopes", RADON)
def radon_correlated():
    county, floor, _, y = radon_data()
    coords = {"county": np.arange(85), "param": ["alpha", "beta"], "obs": np.arange(len(y))}
    with pm.Model(coords=coords) as model:
        sd = pm.Exponential.dist(0.5, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=sd)
        mu = pm.Normal("mu_alpha_beta", 0, 5, dims="param")
        z = pm.Normal("z", 0, 1, dims=("param", "county"))
        effects = pm.Deterministic("alpha_beta_county", pt.dot(chol, z).T, dims=("county", "param"))
        both = mu + effects[county]
        sigma = pm.Exponential("sigma", 1)
        pm.Normal("y", both[:, 0] + both[:, 1] * floor, sigma, observed=y, dims="obs")
    return model


@published("radon, county predictor", RADON)
def radon_county_predictor():
    county, floor, uranium, y = radon_data()
    mean_floor = np.array([floor[county == c].mean() for c in range(85)])
    with pm.Model(coords={"county": np.arange(85)}) as model:
        sigma_a = pm.HalfCauchy("sigma_a", 5)
        gamma = pm.Normal("gamma", 0, 10, shape=3)
        mu_a = pm.Deterministic("mu_a", gamma[0] + gamma[1] * uranium + gamma[2] * mean_floor)
        epsilon = pm.Normal("epsilon_a", 0, 1, dims="county")
        alpha = pm.Deterministic("alpha", mu_a + sigma_a * epsilon, dims="county")
        beta, sigma = pm.Normal("beta", 0, 10), pm.Uniform("sigma", 0, 100)
        pm.Normal("y", alpha[county] + beta * floor, sigma, observed=y)
    return model


@published("radon, varying slopes centred", "posteriordb: radon_variable_intercept_slope_centered")
def radon_centred():
    county, floor, _, y = radon_data()
    with pm.Model(coords={"county": np.arange(85)}) as model:
        sigma = pm.HalfNormal("sigma_y", 1)
        sigma_a, sigma_b = pm.HalfNormal("sigma_alpha", 1), pm.HalfNormal("sigma_beta", 1)
        mu_a, mu_b = pm.Normal("mu_alpha", 0, 10), pm.Normal("mu_beta", 0, 10)
        alpha = pm.Normal("alpha", mu_a, sigma_a, dims="county")
        beta = pm.Normal("beta", mu_b, sigma_b, dims="county")
        pm.Normal("y", alpha[county] + beta[county] * floor, sigma, observed=y)
    return model


@published("rugby", f"{GALLERY}: A Hierarchical model for Rugby prediction, P. Coyle et al.")
def rugby():
    """Six nations, four seasons; scores of home and away teams."""
    rng = np.random.default_rng(2)
    teams = ["Wales", "France", "Ireland", "Scotland", "Italy", "England"]
    pairs = [(i, j) for i in range(6) for j in range(i)]
    home, away = np.array(
        [p if (p[0] + p[1] + s) % 2 else p[::-1] for s in range(4) for p in pairs]
    ).T
    attack, defence = np.array(
        [[0.1, -0.1, 0.3, -0.1, -0.4, 0.2], [-0.1, 0.0, -0.3, 0.1, 0.4, -0.1]]
    )
    home_points = rng.poisson(np.exp(2.9 + 0.2 + attack[home] + defence[away]))
    away_points = rng.poisson(np.exp(2.9 + attack[away] + defence[home]))
    with pm.Model(coords={"team": teams, "match": np.arange(60)}) as model:
        home, away = (
            pm.Data("home_team", home, dims="match"),
            pm.Data("away_team", away, dims="match"),
        )
        advantage = pm.Normal("home", 0, 1)
        sd_att, sd_def = pm.HalfNormal("sd_att", 2), pm.HalfNormal("sd_def", 2)
        intercept = pm.Normal("intercept", 3, 1)
        atts_star = pm.Normal("atts_star", 0, sd_att, dims="team")
        defs_star = pm.Normal("defs_star", 0, sd_def, dims="team")
        atts = pm.Deterministic("atts", atts_star - atts_star.mean(), dims="team")
        defs = pm.Deterministic("defs", defs_star - defs_star.mean(), dims="team")
        home_theta = pt.exp(intercept + advantage + atts[home] + defs[away])
        away_theta = pt.exp(intercept + atts[away] + defs[home])
        pm.Poisson("home_points", home_theta, observed=home_points, dims="match")
        pm.Poisson("away_points", away_theta, observed=away_points, dims="match")
    return model


@published(
    "rat tumours", f"{GALLERY}: Hierarchical Binomial Model: Rat Tumor Example, D. Pananos et al."
)
def rat_tumours():
    rng = np.random.default_rng(3)
    n = np.concatenate([np.full(30, 20), rng.integers(10, 52, 41)])
    y = rng.binomial(n, rng.beta(2.4, 14.3, 71))
    with pm.Model(coords={"obs_id": np.arange(71), "param": ["alpha", "beta"]}) as model:
        ab = pm.HalfNormal("ab", 10, dims="param")
        pm.Potential("p(a, b)", -2.5 * pt.log(ab.sum()))
        pm.Deterministic("X", pt.log(ab[0] / ab[1]))
        pm.Deterministic("Z", pt.log(ab.sum()))
        theta = pm.Beta("theta", ab[0], ab[1], dims="obs_id")
        pm.Binomial("y", n=n, p=theta, observed=y, dims="obs_id")
    return model


@published(
    "baseball batting", f"{GALLERY}: Hierarchical Partial Pooling, V. Dovgalecs, A. Rochford et al."
)
def baseball_batting():
    hits = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7])
    with pm.Model(coords={"player": np.arange(18)}) as model:
        phi = pm.Uniform("phi", 0, 1)
        kappa_log = pm.Exponential("kappa_log", 1.5)
        kappa = pm.Deterministic("kappa", pt.exp(kappa_log))
        theta = pm.Beta("theta", phi * kappa, (1 - phi) * kappa, dims="player")
        pm.Binomial("y", n=45, p=theta, observed=hits, dims="player")
    return model


@published(
    "batting careers", "Bambi notebooks: Hierarchical Logistic regression with Binomial family"
)
def batting_careers():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(4)
    tries = rng.integers(5, 600, 30)
    hits = rng.binomial(tries, np.clip(rng.normal(0.26, 0.03, 30), 0.1, 0.4))
    data = pd.DataFrame({"AB": tries, "H": hits, "playerID": [f"p{i}" for i in range(30)]})
    priors = {
        "Intercept": bmb.Prior("Normal", mu=-1, sigma=1),
        "1|playerID": bmb.Prior("Normal", mu=0, sigma=bmb.Prior("HalfNormal", sigma=1)),
    }
    built = bmb.Model("p(H, AB) ~ 1 + (1|playerID)", data, family="binomial", priors=priors)
    built.build()
    return built.backend.model


@published("sleep study", "Bambi notebooks: Multi-level Regression (sleepstudy), T. Capretto")
def sleep_study():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(5)
    subject, days = np.repeat(np.arange(18), 10), np.tile(np.arange(10), 18)
    effects = rng.multivariate_normal([251, 10.5], [[610, 10], [10, 35]], 18)
    reaction = effects[subject, 0] + effects[subject, 1] * days + rng.normal(0, 25, 180)
    data = pd.DataFrame({"Reaction": reaction, "Days": days, "Subject": subject.astype(str)})
    built = bmb.Model("Reaction ~ 1 + Days + (Days | Subject)", data, categorical="Subject")
    built.build()
    return built.backend.model


@published("radon by bambi", "Bambi notebooks: Hierarchical Linear Regression (Radon), A. Kumar")
def radon_bambi():
    import bambi as bmb
    import pandas as pd

    county, floor, uranium, y = radon_data()
    names = pd.Series(county).map("c{}".format)
    data = pd.DataFrame(
        {
            "log_radon": y,
            "floor": np.where(floor, "First Floor", "Basement"),
            "county": names,
            "log_u": uranium[county],
        }
    )
    formula = "log_radon ~ floor:log_u + (1 + floor | county)"
    built = bmb.Model(formula, data, noncentered=False)
    built.build()
    return built.backend.model


@published(
    "mister p", "Bambi notebooks: MrP (multilevel regression and poststratification), N. Forde"
)
def mister_p():
    """5000 answers by state, age, ethnicity and education; six families of effects."""
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(6)
    n = 5000
    data = pd.DataFrame(
        {
            "state": rng.choice(46, n, p=rng.dirichlet(np.full(46, 2))),
            "eth": rng.choice(4, n, p=[0.7, 0.12, 0.12, 0.06]),
            "edu": rng.integers(0, 5, n),
            "age": rng.integers(0, 6, n),
            "male": rng.choice([-0.5, 0.5], n),
        }
    )
    repvote = rng.normal(0, 1, 46)[data["state"]]
    score = 0.4 * data["male"] - 0.5 * repvote + rng.normal(0, 0.2, 46)[data["state"]]
    score += rng.normal(0, 0.4, 4)[data["eth"]] + rng.normal(0, 0.3, 6)[data["age"]]
    data["repvote"] = repvote
    data["male_eth"] = data["male"].astype(str) + "_" + data["eth"].astype(str)
    data["edu_age"] = data["edu"].astype(str) + "_" + data["age"].astype(str)
    for column in ("state", "eth", "edu", "age"):
        data[column] = data[column].astype(str)
    data["abortion"] = rng.binomial(1, 1 / (1 + np.exp(-score)))
    cells = ["state", "eth", "edu", "age", "male", "repvote", "male_eth", "edu_age"]
    cells = data.groupby(cells)["abortion"].agg(["sum", "size"]).reset_index()
    cells = cells.rename(columns={"sum": "abortion", "size": "n"})
    formula = "p(abortion, n) ~ male + repvote + (1 | state) + (1 | eth) + (1 | edu)"
    formula += " + (1 | age) + (1 | male_eth) + (1 | edu_age)"
    built = bmb.Model(formula, cells, family="binomial")
    built.build()
    return built.backend.model


@published("reed frogs", f"{RETHINKING} 12, Multilevel models")
def reed_frogs():
    rng = np.random.default_rng(7)
    density = np.repeat([10, 25, 35], 16)
    alive = rng.binomial(density, 1 / (1 + np.exp(-rng.normal(1.3, 1.6, 48))))
    with pm.Model(coords={"tank": np.arange(48)}) as model:
        sigma = pm.Exponential("sigma", 1)
        alpha_bar = pm.Normal("alpha_bar", 0, 1.5)
        alpha = pm.Normal("alpha", alpha_bar, sigma, dims="tank")
        p = pm.Deterministic("p_survived", pm.math.invlogit(alpha), dims="tank")
        pm.Binomial("survived", n=density, p=p, observed=alive, dims="tank")
    return model


@published("chimpanzees", f"{RETHINKING} 13, Multilevel adventures")
def chimpanzees():
    """Pulls of levers by actor and block, four treatments, correlated effects."""
    rng = np.random.default_rng(8)
    actor, block = np.repeat(np.arange(7), 72), np.tile(np.repeat(np.arange(6), 12), 7)
    treatment = np.tile([0, 1, 2, 3], 126)
    a = np.array([-0.4, 4.0, -0.7, -0.7, -0.4, 0.6, 2.1])
    logit = a[actor] + np.array([-0.1, 0.5, -0.5, 0.3])[treatment]
    left = rng.binomial(1, 1 / (1 + np.exp(-logit)))
    coords = {"actor": np.arange(7), "block": np.arange(6), "treatment": np.arange(4)}
    with pm.Model(coords=coords) as model:
        g = pm.Normal("g", 0, 1, dims="treatment")
        effects = {}
        for unit in ("actor", "block"):
            sd = pm.Exponential.dist(1.0, shape=4)
            chol, *_ = pm.LKJCholeskyCov(f"chol_{unit}", n=4, eta=2, sd_dist=sd)
            z = pm.Normal(f"z_{unit}", 0, 1, dims=("treatment", unit))
            effects[unit] = pm.Deterministic(
                f"effect_{unit}", pt.dot(chol, z).T, dims=(unit, "treatment")
            )
        p = g[treatment] + effects["actor"][actor, treatment] + effects["block"][block, treatment]
        pm.Binomial("pulled_left", n=1, logit_p=p, observed=left)
    return model


@published("contraception", f"{RETHINKING} 14, Correlated features; Bangladesh fertility survey")
def contraception():
    rng = np.random.default_rng(9)
    district = rng.choice(60, 1934, p=rng.dirichlet(np.full(60, 2.5)))
    urban = rng.binomial(1, 0.29, 1934)
    effects = rng.multivariate_normal([-0.7, 0.6], [[0.3, -0.25], [-0.25, 0.5]], 60)
    logit = effects[district, 0] + effects[district, 1] * urban
    use = rng.binomial(1, 1 / (1 + np.exp(-logit)))
    coords = {"district": np.arange(60), "effect": ["alpha", "beta"]}
    with pm.Model(coords=coords) as model:
        v_bar = pm.Normal("v_bar", 0, 1, dims="effect")
        sd = pm.Exponential.dist(1.0, shape=2)
        chol, *_ = pm.LKJCholeskyCov("chol", n=2, eta=4, sd_dist=sd)
        z = pm.Normal("z", 0, 1, dims=("effect", "district"))
        v = pm.Deterministic("v", v_bar + pt.dot(chol, z).T, dims=("district", "effect"))
        p = v[district, 0] + v[district, 1] * urban
        pm.Bernoulli("use", logit_p=p, observed=use)
    return model


RATS = np.array([8, 15, 22, 29, 36])


@published("rats", "posteriordb: rats_model (BUGS examples), Gelfand et al.")
def rats():
    rng = np.random.default_rng(10)
    x = RATS - 22
    a, b = rng.normal(242, 14, 30), rng.normal(6.2, 0.5, 30)
    y = a[:, None] + b[:, None] * x + rng.normal(0, 6, (30, 5))
    with pm.Model(coords={"rat": np.arange(30), "day": RATS}) as model:
        mu_alpha, mu_beta = pm.Normal("mu_alpha", 0, 100), pm.Normal("mu_beta", 0, 100)
        sigma_y, sigma_a, sigma_b = (
            pm.HalfFlat(s) for s in ("sigma_y", "sigma_alpha", "sigma_beta")
        )
        alpha = pm.Normal("alpha", mu_alpha, sigma_a, dims="rat")
        beta = pm.Normal("beta", mu_beta, sigma_b, dims="rat")
        pm.Deterministic("alpha0", mu_alpha - 22 * mu_beta)
        pm.Normal("y", alpha[:, None] + beta[:, None] * x, sigma_y, observed=y, dims=("rat", "day"))
    return model


@published("seeds", "posteriordb: seeds_centered_model (BUGS examples), Crowder")
def seeds():
    n = np.array([39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7])
    y = np.array([10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3])
    x1, x2 = np.repeat([0, 1], [11, 10]), np.repeat([0, 1, 0, 1], [5, 6, 5, 5])
    with pm.Model() as model:
        alpha = pm.Normal("alpha", 0, 1, shape=4)
        sigma = pm.HalfCauchy("sigma", 1)
        c = pm.Normal("c", 0, sigma, shape=21)
        b = pm.Deterministic("b", c - c.mean())
        logit = alpha[0] + alpha[1] * x1 + alpha[2] * x2 + alpha[3] * x1 * x2 + b
        pm.Binomial("y", n=n, logit_p=logit, observed=y)
    return model


@published("surgical", "posteriordb: surgical_model (BUGS examples), Marshall and Spiegelhalter")
def surgical():
    n = [47, 148, 119, 810, 211, 196, 148, 215, 207, 97, 256, 360]
    deaths = [0, 18, 8, 46, 8, 13, 9, 31, 14, 8, 29, 24]
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1000)
        variance = pm.InverseGamma("sigmasq", 0.001, 0.001)
        b = pm.Normal("b", mu, pt.sqrt(variance), shape=12)
        pm.Deterministic("p", pm.math.invlogit(b))
        pm.Binomial("r", n=n, logit_p=b, observed=deaths)
        pm.Deterministic("pop_mean", pm.math.invlogit(mu))
    return model


@published("pumps", "Stan example models: BUGS volume 1, pumps, Gaver and O'Muircheartaigh")
def pumps():
    time = np.array([94.3, 15.7, 62.9, 126, 5.24, 31.4, 1.05, 1.05, 2.1, 10.5])
    failures = [5, 1, 5, 14, 3, 19, 1, 1, 4, 22]
    with pm.Model() as model:
        alpha, beta = pm.Exponential("alpha", 1), pm.Gamma("beta", 0.1, 1)
        theta = pm.Gamma("theta", alpha, beta, shape=10)
        pm.Poisson("x", theta * time, observed=failures)
    return model


@published("cockroaches", "Stan case studies: a workflow for pest control, J. Gabry and M. Modrak")
def cockroaches():
    """Complaints of ten buildings in twelve months, varying intercepts and slopes, AR(1) months."""
    rng = np.random.default_rng(11)
    building, month = np.repeat(np.arange(10), 12), np.tile(np.arange(12), 10)
    traps, area = rng.poisson(7, 120), rng.normal(0, 0.4, 10)
    age, super_lives = rng.normal(0, 1, 10), rng.integers(0, 2, 10)
    mean = np.exp(1.3 - 0.25 * (traps - 7) / 4 + area[building] + rng.normal(0, 0.4, 12)[month])
    complaints = rng.poisson(rng.gamma(5, mean / 5))
    data = np.column_stack([super_lives, age])
    with pm.Model(coords={"building": np.arange(10), "month": np.arange(12)}) as model:
        zeta, gamma = pm.Normal("zeta", 0, 1, shape=2), pm.Normal("gamma", 0, 1, shape=2)
        alpha, beta = pm.Normal("alpha", np.log(4), 1), pm.Normal("beta", -0.25, 1)
        sigma_mu, sigma_kappa = pm.HalfNormal("sigma_mu", 1), pm.HalfNormal("sigma_kappa", 1)
        mu_raw = pm.Normal("mu_raw", 0, 1, dims="building")
        kappa_raw = pm.Normal("kappa_raw", 0, 1, dims="building")
        mu = pm.Deterministic("mu", alpha + data @ zeta + sigma_mu * mu_raw, dims="building")
        kappa = pm.Deterministic("kappa", beta + data @ gamma + sigma_kappa * kappa_raw)
        inverse_phi = pm.HalfNormal("inv_phi", 1)
        rho_raw = pm.Beta("rho_raw", 10, 5)
        rho = pm.Deterministic("rho", 2 * rho_raw - 1)
        sigma_month = pm.HalfNormal("sigma_mo", 1)
        steps = pm.Normal("mo_raw", 0, 1, dims="month")
        months = [sigma_month * steps[0] / pt.sqrt(1 - rho**2)]
        for i in range(1, 12):
            months.append(rho * months[-1] + sigma_month * steps[i])
        months = pm.Deterministic("mo", pt.stack(months), dims="month")
        eta = mu[building] + kappa[building] * (traps - 7) / 4 + months[month] + area[building]
        pm.NegativeBinomial(
            "complaints", mu=pt.exp(eta), alpha=1 / inverse_phi, observed=complaints
        )
    return model


@published("growth curves", f"{GALLERY}: Longitudinal Models of Change, N. Forde")
def growth_curves():
    """Adolescents' alcohol use at three ages, by the drinking of peers and of parents."""
    rng = np.random.default_rng(12)
    person, age = np.repeat(np.arange(82), 3), np.tile([0, 1, 2], 82)
    coa, peer = rng.integers(0, 2, 82), rng.gamma(2, 0.5, 82)
    intercept, slope = rng.normal(0.2, 0.5, 82), rng.normal(0.3, 0.3, 82)
    y = intercept[person] + 0.6 * coa[person] + 0.5 * peer[person] + rng.normal(0, 0.5, 246)
    y += (slope - 0.15 * peer)[person] * age
    coords = {"ids": np.arange(82), "obs": np.arange(246)}
    with pm.Model(coords=coords) as model:
        grand, slope = pm.Normal("global_intercept", 0, 1), pm.Normal("global_age_beta", 0, 1)
        b_coa, b_peer = pm.Normal("global_coa_beta", 0, 1), pm.Normal("global_peer_beta", 0, 1)
        b_coa_age = pm.Normal("global_coa_age_beta", 0, 1)
        b_peer_age = pm.Normal("global_peer_age_beta", 0, 1)
        sigma_a = pm.Exponential("subject_intercept_sigma", 1)
        sigma_b = pm.Exponential("subject_age_sigma", 1)
        a = pm.Normal("subject_intercept", 0, sigma_a, dims="ids")
        b = pm.Normal("subject_age_beta", 0, sigma_b, dims="ids")
        sigma = pm.HalfStudentT("global_sigma", 1, 3)
        mean = grand + a[person] + b_coa * coa[person] + b_peer * peer[person]
        rate = slope + b[person] + b_coa_age * coa[person] + b_peer_age * peer[person]
        pm.Normal("outcome", mean + rate * age, sigma, observed=y, dims="obs")
    return model


@published("conversion values", f"{GALLERY}: Introduction to Bayesian A/B Testing, C. Duong")
def conversion_values():
    """Rates of conversion and mean purchases of three variants, and their uplifts."""
    visitors, purchased = np.array([100_000] * 3), np.array([10_000, 11_000, 10_500])
    revenue = np.array([100_000, 112_000, 99_000])
    with pm.Model() as model:
        theta = pm.Beta("theta", 50, 450, shape=3)
        lam = pm.Gamma("lam", 9000, 900, shape=3)
        pm.Binomial("converted", n=visitors, p=theta, observed=purchased)
        pm.Gamma("revenue", alpha=purchased, beta=lam, observed=revenue)
        per_visitor = pm.Deterministic("revenue_per_visitor", theta / lam)
        pm.Deterministic("uplift", per_visitor[1:] / per_visitor[0] - 1)
    return model


@published("dogs", "posteriordb: dogs_hierarchical, A. Gelman and J. Hill; avoidance of shocks")
def dogs():
    rng = np.random.default_rng(13)
    y, shocks, avoided = np.zeros((30, 25), int), np.zeros((30, 25)), np.zeros((30, 25))
    for t in range(25):
        if t:
            avoided[:, t] = avoided[:, t - 1] + 1 - y[:, t - 1]
            shocks[:, t] = shocks[:, t - 1] + y[:, t - 1]
        p = 0.8 ** avoided[:, t] * 0.92 ** shocks[:, t]
        y[:, t] = rng.uniform(size=30) < p
    with pm.Model() as model:
        a, b = pm.Uniform("a", 0, 1), pm.Uniform("b", 0, 1)
        p = a ** avoided[:, 1:] * b ** shocks[:, 1:]
        pm.Bernoulli("y", p=p, observed=y[:, 1:])
    return model


@published("election88", "posteriordb: election88_full, A. Gelman and J. Hill")
def election88():
    """Five families of effects, written centred with wide uniform scales."""
    rng = np.random.default_rng(14)
    n = 11566
    sizes = {"age": 4, "edu": 4, "age_edu": 16, "state": 51, "region_full": 5}
    index = {k: rng.integers(0, s, n) for k, s in sizes.items()}
    index["age_edu"] = 4 * index["age"] + index["edu"]
    black, female = rng.binomial(1, 0.08, n), rng.binomial(1, 0.55, n)
    v_prev = rng.normal(0.55, 0.06, 51)[index["state"]]
    eta = -1.7 * black - 0.1 * female + 5 * (v_prev - 0.5) + rng.normal(0, 0.2, 51)[index["state"]]
    y = rng.binomial(1, 1 / (1 + np.exp(-eta)))
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 100, shape=5)
        eta = (
            beta[0]
            + beta[1] * black
            + beta[2] * female
            + beta[3] * v_prev
            + beta[4] * female * black
        )
        for name, size in sizes.items():
            sigma = pm.Uniform(f"sigma_{name}", 0, 100)
            eta += pm.Normal(name, 0, sigma, shape=size)[index[name]]
        pm.Bernoulli("y", logit_p=eta, observed=y)
    return model
