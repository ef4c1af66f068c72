"""From Enter to the verdict: where the seconds go, in fresh processes, cold and with filled caches.

    python benchmarks/waiting.py [--only "eight schools" ...] [--methods isomix nuts] [--seeds 3]
        [--folder references] [--minutes 45]

Each process imports, builds a model, fits it with nothing set, draws 1000 times and asks for
diagnostics where there are any. The first process of a model has empty caches, the second those
that the first filled: PyTensor's folder, and what lies in it. ``first step`` is as PyMC's ADVI and
ours may be compared: from the call of ``pm.fit`` to the first finished step, on JAX. ``w1_max`` is
the largest scaled Wasserstein-1 distance to the references of ``hierarchies.py``, in ``--folder``,
by further draws when the clock has stopped. All models and methods take turns, round after round,
until there are so many repeats or the minutes are over; what there is is saved after each.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np
from measure import chosen, parser, save

SAMPLERS = {"nuts": "pymc", "nutpie": "nutpie", "numpyro": "numpyro"}  # names in pm.sample
METHODS = ("isomix", "advi", *SAMPLERS)
NAMES = (
    "eight schools",
    "varying slopes",
    "correlated effects",
    "crossed poisson",
    "nested",
    "hsgp",
    "latent gp",
    "random walk",
    "field",
    "outliers",
    "covariance",
    "many rows",
)
DRAWS = 1000
COMPARED = 4000  # draws behind W1, as many as NUTS makes
LONGEST = 600  # seconds of a process


def build(name):
    """The model of a name, hierarchies non-centred."""
    from problems.hierarchies import HIERARCHIES
    from problems.models import MODELS

    return HIERARCHIES[name].build(False) if name in HIERARCHIES else MODELS[name]()


class Clock:
    """Seconds by what they were spent on; what is inside another counts for the inner."""

    def __init__(self):
        self.seconds, self.inner, self.notes = defaultdict(float), [0.0], {}

    def timed(self, what, function):
        """The function, timed."""

        @wraps(function)
        def call(*args, **kwargs):
            began = time.perf_counter()
            self.inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - began
                self.seconds[what] += elapsed - self.inner.pop()
                self.inner[-1] += elapsed

        return call

    def watch(self):
        """Time PyTensor's rewriting, JAX's tracing and XLA; what they take, nobody else has."""
        import jax
        from pytensor.compile.maker import FunctionMaker

        from pymc_isomix.backend import jax_compilation, upstream
        from pymc_isomix.model import batching

        events = {
            "/jax/core/compile/jaxpr_trace_duration": "tracing",
            "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
            "/jax/core/compile/backend_compile_duration": "XLA",
        }

        def listen(event, seconds, **_):
            if event in events and current_thread() is main_thread():
                self.seconds[events[event]] += seconds
                self.inner[-1] += seconds

        jax.monitoring.register_event_duration_secs_listener(listen)
        # what is left of it to wait for
        jax_compilation.compile_in_background = self.timed(
            "XLA", jax_compilation.compile_in_background
        )
        prepare = self.timed("rewriting", FunctionMaker.prepare_fgraph)
        FunctionMaker.prepare_fgraph = staticmethod(prepare)
        for module, name in ((batching, "rewrite_graph"), (upstream, "rewrite_pregrad")):
            setattr(module, name, self.timed("rewriting", getattr(module, name)))

    def first(self):
        """Return a function that notes the seconds from here to its first call."""
        began = time.perf_counter()
        return lambda *_: self.seconds.setdefault("first step", time.perf_counter() - began)


def isomix(model, clock):
    """A default fit, its draws and its diagnostics; a function for more draws."""
    import pymc_isomix as pmi
    from pymc_isomix.fitting.steppers import Looped
    from pymc_isomix.interface.approximation import IsotropicMixture

    stepped, take = clock.first(), Looped.take
    clock.timed("import JAX", __import__)("jax")
    clock.watch()

    def noting(self, step_sizes):
        result = take(self, step_sizes)
        stepped()
        return result

    Looped.take = noting
    closing = clock.timed("closing line", IsotropicMixture.closing_line)
    IsotropicMixture.closing_line = closing
    inference = clock.timed("building", pmi.IsoMix)(model=model, random_seed=0)
    approx = clock.timed("building", inference.fit)(backend="jax", progressbar=False)
    clock.timed("sample", approx.sample)(DRAWS)
    report = clock.timed("diagnostics", approx.diagnostics)(progressbar=False)
    run = approx.history.run_seconds
    clock.seconds["building"] -= run
    clock.seconds["run"] = run
    clock.notes["verdict"] = report.verdict
    return lambda: approx.sample(COMPARED, random_seed=1)


def advi(model, clock):
    """``pm.fit("advi")`` and its draws."""
    import pymc as pm

    options = {"method": "advi", "random_seed": 0, "backend": "jax", "progressbar": False}
    with model:
        approx = clock.timed("fit", pm.fit)(callbacks=[clock.first()], **options)
        clock.timed("sample", approx.sample)(DRAWS)
    return lambda: approx.sample(COMPARED, random_seed=1)


def nuts(model, clock, **options):
    """``pm.sample()``, with a sampler of another package."""
    import pymc as pm

    options |= {"random_seed": 0, "progressbar": False}
    tree = clock.timed("sample", pm.sample)(model=model, **options)
    return lambda: tree


def case(name, method, folder):
    """Print the seconds of this process, and how near the draws are to the reference."""
    clock, began = Clock(), time.perf_counter()
    clock.timed("import PyMC", __import__)("pymc")
    if method == "isomix":
        clock.timed("import", __import__)("pymc_isomix")
    imported = time.perf_counter()
    model = build(name)
    built = time.perf_counter()
    if method in SAMPLERS:
        draws = nuts(model, clock, nuts_sampler=SAMPLERS[method])
    else:
        draws = {"isomix": isomix, "advi": advi}[method](model, clock)
    total = time.perf_counter() - built + imported - began  # but for what builds the model
    distance = w1_max(name, draws, folder)
    print(json.dumps(clock.seconds | {"total": total} | distance | clock.notes))


def w1_max(name, draws, folder):
    """Largest W1 to a reference, where there is one."""
    from hierarchies import compare, load_reference
    from measure import draws_of
    from problems.hierarchies import HIERARCHIES

    if folder is None or not (Path(folder) / f"{name.replace(' ', '_')}.npz").exists():
        return {}
    reference, _ = load_reference(Path(folder), name)
    return {"w1_max": compare(draws_of(draws()), reference, HIERARCHIES[name].scales)["w1_max"]}


def in_folder(caches, *arguments):
    """What a process prints whose caches lie in a folder."""
    folders = {"PYTENSOR_FLAGS": f"base_compiledir={caches}", "NUMBA_CACHE_DIR": caches}
    command = [sys.executable, "-W", "ignore", __file__, "--case", json.dumps(arguments)]
    environment = {**os.environ, **folders}
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr[-600:])
    return json.loads(answer.stdout.splitlines()[-1])


def record_of(name, method, caches, processes):
    """Medians over processes; of words, the last."""
    record = {"model": name, "method": method, "caches": caches, "repeats": len(processes)}
    for part, last in processes[-1].items():
        values = [process[part] for process in processes]
        record[part] = last if isinstance(last, str) else round(float(np.median(values)), 3)
    return record


def main():
    command = parser(__doc__, seeds=1)
    command.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    command.add_argument("--folder", type=Path, help="where references of hierarchies.py lie")
    command.add_argument("--minutes", type=float, default=np.inf, help="begin nothing later")
    arguments = command.parse_args()
    if arguments.case:
        return case(*arguments.case)
    found, began = defaultdict(list), time.perf_counter()
    folder = arguments.folder and str(arguments.folder.resolve())
    turns = [(n, m) for n in chosen(NAMES, arguments.only) for m in arguments.methods]
    for name, method in turns * arguments.seeds:
        if time.perf_counter() - began > 60 * arguments.minutes:
            break
        with tempfile.TemporaryDirectory() as empty:
            try:
                for caches in ("cold", "filled"):
                    found[name, method, caches].append(in_folder(empty, name, method, folder))
                    print(name, method, caches, found[name, method, caches][-1], flush=True)
            except (RuntimeError, subprocess.TimeoutExpired) as error:  # a method may fail
                print(name, method, "failed:", str(error)[-300:], flush=True)
        records = [record_of(*key, processes) for key, processes in found.items() if processes]
        key = ("model", "method", "caches")
        save("waiting", {"draws": DRAWS, "compared": COMPARED}, key=key, waits=records)


if __name__ == "__main__":
    main()
