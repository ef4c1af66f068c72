r"""Sites whose elements are a chain in time: walks, autoregressions, sums of noise.

As :mod:`pymc_isomix.sites.matrices`, for effects with a banded precision. Time and memory are
proportional to the number of steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.compilation import CHEAP, compiling, mode_for_xla, one_at_a_time
from pymc_isomix.backend.jax_compilation import compile_for_jax
from pymc_isomix.backend.recursions import Linear, Riccati, closed_loop, companion
from pymc_isomix.sites.forms import Form
from pymc_isomix.sites.regression import TINY, newton_step

N_GIVEN = 8  # values given by the model; the others are cached

AT_ONCE = 50  # points, on JAX
LONG = 500  # steps times lags from where on JAX is worth its compiling

LARGEST_LOG_SCALE = 10.0  # bound for a chain that explodes at the start


class Chain(Form):
    r"""A chain :math:`x_t = b_t + \sum_k a_{tk} x_{t-k} + s_t \zeta_t`, seen as :math:`h + e x`.

    Pseudo-observations from time t on give a precision :math:`\Lambda_t` of the state at t and an
    information vector :math:`\eta_t`. y is the standardised remainder of :math:`\zeta_t` given
    these and the past. With v, d and :math:`\tilde a` of
    :func:`pymc_isomix.backend.recursions.closed_loop`, and :math:`\eta'_t = \eta_t - v_t b_t`,

    .. math:: x_t = b_t + \frac{s_t^2 \eta'_{t1}}{d_t} + \sum_k \tilde a_{tk} x_{t-k} +
        \frac{s_t}{\sqrt{d_t}} y_t,

    which is a draw of a Kalman smoother. It is exact if the data are Gaussian and independent in x.
    Without pseudo-observations y is :math:`\zeta`.

    What is given, with B chains of T steps: ``offset`` b (..., B, T), ``coefs`` a (..., B, p, T),
    ``scale`` s, ``added`` h and ``factor`` e (..., B, T), ``noise`` (..., B, T), in whose units
    pseudo-observations are precise: they have :math:`c / \text{noise}^2`; and of each element of z
    ``prior_location`` and ``prior_scale`` (..., B T). z is x itself in a centred model, and prior
    location + prior scale :math:`\zeta` otherwise.

    Parameters
    ----------
    batch, n_time, order : int
        B, T and p.
    centred : bool
        Whether z is x.
    last : bool
        Whether the chains are the last axis of z, not the first.
    """

    is_chain, n_learned_from = True, N_GIVEN

    def __init__(
        self, batch: int, n_time: int, order: int, *, centred: bool, last: bool = False
    ) -> None:
        self.batch, self.n_time, self.order = batch, n_time, order
        self.centred, self.last = centred, last
        self.n_dim = self.n_pseudo = batch * n_time
        self.pseudo_names = None if centred else "step"
        self.functions: dict = {}
        self.on_jax = False

    def run_on_jax(self) -> None:
        """Compute with JAX what has to do with arrays, where the chain is long."""
        self.on_jax = self.n_time * self.order >= LONG

    def __getstate__(self):
        """Leave out the compiled functions: they are made again when asked for."""
        return {**self.__dict__, "functions": {}}

    def to_unconstrained(
        self, y: Values, given: tuple, log_precision: Values, value: Values
    ) -> tuple[Values, Values]:
        """Map y (..., B T) to z (..., B T); with the log absolute determinant (...)."""
        z, log_determinant, _ = self.forward(y, given, log_precision, value)
        return z, log_determinant

    def forward(
        self, y: Values, given: tuple, log_precision: Values, value: Values
    ) -> tuple[Values, Values, tuple]:
        """Map one point, and return what is given, with the results of the pseudo-observations."""
        offset, coefs, scale, _, _, _, prior_location, prior_scale = given[:N_GIVEN]
        seen, odds, closed, pull = smoothed = self._smoothed(given, log_precision, value)
        noise = self._chains(y, self.last) / pt.sqrt(odds)
        steps = offset + scale**2 * pull / odds + scale * noise
        x = chain(closed, steps)
        given = (*given[:N_GIVEN], *smoothed, x)
        log_determinant = -0.5 * pt.log(odds).sum(axis=(-1, -2))
        if self.centred:
            log_determinant += pt.log(pt.abs(scale)).sum(axis=(-1, -2))
            return self._flat(x, self.last), log_determinant, given
        zeta = scale * self._information(x, coefs, seen, pull) / odds + noise
        log_determinant += pt.log(pt.abs(prior_scale)).sum(axis=-1)
        return prior_location + prior_scale * self._flat(zeta, self.last), log_determinant, given

    def to_coordinates(
        self, z: Values, given: tuple, log_precision: Values, value: Values
    ) -> Values:
        """Map z (..., B T) back to y (..., B T), for any pseudo-observations."""
        offset, coefs, scale, _, _, _, prior_location, prior_scale = given[:N_GIVEN]
        seen, odds, closed, pull = self._smooth(given, log_precision, value)
        if self.centred:
            x = self._chains(z, self.last)
            y = (x - offset - (closed * _lags(x, self.order)).sum(axis=-2)) * pt.sqrt(odds) / scale
            return self._flat(y - scale * pull / pt.sqrt(odds), self.last)
        zeta = self._chains((z - prior_location) / prior_scale, self.last)
        x = chain(coefs, offset + scale * zeta)
        y = (zeta - scale * self._information(x, coefs, seen, pull) / odds) * pt.sqrt(odds)
        return self._flat(y, self.last)

    def share(self, given: tuple, log_precision: Values, value: Values) -> Values:
        r"""Share :math:`c e^2 \operatorname{var} x / \text{noise}^2` of each, (..., B T)."""
        factor = given[4]
        variance = self._variance(given, log_precision, value)
        return self._flat(self._precision(given, log_precision) * factor**2 * variance)

    def deviation(self, given: tuple, log_precision: Values, value: Values) -> Values:
        r"""Return the standard deviation of :math:`h + e x` given these, (..., B T)."""
        return self._flat(pt.abs(given[4]) * pt.sqrt(self._variance(given, log_precision, value)))

    def pullback(
        self, y: Values, given: tuple, log_precision: Values, value: Values, cotangent: Values
    ) -> Any:
        r"""Gradient of :math:`\langle` cotangent, y(z) :math:`\rangle` in log c and m, z fixed."""
        z = disconnected_grad(self.to_unconstrained(y, given, log_precision, value)[0])
        again = self.to_coordinates(z, given[:N_GIVEN], log_precision, value)
        return pytensor.grad((cotangent * again).sum(), [log_precision, value])

    def slope(
        self, y: Values, gradient: Values, given: tuple, log_precision: Values, value: Values
    ) -> tuple[Values, Values, Values]:
        r"""Return the slope of the data without the pseudo-observations, for a regression.

        :math:`\nabla_y \log p + y` comes from the slope of the log likelihood in :math:`\theta = h
        + e x`, minus :math:`c (m - \theta)`. y is banded in x, so this slope is a sum of p + 1
        terms.

        Parameters
        ----------
        y, gradient : (S, B T) TensorVariable
            Draws, and the gradient of their log density.

        Returns
        -------
        left, weight, theta : (S, B T) TensorVariable
            The slope times the variance of :math:`\theta`; that variance over that of the noise;
            and :math:`\theta` - m.
        """
        scale, added, factor, noise = given[2:6]
        if len(given) == N_GIVEN:
            given = self.forward(y, given, log_precision, value)[2]
        _, odds, closed, _, x = given[N_GIVEN:]
        variance = self._variance(given, log_precision, value)
        slope = self._chains(gradient + y, self.last) * pt.sqrt(odds) / scale
        later = [_later(closed[..., k, :] * slope, k + 1) for k in range(self.order)]
        left = factor * variance * (slope - sum(later))
        theta = added + factor * x - self._pseudo(value)
        weight = factor**2 * variance / noise**2
        return self._flat(left), self._flat(weight), self._flat(theta)

    def noise(self, given: Sequence[Values]) -> Values:
        """Return the typical noise over draws, flat, whose axis has length one where it is one."""
        return abs(given[5]).mean(axis=0).ravel()

    def log_unit(self, given: tuple, log_precision: Values, value: Values) -> Values:
        """Log of a unit of y, in units of the noise, given the past, (..., B T)."""
        _, odds, *_ = self._smoothed(given, log_precision, value)
        return -0.5 * self._flat(pt.log(odds), self.last)

    def typical(self, given: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Typical location and log scale of :math:`h + e x`, (B T,) arrays each, from K points.

        The scale is in units of the noise.
        """
        offset, coefs, scale, added, factor, noise, *_ = map(np.asarray, given)
        n = len(offset)
        with np.errstate(all="ignore"):
            matrices = _companion(coefs)
            steps = np.zeros((*matrices.shape[:-2], matrices.shape[-1]))
            steps[..., 0, :] = offset
            location = added + factor * _run(Linear(), matrices, steps)[..., 0, :]
            of_steps = np.zeros_like(matrices)
            of_steps[..., 0, 0, :] = scale**2
            variance = _run(Linear(squared=True), matrices, of_steps)[..., 0, 0, :]
            scale = np.abs(factor) * np.sqrt(variance) / noise
            log_scale = np.log(np.maximum(scale, TINY)).reshape(n, -1)
        log_scale = np.nan_to_num(log_scale, nan=LARGEST_LOG_SCALE).clip(max=LARGEST_LOG_SCALE)
        location = np.nan_to_num(location, posinf=0.0, neginf=0.0).reshape(n, -1)
        return np.median(location, axis=0), np.median(log_scale, axis=0)

    def learn(
        self,
        y: np.ndarray,
        gradient: np.ndarray,
        given: Sequence[np.ndarray],
        own: Sequence[np.ndarray],
        damping: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Regress the slope of the log likelihood on :math:`h + e x`, with arrays.

        Parameters
        ----------
        y, gradient : (S, B T) array
            Draws, and the gradient of their log density.
        given : tuple of arrays
        own : log c and m, (B T,) arrays
        damping : float
            Part of the step to take, 0 to 1.

        Returns
        -------
        log_precision, value : (B T,) array
            The new pseudo-observations.
        """
        slope = self._numbers("slope", y, gradient, given=given, own=own)
        # a chain may go hundreds of its conditional deviations from where it starts
        distance = np.abs(slope[2].mean(axis=0))
        return newton_step(slope, own, damping, self.noise(given), distance)

    def moved(
        self,
        y: np.ndarray,
        given: Sequence[np.ndarray],
        old: Sequence[np.ndarray],
        new: Sequence[np.ndarray],
    ) -> np.ndarray:
        """Map y (S, B T), an array, to y of the same z under other pseudo-observations."""
        z, _ = self._numbers("to_unconstrained", y, given=given, own=old)
        return self._numbers("to_coordinates", z, given=given, own=new)

    def unit_change(
        self, given: Sequence[np.ndarray], old: Sequence[np.ndarray], new: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Typical factor (B T,) by which the unit of y shrinks, with arrays."""
        before, after = (self._numbers("log_unit", given=given, own=own) for own in (old, new))
        return np.exp(np.median(before - after, axis=0))

    def _numbers(self, method, *arrays, given, own):
        """Evaluate a method with arrays."""
        at_points = [np.asarray(value) for value in (*arrays, *given[:N_GIVEN])]
        key = method, self.on_jax, *(value.shape[1:] for value in at_points), own[0].dtype.name
        if key not in self.functions:
            n_points = AT_ONCE if self.on_jax else None
            shapes = [((n_points, *value.shape[1:]), value.dtype) for value in at_points]
            points = [pt.tensor(shape=shape, dtype=dtype) for shape, dtype in shapes]
            own_variables = [pt.tensor(shape=value.shape, dtype=value.dtype) for value in own]
            n = len(arrays)
            outputs = getattr(self, method)(*points[:n], tuple(points[n:]), *own_variables)
            inputs = [*points, *own_variables]
            if self.on_jax:
                several = outputs if isinstance(outputs, tuple) else [outputs]
                function = compile_for_jax(inputs, list(several), mode_for_xla("JAX"))
                function = _padded(function, len(at_points), alone=several is not outputs)
            else:
                with compiling(cxx=""):
                    function = pytensor.function(
                        inputs, outputs, mode=CHEAP, on_unused_input="ignore"
                    )
            self.functions[key] = one_at_a_time(function)
        return self.functions[key](*at_points, *own)

    def _smooth(self, given, log_precision, value):
        """Return v, d, the coefficients of the closed loop, and the vectors' first entries."""
        offset, coefs, scale, added, factor = given[:5]
        precision, variance = self._precision(given, log_precision), scale**2
        information = Riccati()(coefs, variance, precision * factor**2)
        seen, odds, closed = closed_loop(coefs, variance, information)
        seen_value = precision * factor * (self._pseudo(value) - added)
        seen_value = _first(seen_value, self.order) - seen * offset[..., None, :]
        pull = Linear(reverse=True)(companion(closed), seen_value)
        return seen, odds, closed, pull[..., 0, :]

    def _smoothed(self, given, log_precision, value):
        """Return the result of :meth:`_smooth`, which :meth:`forward` may have cached."""
        return given[N_GIVEN:-1] or self._smooth(given, log_precision, value)

    def _information(self, x, coefs, seen, pull):
        """Return the information of later observations about the noise, up to its scale."""
        lags = _lags(x, self.order)
        before = (coefs * lags).sum(axis=-2)
        return pull - seen[..., 0, :] * before - (seen[..., 1:, :] * lags[..., :-1, :]).sum(axis=-2)

    def _variance(self, given, log_precision, value):
        """Variance of x, (..., B, T)."""
        _, odds, closed, _ = self._smoothed(given, log_precision, value)
        noise = _first(_first(given[2] ** 2 / odds, self.order), self.order, axis=-3)
        variances = Linear(squared=True)(companion(closed), noise)
        return variances[..., 0, 0, :]

    def _precision(self, given, log_precision):
        return self._pseudo(pt.exp(log_precision)) / given[5] ** 2

    def _pseudo(self, flat):
        return flat.reshape((self.batch, self.n_time))

    def _chains(self, flat, last):
        shape = (self.n_time, self.batch) if last else (self.batch, self.n_time)
        chains = flat.reshape((*(flat.shape[i] for i in range(flat.ndim - 1)), *shape))
        return chains.mT if last else chains

    def _flat(self, chains, last=False):
        chains = chains.mT if last else chains
        return chains.reshape((*(chains.shape[i] for i in range(chains.ndim - 2)), -1))


def chain(coefs: Values, steps: Values) -> Values:
    r"""Run a chain :math:`x_t = \sum_k a_{tk} x_{t-k} + u_t`, (..., T), from zero.

    Parameters
    ----------
    coefs : (..., p, T) TensorVariable
    steps : (..., T) TensorVariable
    """
    order = coefs.type.shape[-2]
    return Linear()(companion(coefs), _first(steps, order))[..., 0, :]


def _first(values, order, axis=-2):
    """Put values into the first element of state vectors, and zeros elsewhere."""
    values = pt.expand_dims(values, axis)
    if order == 1:
        return values
    shape = [1] * values.ndim
    shape[axis] = order - 1
    nothing = pt.zeros_like(values) * np.ones(shape, values.dtype)
    return pt.concatenate([values, nothing], axis=axis)


def _lags(x, order):
    """x_{t-k} (..., p, T) for k from 1 to p; zero before the first."""
    earlier = []
    for _ in range(order):
        x = pt.concatenate([pt.zeros_like(x[..., :1]), x[..., :-1]], axis=-1)
        earlier.append(x)
    return pt.stack(earlier, axis=-2)


def _later(values, k):
    """Values (..., T) of k steps later; zero after the last."""
    nothing = pt.zeros_like(values[..., :k])
    return pt.concatenate([values[..., k:], nothing], axis=-1)


def _companion(coefs):
    """Companion matrices (..., p, p, T), as arrays."""
    p = coefs.shape[-2]
    below = np.broadcast_to(
        np.eye(p - 1, p)[..., None], (*coefs.shape[:-2], p - 1, p, coefs.shape[-1])
    )
    return np.concatenate([coefs[..., None, :, :], below], axis=-3)


def _padded(function, n_by_point, *, alone):
    """Evaluate so many points at a time, the last ones padded: JAX has been told how many."""

    def evaluate(*arrays):
        at_points, own = arrays[:n_by_point], arrays[n_by_point:]
        parts = []
        for start in range(0, len(at_points[0]), AT_ONCE):
            chunk = [values[start : start + AT_ONCE] for values in at_points]
            missing = AT_ONCE - len(chunk[0])
            if missing:
                chunk = [np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for v in chunk]
            found = function(*chunk, *own)
            parts.append([np.asarray(part)[: AT_ONCE - missing] for part in found])
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        return joined[0] if alone else joined

    return evaluate


def _run(recursion, *arrays):
    storage: list = [[None]]
    node = recursion.make_node(*map(pt.as_tensor, arrays))
    recursion.perform(node, arrays, storage)
    return storage[0][0]
