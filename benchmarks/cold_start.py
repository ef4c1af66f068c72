"""From the call of ``pm.fit`` to its first finished step, in fresh processes with empty caches.

    python benchmarks/cold_start.py --database posterior_database [--backends jax] [--names gp]

ADVI and ``IsoMix()`` take turns on the same backend.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from measure import save
from rich.console import Console
from rich.table import Table

METHODS = ("advi", "isomix")


def time_first_step(database, name, method, backend):
    """Print the seconds of this process's first fit up to its first step, and leave."""
    import pymc as pm
    from posteriors import load_model

    import pymc_isomix as pmi

    model = load_model(database, name)

    def finish(*_):
        print(json.dumps(time.perf_counter() - start), flush=True)
        os._exit(0)

    start = time.perf_counter()
    with model:
        how = "advi" if method == "advi" else pmi.IsoMix(random_seed=0)
        pm.fit(1000, method=how, backend=backend, callbacks=[finish], progressbar=False)


def measure(database, name, method, backend):
    with tempfile.TemporaryDirectory() as empty:
        flags = f"base_compiledir={empty},{os.environ.get('PYTENSOR_FLAGS', '')}".rstrip(",")
        command = [sys.executable, __file__, "--database", database, "--case", name, method]
        answer = subprocess.run(
            [*command, "--backends", backend],
            env={**os.environ, "PYTENSOR_FLAGS": flags},
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1])


def table_of(records, repeats):
    table = Table(title=f"Seconds to the first step: median of {repeats} (worst)")
    for heading in ("backend", "posterior", "ADVI", "IsoMix()", "ratio"):
        table.add_column(heading, justify="right")
    for r in records:
        cells = [f"{np.median(r[m]):.1f} ({max(r[m]):.1f})" for m in METHODS]
        table.add_row(r["backend"], r["posterior"], *cells, f"{r['ratio']:.2f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", type=Path, required=True, help="posterior_database folder")
    parser.add_argument("--backends", nargs="+", default=["jax"], choices=("jax", "numba"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--names", nargs="+", default=[""], help="parts of names of posteriors")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "The RandomType SharedVariables")
    if options.case:
        time_first_step(options.database, *options.case, options.backends[0])
    from posteriors import BUILDERS

    console, records = Console(width=110), []
    for backend in options.backends:
        for name in BUILDERS:
            if not any(part in name for part in options.names):
                continue
            record = {"backend": backend, "posterior": name, "advi": [], "isomix": []}
            for _ in range(options.repeats):
                for method in METHODS:
                    seconds = measure(options.database, name, method, backend)
                    record[method].append(round(seconds, 2))
            record["ratio"] = round(
                float(np.median(record["isomix"]) / np.median(record["advi"])), 2
            )
            records.append(record)
            console.log(record)
    name = "cold_start_" + "_".join(options.backends)
    save(name, {"repeats": options.repeats}, seconds=records)
    console.print(table_of(records, options.repeats))


if __name__ == "__main__":
    main()
