r"""Learning of the shape of coordinates: natural gradients from a batch of draws and scores.

The batch comes from a Gaussian, y = m + L e. A change of left or right moves x as a move of y by
:math:`h(y)` would (:func:`pymc_isomix.family.shape.directions`). The gradient of the ELBO and the
Fisher information are therefore those of a moved Gaussian:

.. math:: \frac{d\,\text{ELBO}}{d\phi} = \mathbb E[R_i h_\phi(y_i)], \qquad
    F_{\phi\psi} = \mathbb E[(v_i h_\phi - h_\phi')(v_i h_\psi - h_\psi')]

with :math:`R = \nabla_y \log p + v`, which vanishes where q = p, and :math:`v = (L L^T)^{-1} (y -
m)`. Place and scale of the coordinate, h = 1 and h = (y - m), move along, so that their information
with the shape vanishes. Further changes of the mean and L are left to the Newton step.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from pymc_isomix.family import metric as metrics
from pymc_isomix.family import shape as shapes
from pymc_isomix.family.shape import Shape
from pymc_isomix.sites.coordinates import SHAPE, SHEAR

LOWEST, HIGHEST = -2.0, 1.5  # of left and right
LEAST_PAIRS = 20  # of antithetic draws
LARGEST = 0.5  # change of left or right in one step
RIDGE = 1e-3  # relative to the Fisher information
LEAST_TOTAL = 0.02  # nats, of all coordinates that get a shape at once
SURE = 12.0  # chi-squared of skew; twice that for tails, and more with few pairs
SURE_TOGETHER = 4.0  # standard deviations of the sum of chi-squared of all
WILD = 10.0  # times the median size, to which scores are cut
FAR = 0.3  # distance of a shape's centre and width from the Gaussian's, in its deviations
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class Move(NamedTuple):
    """A step of the shape and its gain."""

    change: np.ndarray  # (2, d), of left and right
    shift: np.ndarray  # (d,) of the mean, standard deviations
    log_scale: np.ndarray  # (d,) of the rows of L
    gain: np.ndarray  # (d,) nats, to second order
    by_chance: np.ndarray  # (d,) nats of the gain due to noise
    skew: np.ndarray  # (d,) chi-squared of the second Hermite polynomial, of one degree
    tails: np.ndarray  # (d,) of the third
    n_pairs: int

    @property
    def wanted(self) -> np.ndarray:
        """Coordinates that gain by a shape, (d,) booleans."""
        # for a Gaussian, the even part of the score is zero for any L, and its odd part is noise
        few = 1 + 20 / self.n_pairs
        alone = (self.skew > SURE * few) | (self.tails > 2 * SURE * few)
        others = self.skew[~alone]  # 1 on average, with a variance of 2, by chance
        together = (others - 1).sum() > SURE_TOGETHER * np.sqrt(2 * max(len(others), 1))
        sure = alone | (together & (self.gain > self.by_chance))
        return sure & ((self.gain - self.by_chance)[sure].sum() > LEAST_TOTAL)

    @property
    def certain(self) -> np.ndarray:
        """Part of the gain that is not due to chance, (d,), relative to the average of all."""
        chance = self.by_chance + self.by_chance.mean()
        return np.clip(1 - chance / np.maximum(self.gain + self.gain.mean(), 1e-300), 0, 1)


def propose(
    shape: Shape,
    mean: np.ndarray,
    root: np.ndarray,
    noise: np.ndarray,
    gradient: np.ndarray,
    shear: Any = None,
) -> Move:
    r"""Propose a step of the shape from a batch of draws y = mean + L noise.

    Parameters
    ----------
    mean : (d,) array
        m, coordinates y.
    root : (d,) or (d, d) array
        L, diagonal or lower triangular.
    noise : (S, d) array
        e, standard normal and antithetic. Draws without their opposite are left out.
    gradient : (S, d) array
        :math:`\nabla_y \log p` at the draws.
    shear : Shear, optional
        What comes before the shape, which then bends sheared draws.
    """
    first, opposite = pairs(noise)
    gradient, noise = np.concatenate([gradient[first], gradient[opposite]]), noise[first]
    deviation, offsets, pull, excess = _of_gaussian(root, noise, shear)
    if shear:
        mean, gradient = shear.apply(mean), shear.push(gradient)
    units = offsets / deviation  # (P, d), standard normal; and the same with the other sign
    fisher, overlap = _information(shape, mean, deviation, excess)
    across = np.linalg.solve(fisher[:, :2, :2], fisher[:, :2, 2:])  # (d, place and scale, shape)
    own = fisher[:, 2:, 2:] - np.einsum("iab,iac->ibc", fisher[:, :2, 2:], across)
    own += RIDGE * np.einsum("ibb->i", own)[:, None, None] * np.eye(2)

    # the even part of the score contains the second Hermite polynomial, the odd part the third
    residual = deviation * (gradient + np.concatenate([pull, -pull]))
    typical = np.median(np.abs(residual), axis=0)
    residual = np.clip(residual, -WILD * typical, WILD * typical)
    plus, minus = residual[: len(units)], residual[len(units) :]
    one = np.ones_like(units)
    second, left_even, skew = _regress(0.5 * (plus + minus), one, units**2 - 1)
    third, left_odd, tails = _regress(0.5 * (plus - minus), units, units**3 - 3 * units)
    slope_of_elbo = second[:, None] * overlap[:, 2] + third[:, None] * overlap[:, 3]
    # the part of the score that no polynomial explains
    there, here = (_directions(mean + sign * offsets, shape)[0] / deviation for sign in (1, -1))
    even = 0.5 * (there + here) - across[:, 0].T[:, None]
    odd = 0.5 * (there - here) - across[:, 1].T[:, None] * units
    slope_of_elbo += (left_even[0] * even + left_odd[0] * odd).mean(axis=1).T
    each = left_even[1] * even + left_odd[1] * odd  # (2, P, d)
    scatter = np.einsum("bsi,csi->ibc", each, each) / len(units) ** 2
    change = np.linalg.solve(own, slope_of_elbo[..., None])[..., 0]
    along = -np.einsum("iab,ib->ai", across, change)
    return Move(
        change=change.T,
        shift=along[0],
        log_scale=along[1],
        gain=0.5 * (slope_of_elbo * change).sum(axis=1),
        by_chance=0.5 * np.einsum("ibb->i", np.linalg.solve(own, scatter)),
        skew=skew,
        tails=tails,
        n_pairs=len(units),
    )


def take(
    move: Move,
    shape: Shape,
    mean: np.ndarray,
    root: np.ndarray,
    *,
    damping: float = 1.0,
    among: np.ndarray | None = None,
) -> tuple[Shape, np.ndarray, np.ndarray]:
    """Take a proposed step; return shape, mean and L.

    The part of the gain that is due to chance is left out, and a step is at most ``LARGEST``.

    Parameters
    ----------
    mean : (d,) array
    root : (d,) or (d, d) array
    damping : float
        Of the step, at most 1.
    among : (d,) booleans, optional
        Coordinates that may move.
    """
    longest = np.abs(move.change).max(axis=0)
    part = damping * move.certain * np.minimum(1, LARGEST / np.maximum(longest, 1e-300))
    if among is not None:
        part = part * among
    left, right = np.clip(np.stack([shape.left, shape.right]) + part * move.change, LOWEST, HIGHEST)
    dtype = mean.dtype
    moved = mean + part * move.shift * metrics.deviations(root)
    return (
        shape._replace(left=left.astype(dtype), right=right.astype(dtype)),
        moved.astype(dtype),
        metrics.scale_rows(root, np.exp(part * move.log_scale)).astype(dtype),
    )


def shaped(target: Any, batch: Any, step: Any, damping: float) -> Any:
    """Take a step of the shape together with one of the mean, L and the sites.

    Parameters
    ----------
    target : Target
    batch : Batch
        Of draws of the Gaussian before the step.
    step : Gaussian
        The step without a shape.

    Returns
    -------
    Gaussian
        ``step`` itself if no coordinate has a shape or needs one.
    """
    if _has_few_pairs(batch):
        return step
    shape, move = _proposed(target, batch)
    among = shapes.is_shaped(shape) | move.wanted
    if not among.any():
        return step
    shear = target.shear(step.parameters)
    mean, old = _before_shape(step, shear)
    shape, mean, deviations = recentre(*take(move, shape, mean, old, damping=damping, among=among))
    parameters = {**step.parameters, **dict(zip(SHAPE.values(), shape, strict=True))}
    factors = deviations / old
    if shear:
        shear = shear.scaled(factors)
        mean, parameters[SHEAR] = shear.undo(mean), shear.matrix
    return replace(
        step, mean=mean, root=metrics.scale_rows(step.root, factors), parameters=parameters
    )


def is_wanted(target: Any, batch: Any) -> bool:
    """Tell whether any coordinate without a shape needs one."""
    if _has_few_pairs(batch):
        return False
    shape, move = _proposed(target, batch)
    return bool((move.wanted & ~shapes.is_shaped(shape)).any())


def _has_few_pairs(batch):
    """Tell whether too few antithetic pairs lie in the support."""
    return len(pairs(batch.noise)[0]) < LEAST_PAIRS


def _before_shape(gaussian, shear):
    """Mean and standard deviations (d,) of a Gaussian where the shape sees it."""
    if shear:
        return shear.apply(gaussian.mean), shear.deviations(gaussian.root)
    return gaussian.mean, metrics.deviations(gaussian.root)


def _proposed(target, batch):
    gaussian = batch.gaussian
    shear = target.shear(gaussian.parameters)
    if set(SHAPE.values()) <= set(gaussian.parameters):
        shape = Shape(*(gaussian.parameters[name] for name in SHAPE.values()))
    else:
        shape = shapes.identity(gaussian.n_dim, gaussian.mean.dtype)
    shape = centred(shape, *_before_shape(gaussian, shear))
    # draws far out, whose scores are cut, carry most information on the tails
    noise, gradients = batch.noise, batch.gradients
    return shape, propose(shape, gaussian.mean, gaussian.root, noise, gradients, shear)


def centred(shape: Shape, mean: np.ndarray, root: np.ndarray) -> Shape:
    """Set centre and width of coordinates without a shape to those of the Gaussian."""
    shaped = shapes.is_shaped(shape)
    return shape._replace(
        centre=np.where(shaped, shape.centre, mean),
        width=np.where(shaped, shape.width, metrics.deviations(root)),
    )


def recentre(
    shape: Shape, mean: np.ndarray, root: np.ndarray
) -> tuple[Shape, np.ndarray, np.ndarray]:
    r"""Move centre and width of the shape to those of the Gaussian in x.

    While tails are learned, mean and scale move away from the centre, where the map bends. The new
    centre is S(m), the new width S'(m) times the deviation; left, right, mean and scale are those
    for which x keeps its quantiles best, by Gauss-Newton steps on

    .. math:: \mathbb E\left[\left(\frac{S_{new}(m_{new} + \sigma_{new} u) - S(m + \sigma u)}
        {\sigma S'(m + \sigma u)}\right)^2\right], \qquad u \sim \mathcal N(0, 1)

    Only coordinates far from their centre move, and only if the fit stays as good.

    Returns
    -------
    shape : Shape
    mean : (d,) array
    root : (d,) or (d, d) array
    """
    dtype, deviation = mean.dtype, metrics.deviations(root)
    points = mean + deviation * NODES[:, None]
    quantiles, log_slope, _ = shapes.bend(points, shape)
    unit = deviation * np.exp(log_slope)
    weights = WEIGHTS[:, None]
    at_mean, log_slope_at_mean, _ = (part[0] for part in shapes.bend(mean[None], shape))
    width = np.exp(log_slope_at_mean) * deviation
    trial = Shape(at_mean, width, shape.left, shape.right)
    new_mean, log_deviation = at_mean.copy(), np.log(width)

    def misfit(trial, new_mean, log_deviation):
        at = new_mean + np.exp(log_deviation) * NODES[:, None]
        bent, log_slope, _ = shapes.bend(at, trial)
        return (bent - quantiles) / unit, at, np.exp(log_slope) / unit

    error, at, slope = misfit(trial, new_mean, log_deviation)
    for _ in range(12):
        new_deviation = np.exp(log_deviation)
        moves = np.stack(
            [
                np.ones_like(at),
                new_deviation * NODES[:, None] + 0 * at,
                *_directions(at, trial)[0],
            ]
        )
        jacobian = moves * slope  # (4, nodes, d)
        normal = np.einsum("aqi,bqi->iab", jacobian * weights, jacobian)
        normal += 1e-6 * np.einsum("iaa->i", normal)[:, None, None] * np.eye(4)
        target = np.einsum("aqi,qi->ia", jacobian * weights, error)
        step = -np.linalg.solve(normal, target[..., None])[..., 0].T
        step = step * np.minimum(1, LARGEST / np.maximum(np.abs(step[2:]).max(axis=0), 1e-300))
        tried = (
            trial._replace(
                left=np.clip(trial.left + step[2], LOWEST, HIGHEST),
                right=np.clip(trial.right + step[3], LOWEST, HIGHEST),
            ),
            new_mean + step[0],
            log_deviation + np.clip(step[1], -LARGEST, LARGEST),
        )
        new_error, *_ = misfit(*tried)
        better = (weights * new_error**2).sum(axis=0) < (weights * error**2).sum(axis=0)
        trial = Shape(
            *(np.where(better, new, old) for new, old in zip(tried[0], trial, strict=True))
        )
        new_mean = np.where(better, tried[1], new_mean)
        log_deviation = np.where(better, tried[2], log_deviation)
        error, at, slope = misfit(trial, new_mean, log_deviation)
        if not better.any():
            break
    apart = np.abs(mean - shape.centre) / shape.width, np.abs(np.log(deviation / shape.width))
    good = (weights * error**2).sum(axis=0) < 1e-3
    moved = shapes.is_shaped(shape) & (np.maximum(*apart) > FAR) & good
    factors = np.where(moved, np.exp(log_deviation) / deviation, 1.0)
    parts = [np.where(moved, new, old) for new, old in zip(trial, shape, strict=True)]
    results = *parts, np.where(moved, new_mean, mean), metrics.scale_rows(root, factors)
    *parts, mean, root = (part.astype(dtype) for part in results)
    return Shape(*parts), mean, root


def pairs(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find antithetic pairs of draws (S, d): places of both, (P,) each."""
    size = np.abs(noise[:, 0])
    order = np.lexsort((noise[:, 0], size))
    first, opposite = order[1:], order[:-1]  # the positive one comes last
    found = (noise[first, 0] > 0) & (noise[first, 0] == -noise[opposite, 0])
    return first[found], opposite[found]


def _of_gaussian(root, noise, shear=None):
    """Deviations (d,), offsets and precision times offset (S, d), and sigma^2 P_ii - 1 (d,)."""
    if shear:
        deviation, precisions = shear.deviations(root), shear.precisions(root)
        offsets, pull = shear.apply(noise * root), shear.push(noise / root)
        return deviation, offsets, pull, np.maximum(deviation**2 * precisions - 1, 0)
    deviation, excess = metrics.deviations(root), np.zeros(len(root))
    if root.ndim == 2:
        inverse = metrics.whiten(root, np.eye(len(root)))  # transposed
        excess = np.maximum(deviation**2 * (inverse**2).sum(axis=1) - 1, 0)
    pull = metrics.unwhiten_gradient(root, noise)
    return deviation, metrics.unwhiten(root, noise), pull, excess


def _regress(values, low, high):
    """Regress values (P, d) on two columns each: the coefficient of the higher one.

    Returns
    -------
    coefficient : (d,) array
    left : pair of (P, d) array
        Residuals, and residuals divided by one minus the leverage.
    chi_squared : (d,) array
        Of the coefficient: the smaller one for noise of any size per draw, and of one size for all.
    """
    total = (low**2).sum(axis=0)
    by_low = (low * values).sum(axis=0) / total
    high = high - (low * high).sum(axis=0) / total * low
    square = (high**2).sum(axis=0)
    coefficient = (high * values).sum(axis=0) / square
    left = values - by_low * low - coefficient * high
    sized = left / np.maximum(1 - low**2 / total - high**2 / square, 0.1)
    plain = (left**2).sum(axis=0) / max(len(values) - 2, 1) / square
    robust = ((high * sized) ** 2).sum(axis=0) / square**2
    # rounding errors are no evidence
    floor = 1e-20 * (1 + (values**2).mean(axis=0))
    return coefficient, (left, sized), coefficient**2 / (np.maximum(plain, robust) + floor)


def _information(shape, mean, deviation, excess):
    """Fisher information (d, 4, 4) of place, scale, left and right, by quadrature.

    Given its coordinate, v_i is normal around it with the variance ``excess``. Also return the
    products (d, 4, 2) of left and right with the first four Hermite polynomials.
    """
    units = NODES[:, None] + np.zeros_like(mean)
    moves, derivatives = _directions(mean + deviation * units, shape)
    one = np.ones_like(units)
    moves = np.stack([one, units, *(moves / deviation)])
    scores = units * moves - np.stack([0 * one, one, *derivatives])
    between = np.einsum("q,aqi,bqi->iab", WEIGHTS, moves, moves)
    fisher = np.einsum("q,aqi,bqi->iab", WEIGHTS, scores, scores)
    polynomials = np.stack([one, units, units**2 - 1, units**3 - 3 * units])
    overlap = np.einsum("q,aqi,bqi->iab", WEIGHTS, polynomials, moves[2:])
    return fisher + excess[:, None, None] * between, overlap


def _directions(points, shape):
    """Directions and derivatives (2, S, d) of left and right, which alone are learned here."""
    return [part[:2] for part in shapes.directions(points, shape)]
