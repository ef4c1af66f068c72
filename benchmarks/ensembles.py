"""Ensembles: modes found and their masses, by the number of restarts; workers; data sets a second.

python benchmarks/ensembles.py modes      # 1 to 64 restarts on posteriors with many modes
python benchmarks/ensembles.py workers    # wall time of 1 and of 2 workers
python benchmarks/ensembles.py join       # memory of joining 64 fits in 1000 dimensions
python benchmarks/ensembles.py calibration  # fit_many on 200 data sets of eight schools
"""

import json
import logging
import time

import numpy as np
import pymc as pm
from calibration import coverage
from measure import chosen, draws_of, in_own_process, parser, peak_mib, save
from problems.intercepts import small_hierarchy
from problems.many_modes import forty_modes, sensors, twelve_modes
from problems.models import sinusoid

import pymc_isomix as pmi
from pymc_isomix.ensembles import joining
from pymc_isomix.family.mixture import Mixture
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.sites.blocks import Block, BlockMixture
from pymc_isomix.sites.coordinates import CoordinateMap, Coordinates

RESTARTS = 1, 4, 16, 64
DRAWS = 10_000
LEAST = 0.01  # mass of a mode that counts
OPTIONS = {
    "twelve modes, d = 20": {"init": "uniform", "init_width": 10.0},
    "forty modes, d = 2": {"init": "uniform", "init_width": 40.0},
    'sinusoid "9"': {"init": "prior"},
    "sensors, d = 16": {"init": "prior"},
}


def problems():
    """Models and, where masses are known, the problem that has them."""
    planted = {"twelve modes, d = 20": twelve_modes(), "forty modes, d = 2": forty_modes()}
    planted['sinusoid "9"'] = sinusoid(9)
    return {name: (p.model(), p) for name, p in planted.items()} | {
        "sensors, d = 16": (sensors(), None)
    }


def modes_found(problem, approx, seed):
    """Modes with at least half of their mass, and how far all masses are off together."""
    draws = draws_of(approx.sample(DRAWS, random_seed=seed, progressbar=False))
    shares = np.bincount(problem.mode_of(draws), minlength=len(problem.weights)) / DRAWS
    counts = problem.weights >= LEAST
    return {
        "modes": int(counts.sum()),
        "found": int((shares >= problem.weights / 2)[counts].sum()),
        "mass_error": float(np.abs(shares - problem.weights).sum() / 2),
        "largest_error": float(np.abs(shares - problem.weights).max()),
    }


def best_single(approx):
    """Highest ELBO among the fits alone, from their last steps."""
    return max(float(np.nanmean(saved.history.elbo[-200:])) for saved in approx.fits.values())


def modes(arguments):
    """Restarts on each target."""
    records = []
    targets = problems()
    for name in chosen(targets, arguments.only):
        model, problem = targets[name]
        for restarts in arguments.restarts:
            for seed in range(arguments.seeds):
                began = time.perf_counter()
                approx = pmi.fit_ensemble(
                    model,
                    restarts=restarts,
                    random_seed=seed,
                    progressbar=False,
                    **OPTIONS[name],
                )
                seconds = time.perf_counter() - began
                report = approx.diagnostics(4000, n_probes=0, transitions=0)
                record = {"target": name, "restarts": restarts, "seed": seed}
                record |= {
                    "blocks": len(approx.mixture.blocks),
                    "pieces": approx.table.sizes["piece"],
                    "components": approx.mixture.n_components,
                    "failed": len(approx.failures),
                    "elbo": report["elbo"].item(),
                    "log_evidence": report["log_evidence"].item(),
                    "log_evidence_se": report["log_evidence_se"].item(),
                    "joined_log_evidence": approx.table.attrs["log_evidence"],
                    "n_modes": report["n_modes"].item(),
                    "best_single": best_single(approx),
                    "largest_se": approx.table["weight_se"].max().item(),
                    "seconds": seconds,
                }
                if problem is not None:
                    record |= modes_found(problem, approx, seed)
                records.append(record)
                print(record, flush=True)
    settings = {"n_components": 20, "draws": DRAWS}
    save("ensembles_modes", settings, key=("target", "restarts"), fits=records)


def workers(arguments):
    """Wall time by workers: of few restarts with compiling, then of many."""
    name = "twelve modes, d = 20"
    model, _ = problems()[name]
    records, means = [], {}
    for n_jobs in (1, 2):
        for restarts in (16, 48):
            options = {"n_jobs": n_jobs, "random_seed": 0, "progressbar": False, **OPTIONS[name]}
            options["refine"] = False
            began = time.perf_counter()
            approx = pmi.fit_ensemble(model, restarts=restarts, **options)
            seconds = time.perf_counter() - began
            run = sum(saved.history.run_seconds for saved in approx.fits.values())
            compiling = sum(saved.history.compile_seconds for saved in approx.fits.values())
            record = {"target": name, "restarts": restarts, "n_jobs": n_jobs}
            record |= {"seconds": seconds, "run_seconds": run}
            record |= {"compile_seconds": compiling}
            records.append(record | {"join_seconds": approx.table.attrs["join_seconds"]})
            print(records[-1], flush=True)
        means[n_jobs] = {number: saved.mixture.means for number, saved in approx.fits.items()}
    same = all(np.array_equal(means[1][number], means[2][number]) for number in means[1])
    save("ensembles_workers", {"same": same} | efficiency(records, "restarts"), fits=records)


def efficiency(records, size):
    """Seconds of each piece of work by workers that have compiled, and how well two share it."""
    each = {}
    for n_jobs in (1, 2):
        # the second call finds the workers of the first, and the model compiled
        last = [record for record in records if record["n_jobs"] == n_jobs][-1]
        each[n_jobs] = (last["seconds"] - last.get("join_seconds", 0.0)) / last[size]
    found = {"each_of_one": each[1], "each_of_two": each[2], "efficiency": each[1] / each[2] / 2}
    print(found)
    return found


def join_case(n_fits, n_components, n_dim):
    """Seconds and memory of joining fits that exist: Gaussians with a diagonal metric."""
    rng = np.random.default_rng(0)
    with pm.Model() as model:
        pm.Flat("x", shape=n_dim)
    coordinates = Coordinates(CoordinateMap(FlatSpace.of(model)))
    places = rng.normal(size=(8, n_dim)) * 3
    blocks = []
    for source in range(n_fits):
        means = places[source % 8] + 0.05 * rng.normal(size=(n_components, n_dim))
        weights = np.full(n_components, -np.log(n_components))
        deviations = np.exp(0.02 * rng.normal(size=n_dim))
        mixture = Mixture(means, np.zeros(n_components), weights, deviations)
        blocks.append(Block(mixture, coordinates, source))

    def log_density(points):
        squares = np.stack([((points - place) ** 2).sum(axis=1) for place in places])
        return np.logaddexp.reduce(-0.5 * squares, axis=0)

    before, began = peak_mib(), time.perf_counter()
    joined = joining.join(blocks, log_density, rng).joined
    seconds, peak = time.perf_counter() - began, peak_mib()
    whole = BlockMixture.of(blocks, np.zeros(n_fits))
    points, _ = whole.draw(1000, rng)
    began = time.perf_counter()
    whole.log_density(points)
    return {
        "fits": n_fits,
        "components": n_components,
        "n_dim": n_dim,
        "kept": len(joined.blocks),
        "seconds": seconds,
        "mib": peak - before,
        "evaluation_seconds": time.perf_counter() - began,
    }


def join(arguments):
    """Each case in a process of its own."""
    cases = [(16, 20, 20), (64, 20, 20), (64, 20, 1000)]
    save("ensembles_join", {}, cases=[in_own_process(__file__, case) for case in cases])


def calibration(arguments):
    """Data sets a second by workers, and calibration from the draws."""
    model, simulate = small_hierarchy(np.random.default_rng(1))
    truths, data = zip(*(simulate() for _ in range(arguments.simulations)), strict=True)
    datasets = [{"y_data": values} for values in data]
    records, timings = [], []
    options = {"random_seed": 1, "draws": 1000, "progressbar": False}
    for n_jobs, n in ((1, 20), (1, 60), (2, 20), (2, len(datasets))):
        began = time.perf_counter()
        tree = pmi.fit_many(model, datasets[:n], n_jobs=n_jobs, **options)
        seconds = time.perf_counter() - began
        timings.append({"n_jobs": n_jobs, "n": n, "seconds": seconds, "a_second": n / seconds})
        print(timings[-1], flush=True)
    for name in ("mu", "tau", "theta"):
        truth = np.array([t[name] for t in truths]).reshape(len(truths), -1)
        draws = tree.posterior[name].values.reshape(len(truths), 1000, -1)
        for i in range(truth.shape[1]):
            rank = (draws[..., i] < truth[:, [i]]).mean(axis=1)
            label = name if truth.shape[1] == 1 else f"{name}[{i}]"
            records.append({"parameter": label, **coverage(rank)})
    verdicts = dict(zip(*np.unique(tree.fit["verdict"], return_counts=True), strict=True))
    settings = {"verdicts": {str(k): int(v) for k, v in verdicts.items()}}
    settings |= efficiency(timings, "n")
    save("ensembles_calibration", settings, records=records, timings=timings)


def main():
    runs = {run.__name__: run for run in (modes, workers, join, calibration)}
    commands = parser(__doc__, seeds=2)
    commands.add_argument("what", nargs="?", choices=tuple(runs))
    commands.add_argument("--restarts", nargs="+", type=int, default=list(RESTARTS))
    commands.add_argument("--simulations", type=int, default=200)
    arguments = commands.parse_args()
    if arguments.case:
        print(json.dumps(join_case(*arguments.case)))
        return
    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    runs[arguments.what](arguments)


if __name__ == "__main__":
    main()
