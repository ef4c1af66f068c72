"""Dependences of expressions on leaves, against finite differences at random points."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest

from pymc_isomix.sites.affine import Affine

RNG = np.random.default_rng(3)
MATRIX, INDEX = RNG.normal(size=(4, 3)), np.array([0, 2, 2, 1])


def expressions(x, other):
    """Expressions of x (3,), leaf, and another variable (3,): (degree, whether it varies)."""
    return {
        "constant": (pt.exp(other), 0, False),
        "sum": (2 * x + other, 1, False),
        "product": (x * other, 1, True),
        "matrix": (pt.as_tensor(MATRIX) @ x, 1, False),
        "varying matrix": (pt.outer(other, other) @ x, 1, True),
        "index": (x[INDEX] - other[0], 1, False),
        "mean": (x.mean() + other, 1, False),
        "stack": (pt.stack([x, other]), 1, False),
        "written": (pt.set_subtensor(pt.zeros(5)[1:4], x), 1, False),
        "sum over time": (pt.cumsum(x / other), 1, True),
        "switch": (pt.switch(other > 0, x, 0.0), 1, True),
        "einsum": (pt.einsum("ij,j->i", MATRIX, x), 1, False),
        "square": (x * x, 2, False),
        "link": (pt.exp(x + other), 2, False),
        "denominator": (other / x, 2, False),
        "bent twice": (pt.sqr(x) + x, 2, False),
    }


NAMES = list(expressions(pt.vector(shape=(3,)), pt.vector(shape=(3,))))


@pytest.mark.parametrize("name", NAMES)
def test_dependence(name):
    with pm.Model() as model:
        x, other = pm.Normal("x", shape=3), pm.Normal("other", shape=3)
    expression, degree, varies = expressions(x, other)[name]
    found = Affine([x], set(model.free_RVs))(expression)
    assert (found.degree, found.varies) == (degree, varies)
    at = pytensor.function([x, other], expression, mode="FAST_COMPILE", on_unused_input="ignore")
    a, b, c, d, e = RNG.normal(size=(5, 3))
    bend = at(a + b + c, d) - at(a + b, d) - at(a + c, d) + at(a, d)
    assert (abs(bend).max() < 1e-12) == (degree < 2)
    if degree == 1:
        change = at(a + b, d) - at(a, d) - at(a + b, e) + at(a, e)
        assert (abs(change).max() > 1e-12) == varies or name == "switch"


def test_ends_are_the_last_affine_expressions():
    with pm.Model() as model:
        x, other = pm.Normal("x", shape=3), pm.Normal("other")
        location = other * x
        scale = x + 1
        root = pt.exp(location) + pt.log(scale) + other
    ends = list(Affine([x], set(model.free_RVs)).ends(root))
    assert ends == [location, scale]


def test_an_affine_term_of_a_log_density_has_no_curvature():
    with pm.Model() as model:
        x, other = pm.Normal("x", shape=3), pm.Normal("other")
        rate = other * x
        term = (2 * rate - pt.exp(rate)).sum() + other
    affine = Affine([x], set(model.free_RVs))
    assert list(affine.ends(term, is_term=True)) == [rate]
    assert len(list(affine.ends(term))) == 2
