"""Families of random variables with a location and a scale."""

import math
from functools import singledispatch
from typing import Any

import pytensor.tensor as pt
from pymc.distributions import continuous
from pymc.distributions.multivariate import ZeroSumNormalRV
from pymc.distributions.transforms import LogOddsTransform, LogTransform, ZeroSumTransform
from pytensor.tensor.random import basic

from pymc_isomix.backend.arrays import Values


@singledispatch
def location_scale(op: Any, rv: Values, transform: Any) -> Any:
    """Return location and scale of an unconstrained value, given the parents, or None.

    A family joins by registering the class of its random variable.

    Parameters
    ----------
    op : Op
        Of the random variable.
    transform : Transform or None
        Between the variable and its value.

    Returns
    -------
    location, scale : TensorVariable
        Expressions that broadcast to the variable. For a family under the logarithm or the log odds
        they are about the mean and the standard deviation there.
    """
    return None


def _location_scale(index):
    def given(op, rv, transform):
        parameters = op.dist_params(rv.owner)
        return None if transform is not None else tuple(parameters[i] for i in index)

    return given


for _family, _index in {
    basic.NormalRV: (0, 1),
    basic.CauchyRV: (0, 1),
    basic.LaplaceRV: (0, 1),
    basic.LogisticRV: (0, 1),
    basic.GumbelRV: (0, 1),
    basic.StudentTRV: (1, 2),
    continuous.MoyalRV: (0, 1),
    continuous.SkewNormalRV: (0, 1),
}.items():
    location_scale.register(_family, _location_scale(_index))


def _log_scale(log_mean, log_sd, scale):
    """Register a scale family: mean and sd of log(x / scale), and its scale by its parameters."""

    def given(op, rv, transform):
        if not isinstance(transform, LogTransform):
            return None
        parameters = op.dist_params(rv.owner)
        return pt.log(scale(*parameters)) + log_mean, pt.as_tensor(log_sd)

    return given


def _second(first, second, *_):
    return second


for _family, _given in {
    basic.HalfNormalRV: _log_scale(-0.635, math.pi / math.sqrt(8), _second),
    basic.HalfCauchyRV: _log_scale(0.0, math.pi / 2, _second),
    continuous.HalfCauchyRV: _log_scale(0.0, math.pi / 2, lambda scale, *_: scale),
    continuous.HalfStudentTRV: _log_scale(-0.3, 1.3, _second),
    basic.ExponentialRV: _log_scale(-0.577, math.pi / math.sqrt(6), lambda scale: scale),
}.items():
    location_scale.register(_family, _given)


def _log_of_gamma(shape):
    """Mean and variance of the logarithm of a gamma variable of scale one, nearly.

    They are digamma and trigamma, by one step of their recurrences, which costs less.
    """
    return pt.log(shape + 0.5) - 1 / shape, 1 / shape**2 + 1 / (shape + 0.5)


@location_scale.register(basic.GammaRV)
@location_scale.register(basic.InvGammaRV)
def _(op, rv, transform):
    if not isinstance(transform, LogTransform):
        return None
    shape, scale = op.dist_params(rv.owner)
    mean, variance = _log_of_gamma(shape)
    sign = -1 if isinstance(op, basic.InvGammaRV) else 1
    return pt.log(scale) + sign * mean, pt.sqrt(variance)


@location_scale.register(basic.BetaRV)
def _(op, rv, transform):
    if not isinstance(transform, LogOddsTransform):
        return None
    means, variances = zip(*map(_log_of_gamma, op.dist_params(rv.owner)), strict=True)
    return means[0] - means[1], pt.sqrt(variances[0] + variances[1])


@location_scale.register(basic.LogNormalRV)
def _(op, rv, transform):
    return op.dist_params(rv.owner) if isinstance(transform, LogTransform) else None


@location_scale.register(continuous.WeibullBetaRV)
def _(op, rv, transform):
    if not isinstance(transform, LogTransform):
        return None
    alpha, beta = op.dist_params(rv.owner)
    return pt.log(beta) - 0.577 / alpha, 1.28 / alpha


@location_scale.register(ZeroSumNormalRV)
def _(op, rv, transform):
    if not isinstance(transform, ZeroSumTransform):
        return None
    sigma = op.dist_params(rv.owner)[0]  # constant along the axes that sum to zero
    return pt.zeros_like(sigma), sigma
