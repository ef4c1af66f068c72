"""The tables of README.md and the pages in docs/, written from the benchmarks' JSON.

    python benchmarks/tables.py            # writes them
    python benchmarks/tables.py --check    # says what differs, and fails

A page has ``<!-- table: name -->`` and ``<!-- end -->``; what lies between is written here, so that
page and JSON cannot disagree.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

import guide
import published_rows
import rows
from results import Computed, Listing, markdown

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
STACKED = ("which-method",)  # of words: on a telephone a row becomes a block
COST = " | run, s {seconds:.1f} ({seconds_worst:.1f}) | steps {steps:,.0f}"
MASSES = " | largest error of a mass {largest_error:.3f} ({largest_error_worst:.3f})" + COST
CALIBRATION = (
    "transitions {transitions} | parameter {parameter}"
    " | in the 50 % interval {within_50:.2f} ± {within_50_se:.2f}"
    " | in the 90 % one {within_90:.2f} ± {within_90_se:.2f} | inside the band {inside_band}"
    " | data sets {n}"
)
VERDICT = (
    "fit {case} | worst ratio of sds {ratio:.2f} | shift of a mean {shift:.2f}"
    " | W1 max {w1:.2f} | after 20 transitions {w1_moved:.2f} | verdict {verdict_all}"
    " | drift {drift:.2f} ± {drift_se:.2f} | k-hat {khat:.2f} | fit, s {fit_s:.1f}"
    " | diagnostics, s {diagnostics_s:.1f}"
)
VERDICTS = tuple(f"verdicts_{kind}" for kind in guide.KINDS)

BLOCKS = {
    "expected": Computed(
        "accuracy_planted",
        guide.expected,
        ("accuracy_posteriordb", "hierarchies", "waiting", *VERDICTS),
    ),
    "front": Computed("peers", guide.front),
    "which-method": Computed(
        "accuracy_posteriordb",
        guide.which_method,
        ("accuracy_planted", "hierarchies", "nuts", "nuts_in_coordinates", "scaling"),
    ),
    "which-seconds": Computed("peers", guide.which_seconds),
    "verdict-counts": Computed(VERDICTS[0], guide.verdict_counts, VERDICTS[1:]),
    "planted-short": Listing(
        "accuracy_planted",
        "fits",
        "problem",
        "planted {problem} | largest error of a mass"
        " {largest_error:.3f} ({largest_error_worst:.3f})",
    ),
    "shapes-short": Computed("shapes", guide.shapes_short),
    "metric-short": Computed("paper_regressions", guide.metric_short),
    "scaling-short": Computed("scaling", guide.scaling_short),
    "environments": Computed("accuracy_posteriordb", rows.environments),
    "posteriordb": Listing(
        "accuracy_posteriordb",
        "fits",
        "posterior",
        "posterior {posterior} | d {n_dim:.0f} | W1 median {w1_median:.2f} ({w1_median_worst:.2f})"
        " | W1 max {w1_max:.2f} ({w1_max_worst:.2f}) | KL {kl:.3f} ({kl_worst:.3f})"
        " | k-hat {khat:.2f} ({khat_worst:.2f})" + COST,
    ),
    "models": Listing(
        "accuracy_models",
        "fits",
        "model",
        "model {model} | d {n_dim:.0f} | log density at the start {start:.0e} | KL {kl:.2g}"
        " | k-hat {khat:.2f}" + COST,
    ),
    "planted": Listing("accuracy_planted", "fits", "problem", "modes {problem}" + MASSES),
    "sinusoids": Listing(
        "accuracy_sinusoids", "fits", "problem", "sinusoid {problem} | masses {masses}" + MASSES
    ),
    "shapes": Listing(
        "shapes",
        "fits",
        "target variances",
        "modes {target} | component_variances {variances} | KL {kl:.4f} ({kl_worst:.4f})"
        " | error of a mass {mass_error:.3f} ({mass_error_worst:.3f}) | run, s {seconds:.1f}"
        " | steps {steps:,.0f}",
    ),
    "paper-targets": Computed(
        "paper_targets",
        rows.paper("mirror", "bures", "mirror, shared", "bures, shared", "fixed", digits=4),
    ),
    "paper-regressions": Computed("paper_regressions", rows.paper("mirror", "bures", "default")),
    **{
        f"peers-{kind}": Computed("peers", rows.peers(methods))
        for kind, methods in rows.PEERS.items()
    },
    "peers-compilation": Computed("peers", rows.peers_compilation),
    **{
        name: block
        for kind in guide.KINDS
        for name, block in (
            (f"confusion-{kind}", Computed(f"verdicts_{kind}", rows.confusion)),
            (f"verdicts-{kind}", Listing(f"verdicts_{kind}", "fits", "case", VERDICT)),
        )
    },
    "wrong-verdicts-sampled": Computed("verdicts_sampled", rows.wrong_verdicts),
    "chains": Computed("chains", rows.chains),
    "large": Computed("large", rows.large),
    "nuts-in-coordinates": Listing(
        "nuts_in_coordinates",
        "runs",
        "model way",
        "model {model} | NUTS {way} | divergences {divergences} | R-hat {rhat:.2f} | ESS {ess:,.0f}"
        " | gradients per effective draw {gradients_per_draw:,.1f} | s {seconds:.1f}",
    ),
    "calibration": Listing("calibration", "records", "transitions parameter", CALIBRATION),
    "ensembles": Computed("ensembles_modes", rows.ensembles),
    "ensembles-short": Computed("ensembles_modes", rows.ensembles_short),
    "ensembles-workers": Listing(
        "ensembles_workers",
        "fits",
        "n_jobs restarts",
        "workers {n_jobs} | restarts {restarts} | wall, s {seconds:.1f}"
        " | running, of all, s {run_seconds:.1f} | compiling, s {compile_seconds:.1f}"
        " | joining, s {join_seconds:.1f}",
    ),
    "ensembles-join": Listing(
        "ensembles_join",
        "cases",
        "fits n_dim",
        "fits {fits} | components of each {components} | d {n_dim:,} | fits kept {kept}"
        " | join, s {seconds:.1f} | MiB {mib:,.0f}"
        " | log q of all at 1000 points, s {evaluation_seconds:.2f}",
    ),
    "ensembles-data-sets": Listing(
        "ensembles_calibration",
        "timings",
        "n_jobs n",
        "workers {n_jobs} | data sets {n} | s {seconds:.0f} | data sets per second {a_second:.1f}",
    ),
    "ensembles-calibration": Listing(
        "ensembles_calibration",
        "records",
        "parameter",
        CALIBRATION.partition(" | ")[2],
    ),
    "hierarchies": Computed("hierarchies", rows.hierarchies),
    "hierarchies-nuts": Computed("hierarchies_nuts", rows.hierarchies),
    "hierarchies-sbc": Listing("hierarchies_sbc", "records", "transitions parameter", CALIBRATION),
    "hierarchies-scaling": Listing(
        "hierarchies_scaling",
        "cases",
        "groups method written",
        "groups {groups:,} | method {method} | written {written} | s {seconds:.0f}"
        " | MiB {peak_mib:.0f} | tau: off in sds {tau_shift:.2f} | ratio of sds {tau_ratio:.2f}"
        " | sigma: {sigma_shift:.2f} | ratio {sigma_ratio:.2f}",
    ),
    "nuts": Listing(
        "nuts",
        "runs",
        "model start tune",
        "model {model} | start {start} | tune {tune:.0f} | divergences {divergences_sum}"
        " | R-hat {rhat_worst:.2f} | gradients, tuning {tuning_gradients:,.0f}"
        " | draws {gradients:,.0f} | ESS (in chains) {ess:.0f} ({ess_in_chains:.0f})"
        " | per thousand gradients {ess_per_thousand:.2f} | share {share_all}",
    ),
    "published": Computed("published", published_rows.published),
    "published-summary": Computed("published", published_rows.summary),
    "published-failures": Computed("published", published_rows.failures),
    "waiting": Computed("waiting", rows.waiting),
    "waiting-methods": Computed("waiting", rows.waiting_methods),
    "cold-start": Listing(
        "cold_start",
        "seconds",
        "backend posterior",
        "backend {backend} | posterior {posterior} | ADVI {advi_median:.1f}"
        " | `IsoMix()` {isomix_median:.1f} | ratio {ratio:.2f}",
    ),
    "step-time": Listing(
        "step_time",
        "time",
        "backend model K",
        "backend {backend} | model {model} | K x B {K} x {B} | JAX alone, µs {reference_us:.0f}"
        " | batched {batched_ratio:.2f} | paper {paper_ratio:.2f} | `IsoMix()` {default_ratio:.2f}",
    ),
    "scaling": Listing(
        "scaling",
        "cases",
        "varied K size",
        "varied {varied} | K {K:,} | d or rows {size:,} | ms per step {step_ms:.2f}"
        " | slope {slope} | compile, s {compile_s:.1f} | MiB {peak_mib:.0f}",
    ),
}


def show(source):
    """Print the blocks that rest on a result."""
    for name, block in BLOCKS.items():
        if block.source == source:
            print(f"\n{name}\n{markdown(block)}")


def filled(text):
    """Return a page's text with its blocks written anew."""

    def block(match):
        stacked = "{.stack}\n" if match[2] in STACKED else ""
        return match[1] + stacked + markdown(BLOCKS[match[2]]) + match[3]

    return MARKED.sub(block, text)


def pages(root):
    """README and the pages that have such blocks."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in found if MARKED.search(path.read_text(encoding="utf-8"))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    differences = []
    for path in pages(arguments.root):
        page = path.relative_to(arguments.root)
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        lines = (old.splitlines(), new.splitlines())
        differences += difflib.unified_diff(*lines, f"{page} as it is", f"{page} by the JSON", n=0)
        if not arguments.check:
            path.write_text(new, encoding="utf-8")
    if arguments.check:
        print("\n".join(differences))
        sys.exit(bool(differences))


if __name__ == "__main__":
    main()
