"""Chains in time of 200 to 10 000 steps: their models, and their exact posteriors where one is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from problems.kalman import StateSpace, gaussian_steps, positive, real


@dataclass(frozen=True)
class Chain:
    """A model with a chain in time.

    Parameters
    ----------
    build : callable
        Returns the model.
    states : str
        The variable that is the chain, (T,) or (B, T).
    exact : StateSpace, optional
        The same as a linear Gaussian state space; else NUTS is the reference.
    sampled : callable, optional
        Returns the model that NUTS takes, where another writing is easier for it.
    """

    build: Callable
    states: str
    exact: StateSpace | None = None
    sampled: Callable | None = None


def walk(n_time, *, n_series=1, missing=False):
    """A local level: a random walk seen with noise, the scales of both unknown."""
    rng = np.random.default_rng(n_time + n_series)
    steps = rng.normal(0, 0.3, (n_series, n_time))
    y = np.cumsum(steps, axis=1) + rng.normal(size=(n_series, n_time))
    if missing:
        y[:, rng.uniform(size=n_time) < 0.3] = np.nan
        y[:, n_time // 2 : n_time // 2 + 50] = np.nan
    seen = np.isfinite(y)

    def build():
        with pm.Model() as model:
            step, noise = pm.HalfNormal("step", 1), pm.HalfNormal("noise", 1)
            shape = (n_series, n_time) if n_series > 1 else n_time
            start = pm.Normal.dist(0, 10)
            x = pm.GaussianRandomWalk("x", sigma=step, init_dist=start, shape=shape)
            of_data = x[seen] if n_series > 1 else x[np.flatnonzero(seen[0])]
            pm.Normal("y", of_data, noise, observed=y[seen])
        return model

    def system(theta):
        step, noise = theta
        return gaussian_steps([[1.0]], [0.0], [step**2], [0.0], [100.0], [1.0], noise**2)

    parameters = {"step": positive(1), "noise": positive(1)}
    return Chain(build, "x", StateSpace(system, parameters, y, first=0))


def autoregression(order, n_time):
    """A latent AR(p) seen with noise, everything unknown."""
    rng = np.random.default_rng(n_time + order)
    true = {1: [0.9], 2: [1.2, -0.4]}[order]
    x = np.zeros(n_time + 200)
    for t in range(order, len(x)):
        x[t] = np.dot(true, x[t - order : t][::-1]) + 0.5 * rng.normal()
    y = x[200:] + rng.normal(0, 0.5, n_time)

    def build():
        with pm.Model() as model:
            rho = pm.Normal("rho", 0, 1, shape=order)
            step, noise = pm.HalfNormal("step", 1), pm.HalfNormal("noise", 1)
            start = pm.Normal.dist(0, 2, shape=order)
            x = pm.AR("x", rho, sigma=step, init_dist=start, steps=n_time - order)
            pm.Normal("y", x, noise, observed=y)
        return model

    def system(theta):
        *rho, step, noise = theta
        if order == 1:
            return gaussian_steps([rho], [0.0], [step**2], [0.0], [4.0], [1.0], noise**2)
        # the state is (x_t, x_{t-1}), from the second value on
        transition, nothing = [rho, [1.0, 0.0]], [0.0, 0.0]
        noises = [step**2, 0.0]
        return gaussian_steps(
            transition, nothing, noises, nothing, [4.0, 4.0], [1.0, 0.0], noise**2
        )

    parameters = {f"rho[{k}]": real(0, 1) for k in range(order)}
    parameters |= {"step": positive(1), "noise": positive(1)}
    return Chain(build, "x", StateSpace(system, parameters, y[None], first=order - 1))


def trend(n_time, *, centred=True):
    """A local linear trend: a walk whose slope is a walk."""
    rng = np.random.default_rng(n_time)
    slope = np.cumsum(rng.normal(0, 0.05, n_time))
    level = np.cumsum(np.concatenate([[0.0], slope[:-1]]) + rng.normal(0, 0.3, n_time))
    y = level + rng.normal(size=n_time)

    def build():
        with pm.Model() as model:
            of_slope, of_level = pm.HalfNormal("of_slope", 0.2), pm.HalfNormal("of_level", 1)
            noise = pm.HalfNormal("noise", 1)
            if centred:
                start = pm.Normal.dist(0, 1)
                slope = pm.GaussianRandomWalk(
                    "slope", sigma=of_slope, init_dist=start, shape=n_time
                )
                start = pm.Normal.dist(0, 10)
                innovation = {"mu": slope[:-1], "sigma": of_level}
                level = pm.GaussianRandomWalk("level", init_dist=start, shape=n_time, **innovation)
            else:
                one = np.ones(n_time - 1)
                z, w = (pm.Normal(name, shape=n_time) for name in ("slope_z", "level_z"))
                slope = pt.cumsum(z * pt.concatenate([[1.0], of_slope * one]))
                slope = pm.Deterministic("slope", slope)
                before = pt.concatenate([[0.0], slope[:-1]])
                level = pt.cumsum(before + w * pt.concatenate([[10.0], of_level * one]))
                level = pm.Deterministic("level", level)
            pm.Normal("y", level, noise, observed=y)
        return model

    def system(theta):
        of_slope, of_level, noise = theta
        noises = [of_level**2, of_slope**2]
        return gaussian_steps(
            [[1.0, 1.0], [0.0, 1.0]], [0, 0], noises, [0, 0], [100.0, 1.0], [1.0, 0.0], noise**2
        )

    parameters = {"of_slope": positive(0.2), "of_level": positive(1), "noise": positive(1)}
    return Chain(build, "level", StateSpace(system, parameters, y[None], first=0))


def volatility(n_time, way):
    """Stochastic volatility of daily returns: ``walk``, ``sums`` of noise, or ``ar``."""
    rng = np.random.default_rng(n_time)
    h, phi = np.zeros(n_time), 0.98
    for t in range(1, n_time):
        h[t] = phi * h[t - 1] + 0.2 * rng.normal()
    returns = 0.01 * np.exp(h / 2) * rng.standard_t(8, size=n_time)

    def build(way=way):
        with pm.Model() as model:
            step = pm.Exponential("step", 10)
            if way == "walk":
                start = pm.Normal.dist(-9, 3)
                h = pm.GaussianRandomWalk("h", sigma=step, init_dist=start, shape=n_time)
            elif way == "sums":
                z, first = pm.Normal("z", 0, 1, shape=n_time - 1), pm.Normal("first", -9, 3)
                h = pt.concatenate([first[None], first + pt.cumsum(step * z)])
                h = pm.Deterministic("h", h)
            else:
                level, phi = pm.Normal("level", -9, 3), pm.Beta("phi", 20, 1.5)
                rho = pt.stack([level * (1 - phi), phi])
                start = pm.Normal.dist(-9, 3)
                h = pm.AR("h", rho, sigma=step, constant=True, init_dist=start, steps=n_time - 1)
            nu = pm.Gamma("nu", 2, 0.1)
            pm.StudentT("y", nu=nu, mu=0, sigma=pt.exp(h / 2), observed=returns)
        return model

    return Chain(build, "h", sampled=lambda: build("ar" if way == "ar" else "sums"))


def counts(n_time):
    """Counts whose log rate is a random walk."""
    rng = np.random.default_rng(n_time)
    y = rng.poisson(np.exp(1 + np.cumsum(rng.normal(0, 0.1, n_time)) / 2))

    def build():
        with pm.Model() as model:
            step = pm.HalfNormal("step", 0.5)
            x = pm.GaussianRandomWalk("x", sigma=step, init_dist=pm.Normal.dist(0, 3), shape=n_time)
            pm.Poisson("y", pt.exp(x), observed=y)
        return model

    return Chain(build, "x")


CHAINS = {
    "walk 1100": walk(1100),
    "walk 10000": walk(10_000),
    "walk 1100, missing": walk(1100, missing=True),
    "5 walks of 300": walk(300, n_series=5),
    "AR(1) 200": autoregression(1, 200),
    "AR(1) 3000": autoregression(1, 3000),
    "AR(2) 200": autoregression(2, 200),
    "AR(2) 3000": autoregression(2, 3000),
    "trend 400": trend(400),
    "trend 400, sums": trend(400, centred=False),
    "counts 1000": counts(1000),
    "volatility 500, walk": volatility(500, "walk"),
    "volatility 3000, walk": volatility(3000, "walk"),
    "volatility 3000, sums": volatility(3000, "sums"),
    "volatility 3000, AR": volatility(3000, "ar"),
}
