"""Designs of 300 to 2000 dimensions: a default fit from Enter to verdict, beside nutpie.

    python benchmarks/large.py [--only ratings ...] [--methods nutpie isomix] [--seeds 1]

Each fit runs in a process of its own. The clock starts with the process. It stops at our verdict,
or at the R-hat of nutpie's 4 x 1000 draws (target acceptance .95, two chains at a time). ``cpu``
counts seconds of the processor. W1 is in standard deviations of nutpie's draws; of at most 30
quantities a design, as in ``published_models.py``. Nutpie runs once, and its quantiles are
references.
"""

import json
import time

from measure import chosen, in_own_process, parser, save
from published_models import DRAWS, compare, convergence, quantities, spent, summarise
from results import read, write

METHODS = ("nutpie", "isomix")
LIMIT = 3600  # seconds of a process


def nutpie(model, seed):
    """Quantiles of nutpie's draws, and how well it did."""
    import nutpie

    compiled = nutpie.compile_pymc_model(model)
    tree = nutpie.sample(
        compiled, draws=1000, chains=4, cores=2, seed=seed, target_accept=0.95, progress_bar=False
    )
    labels, draws = quantities(tree["posterior"].to_dataset())
    found = {"d": int(compiled.n_dim)} | convergence(draws)
    found["divergences"] = int(tree["sample_stats"]["diverging"].sum())
    return found, labels, draws


def isomix(model, seed):
    """A default fit and its verdict."""
    import pymc_isomix as pmi

    approx = pmi.IsoMix(random_seed=seed, model=model).fit(progressbar=False)
    drawn, report = approx.sample(DRAWS), approx.diagnostics(progressbar=False)
    found = {"d": approx.ddim, "gradients": sum(approx.history.n_gradients.values())}
    found |= {"verdict": report.verdict, "khat": round(float(report["khat"]), 2)}
    return found, *quantities(drawn["posterior"].to_dataset())


def run(case):
    """Run one method on one design."""
    from problems.large import DESIGNS

    name, method = case["design"], case["method"]
    found, labels, draws = {"nutpie": nutpie, "isomix": isomix}[method](
        DESIGNS[name](), case["seed"]
    )
    found |= spent(case["began"])
    references = read("large/references") or {}
    if method == "nutpie":
        write("large/references", references | {name: summarise(labels, draws)})
    elif name in references:
        found |= compare(references[name], labels, draws.astype(float))
    return found


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    arguments.add_argument("--seeds", type=int, default=1)
    chosen_ones = arguments.parse_args()
    if chosen_ones.case:
        print(json.dumps(run(chosen_ones.case)))
        return
    from problems.large import DESIGNS

    for name in chosen(DESIGNS, chosen_ones.only):
        for method in chosen_ones.methods:
            for seed in range(1 if method == "nutpie" else chosen_ones.seeds):
                case = {"design": name, "method": method, "seed": seed}
                found = in_own_process(__file__, case | {"began": time.time()}, limit=LIMIT)
                record = case | found
                save("large", {"draws": DRAWS}, key=("design", "method", "seed"), fits=[record])
                print(record, flush=True)


if __name__ == "__main__":
    main()
