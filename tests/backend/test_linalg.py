"""Roots and inverses of many matrices: PyTensor's own numbers and gradients."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.rewriting.basic import dfs_rewriter
from pytensor.graph.rewriting.utils import rewrite_graph

from pymc_isomix.backend.linalg import (
    ROOT,
    inverse_of_lower,
    inverse_of_root,
    quick_cholesky,
    use_quick_cholesky,
)
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.space import FlatSpace


def positive_definite(rng, *shape):
    root = rng.normal(size=(*shape, shape[-1]))
    return root @ root.swapaxes(-1, -2) + np.eye(shape[-1])


def evaluate(inputs, outputs, *numbers):
    with pytensor.config.change_flags(cxx=""):
        return pytensor.function(inputs, outputs, mode="FAST_COMPILE")(*numbers)


@pytest.mark.parametrize("n", [5, 33, 71])
def test_inverse_by_halves(n):
    lower = np.linalg.cholesky(positive_definite(np.random.default_rng(n), 2, n))
    variable = pt.tensor(shape=lower.shape)
    found = evaluate([variable], inverse_of_lower(variable), lower)
    np.testing.assert_allclose(found @ lower, np.broadcast_to(np.eye(n), lower.shape), atol=1e-10)
    assert not np.triu(found, 1).any()
    whole = evaluate([variable], inverse_of_root(variable), lower @ lower.swapaxes(1, 2))
    np.testing.assert_allclose(whole, found, atol=1e-10)


@pytest.mark.parametrize("n", [5, 40])
def test_gradient_of_the_root_is_pytensors(n):
    rng = np.random.default_rng(n)
    matrices, cotangent = positive_definite(rng, 3, n), rng.normal(size=(3, n, n))
    variable = pt.tensor(shape=matrices.shape)
    roots = quick_cholesky(variable), pt.linalg.cholesky(variable, lower=True)
    gradients = [pytensor.grad((root * cotangent).sum(), variable) for root in roots]
    root, expected_root, ours, expected = evaluate([variable], [*roots, *gradients], matrices)
    np.testing.assert_array_equal(root, expected_root)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_only_roots_of_a_known_size_that_is_worth_it():
    def names(variable, **options):
        root = pt.linalg.cholesky(variable, **options)
        new = rewrite_graph(root, include=(), custom_rewrite=dfs_rewriter(use_quick_cholesky))
        return getattr(new.owner.op, "name", None)

    assert names(pt.matrix(shape=(6, 6))) == names(pt.tensor(shape=(2, 6, 6))) == ROOT
    for other in (pt.matrix(), pt.matrix(shape=(3, 3))):
        assert names(other) != ROOT
    assert names(pt.matrix(shape=(6, 6)), lower=False) != ROOT


def test_gradient_of_a_gaussian_process_does_not_hang_on_a_rounding_error():
    # the distance of a point to itself is zero but for rounding; its clip decides
    pytest.importorskip("jax")
    x = np.linspace(-3, 3, 50)[:, None]
    with pm.Model() as model:
        amplitude, length = pm.HalfNormal("amplitude", 2), pm.LogNormal("length", 0, 0.5)
        kernel = amplitude**2 * pm.gp.cov.ExpQuad(1, ls=length)
        f = pm.gp.Latent(cov_func=kernel).prior("f", x)
        pm.Bernoulli("y", logit_p=f, observed=x[:, 0] > 0)
    space = FlatSpace.of(model)
    points = np.random.default_rng(0).normal([1.4, -0.4, *[0.0] * 50], 0.3, size=(150, 52))
    found = [
        CompiledModel(space, "float64", backend=backend).log_density_and_gradient(points)[1][:, 1]
        for backend in ("jax", "")
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
