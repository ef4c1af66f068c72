"""The verdict on a fit, from weighted and moved draws."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pymc_isomix.family import modes
from pymc_isomix.fitting.record import History
from pymc_isomix.model import periodic
from pymc_isomix.model.compiled import CompiledModel, n_observations
from pymc_isomix.results import importance, rules, table
from pymc_isomix.results.causes import NONE_FOUND, Causes, find_causes
from pymc_isomix.results.importance import WeightedDraws
from pymc_isomix.results.missing_mass import NOT_LOOKED_FOR, MissingMass, missing_mass
from pymc_isomix.sampling import drift
from pymc_isomix.sampling.transitions import transitions
from pymc_isomix.sites.blocks import BlockMixture

DRAWS = 4000
MOST_NUMBERS = (
    40_000_000  # in all draws together: up to 10 000 dimensions have the full number of draws
)
CHAINS = 150
# observations with the full effort; above, a part of it, but at least the second number
FULL_EFFORT = 20_000
LEAST_DRAWS, LEAST_CHAINS, LEAST_CHECKS = 500, 50, 5
STATES = 5  # per chain, which are compared with its start


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """The figures of a fit with a verdict and advice; prints as a table.

    ``report["khat"]`` is a figure of its dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
        Scalars: ``elbo`` and ``log_evidence`` with ``elbo_se`` and ``log_evidence_se``, nats;
        Pareto ``khat`` and ``good_k``, up to which it is good; ``importance_ess``, draws;
        ``n_draws``, ``n_nonfinite``; ``missing_mass``, the share of the posterior that ascents
        found outside, with ``n_ascents`` and ``n_ascents_at_modes``; ``n_transitions``, their
        ``acceptance_rate``, and ``slow_chains``, the share of chains in which it is below 0.4. By
        ``mode``: ``mode_weight``, and ``mode_mass`` after reweighting with ``mode_mass_se``.
        By ``unconstrained`` dimension: ``mean``, ``sd``, ``mean_reweighted``,
        ``sd_reweighted``, and ``mean_shift`` in standard errors; ``transitions_mean`` and
        ``transitions_sd`` after exact transitions, ``mean_drift`` in standard deviations,
        ``log_sd_drift`` of their logarithm, and ``lower_tail`` and ``upper_tail``, what lies then
        below the quantile .05 of the draws and above .95; each with its ``_se``. The same of
        variables and deterministics in their own units, by ``model_space``, as ``model_mean`` and
        so on.
    verdict : {"good", "doubtful", "bad"}
    advice : str
    names : tuple of str
        Dimensions that the advice names.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     approx = pmi.IsotropicMixture(n_components=1, start_sigma=1.0, random_seed=1)
    >>> report = approx.diagnostics(draws=500, n_probes=5, progressbar=False)
    >>> report["n_modes"].item(), report["n_draws"].item()
    (1, 500)
    >>> sorted(report.to_dataset().attrs)
    ['advice', 'verdict']
    """

    dataset: xr.Dataset
    verdict: str
    advice: str
    names: tuple[str, ...] = ()

    def __getitem__(self, name):
        return self.dataset[name]

    def to_dataset(self) -> xr.Dataset:
        """Return the figures with ``verdict`` and ``advice`` as attributes."""
        return self.dataset.assign_attrs(verdict=self.verdict, advice=self.advice)

    def __repr__(self):
        return table.as_text(self)

    def _repr_html_(self):
        return table.as_html(self)


def examine(
    compiled: CompiledModel,
    mixture: BlockMixture,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    draws: int | None = None,
    n_probes: int = 20,
    n_transitions: int = 20,
    history: History | None = None,
    progressbar: bool = False,
) -> Diagnostics:
    """Draw from an approximation, weigh and move the draws, look for other modes, and judge.

    The effort does not depend on time or on the machine: 4000 draws (fewer above 10 000
    dimensions), 150 chains, and the given numbers of transitions and ascents, about 30 000
    evaluations of the log density by default. Above 20 000 observations it falls in proportion, to
    no less than 500 draws, 50 chains, five transitions and five ascents.

    Parameters
    ----------
    labels : (d,) array of str
    draws, n_probes, n_transitions : int
        The last two may be 0.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts, because half of the transitions would give another verdict.
    """
    part = min(1.0, FULL_EFFORT / max(n_observations(compiled.model), 1))
    affordable = max(1, min(DRAWS, MOST_NUMBERS // mixture.n_dim))
    affordable = max(min(LEAST_DRAWS, affordable), int(part * affordable))
    n_chains = max(LEAST_CHAINS, int(part * CHAINS))
    n_transitions, n_probes = (
        max(min(LEAST_CHECKS, n), int(part * n)) for n in (n_transitions, n_probes)
    )
    angles = periodic.periodic_dimensions(compiled.space)
    mixture = periodic.on_one_turn(mixture, angles)
    points, component = mixture.draw(draws or affordable, rng)
    log_p, gradient, *mapped = compiled.evaluate(points)
    weighted = importance.weigh(mixture, points, component, mapped, log_p)
    causes = find_causes(compiled, points, gradient, mapped[0], history)
    moved, missing = None, NOT_LOOKED_FOR
    if causes.flat:  # transitions and ascents would run off
        n_transitions = n_probes = 0
    if n_transitions:
        options: dict = {"progressbar": progressbar, "n_recent": STATES}
        after = transitions(compiled, mixture, points[:n_chains], n_transitions, rng, **options)
        if after.n_done < n_transitions:
            raise KeyboardInterrupt
        moved = drift.figures(compiled, weighted.unconstrained, after, angles)
    if n_probes:
        evidence = weighted.importance.log_evidence
        missing = missing_mass(compiled, mixture, evidence, n_probes, rng, periodic=angles)
    return diagnose(
        mixture, weighted, labels, history=history, missing=missing, moved=moved, causes=causes
    )


def diagnose(
    mixture: BlockMixture,
    draws: WeightedDraws,
    labels: np.ndarray,
    *,
    history: History | None = None,
    missing: MissingMass = NOT_LOOKED_FOR,
    moved: dict | None = None,
    causes: Causes = NONE_FOUND,
) -> Diagnostics:
    """Judge an approximation by weighted draws, and by transitions and ascents if given.

    Parameters
    ----------
    labels : (d,) array of str
        Names of the unconstrained dimensions.
    moved : dict, optional
        See :func:`pymc_isomix.sampling.drift.figures`.
    """
    weights, log_weight = draws.importance, draws.log_weight
    n_draws = len(log_weight)
    moved = drift.unknown(len(labels)) if moved is None else moved
    finite = np.isfinite(log_weight)
    mode_labels = mixture.mode_labels
    own_mass, mass, mass_se = modes.mode_masses(
        mode_labels, mixture.weights, draws.responsibilities, weights.weight
    )
    columns = {
        # of the mixture cut to the support, from which sample() draws
        "elbo": log_weight[finite].mean() + np.log(finite.mean()) if finite.any() else -np.inf,
        "elbo_se": log_weight[finite].std() / np.sqrt(finite.sum()) if finite.any() else np.inf,
        "khat": weights.khat,
        "good_k": importance.good_khat(n_draws),
        "importance_ess": weights.effective,
        "log_evidence": weights.log_evidence,
        "log_evidence_se": weights.log_evidence_se,
        "n_draws": n_draws,
        "n_nonfinite": int((~finite).sum()),
        "missing_mass": missing.share,
        "n_ascents": missing.n_ascents,
        "n_ascents_at_modes": missing.n_reached,
        **{name: moved[name] for name in drift.SCALARS},
        "n_modes": len(own_mass),
        "mode_mass": ("mode", mass),
        "mode_mass_se": ("mode", mass_se),
        "mode_weight": ("mode", own_mass),
        **{name: ("unconstrained", column) for name, column in _moments(draws).items()},
        **{name: ("unconstrained", moved[name]) for name in drift.COLUMNS},
    }
    coords = {"mode": np.arange(len(own_mass)), "unconstrained": labels}
    if of_model := dict(moved["model_space"]):
        coords["model_space"] = of_model.pop("labels")
        columns |= {f"model_{name}": ("model_space", v) for name, v in of_model.items()}
    dataset = xr.Dataset(columns, coords=coords)
    findings = rules.judge(dataset, mixture.sketch, history, causes)
    ranks = [finding.rank for finding in findings]
    return Diagnostics(
        dataset,
        verdict=max(ranks, key=rules.RANKS.index, default="good"),
        advice=rules.advise(findings, dataset, mixture.sketch, causes),
        names=tuple(name for finding in findings for name in finding.names),
    )


def _moments(draws):
    """Return moments of plain and weighted draws, and the shift in standard errors, (d,) each."""
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
