r"""Thin tails, mended at the end of a fit by importance weights.

KL(q || p) prices a tail that q lacks at a few hundredths of a nat, even if quantiles there are far
off, as those of the logarithm of a scale. Its own draws hardly show such a tail. Draws of q that
are stretched along one coordinate do, and the rest of their coordinates follows by regression:

.. math:: r(y) = \frac{1}{c + 2} \Big[ 2 q(y) + \sum_{i} q(A_i^{-1} y) / s \Big], \qquad
    A_i = I + (s - 1) \, \frac{C_{\cdot i} e_i^T}{C_{ii}}

with the covariance C of q, and the c coordinates where the scores of q and p differ most. With the
weights p / r, place, scale and shape of these coordinates maximise
:math:`\mathbb E_p[\log q]`, which is the least KL(p || q) over them. The truncated weights of
Ionides (2008) have a finite variance.

References
----------
.. [1] Ionides (2008), Truncated importance sampling, Journal of Computational and Graphical
   Statistics 17, 295-311.
.. [2] Cappé, Douc, Guillin, Marin and Robert (2008), Adaptive importance sampling in general
   mixture classes, Statistics and Computing 18, 447-459.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.family import metric as metrics
from pymc_isomix.family import shape as shapes
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.shape import Shape
from pymc_isomix.family.shear import Shear
from pymc_isomix.fitting.shaping import HIGHEST, LOWEST

N_LOOKED_AT, N_WEIGHTED = 400, 3000  # draws per round: for the scores, and with weights
MOST_NUMBERS, FEWEST = 6_000_000, 1000  # in all weighted draws; draws
MOST_ROUNDS, MOST_AT_ONCE = 3, 8  # rounds; coordinates per round
STRETCH = 2.0  # s
LEAST_DIFFERENCE = 0.03  # mean squared difference of scores, in standard deviations
WILD = 5.0  # difference to which single scores are cut
SURE = 18.5  # chi-squared that place, scale, left and right exceed by chance once in a thousand
LIKELY, MOST_SAMPLES = 9.5, 4  # once in twenty, where more draws decide; samples of draws
BY_CHANCE = 3.0  # multiple of the gain by chance that a gain must have
LEAST_GAIN = 0.015  # nats of KL(p || q) of a round, as much as 12 % of a width; noise is a tenth
FEWEST_EFFECTIVE = 50  # weighted draws
MOST_STEPS = 10  # of BFGS
ALLOWED_FALL = 0.07  # nats of the ELBO in all, in addition to two standard errors
RIDGE = 1e-3  # relative to the Fisher information


@dataclass(frozen=True)
class Fitted:
    """A mixture in coordinates y, and how they bend to x: by a shear, then by a shape.

    Parameters
    ----------
    mixture : Mixture
    shape : Shape
        Arrays (d,).
    shear : Shear, optional
    """

    mixture: Mixture
    shape: Shape
    shear: Shear | None = None

    def sheared(self, points: np.ndarray) -> np.ndarray:
        """Map y (S, d) to what the shape bends."""
        return self.shear.apply(points) if self.shear else points

    def pull_back(self, gradient: np.ndarray) -> np.ndarray:
        """Turn a gradient in what the shape bends, (S, d), into that in y."""
        return self.shear.pull_back(gradient) if self.shear else gradient

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Rows (c, d) of the matrix from whitened coordinates u to what the shape bends."""
        return metrics.whiten_gradient(self.mixture.metric, self.pull_back(self._units(chosen)))

    def columns(self, chosen: np.ndarray) -> np.ndarray:
        """Columns (c, d), as rows, of the inverse of that matrix."""
        units = self._units(chosen)
        return self.mixture.whiten(self.shear.undo(units) if self.shear else units)

    def _units(self, chosen):
        units = np.zeros((len(chosen), self.mixture.n_dim), self.mixture.means.dtype)
        units[np.arange(len(chosen)), chosen] = 1
        return units


def mend(
    evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    fitted: Fitted,
    rng: np.random.Generator,
    *,
    among: np.ndarray | bool = True,
) -> Fitted:
    """Mend the tails of a mixture in the coordinates where its score differs most from p's.

    Parameters
    ----------
    evaluate : callable
        From points x (S, d) to log density (S,) and gradient (S, d).
    fitted : Fitted
    rng : numpy.random.Generator
    among : (d,) booleans, optional
        Coordinates that may change.

    Returns
    -------
    Fitted
        The same object if no tail was mended.
    """
    n_draws = min(N_WEIGHTED, MOST_NUMBERS // fitted.mixture.n_dim)
    if n_draws < FEWEST:
        return fitted
    first = before = _look(evaluate, fitted, rng)
    for _ in range(MOST_ROUNDS):
        differences = before.differences * among
        chosen = np.argsort(-differences)[:MOST_AT_ONCE]
        chosen = chosen[differences[chosen] > LEAST_DIFFERENCE]
        if not len(chosen):
            break
        mended = _mend_at(evaluate, fitted, chosen, n_draws, rng)
        if mended is fitted:
            break
        after = _look(evaluate, mended, rng)
        error = 2 * np.hypot(first.standard_error, after.standard_error)
        if not after.elbo > first.elbo - ALLOWED_FALL - error:
            break
        fitted, before = mended, after
    return fitted


@dataclass(frozen=True)
class _Look:
    """What a few draws show."""

    differences: np.ndarray  # (d,) mean squared difference of scores, in standard deviations
    elbo: float
    standard_error: float


def _look(evaluate, fitted, rng):
    """Compare the scores of p and q at draws."""
    y, _ = fitted.mixture.draw(N_LOOKED_AT, rng)
    x, *slopes = shapes.bend(fitted.sheared(y), fitted.shape)
    log_p, gradient = shapes.log_density_and_gradient(*evaluate(x), *slopes)
    log_q, score = fitted.mixture.log_density_and_score(y)
    differences = (fitted.pull_back(gradient) - score) * fitted.mixture.deviations
    finite = np.isfinite(log_p) & np.isfinite(differences).all(axis=1)
    if finite.sum() < 2:
        return _Look(np.zeros(y.shape[1]), -np.inf, np.inf)
    squares = np.minimum(differences[finite] ** 2, WILD**2)
    away = (log_p - log_q)[finite]
    return _Look(squares.mean(axis=0), away.mean(), away.std() / np.sqrt(len(away)))


class _Stretched:
    """A mixture in whitened coordinates, stretched along some coordinates (c,): the density r."""

    def __init__(self, fitted, chosen):
        self.white, self.n_chosen = fitted.mixture.whitened, len(chosen)
        self.rows = fitted.rows(chosen)  # l_i
        covariances = [_covariance_along(self.white, row) for row in self.rows]
        self.along = [c / (row @ c) for row, c in zip(self.rows, covariances, strict=True)]

    def draw(self, n_draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw u (S, d)."""
        noise, _ = self.white.draw(n_draws, rng)
        # two parts are plain
        own = np.arange(n_draws) % (self.n_chosen + 2)
        for i in range(self.n_chosen):
            of_i = own == i
            noise[of_i] = self._stretch(noise[of_i], i, STRETCH)
        return noise

    def _stretch(self, noise, i, factor):
        # A_i = I + (s - 1) a_i l_i
        return noise + (factor - 1) * (noise @ self.rows[i])[:, None] * self.along[i]

    def log_density(self, noise: np.ndarray) -> np.ndarray:
        """Log r (S,) of u (S, d)."""
        back = [self._stretch(noise, i, 1 / STRETCH) for i in range(self.n_chosen)]
        log_q = [self.white.log_density_and_score(at)[0] for at in (noise, *back)]
        log_parts = [np.log(2), *[-np.log(STRETCH)] * self.n_chosen]
        log_r = np.logaddexp.reduce(np.array(log_q) + np.array(log_parts)[:, None])
        return log_r - np.log(self.n_chosen + 2)


def _covariance_along(white, row):
    """Covariances (d,) of whitened coordinates u with l u, for a row l (d,)."""
    means = white.means
    within = white.weights @ np.exp(white.log_variances)
    return within * row + (white.weights * (means @ row)) @ means


class _Change:
    r"""The density of draws x under changes of place, scale and shape of some coordinates.

    :math:`x = S(s)`, with :math:`s = m + e^b (v - m) + a \sigma` and v distributed as the fit. The
    changes (6, c) are a, b, left and right, and place and log width of the bend.
    """

    def __init__(self, fitted, chosen, noise):
        self.white, self.noise, self.chosen = fitted.mixture.whitened, noise, chosen
        rows, self.columns = fitted.rows(chosen), fitted.columns(chosen)
        self.centre = fitted.sheared(fitted.mixture.mean[None])[0]
        self.mean = self.centre[chosen]
        self.deviation = np.sqrt([row @ _covariance_along(self.white, row) for row in rows])
        self.old = self.mean + noise @ rows.T
        shape = Shape(*(part[chosen] for part in fitted.shape))
        shaped = shapes.is_shaped(shape)
        self.shape = shape._replace(
            centre=np.where(shaped, shape.centre, self.mean),
            width=np.where(shaped, shape.width, self.deviation),
        )
        self.x = shapes.bend(self.old, self.shape)[0]

    def shape_at(self, change: np.ndarray) -> Shape:
        """Return the shape of the chosen coordinates."""
        left, right = self.shape.left + change[2], self.shape.right + change[3]
        return Shape(
            centre=self.shape.centre + change[4] * self.deviation,
            width=self.shape.width * np.exp(change[5]),
            left=np.clip(left, LOWEST, HIGHEST),
            right=np.clip(right, LOWEST, HIGHEST),
        )

    def evaluate(self, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (S,) of the draws, up to a constant, and its gradient (S, 6, c)."""
        shape, scale, shift = self.shape_at(change), np.exp(change[1]), change[0] * self.deviation
        y = shapes.straighten(self.x, shape)
        v = self.mean + (y - self.mean - shift) / scale
        log_v, score = self.white.log_density_and_score(self.noise + (v - self.old) @ self.columns)
        log_q = log_v - (shapes.bend(y, shape)[1] + change[1]).sum(axis=1)
        of_y = score @ self.columns.T / scale
        moves, derivatives = shapes.directions(y, shape)
        moves[2] *= self.deviation
        derivatives[2] *= self.deviation
        one = np.ones_like(y)
        moves = np.stack([self.deviation * one, y - self.mean - shift, *moves])
        derivatives = np.stack([0 * one, one, *derivatives])
        return log_q, -(moves * of_y + derivatives).transpose(1, 0, 2)

    def applied(self, change: np.ndarray, fitted: Fitted) -> Fitted:
        """Return the mixture and its shape after a change."""
        mixture, chosen, dtype = fitted.mixture, self.chosen, fitted.mixture.means.dtype
        scales, shift = np.ones(mixture.n_dim), np.zeros(mixture.n_dim)
        scales[chosen], shift[chosen] = np.exp(change[1]), change[0] * self.deviation
        means = self.centre + scales * (fitted.sheared(mixture.means) - self.centre) + shift
        shear = fitted.shear
        if shear:  # y is scaled, too
            shear = shear.scaled(scales)
            shear = shear._replace(matrix=shear.matrix.astype(dtype))
            means = shear.undo(means)
        metric = metrics.scale_rows(mixture.metric, scales)
        parts = [np.array(part) for part in fitted.shape]
        for part, own in zip(parts, self.shape_at(change), strict=True):
            part[chosen] = own
        moved = replace(mixture, means=means.astype(dtype), metric=metric.astype(dtype))
        return Fitted(moved, Shape(*parts), shear)


def _mend_at(evaluate, fitted, chosen, n_draws, rng):
    """Mend some coordinates, where weights show that it is needed."""
    stretched = _Stretched(fitted, chosen)
    noise, log_p = np.empty((0, fitted.mixture.n_dim)), np.empty(0)
    none = np.zeros((6, len(chosen)))
    for _ in range(MOST_SAMPLES):
        more = stretched.draw(n_draws, rng)
        y = fitted.mixture.mean + fitted.mixture.unwhiten(more)
        x, log_slope, _ = shapes.bend(fitted.sheared(y), fitted.shape)
        noise = np.concatenate([noise, more])
        log_p = np.concatenate([log_p, evaluate(x)[0] + log_slope.sum(axis=1)])
        log_r = stretched.log_density(noise)
        log_q, slopes = _Change(fitted, chosen, noise).evaluate(none)
        weights, own = _truncated(log_p - log_r), _normalised(log_q - log_r)
        if not 1 / np.sum(weights**2) >= FEWEST_EFFECTIVE or not np.isfinite(slopes).all():
            return fitted
        wanted, may_be = _are_wanted(weights, own, slopes[:, :4])
        if not (may_be & ~wanted).any():
            break
    if not wanted.any():
        return fitted
    change = _Change(fitted, chosen[wanted], noise)

    def loss(flat):
        log_q, slopes = change.evaluate(flat.reshape(6, -1))
        return -weights @ log_q, -np.tensordot(weights, slopes, 1).ravel()

    flat = none[:, wanted].ravel()
    slopes = slopes[:, :, wanted].reshape(len(weights), -1)
    fisher = (own * slopes.T) @ slopes
    fisher[np.diag_indices_from(fisher)] += RIDGE * np.trace(fisher) / len(fisher)
    inverse = np.linalg.inv(fisher)
    options = {"maxiter": MOST_STEPS, "hess_inv0": (inverse + inverse.T) / 2}
    found = scipy.optimize.minimize(loss, flat, jac=True, method="BFGS", options=options)
    if not loss(flat)[0] - found.fun >= LEAST_GAIN:  # NaN is none
        return fitted
    return change.applied(found.x.reshape(6, -1), fitted)


def _are_wanted(weights, own, slopes):
    """Tell which coordinates gain surely and by more than chance, and which may: (c,) booleans."""
    excess = weights - own
    slope = np.einsum("s,sai->ia", excess, slopes)
    noise = np.einsum("s,sai,sbi->iab", excess**2, slopes, slopes)
    fisher = np.einsum("s,sai,sbi->iab", own, slopes, slopes)
    for matrix, ridge in ((noise, 1e-6), (fisher, RIDGE)):
        size = ridge * np.einsum("iaa->i", matrix) + 1e-300
        matrix += size[:, None, None] * np.eye(4)
    chi_squared, gain = (
        np.einsum("ia,ia->i", slope, np.linalg.solve(matrix, slope[..., None])[..., 0])
        for matrix in (noise, fisher)
    )
    chance = np.einsum("iaa->i", np.linalg.solve(fisher, noise))
    may_be = (chi_squared > LIKELY) & (gain > np.maximum(chance, LEAST_GAIN))
    return (chi_squared > SURE) & (gain > BY_CHANCE * chance), may_be


def _normalised(log_weights):
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / weights.sum()


def _truncated(log_weights):
    """Weights (S,) of sum one, truncated at the square root of S times their mean."""
    weights = _normalised(np.where(np.isfinite(log_weights), log_weights, -np.inf))
    weights = np.minimum(weights, len(weights) ** -0.5)
    return weights / weights.sum()
