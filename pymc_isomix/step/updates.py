r"""The update rules of the paper, one function each.

Step sizes here are dimensionless: :math:`\gamma_k` relative to the component's variance. The
paper's absolute step :math:`\gamma` is :math:`\gamma_k = \gamma / \epsilon_k` (the natural gradient
is already relative). All functions take and return log variances, so no variance turns negative.
They work elementwise, on one variance or one diagonal per component.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytensor.tensor as pt

from pymc_isomix.backend.arrays import Values
from pymc_isomix.family import density

# Bures overshoots if its bracket is near zero or negative, and mirror overflows. No step changes
# a log variance by more than this. Beyond it, fits of a funnel end in NaN.
MAX_LOG_CHANGE = 2.0
MIN_PRECISION_FACTOR = 0.1  # the natural gradient may make a precision negative


def mean_step(means: Values, shift: Values, *, step_size: Values) -> Values:
    r"""Take one gradient step on the means.

    .. math:: \mu_k \leftarrow \mu_k - \gamma_k \, \epsilon_k L g_k

    Parameters
    ----------
    means : (K, d) array or TensorVariable
        Component means, unconstrained.
    shift : (K, d) array or TensorVariable
        :math:`\epsilon_k L g_k`, the gradient :math:`g_k` of -ELBO in whitened coordinates taken to
        z.
    step_size : float or (K,) array
        :math:`\gamma_k` relative to the variance.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Eq. 11.
    """
    return means - pt.as_tensor(step_size)[..., None] * shift


def bures_step(log_variances: Any, curvature: Any, *, step_size: Any) -> Any:
    r"""Take one Bures-Wasserstein gradient step on the component variances.

    .. math:: \log\epsilon_k \leftarrow \log\epsilon_k + 2 \log(1 - \gamma_k c_k)

    If the bracket is at or below zero, the square in Eq. 12 would let the variance grow. Here the
    variance shrinks as far as one step may.

    Parameters
    ----------
    log_variances : (K,) or (K, d) array or TensorVariable
        Log variances in the whitened space u.
    curvature : (K,) or (K, d) array or TensorVariable
        :math:`c_k = \frac{2K}{d} \epsilon_k \, \partial F / \partial \epsilon_k`, dimensionless;
        of diagonal components with d = 1, for each dimension.
    step_size : float or array of that shape
        :math:`\gamma_k` relative to the variance; the paper's absolute step is :math:`\gamma /
        \epsilon_k`.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Eq. 12.
    """
    bracket = pt.maximum(1 - step_size * curvature, math.exp(-MAX_LOG_CHANGE / 2))
    return log_variances + _bounded(2 * pt.log(bracket))


def mirror_step(log_variances: Values, curvature: Values, *, step_size: Values) -> Values:
    r"""Take one entropic mirror descent step on the component variances.

    .. math:: \log\epsilon_k \leftarrow \log\epsilon_k - \gamma_k c_k

    Parameters are those of :func:`bures_step`. To first order this step is half as long at the same
    step size.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Eq. 13.
    """
    return log_variances - _bounded(step_size * curvature)


def natural_step(log_variances: Any, curvature: Any, *, step_size: Any) -> Any:
    r"""Take one natural gradient step on the component variances.

    .. math:: 1/\epsilon_k \leftarrow (1 + \gamma_k c_k) / \epsilon_k

    Parameters are those of :func:`bures_step`. The step of the means that belongs to it uses the
    new variance.

    References
    ----------
    .. [1] Petit-Talamon, Lambert and Korba (2025), arXiv:2506.13613, Eq. 14.
    """
    return log_variances - pt.log(pt.maximum(1 + step_size * curvature, MIN_PRECISION_FACTOR))


def fixed_step(log_variances: Any, curvature: Any, *, step_size: Any) -> Any:
    """Leave the variances as they are (Huix et al. 2024)."""
    return log_variances


class VarianceUpdate(NamedTuple):
    """An update rule of the variances, with its properties."""

    step: Callable
    factor: float  # of the dimensionless step; to first order Bures moves twice as far
    relative: bool = False  # the paper's step is relative, and means use the new variance


VARIANCE_UPDATES = {
    "mirror": VarianceUpdate(mirror_step, factor=2.0),
    "bures": VarianceUpdate(bures_step, factor=1.0),
    "natural": VarianceUpdate(natural_step, factor=2.0, relative=True),
    "fixed": VarianceUpdate(fixed_step, factor=0.0),
}


def weight_step(
    log_weights: Values, divergences: Values, *, step_size: Values, largest: float
) -> Values:
    r"""Take one entropic mirror descent step on the simplex of weights.

    .. math:: \log w_k \leftarrow \log w_k - \eta (f_k - \textstyle\sum_j w_j f_j)

    and normalise.

    Parameters
    ----------
    log_weights : (K,) array or TensorVariable
        Normalised log weights; ``-inf`` stays ``-inf``.
    divergences : (K,) array or TensorVariable
        :math:`f_k = \mathbb E_{q_k}[\log q - \log p]`, nats.
    step_size : float
        :math:`\eta`.
    largest : float
        Bound on the absolute value of the bracket, nats.
    """
    excess = divergences - pt.exp(log_weights) @ divergences
    moved = log_weights - step_size * pt.clip(excess, -largest, largest)
    return density.log_normalise(moved)


def _bounded(change):
    return pt.clip(change, -MAX_LOG_CHANGE, MAX_LOG_CHANGE)
