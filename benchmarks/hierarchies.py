"""Hierarchies, each written centred and non-centred, beside long runs of NUTS.

    python benchmarks/hierarchies.py references --folder references   # once, ten minutes
    python benchmarks/hierarchies.py fits --folder references [--method nuts] [--coordinates affine]
    python benchmarks/hierarchies.py sbc [--simulations 100]
    python benchmarks/hierarchies.py scaling [--only 1000]

References are draws of nutpie on the non-centred form at a target acceptance of 0.97, with a log
evidence by a bridge from a Gaussian, or exact. ``fits`` compares every quantity that both ways of
writing have, scales as logarithms: the worst ratio of standard deviations (of the central 90 %,
where tails are too heavy for them), and the largest scaled Wasserstein-1 distance. KL is the
reference's evidence less the ELBO. ``scaling`` is of varying intercepts, its truth a quadrature.
"""

import inspect
import json
import logging
import time
from pathlib import Path

import arviz as az
import numpy as np
import pymc as pm
from calibration import calibrate
from measure import (
    chosen,
    cost,
    draws_of,
    fit,
    flatten,
    in_own_process,
    judgement,
    parser,
    peak_mib,
    save,
    scaled_w1,
)
from problems.flat import FlatModel
from problems.hierarchies import HIERARCHIES
from problems.intercepts import intercepts_truth, small_hierarchy, varying_intercepts
from scipy.special import logsumexp
from scipy.stats import kurtosis, multivariate_normal

import pymc_isomix as pmi

DRAWS = 10_000
WRITTEN = {"centred": True, "non-centred": False}
LENGTHS, RHAT = (2500, 10_000), 1.005  # of a reference: draws a chain until R-hat is below
HEAVY = 6.0  # excess kurtosis from which a standard deviation of draws is mostly noise
GROUPS, LIMIT = (100, 1000, 10_000), 900  # seconds
ADVI_STEPS = 30_000
SCALING_DRAWS = 2000  # of ten thousand effects


def bridge(draws, log_p, log_density, seed=0):
    """Log evidence by Meng and Wong's optimal bridge from a Gaussian; one estimate a chain.

    The Gaussian has the moments of the other chains: those of the same draws would flatter it.
    """
    rng, estimates = np.random.default_rng(seed), []
    for chain, own in enumerate(draws):
        others = np.concatenate(np.delete(draws, chain, axis=0))
        gaussian = multivariate_normal(others.mean(0), np.cov(others.T), allow_singular=True)
        points = np.atleast_2d(gaussian.rvs(len(own), random_state=rng))
        theirs = log_p[chain] - gaussian.logpdf(own)
        ours = log_density(points) - gaussian.logpdf(points)
        ours = np.where(np.isfinite(ours), ours, -np.inf)
        evidence = np.median(theirs)
        for _ in range(500):
            above = ours - np.logaddexp(ours, evidence)
            below = -np.logaddexp(theirs, evidence)
            evidence = logsumexp(above) - logsumexp(below)
        estimates.append(evidence)
    return float(np.mean(estimates)), float(np.std(estimates) / np.sqrt(len(draws) - 1))


def batched_log_density(model):
    """JAX function of unconstrained points (S, d), in the order of the model's variables."""
    import jax

    jax.config.update("jax_enable_x64", True)
    one = FlatModel(model).log_density()
    return jax.jit(lambda points: jax.lax.map(one, points, batch_size=200))


def worst_rhat(posterior):
    """Largest R-hat; NaN, that of constants, is skipped."""
    rhat = az.rhat(posterior)
    return max(float(rhat[v].max()) for v in rhat.data_vars)


def sample_reference(name):
    """Draws by name, and how good they are."""
    import nutpie

    model, began = HIERARCHIES[name].build(centred=False), time.perf_counter()
    compiled, names = nutpie.compile_pymc_model(model), HIERARCHIES[name].quantities()
    options = {"target_accept": 0.97, "store_unconstrained": True, "progress_bar": False}
    for length in LENGTHS:
        tree = nutpie.sample(
            compiled, draws=length, tune=2000, chains=4, cores=2, seed=1, **options
        )
        posterior, stats = tree["posterior"].to_dataset()[names], tree["sample_stats"]
        if worst_rhat(posterior) < RHAT:
            break
    ess = az.ess(posterior)
    unconstrained, log_p = stats["unconstrained_draw"].values, stats["logp"].values
    log_density = batched_log_density(model)
    ours = np.asarray(log_density(unconstrained[0, :50]))
    np.testing.assert_allclose(ours, log_p[0, :50], atol=1e-6)  # the same order of variables
    evidence, error = bridge(unconstrained, log_p, lambda z: np.asarray(log_density(z)))
    every = length // LENGTHS[0]
    return {key: draws_of(tree)[key][::every] for key in names}, {
        "rhat": worst_rhat(posterior),
        "draws": 4 * length,
        "ess": min(float(ess[v].min()) for v in ess.data_vars),
        "divergences": int(stats["diverging"].sum()),
        "log_evidence": evidence,
        "log_evidence_se": error,
        "seconds": round(time.perf_counter() - began, 1),
    }


def references(arguments):
    """Write what the folder has not."""
    arguments.folder.mkdir(exist_ok=True, parents=True)
    for name in chosen(HIERARCHIES, arguments.only):
        path = arguments.folder / f"{name.replace(' ', '_')}.npz"
        if not path.exists():
            if HIERARCHIES[name].exact:
                draws, evidence = HIERARCHIES[name].exact(DRAWS)
                notes = {"log_evidence": evidence, "log_evidence_se": 0.0}
            else:
                draws, notes = sample_reference(name)
            np.savez_compressed(path, notes=json.dumps(notes), **draws)
        print(name, np.load(path)["notes"], flush=True)


def load_reference(folder, name):
    """Draws by name, and notes."""
    stored = dict(np.load(folder / f"{name.replace(' ', '_')}.npz"))
    return {key: stored[key] for key in stored if key != "notes"}, json.loads(str(stored["notes"]))


def spread(columns, heavy):
    """Standard deviation, or the width of the central 90 % where tails are heavy."""
    width = np.diff(np.quantile(columns, (0.05, 0.95), axis=0), axis=0)[0]
    return np.where(heavy, width, columns.std(axis=0))


def compare(draws, reference, scales):
    """Worst ratio of spreads and largest W1, over all quantities; the same of the scales alone."""
    labels, ours = flatten(draws, reference)
    _, truth = flatten(reference, reference)
    scale = np.array([label.split("[")[0] in scales for label in labels])
    with np.errstate(divide="ignore", invalid="ignore"):
        ours, truth = (np.where(scale, np.log(columns), columns) for columns in (ours, truth))
    vary = truth.std(axis=0) > 1e-8  # the diagonal of a correlation matrix does not
    ours, truth, scale = ours[:, vary], truth[:, vary], scale[vary]
    labels = np.array(labels)[vary]
    heavy = kurtosis(truth) > HEAVY
    ratio, w1 = spread(ours, heavy) / spread(truth, heavy), scaled_w1(ours, truth)
    off = np.abs(np.log(ratio))
    worst, furthest = off.argmax(), w1.argmax()
    record = {"sd_ratio": float(ratio[worst]), "sd_of": str(labels[worst])}
    record |= {"w1_max": float(w1[furthest]), "w1_of": str(labels[furthest])}
    if scale.any():
        worst = np.where(scale, off, -1).argmax()
        record |= {"scale_ratio": float(ratio[worst]), "scale_of": str(labels[worst])}
    return record | {"log_sd_ratio": float(off.max())}


def coordinates(arguments):
    """The option, where ``IsoMix`` knows it."""
    known = "coordinates" in inspect.signature(pmi.IsoMix).parameters
    return {"coordinates": arguments.coordinates} if known else {}


def isomix_fit(model, arguments, seed):
    """Draws of a default fit, and what it says of itself."""
    approx = fit(model, seed, backend=arguments.backend, **coordinates(arguments))
    report = approx.diagnostics(DRAWS, random_seed=seed)
    draws = draws_of(approx.sample(DRAWS, random_seed=seed))
    return draws, {"n_dim": approx.ddim, **judgement(report), **cost(approx)}


def nuts_fit(model, arguments, seed):
    """Draws of ``pm.sample()`` with nothing set, and its own warnings."""
    began = time.perf_counter()
    tree = pm.sample(model=model, random_seed=seed, progressbar=False)
    return draws_of(tree), {
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "rhat": worst_rhat(tree["posterior"].to_dataset()),
        "seconds": round(time.perf_counter() - began, 2),
    }


def fits(arguments):
    """Fit each model in both ways, and compare."""
    method, records = arguments.method or "isomix", []
    run = {"isomix": isomix_fit, "nuts": nuts_fit}[method]
    for name in chosen(HIERARCHIES, arguments.only):
        reference, notes = load_reference(arguments.folder, name)
        for written, centred in WRITTEN.items():
            for seed in range(arguments.seeds):
                records.append({"model": name, "written": written, "seed": seed})
                try:
                    draws, record = run(HIERARCHIES[name].build(centred), arguments, seed)
                    record |= compare(draws, reference, HIERARCHIES[name].scales)
                except Exception as error:  # a failure is a result
                    record = {"error": f"{type(error).__name__}: {error}"[:200]}
                if "elbo" in record:
                    record["kl"] = notes["log_evidence"] - record["elbo"]
                    record["kl_se"] = notes["log_evidence_se"]
                records[-1] |= record
                print(records[-1], flush=True)
    suffix = "" if method == "isomix" else f"_{method}"
    suffix += "" if arguments.coordinates == "auto" else f"_{arguments.coordinates}"
    settings = {"draws": DRAWS, "coordinates": arguments.coordinates}
    save(f"hierarchies{suffix}", settings, key=("model", "written"), fits=records)


def sbc(arguments):
    """Simulation-based calibration of a centred hierarchy of eight groups, draws moved or not."""
    options = coordinates(arguments)
    run = (small_hierarchy, arguments.simulations, arguments.backend)
    save("hierarchies_sbc", options, records=list(calibrate(*run, transitions=(0, 20), **options)))


def scaling_case(method, written, n_groups):
    """Seconds and peak memory of one method, and its scales beside the truth."""
    model = varying_intercepts(n_groups, WRITTEN[written])
    before, began = peak_mib(), time.perf_counter()
    if method == "isomix":
        draws = draws_of(fit(model, 0).sample(SCALING_DRAWS, random_seed=0))
    elif method == "advi":
        with model:
            approx = pm.fit(ADVI_STEPS, method="advi", random_seed=0, progressbar=False)
        draws = draws_of(approx.sample(SCALING_DRAWS, random_seed=0))
    else:
        draws = draws_of(pm.sample(model=model, random_seed=0, progressbar=False))
    record = {"seconds": time.perf_counter() - began, "peak_mib": peak_mib() - before}
    for name, (mean, sd) in intercepts_truth(n_groups).items():
        log_scale = np.log(draws[name])
        record[f"{name}_shift"] = float((log_scale.mean() - mean) / sd)
        record[f"{name}_ratio"] = float(log_scale.std() / sd)
    return record


def scaling(arguments):
    """Each method in a process of its own."""
    records = []
    for n_groups in (int(n) for n in chosen(map(str, GROUPS), arguments.only)):
        for method in [arguments.method] if arguments.method else ("isomix", "advi", "nuts"):
            for written in WRITTEN:
                case = [method, written, n_groups]
                record = dict(zip(("method", "written", "groups"), case, strict=True))
                try:
                    record |= in_own_process(__file__, case, limit=LIMIT)
                    records.append(record)
                except Exception as error:  # too slow, or too large
                    record["error"] = str(error)[-200:]
                print(record, flush=True)
    settings = {"advi_steps": ADVI_STEPS, "limit": LIMIT}
    save("hierarchies_scaling", settings, key=("groups", "method", "written"), cases=records)


def main():
    command = parser(__doc__, seeds=5)
    runs = {run.__name__: run for run in (references, fits, sbc, scaling)}
    command.add_argument("what", choices=runs, nargs="?")
    command.add_argument("--folder", type=Path, help="where the references lie")
    methods = ("isomix", "advi", "nuts")
    command.add_argument("--method", choices=methods, help="isomix; all of them for scaling")
    command.add_argument("--coordinates", default="auto", choices=("auto", "affine"))
    command.add_argument("--simulations", type=int, default=100)
    arguments = command.parse_args()
    logging.getLogger("pymc").setLevel(logging.ERROR)
    if arguments.case:
        print(json.dumps(scaling_case(*arguments.case)))
    else:
        runs[arguments.what](arguments)


if __name__ == "__main__":
    main()
