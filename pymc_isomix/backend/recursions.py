r"""Recursions in time for many draws at once, with cost proportional to their length.

Two of them make up a Kalman smoother. A *linear* one runs forward or, transposed, backward:

.. math:: x_t = A_t x_{t-1} + u_t, \qquad x_t = A_{t+1}^T x_{t+1} + u_t,

and the *Riccati* recursion is that of the information of later observations about a state. The
gradient of each is the recursion in the other direction, so no steps are recorded for gradients.

JAX takes a microsecond per step, and NumPy some dozens. For NumPy, time is therefore cut into about
:math:`\sqrt T` blocks that run at once: first from zero, to find the effect of a block on any state
at its edge; then along the edges; then again from the known edges. Both backends share the code.

References
----------
.. [1] Särkkä and García-Fernández (2021), Temporal parallelization of Bayesian smoothers, IEEE
   Transactions on Automatic Control 66(1), section IV: how blocks of the Riccati recursion combine.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from pymc_isomix.backend.arrays import Values
from pymc_isomix.backend.upstream import _vectorize_node, jax_dispatch

AT_ONCE = 24  # steps, up to which one block is faster in NumPy
TINY = 1e-300


class Recursion(Op):
    """An Op of arrays whose last axis is time, with any number of leading axes."""

    __props__: tuple = ()
    core_dims: tuple = ()  # of the inputs

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        """Apply the Op to variables; there is one output."""
        return super().__call__(*inputs, **kwargs)

    def make_node(self, *inputs: Any) -> Any:  # noqa: D102
        teach_jax()
        teach_numba()
        variables: list[Any] = [pt.as_tensor(value) for value in inputs]
        dtype = np.result_type(*(value.dtype for value in variables)).name
        variables = [value.astype(dtype) for value in variables]
        batches = [value.type.shape[: value.ndim - n] for value, n in self._with_dims(variables)]
        n_batch = max(map(len, batches))
        # axes of length one broadcast, as in NumPy
        padded = [(1,) * (n_batch - len(batch)) + batch for batch in batches]
        batch = tuple(_length(lengths) for lengths in zip(*padded, strict=True))
        core = self._core(*(value.type.shape[-n:] for value, n in self._with_dims(variables)))
        return Apply(self, variables, [pt.tensor(dtype=dtype, shape=(*batch, *core))])

    def perform(self, node: Any, inputs: Sequence, outputs: list) -> None:  # noqa: D102
        with np.errstate(all="ignore"):  # far out
            result = self.compute(np, _loop, *inputs)
        outputs[0][0] = np.ascontiguousarray(result, dtype=node.outputs[0].dtype)

    def infer_shape(self, node: Any, shapes: list[tuple]) -> list[tuple]:  # noqa: D102
        batches = [shape[: len(shape) - n] for shape, n in self._with_dims(shapes)]
        batch = pt.broadcast_shape(*batches, arrays_are_shapes=True)
        return [(*batch, *self._core(*(shape[-n:] for shape, n in self._with_dims(shapes))))]

    def compute(self, xp: Any, loop: Any, *inputs: Any) -> Any:
        """Compute with NumPy or JAX; ``loop`` works as ``jax.lax.scan``."""
        raise NotImplementedError

    def _core(self, *shapes):
        raise NotImplementedError

    def _with_dims(self, values):
        return zip(values, self.core_dims, strict=True)


class Linear(Recursion):
    r"""A linear recursion of states (p,), or :math:`M_t = A_t M_{t-1} A_t^T + U_t` of (p, p).

    Takes A (..., p, p, T) and u (..., p, T), or U (..., p, p, T), and returns x. The state before
    the first step is zero, as is the state after the last in reverse, :math:`x_t = A_{t+1}^T
    x_{t+1} + u_t`.

    Parameters
    ----------
    reverse : bool
        Whether it runs backward.
    squared : bool
        Whether the states are matrices, multiplied from both sides.
    """

    __props__ = ("reverse", "squared")

    def __init__(self, *, reverse: bool = False, squared: bool = False) -> None:
        self.reverse, self.squared = reverse, squared
        self.core_dims = (3, 3 if squared else 2)

    def _core(self, matrices, steps):
        return steps

    def compute(self, xp: Any, loop: Callable, matrices: Any, steps: Any) -> Any:  # noqa: D102
        n_time = steps.shape[-1]
        cut = Blocks(xp, n_time, shift=1 if self.reverse else 0)
        order, plain = range(matrices.shape[-2]), Blocks(xp, n_time)
        a = [[cut(matrices[..., i, j, :]) for j in order] for i in order]
        if self.reverse:
            a = _transposed(a)
        if self.squared:
            u = [[plain(steps[..., i, j, :]) for j in order] for i in order]
            apply = _sandwich
        else:
            u = [[plain(steps[..., i, :])] for i in order]
            apply = _matmul

        def at(x, now):
            new = _add(apply(now[0], x), now[1])
            return new, new

        def with_product(carry, now):
            x, product = carry
            return (at(x, now)[0], _matmul(now[0], product)), None

        def along(x, block):
            product, own = block
            return _add(apply(product, x), own), x

        batch = xp.broadcast_shapes(a[0][0].shape[1:], u[0][0].shape[1:])
        start = _constant(xp, 0.0, len(u), len(u[0]), batch, steps.dtype)
        if cut.n_blocks > 1:
            identity = _identity(xp, len(u), batch, steps.dtype)
            (own, product), _ = loop(with_product, (start, identity), (a, u), self.reverse)
            product, own = (_map(cut.blocks_first, part) for part in (product, own))
            nothing = _map(lambda part: part[..., 0], start)
            _, edges = loop(along, nothing, (product, own), self.reverse)
            start = _map(cut.blocks_last, edges)
        _, x = loop(at, start, (a, u), self.reverse)
        rows = [xp.stack([plain.joined(part) for part in row], axis=-2) for row in x]
        if self.squared:
            return xp.stack(rows, axis=-3)
        return xp.concatenate(rows, axis=-2)

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Values]:
        """Run the recursion in the other direction, for the gradients of additions and matrices."""
        matrices, [x] = inputs[0], outputs
        back = Linear(reverse=not self.reverse, squared=self.squared)(matrices, cotangents[0])
        # the state before a matrix, and the gradient after it
        state, behind = (x, _earlier(back)) if self.reverse else (_earlier(x), back)
        if self.squared:
            both = [
                product(product(one, matrices), other)
                for one, other in (
                    [(state, transposed(behind)), (transposed(state), behind)]
                    if self.reverse
                    else [(behind, transposed(state)), (transposed(behind), state)]
                )
            ]
            return [both[0] + both[1], back]
        left, right = (state, behind) if self.reverse else (behind, state)
        by_matrix = left[..., :, None, :] * right[..., None, :, :]
        return [
            _as_batched(part, value) for part, value in zip([by_matrix, back], inputs, strict=True)
        ]


class Riccati(Recursion):
    r"""The information of observations from time t on about the state at time t, backward.

    Of a chain :math:`x_t = b_t + \sum_k a_{tk} x_{t-k} + \sqrt{q_t} \zeta_t` with observations of
    precision :math:`c_t`, whose state is :math:`(x_t, ..., x_{t-p+1})`:

    .. math:: \Lambda_t = c_t e e^T + F_{t+1}^T \left(\Lambda - \frac{q \Lambda e e^T \Lambda}{1 + q
        e^T \Lambda e}\right)_{t+1} F_{t+1}

    with :math:`e` the first unit vector and F the companion matrix of a. Takes a (..., p, T), q and
    c (..., T), and returns :math:`\Lambda` (..., p, p, T). Nothing is subtracted for p = 1.
    """

    core_dims = (2, 1, 1)

    def _core(self, coefs, variances, precisions):
        return coefs[-2], coefs[-2], coefs[-1]

    def compute(self, xp: Any, loop: Callable, coefs: Any, variances: Any, precisions: Any) -> Any:  # noqa: D102
        n_time, p = coefs.shape[-1], coefs.shape[-2]
        later, plain = Blocks(xp, n_time, shift=1), Blocks(xp, n_time)
        # padding after the end has no coefficients and no observations
        steps = [later(coefs[..., k, :]) for k in range(p)], later(variances), plain(precisions)

        def before(information, now):
            a, q, c = now
            information = _turned(_with_noise(information, q)[0], a)
            return _observed(information, c)

        def at(information, now):
            new = before(information, now)
            return new, [new[i][j] for i in range(p) for j in range(i, p)]

        def with_element(carry, now):
            transition, covariance, information = carry
            a, q, c = now
            left, seen, odds = _with_noise(information, q)
            first = [row[0] for row in transition]
            transition = [
                [transition[i][j] - q * first[i] * seen[j] / odds for j in range(p)]
                if p > 1
                else [transition[i][0] / odds]
                for i in range(p)
            ]
            covariance = [
                [covariance[i][j] + q * first[i] * first[j] / odds for j in range(p)]
                for i in range(p)
            ]
            transition = _times_companion(transition, a)
            return (transition, covariance, _observed(_turned(left, a), c)), None

        def along(information, element):
            transition, covariance, own = element
            seen = _with_noises(information, covariance)
            across = _transposed(transition)
            return _add(_matmul(_matmul(across, seen), transition), own), information

        batch = xp.broadcast_shapes(*(part.shape[1:] for part in (*steps[0], *steps[1:])))
        dtype = precisions.dtype
        start = _constant(xp, 0.0, p, p, batch, dtype)
        if plain.n_blocks > 1:
            carry = _identity(xp, p, batch, dtype), start, start
            element, _ = loop(with_element, carry, steps, True)
            nothing = _map(lambda part: part[..., 0], start)
            _, edges = loop(along, nothing, _map(plain.blocks_first, element), True)
            start = _map(plain.blocks_last, edges)
        _, upper = loop(at, start, steps, True)
        entries = iter(plain.joined(part) for part in upper)
        found = {(i, j): next(entries) for i in range(p) for j in range(i, p)}
        rows = [
            xp.stack([found[min(i, j), max(i, j)] for j in range(p)], axis=-2) for i in range(p)
        ]
        return xp.stack(rows, axis=-3)

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Values]:
        r"""Run forward, by the transitions of the smoother.

        .. math:: M_t = \bar\Lambda_t + \tilde F_t M_{t-1} \tilde F_t^T, \qquad \bar c_t = e^T M_t e
        """
        coefs, variances, _ = inputs
        [information] = outputs
        seen, odds, closed = closed_loop(coefs, variances, information)
        cotangent = (cotangents[0] + transposed(cotangents[0])) / 2
        through = Linear(squared=True)(companion(closed), cotangent)
        before = _earlier(through)
        # of the information after the noise is integrated out, before the transition
        odds = odds[..., None, :]
        turned = [coefs * seen[..., :1, :], pt.zeros_like(seen)]
        turned = turned[0] + pt.concatenate([seen[..., 1:, :], turned[1][..., :1, :]], axis=-2)
        by_variance = -((turned[..., :, None, :] * before).sum(axis=-3) * turned).sum(axis=-2)
        by_coefs = 2 * ((turned / odds)[..., :, None, :] * before).sum(axis=-3)
        found = [by_coefs, by_variance / odds[..., 0, :] ** 2, through[..., 0, 0, :]]
        return [_as_batched(part, value) for part, value in zip(found, inputs, strict=True)]


def closed_loop(
    coefs: Values, variances: Values, information: Values
) -> tuple[Values, Values, Values]:
    r"""Return the coefficients of a chain given later observations.

    .. math:: v_t = \Lambda_t e, \qquad d_t = 1 + q_t v_{t1}, \qquad \tilde a_{tk} = \frac{a_{tk} -
        q_t v_{t, k+1}}{d_t}

    Parameters
    ----------
    coefs, variances, information : (..., p, T), (..., T), (..., p, p, T) TensorVariable

    Returns
    -------
    v, d, a : (..., p, T), (..., T), (..., p, T)
    """
    seen = information[..., 0, :, :]
    odds = 1 + variances * seen[..., 0, :]
    behind = pt.concatenate([seen[..., 1:, :], pt.zeros_like(seen[..., :1, :])], axis=-2)
    return seen, odds, (coefs - variances[..., None, :] * behind) / odds[..., None, :]


def companion(coefs: Values) -> Values:
    """Matrices (..., p, p, T) of states (x_t, ..., x_{t-p+1}) from coefficients (..., p, T)."""
    p = coefs.type.shape[-2]
    if p == 1:
        return coefs[..., None, :, :]
    below = pt.ones_like(coefs[..., None, :, :]) * np.eye(p - 1, p, dtype=coefs.dtype)[..., None]
    return pt.concatenate([coefs[..., None, :, :], below], axis=-3)


def product(left: Values, right: Values) -> Values:
    """Multiply matrices (..., p, p, T) at each time."""
    return (left[..., :, :, None, :] * right[..., None, :, :, :]).sum(axis=-3)


def transposed(matrices: Values) -> Values:
    """Transpose matrices (..., p, p, T) at each time."""
    n = matrices.ndim
    return matrices.dimshuffle(*range(n - 3), n - 2, n - 3, n - 1)


def _earlier(values):
    """Values (..., T) of the previous step; zero at the first."""
    return pt.concatenate([pt.zeros_like(values[..., :1]), values[..., :-1]], axis=-1)


def _as_batched(gradient, value):
    """Sum a gradient over the axes along which its value was broadcast."""
    extra = gradient.ndim - value.ndim
    if extra:
        gradient = gradient.sum(axis=tuple(range(extra)))
    repeated = [
        i
        for i, (own, here) in enumerate(
            zip(value.type.broadcastable, gradient.type.broadcastable, strict=True)
        )
        if own and not here
    ]
    return gradient.sum(axis=tuple(repeated), keepdims=True) if repeated else gradient


def _length(lengths):
    known = {length for length in lengths if length != 1}
    if not known:
        return 1
    return known.pop() if len(known) == 1 else None


class Blocks:
    """Times cut into blocks that run at once: (..., T) as (length of a block, ..., blocks).

    Parameters
    ----------
    xp : module
    n_time : int
    shift : int
        Shift of the cut.
    """

    def __init__(self, xp: Any, n_time: int, shift: int = 0) -> None:
        self.xp, self.n_time, self.shift = xp, n_time, shift
        self.length = n_time
        if xp is np and n_time > AT_ONCE:
            self.length = math.isqrt(n_time - 1) + 1
        self.n_blocks = -(-n_time // self.length)

    def __call__(self, values: Any) -> Any:
        """Cut values (..., T)."""
        values = values[..., self.shift :]
        missing = self.length * self.n_blocks - values.shape[-1]
        if missing:
            batch = values.shape[:-1]
            nothing = self.xp.zeros((*batch, missing), dtype=values.dtype)
            values = self.xp.concatenate([values, nothing], axis=-1)
        cut = values.reshape(*values.shape[:-1], self.n_blocks, self.length)
        return self._stored(self.xp.moveaxis(cut, -1, 0))

    def joined(self, cut: Any) -> Any:
        """Join blocks, (..., T)."""
        whole = self.xp.moveaxis(cut, 0, -1)
        return whole.reshape(*whole.shape[:-2], -1)[..., : self.n_time]

    def blocks_first(self, values: np.ndarray) -> np.ndarray:
        """Move the last axis, that of the blocks, to the front for a loop."""
        return self._stored(self.xp.moveaxis(values, -1, 0))

    def blocks_last(self, values: np.ndarray) -> np.ndarray:
        """Move it back."""
        return self._stored(self.xp.moveaxis(values, 0, -1))

    def _stored(self, values):
        return np.ascontiguousarray(values) if self.xp is np else values


def _loop(step, carry, values, reverse):
    """Loop like ``jax.lax.scan``, over nested lists of arrays."""
    length = len(_first(values))
    found: list = [None] * length
    for i in reversed(range(length)) if reverse else range(length):
        carry, found[i] = step(carry, _map(lambda value, i=i: value[i], values))
    return carry, None if found[0] is None else _stacked(found)


def _map(function, values):
    """Apply a function to the arrays of nested lists."""
    if isinstance(values, list | tuple):
        return type(values)(_map(function, value) for value in values)
    return function(values)


def _stacked(found):
    if isinstance(found[0], list | tuple):
        return type(found[0])(_stacked(part) for part in zip(*found, strict=True))
    return np.stack(found)


def _first(values):
    return _first(values[0]) if isinstance(values, list | tuple) else values


# matrices as nested lists of entries, which are arrays, because p is small


def _constant(xp, value, rows, columns, batch, dtype):
    return [[xp.full(batch, value, dtype=dtype) for _ in range(columns)] for _ in range(rows)]


def _identity(xp, p, batch, dtype):
    return [[xp.full(batch, float(i == j), dtype=dtype) for j in range(p)] for i in range(p)]


def _add(left, right):
    return [
        [a + b for a, b in zip(one, other, strict=True)]
        for one, other in zip(left, right, strict=True)
    ]


def _matmul(left, right):
    columns = list(zip(*right, strict=True))
    return [
        [
            sum((a * b for a, b in zip(row[1:], column[1:], strict=True)), row[0] * column[0])
            for column in columns
        ]
        for row in left
    ]


def _sandwich(matrix, middle):
    return _matmul(_matmul(matrix, middle), _transposed(matrix))


def _times_companion(matrix, a):
    """Multiply A by F, the companion matrix of a."""
    p = len(a)
    return [
        [row[0] * a[j] + row[j + 1] if j + 1 < p else row[0] * a[j] for j in range(p)]
        for row in matrix
    ]


def _turned(matrix, a):
    """Multiply F^T A F, with F the companion matrix of a and A symmetric."""
    return _transposed(_times_companion(_transposed(_times_companion(matrix, a)), a))


def _transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def _with_noise(information, q):
    """Integrate noise of variance q out of the first element; return the rest, v and 1 + q v_1."""
    p = len(information)
    seen = information[0]
    odds = 1 + q * seen[0]
    left = [[None] * p for _ in range(p)]
    for i in range(p):
        for j in range(p):
            if i == 0 or j == 0:  # without a difference
                left[i][j] = information[i][j] / odds
            else:
                left[i][j] = information[i][j] - q * seen[i] * seen[j] / odds
    return left, seen, odds


def _with_noises(information, covariance):
    """Integrate noise with a covariance out, along the directions of its Cholesky factor."""
    p = len(information)
    if p == 1:
        return [[information[0][0] / (1 + covariance[0][0] * information[0][0])]]
    for k in range(p):
        pivot = covariance[k][k]
        safe = pivot + TINY
        column = [covariance[i][k] / safe for i in range(p)]
        seen = [row[0] for row in _matmul(information, [[one] for one in column])]
        odds = 1 + pivot * sum(one * here for one, here in zip(column, seen, strict=True))
        information = [
            [information[i][j] - pivot * seen[i] * seen[j] / odds for j in range(p)]
            for i in range(p)
        ]
        covariance = [
            [covariance[i][j] - column[i] * covariance[k][j] for j in range(p)] for i in range(p)
        ]
    return information


def _observed(information, c):
    return [
        [one + c if i == j == 0 else one for j, one in enumerate(row)]
        for i, row in enumerate(information)
    ]


@_vectorize_node.register(Recursion)
def _with_batch(op, node, *inputs):
    return op.make_node(*inputs)


@cache
def teach_jax() -> Any:
    """Register the JAX code of the recursions if JAX is installed."""
    if find_spec("jax") is None:
        return
    import jax
    import jax.numpy as jnp

    jax_funcify, _ = jax_dispatch()

    def loop(step, carry, values, reverse):
        return jax.lax.scan(step, carry, values, reverse=reverse)

    @jax_funcify.register(Recursion)
    def recursion(op, **kwargs):
        return lambda *inputs: op.compute(jnp, loop, *inputs)


@cache
def teach_numba() -> Any:
    """Register numba loops, for samplers that compile with numba."""
    from pytensor.link.numba.dispatch.basic import numba_funcify, numba_njit

    @numba_funcify.register(Linear)
    def linear_loops(op, node, **kwargs):
        of_matrices, of_steps = (value.ndim - n for value, n in op._with_dims(node.inputs))
        reverse, squared = op.reverse, op.squared

        @numba_njit
        def loops(matrices, steps):
            batch = np.broadcast_shapes(matrices.shape[:of_matrices], steps.shape[:of_steps])
            p, n_time = steps.shape[of_steps], steps.shape[-1]
            square, own = (p, p, n_time), steps.shape[of_steps:]
            a = np.broadcast_to(matrices, batch + square).copy().reshape((-1, p, p, n_time))
            x = np.broadcast_to(steps, batch + own).copy()
            flat = x.reshape((-1, p, x.size // max(a.shape[0] * p * n_time, 1), n_time))
            for i in range(flat.shape[0]):
                for step in range(1, n_time):
                    t = n_time - 1 - step if reverse else step
                    turn = a[i, :, :, t + 1].T.copy() if reverse else a[i, :, :, t].copy()
                    told = turn @ flat[i, :, :, t + 1 if reverse else t - 1].copy()
                    flat[i, :, :, t] += told @ turn.T.copy() if squared else told
            return x

        return loops

    @numba_funcify.register(Riccati)
    def riccati_loops(op, node, **kwargs):
        of_coefs, of_variances, of_precisions = (
            value.ndim - n for value, n in op._with_dims(node.inputs)
        )

        @numba_njit
        def loops(coefs, variances, precisions):
            first = np.broadcast_shapes(coefs.shape[:of_coefs], variances.shape[:of_variances])
            batch = np.broadcast_shapes(first, precisions.shape[:of_precisions])
            p, n_time = coefs.shape[-2], coefs.shape[-1]
            vectors, numbers, square = (p, n_time), (n_time,), (p, p, n_time)
            a = np.broadcast_to(coefs, batch + vectors).copy().reshape((-1, p, n_time))
            q = np.broadcast_to(variances, batch + numbers).copy().reshape((-1, n_time))
            c = np.broadcast_to(precisions, batch + numbers).copy().reshape((-1, n_time))
            found = np.zeros(batch + square, dtype=precisions.dtype)
            flat = found.reshape((-1, p, p, n_time))
            left = np.zeros((p, p), dtype=precisions.dtype)
            turn = np.eye(p, k=-1).astype(precisions.dtype)
            for i in range(flat.shape[0]):
                for t in range(n_time - 1, -1, -1):
                    if t + 1 < n_time:
                        behind = flat[i, :, :, t + 1]
                        odds = 1 + q[i, t + 1] * behind[0, 0]
                        for j in range(p):
                            for k in range(p):
                                left[j, k] = behind[j, k] / odds
                                if j and k:
                                    told = q[i, t + 1] * behind[j, 0] * behind[0, k]
                                    left[j, k] = behind[j, k] - told / odds
                        turn[0] = a[i, :, t + 1]
                        flat[i, :, :, t] = turn.T.copy() @ left @ turn
                    flat[i, 0, 0, t] += c[i, t]
            return found

        return loops
