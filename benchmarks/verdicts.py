"""Whether the verdict is right: 250 fits, about half of them wrong in ways that users meet.

    python benchmarks/verdicts.py exact [--only NAME ...]     # models with exact draws
    python benchmarks/verdicts.py sampled [--only NAME ...]   # models as users bring them
    python benchmarks/verdicts.py third [--only NAME ...]     # more, written without the rules
    python benchmarks/verdicts.py references [--only NAME ...]  # what these are compared with

A fit is *wrong* where, in any dimension of the unconstrained space, its standard deviation differs
from the reference by more than 1.25-fold, its mean by more than 0.25 standard deviations, or less
than 2 % or more than 9.5 % of the reference lie below its quantile .05 or above .95, as where a
Gaussian is as much too narrow or too wide. A verdict other than "good" says so. Beside it, seconds
of fit and diagnostics, and the largest errors before and after 20 transitions.

References are exact draws, from formulas and grids, or draws of nutpie at a target acceptance of
.97, four chains, whose R-hat and effective sample size are stored with their quantiles. A variable
on a circle is seen around its mean.

A fit takes three to ten seconds, most of it compiling: a hundred some ten minutes on two idle
cores.
"""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from measure import chosen, fit, parser, save
from problems import verdicts_exact, verdicts_sampled, verdicts_third
from results import read

DRAWS, MOVED = 20_000, 4000
LEVELS = (np.arange(100) + 0.5) / 100
WRONG_RATIO, WRONG_SHIFT = 1.25, 0.25
TAIL, WRONG_TAILS = 0.05, (0.02, 0.095)
REFERENCES, SEED = "verdicts_references", 1
CASES = verdicts_sampled.MODELS | verdicts_third.MODELS
NUTS = {"draws": 2000, "tune": 1500, "chains": 4, "target_accept": 0.97}
SETTINGS = {
    "wrong_ratio": WRONG_RATIO,
    "wrong_shift": WRONG_SHIFT,
    "wrong_tails": list(WRONG_TAILS),
}


@dataclass(frozen=True)
class Marginals:
    """Means and standard deviations (d,), and quantiles (100, d), in unconstrained space."""

    mean: np.ndarray
    sd: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, draws):
        return cls(draws.mean(axis=0), draws.std(axis=0), np.quantile(draws, LEVELS, axis=0))

    def to_rows(self):
        """Mean, standard deviation, and quantiles in hundredths of it from the mean."""
        hundredths = (100 * (self.quantiles - self.mean) / self.sd).round().astype(int)
        return [
            [float(f"{m:.6g}"), float(f"{s:.5g}"), q.tolist()]
            for m, s, q in zip(self.mean, self.sd, hundredths.T, strict=True)
        ]

    @classmethod
    def from_rows(cls, rows):
        mean, sd = (np.array([row[i] for row in rows]) for i in (0, 1))
        return cls(mean, sd, mean + sd * np.array([row[2] for row in rows]).T / 100)

    def errors(self, draws):
        """Largest errors of draws: ratio of sds, shift of a mean, Wasserstein-1, ratio of widths.

        Shift and distance are in standard deviations; widths are those of 90 % intervals.
        """
        of_draws = Marginals.of(draws)
        ratio = np.exp(np.abs(np.log(of_draws.sd / self.sd)))
        shift = np.abs(of_draws.mean - self.mean) / self.sd
        w1 = np.abs(of_draws.quantiles - self.quantiles).mean(axis=0) / self.sd
        widths = of_draws.width() / self.width()
        worst = np.abs(np.log(widths)).argmax()
        return float(ratio.max()), float(shift.max()), float(w1.max()), float(widths[worst])

    def width(self):
        """Width (d,) of the 90 % intervals."""
        return np.array([np.ptp(np.interp((TAIL, 1 - TAIL), LEVELS, q)) for q in self.quantiles.T])

    def tails(self, draws):
        """Least and largest share of the reference beyond a quantile .05 or .95 of the draws."""
        low, high = np.quantile(draws, [TAIL, 1 - TAIL], axis=0)
        columns = self.quantiles.T
        below = [np.interp(x, q, LEVELS) for x, q in zip(low, columns, strict=True)]
        above = [1 - np.interp(x, q, LEVELS) for x, q in zip(high, columns, strict=True)]
        return float(min(below + above)), float(max(below + above))


def around(centre, draws, circular):
    """Draws (n, d), those of circular dimensions within half a turn of the centre (d,)."""
    turned = np.mod(draws - centre + np.pi, 2 * np.pi) + centre - np.pi
    return np.where(circular, turned, draws)


def is_wrong(ratio, shift, least, largest):
    return (
        ratio > WRONG_RATIO
        or shift > WRONG_SHIFT
        or least < WRONG_TAILS[0]
        or largest > WRONG_TAILS[1]
    )


def exact(name, again):
    """Model, reference and options of a fit of a model with exact draws."""
    build, options = verdicts_exact.MODELS[name]
    model, draws = build()
    return model, Marginals.of(draws), options if again else {}


def sampled(name, again):
    """Model, reference and options of a fit of a model with draws of NUTS."""
    case = CASES[name]
    rows = next(r["marginals"] for r in read(REFERENCES)["models"] if r["model"] == name)
    return case.model(1 + again), Marginals.from_rows(rows), case.worse if again else {}


SETS = {
    "exact": (exact, verdicts_exact.MODELS),
    "sampled": (sampled, verdicts_sampled.MODELS),
    "third": (sampled, verdicts_third.MODELS),
}


def moved_draws(approx):
    """Draws (n, d) after 20 transitions, unconstrained space."""
    moved = approx.sample(
        MOVED, transitions=20, random_seed=1, include_transformed=True, progressbar=False
    )
    values = moved.posterior.to_dataset()
    if "unconstrained_posterior" in moved.children:
        values = {**moved["unconstrained_posterior"].to_dataset(), **values}
    return np.column_stack([values[v].values.reshape(MOVED, -1) for v in approx.space.ordering])


def circular_dimensions(space):
    """Which dimensions (d,) are angles."""
    circular = np.zeros(space.n_dim, bool)
    for name, where, *_ in space.ordering.values():
        circular[where] = name.endswith("_circular__")
    return circular


def judge(seed, model, reference, options):
    """Fit, judge and measure one case."""
    began = time.perf_counter()
    approx = fit(model, seed, **options)
    fitted = time.perf_counter()
    report = approx.diagnostics(progressbar=False)
    judged = time.perf_counter()
    circular = circular_dimensions(approx.space)
    draws, moved = (
        around(reference.mean, z, circular)
        for z in (
            approx.draw_unconstrained(DRAWS, np.random.default_rng(1))[0],
            moved_draws(approx),
        )
    )
    ratio, shift, w1, width = reference.errors(draws)
    least, largest = reference.tails(draws)
    wrong = is_wrong(ratio, shift, least, largest)
    log_drift, se = report["log_sd_drift"].values, report["log_sd_drift_se"].values
    worst = int(np.nanargmax(np.abs(log_drift))) if np.isfinite(log_drift).any() else 0
    return {
        "wrong": wrong,
        "verdict": report.verdict,
        "right_verdict": wrong == (report.verdict != "good"),
        "least_tail": least,
        "largest_tail": largest,
        "ratio": ratio,
        "shift": shift,
        "width": width,
        "w1": w1,
        "w1_moved": reference.errors(moved)[2],
        "drift": float(np.exp(log_drift[worst])),
        "drift_se": float(se[worst]),
        "khat": report["khat"].item(),
        "ess": report["importance_ess"].item() / report["n_draws"].item(),
        "gap": (report["log_evidence"] - report["elbo"]).item(),
        "missing": report["missing_mass"].item(),
        "fit_s": fitted - began,
        "diagnostics_s": judged - fitted,
        "advice": report.advice,
    }


def nuts_draws(case):
    """Draws (chain, draw, d) of nutpie in unconstrained space, and its divergences."""
    import nutpie

    import pymc_isomix as pmi

    model = case.model()
    space = pmi.IsotropicMixture(n_components=1, model=model).space
    compiled = nutpie.compile_pymc_model(model)
    tree = nutpie.sample(
        compiled,
        **NUTS | case.options,
        cores=1,
        seed=SEED,
        progress_bar=False,
        store_unconstrained=True,
    )
    stats = tree["sample_stats"].to_dataset()
    labels = stats["unconstrained_parameter"].values.tolist()
    columns = []
    for name, where, *_ in space.ordering.values():
        own = [i for i, label in enumerate(labels) if label == name or label.startswith(name + "_")]
        assert len(own) == where.stop - where.start, (name, labels)
        columns += own
    draws = stats["unconstrained_draw"].values[..., columns]
    centre = np.angle(np.exp(1j * draws).mean(axis=(0, 1)))
    draws = around(centre, draws, circular_dimensions(space))
    return draws, int(stats["diverging"].sum())


def reference(name):
    """What is stored of a model's exact draws, or of nutpie's."""
    from published_models import convergence

    case = CASES[name]
    if case.draws is not None:
        draws = case.draws(case)
        return {"d": draws.shape[1], "marginals": Marginals.of(draws).to_rows()}
    by_chain, divergences = nuts_draws(case)
    draws = by_chain.reshape(-1, by_chain.shape[-1])
    found = {"d": draws.shape[1]} | convergence(by_chain) | {"divergences": divergences}
    if case.mapped is not None:
        draws = case.mapped(draws)
    if case.symmetry is not None:
        draws = np.concatenate([draws, case.symmetry(draws)])
    return found | {"marginals": Marginals.of(draws).to_rows()}


def make_references(names):
    """Write the reference of each model, and say how well it was sampled."""
    for name in names:
        record = {"model": name} | reference(name)
        print({key: value for key, value in record.items() if key != "marginals"}, flush=True)
        save(REFERENCES, NUTS, key=("model",), models=[record])


def main():
    """Run from the command line."""
    command = parser(__doc__, seeds=1, what=(*SETS, "references"))
    command.add_argument("--first-seed", type=int, default=1)
    arguments, records = command.parse_args(), []
    if arguments.what == "references":
        make_references(chosen(CASES, arguments.only))
        return
    make, models = SETS[arguments.what]
    for name in chosen(models, arguments.only):
        for again in (False, True):
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                told = name + ", worse" * again
                record, found = {"case": told, "seed": seed}, {"fits": [], "failures": []}
                try:
                    records.append(record := record | judge(seed, *make(name, again)))
                    found["fits"] = [record]
                except FloatingPointError as error:  # a fit that was not made has no verdict
                    found["failures"] = [record := record | {"error": str(error)}]
                print(record, flush=True)
                save(f"verdicts_{arguments.what}", SETTINGS, key=("case", "seed"), **found)
    for kind in ("wrong", "right"):
        of_kind = [r for r in records if r["wrong"] == (kind == "wrong")]
        said = Counter(r["verdict"] for r in of_kind)
        print(f"{len(of_kind)} {kind} fits: {dict(said)}")


if __name__ == "__main__":
    main()
