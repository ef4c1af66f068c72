"""Text about a fit: its closing line, and its diagnostics as tables in text and HTML."""

import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pymc_isomix.family.mixture import Mixture
from pymc_isomix.fitting.record import GAUSSIAN, History
from pymc_isomix.results import rules

WORST = 5  # dimensions in a table, besides those that the verdict names
WIDTH = 88
LARGEST_IN_FULL = 1e8
NEGLIGIBLE = 0.01  # of the draws
RECENT = 100  # steps that are averaged for an ELBO
LONGEST_NAME = 22  # characters; the middle of longer names is cut


class Rows(NamedTuple):
    """A table of strings."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def closing_line(mixture: Mixture, history: History, n_steps: int) -> str:
    """Say in one line how a fit ended.

    It evaluates nothing. :func:`pymc_isomix.results.verdict.examine` judges the fit.
    """
    parts = [f"Stopped after {n_steps:,d} iterations: {history.stop_reason}."]
    n_modes = mixture.mode_labels.max() + 1
    counted = "1 mode" if n_modes == 1 else f"{n_modes} modes"
    elbo = recent_elbo(history)
    parts.append(f"{counted}." if np.isnan(elbo) else f"ELBO {elbo:.2f}, {counted}.")
    parts.append(f"{history.compile_seconds:.1f} s to compile, {history.run_seconds:.1f} s to run.")
    return " ".join([*parts, "`diagnostics()` says whether to trust it."])


def recent_elbo(history: History) -> float:
    """Return the mean ELBO of the latest steps of the last phase, or NaN.

    For Gaussians it is the last one. Its batch has many draws, and earlier Gaussians were worse.
    """
    finite = np.isfinite(history.elbo)
    elbo = history.elbo[finite]
    known = len(history.phase) == len(finite)
    phase = history.phase[finite] if known else np.full(len(elbo), "")
    if not len(elbo):
        return np.nan
    n_recent = 1 if phase[-1] == GAUSSIAN else RECENT
    return float(elbo[phase == phase[-1]][-n_recent:].mean())


def summary(mixture: Mixture, history: History | None, report: Any, sites: Sequence = ()) -> str:
    """Describe an approximation in one line, with the verdict of its last diagnostics.

    Parameters
    ----------
    sites : list of str
        Names of the value variables that are sites.
    """
    kind = ("identity", "diagonal", "dense")[mixture.metric.ndim]
    components = (
        "1 component" if mixture.n_components == 1 else f"{mixture.n_components} components"
    )
    if mixture.log_variances.ndim == 2:
        components += " with diagonal variances"
    said = "not fitted"
    if report is not None:
        said = f"ELBO {report['elbo'].item():.2f}, verdict: {report.verdict}"
        if not report["n_transitions"].item():
            said += " without transitions"
    elif history is not None and np.isfinite(elbo := recent_elbo(history)):
        said = f"ELBO {elbo:.2f}, not checked (call diagnostics())"
    seen = f", sites {', '.join(sites)}" if sites else ""
    return f"<IsotropicMixture: {components}, {kind} metric, d = {mixture.n_dim}{seen}; {said}>"


def as_text(diagnostics: Any) -> str:
    """Render diagnostics as text: verdict, figures, modes, and the dimensions that move most."""
    text = io.StringIO()
    # in Jupyter, rich would also display the table
    console = Console(file=text, width=WIDTH, force_terminal=False, force_jupyter=False)
    console.print(f"Verdict: {diagnostics.verdict}. {diagnostics.advice}", markup=False)
    for header, rows in _tables(diagnostics):
        table = Table(*(Column(Text(name), overflow="fold") for name in header))
        for row in rows:
            table.add_row(*map(Text, row))  # brackets in labels are not markup
        console.print(table)
    return text.getvalue().rstrip("\n")


def as_html(diagnostics: Any) -> str:
    """Render diagnostics as HTML, for notebooks."""
    verdict, advice = escape(diagnostics.verdict), escape(diagnostics.advice)
    parts = [f"<p><strong>Verdict: {verdict}.</strong> {advice}</p>"]
    for header, rows in _tables(diagnostics):
        lines = [_line("th", header), *(_line("td", row) for row in rows)]
        parts.append(f"<table>{''.join(lines)}</table>")
    return "\n".join(parts)


def _line(tag, cells):
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _tables(diagnostics):
    dataset = diagnostics.dataset
    yield _figures(dataset)
    if dataset.sizes["mode"] > 1:
        yield _modes(dataset)
    yield _dimensions(dataset, diagnostics.names)
    if "model_space" in dataset.sizes:
        yield _in_model_space(dataset, diagnostics.names)


def _figures(dataset):
    def value(name):
        return dataset[name].item()

    khat = f"of the importance weights; good up to {value('good_k'):.2f}"
    if rules.weights_hardly_differ(dataset):
        khat = "of no concern: all weights are nearly equal"
    gap = value("log_evidence") - value("elbo")
    rows = [
        (
            "ELBO",
            _with_error(value("elbo"), value("elbo_se")),
            f"KL(q‖p) is about {max(gap, 0.0):.2g} nats",
        ),
        (
            "log evidence",
            _with_error(value("log_evidence"), value("log_evidence_se")),
            "log marginal likelihood",
        ),
        ("Pareto k-hat", f"{value('khat'):.2f}", khat),
        ("importance ESS", f"{value('importance_ess'):.0f}", f"of {value('n_draws')} draws"),
        ("modes", f"{value('n_modes')}", "peaks with deep valleys between them"),
        ("drift", *_drift(dataset)),
        ("missing mass", *_missing(dataset)),
    ]
    if value("slow_chains") > 0:
        rows.append(
            (
                "slow chains",
                f"{value('slow_chains'):.1%}",
                "of the HMC chains accept few of their moves",
            )
        )
    if value("n_nonfinite"):
        share = value("n_nonfinite") / value("n_draws")
        care = "of no concern" if share < NEGLIGIBLE else "left out"
        text = f"{share:.2%} of the draws have no finite log density: {care}"
        rows.append(("not finite", f"{value('n_nonfinite')}", text))
    return Rows(("figure", "value", "what it says"), rows)


def _with_error(value, error):
    form = ".3f" if abs(value) < LARGEST_IN_FULL else ".3g"
    return f"{value:{form}} ± {error:{form}}"


def _drift(dataset):
    drift = rules.worst_drift(dataset)
    if drift is None:
        return "not checked", "no HMC transitions were made"
    n_transitions = dataset["n_transitions"].item()
    if not drift.beyond:
        return "none", f"no mean or width moves under {n_transitions} HMC transitions"
    what, size = rules.drift_in_words(drift)
    return size, f"{what} {shorten([drift.name])[0]}, after {n_transitions} HMC transitions"


def _missing(dataset):
    missing, n_ascents = (dataset[n].item() for n in ("missing_mass", "n_ascents"))
    if np.isnan(missing):
        return "not checked", "no ascents to other modes were made"
    n_reached = dataset["n_ascents_at_modes"].item()
    return f"{missing:.3f}", f"{n_reached} of {n_ascents} ascents ended at a mode"


def _modes(dataset):
    columns = (dataset[n].values for n in ("mode", "mode_weight", "mode_mass", "mode_mass_se"))
    rows = [
        (str(mode), f"{weight:.3f}", f"{mass:.3f} ± {error:.3f}")
        for mode, weight, mass, error in zip(*columns, strict=True)
    ]
    return Rows(("mode", "weight", "mass by reweighting"), rows)


def _dimensions(dataset, names):
    """List the unconstrained dimensions in the verdict, and those with the largest moves."""
    header = ["unconstrained", "mean", "reweighted", "sd", "reweighted"]
    columns = ["mean", "mean_reweighted", "sd", "sd_reweighted"]
    moves = np.abs(np.nan_to_num(dataset["mean_shift"].values, posinf=0.0, neginf=0.0))
    if dataset["n_transitions"].item():
        header = ["unconstrained", "mean", "reweighted", "by HMC", "sd", "reweighted", "by HMC"]
        columns.insert(2, "transitions_mean")
        columns.append("transitions_sd")
        moves = _moves(dataset, "")
    return _chosen(dataset, header, columns, dataset["unconstrained"].values, moves, names)


def _in_model_space(dataset, names):
    """List variables in their own units, and deterministics, in the same way."""
    header = ["in the model's units", "mean", "by HMC", "sd", "by HMC"]
    columns = ["mean", "transitions_mean", "sd", "transitions_sd"]
    columns = [f"model_{name}" for name in columns]
    moves = _moves(dataset, "model_")
    return _chosen(dataset, header, columns, dataset["model_space"].values, moves, names)


def _moves(dataset, prefix):
    shift, ratio = rules.drift_beyond_noise(dataset, prefix)
    return np.maximum(shift, np.log(ratio))


def _chosen(dataset, header, columns, labels, moves, names):
    labels = [str(label) for label in labels]
    named = [labels.index(name) for name in dict.fromkeys(names) if name in labels]
    worst = [i for i in np.argsort(-moves, kind="stable") if i not in named]
    chosen = [*named, *worst][: max(WORST, len(named))]
    short = shorten([labels[i] for i in chosen])
    rows = [
        (name, *(f"{dataset[column].values[i]:.3g}" for column in columns))
        for name, i in zip(short, chosen, strict=True)
    ]
    return Rows(tuple(header), rows)


def shorten(names: list[str]) -> list[str]:
    """Cut the middle out of long names, unless they would become equal.

    Examples
    --------
    >>> shorten(["coefficient_of[the last one]", "tau"])
    ['coefficien…e last one]', 'tau']
    """
    head = (LONGEST_NAME - 1) // 2

    def cut(name):
        short = f"{name[:head]}…{name[head + 1 - LONGEST_NAME :]}"
        return name if len(name) <= LONGEST_NAME else short

    cuts = [cut(name) for name in names]
    return [
        name if cuts.count(short) > 1 else short for name, short in zip(names, cuts, strict=True)
    ]
