"""Ensembles on clusters that are started for the test: Dask, with a worker killed, and Ray."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import joblib
import numpy as np
import pytest

import pymc_isomix as pmi

FIT = {
    "restarts": 8,
    "n": 400,
    "n_components": 3,
    "random_seed": 1,
    "progressbar": False,
    "refine": False,
}

pytestmark = [
    pytest.mark.slow,
    # of clusters that are shut down, and of what they depend on
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def alone(model):
    return pmi.fit_ensemble(model, **FIT)


def assert_same(one, other):
    assert sorted(one.fits) == sorted(other.fits)
    for number, saved in one.fits.items():
        np.testing.assert_array_equal(saved.mixture.means, other.fits[number].mixture.means)
    assert one.table.equals(other.table)


@contextmanager
def two_workers(address):
    """Start processes of Dask without a nanny: who is dead stays dead."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    command += ["--no-nanny", "--nthreads", "1", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **quiet) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_dask_gives_the_whole_ensemble_when_a_worker_is_killed(model, alone):
    distributed = pytest.importorskip("distributed")
    killed = []

    def kill_one(client):
        """Kill a worker as soon as both are at work."""
        until = time.monotonic() + 120
        while not killed and time.monotonic() < until:
            at_work = [w for w, tasks in client.processing().items() if tasks]
            if len(at_work) == 2:
                time.sleep(2)
                pid = client.run(os.getpid)[at_work[0]]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.2)

    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        two_workers(cluster.scheduler_address),
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        client.wait_for_workers(2, timeout=60)
        killer = threading.Thread(target=kill_one, args=(client,))
        killer.start()
        approx = pmi.fit_ensemble(model, **FIT)
        killer.join()
        assert len(client.scheduler_info()["workers"]) == 1
    assert killed
    assert_same(approx, alone)


def test_ray_gives_the_same_ensemble(model, alone):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=2):
            approx = pmi.fit_ensemble(model, **FIT)
    finally:
        ray.shutdown()
    assert_same(approx, alone)
