"""Published models, untouched: a default fit from Enter to verdict, beside nutpie.

    python benchmarks/published_models.py references [--limit 720]
    python benchmarks/published_models.py ours [--limit 600] [--again]
    python benchmarks/published_models.py compare
    python benchmarks/published_models.py list

Each model runs in a fresh process; PyTensor's folder is as earlier processes left it. The limit is
in processor seconds, of all threads, so that other work on the machine stops no model: 600 are five
minutes on two cores. ``seconds`` are those of a clock, ``cpu`` those of the processor. Both kinds
resume: a model that has a result is skipped, unless ``--again`` or the limit is now longer than
the one that stopped it. ``references`` runs nutpie once, four chains of 1000 draws at a target
acceptance of .95, and keeps quantiles in ``results/published``. ``ours`` sets nothing but the seed,
draws 4000 times and asks for diagnostics. The clock starts with the process and stops at our
verdict or at nutpie's R-hat; it includes the building of the model. Nutpie's chains run one after
another, which leaves its processor seconds as they are. W1 is in standard deviations of the
reference. At most 30 quantities of a model are compared, spread evenly over its variables. Our
draws of them lie in ``results/published/draws``, so that ``compare`` can take them up when a
reference is made later.
"""

import json
import resource
import signal
import subprocess
import time
import traceback
from collections import Counter
from operator import itemgetter

import numpy as np
import results
from measure import chosen, in_own_process, parser, save
from results import read

SEED, DRAWS, MOST = 1, 4000, 30
LEVELS = (np.arange(100) + 0.5) / 100
LIMITS = {"references": 720, "ours": 600, "compare": None}  # processor seconds
SETTINGS = {"seed": SEED, "draws": DRAWS}
PATIENCE = 20  # a process may take so many times its limit by the clock


def quantities(posterior, report=()):
    """Labels and draws (chain, draw, quantity) of at most ``MOST`` scalars of a posterior.

    Small variables are taken whole; of larger ones elements at equal distances.
    """
    names = sorted(report or posterior.data_vars)
    sizes = {name: int(np.prod(posterior[name].shape[2:])) for name in names}
    labels, columns, left = [], [], MOST
    for turn, name in enumerate(sorted(names, key=sizes.get)):
        shape, values = posterior[name].shape[2:], posterior[name].to_numpy()
        values = values.reshape(*values.shape[:2], -1)
        count = min(sizes[name], max(1, left // (len(names) - turn)))
        for at in np.linspace(0, sizes[name] - 1, count).round().astype(int):
            index = ",".join(map(str, np.unravel_index(at, shape)))
            labels.append(f"{name}[{index}]" if shape else name)
            columns.append(values[..., at])
        left -= count
    return labels, np.stack(columns, -1)


def summarise(labels, draws):
    """Median, spread, quantiles and effective sample size of what varies.

    Quantiles are in hundredths of a spread; the size is the smaller one of bulk and tails.
    """
    sizes = effective_sizes(draws)
    quantiles = np.quantile(draws.reshape(-1, draws.shape[-1]), LEVELS, axis=0)
    centre, spread = np.median(quantiles, axis=0), quantiles.std(axis=0)
    return {
        label: [
            float(f"{c:.9g}"),
            float(f"{s:.5g}"),
            (100 * (q - c) / s).round().astype(int).tolist(),
            round(float(size)),
        ]
        for label, c, s, q, size in zip(labels, centre, spread, quantiles.T, sizes, strict=True)
        if s > 1e-9 * max(1, abs(c))
    }


def as_dataset(draws):
    """Draws (chain, draw, quantity) for ArviZ."""
    import xarray as xr

    return xr.Dataset({"x": (("chain", "draw", "quantity"), draws)})


def effective_sizes(draws):
    """Effective sample sizes of each quantity, of the bulk or the tails, whichever is smaller."""
    import arviz as az

    data = as_dataset(draws)
    sizes = [az.ess(data, method=method)["x"].to_numpy() for method in ("bulk", "tail")]
    return np.fmax(1, np.nan_to_num(np.minimum(*sizes)))


def convergence(draws):
    """Largest R-hat and smallest bulk effective sample size of draws (chain, draw, quantity)."""
    import arviz as az

    data = as_dataset(draws)
    rhat, ess = az.rhat(data)["x"].to_numpy(), az.ess(data)["x"].to_numpy()
    return {"rhat": round(float(np.nanmax(rhat)), 3), "ess": round(float(np.nanmin(ess)))}


def compare(kept, labels, draws):
    """W1 and ratios of 90 % widths to the quantiles of a reference; the worst, and where."""
    columns = dict(zip(labels, draws.reshape(-1, draws.shape[-1]).T, strict=True))
    names, w1, ratios = [name for name in kept if name in columns], [], []
    for name in names:
        centre, spread, hundredths = kept[name][:3]
        scaled, truth = (columns[name] - centre) / spread, np.array(hundredths) / 100
        w1.append(np.abs(np.quantile(scaled, LEVELS) - truth).mean())
        width = np.diff(np.interp((0.05, 0.95), LEVELS, truth))[0]
        ratios.append(np.diff(np.quantile(scaled, (0.05, 0.95)))[0] / width)
    worst, furthest = np.abs(np.log(ratios)).argmax(), int(np.argmax(w1))
    return {
        "w1_median": round(float(np.median(w1)), 3),
        "w1_max": round(float(w1[furthest]), 3),
        "w1_of": names[furthest],
        "width": round(float(ratios[worst]), 3),
        "width_of": names[worst],
    }


def spent(began):
    """Seconds since the process was asked for, and those of the processor, compilers included."""
    compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + compilers.ru_utime + compilers.ru_stime
    return {"seconds": round(time.time() - began, 1), "cpu": round(cpu, 1)}


def reference(name, began):
    """Nutpie's quantiles, and how well it did."""
    import nutpie
    from published import MODELS

    entry = MODELS[name]
    model = entry.build()
    compiled = nutpie.compile_pymc_model(model)
    tree = nutpie.sample(
        compiled,
        draws=1000,
        tune=1000,
        chains=4,
        cores=1,
        seed=SEED,
        target_accept=0.95,
        progress_bar=False,
    )
    labels, draws = quantities(tree["posterior"].to_dataset(), entry.report)
    found = {"d": int(compiled.n_dim)} | convergence(draws)
    found["divergences"] = int(tree["sample_stats"]["diverging"].sum())
    return found | spent(began) | {"quantities": summarise(labels, draws)}


def ours(name, began):
    """A default fit, its verdict, and how far it is from the reference."""
    from published import MODELS

    import pymc_isomix as pmi

    entry = MODELS[name]
    model = entry.build()
    approx = pmi.IsoMix(random_seed=SEED, model=model).fit(progressbar=False)
    drawn = approx.sample(DRAWS)
    report = approx.diagnostics(progressbar=False)
    record = {"d": int(approx.mixture.means.shape[1])} | spent(began)
    record["gradients"] = drawn["fit"].attrs.get("n_gradients") if "fit" in drawn else None
    record |= {"verdict": report.verdict, "advice": report.advice}
    record |= {"khat": round(float(report["khat"]), 2)}
    labels, draws = quantities(drawn["posterior"].to_dataset(), entry.report)
    record["finite"] = bool(np.isfinite(draws).all())
    draws_of(entry).parent.mkdir(parents=True, exist_ok=True)
    np.savez(draws_of(entry), labels=labels, draws=draws.astype("float32"))
    return record


def draws_of(entry):
    """Where our draws lie."""
    return results.RESULTS / "published" / "draws" / f"{entry.slug}.npz"


def compared(entry, record):
    """A record with how far our draws are from the reference, where there are both."""
    kept = stored(entry).get("quantities")
    if not (kept and record.get("finite") and draws_of(entry).exists()):
        return record
    with np.load(draws_of(entry)) as ours:
        return record | compare(kept, ours["labels"].tolist(), ours["draws"].astype(float))


def stored(entry):
    """What is kept of nutpie's run, empty where there is none."""
    return read(f"published/{entry.slug}") or {}


def attempt(case, limit):
    """What a process of its own finds, or how it failed."""
    began = time.time()
    try:
        own = case | {"began": began, "limit": limit}
        found = in_own_process(__file__, own, limit=PATIENCE * limit)
        return {"seconds": round(time.time() - began, 1)} | found
    except (subprocess.TimeoutExpired, RuntimeError) as error:
        if getattr(error, "returncode", -signal.SIGXCPU) == -signal.SIGXCPU:
            return {"error": f"no result within {limit:.0f} processor s", "stopped_after": limit}
        told = " ".join(str(error).split())[-300:]
        return {"error": f"the process ended: {told}", "seconds": round(time.time() - began, 1)}


def commit():
    """What the library is, where the folder is git's."""
    command = ["git", "-C", str(results.RESULTS), "rev-parse", "--short", "HEAD"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def wanted(record, limit, again):
    """Whether a model is to run: it has no result, or was stopped after less time."""
    return again or not record or record.get("stopped_after", limit) < limit


def in_turns(entries):
    """One of each group, then the next of each, so that what is done at any time has all kinds."""
    groups = Counter()
    places = []
    for entry in entries:
        places.append(groups[entry.group])
        groups[entry.group] += 1
    return [entry for _, entry in sorted(zip(places, entries, strict=True), key=itemgetter(0))]


def run_references(entries, limit, again):
    """Write the file of each model that has none."""
    for entry in entries:
        if wanted(stored(entry), limit, again):
            found = attempt({"what": "references", "name": entry.name}, limit)
            head = {"model": entry.name, "group": entry.group}
            results.write(f"published/{entry.slug}", head | found)
            print(entry.name, {k: v for k, v in found.items() if k != "quantities"}, flush=True)


def run_ours(entries, limit, again):
    """Add each model that has no record to the JSON."""
    for entry in entries:
        if wanted(fits().get(entry.name), limit, again):
            found = attempt({"what": "ours", "name": entry.name}, limit)
            head = {"model": entry.name, "group": entry.group, "commit": commit()}
            record = compared(entry, head | found)
            save("published", SETTINGS, key=("model",), fits=[record])
            print(record, flush=True)


def run_compare(entries, *_):
    """Measure the draws that were made before their reference."""
    kept = fits()
    records = [compared(entry, kept[entry.name]) for entry in entries if entry.name in kept]
    save("published", SETTINGS, key=("model",), fits=records)


def fits():
    """Records of our fits by model."""
    return {fit["model"]: fit for fit in (read("published") or {"fits": []})["fits"]}


def main():
    command = parser(__doc__)
    command.add_argument("what", choices=(*LIMITS, "list"), nargs="?")
    command.add_argument("--limit", type=float, help="processor seconds of a process")
    command.add_argument("--again", action="store_true", help="those with a result, too")
    arguments = command.parse_args()
    if arguments.case:
        case = arguments.case
        name = case["name"]
        resource.setrlimit(resource.RLIMIT_CPU, (int(case["limit"]), int(case["limit"]) + 5))
        try:
            found = {"references": reference, "ours": ours}[case["what"]](name, case["began"])
        except Exception as error:  # the record of a failure
            told = str(error).strip().splitlines() or [""]
            found = {"error": f"{type(error).__name__}: {told[0]}"[:300]}
            traceback.print_exc()
        print(json.dumps(found))
        return
    from published import MODELS

    entries = in_turns([MODELS[name] for name in chosen(MODELS, arguments.only)])
    if arguments.what == "list":
        for entry in entries:
            print(f"{entry.group} | {entry.name} | {entry.source}")
        return
    limit = arguments.limit or LIMITS[arguments.what]
    act = {"references": run_references, "ours": run_ours, "compare": run_compare}
    act[arguments.what](entries, limit, arguments.again)


if __name__ == "__main__":
    main()
