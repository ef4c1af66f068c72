"""Rows of the tables of published models: ours beside nutpie, and what fails."""

import json

import numpy as np
from results import RESULTS

# when nutpie's draws are taken for the posterior
RHAT, DIVERGENCES, ESS = 1.02, 10, 200
# goals of a fit, and from where it is wrong; 90 % widths as factors
W1, WIDTH, WRONG_W1, WRONG_WIDTH = 0.12, 1.10, 0.25, 1.25

# kinds of failures that are known, and what a user does beside the advice
LABELS = "labels of components swap, in more ways than a fit finds", "run NUTS, compare densities"
JOINT = (
    "effects with a free covariance, of which the data tell jointly or through free loadings",
    "`approx.sample_nuts()`",
)
CUBIC = "a gradient of a process at so many points takes 10 to 30 ms", "use `pm.gp.HSGP`"
FREE = "signs or rotations are free; chains of NUTS do not agree either", "fix a sign, or order"
VAGUE = "a prior leaves a scale without bounds, up to where the density has no end", "tighten it"
KINDS = {
    "bym, new york": ("1921 areas, two effects of each that only data tell apart", "run NUTS"),
    "hierarchical bvar": (
        "243 dimensions in eight models of one graph",
        "more time; NUTS needs it, too",
    ),
    "matrix factorisation": ("2500 factors, which may rotate: no dense metric", "run NUTS"),
    **dict.fromkeys(("gp classification", "log-gaussian cox process"), CUBIC),
    **dict.fromkeys(("sem", "hierarchical logit", "growth of latent scores"), JOINT),
    **dict.fromkeys(("factor analysis", "factor analysis, integrated"), FREE),
    **dict.fromkeys(("cox", "cox, effect that varies in time", "kidney frailty"), VAGUE),
    **dict.fromkeys(
        (
            "dirichlet process, old faithful",
            "dirichlet process, sunspots",
            "dependent density",
        ),
        LABELS,
    ),
}


def references():
    """What nutpie left, by model, without the quantiles."""
    found = {}
    for path in sorted((RESULTS / "published").glob("*.json")):
        record = json.loads(path.read_text())
        record.pop("quantities", None)
        found[record["model"]] = record
    return found


def converged(reference):
    """Whether nutpie's draws are a reference."""
    return (
        reference.get("rhat", np.inf) <= RHAT
        and reference["divergences"] < DIVERGENCES
        and reference["ess"] >= ESS
    )


def within(width, factor):
    """Whether a ratio is one up to a factor."""
    return 1 / factor <= width <= factor


def wrong(fit):
    """Whether a fit is far from its reference."""
    return fit["w1_max"] > WRONG_W1 or not within(fit["width"], WRONG_WIDTH)


def good_enough(fit):
    """Whether a fit reaches the goals."""
    return fit["w1_max"] <= W1 and within(fit["width"], WIDTH)


def pairs(result):
    """Fits with nutpie's record, in the order of groups; the latter empty where it has not run."""
    beside = references()
    order = {
        group: place
        for place, group in enumerate(dict.fromkeys(f["group"] for f in result["fits"]))
    }
    fits = sorted(result["fits"], key=lambda fit: order[fit["group"]])
    return [(fit, beside.get(fit["model"], {})) for fit in fits]


def cell(record, key, form):
    """A number as text, empty where there is none."""
    return form.format(record[key]) if record.get(key) is not None else ""


def published(result):
    """A row for each model that was run."""
    rows = []
    for fit, nuts in pairs(result):
        distance = [cell(fit, "w1_median", "{:.2f}"), cell(fit, "w1_max", "{:.2f}")]
        rows.append(
            [
                fit["group"],
                fit["model"] + ("" if fit.get("commit") else " *"),
                fit.get("d") or nuts.get("d", ""),
                *distance,
                cell(fit, "width", "{:.2f}"),
                fit.get("verdict", "failed"),
                cell(fit, "gradients", "{:,.0f}"),
                cell(fit, "seconds", "{:.0f}"),
                cell(fit, "cpu", "{:.0f}"),
                "failed" if "error" in nuts else cell(nuts, "rhat", "{:.2f}"),
                cell(nuts, "divergences", "{}"),
                cell(nuts, "seconds", "{:.0f}"),
                cell(nuts, "cpu", "{:.0f}"),
            ]
        )
    headings = ["group", "model", "d", "W1 median", "W1 max", "90 % width", "verdict", "gradients"]
    headings += ["s", "processor s"]
    headings += [f"nutpie's {name}" for name in ("R-hat", "divergences", "s", "processor s")]
    return headings, rows


def share(count, total):
    """Count and percentage."""
    return f"{count} of {total}" + (f" ({100 * count / total:.0f} %)" if total else "")


def summary(result):
    """The figures that the models were run for."""
    both = pairs(result)
    ended = [fit for fit, _ in both if "verdict" in fit]
    due = [fit for fit, nuts in both if nuts and converged(nuts)]
    known = [fit for fit in due if "w1_max" in fit]
    right = [fit for fit in known if (fit["verdict"] == "good") != wrong(fit)]
    timed = [(fit, nuts) for fit, nuts in both if "verdict" in fit and "cpu" in nuts]
    faster = sum(fit["cpu"] < nuts["cpu"] for fit, nuts in timed)
    counts = {
        "models that run to a verdict": share(len(ended), len(both)),
        "nutpie converges": share(len(due), len([n for _, n in both if n])),
        f"W1 max at most {W1}": share(sum(fit["w1_max"] <= W1 for fit in known), len(due)),
        "every 90 % width within 10 %": share(
            sum(within(fit["width"], WIDTH) for fit in known), len(due)
        ),
        "the verdict is right": share(len(right), len(known)),
        "fewer processor seconds than nutpie": share(faster, len(timed)),
    }
    return ["", ""], [[name, value] for name, value in counts.items()]


def failures(result):
    """What did not go as it should, with the reason and a way out."""
    rows = []
    for fit, nuts in pairs(result):
        name = f"{fit['model']} ({fit['group']})"
        why, way_out = KINDS.get(fit["model"], ("", "as advised, or run NUTS"))
        why = f"{why[:1].upper()}{why[1:]}. " if why else ""
        if "error" in fit:
            rows.append([name, "no verdict", plain(why + fit["error"]), way_out])
        elif fit["verdict"] != "good":
            rows.append([name, fit["verdict"], plain(why + fit["advice"]), way_out])
        elif "w1_max" in fit and converged(nuts) and not good_enough(fit):
            off = "W1 {w1_max:.2f} of {w1_of}, width {width:.2f} of {width_of}".format_map(fit)
            verdict = "good, but wrong" if wrong(fit) else "good, beside the goal"
            way_out = "`approx.sample(transitions=20)`, or NUTS to compare"
            rows.append([name, verdict, plain(why + off), way_out])
    return ["model", "verdict", "reason", "what to do"], rows


def plain(text):
    """Text that fits a cell of a table."""
    return " ".join(text.replace("|", "/").split())[:240]
