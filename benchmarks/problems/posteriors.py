"""Reference posteriors of posteriordb as PyMC models.

The database itself is read with the ``posteriordb`` package from a local copy:
https://github.com/stan-dev/posteriordb. Improper priors stay improper (Flat, HalfFlat). What the
reference draws report but is not free in the model is a Deterministic of the same name.
"""

import re

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from posteriordb import PosteriorDatabase
from pymc.distributions.transforms import ordered

from problems.hierarchies import eight_schools

BUILDERS, PARAMS, FULL_NAMES = {}, {}, {}


def posterior(name, *params):
    """Register a builder under its own short name, beside posteriordb's."""

    def register(build):
        short = build.__name__
        BUILDERS[short], PARAMS[short], FULL_NAMES[short] = build, params, name
        return build

    return register


def _arr(x):
    return np.asarray(x, dtype=float)


def _linear(y, columns, *, sigma_prior=None):
    """y ~ N(X beta, sigma) with flat beta; sigma flat on (0, inf) or half-Cauchy."""
    X = np.column_stack(columns)
    with pm.Model() as model:
        beta = pm.Flat("beta", shape=X.shape[1])
        sigma = pm.HalfFlat("sigma") if sigma_prior is None else pm.HalfCauchy("sigma", sigma_prior)
        pm.Normal("y", X @ beta, sigma, observed=y)
    return model


@posterior("eight_schools-eight_schools_centered", "mu", "tau", "theta")
def eight_schools_centered(data):
    return eight_schools(True, _arr(data["y"]), _arr(data["sigma"]))


@posterior("eight_schools-eight_schools_noncentered", "mu", "tau", "theta")
def eight_schools_noncentered(data):
    return eight_schools(False, _arr(data["y"]), _arr(data["sigma"]))


@posterior("earnings-logearn_interaction", "beta", "sigma")
def logearn_interaction(data):
    h, m = _arr(data["height"]), _arr(data["male"])
    return _linear(np.log(_arr(data["earn"])), [np.ones_like(h), h, m, h * m])


@posterior("kidiq-kidscore_interaction", "beta", "sigma")
def kidscore_interaction(data):
    hs, iq = _arr(data["mom_hs"]), _arr(data["mom_iq"])
    return _linear(_arr(data["kid_score"]), [np.ones_like(hs), hs, iq, hs * iq], sigma_prior=2.5)


@posterior("nes2000-nes", "beta", "sigma")
def nes(data):
    age = _arr(data["age_discrete"])
    others = (_arr(data[name]) for name in ("educ1", "gender", "income"))
    first = [np.ones_like(age), _arr(data["real_ideo"]), _arr(data["race_adj"])]
    cols = [*first, 1.0 * (age == 2), 1.0 * (age == 3), 1.0 * (age == 4), *others]
    return _linear(_arr(data["partyid7"]), cols)


@posterior("sblrc-blr", "beta", "sigma")
def blr(data):
    X, y = _arr(data["X"]), _arr(data["y"])
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 10, shape=X.shape[1])
        sigma = pm.HalfNormal("sigma", 10)
        pm.Normal("y", X @ beta, sigma, observed=y)
    return model


@posterior("garch-garch11", "mu", "alpha0", "alpha1", "beta1")
def garch11(data):
    y, s1 = _arr(data["y"]), float(data["sigma1"])
    with pm.Model() as model:
        mu = pm.Flat("mu")
        alpha0 = pm.HalfFlat("alpha0")
        alpha1 = pm.Uniform("alpha1", 0, 1)
        # flat on (0, 1 - alpha1): the potential cancels Uniform's normalisation
        beta1 = pm.Uniform("beta1", 0, 1 - alpha1)
        pm.Potential("beta1_flat", pt.log1p(-alpha1))
        drive = alpha0 + alpha1 * (y[:-1] - mu) ** 2
        h = pytensor.scan(
            lambda d, h_prev, b: d + b * h_prev,
            sequences=[drive],
            outputs_info=[pt.as_tensor_variable(np.float64(s1**2))],
            non_sequences=[beta1],
            return_updates=False,
        )
        sigma = pt.sqrt(pt.concatenate([np.array([s1**2]), h]))
        pm.Normal("y", mu, sigma, observed=y)
    return model


def _exp_quad(x, alpha, rho):
    d2 = (x[:, None] - x[None, :]) ** 2
    return alpha**2 * pt.exp(-0.5 * d2 / rho**2)


@posterior("gp_pois_regr-gp_pois_regr", "rho", "alpha", "f")
def gp_pois_regr(data):
    x, k = _arr(data["x"]), np.asarray(data["k"], dtype=int)
    n = len(x)
    with pm.Model() as model:
        rho = pm.Gamma("rho", alpha=25, beta=4)
        alpha = pm.HalfNormal("alpha", 2)
        z = pm.Normal("f_tilde", 0, 1, shape=n)
        L = pt.linalg.cholesky(_exp_quad(x, alpha, rho) + 1e-10 * np.eye(n))
        f = pm.Deterministic("f", L @ z)
        pm.Poisson("k", pt.exp(f), observed=k)
    return model


@posterior("low_dim_gauss_mix-low_dim_gauss_mix", "mu", "sigma", "theta")
def low_dim_gauss_mix(data):
    y = _arr(data["y"])[:, None]
    with pm.Model() as model:
        start = np.array([-1.0, 1.0])
        mu = pm.Normal("mu", 0, 2, shape=2, transform=ordered, initval=start)
        sigma = pm.HalfNormal("sigma", 2, shape=2)
        theta = pm.Beta("theta", 5, 5)
        comp = -0.5 * ((y - mu) / sigma) ** 2 - pt.log(sigma) - 0.5 * np.log(2 * np.pi)
        logw = pt.stack([pt.log(theta), pt.log1p(-theta)])
        pm.Potential("loglik", pt.logsumexp(comp + logw, axis=1).sum())
    return model


def _entry(database, name):
    return PosteriorDatabase(str(database)).posterior(FULL_NAMES[name])


def load_model(database, name):
    """Build a posterior of the database, read from the folder ``database``, as a ``pm.Model``."""
    return BUILDERS[name](_entry(database, name).data.values())


def load_draws(database, name):
    """Return all reference draws, {variable: (draws, *shape) array}."""
    chains = _entry(database, name).reference_draws()
    scalars = {
        key: np.concatenate([np.asarray(c[key], float) for c in chains]) for key in chains[0]
    }
    elements = {}
    for key, values in scalars.items():
        variable, index = re.fullmatch(r"([A-Za-z_]\w*)(?:\[([\d,]+)\])?", key).groups()
        place = tuple(int(i) - 1 for i in index.split(",")) if index else ()
        elements.setdefault(variable, {})[place] = values
    draws = {}
    for variable, parts in elements.items():
        shape = tuple(max(axis) + 1 for axis in zip(*parts, strict=True))
        draws[variable] = np.empty((len(next(iter(parts.values()))), *shape))
        for place, values in parts.items():
            draws[variable][(slice(None), *place)] = values
    return draws
