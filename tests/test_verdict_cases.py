"""What the benchmark of verdicts measures with: references, errors and its sampled models."""

import sys
from pathlib import Path

import numpy as np
import pymc as pm
import pytest

import pymc_isomix as pmi

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import verdicts
from results import read
from verdicts import CASES

QUICK = ("proportions", "phase of a cycle", "gamma costs in minibatches", "a covariate with gaps")
RNG = np.random.default_rng(1)
NORMAL = RNG.normal([1.0, -2.0], [1.0, 3.0], size=(100_000, 2))


def test_errors_of_a_shifted_and_a_widened_normal():
    reference = verdicts.Marginals.of(NORMAL)
    ratio, shift, w1, width = reference.errors(NORMAL + np.array([0.0, 0.6]))
    np.testing.assert_allclose([ratio, shift, w1, width], [1, 0.2, 0.2, 1], atol=0.003)
    centre = NORMAL.mean(axis=0)
    ratio, shift, _, width = reference.errors(centre + (NORMAL - centre) * [1.0, 1.3])
    np.testing.assert_allclose([ratio, shift, width], [1.3, 0, 1.3], atol=0.003)


@pytest.mark.parametrize(("sd", "share"), [(1.25, 0.0199), (0.8, 0.0941)])
def test_tails_of_a_gaussian_too_wide_and_too_narrow(sd, share):
    """The share beyond the quantile .05 of a Gaussian of another width, by its formula."""
    least, largest = verdicts.Marginals.of(NORMAL).tails(
        NORMAL.mean(axis=0) + sd * RNG.normal(size=NORMAL.shape) * [1, 3]
    )
    # four standard errors of a quantile of 100 000 draws, in shares
    assert abs((least if sd > 1 else largest) - share) < 0.004


def test_what_is_kept_is_what_was_there():
    reference = verdicts.Marginals.of(NORMAL)
    again = verdicts.Marginals.from_rows(reference.to_rows())
    np.testing.assert_allclose(again.mean, reference.mean, rtol=1e-5)
    np.testing.assert_allclose(again.sd, reference.sd, rtol=1e-4)
    np.testing.assert_allclose(
        again.quantiles, reference.quantiles, atol=0.006 * reference.sd.max()
    )


def test_an_angle_is_seen_around_its_mean():
    with pm.Model() as model:
        pm.Normal("x", 0, 1)
        pm.VonMises("phase", 3.0, 4.0)
    space = pmi.IsotropicMixture(n_components=1, model=model).space
    circular = verdicts.circular_dimensions(space)
    draws = np.array([[7.0, -3.1], [0.0, 3.1]])
    turned = verdicts.around(np.array([0.0, 3.0]), draws, circular)
    np.testing.assert_allclose(turned, [[7.0, 2 * np.pi - 3.1], [0.0, 3.1]])


FORGOTTEN = pytest.mark.filterwarnings("ignore:total_size not provided")
GAPS = pytest.mark.filterwarnings("ignore:Data in x contains missing values")


def check(name):
    """A model builds all three times, in the dimensions of its reference."""
    kept = {record["model"]: record for record in read(verdicts.REFERENCES)["models"]}[name]
    for which in range(3):
        approx = pmi.IsotropicMixture(n_components=1, model=CASES[name].model(which))
        assert approx.space.n_dim == kept["d"] == len(kept["marginals"])


def test_no_name_is_in_two_sets():
    assert len(CASES) == sum(
        len(names) for kind, (_, names) in verdicts.SETS.items() if kind != "exact"
    )


def test_every_reference_was_sampled_well():
    records = read(verdicts.REFERENCES)["models"]
    assert {record["model"] for record in records} == set(CASES)
    for record in records:
        if CASES[record["model"]].draws is None:
            assert record["rhat"] < 1.01, record["model"]
            assert record["ess"] > 400, record["model"]


@FORGOTTEN
@GAPS
@pytest.mark.parametrize("name", QUICK)
def test_a_model_has_the_dimensions_of_its_reference(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - set(QUICK)))
def test_each_model_has_the_dimensions_of_its_reference(name):
    check(name)
