"""The rules of the verdict: reasons not to trust a fit, and remedies."""

from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used
import xarray as xr

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting.plateau import MAX_WINDOW, recent_fall
from pymc_isomix.fitting.record import History
from pymc_isomix.results.causes import NONE_FOUND, Causes
from pymc_isomix.sampling.drift import TAIL

FEWEST_EFFECTIVE = 50  # draws: with fewer, reweighted moments mean nothing
NEARLY_EQUAL = 0.95  # importance ESS per draw: above, k-hat does not matter
EQUAL_ENOUGH = 0.5  # the same if transitions are quiet
SHIFT_DOUBTFUL, SHIFT_BAD = 0.2, 0.5  # of a mean, in standard deviations of the posterior
SD_DOUBTFUL, SD_BAD = 1.25, 1.6  # ratio of standard deviations, either way, by weights
DRIFT_DOUBTFUL, DRIFT_BAD = 1.15, 1.5  # the same by transitions, beyond two standard errors
THIN_TAIL_DOUBTFUL, THIN_TAIL_BAD = (
    0.085,
    0.15,
)  # share beyond the quantiles .05 and .95, less two standard errors
HEAVY_TAIL = 0.02  # the same, plus two standard errors
LOUD = 0.12  # drift of a mean or a log standard deviation that is not quiet
FEW_DIMENSIONS = 100  # up to here, noise is two standard errors
SLOW_CHAINS = 0.015  # share of chains that seldom accept: three of 150
GAP_DOUBTFUL, GAP_BAD = 0.5, 1.0  # nats between evidence and ELBO
GAP_DOUBTFUL_PER_DIMENSION, GAP_BAD_PER_DIMENSION = 0.005, 0.1  # in nats, if larger
GAP_QUIET_PER_DIMENSION = 0.015  # if transitions are quiet: all widths within 12 %
MASS_DOUBTFUL, MASS_BAD = 0.04, 0.15  # change of a mode's mass, less two standard errors
MISSING_DOUBTFUL, MISSING_BAD = 0.01, 0.05  # posterior mass outside the approximation
RISE = 0.5  # nats, over a third of the recorded steps
FAR_BELOW = 100.0  # nats per dimension: a converged fit is closer to the evidence
NON_FINITE = 0.05  # of the draws
ENOUGH_COMPONENTS = 50  # the default; more help little

RANKS = ("good", "doubtful", "bad")


class Finding(NamedTuple):
    """One reason not to trust a fit."""

    rank: str  # of RANKS
    text: str
    remedies: tuple[str, ...] = ()  # keys of REMEDIES
    names: tuple[str, ...] = ()  # labels of the dimensions that the text names


# remedies, the cheapest first
REMEDIES = {
    "longer": "`pmi.resume(approx).fit(n)` or a larger n",
    "starts": '`init="prior"` or `init="uniform"` with a larger `init_width`',
    "components": f"`n_components={ENOUGH_COMPONENTS}`",
    "dense": '`metric="dense"`',
    "parametrisation": "another parametrisation (non-centred, if this is centred)",
    "bounds": "a parametrisation without hard bounds",
    "psis": '`approx.sample(importance="psis")`',
    "transitions": "`approx.sample(transitions=20)`",
    "nuts": "`approx.sample_nuts()`",
}


def judge(
    dataset: xr.Dataset,
    mixture: Mixture,
    history: History | None = None,
    causes: Causes = NONE_FOUND,
) -> list:
    """List the reasons not to trust a fit.

    Parameters
    ----------
    dataset : xarray.Dataset
        The figures of :func:`pymc_isomix.results.verdict.diagnose`.

    Returns
    -------
    list of Finding
    """
    checks = [
        _support,
        _unsettled,
        _drift,
        _neck,
        _weights,
        _moment_shifts,
        _mode_shifts,
        _missing,
    ]
    explained = [*_of_causes(dataset, causes)]
    if causes.flat:  # no other figure means anything
        return explained
    if causes.jumps:  # transitions fail at jumps, without a neck
        checks.remove(_neck)
    found = [f for check in checks if (f := check(dataset, mixture, history)) is not None]
    return [*explained, *found]


def _of_causes(dataset, causes):
    """List the problems of the model itself."""
    if causes.flat:
        text = f"The log density is flat along {causes.flat}, a hundred standard deviations out: "
        yield Finding("bad", text + "the posterior may be improper.")
    if causes.jumps and not weights_hardly_differ(dataset):
        names = " and ".join(name for name, _ in causes.jumps)
        largest = max(size for _, size in causes.jumps)
        text = f"The log density jumps along {names}, by up to {largest:.2g} nats. The fit follows "
        yield Finding("doubtful", text + "gradients, which do not see jumps.")
    if causes.without_total_size:
        names = ", ".join(causes.without_total_size)
        text = f"{names} has minibatches but no `total_size`: the fit took each for the full data."
        yield Finding("doubtful", text)


def _remedies_of_causes(causes):
    """Say what removes a cause, one sentence each."""
    if causes.unfitted:
        yield "Nothing has been fitted yet: call `approx = pm.fit(method=pmi.IsoMix())` first."
    if causes.flat:
        yield "Give these variables proper, narrower priors, or fix one of them."
    if causes.jumps:
        names = " and ".join(name for name, _ in causes.jumps)
        yield (
            f"Replace the `switch` or comparison that uses {names} by a smooth step, such as "
            "`pm.math.sigmoid((a - b) / width)`, or make the variable discrete and marginalise it "
            "(`marginalize` in pymc-extras)."
        )
    if causes.without_total_size:
        names = ", ".join(causes.without_total_size)
        yield f"Pass `total_size=`, the number of rows of the full data, to {names}."
    if causes.unused_sites:
        names = ", ".join(causes.unused_sites)
        yield f'Use `IsoMix(coordinates="auto")`, which adapts {names} to the scales in the model.'
    for name, sd in causes.vague:
        yield (
            f"The prior of {name} is vague: its standard deviation in unconstrained space is "
            f"{sd:.0f}. Give {name} a prior that rules out implausible values, such as "
            "`pm.HalfNormal` or `pm.Exponential` in place of `pm.Gamma(0.01, 0.01)`."
        )


def advise(
    findings: list, dataset: xr.Dataset, mixture: Mixture, causes: Causes = NONE_FOUND
) -> str:
    """Put findings into words, with the remedies that apply and the checks that were skipped.

    If a cause is known, its remedy is the only one.
    """
    notes = _left_out(dataset, causes)
    if not findings:
        return " ".join(["No problems found.", *notes])
    said = [*_remedies_of_causes(causes)]
    if not said and (general := _general_remedies(findings, dataset, mixture)):
        said = [f"Try {', '.join([*general[:-2], ' or '.join(general[-2:])])}."]
    return " ".join([*(f.text for f in findings), *said, *notes])


def _general_remedies(findings, dataset, mixture):
    wanted = {key for finding in findings for key in finding.remedies}
    if mixture.metric.ndim == 2:
        wanted.discard("dense")
    if mixture.n_components >= ENOUGH_COMPONENTS:
        wanted.discard("components")
    if not _weights_are_good(dataset):
        wanted.discard("psis")
    if dataset["slow_chains"].item() > SLOW_CHAINS:  # more transitions would be stuck, too
        wanted.discard("transitions")
    return [text for key, text in REMEDIES.items() if key in wanted]


def _left_out(dataset, causes):
    """Name the checks that were skipped."""
    if causes.flat:
        return []
    checks = {
        "HMC transitions of the draws": dataset["n_transitions"].item(),
        "ascents to other modes": dataset["n_ascents"].item(),
    }
    missing = [name for name, done in checks.items() if not done]
    if not missing:
        return []
    both = "both" if len(missing) > 1 else "this"
    return [f"Not checked: {' and '.join(missing)}. By default, `diagnostics()` checks {both}."]


def _weights_are_good(dataset):
    return dataset["khat"].item() <= dataset["good_k"].item()


def weights_hardly_differ(dataset: xr.Dataset) -> bool:
    """Tell whether the importance weights are nearly equal, so that k-hat does not matter."""
    return dataset["importance_ess"].item() > NEARLY_EQUAL * dataset["n_draws"].item()


def _support(dataset, mixture, history):
    share = dataset["n_nonfinite"].item() / dataset["n_draws"].item()
    if share == 1:
        return Finding("bad", "No draw has a finite log density.")
    if share > NON_FINITE:
        text = f"{share:.0%} of the draws lie outside the support of the model."
        return Finding("doubtful", text, ("bounds",))
    return None


def _unsettled(dataset, mixture, history):
    rise = 0.0 if history is None else still_rising(history.elbo_of_last_rule)
    if _weights_are_good(dataset) or weights_hardly_differ(dataset):
        # the ELBO can rise by KL(q || p) at most, which good weights measure
        rise = min(rise, (dataset["log_evidence"] - dataset["elbo"]).item())
    if rise <= RISE:
        return None
    return Finding(
        "bad" if rise > 10 * RISE else "doubtful",
        f"The ELBO was still rising, by {rise:.1f} nats over the last steps.",
        ("longer",),
    )


def still_rising(elbo: np.ndarray) -> float:
    """Rise of the ELBO over the last steps beyond two standard errors, nats.

    It compares the mean of the last third of the steps (300 at most) with that of as many before.
    """
    elbo = elbo[np.isfinite(elbo)]
    window = min(len(elbo) // 3, MAX_WINDOW)
    if window < 2:
        return 0.0
    fall, error = recent_fall(-elbo, window)
    return float(fall - 2 * error)


def drift_beyond_noise(dataset: xr.Dataset, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return the drift of means and the ratios of standard deviations, less noise.

    Parameters
    ----------
    dataset : xarray.Dataset
    prefix : {"", "model_"}
        Unconstrained space, or model space.

    Returns
    -------
    shift, ratio : (d,) array
        Absolute values less two standard errors; 0 and 1 if nothing was measured. Beyond 100
        dimensions more standard errors are subtracted, so that chance findings do not become more
        frequent.
    """
    errors = _errors_of_noise(dataset)
    shift, log_ratio = (
        np.maximum(np.abs(dataset[n].values) - errors * dataset[f"{n}_se"].values, 0.0)
        for n in (f"{prefix}mean_drift", f"{prefix}log_sd_drift")
    )
    return np.nan_to_num(shift, posinf=0.0), np.exp(np.nan_to_num(log_ratio, posinf=0.0))


def _errors_of_noise(dataset):
    """Return the number of standard errors that count as noise."""
    n_dim = sum(dataset.sizes.get(name, 0) for name in ("unconstrained", "model_space"))
    if n_dim <= FEW_DIMENSIONS:
        return 2.0
    return -scipy.special.ndtri(scipy.special.ndtr(-2.0) * FEW_DIMENSIONS / n_dim)


class Drift(NamedTuple):
    """The largest change by transitions, relative to the bound of "doubtful"."""

    kind: str  # mean, scale, lower_tail or upper_tail
    name: str
    size: float  # raw: standard deviations, log ratio, or a probability
    se: float
    beyond: float  # noise, relative to the bound of "doubtful"
    bad: bool
    others: int  # number of other doubtful names


def worst_drift(dataset: xr.Dataset) -> Drift | None:
    """Find the largest change by transitions, in unconstrained and in model space.

    Returns
    -------
    Drift, or None without transitions
    """
    if not dataset["n_transitions"].item():
        return None
    errors, found = _errors_of_noise(dataset), []
    for prefix, dim in (("", "unconstrained"), ("model_", "model_space")):
        if dim not in dataset.sizes:
            continue
        labels, sizes = dataset[dim].values, _sizes(dataset, prefix, errors)
        doubtful = np.any([np.nan_to_num(columns[2]) > 1 for columns in sizes.values()], axis=0)
        others = max(int(doubtful.sum()) - 1, 0)
        for kind, (size, se, beyond, bad) in sizes.items():
            worst = int(np.argmax(np.nan_to_num(beyond)))
            one = Drift(
                kind,
                str(labels[worst]),
                size=float(size[worst]),
                se=float(se[worst]),
                beyond=float(np.nan_to_num(beyond[worst])),
                bad=bool(bad[worst]),
                others=others,
            )
            found.append(one)
    # a wrong mean or width makes a tail thin, too
    return max(found, key=lambda one: (one.beyond > 1, "tail" not in one.kind, one.beyond))


def _sizes(dataset, prefix, errors):
    """Return by kind: sizes, standard errors, sizes beyond noise by the bound, and what is bad."""
    shift, ratio = drift_beyond_noise(dataset, prefix)
    means, scales = (
        [dataset[f"{prefix}{name}{end}"].values for end in ("", "_se")]
        for name in ("mean_drift", "log_sd_drift")
    )
    found = {
        "mean": (*means, shift / SHIFT_DOUBTFUL, shift > SHIFT_BAD),
        "scale": (*scales, np.log(ratio) / np.log(DRIFT_DOUBTFUL), ratio > DRIFT_BAD),
    }
    for kind in ("lower_tail", "upper_tail"):
        if f"{prefix}{kind}" in dataset:
            size, se = (dataset[f"{prefix}{kind}{end}"].values for end in ("", "_se"))
            thin = (size - errors * se - TAIL) / (THIN_TAIL_DOUBTFUL - TAIL)
            heavy = (TAIL - size - errors * se) / (TAIL - HEAVY_TAIL)
            beyond = np.maximum(np.maximum(thin, heavy), 0.0)
            found[kind] = (size, se, beyond, size - errors * se > THIN_TAIL_BAD)
    return found


def drift_in_words(drift: Drift) -> tuple[str, str]:
    """Put a drift into words: of what, and by how much."""
    growth = np.exp(abs(drift.size))
    return {
        "mean": ("mean of", f"{abs(drift.size):.2f} ± {drift.se:.2f} sd"),
        "scale": ("width of", f"factor of {growth:.2f} ± {growth * drift.se:.2f}"),
        "lower_tail": (
            f"share below the {TAIL:.0%} quantile of",
            f"{drift.size:.1%} ± {drift.se:.1%}",
        ),
        "upper_tail": (
            f"share above the {1 - TAIL:.0%} quantile of",
            f"{drift.size:.1%} ± {drift.se:.1%}",
        ),
    }[drift.kind]


def _fault(drift):
    if drift.kind == "mean":
        return "move", "by ", "off"
    if drift.kind == "scale":
        return (
            ("increase", "by a ", "too narrow")
            if drift.size > 0
            else ("reduce", "by a ", "too wide")
        )
    verb, fault = ("raise", "thin") if drift.size > TAIL else ("lower", "heavy")
    return verb, "to ", f"too {fault} in that tail"


def _drift(dataset, mixture, history):
    drift = worst_drift(dataset)
    if drift is None or drift.beyond <= 1:
        return None
    what, size = drift_in_words(drift)
    verb, to, fault = _fault(drift)
    also = f" (and {drift.others} other{'s' if drift.others > 1 else ''})" * bool(drift.others)
    text = f"HMC transitions {verb} the {what} {drift.name}{also} {to}{size}: "
    text += f"the approximation is {fault}{' there' * ('tail' not in fault)}."
    remedies = ("components", "dense", "transitions", "nuts")
    return Finding("bad" if drift.bad else "doubtful", text, remedies, (drift.name,))


def _is_quiet(dataset):
    """Tell whether transitions were made and changed next to nothing."""
    if not dataset["n_transitions"].item():
        return False
    errors = _errors_of_noise(dataset)
    for prefix, dim in (("", "unconstrained"), ("model_", "model_space")):
        if dim not in dataset.sizes:
            continue
        for name in (f"{prefix}mean_drift", f"{prefix}log_sd_drift"):
            size = np.abs(dataset[name].values)
            if np.any((size > LOUD) & (size > errors * dataset[f"{name}_se"].values)):
                return False
    return True


def _neck(dataset, mixture, history):
    """Find a neck, as of a funnel, where the posterior is too narrow for the shared step.

    Slow chains count only with one mode, because modes of different widths cause them, too. They do
    not count if all weights are nearly equal and nothing drifts: the approximation is then as steep
    as the posterior, for example at an edge.
    """
    slow = dataset["slow_chains"].item()
    if not slow > SLOW_CHAINS or dataset["n_modes"].item() > 1:  # NaN without transitions
        return None
    if weights_hardly_differ(dataset) and _is_quiet(dataset):
        return None
    return Finding(
        "doubtful",
        f"{slow:.0%} of the HMC chains hardly move. The posterior is far steeper there than "
        "elsewhere, as in the neck of a funnel, and the approximation may not reach all of it.",
        ("parametrisation", "components", "dense", "nuts"),
    )


def _weights(dataset, mixture, history):
    khat, good = dataset["khat"].item(), dataset["good_k"].item()
    gap = (dataset["log_evidence"] - dataset["elbo"]).item()
    n_draws, n_dim = dataset["n_draws"].item(), dataset.sizes["unconstrained"]
    remedies = ("components", "dense", "nuts")
    if dataset["n_nonfinite"].item() == n_draws:
        return None  # already reported
    if not gap <= max(GAP_BAD, GAP_BAD_PER_DIMENSION * n_dim):  # also true for NaN
        return Finding(
            "bad",
            f"The ELBO is at least {gap:.3g} nats below the log evidence, and Pareto k-hat is "
            f"{khat:.2f} (good up to {good:.2f}): the approximation misses much of the posterior.",
            ("longer", *remedies) if gap > n_dim * FAR_BELOW else remedies,
        )
    if np.isnan(khat):
        return Finding("doubtful", "There are too few draws for Pareto k-hat: take more.")
    quiet = _is_quiet(dataset)
    limit = (EQUAL_ENOUGH if quiet else NEARLY_EQUAL) * n_draws
    good_enough = good + khat_se(n_draws) if quiet else good
    if khat <= good_enough or dataset["importance_ess"].item() > limit:
        by_dimension = GAP_QUIET_PER_DIMENSION if quiet else GAP_DOUBTFUL_PER_DIMENSION
        if gap <= max(GAP_DOUBTFUL, by_dimension * n_dim):
            return None
        return Finding(
            "doubtful",
            f"The ELBO is {gap:.1f} nats below the log evidence. Products and ratios of variables "
            "may be wider than in the approximation, even if no single variable is.",
            ("components", "dense", "transitions", "nuts"),
        )
    return Finding(
        "doubtful",
        f"Pareto k-hat is {khat:.2f} (good up to {good:.2f}): the tails of the approximation are "
        "too thin for importance weights to correct. Means and widths may still be right.",
        remedies,
    )


def khat_se(n_draws: int) -> float:
    r"""Return the standard error of a k-hat of .7, :math:`1.7/\sqrt{M}` with M draws in the tail.

    References
    ----------
    .. [1] Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
       arXiv:1507.02646: M is the least of a fifth of S draws and :math:`3\sqrt{S}`.
    """
    return 1.7 / np.sqrt(max(min(0.2 * n_draws, 3 * np.sqrt(n_draws)), 1.0))


def _moment_shifts(dataset, mixture, history):
    # nearly equal weights move moments only by a few draws of a heavy tail
    if dataset["importance_ess"].item() < FEWEST_EFFECTIVE or weights_hardly_differ(dataset):
        return None
    sd = dataset["sd_reweighted"].values
    shift = np.abs(dataset["mean_reweighted"].values - dataset["mean"].values) / sd
    ratio = np.exp(np.abs(np.log(sd / dataset["sd"].values)))
    # a change within the noise of the reweighting is no finding
    shift = np.where(np.abs(dataset["mean_shift"].values) > 3, shift, 0.0)
    worst = int(np.argmax(np.maximum(shift / SHIFT_BAD, (ratio - 1) / (SD_BAD - 1))))
    if shift[worst] <= SHIFT_DOUBTFUL and ratio[worst] <= SD_DOUBTFUL:
        return None
    bad = shift[worst] > SHIFT_BAD or ratio[worst] > SD_BAD
    name = str(dataset["unconstrained"].values[worst])
    said = []
    if shift[worst] > SHIFT_DOUBTFUL:
        said.append(f"moves the mean of {name} by {shift[worst]:.2f} standard deviations")
    if ratio[worst] > SD_DOUBTFUL:
        said.append(f"changes the width of {name} by a factor of {ratio[worst]:.2f}")
    return Finding(
        "bad" if bad else "doubtful",
        f"Reweighting {' and '.join(said)}.",
        ("components", "dense", "psis"),
        (name,),
    )


def _mode_shifts(dataset, mixture, history):
    if dataset["importance_ess"].item() < FEWEST_EFFECTIVE:
        return None
    mass, weight, error = (dataset[n].values for n in ("mode_mass", "mode_weight", "mode_mass_se"))
    beyond = np.abs(mass - weight) - 2 * error
    worst = int(beyond.argmax())
    if beyond[worst] <= MASS_DOUBTFUL:
        return None
    text = (
        f"Reweighting changes the mass of mode {worst} from {weight[worst]:.2f} to "
        f"{mass[worst]:.2f} ± {error[worst]:.2f}."
    )
    rank = "bad" if beyond[worst] > MASS_BAD else "doubtful"
    return Finding(rank, text, ("components", "psis"))


def _missing(dataset, mixture, history):
    missing = dataset["missing_mass"].item()
    if np.isnan(missing) or missing <= MISSING_DOUBTFUL:
        return None
    return Finding(
        "bad" if missing > MISSING_BAD else "doubtful",
        f"Ascents from spread-out starts found modes with about {missing:.0%} of the posterior "
        "mass that the approximation does not cover.",
        ("starts", "components"),
    )
