"""From Enter to the verdict: where the seconds go, in fresh processes, cold and with filled caches.

    python benchmarks/waiting.py [--only "eight schools" ...] [--methods isomix nuts] [--seeds 3]

Each process imports, builds a model, fits it with nothing set, draws 1000 times and asks for
diagnostics where there are any. The first process of a model has empty caches, the second those
that the first filled: PyTensor's folder, and what lies in it. ``first step`` is as PyMC's ADVI and
ours may be compared: from the call of ``pm.fit`` to the first finished step, on JAX.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import wraps

import numpy as np
from measure import chosen, parser, save

METHODS = ("isomix", "advi", "nuts", "nutpie", "numpyro")
NAMES = ("eight schools", "varying slopes", "crossed poisson", "hsgp", "nested", "outliers")
DRAWS = 1000


def build(name):
    """The model of a name, hierarchies non-centred."""
    from problems.hierarchies import HIERARCHIES
    from problems.models import MODELS

    return HIERARCHIES[name].build(False) if name in HIERARCHIES else MODELS[name]()


class Clock:
    """Seconds by what they were spent on; what is inside another counts for the inner."""

    def __init__(self):
        self.seconds, self.inner = defaultdict(float), [0.0]

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

        from pymc_isomix.target import batching

        events = {
            "/jax/core/compile/jaxpr_trace_duration": "tracing",
            "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
            "/jax/core/compile/backend_compile_duration": "XLA",
        }

        def listen(event, seconds, **_):
            if event in events:
                self.seconds[events[event]] += seconds
                self.inner[-1] += seconds

        jax.monitoring.register_event_duration_secs_listener(listen)
        prepare = self.timed("rewriting", FunctionMaker.prepare_fgraph)
        FunctionMaker.prepare_fgraph = staticmethod(prepare)
        for name in ("rewrite_graph", "rewrite_pregrad"):
            setattr(batching, name, self.timed("rewriting", getattr(batching, name)))


def isomix(model, clock):
    """Seconds of a default fit, of its draws and of its diagnostics."""
    import pymc_isomix as pmi
    from pymc_isomix.interface.approximation import IsotropicMixture

    clock.watch()
    closing = clock.timed("closing line", IsotropicMixture.closing_line)
    IsotropicMixture.closing_line = closing
    inference = clock.timed("building", pmi.IsoMix)(model=model, random_seed=0)
    approx = clock.timed("building", inference.fit)(backend="jax", progressbar=False)
    clock.timed("sample", approx.sample)(DRAWS)
    clock.timed("diagnostics", approx.diagnostics)(progressbar=False)
    run = approx.history.run_seconds
    clock.seconds["building"] -= run
    clock.seconds["run"] = run


def advi(model, clock):
    """``pm.fit("advi")`` and its draws."""
    import pymc as pm

    with model:
        approx = clock.timed("fit", pm.fit)(method="advi", backend="jax", progressbar=False)
        clock.timed("sample", approx.sample)(DRAWS)


def nuts(model, clock, **options):
    """``pm.sample()``, with a sampler of another package."""
    import pymc as pm

    clock.timed("sample", pm.sample)(model=model, random_seed=0, progressbar=False, **options)


def first_step(model, method):
    """End the process at the first step, with the seconds that it took."""
    import pymc as pm

    if method == "isomix":
        import pymc_isomix as pmi

    def finish(*_):
        print(json.dumps({"first step": time.perf_counter() - began}), flush=True)
        os._exit(0)

    began = time.perf_counter()
    with model:
        how = "advi" if method == "advi" else pmi.IsoMix(random_seed=0)
        pm.fit(1000, method=how, backend="jax", callbacks=[finish], progressbar=False)


def case(name, method, until="verdict"):
    """Print the seconds of this process."""
    clock, began = Clock(), time.perf_counter()
    clock.timed("import PyMC", __import__)("pymc")
    if method == "isomix":
        clock.timed("import", __import__)("pymc_isomix")
    imported = time.perf_counter()
    model = build(name)
    if until == "first step":
        first_step(model, method)
    built = time.perf_counter()
    samplers = {"nuts": {}, "nutpie": {"nuts_sampler": "nutpie"}}
    samplers["numpyro"] = {"nuts_sampler": "numpyro"}
    if method in samplers:
        nuts(model, clock, **samplers[method])
    else:
        {"isomix": isomix, "advi": advi}[method](model, clock)
    total = time.perf_counter() - built + imported - began  # but for what builds the model
    print(json.dumps(clock.seconds | {"total": total}))


def in_folder(folder, *arguments):
    """What a process prints whose caches lie in a folder."""
    caches = {"PYTENSOR_FLAGS": f"base_compiledir={folder}", "NUMBA_CACHE_DIR": folder}
    command = [sys.executable, "-W", "ignore", __file__, "--case", json.dumps(arguments)]
    environment = {**os.environ, **caches}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if answer.returncode:
        raise RuntimeError(answer.stderr[-600:])
    return json.loads(answer.stdout.splitlines()[-1])


def measure(name, method, seeds):
    """Medians of cold processes, and of those that come after them."""
    found = defaultdict(lambda: defaultdict(list))
    for _ in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("cold", "filled"):
                for part, seconds in in_folder(folder, name, method).items():
                    found[cache][part].append(seconds)
        if method in ("isomix", "advi"):
            with tempfile.TemporaryDirectory() as folder:
                for cache in ("cold", "filled"):
                    seconds = in_folder(folder, name, method, "first step")["first step"]
                    found[cache]["first step"].append(seconds)
    for cache, parts in found.items():
        medians = {part: round(float(np.median(values)), 2) for part, values in parts.items()}
        yield {"model": name, "method": method, "caches": cache, **medians}


def main():
    command = parser(__doc__, seeds=1)
    command.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    arguments = command.parse_args()
    if arguments.case:
        return case(*arguments.case)
    records = []
    for name in chosen(NAMES, arguments.only):
        for method in arguments.methods:
            for record in measure(name, method, arguments.seeds):
                records.append(record)
                print(record, flush=True)
    key = ("model", "method", "caches")
    save("waiting", {"draws": DRAWS, "repeats": arguments.seeds}, key=key, waits=records)


if __name__ == "__main__":
    main()
