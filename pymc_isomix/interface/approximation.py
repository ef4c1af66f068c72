"""The approximation as PyMC knows it: an Approximation of one mixture group."""

import logging
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from pymc.backends.base import MultiTrace
from pymc.variational.approximations import SingleGroupApproximation

from pymc_isomix.backend.checks import check_choice, check_count
from pymc_isomix.backend.compilation import one_blas_thread
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.checks import refuse_misspelt, refuse_unknown
from pymc_isomix.interface.group import IsotropicMixtureGroup
from pymc_isomix.model import traces
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.fitted_data import FittedData
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.results import components, files, table, verdict
from pymc_isomix.results.importance import (
    draw_inside,
    resample_draws,
    weigh_by_model,
    weigh_if_possible,
)
from pymc_isomix.sampling import drift, nuts, transported
from pymc_isomix.sampling.transitions import transitions
from pymc_isomix.sites.blocks import Block, BlockMixture

logger = logging.getLogger(__name__)

INDEPENDENT = "independent draws: R-hat, which compares chains, does not apply"
Seed = int | np.random.Generator | None

POOL, LEAST_POOL = 4, 2000  # draws to resample from: per resulting draw, and at least


class Fitted:
    """Methods of an approximation, from one fit or from several joined fits.

    Subclasses have ``density`` (:class:`BlockMixture`), ``space`` (:class:`FlatSpace`), ``history``
    and ``rng``.
    """

    density: Any
    space: FlatSpace
    rng: Any
    table: xr.Dataset | None = None  # of the pieces of joined fits
    history: History | None = None
    hist: np.ndarray = np.zeros(0)  # negative ELBO per iteration
    fitted_data: FittedData | None = None
    awaits_fit = False  # of an IsoMix that has not fitted yet
    _report: verdict.Diagnostics | None = None  # the last one

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Log density (S,) at unconstrained points (S, d), a NumPy array; exact."""
        return self.density.log_density_unconstrained(np.asarray(points))

    def draw_unconstrained(
        self, draws: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw points (draws, d) in unconstrained space, and their components (draws,)."""
        return self.density.draw_unconstrained(draws, rng)

    @one_blas_thread()
    def sample(
        self,
        draws: int = 500,
        *,
        random_seed: Seed = None,
        return_inferencedata: bool = True,
        importance: str = "none",
        transitions: int = 0,
        force: bool = False,
        progressbar: bool = True,
        **kwargs: Any,
    ) -> xr.DataTree | MultiTrace:
        """Draw from the approximation.

        Parameters
        ----------
        draws : int
        random_seed : int or Generator, optional
        return_inferencedata : bool
            False gives a PyMC ``MultiTrace``.
        importance : {"none", "psis"}
            ``"psis"`` draws four times as many (at least 2000) and resamples them by their
            Pareto-smoothed importance weights. A model with minibatches is evaluated on all data.
        transitions : int
            Number of HMC transitions per draw. They correct errors within a mode; 20 are enough in
            most cases. A model with minibatches is evaluated on all data. After an interrupt the
            draws are returned as they are.
        force : bool
            Resample even if Pareto k-hat is above 1.
        progressbar : bool
            Show the progress of the transitions if they take longer than two seconds.
        **kwargs
            Passed to :func:`pymc.to_inference_data`, for example ``include_transformed=True``.

        Returns
        -------
        xarray.DataTree
            ``posterior`` has one chain of independent draws, with the dims and coords of the model,
            and its deterministics. ``observed_data`` and ``constant_data`` hold the data.
            ``sample_stats`` has, per draw, ``lp`` (log joint density in unconstrained space),
            ``log_q``, ``log_weight`` (their difference), ``weight`` (Pareto-smoothed, sums to 1;
            all equal after resampling) and ``component``. With minibatches it has only ``log_q``
            and ``component``. For moved draws it has ``lp``, ``acceptance_rate`` and ``energy``.
            ``fit`` is the record of the fit, ``isomix`` has the components, and ``diagnostics``
            judges these draws, before and after their transitions. Draws without a finite log
            density are replaced.

        Raises
        ------
        ValueError
            If ``draws`` is not a positive integer, or the dims of a free variable have changed
            since the fit. Resampling raises it if k-hat is above 1. Resampling and transitions
            raise it if anything other than ``pm.Minibatch`` makes the log density random.
        """
        check_count("draws", draws)
        known = {*signature(pm.to_inference_data).parameters, *SAMPLE_ARGUMENTS}
        refuse_unknown("sample", kwargs, known)
        check_choice("importance", importance, ("none", "psis"))
        check_count("transitions", transitions, least=0)
        rng = self._generator(random_seed)
        compiled, density = self.compiled_model(), self.density
        compiled.space.refuse_other_dims()
        if self.awaits_fit:
            logger.warning("not fitted yet: these draws are from the starting point of the fit")
        if importance == "psis":
            pool = max(POOL * draws, LEAST_POOL)
            weighted = weigh_by_model(compiled, density, *density.draw(pool, rng))
            chosen = resample_draws(weighted, draws, rng, force=force)
        else:
            drawn = density.draw(draws, rng)
            chosen = weighted = weigh_if_possible(compiled, density, *drawn)
            if weighted.log_p is not None:
                chosen = draw_inside(density, weighted, compiled, rng)
        unconstrained, moved, statistics = chosen.unconstrained, None, traces.sample_stats(chosen)
        if transitions:
            unconstrained, statistics, figures = self._move(
                compiled, density, chosen, transitions, rng, progressbar=progressbar
            )
            moved = figures if importance == "none" else None  # of q's own draws
        values = compiled.constrained(unconstrained)
        trace = traces.to_trace(compiled.model, values)
        if not return_inferencedata:
            return trace
        tree = traces.to_datatree(compiled.model, trace, **kwargs)
        tree["sample_stats"] = statistics
        tree["posterior"].attrs["draws"] = INDEPENDENT
        if changes := compiled.space.changes():
            logger.info(
                f"the model's data have changed since the fit: {changes}. Draws and weights use "
                "the data of the fit; deterministics use the data that the model has now"
            )
            traces.tell_data_apart(compiled.model, tree, compiled.space.data)
        return self._add_groups(tree, compiled, density, weighted, moved)

    @one_blas_thread()
    def diagnostics(
        self,
        draws: int | None = None,
        *,
        random_seed: Seed = 0,
        n_probes: int = 20,
        transitions: int = 20,
        progressbar: bool = True,
    ) -> verdict.Diagnostics:
        """Judge whether to trust this approximation, by weights and HMC transitions of new draws.

        The effort depends only on the arguments, so the same fit always gets the same verdict, on
        a busy machine and after loading. It takes about 30 000 evaluations of the log density. For
        a slow model, ``transitions=5`` takes a quarter. Above 20 000 observations the effort is
        smaller: at least 500 draws, 50 chains, five transitions and five ascents.

        Parameters
        ----------
        draws : int, optional
            4000 by default; fewer above 10 000 dimensions.
        random_seed : int or Generator, optional
            The default is the same each time. None uses the random numbers of the approximation.
        n_probes : int
            Number of ascents of the log density from spread-out starts, and of hot chains. They
            find modes where the approximation has no mass, which the weights of its own draws
            cannot show. 0 skips them.
        transitions : int
            Number of HMC transitions, applied to 150 of the draws. They change nothing if the
            approximation equals the posterior. If a scale is too narrow, it grows. 0 skips them.
        progressbar : bool
            Show progress if it takes longer than two seconds.

        Returns
        -------
        Diagnostics
            Verdict, advice and figures; prints as a table.

        Raises
        ------
        ValueError
            If nothing was fitted yet, or anything other than ``pm.Minibatch`` makes the log
            density random. Minibatches are replaced by the full data.
        """
        if self.awaits_fit:
            raise ValueError("not fitted yet: call pm.fit(method=...), or fit() on the IsoMix")
        if draws is not None:
            check_count("draws", draws)
        check_count("n_probes", n_probes, least=0)
        check_count("transitions", transitions, least=0)
        compiled = self.compiled_model()
        if changes := compiled.space.changes():
            logger.info(f"diagnostics use the data of the fit; these have changed since: {changes}")
        self._report = verdict.examine(
            compiled,
            self.density,
            self.space.labels,
            self._generator(random_seed),
            draws=draws,
            n_probes=n_probes,
            n_transitions=transitions,
            history=self.history,
            progressbar=progressbar,
        )
        return self._report

    def nuts_init(
        self, chains: int = 4, *, random_seed: Seed = None, **nuts_kwargs: Any
    ) -> dict[str, Any]:
        r"""Prepare PyMC's NUTS: one start per chain, and a step method with its mass matrix.

        The starts are draws from the mixture whose components are chosen by systematic sampling,
        component after component of each mode: a mode of mass m gets :math:`\lfloor m C \rfloor` or
        :math:`\lceil m C \rceil` of the C chains, so that each of mass 1/C or more gets one. NUTS
        rarely moves between modes, so its draws are divided between the modes as its chains are.

        The mass matrix is the covariance *within* the modes, averaged over the modes by mass. A
        matrix that spans modes would mislead NUTS inside each of them. It is dense for a dense
        metric and diagonal otherwise, and stays fixed. NUTS tunes only its step size, so
        ``tune=200`` is enough.

        Parameters
        ----------
        chains : int
            C.
        random_seed : int or Generator, optional
            For the starts; :func:`pymc.sample` has its own.
        **nuts_kwargs
            Passed to :class:`pymc.NUTS`: ``target_accept``, ``compile_kwargs`` and so on.

        Returns
        -------
        dict
            Keyword arguments of :func:`pymc.sample`: ``initvals``, the values of all free variables
            in model space, a dict for each chain; ``step``, the :class:`pymc.NUTS`; ``chains``.

        Raises
        ------
        ValueError
            If ``chains`` is not a positive integer, or no draw of a component has a finite log
            density.

        Notes
        -----
        As with :meth:`IsotropicMixture.sample`, a model of the context stands in for the fitted
        one. nutpie takes no mass matrix, and one start for all chains: ``initvals[0]``.

        Examples
        --------
        >>> import pymc as pm, pymc_isomix as pmi
        >>> with pm.Model() as model:
        ...     sigma = pm.HalfNormal("sigma")
        ...     approx = pmi.IsotropicMixture(n_components=2, random_seed=1)
        ...     start = approx.nuts_init(chains=2, random_seed=1)
        >>> sorted(start), [list(point) for point in start["initvals"]]
        (['chains', 'initvals', 'step'], [['sigma'], ['sigma']])

        ``pm.sample(tune=200, **start)`` would now sample from there.
        """
        check_count("chains", chains)
        rng = self._generator(random_seed)
        return nuts.nuts_init(self.space_of_context(), self.density, chains, rng, **nuts_kwargs)

    @one_blas_thread()
    def sample_nuts(
        self,
        draws: int = 1000,
        *,
        tune: int = 500,
        chains: int = 4,
        nuts_sampler: str = "pymc",
        random_seed: Seed = None,
        progressbar: bool = True,
        **kwargs: Any,
    ) -> xr.DataTree:
        r"""Sample the model by NUTS in the approximation's own coordinates: exact draws.

        NUTS sees one vector :math:`u = R^{-1}(y - \bar\mu)`, with :math:`R R^T` the covariance of
        the mixture within its modes. In this vector the posterior is close to a standard Gaussian,
        or to a few of them, so NUTS needs little tuning. The draws are mapped back to the variables
        of the model.

        Parameters
        ----------
        draws, tune, chains : int
            As for :func:`pymc.sample`. Chains start at draws of the mixture, spread over its modes
            as :meth:`nuts_init` does.
        nuts_sampler : {"pymc", "nutpie", "numpyro", "blackjax"}
        random_seed : int or Generator, optional
            For starts and sampler.
        progressbar : bool
        **kwargs
            Passed to :func:`pymc.sample`: ``cores``, ``target_accept`` and so on.

        Returns
        -------
        xarray.DataTree
            Group ``posterior`` with names, dims and deterministics of the model, ``sample_stats``
            with the sampler's statistics (``lp`` is that of the unconstrained space), and
            ``observed_data`` and ``constant_data`` where the model has them.

        Raises
        ------
        ValueError
            If an argument breaks its rule, no draw of a component has a finite log density, or
            anything other than ``pm.Minibatch`` makes the log density random. Minibatches are
            replaced by the full data.

        Notes
        -----
        As with :meth:`IsotropicMixture.sample`, a model of the context stands in for the fitted
        one. NUTS rarely moves between distant modes, so its draws are divided between them as its
        chains are. nutpie takes one start for all chains.

        Examples
        --------
        >>> import pymc as pm, pymc_isomix as pmi
        >>> with pm.Model():
        ...     mu = pm.Normal("mu")
        ...     approx = pmi.IsotropicMixture(n_components=1, start_sigma=1.0, random_seed=1)
        >>> idata = approx.sample_nuts(
        ...     20,
        ...     tune=20,
        ...     chains=1,
        ...     random_seed=1,
        ...     progressbar=False,
        ...     compute_convergence_checks=False,
        ... )
        >>> dict(idata.posterior["mu"].sizes)
        {'chain': 1, 'draw': 20}
        """
        check_count("draws", draws)
        check_count("tune", tune, least=0)
        check_count("chains", chains)
        check_choice("nuts_sampler", nuts_sampler, transported.SAMPLERS)
        refuse_misspelt("sample_nuts", kwargs, [*signature(pm.sample).parameters])
        return transported.sample_nuts(
            self.compiled_model(),
            self.density,
            self._generator(random_seed),
            draws=draws,
            tune=tune,
            chains=chains,
            nuts_sampler=nuts_sampler,
            progressbar=progressbar,
            **kwargs,
        )

    def save(self, path: str | Path) -> None:
        """Write the approximation to a file, for :func:`pymc_isomix.load`.

        The file holds the parameters, the history, the settings and the state of the random
        numbers. It does not hold the model. It is written next to ``path`` and then renamed, so an
        older file stays intact if saving fails.

        Parameters
        ----------
        path : str or Path
            Ends in ``.nc`` (netCDF).

        Raises
        ------
        ValueError
            If ``path`` ends differently.
        """
        files.write(path, self.saved())

    def saved(self) -> files.Saved:
        """Return the contents of a file."""
        data = self.fitted_data or self.space.data
        return files.Saved.of(
            self._stored,
            self.space,
            self.history or History(),
            self.hist,
            self.rng,
            self.table,
            {} if data is None else data.digests(),
        )

    @property
    def _stored(self):
        """The density as a file holds it."""
        return self.density

    def _generator(self, random_seed):
        if random_seed is None:
            random_seed = self.rng.randint(2**30, dtype=np.int64)
        return np.random.default_rng(random_seed)

    def space_of_context(self) -> FlatSpace:
        """Return the places of the variables in the model of the context, or in the fitted one.

        As in PyMC, a model of the context replaces the fitted one, for example a model with all
        data instead of minibatches.
        """
        space, model = self.space, pm.Model.get_context(error_if_none=False)
        if model is not None and model is not space.model:
            space.check_same_variables(model)
            return space.with_model(model).with_data(None)
        return space if self.fitted_data is None else space.with_data(self.fitted_data)

    def compiled_model(self, backend: str | None = None) -> CompiledModel:
        """Return compiled functions of the model of the context, or of the fitted model.

        Returns
        -------
        CompiledModel
            On a backend, or that of the fit; the densities take points y (S, d).
        """
        density = self.density
        backend = backend or ("" if self.history is None else self.history.backend)
        return CompiledModel(
            self.space_of_context(), density.dtype.name, backend, density.coordinates
        )

    def _move(self, compiled, density, weighted, n, rng, **options):
        """Move draws: (unconstrained draws, statistics, figures of the drift)."""
        moved = transitions(compiled, density, weighted.points, n, rng, **options)
        unconstrained, log_determinant = compiled.to_unconstrained(moved.points)
        figures = drift.figures(compiled, weighted.unconstrained, moved)
        columns = {
            "lp": moved.log_density - log_determinant,
            "acceptance_rate": moved.acceptance_rate,
            "energy": moved.energy,
        }
        attrs = {"transitions": moved.n_done, "step_size": moved.step_size}
        return unconstrained, traces.statistics(columns).assign_attrs(attrs), figures

    def _add_groups(self, tree, compiled, density, weighted, moved=None):
        weight = None if weighted.importance is None else weighted.importance.weight
        about = (self.space, density, compiled, weighted.responsibilities)
        tree["isomix"] = components.to_dataset(*about, weight)
        if self.history is not None:
            tree["fit"] = self.history.to_dataset()
        if weight is not None:
            report = verdict.diagnose(
                density, weighted, self.space.labels, history=self.history, moved=moved
            )
            tree["diagnostics"] = report.to_dataset()
        return tree


class IsotropicMixture(Fitted, SingleGroupApproximation):  # noqa: D101 - its docstring is the group's
    __doc__ = f"""Approximation of all of a model's variables by one mixture of isotropic Gaussians.

    {IsotropicMixtureGroup.__doc__}"""
    _group_class = IsotropicMixtureGroup
    union: BlockMixture | None = None  # of modes of unequal shape

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.take_data()

    def take_data(self) -> None:
        """Record the present data of the model as those of the fit."""
        self.fitted_data = FittedData.of(self.model)

    def __getattr__(self, item):
        if item == "groups":  # asked for while unpickling, before there are any
            raise AttributeError(item)
        return super().__getattr__(item)

    def __str__(self):
        shown = self.mixture.used
        if self.union is not None:
            shown = self.union.with_one_metric(self.union.n_components)
        return table.summary(shown, self.history, self._report, self.coordinates.names)

    __repr__ = __str__

    @property
    def density(self) -> BlockMixture:
        """The approximation as numbers, a :class:`BlockMixture`.

        It has one block, or one block per mode if the modes have different shapes.
        """
        if self.union is not None:
            return self.union
        return BlockMixture.of([Block(self.mixture.used, self.coordinates)])

    @property
    def _stored(self):
        """The density with components of no weight, which a later fit may use."""
        if self.union is not None:
            return self.union
        return BlockMixture.of([Block(self.mixture, self.coordinates)])

    def closing_line(self, n_steps: int) -> str:
        """Say in one line how a fit ended."""
        return table.closing_line(self.mixture.used, self.history or History(), n_steps)


SAMPLE_ARGUMENTS = frozenset(signature(Fitted.sample).parameters)
