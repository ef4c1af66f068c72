r"""Sites whose elements are correlated: :math:`\theta = f + G \zeta` with a matrix G.

As :mod:`pymc_isomix.sites.elementwise`, with a matrix in place of scales.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.jax_ops import compute_once
from pymc_isomix.backend.linalg import UNROLLED, cholesky, diagonal, lower_half, solve
from pymc_isomix.sites import matrix_regression
from pymc_isomix.sites.conditional import (
    conditional_map,
    for_pullback,
    gaussian_map,
    gaussian_pullback,
)
from pymc_isomix.sites.forms import Form
from pymc_isomix.sites.regression import TINY

# Places in the given values of a matrix site: those of the model, then those of `Matrix.forward`.
GIVEN_BY_MODEL = 4  # location f, factor G (or scales s), and a and b of the prior
FACTORS = slice(4, 6)  # the inverse of the root of P, and the pull G^T C (m - f)
FOR_PULLBACK = slice(6, None)  # H, and the results of `for_pullback`
VARIANCE = 7  # the first of these: diag(G P^-1 G^T)


class Matrix(Form):
    r"""Correlated elements, :math:`\theta = f + G \zeta` with G (..., r, n).

    .. math:: P = I + G^T \operatorname{diag}(c) G, \qquad
        \zeta = P^{-1} G^T \operatorname{diag}(c) (m - f) + \operatorname{chol}(P)^{-T} y

    This is the Gaussian conditional of Laplace's method, as a bijection with learned
    pseudo-observations.

    What is given: ``location`` f (..., B, r), ``factor`` G (..., B, r, n), and of each element of z
    ``prior_location`` a and ``prior_scale`` b (..., B n). z is :math:`\theta` itself in a centred
    model (then r = n), and :math:`a + b \zeta` otherwise.

    Parameters
    ----------
    batch : int
        Number of independent blocks of the same form, B; arrays have B before their last axes.
    rows, columns : int
        r and n.
    centred : bool
        Whether z is :math:`\theta`.
    last : bool
        Whether the blocks are the last axis of z, not the first.
    """

    is_dense = True

    def __init__(
        self, batch: int, rows: int, columns: int, *, centred: bool, last: bool = False
    ) -> None:
        self.batch, self.rows, self.columns, self.centred = batch, rows, columns, centred
        self.last = last
        self.n_dim, self.n_pseudo = batch * columns, batch * rows
        self.pseudo_names = None if centred else "row"
        # given values that a regression needs
        self.n_learned_from = 2 if rows <= matrix_regression.MOST_ROWS else 0

    def to_unconstrained(
        self, y: Values, given: Sequence, log_precision: Values, value: Values
    ) -> tuple[Values, Values]:
        """Map y (..., B n) to z (..., B n); with the log absolute determinant (...)."""
        blocks = self._blocks(y, self.last)
        zeta, log_determinant = self._effect(blocks, given, log_precision, value)
        return self._placed(zeta, log_determinant, given)

    def forward(
        self,
        y: Values,
        given: tuple[Values, Values, Values, Values],
        log_precision: Values,
        value: Values,
    ) -> tuple[Values, Values, tuple]:
        """Map one point, and return what is given with the factors of the posterior."""
        if self.columns <= UNROLLED:
            return *self.to_unconstrained(y, given, log_precision, value), given
        blocks = self._blocks(y, self.last)
        zeta, log_determinant, *factors = self._map(blocks, given, log_precision, value)
        return *self._placed(zeta, log_determinant, given), (*given, *factors)

    def to_coordinates(
        self, z: Values, given: Sequence, log_precision: Values, value: Values
    ) -> Values:
        """Map z (..., B n) back to y (..., B n), for any pseudo-observations."""
        mean, root = self._posterior(given, log_precision, value)
        zeta = self._standardised(z, given)
        return self._flat((root.mT @ (zeta - mean)[..., None])[..., 0], self.last)

    def _standardised(self, z, given):
        """Standardised effects (..., B, n) of z; the inverse of :meth:`_placed`."""
        location, factor, prior_location, prior_scale = given[:GIVEN_BY_MODEL]
        if self.centred:
            return solve(factor, self._blocks(z, self.last) - location)
        return self._blocks((z - prior_location) / prior_scale, self.last)

    def share(self, given: Sequence, log_precision: Values, value: Values) -> Values:
        r"""Share of each pseudo-observation, :math:`c_i (G P^{-1} G^T)_{ii}`, (..., B r)."""
        precision = self._pseudo(pt.exp(log_precision))
        return self._flat(precision * self._variance(given, log_precision, value))

    def deviation(self, given: Sequence, log_precision: Values, value: Values) -> Values:
        r"""Return the standard deviation of :math:`\theta` given these, (..., B r)."""
        return self._flat(pt.sqrt(self._variance(given, log_precision, value)))

    def pullback(
        self, y: Values, given: Sequence, log_precision: Values, value: Values, cotangent: Values
    ) -> Any:
        r"""Gradient of :math:`\langle` cotangent, y(z) :math:`\rangle` in log c and m, z fixed."""
        if len(given) == GIVEN_BY_MODEL:
            z = disconnected_grad(self.to_unconstrained(y, given, log_precision, value)[0])
            again = self.to_coordinates(z, given, log_precision, value)
            return pytensor.grad((cotangent * again).sum(), [log_precision, value])
        blocks, cotangent = (self._blocks(part, self.last) for part in (y, cotangent))
        log_precision, value = self._pseudo(log_precision), self._pseudo(value)
        found = self._pullback(blocks, given, log_precision, value, cotangent)
        return [self._flat(part) for part in found]

    def learn(self, y: Any, gradient: np.ndarray, given: Any, own: Any, damping: float) -> Any:
        """Learn log c and m, (B r,) arrays, from draws y (S, B n); all are NumPy arrays."""
        y, gradient = (self._blocks(part, self.last) for part in (y, gradient))
        pseudo = [self._pseudo(part) for part in own]
        location, factor = self._arrays(given)
        learned = matrix_regression.learn(y, gradient, location, factor, pseudo, damping)
        return [part.ravel() for part in learned]

    def moved(self, y: Any, given: Any, old: Any, new: Any) -> Any:
        """Map points y (S, B n) of old pseudo-observations to y of the same z under new ones."""
        pairs = [[self._pseudo(part) for part in own] for own in (old, new)]
        blocks = self._blocks(y, self.last)
        return self._flat(matrix_regression.moved(blocks, *self._arrays(given), *pairs), self.last)

    def unit_change(self, given: Any, old: Any, new: Any) -> Any:
        """Typical factor (B n,) by which the units of y shrink."""
        pairs = [[self._pseudo(part) for part in own] for own in (old, new)]
        change = matrix_regression.unit_change(*self._arrays(given), *pairs)
        return self._flat(change, self.last)

    def _arrays(self, given):
        """Location (S, B, r) and factor (S, B, r, n) as arrays."""
        factor = self._factor(given)
        return np.broadcast_to(given[0], factor.shape[:-1]), factor

    def typical(
        self, given: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Typical location and log scale of the elements, (B r,) arrays each, from K points."""
        location, factor = given[0], self._factor(given)
        scale = np.sqrt((factor**2).sum(axis=-1))
        location = np.broadcast_to(location, scale.shape).reshape(len(scale), -1)
        log_scale = np.log(np.maximum(scale, TINY)).reshape(len(scale), -1)
        return np.median(location, axis=0), np.median(log_scale, axis=0)

    def _factor(self, given):
        return given[1]

    def _observed(self, given, log_precision, value):
        """Return the information of pseudo-observations on zeta: G^T C G and G^T C (m - f)."""
        location, factor = given[:2]
        precision = self._pseudo(pt.exp(log_precision))
        weighted = factor.mT * precision[..., None, :]  # (..., n, r)
        pull = (weighted @ (self._pseudo(value) - location)[..., None])[..., 0]
        return weighted @ factor, pull

    def _map(self, blocks, given, log_precision, value):
        """Return zeta, log determinant, L^-1, t, and values for :meth:`_pullback`."""
        own = map(self._pseudo, (log_precision, value))
        *results, pull, whitened = gaussian_map(blocks, *given[:2], *own)
        return *results, pull, whitened, *for_pullback(blocks, pull, whitened)

    def _pullback(self, blocks, given, log_precision, value, cotangent):
        whitened, *prepared = given[FOR_PULLBACK]
        own = log_precision, value
        found = gaussian_pullback(given[0], *own, whitened, prepared, cotangent)
        return [part.sum(axis=0) for part in found]

    def _posterior(self, given, log_precision, value):
        precision, pull = self._observed(given, log_precision, value)
        root = cholesky(pt.eye(self.columns) + precision)
        return solve(root, solve(root, pull), transposed=True), root

    def _effect(self, blocks, given, log_precision, value):
        """Standardised effects (..., B, n), and the log determinant of their map (...)."""
        if len(given) > GIVEN_BY_MODEL:  # with the factors of these pseudo-observations
            inverse, pull = given[FACTORS]
            zeta = (inverse.mT @ (pull + blocks)[..., None])[..., 0]
            return zeta, pt.log(diagonal(inverse)).sum(axis=(-1, -2))
        mean, root = self._posterior(given, log_precision, value)
        log_determinant = -pt.log(diagonal(root)).sum(axis=(-1, -2))
        return mean + solve(root, blocks, transposed=True), log_determinant

    def _placed(self, zeta, log_determinant, given):
        """Turn standardised effects into z (..., B n)."""
        location, factor, prior_location, prior_scale = given[:GIVEN_BY_MODEL]
        if self.centred:
            theta = location + (factor @ zeta[..., None])[..., 0]
            log_determinant += pt.log(pt.abs(diagonal(factor))).sum(axis=(-1, -2))
            return self._flat(theta, self.last), log_determinant
        log_determinant += pt.log(pt.abs(prior_scale)).sum(axis=-1)
        return prior_location + prior_scale * self._flat(zeta, self.last), log_determinant

    def _variance(self, given, log_precision, value):
        if len(given) > GIVEN_BY_MODEL:
            return given[VARIANCE]
        _, root = self._posterior(given, log_precision, value)
        if self.columns <= UNROLLED:
            half = solve(root[..., None, :, :], self._factor(given))  # (..., r, n)
            return (half**2).sum(axis=-1)
        half = pt.linalg.solve_triangular(root, self._factor(given).mT, lower=True, b_ndim=2)
        return (half**2).sum(axis=-2)

    def _pseudo(self, flat):
        return flat.reshape((self.batch, self.rows))

    def _blocks(self, flat, last):
        shape = (self.columns, self.batch) if last else (self.batch, self.columns)
        blocks = flat.reshape((*(flat.shape[i] for i in range(flat.ndim - 1)), *shape))
        return blocks.mT if last else blocks

    def _flat(self, blocks, last=False):
        blocks = blocks.mT if last else blocks
        return blocks.reshape((*(blocks.shape[i] for i in range(blocks.ndim - 2)), -1))


class Scaled(Matrix):
    r"""Correlated elements, :math:`\theta = f + A \operatorname{diag}(s) \zeta`, A constant.

    .. math:: P = I + \operatorname{diag}(s) (A^T \operatorname{diag}(c) A) \operatorname{diag}(s)

    This is a basis whose coefficients have their own scales. The term in brackets is the same at
    all points. G = A diag(s), which has as many rows as there are data, is never formed.

    What is given: ``location`` f (..., B, r), ``scales`` s (..., B, n), and a and b.

    Parameters
    ----------
    basis : (r, n) array
        A.
    batch : int
        Blocks, B.
    last : bool
        Whether the blocks are the last axis of z, not the first.
    """

    def __init__(self, basis: np.ndarray, batch: int = 1, *, last: bool = False) -> None:
        super().__init__(batch, *basis.shape, centred=False, last=last)
        self.basis = basis

    def _factor(self, given):
        return self.basis.astype(given[1].dtype) * given[1][..., None, :]

    def _observed(self, given, log_precision, value):
        location, scales = given[:2]
        basis = self.basis.astype(scales.dtype)
        precision = self._pseudo(pt.exp(log_precision))
        of_columns = (basis.T * precision[..., None, :]) @ basis  # (B, n, n)
        pull = scales * ((precision * (self._pseudo(value) - location)) @ basis)
        return of_columns * scales[..., None] * scales[..., None, :], pull

    def _map(self, blocks, given, log_precision, value):
        return conditional_map(blocks, *self._observed(given, log_precision, value))

    def _variance(self, given, log_precision, value):
        if len(given) == GIVEN_BY_MODEL:
            return super()._variance(given, log_precision, value)
        half = self._half(given) @ self.basis.T.astype(given[1].dtype)  # (..., n, r)
        return (half**2).sum(axis=-2)

    def _half(self, given):
        """L^-1 diag(s), (..., B, n, n)."""
        return given[4] * given[1][..., None, :]

    def _pullback(self, blocks, given, log_precision, value, cotangent):
        """As :func:`gaussian_pullback`, with the sum over points before the basis."""
        basis, half, n = self.basis.astype(blocks.dtype), self._half(given), self.columns
        precision = pt.exp(log_precision)

        def at_rows(vectors):  # A diag(s) L^-T v
            return (half.mT @ vectors[..., None])[..., 0] @ basis.T

        def by_block(matrices):  # (S, B, n, n) -> (B, S n, n)
            return matrices.transpose(1, 0, 2, 3).reshape((self.batch, -1, n))

        middle = compute_once(lower_half(blocks[..., None] * cotangent[..., None, :]) @ half)
        of_columns = by_block(half).mT @ by_block(middle)  # (B, n, n)
        of_root = ((basis @ of_columns) * basis).sum(axis=-1)
        seen = at_rows(cotangent)
        of_mean = (seen * (at_rows(given[5]) - (value - given[0]))).sum(axis=0)
        return precision * (of_root + of_mean), -precision * seen.sum(axis=0)


class ScaledPredictor(Scaled):
    r"""Effects in rows :math:`\theta = f + A \operatorname{diag}(s) \zeta`, of which data tell.

    Pseudo-observations are learned by row, as those of a :class:`Predictor`; A is constant, as that
    of a :class:`Scaled`. What it learns from: f, s, and the slope of the log likelihood (S, B, r).
    """

    pseudo_names = "row"

    def __init__(self, basis: np.ndarray) -> None:
        super().__init__(basis)
        self.n_learned_from = 2

    def learn(self, y: Any, gradient: np.ndarray, given: Any, own: Any, damping: float) -> Any:
        """Learn log c and m, (r,) arrays, from draws y (S, n); all are NumPy arrays."""
        location, scales, slope = given
        effect = self._conditional(given, own).effect(self._blocks(y, self.last))
        theta = location + (scales * effect) @ self.basis.T
        pseudo = tuple(self._pseudo(part) for part in own)
        new = matrix_regression.learn_rows(theta, slope, pseudo, damping)
        return [part.ravel() for part in new]

    def moved(self, y: Any, given: Any, old: Any, new: Any) -> Any:
        """Map points y (S, n) of old pseudo-observations to y of the same z under new ones."""
        effect = self._conditional(given, old).effect(self._blocks(y, self.last))
        return self._flat(self._conditional(given, new).coordinates(effect), self.last)

    def unit_change(self, given: Any, old: Any, new: Any) -> Any:
        """Typical factor (n,) by which the units of y shrink."""
        roots = [self._conditional(given, own).root for own in (old, new)]
        before, after = (np.diagonal(root, axis1=-2, axis2=-1) for root in roots)
        return self._flat(np.median(after / before, axis=0), self.last)

    def typical(self, given: Any) -> Any:
        """Typical location and log scale of the rows, (r,) arrays each, from K points."""
        location, scales = given[0], given[1]
        variance = scales**2 @ (self.basis**2).T
        log_scale = 0.5 * np.log(np.maximum(variance, TINY**2)).reshape(len(variance), -1)
        return np.median(location.reshape(len(location), -1), axis=0), np.median(log_scale, axis=0)

    def _conditional(self, given, own):
        """Condition the effects on pseudo-observations, without their factors by row."""
        location, scales = given[:2]
        precision, value = np.exp(self._pseudo(own[0])), self._pseudo(own[1])
        of_columns = (self.basis.T * precision[0]) @ self.basis
        pull = scales * ((precision * (value - location)) @ self.basis)
        return matrix_regression.Conditional.from_information(
            of_columns * scales[..., None] * scales[..., None, :], pull
        )


class Predictor(Matrix):
    r"""Elements that the rows of a predictor depend on, of which the likelihood is known by row.

    As :class:`Matrix`, with pseudo-observations that are learned from the slope of the log
    likelihood in each row: of Gaussian data it is :math:`c (m - \theta)`.

    What is given: as of a ``Matrix``, but if the prior is ``joint``, b is the lower triangular
    factor (..., B, n, n) of its covariance. What it learns from: f, G, and that slope (S, B, r).
    """

    pseudo_names = "row"

    def __init__(self, batch: int, rows: int, columns: int, *, joint: bool = False) -> None:
        super().__init__(batch, rows, columns, centred=False)
        self.n_learned_from, self.joint = 2, joint

    def _standardised(self, z, given):
        if not self.joint:
            return super()._standardised(z, given)
        _, _, prior_location, root = given[:GIVEN_BY_MODEL]
        return solve(root, self._blocks(z - prior_location, self.last))

    def _placed(self, zeta, log_determinant, given):
        if not self.joint:
            return super()._placed(zeta, log_determinant, given)
        _, _, prior_location, root = given[:GIVEN_BY_MODEL]
        z = prior_location + self._flat((root @ zeta[..., None])[..., 0])
        return z, log_determinant + pt.log(diagonal(root)).sum(axis=(-1, -2))

    def learn(
        self,
        y: np.ndarray,
        gradient: np.ndarray,
        given: list[np.ndarray],
        own: list[np.ndarray],
        damping: float,
    ) -> list[np.ndarray]:
        """Learn log c and m, (B r,) arrays, from draws y (S, B n); all are NumPy arrays."""
        location, factor, slope = given
        log_precision, value = (self._pseudo(part) for part in own)
        conditional = matrix_regression.Conditional.of(location, factor, log_precision, value)
        effect = conditional.effect(self._blocks(y, self.last))
        theta = location + (factor @ effect[..., None])[..., 0]
        new = matrix_regression.learn_rows(theta, slope, (log_precision, value), damping)
        return [part.ravel() for part in new]
