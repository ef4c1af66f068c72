"""Expressions of many points in chunks: the numbers of all at once."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.backend.compilation import mode_for_xla
from pymc_isomix.backend.jax_ops import InChunks, teach_jax
from pymc_isomix.model import vectorising
from pymc_isomix.model.vectorising import batch, batch_in_chunks

pytest.importorskip("jax")
teach_jax()
N = 5


def graph(n_points):
    """A root of each point's matrix, with a shared scale: (outputs, point, points, scale)."""
    point, scale = pt.vector(shape=(N,)), pytensor.shared(2.0)
    root = pt.linalg.cholesky(pt.eye(N) + scale * pt.outer(point, point), lower=True)
    outputs = [pt.log(pt.diag(root)).sum(), root @ point, root]
    return outputs, point, pt.matrix(shape=(n_points, N)), scale


def chunks_of(outputs):
    owner = outputs[0].owner
    return owner.op.n_chunks if owner and isinstance(owner.op, InChunks) else 1


def test_the_same_in_chunks(monkeypatch):
    monkeypatch.setattr(vectorising, "CACHE", 3 * N * N * 8)
    outputs, point, points, scale = graph(12)
    chunks = batch_in_chunks(outputs, point, points)
    assert chunks_of(chunks) == 4
    whole = batch(outputs, point, points)
    function = pytensor.function([points], [*chunks, *whole], mode=mode_for_xla("JAX"))
    for value in (2.0, 3.0):  # what is the same for all points is no constant
        scale.set_value(value)
        found = function(np.random.default_rng(0).normal(size=(12, N)))
        for ours, expected in zip(found[:3], found[3:], strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_chunks_divide_the_points_where_matrices_are_large(monkeypatch):
    for bytes_at_once, n_points, expected in ((9 * 200, 12, 2), (200, 12, 1), (7 * 200, 13, 1)):
        monkeypatch.setattr(vectorising, "CACHE", bytes_at_once)
        assert chunks_of(batch_in_chunks(*graph(n_points)[:3])) == expected
    monkeypatch.setattr(vectorising, "CACHE", 2**20)
    assert chunks_of(batch_in_chunks(*graph(12)[:3])) == 1


def test_chunks_divide_the_points_where_terms_are_large(monkeypatch):
    point, points = pt.vector(shape=(N,)), pt.matrix(shape=(12, N))
    rows = np.random.default_rng(0).normal(size=(40, N))
    unknown = pytensor.shared(np.ones(3))  # whose results have no length of their own
    outputs = [pt.exp(rows @ point).sum(), point * 2, unknown[:2] * point[0]]
    for bytes_at_once, expected in ((12 * 40 * 8, 1), (3 * 40 * 8, 4), (40 * 8, 1)):
        monkeypatch.setattr(vectorising, "CACHE_OF_TERMS", bytes_at_once)
        assert chunks_of(batch_in_chunks(outputs, point, points)) == expected
    monkeypatch.setattr(vectorising, "CACHE_OF_TERMS", 3 * 40 * 8)
    pairs = batch_in_chunks(outputs, point, points), batch(outputs, point, points)
    function = pytensor.function([points], [*pairs[0], *pairs[1]], mode=mode_for_xla("JAX"))
    found = function(np.random.default_rng(0).normal(size=(12, N)))
    for ours, expected in zip(found[:3], found[3:], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)
