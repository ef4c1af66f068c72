"""Rows of the tables on the pages that users read: few figures, in words."""

import numpy as np
from results import grouped, read
from rows import peer_seconds

METHODS = {  # of the peers, as a user names them
    "isomix": "`IsoMix()`",
    "numpyro_mvn": "NumPyro, full-rank Gaussian",
    "blackjax_multipathfinder": "BlackJAX, multi-path Pathfinder",
    "pathfinder": "pymc-extras, Pathfinder",
    "advi": "`pm.fit`, ADVI",
    "fullrank_advi_adam": "`pm.fit`, full-rank ADVI with Adam",
    "nutpie": "nutpie, NUTS",
    "pymc_nuts": "`pm.sample`, NUTS",
}
REGRESSIONS = ("logearn_interaction", "kidscore_interaction", "nes", "blr")


FRONT = ("isomix", "pymc_nuts", "fullrank_advi_adam", "pathfinder", "blackjax_multipathfinder")
KINDS = ("exact", "sampled", "third")  # of models in benchmarks/verdicts.py
HIERARCHIES = ("eight_schools_centered", "eight_schools_noncentered")
SEVERAL_MODES = ("planted", "two labels", "two squares")


def _posteriordb(names=None):
    fits = read("accuracy_posteriordb")["fits"]
    return [fit for fit in fits if names is None or fit["posterior"] in names]


def _range(values, form):
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def expected(_):
    """What README tells of all this."""
    fits, planted = _posteriordb(), read("accuracy_planted")["fits"]
    starts = {
        caches: _range(
            [
                row["first step"]
                for row in read("waiting")["waits"]
                if (row["method"], row["caches"]) == ("isomix", caches) and "first step" in row
            ],
            ".1f",
        )
        for caches in ("cold", "filled")
    }
    ratios = [fit["sd_ratio"] for fit in read("hierarchies")["fits"] if "sd_ratio" in fit]
    verdicts = [fit for kind in KINDS for fit in read(f"verdicts_{kind}")["fits"]]
    rows = [
        [
            "from the call to the first step, twelve models, compiled for the first time",
            f"{starts['cold']} s",
        ],
        ["the same in a later process", f"{starts['filled']} s"],
        [
            "run time of the fit, nine posteriors of posteriordb",
            f"{_range([fit['seconds'] for fit in fits], '.1f')} s",
        ],
        [
            "error of the worst parameter there, in standard deviations "
            "(exact draws: 0.03 to 0.08)",
            _range([fit["w1_max"] for fit in fits], ".2f"),
        ],
        [
            "worst ratio of a standard deviation to the truth per fit, twelve hierarchies, each "
            "written centred and non-centred",
            _range(ratios, ".2f"),
        ],
        [
            f"largest error of the mass of a mode, {len(planted)} posteriors with 3 to 5 modes",
            f"{max(fit['largest_error'] for fit in planted):.3f}",
        ],
        [
            "right verdicts on fits with a known truth, nearly half of them wrong on purpose",
            f"{sum(fit['right_verdict'] for fit in verdicts)} of {len(verdicts)}",
        ],
    ]
    return ["", ""], rows


def which_method(_):
    """A problem, what to try first, and why."""
    regressions = _posteriordb(REGRESSIONS)
    planted = [fit["largest_error"] for fit in read("accuracy_planted")["fits"]]
    ratios = [fit["sd_ratio"] for fit in read("hierarchies")["fits"] if "sd_ratio" in fit]
    runs = grouped(read("nuts")["runs"], ("model", "start", "tune"))
    ours, theirs = (
        np.median([run["ess_per_thousand"] for run in runs["AR(1), .99, d = 200", start, tune]])
        for start, tune in (("nuts_init", 200), ("PyMC", 1000))
    )
    cases = grouped(read("scaling")["cases"], ("varied", "size"))
    few, many = (cases["minibatch", rows][0]["step_ms"] for rows in (1000, 1_000_000))
    wide = cases["dimensions", 100_000][0]["step_ms"]
    nuts = {r["way"]: r for r in read("nuts_in_coordinates")["runs"] if r["model"] == "horseshoe"}
    here, there = (nuts[way] for way in ("in the fit's coordinates", "non-centred"))
    rows = [
        [
            "regression, one mode, up to some hundreds of parameters",
            "`IsoMix()` for speed, NUTS for exact draws",
            f"worst parameter off by {max(f['w1_max'] for f in regressions):.2f} sd, after "
            f"{_range([f['seconds'] for f in regressions], '.1f')} s",
        ],
        [
            "several modes",
            '`IsoMix(init="prior")`; a NUTS chain stays in one mode',
            f"largest error of a mass {max(planted):.3f} in {len(planted)} fits",
        ],
        [
            "hierarchy, random walk, Gaussian process",
            "`IsoMix()`, with either parametrisation; NUTS where it is fast",
            f"worst ratio of standard deviations per fit: {_range(ratios, '.2f')}",
        ],
        [
            "NUTS is slow: strong correlations",
            "`approx.sample_nuts()` or `nuts_init`",
            f"{ours:.0f} effective draws per thousand gradients; PyMC's start: {theirs:.2f}",
        ],
        [
            "a million rows",
            "`IsoMix()` with `pm.Minibatch`",
            f"{few:.2f} ms per step at a thousand rows, {many:.2f} at a million",
        ],
        [
            "10 000 parameters or more",
            "`IsoMix(10)`: diagonal metric",
            f"{wide:.0f} ms per step at 100 000",
        ],
        [
            "NUTS diverges: horseshoe, funnel",
            "`IsoMix()`, then `approx.sample_nuts()`",
            f"{here['divergences']} divergences in 4000 draws of a horseshoe; "
            f"non-centred NUTS: {there['divergences']}",
        ],
        ["discrete variables", "`pm.sample`", "refused"],
        ["the result has to be exact", "NUTS", "`approx.nuts_init()` shortens its tuning"],
    ]
    return ["your problem", "try first", "measured"], rows


def front(_):
    """Seconds from the call to an accurate result, and where each method gets there."""
    result, rows = read("peers"), []
    goal = result["settings"]["goal"]
    for method in FRONT:
        reached, totals = {}, []
        for (posterior, found), records in grouped(
            result["records"], ("posterior", "method")
        ).items():
            if found != method:
                continue
            seconds = peer_seconds(records, goal)
            kind = "hierarchies" if posterior in HIERARCHIES else "one mode"
            kind = "several modes" if posterior in SEVERAL_MODES else kind
            reached.setdefault(kind, []).append(bool(np.isfinite(seconds)))
            if np.isfinite(seconds):
                totals.append(seconds + np.median([r["compile"] for r in records]))
        counts = [
            f"{sum(reached[kind])} of {len(reached[kind])}"
            for kind in ("one mode", "hierarchies", "several modes")
        ]
        rows.append([METHODS[method], _range(totals, ".1f") if totals else "", *counts])
    return ["method", "s, with compilation", "one mode", "hierarchies", "several modes"], rows


def which_seconds(_):
    """Compilation, run time to the goal, and how often the goal is reached."""
    result, rows = read("peers"), []
    found = grouped(result["records"], ("method",))
    for method, name in METHODS.items():
        records = found[method,]
        compilation = np.median([r["compile"] for r in records if "compile" in r])
        of_posteriors = grouped(records, ("posterior",)).values()
        seconds = np.array([peer_seconds(of, result["settings"]["goal"]) for of in of_posteriors])
        reached = seconds[np.isfinite(seconds)]
        run = _range(reached, ".1f") if len(reached) else ""
        rows.append([name, f"{compilation:.1f}", run, f"{len(reached)} of {len(seconds)}"])
    return ["method", "compile, s", "run, s", "posteriors where reached"], rows


def verdict_counts(_):
    """How many fits got each verdict, and how many of them are wrong."""
    rows, every = [], [fit for kind in KINDS for fit in read(f"verdicts_{kind}")["fits"]]
    for verdict in ("good", "doubtful", "bad"):
        fits = [fit for fit in every if fit["verdict"] == verdict]
        ratios, shifts = ([fit[key] for fit in fits] for key in ("ratio", "shift"))
        right = sum(fit["right_verdict"] for fit in fits)
        errors = (_range(ratios, ".2f"), _range(shifts, ".2f")) if fits else ("", "")
        rows.append([verdict, len(fits), *errors, f"{right} of {len(fits)}"])
    headings = ["verdict", "fits", "worst ratio of standard deviations"]
    return [*headings, "worst shift of a mean, sd", "right"], rows


def shapes_short(result):
    """Error of a mass by shapes, for both kinds of components."""
    targets = {
        "two places, deviations 1 and .05": "two dimensions, twentyfold in size",
        "d = 10, crosswise": "ten dimensions, crosswise",
        "d = 10, 1 and .05 by turns": "ten dimensions, one narrow in half of them",
    }
    found, rows = grouped(result["fits"], ("target", "variances")), []
    for target, name in targets.items():
        errors = (
            np.median([fit["mass_error"] for fit in found[target, kind]])
            for kind in ("isotropic", "diagonal")
        )
        rows.append([name, *(f"{error:.3f}" for error in errors)])
    return ["modes", "isotropic", "diagonal"], rows


def metric_short(result):
    """Distance of circles and of the default by the number of components."""
    target = "breast cancer, logistic"
    circles = {r["K"]: r["median"] for r in result["runs"]
               if r["target"] == target and r["variant"] == "mirror"}  # fmt: skip
    default = {r["K"]: r["median"] for r in result["default"] if r["target"] == target}
    rows = [[k, f"{circles[k]:.1f}", f"{default[k]:.2f}"] for k in circles]
    return ["components", "circles", "one metric"], rows


def scaling_short(result):
    """A few sizes."""
    shown = (
        ("dense", 100, "dense"),
        ("dense", 500, "dense"),
        ("dimensions", 1000, "diagonal"),
        ("dimensions", 10_000, "diagonal"),
        ("dimensions", 100_000, "diagonal"),
    )
    found, rows = grouped(result["cases"], ("varied", "size")), []
    for varied, size, metric in shown:
        case = found[varied, size][0]
        cost = f"{case['step_ms']:.1f}", f"{case['peak_mib']:.0f}"
        rows.append([f"{size:,}", metric, case["K"], *cost])
    return ["parameters", "metric", "components", "ms per step", "MiB"], rows
