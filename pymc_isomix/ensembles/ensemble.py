"""An ensemble: fits of one model from many starts, on many workers, joined."""

import logging
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import scipy  # which loads its parts when they are used

from pymc_isomix.backend.checks import check_count, check_number, check_seed
from pymc_isomix.ensembles import joining, workers
from pymc_isomix.ensembles.checkpoints import Checkpoints, digest, digests
from pymc_isomix.ensembles.joined import JoinedMixture, join_saved
from pymc_isomix.ensembles.many import Fitter
from pymc_isomix.interface.api import ARGUMENTS
from pymc_isomix.interface.checks import check_model, refuse_unknown
from pymc_isomix.interface.settings import Settings
from pymc_isomix.model import starts
from pymc_isomix.model.space import FlatSpace

logger = logging.getLogger(__name__)

CANDIDATES = 5  # candidate starts per start
FEWEST_COMPONENTS = 20
FIRST_REFINED = 1_000_000  # number of the first fit of a single mode; restarts have lower numbers


def fit_ensemble(
    model: pm.Model | None = None,
    *,
    restarts: int = 8,
    n: int = 10000,
    n_components: int = FEWEST_COMPONENTS,
    n_jobs: int | None = None,
    random_seed: int | np.random.Generator | None = None,
    init: str = "prior",
    refine: bool = True,
    time_limit: float | None = None,
    checkpoint: str | Path | None = None,
    previous: JoinedMixture | None = None,
    progressbar: bool = True,
    backend: str | None = None,
    compile_kwargs: dict | None = None,
    **isomix_kwargs: Any,
) -> JoinedMixture:
    r"""Fit a model from many starts, in parallel, and join the fits.

    Each restart is a separate fit, with its own metric and sites. It starts in its own stratum of
    the prior or of a box. :func:`join` combines the fits into one mixture. joblib runs the
    restarts: on a cluster, use ``with joblib.parallel_config(backend="dask")`` (or ``"ray"``). The
    results do not depend on the workers or on ``n_jobs``.

    Parameters
    ----------
    model : pymc.Model, optional
        The model of the context when not given.
    restarts : int
    n : int
        Largest number of iterations per restart.
    n_components : int
        Largest number of components per restart.
    n_jobs : int, optional
        Number of workers; -1 for all cores. By default one, or the setting of
        ``joblib.parallel_config``.
    random_seed : int or Generator, optional
        Seeds each restart by its number.
    init : {"prior", "uniform", "jitter"}
        Where the starts lie, as for :class:`IsoMix`: over the prior, over a box of half width
        ``init_width`` in unconstrained space (around ``start`` when given), or near the initial
        point. ``"prior"`` means ``"uniform"`` for an improper prior.
    refine : bool
        Fit each mode once more, starting from draws of it, and join these fits too. Each mode then
        has its own metric and sites; the modes of one restart share them.
    time_limit : float, optional
        Seconds per restart; a restart that takes longer counts as failed.
    checkpoint : str or Path, optional
        A folder that stores every restart as soon as it ends. A call with the same model, data and
        arguments continues from there.
    previous : JoinedMixture, optional
        The result of an earlier call with the same arguments. Only the restarts that it lacks are
        fitted: failed ones, ones that were not reached, or further ones.
    progressbar : bool
    backend, compile_kwargs
        As in :meth:`IsoMix.fit`.
    **isomix_kwargs
        Of :class:`IsoMix`.

    Returns
    -------
    JoinedMixture
        Its ``failures`` list the restarts that raised an error, lost their worker or exceeded the
        time limit. After an interrupt it holds the restarts that have finished.

    Raises
    ------
    RuntimeError
        If all restarts failed; the message says why.
    ValueError
        If an argument breaks its rule, or ``checkpoint`` belongs to other fits.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model() as model:
    ...     mu = pm.NormalMixture("mu", w=[0.5, 0.5], mu=[-5, 5], sigma=1)
    >>> approx = pmi.fit_ensemble(
    ...     model, restarts=2, n=300, n_components=2, random_seed=1, progressbar=False
    ... )
    >>> approx.sample(100).posterior["mu"].shape
    (1, 100)
    """
    model = check_model(model)
    check_count("restarts", restarts)
    if time_limit is not None:
        check_number("time_limit", time_limit)
    refuse_unknown("fit_ensemble", isomix_kwargs, ARGUMENTS | {*signature(fit_ensemble).parameters})
    seed: Any = check_seed(random_seed)
    settings = Settings(n_components=n_components, init=init, **isomix_kwargs)
    space = FlatSpace.of(model)
    store = None
    if checkpoint is not None:
        about: dict = {
            "random_seed": seed,
            "n": n,
            "restarts": restarts,
            "variables": space.describe(),
        }
        about |= {"settings": settings.record(), **digests(model)}
        about |= {name: digest(getattr(settings, name)) for name in ("start", "start_sigma")}
        store = Checkpoints(checkpoint, about)
        seed = store.random_seed
    if seed is None:
        seed = None if previous is None else previous.random_seed
    seed = np.random.SeedSequence().entropy if seed is None else seed
    seeds, streams = workers.seeds_of(seed, restarts), Streams.of(seed)
    fits = {} if previous is None else {r: f for r, f in previous.fits.items() if r < FIRST_REFINED}
    fits |= store.read(restarts) if store is not None else {}
    isomix = {**isomix_kwargs, "n_components": n_components}
    isomix.pop("start", None)  # the starts of the strata replace it
    options = {"backend": backend, "compile_kwargs": compile_kwargs}
    payload = workers.Payload(fit_one, Fitter(model, isomix, options, n, time_limit))
    shown: dict = {"n_jobs": n_jobs, "progressbar": progressbar}

    def store_result(number, saved):
        fits[number] = saved
        if store is not None and number < restarts:
            store.write(number, saved)

    failures: list[workers.Failure] = []
    interrupted = False
    if missing := [number for number in range(restarts) if number not in fits]:
        places = stratified_starts(space, restarts, settings, streams.starts)
        tasks = [workers.Task(number, seeds[number], places[number]) for number in missing]
        failures, interrupted = workers.run(
            payload, tasks, on_result=store_result, description="Restarts", **shown
        )
        workers.warn_of_failures(failures, "restarts", restarts, len(fits), interrupted)
    approx = join_saved(space, fits, random_state(streams.join))
    if refine and not interrupted:
        rng = np.random.default_rng(streams.refinement)
        starts_of_modes = [
            piece.draw(n_components, rng)
            for block in approx.density.blocks
            for piece in joining.pieces_of(block)
        ]
        tasks = [
            workers.Task(FIRST_REFINED + i, int(rng.integers(2**30)), start)
            for i, start in enumerate(starts_of_modes)
        ]
        failed, _ = workers.run(
            payload, tasks, on_result=store_result, description="Modes", **shown
        )
        workers.warn_of_failures(failed, "fits of single modes", len(tasks), len(fits), False)
        approx = join_saved(space, fits, random_state(streams.last_join))
    approx.fits, approx.failures, approx.random_seed = fits, failures, seed
    logger.info(f"{approx}")
    return approx


class Streams(NamedTuple):
    """Independent random numbers of an ensemble, apart from those of its restarts."""

    starts: np.random.SeedSequence
    join: np.random.SeedSequence
    refinement: np.random.SeedSequence
    last_join: np.random.SeedSequence

    @classmethod
    def of(cls, seed: Any) -> Any:
        """Spawn them from the seed of the ensemble."""
        return cls(*np.random.SeedSequence(seed).spawn(len(cls._fields)))


def random_state(stream: Any) -> Any:
    """Make a RandomState of a SeedSequence."""
    return np.random.RandomState(np.random.MT19937(stream))


def fit_one(fitter: Any, task: Any) -> Any:
    """Fit one restart, in a worker."""
    return fitter.fit(task.own, task.seed).saved()


def stratified_starts(space: FlatSpace, restarts: Any, settings: Any, stream: Any) -> Any:
    """Choose the starts of each restart from a stratum of the candidates.

    Strata are clusters of the ranks of the candidates, which do not depend on scales.

    Parameters
    ----------
    stream : numpy.random.SeedSequence
        Its children seed the candidates and their strata.

    Returns
    -------
    list of (K, d) array
    """
    of_candidates, of_strata = stream.spawn(2)
    n_components, rng = settings.n_components, np.random.default_rng(of_strata)
    seed = int(of_candidates.generate_state(1)[0] >> 2)
    options = {"start": settings.start, "init_width": settings.init_width}
    n_candidates = CANDIDATES * restarts * n_components
    try:
        candidates = starts.starting_means(
            space, n_candidates, init=settings.init, random_seed=seed, **options
        )
    except ValueError:
        if settings.init != "prior":
            raise
        logger.info("a prior is improper: the starts are uniform in a box of half width init_width")
        candidates = starts.starting_means(
            space, n_candidates, init="uniform", random_seed=seed, **options
        )
    ranks = candidates.argsort(axis=0).argsort(axis=0) / n_candidates
    label = np.zeros(n_candidates, dtype=int)
    if restarts > 1:
        _, label = scipy.cluster.vq.kmeans2(ranks, restarts, minit="++", rng=rng)
    found = []
    for number in range(restarts):
        own = np.flatnonzero(label == number)
        if not own.size:
            own = np.arange(n_candidates)
        chosen = rng.choice(own, n_components, replace=own.size < n_components)
        found.append(candidates[chosen])
    return found
