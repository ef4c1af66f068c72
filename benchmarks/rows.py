"""Rows of the tables that are more than a listing of records."""

from collections import Counter

import numpy as np
from results import RESULTS, grouped, read, summary

PEERS = {  # tables, and the methods in them
    "mixture": ("isomix", "numpyro_mvn", "blackjax_fullrank"),
    "pathfinder": ("blackjax_multipathfinder", "pathfinder"),
    "advi": ("advi", "advi_adam", "fullrank_advi", "fullrank_advi_adam"),
    "particles": ("numpyro_stein", "svgd", "svgd_adam"),
    "samplers": ("nutpie", "pymc_nuts"),
}
LARGEST_RHAT = 1.02  # of a reference
LONGEST = 22.0  # seconds of a run that a budget of 20 may take


def environments(_):
    """When each result was measured, and with what."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        content = read(path.stem)
        here = content["environment"]
        versions = [here["packages"].get(name) for name in ("pymc", "pytensor", "jax")]
        rows.append([f"`{path.stem}`", content["date"], *versions, here["cores"]])
    return ["result", "date", "PyMC", "PyTensor", "JAX", "cores"], rows


def paper(*variants, digits=2):
    """Medians by variant, beside what the authors' code reaches."""

    def make(result):
        authors, rows = result["settings"]["authors"], []
        runs = [*result["runs"], *({"variant": "default", **r} for r in result.get("default", []))]
        for (target, k), records in grouped(runs, ("target", "K")).items():
            medians = {r["variant"]: f"{r['median']:.{digits}f}" for r in records}
            published = authors[target][str(k)]
            cells = ["" if published is None else published, *(medians[v] for v in variants)]
            rows.append([target, k, *cells])
        labels = ["`IsoMix(K)`" if v == "default" else v for v in variants]
        return ["target", "K", "authors", *labels], rows

    return make


def significant(value):
    """Two digits, no exponent."""
    if not np.isfinite(value):
        return "∞"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def peer_seconds(records, goal):
    """Median over seeds of the seconds to the goal, infinite where it is not reached."""
    reached = [
        min((c["seconds"] for c in r["checkpoints"] if c["w1_median"] <= goal), default=np.inf)
        for r in records
        if r["checkpoints"]
    ]
    return np.median(reached) if reached else np.inf


def peer_cell(records, goal):
    """Seconds to the goal and, in brackets, W1 median/max at the end; medians over seeds."""
    seconds = peer_seconds(records, goal)
    records = [r["checkpoints"] for r in records if r["checkpoints"]]
    if not records:
        return ""
    # a sampler has one checkpoint only, however late
    within = [[c for c in points if c["seconds"] <= LONGEST] or points for points in records]
    ends = [max(points, key=lambda c: c["seconds"]) for points in within]
    w1 = [significant(np.median([c[key] for c in ends])) for key in ("w1_median", "w1_max")]
    return f"{'-' if np.isinf(seconds) else f'{seconds:.1f}'} ({'/'.join(w1)})"


def peers(methods):
    """A column a method."""

    def make(result):
        goal, rows = result["settings"]["goal"], []
        for (posterior,), records in grouped(result["records"], ("posterior",)).items():
            by_method = {m: [r for r in records if r["method"] == m] for m in methods}
            rows.append([posterior, *(peer_cell(found, goal) for found in by_method.values())])
        return ["posterior", *(f"`{method}`" for method in methods)], rows

    return make


def peers_compilation(result):
    """Seconds of compilation by method, over posteriors and seeds."""
    rows = []
    for (method,), records in grouped(result["records"], ("method",)).items():
        seconds = [r["compile"] for r in records if "compile" in r]
        quantiles = (min(seconds), np.median(seconds), max(seconds))
        rows.append([f"`{method}`", *(f"{value:.1f}" for value in quantiles)])
    return ["method", "least", "median", "most"], rows


def confusion(result):
    """How many verdicts of each kind right and wrong fits got, and how many verdicts are wrong."""
    kinds, rows, fits = ("good", "doubtful", "bad"), [], result["fits"]
    for wrong in (False, True):
        given = [fit["verdict"] for fit in fits if fit["wrong"] == wrong]
        rows.append(["wrong" if wrong else "right", *(str(given.count(kind)) for kind in kinds)])
    wrong_good = sum(fit["wrong"] and fit["verdict"] == "good" for fit in fits)
    agree = sum(fit["right_verdict"] for fit in fits)
    alarms = len(fits) - agree - wrong_good
    return ["fits", *(f'"{kind}"' for kind in kinds)], [
        *rows,
        [f"**{agree} of {len(fits)} verdicts right**", *[""] * 3],
        ['"good" though wrong (at most 1 per 100 asked)', str(wrong_good), "", ""],
        ["not good though right (at most 3 per 100 asked)", str(alarms), "", ""],
        *[[f"no fit, but an error: {f['case']}", *[""] * 3] for f in result.get("failures", [])],
    ]


def wrong_verdicts(result):
    """Each fit whose verdict is wrong, and what the verdict had to go by."""
    rows = [
        [
            fit["case"],
            "wrong" if fit["wrong"] else "right",
            fit["verdict"],
            *(f"{fit.get(key, np.nan):.2f}" for key in ("ratio", "shift", "width", "w1")),
            f"{fit['khat']:.2f}",
            f"{fit['gap']:.2f}",
            f"{fit['drift']:.2f} ± {fit['drift_se']:.2f}",
            f"{fit['missing']:.2f}",
        ]
        for fit in result["fits"]
        if not fit["right_verdict"]
    ]
    headings = ["fit", "it is", "verdict", "worst ratio of sds", "shift of a mean"]
    headings += ["worst ratio of 90 % widths", "W1 max", "k-hat", "gap, nats", "drift"]
    return [*headings, "missing mass"], rows


def hierarchies(result):
    """Median over seeds of KL and evidence; the worst seed's worst quantity."""
    own = {"KL": "{kl:.2f}", "evidence": "{log_evidence:.2f}"}
    own |= {"k-hat": "{khat:.2f} ({khat_worst:.2f})", "verdicts": "{verdict_all}"}
    if any("rhat" in fit for fit in result["fits"]):
        own = {"R-hat": "{rhat_worst:.2f}", "divergences": "{divergences_sum}"}
    rows = []
    for key, fits in grouped(result["fits"], ("model", "written")).items():
        done = [fit for fit in fits if "error" not in fit]
        failed = f", {len(fits) - len(done)} failed" if len(done) < len(fits) else ""
        row = [*key[:1], key[1] + failed, *[""] * (len(own) + 3)]
        if done:
            worst = max(done, key=lambda fit: fit["log_sd_ratio"])
            furthest = max(done, key=lambda fit: fit["w1_max"])
            row[2:] = [cell.format_map(summary(done)) for cell in (*own.values(), "{seconds:.1f}")]
            row[-1:-1] = [
                f"{worst['sd_ratio']:.2f} {worst['sd_of']}",
                f"{furthest['w1_max']:.2f} {furthest['w1_of']}",
            ]
        rows.append(row)
    return ["model", "written", *own, "worst ratio of sds", "largest W1", "s"], rows


def chains(result):
    """The worst seed's worst quantity of each chain, and medians of costs."""
    rows = []
    for (chain,), fits in grouped(result["fits"], ("chain",)).items():
        worst = max(fits, key=lambda fit: fit["width"])
        furthest = max(fits, key=lambda fit: fit["w1_max"])
        cells = (
            "{n_dim:.0f}",
            "{verdict_all}",
            "{gradients:,.0f}",
            "{fit_s:.0f}",
            "{diagnostics_s:.0f}",
        )
        d, *costs = (cell.format_map(summary(fits)) for cell in cells)
        accuracy = (
            f"{worst['ratio']:.2f} {worst['width_of']}",
            f"{furthest['w1_max']:.2f} {furthest['w1_of']}",
        )
        rows.append([chain, d, *accuracy, *costs])
    headings = ["chain", "d", "worst ratio of 90 % widths", "largest W1", "verdicts", "gradients"]
    return [*headings, "fit, s", "diagnostics, s"], rows


def ensembles(result):
    """Modes, masses and ELBO by the number of restarts; medians over seeds."""
    rows = []
    for (target, restarts), records in grouped(result["fits"], ("target", "restarts")).items():
        median = {
            key: np.median([record[key] for record in records])
            for key in ("elbo", "log_evidence", "best_single", "components", "seconds", "n_modes")
        }
        found, masses = f"{median['n_modes']:.0f}, of unknown number", "unknown"
        if "found" in records[0]:
            found = ", ".join(str(record["found"]) for record in records)
            found = f"{found} of {records[0]['modes']}"
            masses = ", ".join(f"{record['mass_error']:.3f}" for record in records)
        rows.append(
            [
                target,
                restarts,
                found,
                masses,
                f"{median['elbo']:.2f}",
                f"{median['best_single']:.2f}",
                f"{median['components']:.0f}",
                f"{median['seconds']:.0f}",
            ]
        )
    headings = ["posterior", "restarts", "modes found", "mass in the wrong place", "ELBO, joined"]
    return [*headings, "of the best fit alone", "components", "s"], rows


def ensembles_short(result):
    """Modes found, and the mass in the wrong place, by restarts; where masses are known."""
    known = [record for record in result["fits"] if "found" in record]
    restarts = sorted({record["restarts"] for record in known})
    rows = []
    for (target,), records in grouped(known, ("target",)).items():
        cells = []
        for n in restarts:
            own = [record for record in records if record["restarts"] == n]
            found = min(record["found"] for record in own)
            wrong = max(record["mass_error"] for record in own)
            cells.append(f"{found} ({wrong:.2f})")
        rows.append([target, records[0]["modes"], *cells])
    return ["posterior", "modes", "1 restart", *map(str, restarts[1:])], rows


PARTS = ("import PyMC", "import", "import JAX", "building", "rewriting", "tracing", "XLA", "run")
PARTS += ("closing line", "sample", "diagnostics")
WAITS = {"isomix": "`IsoMix()`", "advi": "ADVI", "nuts": "PyMC's NUTS", "nutpie": "nutpie"}
WAITS |= {"numpyro": "NumPyro"}
SAMPLERS = ("nuts", "nutpie")  # whose faster one ours is measured by


def waiting(result):
    """Where the seconds of a default fit go."""
    ours = [record for record in result["waits"] if record["method"] == "isomix"]
    rows = [
        [r["model"], r["caches"], *(f"{r[p]:.2f}" if p in r else "" for p in (*PARTS, "total"))]
        for r in ours
    ]
    return ["model", "caches", *PARTS, "total"], rows


def waiting_methods(result):
    """Seconds in all by method and, in brackets, W1 max; ratios to the best of the others."""
    rows = []
    for (model, caches), records in grouped(result["waits"], ("model", "caches")).items():
        by_method = {record["method"]: record for record in records}
        cells = []
        for record in map(by_method.get, WAITS):
            distance = f" ({record['w1_max']:.2f})" if record and "w1_max" in record else ""
            cells.append(f"{record['total']:.1f}{distance}" if record else "")
        total, first = (
            {m: record[part] for m, record in by_method.items() if part in record}
            for part in ("total", "first step")
        )
        others = [total[m] for m in SAMPLERS if m in total]
        ratio = f"{total['isomix'] / min(others):.2f}" if others and "isomix" in total else ""
        start = f"{first['isomix'] / first['advi']:.2f}" if len(first) == 2 else ""
        repeats = by_method.get("isomix", records[0]).get("repeats", 1)
        rows.append([model, caches, repeats, *cells, ratio, start])
    headings = ["model", "caches", "repeats", *WAITS.values(), "ours / faster NUTS"]
    return [*headings, "first step / ADVI's"], rows


def large(result):
    """A row per design: nutpie once, and our seeds beside it, the median and the worst of them."""
    headings = ["design", "d", "nutpie, processor s", "R-hat", "ours, processor s", "ratio"]
    headings += ["gradients", "W1 max", "worst 90 % width", "k-hat", "verdicts"]
    rows = []
    for (design,), fits in grouped(result["fits"], ("design",)).items():
        nuts, ours = ([fit for fit in fits if fit["method"] == m] for m in ("nutpie", "isomix"))
        if not (nuts and ours):
            continue
        [nuts] = nuts
        cpu, gradients, khat = (
            np.median([fit[key] for fit in ours]) for key in ("cpu", "gradients", "khat")
        )
        width = max((fit["width"] for fit in ours), key=lambda ratio: abs(np.log(ratio)))
        verdicts = Counter(fit["verdict"] for fit in ours).most_common()
        is_reference = nuts["rhat"] < LARGEST_RHAT
        rows.append(
            [
                design,
                nuts["d"],
                f"{nuts['cpu']:.0f}",
                f"{nuts['rhat']:.3f}",
                f"{cpu:.0f}",
                f"{cpu / nuts['cpu']:.2f}",
                f"{gradients:,.0f}",
                f"{max(fit['w1_max'] for fit in ours):.2f}" if is_reference else "",
                f"{width:.2f}" if is_reference else "",
                f"{khat:.2f}",
                ", ".join(f"{n} {verdict}" for verdict, n in verdicts),
            ]
        )
    return headings, rows
