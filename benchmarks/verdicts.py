"""Whether the verdict is right: 165 fits, nearly half of them wrong in ways that users meet.

    python benchmarks/verdicts.py [--only NAME ...]
    python benchmarks/verdicts.py --only fresh   # the hundred on which no rule was set

A fit is *wrong* where, in any dimension of the unconstrained space, its standard deviation differs
from the exact one by more than 1.25-fold, its mean by more than 0.25 standard deviations, or less
than 2 % or more than 9.5 % of the exact draws lie below its quantile .05 or above .95, as where a
Gaussian is as much too narrow or too wide; exact draws come from formulas and grids. A verdict
other than "good" says so. Beside it, seconds of fit and diagnostics, and the largest errors before
and after 20 transitions.

A fit takes three to ten seconds, most of it compiling: the hundred some ten minutes on two idle
cores, all of them a quarter of an hour.
"""

import time
from collections import Counter

import numpy as np
from measure import chosen, fit, parser, save, scaled_w1
from problems.fresh_verdicts import FRESH
from problems.verdicts import CASES, UNSEEN

WRONG_RATIO, WRONG_SHIFT = 1.25, 0.25
TAIL, WRONG_TAILS = 0.05, (0.02, 0.095)


def errors(draws, exact):
    """Largest ratio of standard deviations, shift of a mean, and scaled Wasserstein-1 distance."""
    ratio = np.abs(np.log(draws.std(axis=0) / exact.std(axis=0)))
    shift = np.abs(draws.mean(axis=0) - exact.mean(axis=0)) / exact.std(axis=0)
    return float(np.exp(ratio.max())), float(shift.max()), float(scaled_w1(draws, exact).max())


def tails(draws, exact):
    """Least and largest share of the exact draws beyond a quantile .05 or .95 of the draws."""
    low, high = np.quantile(draws, [TAIL, 1 - TAIL], axis=0)
    shares = np.concatenate([(exact < low).mean(axis=0), (exact > high).mean(axis=0)])
    return float(shares.min()), float(shares.max())


def is_wrong(ratio, shift, least, largest):
    return (
        ratio > WRONG_RATIO
        or shift > WRONG_SHIFT
        or least < WRONG_TAILS[0]
        or largest > WRONG_TAILS[1]
    )


def judge(name, case, seed):
    """Fit, judge and measure one case."""
    (model, exact), options = case()
    began = time.perf_counter()
    approx = fit(model, seed, **options)
    fitted = time.perf_counter()
    report = approx.diagnostics(progressbar=False)
    judged = time.perf_counter()
    approx.diagnostics(progressbar=False)
    warm = time.perf_counter() - judged
    draws = approx.draw_unconstrained(len(exact), np.random.default_rng(1))[0]
    ratio, shift, w1 = errors(draws, exact)
    least, largest = tails(draws, exact)
    wrong = is_wrong(ratio, shift, least, largest)
    moved = approx.sample(
        4000, transitions=20, random_seed=1, include_transformed=True, progressbar=False
    )
    values = moved.posterior.to_dataset()
    if "unconstrained_posterior" in moved.children:
        values = {**moved["unconstrained_posterior"].to_dataset(), **values}
    flat = np.column_stack([values[v].values.reshape(4000, -1) for v in approx.space.ordering])
    ratio_after, shift_after, w1_after = errors(flat, exact)
    log_drift, se = report["log_sd_drift"].values, report["log_sd_drift_se"].values
    worst = int(np.nanargmax(np.abs(log_drift))) if np.isfinite(log_drift).any() else 0
    return {
        "case": name,
        "seed": seed,
        "unseen": name in UNSEEN,
        "fresh": name in FRESH,
        "wrong": wrong,
        "verdict": report.verdict,
        "right_verdict": wrong == (report.verdict != "good"),
        "least_tail": least,
        "largest_tail": largest,
        "ratio": ratio,
        "shift": shift,
        "ratio_moved": ratio_after,
        "shift_moved": shift_after,
        "w1": w1,
        "w1_moved": w1_after,
        "drift": float(np.exp(log_drift[worst])),
        "drift_se": float(se[worst]),
        "khat": report["khat"].item(),
        "ess": report["importance_ess"].item() / report["n_draws"].item(),
        "gap": (report["log_evidence"] - report["elbo"]).item(),
        "missing": report["missing_mass"].item(),
        "fit_s": fitted - began,
        "diagnostics_s": judged - fitted,
        "diagnostics_warm_s": warm,
        "advice": report.advice,
    }


def main():
    """Run from the command line."""
    command = parser(__doc__, seeds=1)
    command.add_argument("--first-seed", type=int, default=1)
    arguments, records, every = command.parse_args(), [], {**CASES, **UNSEEN, **FRESH}
    for name in chosen(every, arguments.only):
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            records.append(record := judge(name, every[name], seed))
            print(record, flush=True)
    for kind in ("wrong", "right"):
        of_kind = [r for r in records if r["wrong"] == (kind == "wrong")]
        said = Counter(r["verdict"] for r in of_kind)
        print(f"{len(of_kind)} {kind} fits: {dict(said)}")
    settings = {
        "wrong_ratio": WRONG_RATIO,
        "wrong_shift": WRONG_SHIFT,
        "wrong_tails": list(WRONG_TAILS),
    }
    save("verdicts", settings, key=("case",), fits=records)


if __name__ == "__main__":
    main()
