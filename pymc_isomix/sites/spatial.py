"""Priors with a constant eigenbasis: Gaussian fields on the nodes of a graph."""

from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.multivariate import CARRV, ICARRV
from pytensor.graph.basic import Constant
from pytensor.tensor.elemwise import DimShuffle

from pymc_isomix.sites.families import location_scale


class Spectral(NamedTuple):
    r"""A prior :math:`z = \mu + B \operatorname{diag}(b) \zeta` with a constant matrix B.

    Parameters
    ----------
    mean : TensorVariable
        :math:`\mu`, which broadcasts to (n,).
    basis, inverse : (n, n) array
        B and its inverse.
    scales : (n,) TensorVariable
        b.
    """

    mean: Any
    basis: Any
    inverse: Any
    scales: Any


FIELDS = (CARRV, ICARRV)


@singledispatch
def spectral(op: Any, rv: Any) -> Any:
    """Return the prior of a random variable as :class:`Spectral`, or None.

    A family joins by registering the class of its random variable.
    """
    return None


@spectral.register(ICARRV)
def _(op, rv):
    r"""Precision :math:`L / \sigma^2 + 1 1^T / (n \epsilon)^2`, L the graph's Laplacian."""
    adjacency, sigma, stdev = op.dist_params(rv.owner)
    weights = _constant(adjacency)
    if weights is None or not all(sigma.type.broadcastable + stdev.type.broadcastable):
        return None
    values, vectors = np.linalg.eigh(np.diag(weights.sum(axis=0)) - weights)
    if values[1] < 1e-9 * values[-1]:
        return None  # several islands, whose levels have no prior
    vectors[:, 0] = len(values) ** -0.5  # the level, whose prior is near zero
    level = stdev.ravel() * len(values) ** 0.5
    scales = pt.concatenate([level, sigma.ravel() * values[1:] ** -0.5])
    return Spectral(pt.zeros((1,)), vectors, vectors.T, scales)


@spectral.register(CARRV)
def _(op, rv):
    r"""Precision :math:`\tau D^{1/2} (I - \alpha D^{-1/2} W D^{-1/2}) D^{1/2}`."""
    mean, adjacency, alpha, tau, *_ = op.dist_params(rv.owner)
    weights = _constant(adjacency)
    if weights is None or mean.ndim != 1:
        return None
    root = np.sqrt(weights.sum(axis=0))
    if not (root > 0).all():
        return None
    values, vectors = np.linalg.eigh(weights / root / root[:, None])
    scales = (tau.ravel() * (1 - alpha.ravel() * values)) ** -0.5
    return Spectral(mean, vectors / root[:, None], vectors.T * root, scales)


@location_scale.register(ICARRV)
def _(op, rv, transform):
    """Of an element given its neighbours, where there are too many for a basis."""
    adjacency, sigma, _ = op.dist_params(rv.owner)
    return pt.zeros((1,)), sigma / pt.sqrt(_degrees(adjacency))


@location_scale.register(CARRV)
def _(op, rv, transform):
    """Of an element given its neighbours, where there are too many for a basis."""
    mean, adjacency, _, tau, *_ = op.dist_params(rv.owner)
    return mean, 1 / pt.sqrt(tau * _degrees(adjacency))


def _degrees(adjacency):
    """Return row sums of an adjacency matrix; one for a node without neighbours."""
    data = _data(adjacency)
    total = adjacency.sum(axis=-1) if data is None else np.asarray(data.sum(axis=-1)).ravel()
    return pt.maximum(total, 1.0)


def _constant(adjacency):
    """Return a constant matrix as a dense array, else None."""
    if (data := _data(adjacency)) is None:
        return None
    dense = np.asarray(data.toarray() if hasattr(data, "toarray") else data, dtype=float)
    return dense.reshape(dense.shape[-2:])


def _data(adjacency):
    """Return the data of a constant matrix, dense or sparse, else None."""
    from pytensor.sparse.basic import DenseFromSparse  # imports much

    while adjacency.owner and isinstance(adjacency.owner.op, DimShuffle | DenseFromSparse):
        adjacency = adjacency.owner.inputs[0]
    return adjacency.data if isinstance(adjacency, Constant) else None
