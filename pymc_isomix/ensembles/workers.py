"""Work over processes or machines by joblib, with handling of failures.

Which workers there are, ``joblib.parallel_config`` says: processes of this machine, a Dask or a Ray
cluster. Nothing here knows of any of them.
"""

import hashlib
import logging
import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pymc_isomix.fitting.loop import RareCallback
from pymc_isomix.sampling.progress import LateProgress

logger = logging.getLogger(__name__)

LONGEST_REASON = 300  # characters

_of_this_thread = threading.local()


@dataclass(frozen=True)
class Failure:
    """Work that ended with an error.

    Parameters
    ----------
    number : int
        Of the restart, or the data set.
    seed : int
    error : str
        Kind and text of the exception, in one line.
    details : str
        Its traceback; empty if a worker died.
    """

    number: int
    seed: int
    error: str
    details: str = ""

    def __str__(self):
        return f"{self.number} (seed {self.seed}): {self.error}"


@dataclass(frozen=True)
class Task:
    """One piece of work: its number, its seed, and its data."""

    number: int
    seed: int
    own: Any = None


class Payload:
    """Data that all tasks share, pickled once, and unpickled once per worker.

    Parameters
    ----------
    work : callable
        ``work(shared, task)``, a function of a module.
    shared : object
        Pickled by cloudpickle; mainly a model.
    """

    def __init__(self, work: Callable, shared: Any) -> None:
        try:
            import cloudpickle
            import joblib  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "many fits need joblib and cloudpickle; install them with "
                "python -m pip install 'pymc-isomix[ensemble]'"
            ) from error
        content = cloudpickle.dumps(shared)
        self.work, self.key = work, hashlib.sha256(content).hexdigest()
        # joblib passes large arrays as files to workers of one machine, and once to a cluster
        self.content = np.frombuffer(content, dtype=np.uint8)
        self.home = os.getpid()


def do(
    work: Callable, key: str, home: int, content: np.ndarray, task: Task
) -> tuple[int, tuple | None, Failure | None]:
    """Do one task in a worker: (number, result, None), or (number, None, Failure)."""
    if os.getpid() != home:
        # one XLA thread, set before JAX starts, because workers share the cores
        os.environ.setdefault("NPROC", "1")
    try:
        with quiet():
            return task.number, work(_unpickled(key, content), task), None
    except Exception as error:  # it must not affect the other tasks
        details = traceback.format_exc()
        return task.number, None, Failure(task.number, task.seed, _in_one_line(error), details)


def _unpickled(key, content):
    """Unpickle the shared data once per thread, because fits may change it."""
    import cloudpickle

    if getattr(_of_this_thread, "key", None) != key:
        _of_this_thread.key, _of_this_thread.shared = key, cloudpickle.loads(content.tobytes())
    return _of_this_thread.shared


@contextmanager
def quiet() -> Iterator[None]:
    """Silence log lines of fits, except warnings."""
    ours = logging.getLogger("pymc_isomix")
    level = ours.level
    ours.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        ours.setLevel(level)


def run(
    payload: Payload,
    tasks: list[Task],
    *,
    n_jobs: Any,
    on_result: Any,
    progressbar: bool,
    description: str,
) -> tuple[Any, bool]:
    """Do all tasks, each on the next free worker.

    Parameters
    ----------
    tasks : list of Task
    n_jobs : int or None
        As for ``joblib.Parallel``: None is one, or the setting of ``joblib.parallel_config``.
    on_result : callable
        ``on_result(number, result)`` is called with each result as soon as it arrives.

    Returns
    -------
    failures : list of Failure
        By number.
    interrupted : bool
        Whether the user interrupted. Some tasks then have neither result nor failure.
    """
    waiting = {task.number: task for task in tasks}
    failures: dict[int, Failure] = {}
    with LateProgress(description, len(tasks), disable=not progressbar) as progress:

        def take(outcome):
            number, result, failure = outcome
            waiting.pop(number, None)
            if failure is None:
                on_result(number, result)
            else:
                failures[number] = failure
            progress.update(len(tasks) - len(waiting))

        try:
            reason = _run_together(payload, tasks, n_jobs, take)
            if waiting:
                logger.warning(
                    f"running {len(waiting)} of {len(tasks)} again, one by one: {reason}"
                )
            for task in [*waiting.values()]:  # any of them may kill its worker
                reason = _run_together(payload, [task], n_jobs, take) or reason
        except KeyboardInterrupt:
            return [failures[number] for number in sorted(failures)], True
    for task in waiting.values():
        failures[task.number] = Failure(task.number, task.seed, f"its worker died: {reason}")
    return [failures[number] for number in sorted(failures)], False


def _run_together(payload, tasks, n_jobs, take):
    """Do tasks in parallel; return the reason if the workers broke down, else None.

    Errors of the work itself are results. An exception here comes from the workers.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    options = {"n_jobs": n_jobs, "batch_size": 1}
    if get_active_backend()[0].supports_return_generator:
        options["return_as"] = "generator_unordered"
    parts = payload.work, payload.key, payload.home, payload.content

    def work():
        yield from Parallel(**options)(delayed(do)(*parts, task) for task in tasks)

    outcomes = work()
    try:
        while True:
            try:
                outcome = next(outcomes)
            except StopIteration:
                return None
            except Exception as error:  # joblib's backends raise different errors
                time.sleep(0.1)  # until dead workers are cleared away
                return _in_one_line(error)
            take(outcome)
    finally:
        outcomes.close()


def _in_one_line(error):
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + "..."


def seeds_of(seed: Any, n: int) -> list[int]:
    """Return a seed per task, independent of n; draw them if there is no seed."""
    if seed is None:
        seed = np.random.SeedSequence().entropy
    return [int(np.random.SeedSequence([seed, i]).generate_state(1)[0] >> 2) for i in range(n)]


def warn_of_failures(
    failures: list, what: str, n_tasks: int, n_done: int, interrupted: bool
) -> None:
    """Warn of failures; raise if there is no result."""
    if interrupted and not n_done:
        raise KeyboardInterrupt
    if interrupted:
        logger.warning(f"Interrupted: {n_done} of {n_tasks} {what} were done.")
    reasons = Counter(failure.error for failure in failures).most_common()
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    if not n_done:
        raise RuntimeError(f"all {n_tasks} {what} failed: {listed}")
    if failures:
        logger.warning(f"{len(failures)} of {n_tasks} {what} failed: {listed}")


class TimeLimit(RareCallback):
    """A callback that ends a fit with an error after its time limit.

    Parameters
    ----------
    seconds : float
        From now on.
    """

    def __init__(self, seconds: Any) -> None:
        self.seconds, self.began = seconds, time.perf_counter()

    def __call__(self, approx: Any, losses: Any, iteration: Any) -> None:
        """Raise TimeoutError if time is up."""
        if time.perf_counter() - self.began > self.seconds:
            raise TimeoutError(
                f"time_limit = {self.seconds:g} s exceeded; pass a larger time_limit or a smaller n"
            )
