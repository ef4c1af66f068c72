"""Weights of joined fits against masses that are known."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats
from scipy.special import logsumexp

from pymc_isomix.ensembles import joining
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.family.shares import balance
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import Block
from pymc_isomix.sites.coordinates import CoordinateMap, Coordinates

MEANS = np.array([[-8.0, 0.0], [0.0, 0.0], [8.0, 3.0]])
DEVIATIONS = np.array([[1.0, 0.1], [0.5, 0.5], [0.2, 2.0]])
MASSES = np.array([0.6, 0.3, 0.1])
LOG_EVIDENCE = 2.5


def log_density(points):
    parts = stats.norm(MEANS, DEVIATIONS).logpdf(points[:, None]).sum(axis=2) + np.log(MASSES)
    return logsumexp(parts, axis=1) + LOG_EVIDENCE


@pytest.fixture(scope="module")
def flat():
    with pm.Model() as model:
        pm.Flat("x", shape=2)
    return Coordinates(CoordinateMap(FlatSpace.of(model)))


def fit_of(flat, chosen, weights, source, *, wider=1.05):
    """What a fit that found some of the modes would be: a little too wide, masses wrong."""
    mixture = Mixture(
        MEANS[chosen],
        2 * np.log(wider * DEVIATIONS[chosen]),
        np.log(weights),
        np.ones(()),
    )
    return Block(mixture, flat, source)


@pytest.fixture(scope="module")
def overlapping(flat):
    """The second mode is in two fits, the others in one; one fit finds nothing of its own."""
    return [
        fit_of(flat, [0, 1], [0.1, 0.9], 0),
        fit_of(flat, [1, 2], [0.5, 0.5], 1, wider=1.1),
        fit_of(flat, [1], [1.0], 2, wider=1.3),
    ]


def test_overlapping_fits_are_not_counted_twice(overlapping):
    weighted = joining.join(overlapping, log_density, np.random.default_rng(0))
    assert weighted.n_pieces == 5
    assert len(weighted.pieces) == 3  # one of each mode, the best
    assert [piece.source for piece in weighted.pieces] == [0, 0, 1]
    masses = {
        tuple(p.mixture.means[0]): w for p, w in zip(weighted.pieces, weighted.weight, strict=True)
    }
    found = np.array([masses[tuple(mean)] for mean in MEANS])
    assert weighted.weight_se.max() < 0.01
    error = np.array([weighted.weight_se[i] for i in np.argsort(-weighted.weight)])
    assert (np.abs(found - MASSES) < 4 * error).all()  # four standard errors
    assert weighted.log_evidence == pytest.approx(LOG_EVIDENCE, abs=4 * weighted.log_evidence_se)
    joined = weighted.joined
    np.testing.assert_allclose(joined.block_weights, [0.9, 0.1], atol=0.02)
    np.testing.assert_allclose(joined.blocks[0].mixture.weights, [2 / 3, 1 / 3], atol=0.02)


def test_standard_errors_are_the_spread_over_seeds(overlapping):
    pieces = [piece for block in overlapping for piece in joining.pieces_of(block)]
    weights, errors = [], []
    for seed in range(60):
        draws = joining.draw(pieces, log_density, 200, np.random.default_rng(seed))
        # one step: at the optimum the split between overlapping pieces is not determined
        weight = balance(draws.log_q, draws.weight, steps=1)
        weights.append(weight)
        uniform = np.full(len(pieces), 1 / len(pieces))
        errors.append(joining.standard_errors(draws, uniform)[0])
    # of separate modes; 60 standard deviations are good to a tenth, so three of that
    spread, stated = np.std(weights, axis=0), np.mean(errors, axis=0)
    assert 0.7 < spread[0] / stated[0] < 1.3
    assert 0.7 < spread[3] / stated[3] < 1.3


def test_halves_of_one_mode_are_both_kept(flat):
    def ridge(points):
        return stats.norm(0, [8.0, 0.5]).logpdf(points).sum(axis=1)

    halves = [
        Block(
            Mixture(
                np.column_stack([np.linspace(*span, 6), np.zeros(6)]),
                2 * np.log(np.tile([2.5, 0.5], (6, 1))),
                np.full(6, -np.log(6)),
                np.ones(()),
            ),
            flat,
            source,
        )
        for source, span in enumerate([(-16, -1), (1, 16)])
    ]
    weighted = joining.join(halves, ridge, np.random.default_rng(0))
    np.testing.assert_allclose(weighted.weight, 0.5, atol=0.05)


def test_equal_fits_become_one(flat):
    fits = [fit_of(flat, [0, 1, 2], [0.6, 0.3, 0.1], source) for source in range(6)]
    weighted = joining.join(fits, log_density, np.random.default_rng(0))
    assert weighted.n_pieces == 18
    assert len(weighted.pieces) == 3


def test_dead_components_are_left_out(flat):
    mixture = Mixture(
        np.concatenate([MEANS, [[50.0, 50.0]]]),
        np.zeros(4),
        np.log([0.6, 0.3, 0.0999, 0.0001]),
        np.ones(()),
    )
    pieces = joining.pieces_of(Block(mixture, flat))
    assert [piece.mixture.n_components for piece in pieces] == [1, 1, 1]


def test_a_fit_outside_the_support_is_left_out(flat):
    def cut(points):
        return np.where(points[:, 0] < 5, log_density(points), -np.inf)

    fits = [fit_of(flat, [0], [1.0], 0), fit_of(flat, [2], [1.0], 1)]
    weighted = joining.join(fits, cut, np.random.default_rng(0))
    assert [piece.source for piece in weighted.pieces] == [0]
    with pytest.raises(ValueError, match="finite"):
        joining.join(fits[1:], cut, np.random.default_rng(0))
