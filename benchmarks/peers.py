"""Time to accuracy against the peers, all real packages.

    python benchmarks/peers.py run --database posteriordb/posterior_database --folder parts
    python benchmarks/peers.py collect --folder parts

One record a method, posterior and seed goes into ``--folder`` as it is measured; what is there is
not measured again. Each is measured in a process of its own with an empty cache, which is ended
after a limit. Seconds are those of the run; compilation apart.
"""

import json
import logging
import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
from measure import chosen, in_own_process, parser, save

LIMIT = 150  # seconds a method may take, compilation included
GOAL = 0.1  # scaled W1, median over the parameters
ENOUGH = 4.0  # seconds after which a method that is decided is not run for 20 s too


def measure(name, method, seed, database):
    """Distances of one method on one posterior, at each time when it has something to judge."""
    import jax
    from peer_methods import METHODS
    from problems.peers import load

    warnings.simplefilter("ignore")
    for package in ("pymc", "pymc_extras"):
        logging.getLogger(package).setLevel(logging.ERROR)
    jax.config.update("jax_enable_x64", True)
    problem = load(name, database)
    record = {"load": os.getloadavg()[0], "checkpoints": []}
    try:
        for seconds, draws, record["compile"], *steps in METHODS[method](problem, seed):
            distance = problem.distance(draws)
            record["checkpoints"].append(
                {
                    "seconds": seconds,
                    "steps": steps[0] if steps else None,
                    "w1_median": float(np.median(distance)),
                    "w1_max": float(distance.max()),
                }
            )
            if steps and seconds > ENOUGH and decided(record["checkpoints"]):
                break
    except Exception as error:  # a peer's failure is a result
        record["error"] = f"{type(error).__name__}: {error}"[:200]
    return record


def decided(checkpoints):
    """Whether the goal is reached, or two more than doubled budgets have changed nothing."""
    last = checkpoints[-3:]
    same = [
        np.ptp([c[key] for c in last]) <= 0.03 * last[-1][key] for key in ("w1_median", "w1_max")
    ]
    return last[-1]["w1_median"] <= GOAL or all(same)


def run(arguments):
    """Measure what is missing."""
    from peer_methods import METHODS, SEVERAL_SEEDS
    from problems.peers import NAMES

    arguments.folder.mkdir(exist_ok=True, parents=True)
    for name in chosen(NAMES, arguments.only):
        for method in arguments.methods or METHODS:
            for seed in range(min(SEVERAL_SEEDS.get(method, 1), arguments.seeds)):
                path = arguments.folder / f"{name}.{method}.{seed}.json".replace(" ", "_")
                if path.exists():
                    continue
                case = [name, method, seed, str(arguments.database)]
                try:
                    record = in_own_process(__file__, case, cold=True, limit=LIMIT)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    record = {"error": str(error)[-200:], "checkpoints": []}
                record = {"posterior": name, "method": method, "seed": seed, **record}
                path.write_text(json.dumps(record))
                print(record, flush=True)


def collect(arguments):
    """Write what the folder has as results/peers.json."""
    records = [json.loads(path.read_text()) for path in sorted(arguments.folder.glob("*.json"))]
    save("peers", {"limit": LIMIT, "goal": GOAL}, records=records)


def main():
    command = parser(__doc__, database=True, seeds=3)
    command.add_argument("what", choices=("run", "collect"), nargs="?")
    command.add_argument("--folder", type=Path, help="where the records go")
    command.add_argument("--methods", nargs="*")
    arguments = command.parse_args()
    if arguments.case:
        print(json.dumps(measure(*arguments.case)))
    else:
        {"run": run, "collect": collect}[arguments.what](arguments)


if __name__ == "__main__":
    main()
