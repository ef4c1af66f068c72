"""Figures and verdict, on approximations whose faults are known."""

import time

import numpy as np
import pymc as pm
import pytensor
import pytest
import xarray as xr
from scipy import special, stats

import pymc_isomix as pmi
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting.record import History
from pymc_isomix.results import importance, rules, table, verdict
from pymc_isomix.sampling import drift

SD = np.array([0.5, 2.0])


@pytest.fixture(scope="module")
def normal():
    with pm.Model(coords={"side": ["left", "right"]}) as model:
        pm.Normal("x", [1.0, -1.0], SD, dims="side")
        pm.HalfNormal("scale", 1.0)
    return model


@pytest.fixture(scope="module")
def two_modes():
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 3.0)
        pm.Normal("y", theta**2, 1.0, observed=[3.8, 4.3, 4.1])
    return model


def gaussian(model, *, means=(1.0, -1.0), sd=SD, K=1, fitted=True):
    """Fit exactly in x; the prior of ``scale``, on the logarithmic scale, nearly."""
    spread = np.linspace(-0.01, 0.01, K)[:, None]
    params = {
        "means": np.array([*means, -0.55]) + spread,
        "log_variances": np.zeros(K),
        "log_weights": np.zeros(K),
        "metric": np.array([*sd, 1.05]),
    }
    approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
    approx.history = History(stop_reason="converged") if fitted else None
    return approx


def at(*places, sd=0.1, weights=None):
    """Components of one dimension."""
    return {
        "means": np.array(places)[:, None],
        "log_variances": np.zeros(len(places)),
        "log_weights": np.zeros(len(places)) if weights is None else np.log(weights),
        "metric": np.array([sd]),
    }


def advice_of(dataset, verdict):
    assert dataset.verdict == verdict
    return dataset.advice


def test_figures_of_a_known_model():
    with pm.Model() as model:
        theta = pm.Normal("theta", 0.0, 2.0)
        pm.Normal("y", theta, 1.0, observed=1.5)
    # posterior N(1.2, 0.8); q has the mean off by a tenth of a standard deviation
    sd = np.sqrt(0.8)
    params = at(1.2 + 0.1 * sd, sd=sd)
    approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
    result = approx.diagnostics(20_000, random_seed=2)
    evidence = -0.5 * np.log(2 * np.pi * 5) - 0.5 * 1.5**2 / 5
    assert float(result["log_evidence"]) == pytest.approx(
        evidence, abs=4 * float(result["log_evidence_se"])
    )
    assert float(result["log_evidence_se"]) < 0.01
    assert float(result["elbo"]) == pytest.approx(
        evidence - 0.005, abs=4 * float(result["elbo_se"])
    )
    assert float(result["elbo_se"]) == pytest.approx(0.1 / np.sqrt(20_000), rel=0.1)
    assert result["mean_reweighted"].item() == pytest.approx(1.2, abs=4 * sd / np.sqrt(20_000))
    assert result["mean"].item() == pytest.approx(1.2 + 0.1 * sd, abs=4 * sd / np.sqrt(20_000))
    assert result["mean_shift"].item() < -4  # clearly seen
    assert result["good_k"].item() == 0.7
    assert advice_of(result, "good") == "No problems found."
    assert result["missing_mass"].item() == 0.0


def test_moments_of_every_dimension(normal):
    result = gaussian(normal, K=2).diagnostics(random_seed=1, n_probes=0)
    assert list(result["unconstrained"].values) == ["x[left]", "x[right]", "scale_log__"]
    np.testing.assert_allclose(result["sd"].values[:2] / SD, 1.0, atol=4 / np.sqrt(2 * 4000))
    assert result["n_modes"].item() == 1
    assert result.dataset.sizes == {"mode": 1, "unconstrained": 3, "model_space": 1}
    assert list(result["model_space"].values) == ["scale"]
    assert np.isnan(result["missing_mass"].item())


def test_same_seed_same_figures(normal):
    approx = gaussian(normal)
    xr.testing.assert_identical(
        approx.diagnostics(100, random_seed=1, n_probes=2).dataset,
        approx.diagnostics(100, random_seed=1, n_probes=2).dataset,
    )


# Verdicts


def test_a_shifted_mean_is_seen_by_reweighting(normal):
    result = gaussian(normal, means=(1.0, -1.0 + 0.3 * 2.0)).diagnostics(n_probes=0, transitions=0)
    advice = advice_of(result, "doubtful")
    assert "Reweighting moves the mean of x[right] by" in advice
    assert "its standard deviation" not in advice  # which it leaves as it is
    result = gaussian(normal, means=(1.0, -1.0 + 0.8 * 2.0), sd=1.3 * SD).diagnostics(n_probes=0)
    assert "x[right]" in advice_of(result, "bad")


def test_far_too_narrow_is_bad(normal):
    result = gaussian(normal, sd=0.2 * SD).diagnostics(n_probes=0)
    assert result["khat"] > result["good_k"]
    assert "misses much of the posterior" in advice_of(result, "bad")
    assert "approx.sample_nuts()" in result.advice


def test_a_high_khat_alone_is_no_proof():
    with pm.Model() as model:
        pm.StudentT("x", nu=3)
    # about the best Gaussian; the tails are too thin for the weights, and mean and sd are fair
    approx = pmi.IsotropicMixture(params=at(0.0, sd=1.25), model=model, random_seed=1)
    result = approx.diagnostics(random_seed=1, n_probes=0)
    assert result["khat"] > result["good_k"]
    assert "Means and widths may still be right" in advice_of(result, "doubtful")


def test_one_component_on_two_modes(two_modes):
    approx = pmi.IsotropicMixture(params=at(-2.0, sd=0.14), model=two_modes, random_seed=1)
    result = approx.diagnostics(random_seed=1)
    # the other mode has half of the mass; its estimate has an error of a few per cent
    assert result["missing_mass"].item() == pytest.approx(0.5, abs=0.05)
    assert "Ascents from spread-out starts" in advice_of(result, "bad")


def test_two_modes_found(two_modes):
    approx = pmi.IsotropicMixture(params=at(-2.02, 2.02, sd=0.14), model=two_modes, random_seed=1)
    result = approx.diagnostics(random_seed=1)
    assert result["n_modes"].item() == 2
    np.testing.assert_allclose(
        result["mode_mass"], 0.5, atol=4 * result["mode_mass_se"].max().item()
    )
    assert result["missing_mass"].item() < 0.01


def test_wrong_masses_are_mended(two_modes):
    params = at(-2.02, 2.02, sd=0.145, weights=[0.8, 0.2])
    approx = pmi.IsotropicMixture(params=params, model=two_modes, random_seed=1)
    result = approx.diagnostics(random_seed=1, n_probes=0)
    np.testing.assert_allclose(result["mode_weight"], [0.8, 0.2])
    np.testing.assert_allclose(
        result["mode_mass"], 0.5, atol=4 * result["mode_mass_se"].max().item()
    )
    assert "changes the mass of mode" in advice_of(result, "bad")  # and so the mean


def test_a_funnel_has_no_missing_mode(eight_schools):
    approx = pmi.IsotropicMixture(n_components=1, model=eight_schools, random_seed=1)
    approx.groups[0].mixture = approx.mixture.replace(
        means=np.array([[4.4, 1.2, *[4.5] * 8]]), log_variances=np.array([3.0])
    )
    assert approx.diagnostics(500, random_seed=1)["missing_mass"].item() < 0.05


def test_ill_settled_fit(normal):
    rising = np.linspace(-500, -3, 90) + np.random.default_rng(1).normal(size=90)
    narrow = gaussian(normal, sd=0.2 * SD)
    narrow.history = History(elbo=rising)
    assert "still rising" in advice_of(narrow.diagnostics(n_probes=0), "bad")
    # where the weights show that nothing is left to rise, a rise in the past is none to mend
    with pm.Model() as model:
        pm.Normal("x")
    exact = pmi.IsotropicMixture(params=at(0.0, sd=1.02), model=model, random_seed=1)
    exact.history = History(elbo=rising)
    assert "still rising" not in exact.diagnostics(n_probes=0).advice


def test_gaussians_that_begin_anew_are_not_rising(normal):
    """Nor is a mixture that starts from them; one that is told to stop may be."""
    elbo = np.linspace(-500, -3, 90) + np.random.default_rng(1).normal(size=90)
    gaussians = np.full(90, "gaussian")
    level = -2 + 0.01 * np.random.default_rng(2).normal(size=90)
    both = np.concatenate([gaussians, np.full(90, "exploring")])
    for history, rises in (
        (History(elbo=elbo, phase=gaussians, stop_reason="converged"), False),
        (History(elbo=elbo, phase=gaussians, stop_reason="all iterations done"), True),
        (History(elbo=np.concatenate([elbo, level]), phase=both, stop_reason="converged"), False),
        (History(elbo=np.concatenate([level, elbo]), phase=both, stop_reason="converged"), True),
    ):
        narrow = gaussian(normal, sd=0.2 * SD)
        narrow.history = history
        assert ("still rising" in narrow.diagnostics(n_probes=0).advice) is rises


@pytest.mark.parametrize("n_steps", [0, 1, 5, 100, 5000])
def test_a_level_elbo_is_not_rising(n_steps):
    elbo = np.random.default_rng(1).normal(size=n_steps)
    assert rules.still_rising(elbo) <= 0.0


def test_rise_is_that_of_the_means():
    # 300 steps a window at a slope of 0.01 a step: 3 nats, and no noise but the trend's own
    assert rules.still_rising(0.01 * np.arange(900)) == pytest.approx(3.0, abs=0.01)


# What transitions see


def test_a_scale_too_narrow_grows_under_transitions():
    """All weights are alike inside q: the posterior has tails that q never draws from."""
    with pm.Model() as model:
        x = pm.Flat("x")
        # uniform, with soft walls ten times as far apart as q's draws
        pm.Potential("box", -((x / 10) ** 8))
    approx = pmi.IsotropicMixture(params=at(0.0, sd=1.0), model=model, random_seed=1)
    result = approx.diagnostics(n_probes=0)
    assert result["n_transitions"].item() == 20
    growth = np.exp(result["log_sd_drift"].item())
    assert growth > 3
    assert result["transitions_sd"].item() == pytest.approx(growth * 1.0, rel=0.1)
    assert "HMC transitions increase the width of x" in advice_of(result, "bad")
    assert result.names[0] == "x"
    assert "Nothing has been fitted yet" in result.advice
    approx.history = History(stop_reason="converged")
    advice = approx.diagnostics(n_probes=0).advice
    for remedy in ("`approx.sample(transitions=20)`", "`approx.sample_nuts()`"):
        assert remedy in advice


def test_transitions_leave_the_posterior_as_it_is(normal):
    result = gaussian(normal).diagnostics(n_probes=0)
    for name in ("mean_drift", "log_sd_drift"):
        z = result[name].values[:2] / result[f"{name}_se"].values[:2]
        assert np.abs(z).max() < 4
    assert "HMC transitions" not in result.advice
    none = gaussian(normal).diagnostics(n_probes=0, transitions=0)
    assert none["n_transitions"].item() == 0
    assert np.isnan(none["log_sd_drift"].values).all()


def dataset_of(model_space=(), **changes):
    """Figures against which nothing speaks, but for the changes."""
    figures = {
        "n_nonfinite": 0,
        "n_draws": 4000,
        "khat": 0.3,
        "good_k": 0.7,
        "importance_ess": 3000.0,
        "elbo": -10.0,
        "log_evidence": -9.9,
        "missing_mass": 0.0,
        "n_ascents": 20,
        "n_transitions": 20,
        "slow_chains": 0.0,
        "n_modes": 1,
        "mode_mass": ("mode", [1.0]),
        "mode_mass_se": ("mode", [0.0]),
        "mode_weight": ("mode", [1.0]),
    }
    figures |= {key: [0.0, 0.0] for key in ("mean", "mean_reweighted", "mean_shift")}
    figures |= {key: [1.0, 1.0] for key in ("sd", "sd_reweighted")}
    figures |= {key: [0.0, 0.0] for key in ("mean_drift", "log_sd_drift")}
    figures |= {key: [0.03, 0.03] for key in ("mean_drift_se", "log_sd_drift_se")}
    figures |= changes
    columns = {k: ("unconstrained", v) if isinstance(v, list) else v for k, v in figures.items()}
    coords = {"unconstrained": ["a", "b[x]"]}
    if model_space:
        coords["model_space"] = ["exp_a"]
        still = dict.fromkeys(("mean_drift", "log_sd_drift"), 0.0) | {"upper_tail": 0.05}
        still |= dict.fromkeys(("mean_drift_se", "log_sd_drift_se"), 0.03)
        still |= {"lower_tail": 0.05, "lower_tail_se": 0.005, "upper_tail_se": 0.005}
        still |= dict(model_space)
        columns |= {f"model_{name}": ("model_space", [value]) for name, value in still.items()}
    return xr.Dataset(columns, coords=coords)


DENSE = Mixture(np.zeros((3, 2)), np.zeros(3), np.full(3, -np.log(3)), np.eye(2))


def judged(mixture=DENSE, **changes):
    dataset = dataset_of(**changes)
    findings = rules.judge(dataset, mixture)
    return [f.rank for f in findings], rules.advise(findings, dataset, mixture)


@pytest.mark.parametrize(
    ("changes", "rank", "said"),
    [
        (
            {"log_sd_drift": [0.0, np.log(1.3)]},
            "doubtful",
            "increase the width of b[x] by a factor of 1.30 ± 0.04",
        ),
        (
            {"log_sd_drift": [np.log(0.5), 0.0]},
            "bad",
            "reduce the width of a by a factor of 2.00 ± 0.06",
        ),
        ({"mean_drift": [0.3, 0.0]}, "doubtful", "move the mean of a by 0.30 ± 0.03 sd"),
        ({"mean_drift": [0.3, -0.8]}, "bad", "the mean of b[x] (and 1 other) by 0.80 ± 0.03 sd"),
    ],
)
def test_drift_is_a_rule(changes, rank, said):
    ranks, advice = judged(**changes)
    assert ranks == [rank]
    assert said in advice


@pytest.mark.parametrize(
    ("changes", "rank", "said"),
    [
        ({"mean_drift": 0.4}, "doubtful", "move the mean of exp_a by 0.40 ± 0.03 sd"),
        ({"log_sd_drift": 0.7}, "bad", "increase the width of exp_a by a factor of 2.01 ± 0.06"),
        ({"upper_tail": 0.11}, "doubtful", "above the 95% quantile of exp_a to 11.0% ± 0.5%"),
        ({"upper_tail": 0.17}, "bad", "too thin in that tail"),
        ({"lower_tail": 0.005}, "doubtful", "lower the share below the 5% quantile of exp_a to"),
        ({"upper_tail": 0.09}, "good", "No problems found"),
        ({"lower_tail": 0.025}, "good", "No problems found"),
    ],
)
def test_what_the_user_named_is_judged(changes, rank, said):
    """A positive variable's upper tail, say, of whose logarithm the width is right."""
    ranks, advice = judged(model_space={"mean_drift": 0.0, **changes})
    assert ranks == ([] if rank == "good" else [rank])
    assert said in advice


@pytest.mark.parametrize("shape", [0.7, 0.8])
def test_a_wrong_upper_tail_is_seen_though_the_logarithm_is_right(shape):
    """Of a Gamma, whose logarithm is skewed: q has its mean and sd, and twice the sd of x."""
    mean, sd = special.digamma(shape), np.sqrt(special.polygamma(1, shape))
    with pm.Model() as model:
        pm.Gamma("x", shape, 1.0)
    approx = pmi.IsotropicMixture(params=at(mean, sd=sd), model=model, random_seed=1)
    report = approx.diagnostics(progressbar=False)
    logarithm = [report[name].item() for name in ("mean_drift", "log_sd_drift")]
    assert np.abs(logarithm).max() < 0.15
    assert report.verdict != "good"
    assert "of x" in report.advice
    # the share of the posterior above q's own quantile .95
    beyond = stats.gamma(shape).sf(np.exp(mean + stats.norm.ppf(0.95) * sd))
    error = report["upper_tail_se"].item()
    assert report["upper_tail"].item() == pytest.approx(beyond, abs=4 * error)
    assert report["model_sd"].item() > 1.5 * np.sqrt(shape)


def test_drift_within_its_noise_is_no_finding():
    noisy = {"mean_drift_se": [0.2, 0.2], "log_sd_drift_se": [0.2, 0.2]}
    ranks, _ = judged(mean_drift=[0.4, 0.0], log_sd_drift=[0.4, 0.0], **noisy)
    assert ranks == []


@pytest.mark.parametrize(("n_dim", "errors"), [(1, 2.0), (100, 2.0), (10_000, 3.506)])
def test_noise_grows_with_the_dimensions_in_which_it_is_looked_for(n_dim, errors):
    """As many of 10 000 normal numbers are above 3.506 as of 100 above two: 2.3."""
    columns = {name: ("unconstrained", np.ones(n_dim)) for name in drift.COLUMNS}
    columns |= {name: ("unconstrained", np.full(n_dim, 0.1)) for name in drift.COLUMNS[3::2]}
    shift, ratio = rules.drift_beyond_noise(xr.Dataset(columns))
    np.testing.assert_allclose(shift, 1 - 0.1 * errors, atol=1e-4)
    np.testing.assert_allclose(np.log(ratio), 1 - 0.1 * errors, atol=1e-4)


def test_many_dimensions_of_exact_draws_are_no_finding():
    """150 pairs in 10 000 dimensions: by two standard errors alone, some drift too far."""
    rng = np.random.default_rng(1)
    before, noise = rng.normal(size=(2, 150, 10_000))
    moved = drift.drift(before, (0.3 * before + np.sqrt(0.91) * noise)[None])
    dataset = xr.Dataset({name: ("unconstrained", moved[name]) for name in drift.COLUMNS})
    shift, ratio = rules.drift_beyond_noise(dataset)
    assert shift.max() < rules.SHIFT_DOUBTFUL
    assert ratio.max() < rules.DRIFT_DOUBTFUL


@pytest.mark.parametrize(
    ("khat", "ess", "n_transitions", "drift", "counts"),
    [
        (1.6, 3990, 0, 0.0, False),
        (1.6, 3700, 0, 0.0, True),
        (1.6, 3700, 20, 0.0, False),
        (1.6, 3700, 20, 0.135, True),  # 0.135 +- 0.05 is beyond noise, and not quiet
        (1.6, 1000, 20, 0.0, True),
        (0.71, 1000, 20, 0.0, False),  # a standard error of k-hat is .12
        (0.71, 1000, 20, 0.135, True),
        (0.71, 1000, 0, 0.0, True),
        (0.85, 1000, 20, 0.0, True),
    ],
)
@pytest.mark.parametrize("name", ["mean_drift", "log_sd_drift"])
def test_khat_counts_where_weights_differ(khat, ess, n_transitions, drift, counts, name):
    moved = {name: [0.0, drift], f"{name}_se": [0.05, 0.05]}
    ranks, _ = judged(khat=khat, importance_ess=float(ess), n_transitions=n_transitions, **moved)
    assert ranks == (["doubtful"] if counts else [])


@pytest.mark.parametrize(
    ("n_transitions", "drift", "counts"), [(20, 0.0, False), (20, 0.13, True), (0, 0.0, True)]
)
def test_a_gap_over_many_dimensions(n_transitions, drift, counts):
    """Of .8 nats over 73 dimensions: all widths within 9 %, as far as transitions see."""
    n_dim = 73
    base = dataset_of()
    columns = {
        name: ("unconstrained", np.full(n_dim, column.values[0]))
        for name, column in base.items()
        if column.dims == ("unconstrained",)
    }
    others = {n: c for n, c in base.items() if c.dims != ("unconstrained",)}
    dataset = xr.Dataset({**others, **columns})
    dataset["log_sd_drift"][4] = drift
    dataset["log_evidence"] = dataset["elbo"] + 0.8
    dataset["n_transitions"] = n_transitions
    found = rules.judge(dataset, DENSE)
    assert [f.rank for f in found] == (["doubtful"] if counts else [])


@pytest.mark.parametrize(
    ("changes", "rank"),
    [
        ({"mode_mass": [0.79, 0.21], "mode_weight": [0.71, 0.29], "se": 0.01}, "doubtful"),
        ({"mode_mass": [0.79, 0.21], "mode_weight": [0.71, 0.29], "se": 0.03}, None),
        ({"mode_mass": [0.74, 0.26], "mode_weight": [0.71, 0.29], "se": 0.0}, None),
        ({"mode_mass": [0.9, 0.1], "mode_weight": [0.7, 0.3], "se": 0.01}, "bad"),
    ],
)
def test_masses_of_modes_count_with_their_errors(changes, rank):
    error = changes.pop("se")
    columns = {name: ("mode", values) for name, values in changes.items()}
    ranks, advice = judged(**columns, mode_mass_se=("mode", [error, error]), n_modes=2)
    assert ranks == ([rank] if rank else [])
    assert not rank or f"± {error:.2f}" in advice


@pytest.mark.parametrize(
    "figures",
    [
        {"khat": np.nan, "elbo": -1e90},
        {"khat": np.nan, "elbo": -1e90, "log_evidence": np.nan},
        {"khat": 0.2, "elbo": -np.inf},
    ],
)
def test_an_absurd_gap_is_bad_whatever_khat_is(figures):
    ranks, advice = judged(**figures)
    assert "bad" in ranks
    assert "Too few draws" not in advice


def test_weights_of_astronomical_range_are_numbers():
    log_weight = -(10.0 ** np.linspace(0, 90, 200))
    found = importance.smooth(log_weight)
    assert np.isfinite(found.weight).all()
    assert found.weight.argmax() == 0


@pytest.mark.parametrize(
    ("changes", "ranks", "said"),
    [
        ({"log_evidence": -9.6}, [], "No problems found"),
        ({"log_evidence": -9.3}, ["doubtful"], "The ELBO is 0.7 nats below the log evidence"),
        (
            {"log_evidence": -9.3, "khat": 0.9, "importance_ess": 900.0},
            ["doubtful"],
            "Pareto k-hat is 0.90",
        ),
        ({"log_evidence": -8.5}, ["bad"], "The ELBO is at least 1.5 nats below"),
    ],
)
def test_a_gap_below_the_evidence_counts(changes, ranks, said):
    found, advice = judged(**changes)
    assert found == ranks
    assert said in advice


@pytest.mark.parametrize(
    ("slow", "n_modes", "ess", "drift", "counts"),
    [
        (0.005, 1, 3000, 0.0, False),
        (0.03, 1, 3000, 0.0, True),
        (0.03, 2, 3000, 0.0, False),
        (0.03, 1, 3990, 0.0, False),  # q is as steep there
        (0.03, 1, 3990, 0.13, True),
    ],
)
def test_chains_that_hardly_move_tell_of_a_neck(slow, n_modes, ess, drift, counts):
    ranks, advice = judged(
        slow_chains=slow, n_modes=n_modes, importance_ess=float(ess), log_sd_drift=[drift, 0.0]
    )
    assert ranks == (["doubtful"] if counts else [])
    assert ("3% of the HMC chains hardly move" in advice) == counts


def test_a_funnel_has_a_neck():
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 2.0)
        pm.Normal("x", 0.0, pm.math.exp(v / 2), shape=2)
    params = {
        "means": np.array([[1.0, 0.0, 0.0]]),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.array([1.2, 1.5, 1.5]),
    }
    approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
    report = approx.diagnostics(n_probes=0)
    assert report["slow_chains"].item() > 0.01
    assert "as in the neck of a funnel" in report.advice


def test_advice_fits_the_fit():
    narrow = {"log_sd_drift": [0.5, 0.0]}
    _, advice = judged(**narrow)
    assert 'metric="dense"' not in advice
    assert "n_components=50" in advice
    many = Mixture(np.zeros((50, 2)), np.zeros(50), np.full(50, -np.log(50)), np.eye(2))
    assert "n_components" not in judged(many, **narrow)[1]  # more of them would not help
    diagonal = DENSE.replace(metric=np.ones(2))
    assert 'metric="dense"' in judged(diagonal, **narrow)[1]
    shifted = {"mean_reweighted": [0.4, 0.0], "mean_shift": [9.0, 0.0]}
    assert 'importance="psis"' in judged(**shifted)[1]
    stuck = judged(**narrow, slow_chains=0.05)[1]
    assert "transitions=20" not in stuck  # in a neck they are stuck, too
    assert "sample_nuts" in stuck
    _, advice = judged(khat=0.9, **shifted, importance_ess=300.0)
    assert "too thin for importance weights to correct" in advice
    assert "psis" not in advice


def test_the_closing_line_evaluates_nothing(normal, monkeypatch):
    approx = gaussian(normal)
    approx.history = History(elbo=np.full(3, -2.5), stop_reason="converged")
    monkeypatch.setattr(pmi.IsotropicMixture, "compiled_model", None)
    line = approx.closing_line(3)
    assert line.startswith("Stopped after 3 iterations: converged. ELBO -2.50, 1 mode.")


# Neither clocks nor files change a verdict


class Clock:
    """Seconds that jump: each look at them is an hour after the one before."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 3600.0
        return self.now


def test_the_same_report_whatever_the_clock_says(two_modes, monkeypatch):
    approx = pmi.IsotropicMixture(params=at(-2.0, sd=0.14), model=two_modes, random_seed=1)
    reports = []
    for seconds in (1e-6, 1e3):
        approx.history = History(
            elbo=np.zeros(3), run_seconds=seconds, compile_seconds=seconds, stop_reason="converged"
        )
        reports.append(approx.diagnostics(progressbar=False))
        monkeypatch.setattr(time, "perf_counter", Clock())
    assert reports[0]["n_transitions"].item() == 20
    assert reports[0]["n_ascents"].item() >= 20
    assert reports[0]["missing_mass"].item() > 0.4
    xr.testing.assert_identical(reports[0].to_dataset(), reports[1].to_dataset())


def test_the_same_report_after_loading(normal, tmp_path):
    approx = gaussian(normal, sd=0.7 * SD, K=2)
    before = approx.diagnostics(progressbar=False)
    approx.save(tmp_path / "fit.nc")
    after = pmi.load(tmp_path / "fit.nc", normal).diagnostics(progressbar=False)
    xr.testing.assert_identical(before.to_dataset(), after.to_dataset())


def test_what_was_not_asked_for_is_said(normal):
    advice = gaussian(normal).diagnostics(n_probes=0, transitions=0).advice
    assert "Not checked: HMC transitions of the draws and ascents to other modes." in advice
    assert "Not checked" not in gaussian(normal).diagnostics().advice
    assert "Not checked: ascents to other modes." in gaussian(normal).diagnostics(n_probes=0).advice


def test_half_a_check_is_no_verdict(normal, monkeypatch):
    """An interrupt of the transitions ends the diagnostics, which would judge by fewer of them."""
    approx = gaussian(normal)
    interrupted = verdict.transitions

    def fewer(*arguments, **options):
        return interrupted(*arguments, **options)._replace(n_done=3)

    monkeypatch.setattr(verdict, "transitions", fewer)
    with pytest.raises(KeyboardInterrupt):
        approx.diagnostics()


# Faults


def walled(share):
    """Standard normal, cut off where it has ``share`` of its mass."""
    with pm.Model() as model:
        x = pm.Normal("x")
        wall = float(-np.sqrt(2) * pm.math.erfinv(1 - 2 * share).eval())
        pm.Potential("wall", pm.math.switch(x > wall, 0.0, -np.inf))
    return model


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_draws_outside_the_support(share):
    params = at(0.0, sd=1.0)
    approx = pmi.IsotropicMixture(params=params, model=walled(share), random_seed=1)
    result = approx.diagnostics(random_seed=1, n_probes=0)
    outside = result["n_nonfinite"].item() / 4000
    assert outside == pytest.approx(share, abs=4 * np.sqrt(share / 4000))
    # the evidence of the normal that is left
    assert result["log_evidence"].item() == pytest.approx(
        np.log(1 - share), abs=4 * max(result["log_evidence_se"].item(), 1e-3)
    )
    # the cut mixture is the posterior, and sample() draws from it
    assert result["elbo"].item() == pytest.approx(
        np.log(1 - share), abs=4 * max(result["log_evidence_se"].item(), 1e-3)
    )
    assert ("outside the support" in result.advice) == (share > rules.NON_FINITE)
    draws = approx.sample(1000, random_seed=1)
    assert np.isfinite(draws.sample_stats["lp"]).all()
    np.testing.assert_allclose(draws.sample_stats["weight"].values, 1e-3)
    assert draws["diagnostics"]["n_nonfinite"] > 0


def test_nowhere_finite():
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Potential("nowhere", pm.math.switch(x > 1e6, 0.0, -np.inf))
    approx = pmi.IsotropicMixture(params=at(0.0), model=model, random_seed=1)
    result = approx.diagnostics(100)
    assert "No draw has a finite log density" in advice_of(result, "bad")
    with pytest.raises(ValueError, match="k-hat of at most 1; it is inf"):
        approx.sample(10, importance="psis", force=True)


# Printed and stored


def test_prints_a_table_with_the_verdict(two_modes):
    approx = pmi.IsotropicMixture(params=at(-2.02, 2.02, sd=0.14), model=two_modes, random_seed=1)
    text = str(approx.diagnostics(random_seed=1, n_probes=0))
    for expected in (
        "Verdict: ",
        "Pareto k-hat",
        "log evidence",
        "mode",
        "theta",
        "not checked",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 88


RED = "x[red]"
LONG = [
    "coefficient_of_the_interaction[region, 2019]",
    "coefficient_of_the_interaction[region, 2020]",
]


@pytest.fixture(scope="module")
def labelled():
    with pm.Model(coords={"colour": ["red", "/x"], "level": LONG}) as model:
        pm.Normal("x", dims="colour")
        pm.Normal("effect", dims="level")
    params = {
        "means": np.zeros((1, 4)),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": np.array([1.0, 1.0, 1.0, 0.3]),
    }
    return pmi.IsotropicMixture(params=params, model=model, random_seed=1).diagnostics(
        200, n_probes=0
    )


def test_labels_survive(labelled):
    text = str(labelled)
    for label in (RED, "x[/x]", "2019]]", "2020]]"):
        assert label in text
    assert max(map(len, text.splitlines())) <= 88


def test_a_notebook_shows_the_report_once(labelled, monkeypatch):
    """In Jupyter, rich would show the table itself, and leave nothing to write."""
    plain, shown = str(labelled), []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *_: shown.append(1))
    assert str(labelled) == plain
    assert not shown


def test_the_report_says_drift_once():
    dataset = dataset_of(model_space={"upper_tail": 0.05}, log_sd_drift=[0.0, np.log(1.3)])
    size = "factor of 1.30 ± 0.04"
    assert size in rules.advise(rules.judge(dataset, DENSE), dataset, DENSE)
    assert table._drift(dataset) == (size, "width of b[x], after 20 HMC transitions")


def test_html(labelled):
    html = labelled._repr_html_()
    for expected in (RED, "<table>", f"<strong>Verdict: {labelled.verdict}.</strong>", "ELBO"):
        assert expected in html
    assert "<tr><th>figure</th>" in html


def test_variables_are_shown_in_their_own_units(normal):
    text = str(gaussian(normal).diagnostics(n_probes=0, progressbar=False))
    assert "in the model's units" in text
    below = text[text.index("in the model's units") :]
    assert "│ scale " in below
    assert "by HMC" in below


def test_the_table_lists_what_the_verdict_names(normal):
    with pm.Model() as model:
        pm.Normal("x", shape=12)
    sd = np.ones(12)
    sd[7] = 0.4
    params = {
        "means": np.zeros((1, 12)),
        "log_variances": np.zeros(1),
        "log_weights": np.zeros(1),
        "metric": sd,
    }
    approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
    report = approx.diagnostics(n_probes=0)
    assert "x[7]" in report.names
    rows = table._dimensions(report.dataset, ["x[3]", *report.names])[1]
    assert [row[0] for row in rows][:2] == ["x[3]", "x[7]"]
    assert len(rows) == table.WORST


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a_rather_long_name[first]", "b"], ["a_rather_l…name[first]", "b"]),
        (["a" * 12 + "x" + "a" * 12, "a" * 12 + "y" + "a" * 12], None),
    ],
)
def test_names_stay_different(names, expected):
    found = table.shorten(names)
    assert found == (expected or names)
    assert len(set(found)) == len(names)


def test_an_approximation_says_what_it_is(normal):
    approx = gaussian(normal, K=2, fitted=False)
    assert str(approx) == "<IsotropicMixture: 2 components, diagonal metric, d = 3; not fitted>"
    approx.history = History(elbo=np.full(5, -3.0))
    assert "ELBO -3.00, not checked" in repr(approx)
    approx.diagnostics(n_probes=0, transitions=0)
    assert "without transitions" in repr(approx)
    report = approx.diagnostics(n_probes=0)
    assert repr(approx).endswith(f"verdict: {report.verdict}>")


def test_a_part_prints_as_a_dataset(normal):
    part = gaussian(normal).diagnostics(100, n_probes=0)[["khat"]].assign_attrs()
    part.attrs.clear()
    assert "khat" in str(part)
    assert "Verdict" not in str(part)


@pytest.mark.parametrize("n_draws", [1, 5])
def test_few_draws_do(normal, n_draws):
    result = gaussian(normal).diagnostics(n_draws, n_probes=0)
    assert result.verdict in rules.RANKS
    str(result)


def test_single_precision():
    with pytensor.config.change_flags(floatX="float32"):
        with pm.Model() as model:
            theta = pm.Normal("theta", 0.0, 2.0)
            pm.Normal("y", theta, 1.0, observed=np.float32(1.5))
        sd = np.sqrt(0.8)
        params = {name: value.astype("float32") for name, value in at(1.2, sd=sd).items()}
        approx = pmi.IsotropicMixture(params=params, model=model, random_seed=1)
        report = approx.diagnostics(500)
        assert np.abs(report["mean_drift"]).item() < 4 * report["mean_drift_se"].item()
        assert report["n_ascents_at_modes"].item() == 20
        assert approx.sample(20, transitions=2).posterior["theta"].dtype == np.float32


@pytest.mark.parametrize(("argument", "value"), [("draws", 0), ("n_probes", -1)])
def test_arguments_are_checked(normal, argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be an integer"):
        gaussian(normal).diagnostics(**{argument: value})


def test_draws_of_many_dimensions_are_fewer(normal, monkeypatch):
    monkeypatch.setattr(verdict, "MOST_NUMBERS", 300)  # three dimensions
    report = gaussian(normal).diagnostics(n_probes=0, transitions=0)
    assert report["n_draws"].item() == 100


def test_many_observations_take_a_part_of_the_effort(normal, monkeypatch):
    """What is asked for in full below the limit; no less than the least of all above it."""
    monkeypatch.setattr(verdict, "n_observations", lambda model: 10**9)
    approx = gaussian(normal)
    report = approx.diagnostics(n_probes=20, transitions=20)
    assert report["n_draws"] == verdict.LEAST_DRAWS
    assert report["n_transitions"] == verdict.LEAST_CHECKS
    assert verdict.LEAST_CHECKS <= report["n_ascents"] <= 2 * verdict.LEAST_CHECKS  # hot chains
    monkeypatch.setattr(verdict, "n_observations", lambda model: verdict.FULL_EFFORT)
    assert approx.diagnostics(100, n_probes=0, transitions=7)["n_transitions"] == 7


def test_the_elbo_of_the_closing_line_is_that_of_the_last_phase():
    history = History(elbo=np.array([-9.0, -5.0, -4.0]), phase=np.array(["gaussian"] * 3))
    assert table.recent_elbo(history) == -4.0
    more = History(
        elbo=np.array([-9.0, -5.0, np.nan, -2.0, -3.0]),
        phase=np.array(["gaussian"] * 2 + ["settling"] * 3),
    )
    assert table.recent_elbo(more) == -2.5
