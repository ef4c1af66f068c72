"""The rules of the verdict: what speaks against a fit, and what would mend it."""

from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are used

from pymc_isomix.fitting.plateau import MAX_WINDOW, recent_fall

FEWEST_EFFECTIVE = 50  # draws: below, reweighted moments say nothing
NEARLY_EQUAL = 0.95  # importance ESS a draw: k-hat is the tail index of next to nothing
EQUAL_ENOUGH = 0.5  # the same, where exact transitions were made and leave all moments in place
SHIFT_DOUBTFUL, SHIFT_BAD = 0.2, 0.5  # of a mean, in standard deviations of the posterior
SD_DOUBTFUL, SD_BAD = 1.25, 1.6  # ratio of standard deviations, either way, by weights
DRIFT_DOUBTFUL, DRIFT_BAD = 1.15, 1.5  # the same by transitions, less two standard errors
FEW_DIMENSIONS = 100  # up to which two standard errors are what noise may be
SLOW_CHAINS = 0.015  # share of chains whose transitions are seldom accepted: three of 150
GAP_DOUBTFUL, GAP_BAD = 0.5, 1.0  # nats between evidence and ELBO
GAP_DOUBTFUL_PER_DIMENSION, GAP_BAD_PER_DIMENSION = 0.005, 0.1  # where those are more
MASS_SHIFT = 0.1  # of a mode
MISSING_DOUBTFUL, MISSING_BAD = 0.01, 0.05  # posterior mass outside the approximation
RISE = 0.5  # nats, over a third of the recorded steps
NON_FINITE = 0.05  # of the draws

RANKS = ("good", "doubtful", "bad")


class Finding(NamedTuple):
    """One reason not to trust a fit."""

    rank: str  # of RANKS
    text: str
    remedies: tuple[str, ...] = ()  # keys of REMEDIES
    names: tuple[str, ...] = ()  # labels of the dimensions that the text names


# what mends a fit, from what costs least; K is that of the fit
REMEDIES = {
    "longer": "`pmi.resume(approx).fit(n)` or a larger n",
    "starts": 'init="prior" or init="uniform" with a larger init_width',
    "components": "n_components above {n_components}",
    "dense": 'metric="dense"',
    "parametrisation": "another parametrisation (non-centred, if this is centred)",
    "bounds": "a parametrisation without hard bounds",
    "psis": '`approx.sample(importance="psis")`',
    "transitions": "`approx.sample(transitions=20)`",
    "nuts": "`approx.sample_nuts()`",
}


def judge(dataset, mixture, history=None):
    """List what speaks against a fit.

    Parameters
    ----------
    dataset : xarray.Dataset
        The figures of :func:`pymc_isomix.results.verdict.diagnose`.
    mixture : Mixture
    history : History, optional

    Returns
    -------
    list of Finding
    """
    checks = (
        _support,
        _unsettled,
        _drift,
        _neck,
        _weights,
        _moment_shifts,
        _mode_shifts,
        _missing,
    )
    return [f for check in checks if (f := check(dataset, mixture, history)) is not None]


def advise(findings, dataset, mixture):
    """Put findings into words, with the remedies that the fit leaves open."""
    if not findings:
        return "Nothing speaks against this fit."
    wanted = {key for finding in findings for key in finding.remedies}
    if mixture.metric.ndim == 2:
        wanted.discard("dense")
    if not _weights_are_good(dataset):
        wanted.discard("psis")
    said = [t.format(n_components=mixture.n_components) for k, t in REMEDIES.items() if k in wanted]
    listed = ", ".join([*said[:-2], " or ".join(said[-2:])])
    return " ".join([f.text for f in findings] + ([f"To mend it: {listed}."] if said else []))


def _weights_are_good(dataset):
    return dataset["khat"].item() <= dataset["good_k"].item()


def weights_hardly_differ(dataset):
    """Tell whether the importance weights are all but equal, so that k-hat says nothing."""
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
    rise = 0.0 if history is None else still_rising(history.elbo)
    if _weights_are_good(dataset) or weights_hardly_differ(dataset):
        # what is left to rise is KL(q || p), which the weights then tell
        rise = min(rise, (dataset["log_evidence"] - dataset["elbo"]).item())
    if rise <= RISE:
        return None
    return Finding(
        "bad" if rise > 10 * RISE else "doubtful",
        f"The ELBO was still rising, by {rise:.1f} nats over the last steps.",
        ("longer",),
    )


def still_rising(elbo):
    """Rise of the ELBO over the last steps beyond two standard errors, nats.

    Means of the latest third of the steps (300 at most) and of as many before it.
    """
    elbo = elbo[np.isfinite(elbo)]
    window = min(len(elbo) // 3, MAX_WINDOW)
    if window < 2:
        return 0.0
    fall, error = recent_fall(-elbo, window)
    return float(fall - 2 * error)


def drift_beyond_noise(dataset):
    """Drift of means, in standard deviations, and ratios of standard deviations, less noise.

    Returns
    -------
    shift, ratio : (d,) array
        Absolute values less two standard errors; 0 and 1 where nothing was measured. Less more of
        them beyond 100 dimensions, so that no more go beyond by chance than of 100.
    """
    errors, n_dim = 2.0, dataset.sizes["unconstrained"]
    if n_dim > FEW_DIMENSIONS:
        tail = scipy.special.ndtr(-errors) * FEW_DIMENSIONS / n_dim
        errors = -scipy.special.ndtri(tail)
    shift, log_ratio = (
        np.maximum(np.abs(dataset[n].values) - errors * dataset[f"{n}_se"].values, 0.0)
        for n in ("mean_drift", "log_sd_drift")
    )
    return np.nan_to_num(shift, posinf=0.0), np.exp(np.nan_to_num(log_ratio, posinf=0.0))


def _drift(dataset, mixture, history):
    shift, ratio = drift_beyond_noise(dataset)
    size = np.maximum(shift / SHIFT_DOUBTFUL, np.log(ratio) / np.log(DRIFT_DOUBTFUL))
    worst = int(np.argmax(size))
    if size[worst] <= 1:
        return None
    name = str(dataset["unconstrained"].values[worst])
    others = int((size > 1).sum()) - 1
    also = f" (and {others} other{'s' if others > 1 else ''})" if others else ""
    if shift[worst] / SHIFT_DOUBTFUL > np.log(ratio[worst]) / np.log(DRIFT_DOUBTFUL):
        drift = abs(dataset["mean_drift"].values[worst])
        text = f"Exact transitions move the mean of {name}{also} by {drift:.2f} standard deviations"
        text += ": the approximation is off there."
    else:
        log_ratio = dataset["log_sd_drift"].values[worst]
        verb, fault = ("grows", "narrow") if log_ratio > 0 else ("shrinks", "wide")
        text = f"The scale of {name}{also} {verb} {np.exp(abs(log_ratio)):.1f}-fold under exact "
        text += f"transitions: the approximation is too {fault} there."
    bad = shift.max() > SHIFT_BAD or ratio.max() > DRIFT_BAD
    remedies = ("components", "dense", "transitions", "nuts")
    return Finding("bad" if bad else "doubtful", text, remedies, (name,))


def _neck(dataset, mixture, history):
    """Find a neck, as of a funnel: there the posterior narrows, and a shared step is too long.

    Modes of different widths look alike, so that only one mode tells.
    """
    slow = dataset["slow_chains"].item()
    if not slow > SLOW_CHAINS or dataset["n_modes"].item() > 1:  # NaN without transitions
        return None
    return Finding(
        "doubtful",
        f"{slow:.0%} of the chains hardly move under exact transitions: there the posterior is far "
        "steeper than elsewhere, as in the neck of a funnel, and neither they nor the "
        "approximation may reach all of it.",
        ("parametrisation", "components", "dense", "nuts"),
    )


def _weights(dataset, mixture, history):
    khat, good = dataset["khat"].item(), dataset["good_k"].item()
    if np.isnan(khat):
        return Finding("doubtful", "Too few draws for Pareto k-hat: take more.")
    gap = (dataset["log_evidence"] - dataset["elbo"]).item()
    n_dim, remedies = dataset.sizes["unconstrained"], ("components", "dense", "nuts")
    if gap > max(GAP_BAD, GAP_BAD_PER_DIMENSION * n_dim):
        return Finding(
            "bad",
            f"The ELBO is at least {gap:.1f} nats below the evidence, and Pareto k-hat is "
            f"{khat:.2f} (at most {good:.2f} is good): the approximation misses much of the "
            "posterior.",
            remedies,
        )
    seen = dataset["n_transitions"].item() > 0  # and what they find has a rule of its own
    limit = (EQUAL_ENOUGH if seen else NEARLY_EQUAL) * dataset["n_draws"].item()
    if khat <= good or dataset["importance_ess"].item() > limit:
        if gap <= max(GAP_DOUBTFUL, GAP_DOUBTFUL_PER_DIMENSION * n_dim):
            return None
        return Finding(
            "doubtful",
            f"The ELBO is {gap:.1f} nats below the evidence: products and ratios of variables may "
            "spread more than in the approximation, even where no variable does by itself.",
            ("components", "dense", "transitions", "nuts"),
        )
    return Finding(
        "doubtful",
        f"Pareto k-hat is {khat:.2f} (at most {good:.2f} is good): in the tails the approximation "
        "is too thin, and importance weights cannot mend it. That alone is no proof of a wrong "
        "mean.",
        remedies,
    )


def _moment_shifts(dataset, mixture, history):
    if dataset["importance_ess"].item() < FEWEST_EFFECTIVE:
        return None
    sd = dataset["sd_reweighted"].values
    shift = np.abs(dataset["mean_reweighted"].values - dataset["mean"].values) / sd
    ratio = np.exp(np.abs(np.log(sd / dataset["sd"].values)))
    # what may be the noise of the reweighting is no finding
    shift = np.where(np.abs(dataset["mean_shift"].values) > 3, shift, 0.0)
    worst = int(np.argmax(np.maximum(shift / SHIFT_BAD, (ratio - 1) / (SD_BAD - 1))))
    if shift[worst] <= SHIFT_DOUBTFUL and ratio[worst] <= SD_DOUBTFUL:
        return None
    bad = shift[worst] > SHIFT_BAD or ratio[worst] > SD_BAD
    name = str(dataset["unconstrained"].values[worst])
    return Finding(
        "bad" if bad else "doubtful",
        f"Reweighting moves the mean of {name} by {shift[worst]:.2f} standard deviations and "
        f"changes its standard deviation {ratio[worst]:.2f}-fold.",
        ("components", "dense", "psis"),
        (name,),
    )


def _mode_shifts(dataset, mixture, history):
    if dataset["importance_ess"].item() < FEWEST_EFFECTIVE:
        return None
    shift = np.abs(dataset["mode_mass"] - dataset["mode_weight"]).values
    worst = int(shift.argmax())
    if shift[worst] <= MASS_SHIFT:
        return None
    text = f"Reweighting changes the mass of mode {worst} by {shift[worst]:.2f}."
    return Finding("doubtful", text, ("components", "psis"))


def _missing(dataset, mixture, history):
    missing = dataset["missing_mass"].item()
    if np.isnan(missing) or missing <= MISSING_DOUBTFUL:
        return None
    return Finding(
        "bad" if missing > MISSING_BAD else "doubtful",
        f"Ascents from spread starts found modes with about {missing:.0%} of the posterior mass "
        "where the approximation has none.",
        ("starts", "components"),
    )
