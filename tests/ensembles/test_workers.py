"""What is left of the work when workers die."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pymc_isomix.ensembles import workers


def square_or_die(folder, task):
    """Kill the worker, once or each time; or leave a mark that the work was done."""
    if task.own == "dies each time":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.own == "dies once" and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return task.number**2


def outcomes(folder, faults):
    tasks = [workers.Task(i, seed=10 + i, own=faults.get(i)) for i in range(6)]
    payload = workers.Payload(square_or_die, str(folder))
    found = {}
    failures, interrupted = workers.run(
        payload,
        tasks,
        n_jobs=2,
        on_result=found.__setitem__,
        progressbar=False,
        description="Squares",
    )
    assert not interrupted
    return found, failures


@pytest.mark.slow
def test_a_dead_worker_costs_nothing_but_time(tmp_path):
    found, failures = outcomes(tmp_path, {2: "dies once"})
    assert (tmp_path / "died").exists()
    assert found == {i: i**2 for i in range(6)}
    assert not failures


@pytest.mark.slow
def test_what_kills_each_worker_is_found_out(tmp_path):
    found, failures = outcomes(tmp_path, {2: "dies each time"})
    assert found == {i: i**2 for i in range(6) if i != 2}
    assert [(f.number, f.seed) for f in failures] == [(2, 12)]
    assert "worker died: TerminatedWorkerError" in failures[0].error


def test_a_fault_in_keeping_results_is_none_of_a_worker(tmp_path):
    def keep(number, result):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        workers.run(
            workers.Payload(square_or_die, str(tmp_path)),
            [workers.Task(i, i, None) for i in range(2)],
            n_jobs=1,
            on_result=keep,
            progressbar=False,
            description="Tasks",
        )


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pymc-isomix\[ensemble\]"):
        workers.Payload(square_or_die, None)
