"""A fit in words: the line that ends it, and its diagnostics as a rich table."""

import io

import numpy as np
from rich.console import Console
from rich.table import Table

WORST = 5  # dimensions listed, by the shift of their mean
WIDTH = 88


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
    elbo, khat, good_k, n_modes = (figures[n].item() for n in ("elbo", "khat", "good_k", "n_modes"))
    modes = "1 mode" if n_modes == 1 else f"{n_modes} modes"
    return f"ELBO {elbo:.2f}, Pareto k-hat {khat:.2f} (good up to {good_k:.2f}), {modes}."


def render(dataset, verdict, advice):
    """Render diagnostics as text: figures, modes, the dimensions that reweighting moves most."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, force_terminal=False)
    console.print(f"Verdict: {verdict}. {advice}", markup=False)
    console.print(_figures(dataset))
    if dataset.sizes["mode"] > 1:
        console.print(_modes(dataset))
    console.print(_dimensions(dataset))
    return text.getvalue().rstrip("\n")


def _figures(dataset):
    def value(name):
        return dataset[name].item()

    table = Table("figure", "value", "what it says")
    table.add_row(
        "ELBO", f"{value('elbo'):.3f} ± {value('elbo_se'):.3f}", "below the log evidence, nats"
    )
    table.add_row(
        "log evidence",
        f"{value('log_evidence'):.3f} ± {value('log_evidence_se'):.3f}",
        "by importance sampling, nats",
    )
    table.add_row("Pareto k-hat", f"{value('khat'):.2f}", f"good up to {value('good_k'):.2f}")
    table.add_row(
        "importance ESS", f"{value('importance_ess'):.0f}", f"of {value('n_draws')} draws"
    )
    table.add_row("modes", f"{value('n_modes')}", "with no deep valley inside")
    missing = value("missing_mass")
    table.add_row(
        "missing mass",
        "not looked for" if np.isnan(missing) else f"{missing:.3f}",
        "found outside the approximation",
    )
    if value("n_nonfinite"):
        table.add_row("not finite", f"{value('n_nonfinite')}", "draws outside the support")
    return table


def _modes(dataset):
    table = Table("mode", "weight", "mass, reweighted")
    rows = zip(
        *(dataset[n].values for n in ("mode", "mode_weight", "mode_mass", "mode_mass_se")),
        strict=True,
    )
    for mode, weight, mass, error in rows:
        table.add_row(str(mode), f"{weight:.3f}", f"{mass:.3f} ± {error:.3f}")
    return table


def _dimensions(dataset):
    table = Table("dimension", "mean", "reweighted", "shift, se", "sd", "reweighted")
    order = np.argsort(-np.abs(np.nan_to_num(dataset["mean_shift"].values)), kind="stable")[:WORST]
    names = ("mean", "mean_reweighted", "mean_shift", "sd", "sd_reweighted")
    for i in order:
        figures = (f"{dataset[name].values[i]:.3g}" for name in names)
        table.add_row(str(dataset["unconstrained"].values[i]), *figures)
    return table
