"""What the benchmarks share: a fit and its cost, a distance, and where figures go."""

import argparse
import datetime as dt
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import results
from results import read, write

PACKAGES = ("pymc", "pytensor", "numpy", "scipy", "jax", "numba", "scikit-learn")
STEPS = 10_000


def write_to(folder):
    """Take another folder for the JSON of this process."""
    results.RESULTS = Path(folder)
    return results.RESULTS


def parser(description, *, database=False, seeds=None, what=()):
    """Command line of a script: what to measure, where posteriordb is, how many seeds.

    ``--case`` is how a script tells a process of its own what to do.
    """
    # said at every compilation: the generator is copied into the compiled function
    warnings.filterwarnings("ignore", "The RandomType SharedVariables")
    arguments = argparse.ArgumentParser(description=description.splitlines()[0])
    if what:
        arguments.add_argument("what", choices=what)
    if database:
        arguments.add_argument("--database", type=Path, help="posterior_database folder")
    if seeds is not None:
        arguments.add_argument("--seeds", type=int, default=seeds)
        arguments.add_argument("--backend", default="jax", choices=("jax", "numba"))
    arguments.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments.add_argument("--results", type=write_to, help="folder of the JSON, for a trial")
    arguments.add_argument("--only", nargs="+", default=[""], help="parts of names")
    return arguments


def chosen(names, only):
    """Those of the names that are one of the parts, or contain one that is no name itself."""
    names = list(names)
    whole, parts = set(only) & set(names), set(only) - set(names)
    return [name for name in names if name in whole or any(part in name for part in parts)]


def fit(model, seed, *, n=STEPS, backend="jax", callbacks=None, **options):
    """Fit by ``IsoMix()``, nothing set but the seed unless by ``options``."""
    import pymc_isomix as pmi

    logging.getLogger("pymc_isomix").setLevel(logging.ERROR)
    inference = pmi.IsoMix(random_seed=seed, model=model, **options)
    return inference.fit(n, callbacks=callbacks, backend=backend, progressbar=False)


def cost(approx):
    """Steps and seconds of a fit, its compilation apart."""
    record = approx.history
    return {
        "steps": len(record.elbo),
        "gradients": sum(record.n_gradients.values()),
        "seconds": round(record.run_seconds, 3),
        "compile_seconds": round(record.compile_seconds, 2),
        "stop_reason": record.stop_reason,
    }


def judgement(report):
    """ELBO and evidence by importance sampling, nats, and what rests on them."""
    record = {
        key: report[key].item()
        for key in ("elbo", "elbo_se", "log_evidence", "log_evidence_se", "khat", "missing_mass")
    }
    record["kl"] = record["log_evidence"] - record["elbo"]
    record["missing_mass"] = None if np.isnan(record["missing_mass"]) else record["missing_mass"]
    return record | {"verdict": report.verdict}


def peak_mib():
    """Highest resident memory of this process so far (Linux only)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def in_own_process(script, case, *, cold=False, limit=None):
    """What ``script --case`` prints of a case, as its last line, in JSON.

    ``cold`` gives PyTensor an empty cache; after ``limit`` seconds the process is ended. The error
    of a process that fails has its ``returncode``.
    """
    command = [sys.executable, script, "--case", json.dumps(case)]
    with tempfile.TemporaryDirectory() as empty:
        flags = {"PYTENSOR_FLAGS": f"base_compiledir={empty}"} if cold else {}
        answer = subprocess.run(
            command, env={**os.environ, **flags}, capture_output=True, text=True, timeout=limit
        )
    if answer.returncode:
        error = RuntimeError(answer.stderr[-600:])
        error.returncode = answer.returncode
        raise error
    return json.loads(answer.stdout.splitlines()[-1])


def draws_of(data):
    """{name: (draws, ...)} of a DataTree's posterior, chains joined."""
    return {
        name: values.to_numpy().reshape(-1, *values.shape[2:])
        for name, values in data["posterior"].data_vars.items()
    }


def flatten(draws, names):
    """{variable: (n, ...)} to labels and columns (n, d)."""
    labels, columns = [], []
    for name in names:
        values = np.asarray(draws[name])
        for index in np.ndindex(values.shape[1:]):
            labels.append(name + (f"[{','.join(map(str, index))}]" if index else ""))
            columns.append(values[(slice(None), *index)])
    return labels, np.column_stack(columns)


def scaled_w1(draws, reference):
    """Wasserstein-1 distance of each column, in standard deviations of the reference.

    Two exact samples of 1000 draws score about 0.03 to 0.08, not zero.
    """
    levels = (np.arange(1000) + 0.5) / 1000
    difference = np.quantile(draws, levels, axis=0) - np.quantile(reference, levels, axis=0)
    return np.abs(difference).mean(axis=0) / reference.std(axis=0)


def environment():
    """Versions and the kind of machine, without anything that names it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def save(name, settings, *, key=(), **records):
    """Write ``results/<name>.json``, each table a list of records, and print what the page shows.

    ``key`` names the columns that tell records apart: then what the file has of others, measured
    in the same environment, stays.
    """
    import tables

    here, earlier = environment(), read(name) if key else None
    if earlier and earlier["environment"] != here:
        print(f"{name}: what another environment measured is dropped")
    elif earlier:
        for table, rows in records.items():
            new = {tuple(row[column] for column in key) for row in rows}
            old = earlier.get(table, [])
            records[table] = [r for r in old if tuple(r[c] for c in key) not in new] + rows
    head = {"date": dt.date.today().isoformat(), "environment": here, "settings": settings}
    write(name, head | records)
    tables.show(name)
