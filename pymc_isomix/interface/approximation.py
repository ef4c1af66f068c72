"""The approximation as PyMC knows it: an Approximation of one mixture group."""

import logging
from inspect import signature

import numpy as np
import pymc as pm
from pymc.variational.approximations import SingleGroupApproximation

from pymc_isomix.backend.checks import check_choice, check_count
from pymc_isomix.backend.compilation import one_blas_thread
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.group import IsotropicMixtureGroup
from pymc_isomix.model import traces
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.results import components, files, table, verdict
from pymc_isomix.results.importance import (
    draw_inside,
    resample_draws,
    weigh_by_model,
    weigh_if_possible,
)
from pymc_isomix.sampling import drift, nuts, transported
from pymc_isomix.sampling.transitions import sample_stats, transitions

logger = logging.getLogger(__name__)

POOL, LEAST_POOL = 4, 2000  # draws to resample from: so many for each that is wanted


class IsotropicMixture(SingleGroupApproximation):  # noqa: D101 - its docstring is the group's
    __doc__ = f"""Approximation of all of a model's variables by one mixture of isotropic Gaussians.

    {IsotropicMixtureGroup.__doc__}"""
    _group_class = IsotropicMixtureGroup
    nuts_init = nuts.nuts_init
    sample_nuts = transported.sample_nuts
    history: History | None = None
    _report: verdict.Diagnostics | None = None  # the last one

    def __getattr__(self, item):
        if item == "groups":  # asked for while unpickling, before there are any
            raise AttributeError(item)
        return super().__getattr__(item)

    def __str__(self):
        return table.summary(self.mixture, self.history, self._report, self.coordinates.names)

    __repr__ = __str__

    def __getstate__(self):
        """Leave out the compiled functions: they are made again when asked for."""
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}

    @one_blas_thread()
    def sample(
        self,
        draws=500,
        *,
        random_seed=None,
        return_inferencedata=True,
        importance="none",
        transitions=0,
        force=False,
        progressbar=True,
        **kwargs,
    ):
        """Draw from the approximation.

        Parameters
        ----------
        draws : int
        random_seed : int or Generator, optional
        return_inferencedata : bool
            False gives a PyMC ``MultiTrace``.
        importance : {"none", "psis"}
            ``"psis"`` draws four times as many (2000 at least) and resamples them by their
            Pareto-smoothed importance weights, from all the data where the model has minibatches.
        transitions : int
            Move every draw by so many exact Markov transitions (Hamiltonian Monte Carlo), which
            mend what the approximation has wrong within a mode; 20 do in most cases. From all the
            data where the model has minibatches. An interrupt gives the draws as they are then.
        force : bool
            Resample even where Pareto k-hat is above 1.
        progressbar : bool
            Show progress of the transitions, where they take longer than two seconds.
        **kwargs
            Passed to :func:`pymc.to_inference_data`, ``include_transformed=True`` for example.

        Returns
        -------
        xarray.DataTree
            Groups ``posterior``, and ``observed_data`` and ``constant_data`` where the model has
            them; dims and coords are the model's, deterministics included. ``sample_stats`` has,
            of each draw, ``lp`` (log joint density in unconstrained space), ``log_q``,
            ``log_weight`` (their difference), ``weight`` (Pareto-smoothed, sums to 1; all equal
            after resampling) and ``component``; with minibatches, only ``log_q`` and
            ``component``. Of moved draws it has ``lp``, ``acceptance_rate`` and ``energy``. ``fit``
            has what the fit recorded, ``isomix`` the components, and ``diagnostics`` what
            :meth:`diagnostics` says of these draws, before and after their transitions. Draws where
            the model's log density is not finite are drawn anew.

        Raises
        ------
        ValueError
            If ``draws`` is not a positive integer, resampling is asked for and k-hat is above 1, or
            resampling or transitions are asked for and the log density is random by more than
            ``pm.Minibatch``.
        """
        check_count("draws", draws)
        unknown = set(kwargs) - set(signature(pm.to_inference_data).parameters)
        if unknown:
            raise TypeError(
                f"sample() takes no {', '.join(sorted(unknown))}: draws are independent, and make "
                "one chain. Besides its own arguments it takes those of pm.to_inference_data"
            )
        check_choice("importance", importance, ("none", "psis"))
        check_count("transitions", transitions, least=0)
        rng = self._generator(random_seed)
        compiled = self.compiled_model()
        if importance == "psis":
            pool = max(POOL * draws, LEAST_POOL)
            weighted = weigh_by_model(compiled, self.mixture, *self.mixture.draw(pool, rng))
            chosen = resample_draws(weighted, draws, rng, force=force)
        else:
            drawn = self.mixture.draw(draws, rng)
            chosen = weighted = weigh_if_possible(compiled, self.mixture, *drawn)
            if weighted.log_p is not None:
                chosen = draw_inside(self.mixture, weighted, compiled, rng)
        unconstrained, moved, statistics = chosen.unconstrained, None, traces.sample_stats(chosen)
        if transitions:
            unconstrained, statistics, figures = self._move(
                compiled, chosen, transitions, rng, progressbar=progressbar
            )
            moved = figures if importance == "none" else None  # of q's own draws
        values = compiled.constrained(unconstrained)
        trace = traces.to_trace(compiled.model, values)
        if not return_inferencedata:
            return trace
        tree = traces.to_datatree(compiled.model, trace, **kwargs)
        tree["sample_stats"] = statistics
        return self._add_groups(tree, compiled, weighted, moved)

    @one_blas_thread()
    def diagnostics(
        self, draws=None, *, random_seed=0, n_probes=20, transitions=20, progressbar=True
    ):
        """Say whether to trust this approximation: by weights and transitions of fresh draws.

        What is done depends on the arguments alone, not on time: the same fit gets the same
        verdict, on a busy machine and after loading, too. It takes some 35 000 evaluations of the
        log density; for a slow model fewer ``transitions``, say 5, take a quarter.

        Parameters
        ----------
        draws : int, optional
            4000 when not given; fewer above 10 000 dimensions.
        random_seed : int or Generator, optional
            The same by default each time, so that the same fit gets the same verdict; None takes
            the approximation's own random numbers.
        n_probes : int
            Ascents of the log density from spread starts, to find modes where the approximation
            has no mass, which weights of its own draws cannot show; 0 leaves them out.
        transitions : int
            Exact Markov transitions of 150 of the draws. Where the approximation is the
            posterior they change nothing; too narrow a scale, which weights of its own draws cannot
            show, grows. 0 leaves them out.
        progressbar : bool
            Show progress, where it takes longer than two seconds.

        Returns
        -------
        Diagnostics
            Verdict, advice and figures; prints as a table.

        Raises
        ------
        ValueError
            If the model's log density is random and not by ``pm.Minibatch`` alone, whose full data
            are used.
        """
        if draws is not None:
            check_count("draws", draws)
        check_count("n_probes", n_probes, least=0)
        check_count("transitions", transitions, least=0)
        self._report = verdict.examine(
            self.compiled_model(),
            self.mixture,
            self.space.labels,
            self._generator(random_seed),
            draws=draws,
            n_probes=n_probes,
            n_transitions=transitions,
            history=self.history,
            progressbar=progressbar,
        )
        return self._report

    def closing_line(self, n_steps):
        """Say in one line how a fit ended."""
        return table.closing_line(self.mixture, self.history, n_steps)

    def save(self, path):
        """Write the approximation to a file, for :func:`pymc_isomix.load`.

        Parameters, history, settings, and the state of its random numbers, but not the model. The
        file is written beside ``path`` and renamed, so that an older one stays whole whatever
        happens while saving.

        Parameters
        ----------
        path : str or Path
            Ends in ``.nc`` (netCDF) or ``.zarr``.

        Raises
        ------
        ValueError
            If ``path`` ends otherwise.
        """
        files.write(path, self.saved())

    def saved(self):
        """Return what a file holds."""
        return files.Saved(
            mixture=self.mixture,
            pseudo=self.pseudo_values,
            sites=self.coordinates.names,
            variables=self.space.describe(),
            labels=self.space.labels,
            history=self.history or History(),
            hist=np.asarray(getattr(self, "hist", ())),
            random_state=self.rng.get_state(legacy=False),
        )

    def _generator(self, random_seed):
        if random_seed is None:
            random_seed = self.rng.randint(2**30, dtype=np.int64)
        return np.random.default_rng(random_seed)

    def space_of_context(self):
        """Return the places of the variables in the model of the context, or in the fitted one.

        As in PyMC, a model of the context stands in for the fitted one: with all data instead of
        minibatches, for example.
        """
        space, model = self.space, pm.Model.get_context(error_if_none=False)
        if model is None or model is space.model:
            return space
        space.check_same_variables(model)
        return space.with_model(model)

    def compiled_model(self, backend=None):
        """Return functions of the model, of the context's or else the fitted one, compiled once.

        Returns
        -------
        CompiledModel
            On a backend, or that of the fit; the densities take points y (S, d).
        """
        space = self.space_of_context()
        backend = backend or ("" if self.history is None else self.history.backend)
        key = (backend, *CompiledModel.key(space.model))
        cached = self.__dict__.setdefault("_compiled", {})
        if key not in cached:
            cached[key] = CompiledModel(
                space,
                self.mixture.means.dtype.name,
                backend,
                self.mixture.n_components,
                self.coordinates,
                self.pseudo,
            )
        return cached[key]

    def _move(self, compiled, weighted, n, rng, **options):
        """Move draws: (unconstrained draws, statistics, figures of the drift)."""
        moved = transitions(compiled, self.mixture, weighted.points, n, rng, **options)
        unconstrained, log_determinant = compiled.to_unconstrained(moved.points)
        figures = drift.figures(compiled, weighted.unconstrained, moved)
        return unconstrained, sample_stats(moved, log_determinant), figures

    def _add_groups(self, tree, compiled, weighted, moved=None):
        weight = None if weighted.importance is None else weighted.importance.weight
        about = (self.space, self.mixture, compiled, weighted.responsibilities)
        tree["isomix"] = components.to_dataset(*about, weight)
        if self.history is not None:
            tree["fit"] = self.history.to_dataset()
        if weight is not None:
            report = verdict.diagnose(
                self.mixture, weighted, self.space.labels, history=self.history, moved=moved
            )
            tree["diagnostics"] = report.to_dataset()
        return tree
