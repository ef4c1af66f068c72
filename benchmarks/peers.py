"""Time to accuracy against the peers, all real packages.

    python benchmarks/peers.py run --database posteriordb/posterior_database --folder parts
    python benchmarks/peers.py show --folder parts    # table, and results/peers.json

One record a method, posterior and seed goes into ``--folder`` as it is measured; what is there is
not measured again. Each posterior's methods run in a process of their own, which is ended when a
method takes longer than the limit. Seconds are those of the run; compilation apart.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

LIMIT = 150  # seconds a method may take, compilation included
GOAL = 0.1  # scaled W1, median over the parameters
ENOUGH = 4.0  # seconds after which a method that is decided is not run for 20 s too
SHOWN = (2.0, 5.0, 20.0)
SLACK = 1.1  # a budget of n steps is met by its estimate only


def jobs(arguments):
    from peer_methods import METHODS, SEVERAL_SEEDS
    from peer_problems import NAMES

    return [
        (name, method, seed)
        for name in arguments.names or NAMES
        for method in arguments.methods or METHODS
        for seed in range(min(SEVERAL_SEEDS.get(method, 1), arguments.seeds))
    ]


def part(folder, name, method, seed):
    return folder / f"{name}.{method}.{seed}.json".replace(" ", "_")


def run(arguments):
    """Measure what is missing, one process a posterior and method."""
    arguments.folder.mkdir(exist_ok=True, parents=True)
    waiting = [job for job in jobs(arguments) if not part(arguments.folder, *job).exists()]
    from peer_methods import FORKING

    groups = {}
    for name, method, seed in waiting:
        group = (name, method if method in FORKING else None)
        groups.setdefault(group, []).append((name, method, seed))
    for (name, _), todo in groups.items():
        while todo:
            finish_or_kill(name, todo, arguments)
            todo = [job for job in todo if not part(arguments.folder, *job).exists()]


def finish_or_kill(name, todo, arguments):
    """Run a worker until it has done its jobs, or one of them has failed it."""
    script = [sys.executable, __file__, "work", "--folder", arguments.folder]
    listed = json.dumps([job[1:] for job in todo])
    command = [*script, "--database", arguments.database, "--jobs", listed, "--names", name]
    with tempfile.TemporaryDirectory() as cache:  # compilation starts cold
        flags = {"PYTENSOR_FLAGS": f"base_compiledir={cache}"}
        worker = subprocess.Popen([str(word) for word in command], env={**os.environ, **flags})
        watch(worker, todo, arguments)


def watch(worker, todo, arguments):
    """End the worker when one job takes too long, and note that job as failed."""
    for job in todo:
        began = time.perf_counter()
        while worker.poll() is None and not part(arguments.folder, *job).exists():
            time.sleep(0.2)
            if time.perf_counter() - began > LIMIT:
                worker.kill()
                worker.wait()
        if not part(arguments.folder, *job).exists():
            took = time.perf_counter() - began
            reason = "too slow" if took > LIMIT else f"worker ended with {worker.returncode}"
            write(arguments.folder, job, {"error": reason, "checkpoints": []})
            return
    worker.wait()


def write(folder, job, record):
    keys = dict(zip(("posterior", "method", "seed"), job, strict=True))
    part(folder, *job).write_text(json.dumps({**keys, **record}))
    points = " ".join(
        f"{c['seconds']:.1f}s:{c['w1_median']:.2f}/{c['w1_max']:.2f}" for c in record["checkpoints"]
    )
    print(*job, f"compile {record.get('compile', np.nan):.1f}", points, record.get("error") or "")


def work(arguments):
    """Measure the listed methods on one posterior, in this process."""
    warnings.simplefilter("ignore")
    for name in ("pymc_isomix", "pymc", "pymc_extras"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import jax
    from peer_methods import METHODS
    from peer_problems import load

    jax.config.update("jax_enable_x64", True)
    (name,) = arguments.names
    for method, seed in json.loads(arguments.jobs):
        problem = load(name, arguments.database)  # a fresh model: nothing compiled before
        record = {"load": os.getloadavg()[0], "checkpoints": []}
        cpu = time.process_time()
        try:
            for seconds, draws, record["compile"], *steps in METHODS[method](problem, seed):
                distance = problem.distance(draws)
                record["checkpoints"].append(
                    {
                        "seconds": seconds,
                        "steps": steps[0] if steps else None,
                        "cpu_since_start": time.process_time() - cpu,
                        "w1_median": float(np.median(distance)),
                        "w1_max": float(distance.max()),
                    }
                )
                if steps and seconds > ENOUGH and decided(record["checkpoints"]):
                    break
        except Exception as error:  # a peer's failure is a result
            print(traceback.format_exc()[-600:])
            record["error"] = f"{type(error).__name__}: {error}"[:200]
        write(arguments.folder, (name, method, seed), record)


def decided(checkpoints):
    """Whether the goal is reached, or two more than doubled budgets have changed nothing."""
    last = checkpoints[-3:]
    same = [
        np.ptp([c[key] for c in last]) <= 0.03 * last[-1][key] for key in ("w1_median", "w1_max")
    ]
    return last[-1]["w1_median"] <= GOAL or all(same)


def at_budget(record, seconds):
    """The last checkpoint within that time, None when there is none."""
    within = [c for c in record["checkpoints"] if c["seconds"] <= SLACK * seconds]
    return max(within, key=lambda c: c["seconds"]) if within else None


def time_to_goal(record):
    reached = [c["seconds"] for c in record["checkpoints"] if c["w1_median"] <= GOAL]
    return min(reached) if reached else np.inf


def cell(records):
    """Seconds to the goal, W1 at 2, 5 and 20 s, compile seconds; medians over seeds."""

    def text(values):
        value = np.median(values)
        return f"{value:.2f}" if value < 100 else ("∞" if np.isinf(value) else f"{value:.0e}")

    if all(not r["checkpoints"] for r in records):
        return [records[0]["error"].split(":")[0], "", "", "", ""]
    reached = np.median([time_to_goal(r) for r in records])
    cells = ["-" if np.isinf(reached) else f"{reached:.1f}"]
    for seconds in SHOWN:
        found = [at_budget(r, seconds) for r in records]
        found = [c for c in found if c is not None]
        values = [text([c[key] for c in found]) for key in ("w1_median", "w1_max") if found]
        cells.append("/".join(values))
    return [*cells, f"{np.median([r['compile'] for r in records if 'compile' in r]):.1f}"]


def show(arguments):
    from measure import save
    from peer_methods import METHODS, SAMPLERS
    from peer_problems import NAMES

    records = [json.loads(path.read_text()) for path in sorted(arguments.folder.glob("*.json"))]
    names = [name for name in NAMES if any(r["posterior"] == name for r in records)]
    console = Console(width=120)
    for name in names:
        table = Table(
            "method", f"s to W1 {GOAL}", *(f"after {s:g} s" for s in SHOWN), "compile s", title=name
        )
        for method in METHODS:
            chosen = [r for r in records if (r["posterior"], r["method"]) == (name, method)]
            if chosen:
                mark = " (sampler)" if method in SAMPLERS else ""
                table.add_row(method + mark, *cell(chosen))
        console.print(table)
    summary = Table("method", *(name[-14:] for name in names), title=f"Seconds to W1 {GOAL}")
    for method in METHODS:
        cells = []
        for name in names:
            chosen = [r for r in records if (r["posterior"], r["method"]) == (name, method)]
            cells.append(cell(chosen)[0] if chosen else "")
        summary.add_row(method, *cells)
    Console(width=200).print(summary)
    packages = ("numpyro", "blackjax", "pymc-extras", "nutpie", "optax")
    save("peers", {"limit": LIMIT, "goal": GOAL}, packages=packages, records=records)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "work", "show"))
    parser.add_argument("--database", type=Path, help="posterior_database folder")
    parser.add_argument("--folder", type=Path, required=True, help="where the records go")
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", help=argparse.SUPPRESS)
    parser.add_argument("--names", nargs="*", help="posteriors, all when not given")
    arguments = parser.parse_args()
    {"run": run, "work": work, "show": show}[arguments.what](arguments)


if __name__ == "__main__":
    main()
