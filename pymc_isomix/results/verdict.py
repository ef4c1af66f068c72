"""Whether to trust a fit: what weighted draws say of it, as a dataset with a verdict."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from pymc_isomix.family import modes
from pymc_isomix.fitting.plateau import MAX_WINDOW, recent_fall
from pymc_isomix.results import importance
from pymc_isomix.results.table import render

FEWEST_EFFECTIVE = 50  # draws: below, reweighted moments say nothing
NEARLY_EQUAL = 0.99  # importance ESS a draw
SHIFT_DOUBTFUL, SHIFT_BAD = 0.2, 0.5  # of a mean, in standard deviations of the posterior
SD_DOUBTFUL, SD_BAD = 1.25, 1.6  # ratio of standard deviations, either way
GAP_BAD, GAP_BAD_PER_DIMENSION = 1.0, 0.1  # nats between evidence and ELBO
MASS_SHIFT = 0.1  # of a mode
MISSING_DOUBTFUL, MISSING_BAD = 0.01, 0.05  # posterior mass outside the approximation
RISE = 0.5  # nats, over a third of the recorded steps
NON_FINITE = 0.05  # of the draws

RANKS = ("good", "doubtful", "bad")


class Finding(NamedTuple):
    """One reason not to trust a fit."""

    rank: str  # of RANKS
    text: str


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """The figures of a fit, with a verdict and advice; prints as a table.

    ``report["khat"]`` is a figure of its dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
    verdict : {"good", "doubtful", "bad"}
    advice : str
    """

    dataset: xr.Dataset
    verdict: str
    advice: str

    def __getitem__(self, name):
        return self.dataset[name]

    def to_dataset(self):
        """Return the figures with ``verdict`` and ``advice`` as attributes."""
        return self.dataset.assign_attrs(verdict=self.verdict, advice=self.advice)

    def __repr__(self):
        return render(self.dataset, self.verdict, self.advice)


def diagnose(mixture, draws, labels, *, history=None, missing_mass=np.nan):
    """Judge an approximation by weighted draws from it.

    Parameters
    ----------
    mixture : Mixture
    draws : WeightedDraws
    labels : (d,) array of str
        Names of the unconstrained dimensions.
    history : History, optional
    missing_mass : float
        Posterior mass found where the approximation has none; NaN when not looked for.

    Returns
    -------
    Diagnostics
    """
    weights, log_weight = draws.importance, draws.log_weight
    n_draws = len(log_weight)
    finite = np.isfinite(log_weight)
    mode_labels = modes.label_modes(mixture)
    own_mass, mass, mass_se = modes.mode_masses(
        mode_labels, mixture.weights, draws.responsibilities, weights.weight
    )
    columns = {
        # of the mixture cut to the support, which is what sample() draws from
        "elbo": log_weight[finite].mean() + np.log(finite.mean()) if finite.any() else -np.inf,
        "elbo_se": log_weight[finite].std() / np.sqrt(finite.sum()) if finite.any() else np.inf,
        "khat": weights.khat,
        "good_k": importance.good_khat(n_draws),
        "importance_ess": weights.effective,
        "log_evidence": weights.log_evidence,
        "log_evidence_se": weights.log_evidence_se,
        "n_draws": n_draws,
        "n_nonfinite": int((~finite).sum()),
        "missing_mass": missing_mass,
        "n_modes": len(own_mass),
        "mode_mass": ("mode", mass),
        "mode_mass_se": ("mode", mass_se),
        "mode_weight": ("mode", own_mass),
        **{name: ("unconstrained", column) for name, column in _moments(draws).items()},
    }
    coords = {"mode": np.arange(len(own_mass)), "unconstrained": labels}
    dataset = xr.Dataset(columns, coords=coords)
    findings = judge(dataset, history)
    ranks = [finding.rank for finding in findings]
    return Diagnostics(
        dataset,
        verdict=max(ranks, key=RANKS.index, default="good"),
        advice=" ".join(finding.text for finding in findings) or "Nothing speaks against this fit.",
    )


def _moments(draws):
    """Moments by plain and by weighted draws, (d,) each, and the shift in its standard errors."""
    points, weight = draws.unconstrained, draws.importance.weight
    counts = np.isfinite(draws.log_weight)
    counts |= not counts.any()
    inside = points[counts]
    mean, sd = inside.mean(axis=0), inside.std(axis=0)
    reweighted = weight @ points
    equal = counts / len(inside)
    error = np.sqrt((weight - equal) ** 2 @ (points - reweighted) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        shift = np.where(reweighted == mean, 0.0, (reweighted - mean) / error)
    return {
        "mean": mean,
        "sd": sd,
        "mean_reweighted": reweighted,
        "sd_reweighted": np.sqrt(weight @ (points - reweighted) ** 2),
        "mean_shift": shift,
    }


def judge(dataset, history=None):
    """List what speaks against a fit, from the figures of :func:`diagnose`.

    Returns
    -------
    list of Finding
    """
    checks = (_support, _unsettled, _weights, _moment_shifts, _mode_shifts, _missing)
    return [f for check in checks if (f := check(dataset, history)) is not None]


def _support(dataset, history):
    share = dataset["n_nonfinite"].item() / dataset["n_draws"].item()
    if share == 1:
        return Finding("bad", "No draw has a finite log density.")
    if share > NON_FINITE:
        return Finding(
            "doubtful",
            f"{share:.0%} of the draws lie outside the support of the model; sample() draws them "
            "anew. Better reparametrise the model without hard bounds.",
        )
    return None


def _unsettled(dataset, history):
    rise = 0.0 if history is None else still_rising(history.elbo)
    if dataset["khat"].item() <= dataset["good_k"].item():
        # what is left to rise is KL(q || p), which the weights then tell
        rise = min(rise, (dataset["log_evidence"] - dataset["elbo"]).item())
    if rise > RISE:
        return Finding(
            "bad" if rise > 10 * RISE else "doubtful",
            f"The ELBO was still rising, by {rise:.1f} nats over the last steps: fit for longer, "
            "with `inference.refine(n)` or a larger n.",
        )
    return None


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


def _weights(dataset, history):
    khat, good = dataset["khat"].item(), dataset["good_k"].item()
    if np.isnan(khat):
        return Finding("doubtful", "Too few draws for Pareto k-hat: take more.")
    gap = (dataset["log_evidence"] - dataset["elbo"]).item()
    if gap > max(GAP_BAD, GAP_BAD_PER_DIMENSION * dataset.sizes["unconstrained"]):
        return Finding(
            "bad",
            f"The ELBO is at least {gap:.1f} nats below the evidence, and Pareto k-hat is "
            f"{khat:.2f} (at most {good:.2f} is good): the approximation misses much of the "
            'posterior. Use more components, metric="dense", or another parametrisation; or start '
            "NUTS from here with `approx.nuts_init()`.",
        )
    nearly_equal = dataset["importance_ess"].item() > NEARLY_EQUAL * dataset["n_draws"].item()
    # a tail with a finite mean, of weights that hardly differ: nothing rests on its index
    if khat <= good or (khat < 1 and nearly_equal):
        return None
    return Finding(
        "doubtful",
        f"Pareto k-hat is {khat:.2f} (at most {good:.2f} is good): in the tails the approximation "
        "is too thin, and importance weights cannot mend it. That alone is no proof of a wrong "
        'mean. Use more components, metric="dense", or another parametrisation; or start NUTS '
        "from here with `approx.nuts_init()`.",
    )


def _moment_shifts(dataset, history):
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
    name = dataset["unconstrained"].values[worst]
    return Finding(
        "bad" if bad else "doubtful",
        f"Reweighting moves the mean of {name} by {shift[worst]:.2f} standard deviations and "
        f"changes its standard deviation {ratio[worst]:.2f}-fold: use more components, or "
        '`sample(importance="psis")` where k-hat is good.',
    )


def _mode_shifts(dataset, history):
    if dataset["importance_ess"].item() < FEWEST_EFFECTIVE:
        return None
    shift = np.abs(dataset["mode_mass"] - dataset["mode_weight"]).values
    worst = int(shift.argmax())
    if shift[worst] <= MASS_SHIFT:
        return None
    return Finding(
        "doubtful",
        f"Reweighting changes the mass of mode {worst} by {shift[worst]:.2f}: use "
        '`sample(importance="psis")`, or more components.',
    )


def _missing(dataset, history):
    missing = dataset["missing_mass"].item()
    if np.isnan(missing) or missing <= MISSING_DOUBTFUL:
        return None
    return Finding(
        "bad" if missing > MISSING_BAD else "doubtful",
        f"Ascents from spread starts found modes with about {missing:.0%} of the posterior mass "
        'where the approximation has none: fit with init="prior" or init="uniform", a larger '
        "init_width, and more components.",
    )
