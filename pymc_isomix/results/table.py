"""A fit in words: the line that ends it, and its diagnostics as tables, in text and in HTML."""

import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pymc_isomix.results import rules

WORST = 5  # dimensions listed beside those that the verdict names
WIDTH = 88
RECENT = 100  # steps that an ELBO is averaged over
LONGEST_NAME = 22  # characters: longer names lose their middle


class Rows(NamedTuple):
    """A table of strings."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def closing_line(history, n_steps, figures):
    """Say in one line how a fit ended.

    Parameters
    ----------
    history : History
    n_steps : int
    figures : str
        See :func:`figures_in_words`.
    """
    parts = [f"Stopped after {n_steps:,d} iterations: {history.stop_reason}."]
    if figures:
        parts.append(figures)
    parts.append(f"{history.compile_seconds:.1f} s to compile, {history.run_seconds:.1f} s to run.")
    return " ".join(parts)


def figures_in_words(figures):
    """Say ELBO, Pareto k-hat and modes, of a dataset of diagnostics."""
    elbo, n_modes = (figures[name].item() for name in ("elbo", "n_modes"))
    modes = "1 mode" if n_modes == 1 else f"{n_modes} modes"
    khat = f"Pareto k-hat {khat_in_words(figures)}"
    if rules.weights_hardly_differ(figures):
        khat = "importance weights all but equal"
    return f"ELBO {elbo:.2f}, {khat}, {modes}."


def summary(mixture, history, report, sites=()):
    """Say in one line what an approximation is, and what its last diagnostics said.

    Parameters
    ----------
    mixture : Mixture
    history : History or None
    report : Diagnostics or None
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
            said += " by weights alone (diagnostics() looks further)"
    elif history is not None and np.isfinite(history.elbo).any():
        recent = history.elbo[np.isfinite(history.elbo)][-RECENT:]
        said = f"ELBO {recent.mean():.2f}, not judged (diagnostics() does)"
    seen = f", sites {', '.join(sites)}" if sites else ""
    return f"<IsotropicMixture: {components}, {kind} metric, d = {mixture.n_dim}{seen}; {said}>"


def khat_in_words(figures):
    """Say k-hat, and up to what it is good."""
    return f"{figures['khat'].item():.2f} (good up to {figures['good_k'].item():.2f})"


def as_text(diagnostics):
    """Render diagnostics as text: verdict, figures, modes, and the dimensions that move most."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, force_terminal=False)
    console.print(f"Verdict: {diagnostics.verdict}. {diagnostics.advice}", markup=False)
    for header, rows in _tables(diagnostics):
        table = Table(*(Column(Text(name), overflow="fold") for name in header))
        for row in rows:
            table.add_row(*map(Text, row))  # a label's brackets are no markup
        console.print(table)
    return text.getvalue().rstrip("\n")


def as_html(diagnostics):
    """Render the same as HTML, for notebooks."""
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


def _figures(dataset):
    def value(name):
        return dataset[name].item()

    khat = f"good up to {value('good_k'):.2f}"
    if rules.weights_hardly_differ(dataset):
        khat = "means nothing: the weights hardly differ"
    rows = [
        ("ELBO", f"{value('elbo'):.3f} ± {value('elbo_se'):.3f}", "below the log evidence, nats"),
        (
            "log evidence",
            f"{value('log_evidence'):.3f} ± {value('log_evidence_se'):.3f}",
            "by importance sampling, nats",
        ),
        ("Pareto k-hat", f"{value('khat'):.2f}", khat),
        ("importance ESS", f"{value('importance_ess'):.0f}", f"of {value('n_draws')} draws"),
        ("modes", f"{value('n_modes')}", "with no deep valley inside"),
        ("drift", *_drift(dataset)),
        ("missing mass", *_missing(dataset)),
    ]
    if value("slow_chains") > 0:
        rows.append(("slow chains", f"{value('slow_chains'):.1%}", "their transitions often fail"))
    if value("n_nonfinite"):
        rows.append(("not finite", f"{value('n_nonfinite')}", "draws outside the support"))
    return Rows(("figure", "value", "what it says"), rows)


def _drift(dataset):
    n_transitions = dataset["n_transitions"].item()
    if not n_transitions:
        return "not looked for", "by exact transitions, in the time of a fit"
    shift, ratio = rules.drift_beyond_noise(dataset)
    noise = f"after {n_transitions} exact transitions, beyond noise"
    return f"{shift.max():.2f} sd, {ratio.max():.2f}-fold", noise


def _missing(dataset):
    missing = dataset["missing_mass"].item()
    if np.isnan(missing):
        return "not looked for", "outside it, in the time of a fit"
    n_ascents, n_reached = (dataset[n].item() for n in ("n_ascents", "n_ascents_at_modes"))
    return f"{missing:.3f}", f"outside it; {n_reached} of {n_ascents} ascents ended at a mode"


def _modes(dataset):
    columns = (dataset[n].values for n in ("mode", "mode_weight", "mode_mass", "mode_mass_se"))
    rows = [
        (str(mode), f"{weight:.3f}", f"{mass:.3f} ± {error:.3f}")
        for mode, weight, mass, error in zip(*columns, strict=True)
    ]
    return Rows(("mode", "weight", "mass, reweighted"), rows)


def _dimensions(dataset, names):
    """List the dimensions that the verdict names, and those that move the most."""
    header = ["dimension", "mean", "weighted", "sd", "weighted"]
    columns = ["mean", "mean_reweighted", "sd", "sd_reweighted"]
    shift, ratio = rules.drift_beyond_noise(dataset)
    moves = np.abs(np.nan_to_num(dataset["mean_shift"].values, posinf=0.0, neginf=0.0))
    if dataset["n_transitions"].item():
        header = ["dimension", "mean", "weighted", "moved", "sd", "weighted", "moved"]
        columns.insert(2, "transitions_mean")
        columns.append("transitions_sd")
        moves = np.maximum(shift, np.log(ratio))
    labels = [str(label) for label in dataset["unconstrained"].values]
    named = [labels.index(name) for name in dict.fromkeys(names)]
    worst = [i for i in np.argsort(-moves, kind="stable") if i not in named]
    chosen = [*named, *worst][: max(WORST, len(named))]
    short = shorten([labels[i] for i in chosen])
    rows = [
        (name, *(f"{dataset[column].values[i]:.3g}" for column in columns))
        for name, i in zip(short, chosen, strict=True)
    ]
    return Rows(tuple(header), rows)


def shorten(names, longest=LONGEST_NAME):
    """Cut the middle out of long names, except where they would become the same.

    Examples
    --------
    >>> shorten(["coefficient_of[the last one]", "tau"])
    ['coefficien…e last one]', 'tau']
    """
    head = (longest - 1) // 2

    def cut(name):
        return name if len(name) <= longest else f"{name[:head]}…{name[head + 1 - longest :]}"

    cuts = [cut(name) for name in names]
    return [
        name if cuts.count(short) > 1 else short for name, short in zip(names, cuts, strict=True)
    ]
