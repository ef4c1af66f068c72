r"""Sites: coordinates in which the effects of a hierarchy do not depend on their scale.

A site is a block z of unconstrained space whose effect :math:`\theta` has, given the rest, a prior
with known location and scale: :math:`\theta = f + g \zeta` elementwise, or :math:`\theta = f + G
\zeta`, with :math:`\zeta` standardised. A *pseudo-observation* of each element of
:math:`\theta`, a value m with precision c, both learned, turns y into
:math:`\zeta`: its mean and its standard deviation given the pseudo-observations. At c = 0 that is
the non-centred parametrisation, at :math:`c \to \infty` the centred one.

Pure functions of PyTensor variables, for one point or, with leading axes, many.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from pymc_isomix.backend.linalg import UNROLLED, cholesky, diagonal, solve
from pymc_isomix.family.conditional import gaussian_map, gaussian_pullback

TINY = 1e-30


class Elementwise:
    r"""Independent elements, :math:`\theta = f + g \zeta`.

    .. math:: \zeta = \frac{c g (m - f)}{1 + c g^2} + \frac{y}{\sqrt{1 + c g^2}},
        \qquad z = a + b \zeta

    What is given of each element, arrays (..., n): ``location`` f and ``scale`` g of
    :math:`\theta`, and ``prior_location`` a and ``prior_scale`` b of z: the same as f and g where
    the model is centred, 0 and 1 where it multiplies z by g itself.

    Parameters
    ----------
    n : int
        Elements.
    """

    pseudo_names: str | None = None  # of what is observed, where it is not the elements of z
    is_elementwise = True

    def __init__(self, n):
        self.n_dim = self.n_pseudo = n

    def to_unconstrained(self, y, given, log_precision, value):
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        _, _, prior_location, prior_scale = given
        shift, root, _ = self._posterior(given, log_precision, value)
        log_determinant = pt.log(pt.abs(prior_scale / root)).sum(axis=-1)
        return prior_location + prior_scale * (shift + y / root), log_determinant

    def forward(self, y, given, log_precision, value):
        """Map one point, and return what is given with what else later uses would compute again."""
        return *self.to_unconstrained(y, given, log_precision, value), given

    def to_coordinates(self, z, given, log_precision, value):
        """Map z (..., n) back to y (..., n)."""
        _, _, prior_location, prior_scale = given
        shift, root, _ = self._posterior(given, log_precision, value)
        return ((z - prior_location) / prior_scale - shift) * root

    def share(self, given, log_precision, value):
        r"""Share of the pseudo-observation, :math:`c g^2 / (1 + c g^2)`; 0 is non-centred."""
        return self._posterior(given, log_precision, value)[2]

    def spread(self, given, log_precision, value):
        r"""Return the standard deviation of :math:`\theta` given the pseudo-observation."""
        return pt.abs(given[1]) / self._posterior(given, log_precision, value)[1]

    def typical(self, given):
        """Typical location and log scale of the elements, (n,) arrays each, from K points."""
        location, scale = np.asarray(given[0]), np.abs(np.asarray(given[1]))
        return np.median(location, axis=0), np.median(np.log(np.maximum(scale, TINY)), axis=0)

    def pullback(self, y, given, log_precision, value, cotangent):
        r"""Gradient of :math:`\langle` cotangent, y(z) :math:`\rangle` in log c and m, z fixed.

        .. math:: \partial y / \partial \log c = \tfrac12 s y - \zeta_0 / r, \qquad
            \partial y / \partial m = -s r / g

        with the share s, the mean :math:`\zeta_0` of :math:`\zeta`, and :math:`r = \sqrt{1 + c
        g^2}`. Summed over all axes but the last.
        """
        shift, root, share = self._posterior(given, log_precision, value)
        by_log_precision = cotangent * (0.5 * share * y - shift / root)
        # s r / g = c g / r, which is finite at g = 0
        by_value = -cotangent * pt.exp(log_precision) * given[1] / root
        return by_log_precision.sum(axis=0), by_value.sum(axis=0)

    def _posterior(self, given, log_precision, value):
        location, scale = given[:2]
        precise = pt.exp(log_precision) * scale
        odds = precise * scale
        shift = precise * (value - location) / (1 + odds)
        return shift, pt.sqrt(1 + odds), odds / (1 + odds)


class Rotated(Elementwise):
    r"""Correlated elements that one constant basis makes independent.

    For :math:`\theta = f + s A \zeta` with a constant matrix :math:`A = U S V^T` and a scale s: in
    the basis of U, :math:`\theta` is elementwise, with location :math:`U^T f` and scale s S, and z
    is rotated back by V, or by U where z is :math:`\theta` itself. A random walk, a field on a
    graph, or a Gaussian process of known length scale, costs one matrix product.

    Parameters
    ----------
    basis : (n, n) array
        Its columns are directions of z.
    inverse : (n, n) array, optional
        Of the basis; by default its transpose, where the basis is orthogonal.
    """

    pseudo_names = "direction"

    def __init__(self, basis, inverse=None):
        super().__init__(len(basis))
        self.basis = basis
        self.inverse = basis.T if inverse is None else inverse
        self.log_determinant = 0.0 if inverse is None else np.linalg.slogdet(basis)[1]

    def to_unconstrained(self, y, given, log_precision, value):
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        rotated, log_determinant = super().to_unconstrained(y, given, log_precision, value)
        log_determinant += np.asarray(self.log_determinant, dtype=y.dtype)
        return rotated @ self.basis.T.astype(y.dtype), log_determinant

    def to_coordinates(self, z, given, log_precision, value):
        """Map z (..., n) back to y (..., n)."""
        rotated = z @ self.inverse.T.astype(z.dtype)
        return super().to_coordinates(rotated, given, log_precision, value)


class Whitened(Rotated):
    r"""Correlated elements z = f + G :math:`\zeta`, whose noise is elementwise in a constant basis.

    Given beside what an elementwise site needs of :math:`\zeta`: ``mean`` f (..., n) and ``factor``
    G (..., n, n), lower triangular. What a matrix site costs, without a Cholesky factor of its own.
    """

    def to_unconstrained(self, y, given, log_precision, value):
        """Map y (..., n) to z (..., n); with the log absolute determinant (...)."""
        *own, mean, factor = given
        zeta, log_determinant = super().to_unconstrained(y, own, log_precision, value)
        log_determinant += pt.log(pt.abs(diagonal(factor))).sum(axis=-1)
        return mean + (factor @ zeta[..., None])[..., 0], log_determinant

    def to_coordinates(self, z, given, log_precision, value):
        """Map z (..., n) back to y (..., n)."""
        *own, mean, factor = given
        return super().to_coordinates(solve(factor, z - mean), own, log_precision, value)


class Matrix:
    r"""Correlated elements, :math:`\theta = f + G \zeta` with G (..., r, n).

    .. math:: P = I + G^T \operatorname{diag}(c) G, \qquad
        \zeta = P^{-1} G^T \operatorname{diag}(c) (m - f) + \operatorname{chol}(P)^{-T} y

    This is the Gaussian conditional of Laplace's method, as a bijection with learned
    pseudo-observations.

    What is given: ``location`` f (..., B, r), ``factor`` G (..., B, r, n), and of each element of z
    ``prior_location`` a and ``prior_scale`` b (..., B n). z is :math:`\theta` itself where that is
    what the model draws (then r = n), and :math:`a + b \zeta` otherwise.

    Parameters
    ----------
    batch : int
        Blocks that share nothing but their form, B; everything has B before its last axes.
    rows, columns : int
        r and n.
    centred : bool
        Whether z is :math:`\theta`.
    last : bool
        Whether the blocks are the last axis of z, not the first.
    """

    is_elementwise = False

    def __init__(self, batch, rows, columns, *, centred, last=False):
        self.batch, self.rows, self.columns, self.centred = batch, rows, columns, centred
        self.last = last
        self.n_dim, self.n_pseudo = batch * columns, batch * rows
        self.pseudo_names = None if centred else "row"

    def to_unconstrained(self, y, given, log_precision, value):
        """Map y (..., B n) to z (..., B n); with the log absolute determinant (...)."""
        blocks = self._blocks(y, self.last)
        zeta, log_determinant = self._effect(blocks, given, log_precision, value)
        return self._placed(zeta, log_determinant, given)

    def forward(self, y, given, log_precision, value):
        """Map one point, and return what is given with the factors of the posterior."""
        if self.columns <= UNROLLED:
            return *self.to_unconstrained(y, given, log_precision, value), given
        location, factor, *_ = given
        blocks, own = self._blocks(y, self.last), map(self._pseudo, (log_precision, value))
        zeta, log_determinant, *factors = gaussian_map(blocks, location, factor, *own)
        return *self._placed(zeta, log_determinant, given), (*given, *factors)

    def to_coordinates(self, z, given, log_precision, value):
        """Map z (..., B n) back to y (..., B n); whatever pseudo-observations were used forward."""
        location, factor, prior_location, prior_scale = given[:4]
        mean, root = self._posterior(given, log_precision, value)
        if self.centred:
            zeta = solve(factor, self._blocks(z, self.last) - location)
        else:
            zeta = self._blocks((z - prior_location) / prior_scale, self.last)
        return self._flat((root.mT @ (zeta - mean)[..., None])[..., 0], self.last)

    def share(self, given, log_precision, value):
        r"""Share of each pseudo-observation, :math:`c_i (G P^{-1} G^T)_{ii}`, (..., B r)."""
        precision = self._pseudo(pt.exp(log_precision))
        return self._flat(precision * self._variance(given, log_precision, value))

    def spread(self, given, log_precision, value):
        r"""Return the standard deviation of :math:`\theta` given those, (..., B r)."""
        return self._flat(pt.sqrt(self._variance(given, log_precision, value)))

    def pullback(self, y, given, log_precision, value, cotangent):
        r"""Gradient of :math:`\langle` cotangent, y(z) :math:`\rangle` in log c and m, z fixed."""
        if len(given) == 4:
            z = disconnected_grad(self.to_unconstrained(y, given, log_precision, value)[0])
            again = self.to_coordinates(z, given, log_precision, value)
            return pytensor.grad((cotangent * again).sum(), [log_precision, value])
        blocks, cotangent = (self._blocks(part, self.last) for part in (y, cotangent))
        log_precision, value = self._pseudo(log_precision), self._pseudo(value)
        location, *_, inverse, whitened, pull = given
        factors = inverse, whitened, pull
        found = gaussian_pullback(blocks, location, log_precision, value, factors, cotangent)
        return [self._flat(part.sum(axis=0)) for part in found]

    def typical(self, given):
        """Typical location and log scale of the elements, (B r,) arrays each, from K points."""
        location, factor = (np.asarray(g) for g in given[:2])
        scale = np.sqrt((factor**2).sum(axis=-1))
        location = np.broadcast_to(location, scale.shape).reshape(len(scale), -1)
        log_scale = np.log(np.maximum(scale, TINY)).reshape(len(scale), -1)
        return np.median(location, axis=0), np.median(log_scale, axis=0)

    def _posterior(self, given, log_precision, value):
        location, factor = given[:2]
        precision = self._pseudo(pt.exp(log_precision))
        weighted = factor.mT * precision[..., None, :]  # (..., n, r)
        root = cholesky(pt.eye(self.columns) + weighted @ factor)
        pull = (weighted @ (self._pseudo(value) - location)[..., None])[..., 0]
        return solve(root, solve(root, pull), transposed=True), root

    def _effect(self, blocks, given, log_precision, value):
        """Standardised effects (..., B, n), and the log determinant of their map (...)."""
        if len(given) > 4:  # with the factors of these pseudo-observations
            inverse, _, pull = given[4:]
            zeta = (inverse.mT @ (pull + blocks)[..., None])[..., 0]
            return zeta, pt.log(diagonal(inverse)).sum(axis=(-1, -2))
        mean, root = self._posterior(given, log_precision, value)
        log_determinant = -pt.log(diagonal(root)).sum(axis=(-1, -2))
        return mean + solve(root, blocks, transposed=True), log_determinant

    def _placed(self, zeta, log_determinant, given):
        """Turn standardised effects into z (..., B n)."""
        location, factor, prior_location, prior_scale = given[:4]
        if self.centred:
            theta = location + (factor @ zeta[..., None])[..., 0]
            log_determinant += pt.log(pt.abs(diagonal(factor))).sum(axis=(-1, -2))
            return self._flat(theta, self.last), log_determinant
        log_determinant += pt.log(pt.abs(prior_scale)).sum(axis=-1)
        return prior_location + prior_scale * self._flat(zeta, self.last), log_determinant

    def _variance(self, given, log_precision, value):
        if len(given) > 4:
            return (given[5] ** 2).sum(axis=-1)
        _, root = self._posterior(given, log_precision, value)
        if self.columns <= UNROLLED:
            half = solve(root[..., None, :, :], given[1])  # (..., r, n)
            return (half**2).sum(axis=-1)
        half = pt.linalg.solve_triangular(root, given[1].mT, lower=True, b_ndim=2)
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
