"""From the call of ``pm.fit`` to its first finished step, in fresh processes with empty caches.

    python benchmarks/cold_start.py --database posteriordb/posterior_database [--backend numba]

ADVI and ``IsoMix()`` take turns on the same backend.
"""

import json
import os
import time

import numpy as np
from measure import chosen, in_own_process, parser, save

METHODS = ("advi", "isomix")


def time_first_step(database, name, method, backend):
    """Print the seconds of this process's first fit up to its first step, and leave."""
    import pymc as pm
    from problems.posteriors import load_model

    import pymc_isomix as pmi

    model = load_model(database, name)

    def finish(*_):
        print(json.dumps(time.perf_counter() - start), flush=True)
        os._exit(0)

    start = time.perf_counter()
    with model:
        how = "advi" if method == "advi" else pmi.IsoMix(random_seed=0)
        pm.fit(1000, method=how, backend=backend, callbacks=[finish], progressbar=False)


def main():
    arguments = parser(__doc__, database=True, seeds=5).parse_args()
    if arguments.case:
        time_first_step(*arguments.case)
    from problems.posteriors import BUILDERS

    records = []
    for name in chosen(BUILDERS, arguments.only):
        seconds = {method: [] for method in METHODS}
        for _ in range(arguments.seeds):
            for method in METHODS:
                case = [str(arguments.database), name, method, arguments.backend]
                seconds[method].append(round(in_own_process(__file__, case, cold=True), 2))
        records.append({"backend": arguments.backend, "posterior": name, **seconds})
        medians = {f"{m}_median": round(float(np.median(seconds[m])), 2) for m in METHODS}
        ratio = medians["isomix_median"] / medians["advi_median"]
        records[-1] |= {**medians, "ratio": round(ratio, 2)}
        print(records[-1], flush=True)
    save("cold_start", {"repeats": arguments.seeds}, key=("backend", "posterior"), seconds=records)


if __name__ == "__main__":
    main()
