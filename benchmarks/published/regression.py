"""Linear and generalised linear models, robust, censored, ordinal and with sparse priors."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from published.registry import published

GALLERY = "PyMC example gallery"


@published("robust regression", f"{GALLERY}: GLM: Robust Linear Regression, T. Wiecki")
def robust_regression():
    rng = np.random.default_rng(1)
    x = np.append(np.linspace(0, 1, 100), [0.1, 0.15, 0.2])
    y = np.append(1 + 2 * x[:100] + rng.normal(0, 0.5, 100), [8, 6, 9])
    with pm.Model(coords={"row": np.arange(103)}) as model:
        slope, intercept = pm.Normal("slope", 0, 2), pm.Normal("intercept", 0, 2)
        sigma, nu = pm.HalfNormal("sigma", 2), pm.Exponential("nu", 1 / 29)
        pm.StudentT("y", nu=nu + 1, mu=intercept + slope * x, sigma=sigma, observed=y, dims="row")
    return model


@published(
    "outlier classification",
    f"{GALLERY}: GLM: Robust Regression for Outlier Classification, J. Sedar",
)
def outlier_classification():
    """Hogg's two-component likelihood of twenty points, the labels summed out."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=20)
    error = rng.uniform(0.1, 0.3, 20)
    y = x + error * rng.normal(size=20)
    y[:4] += [2.5, -2.0, 1.5, -3.0]
    with pm.Model(coords={"coefficient": ["intercept", "slope"]}) as model:
        beta = pm.Normal("beta", 0, 10, dims="coefficient")
        mean_out = pm.Normal("mean_out", 0, 10)
        sigma_out = pm.HalfNormal("sigma_out", 1)
        fraction = pm.Uniform("fraction", 0, 0.5)
        inlier = pm.logp(pm.Normal.dist(beta[0] + beta[1] * x, error), y)
        outlier = pm.logp(pm.Normal.dist(mean_out, pt.sqrt(error**2 + sigma_out**2)), y)
        mixed = pt.logaddexp(pt.log1p(-fraction) + inlier, pt.log(fraction) + outlier)
        pm.Potential("likelihood", mixed.sum())
    return model


def sneezes():
    """Four thousand days, by alcohol and antihistamine."""
    rng = np.random.default_rng(3)
    alcohol, nomeds = np.repeat([0, 1, 0, 1], 1000), np.repeat([0, 0, 1, 1], 1000)
    rate = np.array([1, 3, 6, 36])[alcohol + 2 * nomeds]
    return rng, alcohol, nomeds, rate


@published("poisson regression", f"{GALLERY}: GLM: Poisson Regression, J. Sedar, B. T. Vincent")
def poisson_regression():
    import bambi as bmb
    import pandas as pd

    rng, alcohol, nomeds, rate = sneezes()
    data = pd.DataFrame({"alcohol": alcohol, "nomeds": nomeds, "sneezes": rng.poisson(rate)})
    built = bmb.Model("sneezes ~ alcohol * nomeds", data, family="poisson")
    built.build()
    return built.backend.model


@published(
    "negative binomial regression",
    f"{GALLERY}: GLM: Negative Binomial Regression, I. Ozsvald, A. Das, B. T. Vincent",
)
def negative_binomial_regression():
    rng, alcohol, nomeds, rate = sneezes()
    y = rng.poisson(rate * rng.gamma(10, 1 / 10, 4000))
    with pm.Model(coords={"regressor": ["nomeds", "alcohol", "both"]}) as model:
        a = pm.Normal("intercept", 0, 1)
        b = pm.Normal("b", 0, 1, dims="regressor")
        alpha = pm.Exponential("alpha", 0.5)
        mu = pm.math.exp(a + b[0] * nomeds + b[1] * alcohol + b[2] * nomeds * alcohol)
        pm.NegativeBinomial("y", mu=mu, alpha=alpha, observed=y)
    return model


@published("binomial regression", f"{GALLERY}: Binomial regression, B. T. Vincent")
def binomial_regression():
    rng = np.random.default_rng(4)
    x, n = np.linspace(-10, 10, 50), 20
    successes = rng.binomial(n, 1 / (1 + np.exp(-0.7 * x)))
    with pm.Model(coords={"observation": np.arange(50)}) as model:
        data = pm.Data("x", x, dims="observation")
        beta0, beta1 = pm.Normal("beta0", 0, 1), pm.Normal("beta1", 0, 1)
        p = pm.Deterministic("p", pm.math.invlogit(beta0 + beta1 * data), dims="observation")
        pm.Binomial("y", n, p, observed=successes, dims="observation")
    return model


@published("logistic regression", f"{GALLERY}: Out-Of-Sample Predictions, J. Orduz")
def logistic_regression():
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (250, 2))
    design = np.column_stack([np.ones(250), x, x[:, 0] * x[:, 1]])
    y = rng.binomial(1, 1 / (1 + np.exp(-design @ [-0.5, 1, -1, 2])))
    labels = ["Intercept", "x1", "x2", "x1:x2"]
    with pm.Model(coords={"coeffs": labels}) as model:
        b = pm.Normal("b", 0, 1, dims="coeffs")
        p = pm.Deterministic("p", pm.math.invlogit(pt.dot(design, b)))
        pm.Bernoulli("obs", p, observed=y)
    return model


def bounded_line(keep_outside):
    """A line whose responses are known within (-5, 5) only."""
    rng = np.random.default_rng(6)
    x = rng.uniform(-10, 10, 100)
    y = x + rng.normal(0, 2, 100)
    inside = (y > -5) & (y < 5)
    return (x, np.clip(y, -5, 5)) if keep_outside else (x[inside], y[inside])


@published(
    "truncated regression",
    f"{GALLERY}: Bayesian regression with truncated or censored data, B. T. Vincent",
)
def truncated_regression():
    x, y = bounded_line(keep_outside=False)
    with pm.Model() as model:
        slope, intercept = pm.Normal("slope", 0, 1), pm.Normal("intercept", 0, 1)
        sigma = pm.HalfNormal("sigma", 1)
        latent = pm.Normal.dist(intercept + slope * x, sigma)
        pm.Truncated("obs", latent, lower=-5, upper=5, observed=y)
    return model


@published(
    "censored regression",
    f"{GALLERY}: Bayesian regression with truncated or censored data, B. T. Vincent",
)
def censored_regression():
    x, y = bounded_line(keep_outside=True)
    with pm.Model() as model:
        slope, intercept = pm.Normal("slope", 0, 1), pm.Normal("intercept", 0, 1)
        sigma = pm.HalfNormal("sigma", 1)
        latent = pm.Normal.dist(intercept + slope * x, sigma)
        pm.Censored("obs", latent, lower=-5, upper=5, observed=y)
    return model


@published("anes votes", "Bambi notebooks: Logistic Regression, 2016 ANES pilot study")
def anes_votes():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(7)
    party = rng.choice(["democrat", "independent", "republican"], 373, p=[0.45, 0.25, 0.3])
    age = rng.integers(19, 95, 373)
    slope = pd.Series(party).map({"democrat": 0.01, "independent": -0.03, "republican": -0.05})
    base = pd.Series(party).map({"democrat": 2.0, "independent": 1.5, "republican": -0.5})
    vote = rng.binomial(1, 1 / (1 + np.exp(-(base + slope * (age - 20)))))
    data = pd.DataFrame({"vote": vote, "party_id": party, "age": age})
    built = bmb.Model("vote ~ party_id + party_id:age", data, family="bernoulli")
    built.build()
    return built.backend.model


@published("quantile regression", "Bambi notebooks: Quantile Regression, T. Capretto")
def quantile_regression():
    """The lower tenth of body mass by age, a spline and an asymmetric Laplace."""
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(8)
    age = np.sort(rng.uniform(0, 21, 700))
    bmi = 15 + 0.4 * age + (1 + 0.1 * age) * rng.gamma(2, 1, 700)
    data = pd.DataFrame({"age": age, "bmi": bmi})
    knots = np.quantile(age, np.linspace(0.1, 0.9, 9))
    built = bmb.Model(
        "bmi ~ bs(age, knots=knots)",
        data,
        family="asymmetriclaplace",
        priors={"kappa": bmb.Prior("HalfNormal", sigma=10)},
        extra_namespace={"knots": knots},
    )
    built.set_alias({"bs(age, knots=knots)": "spline"})
    built.build()
    return built.backend.model


@published("gamma regression", "Bambi notebooks: Gamma Regression, A. Hicks; claims of insurance")
def gamma_regression():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(9)
    n = 4624  # as the claims above nought
    data = pd.DataFrame(
        {
            "agecat": rng.integers(1, 7, n).astype(str),
            "gender": rng.choice(["F", "M"], n),
            "area": rng.choice(list("ABCDEF"), n),
        }
    )
    mu = np.exp(7.4 + 0.15 * (data["gender"] == "M") - 0.05 * data["agecat"].astype(int))
    data["claim"] = rng.gamma(0.8, mu / 0.8) + 1e-3
    built = bmb.Model("claim ~ agecat + gender + area", data, family="gamma", link="log")
    built.build()
    return built.backend.model


@published("beta regression", "Bambi notebooks: Beta Regression, T. J. Burch")
def beta_regression():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(10)
    delta = rng.normal(0, 1, 300)
    mu = 1 / (1 + np.exp(-0.3 - 0.6 * delta))
    data = pd.DataFrame({"probability": rng.beta(50 * mu, 50 * (1 - mu)), "delta": delta})
    built = bmb.Model("probability ~ 1 + delta", data, family="beta")
    built.build()
    return built.backend.model


@published("iris species", "Bambi notebooks: Categorical Regression, T. Capretto")
def iris_species():
    import bambi as bmb
    from sklearn.datasets import load_iris

    bunch = load_iris(as_frame=True)
    data = bunch.frame.rename(columns=lambda c: c.replace(" (cm)", "").replace(" ", "_"))
    data["species"] = bunch.target_names[bunch.target]
    formula = "species ~ sepal_length + sepal_width + petal_length + petal_width"
    built = bmb.Model(formula, data, family="categorical")
    built.build()
    return built.backend.model


@published("cherry blossoms", "Bambi notebooks: Regression splines, T. Capretto")
def cherry_blossoms():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(11)
    year = np.sort(rng.choice(np.arange(812, 2016), 827, replace=False))
    doy = 105 + 2 * np.sin(year / 90) - 4 * (year > 1900) + rng.normal(0, 6, 827)
    knots = np.quantile(year, np.linspace(0, 1, 15))[1:-1]
    priors = {
        "Intercept": bmb.Prior("Normal", mu=100, sigma=10),
        "common": bmb.Prior("Normal", mu=0, sigma=10),
        "sigma": bmb.Prior("Exponential", lam=1),
    }
    built = bmb.Model(
        "doy ~ bs(year, knots=knots, intercept=True)",
        pd.DataFrame({"year": year, "doy": doy}),
        priors=priors,
        extra_namespace={"knots": knots},
    )
    built.set_alias({"bs(year, knots=knots, intercept=True)": "spline"})
    built.build()
    return built.backend.model


@published("distributional regression", "Bambi notebooks: Distributional models, T. Capretto")
def distributional_regression():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(12)
    x = rng.uniform(-1.5, 1.5, 200)
    shape, mu = np.exp(1 + 0.5 * x), np.exp(0.5 + 1.1 * x)
    data = pd.DataFrame({"x": x, "y": rng.gamma(shape, mu / shape)})
    formula = bmb.Formula("y ~ x", "alpha ~ x")
    built = bmb.Model(formula, data, family="gamma", link={"mu": "log", "alpha": "log"})
    built.build()
    return built.backend.model


@published("circular regression", "Bambi notebooks: Circular Regression, O. A. Martin")
def circular_regression():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(13)
    distance = rng.gamma(3, 15, 31)
    direction = rng.vonmises(2 * np.arctan(0.8 - 0.02 * distance), 4)
    data = pd.DataFrame({"distance": distance, "direction": direction})
    built = bmb.Model("direction ~ distance", data, family="vonmises")
    built.build()
    return built.backend.model


def fish():
    """Fish caught by 250 parties, many of whom did not fish."""
    import pandas as pd

    rng = np.random.default_rng(14)
    camper, child = rng.integers(0, 2, 250), rng.choice(4, 250, p=[0.53, 0.3, 0.13, 0.04])
    persons = rng.integers(1, 5, 250)
    rate = np.exp(-1 + 0.8 * persons + 0.8 * camper - 1.1 * child)
    idle = rng.uniform(size=250) < 1 / (1 + np.exp(-(-0.5 + 0.9 * child - 0.6 * camper)))
    count = np.where(idle, 0, rng.poisson(np.minimum(rate, 60)))
    return pd.DataFrame({"count": count, "persons": persons, "child": child, "camper": camper})


@published("zero-inflated fish", "Bambi notebooks: Zero inflated models, G. Flores")
def zero_inflated_fish():
    import bambi as bmb

    formula = bmb.Formula("count ~ persons + child + camper", "psi ~ child + camper")
    built = bmb.Model(formula, fish(), family="zero_inflated_poisson")
    built.build()
    return built.backend.model


@published("hurdle fish", "Bambi notebooks: Zero inflated models, G. Flores")
def hurdle_fish():
    import bambi as bmb

    formula = bmb.Formula("count ~ persons + child + camper", "psi ~ child + camper")
    built = bmb.Model(formula, fish(), family="hurdle_poisson")
    built.build()
    return built.backend.model


@published("trolley", "Bambi notebooks: Ordinal Regression, T. Capretto; the trolley problem")
def trolley():
    import bambi as bmb
    import pandas as pd

    rng = np.random.default_rng(15)
    action, intention, contact = rng.integers(0, 2, (3, 9930))
    contact *= 1 - action
    latent = -0.7 * action - 0.7 * intention - 0.95 * contact + rng.logistic(size=9930)
    response = np.digitize(latent, [-2.6, -1.9, -1.35, -0.3, 0.4, 1.3])
    data = pd.DataFrame({"action": action, "intention": intention, "contact": contact})
    data["response"] = pd.Categorical(response, ordered=True)
    formula = "response ~ 0 + action + intention + contact"
    built = bmb.Model(formula, data, family="cumulative")
    built.build()
    return built.backend.model


@published("ordinal ratings", f"{GALLERY}: Regression Models with Ordered Categories, N. Forde")
def ordinal_ratings():
    """Ratings of 300 managers; cutpoints between fixed ends, spaced by a Dirichlet."""
    rng = np.random.default_rng(16)
    salary, work_sat, work_from_home = (
        rng.normal(30, 5, 300),
        rng.beta(1, 0.4, 300),
        rng.integers(0, 2, 300),
    )
    latent = 0.08 * salary + 0.3 * work_sat + 0.8 * work_from_home + rng.logistic(0, 0.7, 300)
    rating = np.digitize(latent, np.quantile(latent, np.linspace(0, 1, 12)[1:-1]))
    k = rating.max() + 1
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 1, shape=3)
        sigma = pm.Exponential("sigma", 1)
        spacing = pm.Dirichlet("cuts_unknown", np.ones(k - 2))
        first = pt.concatenate([[0.5], 0.5 + (k - 2) * pt.cumsum(spacing)])
        cuts = pm.Deterministic("cuts", first)
        mu = pm.Deterministic(
            "mu", beta[0] * salary + beta[1] * work_sat + beta[2] * work_from_home
        )
        pm.OrderedProbit("y", cutpoints=cuts, eta=mu, sigma=sigma, compute_p=False, observed=rating)
    return model


GOLF = np.array(  # feet, tries, successes
    [
        (2, 1443, 1346), (3, 694, 577), (4, 455, 337), (5, 353, 208), (6, 272, 149),
        (7, 256, 136), (8, 240, 111), (9, 217, 69), (10, 200, 67), (11, 237, 75),
        (12, 202, 52), (13, 192, 46), (14, 174, 54), (15, 167, 28), (16, 201, 27),
        (17, 195, 31), (18, 191, 33), (19, 147, 20), (20, 152, 24),
    ]
)  # fmt: skip


def phi(x):
    """Cumulative normal."""
    return 0.5 + 0.5 * pt.erf(x / np.sqrt(2))


@published(
    "golf putting, angle",
    f"{GALLERY}: Model building and expansion for golf putting, C. Carroll, after A. Gelman",
)
def golf_angle():
    feet, tries, successes = GOLF.T
    with pm.Model(coords={"distance": feet}) as model:
        variance = pm.HalfNormal("variance_of_shot", 1)
        threshold = np.arcsin((4.25 - 1.68) / 2 / 12 / feet)
        p = pm.Deterministic(
            "p_goes_in", 2 * phi(threshold / pt.sqrt(variance)) - 1, dims="distance"
        )
        pm.Binomial("success", tries, p, observed=successes, dims="distance")
    return model


@published(
    "golf putting, dispersed",
    f"{GALLERY}: Model building and expansion for golf putting, C. Carroll, after A. Gelman",
)
def golf_dispersed():
    """Angle and distance, with beta-binomial-like extra variance, on a few million putts."""
    rng = np.random.default_rng(17)
    feet = np.concatenate(
        [[0.28, 0.97, 1.93, 2.92, 3.93], np.arange(4.94, 15, 1), np.arange(16.4, 76, 3.9)]
    )
    tries = np.maximum(45198 * np.exp(-0.25 * feet), 500).astype(int) * 4
    angle, far = 0.018, 0.08
    from scipy.stats import norm

    near = 2 * norm.cdf(np.arcsin(np.minimum((4.25 - 1.68) / 24 / feet, 1)) / angle) - 1
    reach = norm.cdf(2 / ((feet + 1) * far)) - norm.cdf(-1 / ((feet + 1) * far))
    success = rng.binomial(tries, np.clip(near * reach * rng.normal(1, 0.003, len(feet)), 0, 1))
    with pm.Model() as model:
        variance = pm.HalfNormal("variance_of_shot", 1)
        distance = pm.HalfNormal("variance_of_distance", 1)
        dispersion = pm.HalfNormal("dispersion", 1)
        threshold = np.arcsin(np.minimum((4.25 - 1.68) / 24 / feet, 1))
        angle_in = 2 * phi(threshold / pt.sqrt(variance)) - 1
        scale = pt.sqrt(distance) * (feet + 1)
        p = pm.Deterministic("p_goes_in", angle_in * (phi(2 / scale) - phi(-1 / scale)))
        error = pt.sqrt(p * (1 - p) / tries + dispersion**2)
        pm.Normal("p_success", p, error, observed=success / tries)
    return model


DRUG = [101, 100, 102, 104, 102, 97, 105, 105, 98, 101, 100, 123, 105, 103, 100, 95, 102, 106]
DRUG += [109, 102, 82, 102, 100, 102, 102, 101, 102, 102, 103, 103, 97, 97, 103, 101, 97, 104]
DRUG += [96, 103, 124, 101, 101, 100, 101, 101, 104, 100, 101]
PLACEBO = [99, 101, 100, 101, 102, 100, 97, 101, 104, 101, 102, 102, 100, 105, 88, 101, 100]
PLACEBO += [104, 100, 100, 100, 101, 102, 103, 97, 101, 101, 100, 101, 99, 101, 100, 100]
PLACEBO += [101, 100, 99, 101, 100, 102, 99, 100, 99]


@published(
    "best",
    f"{GALLERY}: Bayesian Estimation Supersedes the T-Test, A. Straw, T. Wiecki, C. Fonnesbeck",
)
def best():
    pooled = np.array(DRUG + PLACEBO)
    with pm.Model() as model:
        means = [
            pm.Normal(f"{g}_mean", pooled.mean(), 2 * pooled.std()) for g in ("group1", "group2")
        ]
        deviations = [pm.Uniform(f"{g}_std", 1, 10) for g in ("group1", "group2")]
        nu = pm.Exponential("nu_minus_one", 1 / 29) + 1
        groups = zip(("drug", "placebo"), (DRUG, PLACEBO), means, deviations, strict=True)
        for name, data, mean, deviation in groups:
            pm.StudentT(name, nu=nu, mu=mean, lam=deviation**-2, observed=data)
        pm.Deterministic("difference of means", means[0] - means[1])
        pm.Deterministic("difference of stds", deviations[0] - deviations[1])
        pooled_std = pt.sqrt((deviations[0] ** 2 + deviations[1] ** 2) / 2)
        pm.Deterministic("effect size", (means[0] - means[1]) / pooled_std)
    return model


@published("moderation", f"{GALLERY}: Bayesian moderation analysis, B. T. Vincent")
def moderation():
    rng = np.random.default_rng(18)
    training, age = rng.uniform(0, 20, 245), rng.uniform(20, 80, 245)
    muscle = 6 + 1.4 * training - 0.01 * training * age - 0.1 * age + rng.normal(0, 4, 245)
    with pm.Model() as model:
        x, m = pm.Data("x", training), pm.Data("m", age)
        b0, b1, b2, b3 = (pm.Normal(f"β{i}", 0, 10) for i in range(4))
        sigma = pm.HalfCauchy("σ", 1)
        pm.Normal("y", b0 + b1 * x + b2 * x * m + b3 * m, sigma, observed=muscle)
    return model


@published("mediation", f"{GALLERY}: Bayesian mediation analysis, B. T. Vincent")
def mediation():
    rng = np.random.default_rng(19)
    x = rng.normal(0, 1, 75)
    m = rng.normal(1 + 0.5 * x, 0.4)
    y = rng.normal(2 + 0.8 * m + 0.6 * x, 0.6)
    with pm.Model() as model:
        im, iy = pm.Normal("im", 0, 10), pm.Normal("iy", 0, 10)
        a, b, direct = pm.Normal("a", 0, 10), pm.Normal("b", 0, 10), pm.Normal("cprime", 0, 10)
        sigma_m, sigma_y = pm.HalfCauchy("σm", 1), pm.HalfCauchy("σy", 1)
        pm.Normal("mlikelihood", im + a * x, sigma_m, observed=m)
        pm.Normal("ylikelihood", iy + b * m + direct * x, sigma_y, observed=y)
        indirect = pm.Deterministic("indirect effect", a * b)
        pm.Deterministic("total effect", indirect + direct)
    return model


@published(
    "instrumental variables",
    f"{GALLERY}: Instrumental variables and potential outcomes, N. Forde",
)
def instrumental_variables():
    rng = np.random.default_rng(20)
    z = rng.normal(0, 1, 64)
    errors = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 64)
    risk = 6.5 - 0.6 * z + errors[:, 0]
    gdp = 2 + 0.9 * risk + errors[:, 1]
    with pm.Model() as model:
        beta_t, beta_z = pm.Normal("beta_t", 0, 1, shape=2), pm.Normal("beta_z", 0, 1, shape=2)
        sd = pm.Exponential.dist(1.0)
        chol, *_ = pm.LKJCholeskyCov("chol_cov", n=2, eta=2, sd_dist=sd)
        mean_t = beta_z[0] + beta_z[1] * z
        mean_y = beta_t[0] + beta_t[1] * risk
        mu = pt.stack([mean_y, mean_t], axis=1)
        pm.MvNormal("likelihood", mu, chol=chol, observed=np.column_stack([gdp, risk]))
    return model


@published("missing data imputation", f"{GALLERY}: Bayesian Missing Data Imputation, N. Forde")
def missing_data_imputation():
    """A covariate and a response with holes, imputed as further variables."""
    rng = np.random.default_rng(21)
    n = 105
    lmx, male = rng.normal(10, 2, n), rng.integers(0, 2, n)
    climate = rng.normal(18 + 0.3 * lmx, 3)
    empower = 14 + 0.8 * (lmx - 10) + 0.4 * (climate - 20) - 1.5 * male + rng.normal(0, 3, n)
    climate[rng.choice(n, 10, replace=False)] = np.nan
    empower[rng.choice(n, 16, replace=False)] = np.nan
    with pm.Model() as model:
        mu_climate, sigma_climate = (
            pm.Normal("mu_climate", 20, 5),
            pm.HalfNormal("sigma_climate", 5),
        )
        climate = pm.Normal(
            "climate", mu_climate, sigma_climate, observed=np.ma.masked_invalid(climate)
        )
        intercept = pm.Normal("intercept", 20, 10)
        b = pm.Normal("b", 0, 5, shape=3)
        mean = intercept + b[0] * lmx + b[1] * climate + b[2] * male
        sigma = pm.HalfNormal("sigma", 5)
        pm.Normal("empower", mean, sigma, observed=np.ma.masked_invalid(empower))
    return model


@published(
    "regularised horseshoe",
    "posteriordb: ovarian (logistic regression with a regularised horseshoe), T. Tomasi",
)
def regularised_horseshoe():
    """54 patients and 1536 genes, of which a few matter (Piironen and Vehtari, 2017)."""
    rng = np.random.default_rng(22)
    x = rng.normal(size=(54, 1536))
    y = rng.binomial(1, 1 / (1 + np.exp(-x[:, :3] @ [2.0, -2.0, 1.5])))
    with pm.Model(coords={"gene": np.arange(1536)}) as model:
        intercept = pm.Normal("intercept", 0, 2)
        z = pm.Normal("z", 0, 1, dims="gene")
        tau = pm.HalfStudentT("tau", nu=1, sigma=0.0004)
        local = pm.HalfStudentT("lambda", nu=1, sigma=1, dims="gene")
        slab = pm.InverseGamma("caux", 2, 2)
        shrunk = pt.sqrt(slab * local**2 / (slab + tau**2 * local**2))
        beta = pm.Deterministic("beta", z * shrunk * tau, dims="gene")
        pm.Bernoulli("y", logit_p=intercept + x @ beta, observed=y)
    return model


@published(
    "horseshoe", "Stan case studies: Bayes Sparse Regression, M. Betancourt; the finnish horseshoe"
)
def horseshoe():
    rng = np.random.default_rng(23)
    x = rng.normal(size=(100, 200))
    active = rng.uniform(size=200) < 0.05
    y = 3 + x @ np.where(active, rng.normal(10, 1, 200), rng.normal(0, 0.25, 200))
    y += rng.normal(size=100)
    with pm.Model() as model:
        z = pm.Normal("beta_tilde", 0, 1, shape=200)
        local = pm.HalfCauchy("lambda", 1, shape=200)
        slab = pm.InverseGamma("c2_tilde", 12.5, 12.5)
        tau_tilde = pm.HalfCauchy("tau_tilde", 1)
        sigma, alpha = pm.HalfNormal("sigma", 2), pm.Normal("alpha", 0, 2)
        tau, c2 = tau_tilde * sigma * 10 / 190 / 10, slab * 9
        beta = pm.Deterministic("beta", tau * pt.sqrt(c2 * local**2 / (c2 + tau**2 * local**2)) * z)
        pm.Normal("y", x @ beta + alpha, sigma, observed=y)
    return model


@published("wells", "posteriordb: wells_dist100ars, A. Gelman and J. Hill")
def wells():
    rng = np.random.default_rng(24)
    distance, arsenic = rng.gamma(1.5, 0.32, 3020), 0.5 + rng.gamma(1.2, 0.95, 3020)
    y = rng.binomial(1, 1 / (1 + np.exp(-(-0.9 * distance + 0.46 * arsenic))))
    with pm.Model() as model:
        alpha, beta = pm.Flat("alpha"), pm.Flat("beta", shape=2)
        pm.Bernoulli("switched", logit_p=alpha + beta[0] * distance + beta[1] * arsenic, observed=y)
    return model


@published(
    "diabetes", "posteriordb: diamonds, a linear model of brms; here of scikit-learn's diabetes"
)
def diabetes():
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    y = np.log(y)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 1, shape=x.shape[1])
        intercept = pm.StudentT("Intercept", nu=3, mu=8, sigma=10)
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=10)
        pm.Normal("Y", intercept + x @ b, sigma, observed=y)
    return model


@published("bioassay", "BDA Python demos: bioassay of twenty animals, A. Vehtari, T. Paananen")
def bioassay():
    dose, deaths = np.array([-0.86, -0.30, -0.05, 0.73]), np.array([0, 1, 3, 5])
    with pm.Model() as model:
        alpha, beta = pm.Flat("alpha"), pm.Flat("beta")
        pm.Binomial("deaths", n=5, logit_p=alpha + beta * dose, observed=deaths)
        pm.Deterministic("ld50", -alpha / beta)
    return model


@published(
    "neural network",
    f"{GALLERY}: Variational Inference: Bayesian Neural Networks, T. Wiecki",
    report=("p",),
)
def neural_network():
    """Two moons, two hidden layers of five; weights may swap, so probabilities are compared."""
    from sklearn.datasets import make_moons

    x, y = make_moons(noise=0.2, random_state=0, n_samples=500)
    x = (x - x.mean(0)) / x.std(0)
    rng = np.random.default_rng(25)
    starts = rng.normal(size=(2, 5)), rng.normal(size=(5, 5)), rng.normal(size=5)
    with pm.Model() as model:
        first = pm.Normal("w_in_1", 0, 1, initval=starts[0], shape=(2, 5))
        second = pm.Normal("w_1_2", 0, 1, initval=starts[1], shape=(5, 5))
        last = pm.Normal("w_2_out", 0, 1, initval=starts[2], shape=5)
        hidden = pm.math.tanh(pm.math.tanh(x @ first) @ second)
        p = pm.math.sigmoid(hidden @ last)
        pm.Deterministic("p", p[::25])
        pm.Bernoulli("out", p, observed=y)
    return model
