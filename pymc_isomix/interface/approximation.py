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
from pymc_isomix.results import components, files, missing_mass, nuts, table, verdict
from pymc_isomix.results.importance import draw_inside, resample_draws, weigh
from pymc_isomix.target import traces
from pymc_isomix.target.compiled import CompiledModel

logger = logging.getLogger(__name__)

LINE_DRAWS = 2000  # for the line that ends a fit: a hundredth of what a fit evaluates
POOL, LEAST_POOL = 4, 2000  # draws to resample from: so many for each that is wanted


class IsotropicMixture(SingleGroupApproximation):  # noqa: D101 - its docstring is the group's
    __doc__ = f"""Approximation of all of a model's variables by one mixture of isotropic Gaussians.

    {IsotropicMixtureGroup.__doc__}"""
    _group_class = IsotropicMixtureGroup
    nuts_init = nuts.nuts_init
    history: History | None = None

    def __getattr__(self, item):
        if item == "groups":  # asked for while unpickling, before there are any
            raise AttributeError(item)
        return super().__getattr__(item)

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
        force=False,
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
        force : bool
            Resample even where Pareto k-hat is above 1.
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
            ``component``. ``fit`` has what the fit recorded, ``isomix`` the components, and
            ``diagnostics`` what :meth:`diagnostics` says of these draws. Draws where the model's
            log density is not finite are drawn anew: they are those of the mixture cut to the
            model's support.

        Raises
        ------
        ValueError
            If ``draws`` is not a positive integer, or resampling is asked for and k-hat is above 1.
        """
        check_count("draws", draws)
        unknown = set(kwargs) - set(signature(pm.to_inference_data).parameters)
        if unknown:
            raise TypeError(
                f"sample() takes no {', '.join(sorted(unknown))}: draws are independent, and make "
                "one chain. Besides its own arguments it takes those of pm.to_inference_data"
            )
        check_choice("importance", importance, ("none", "psis"))
        rng = self._generator(random_seed)
        compiled = self.compiled_model()
        if importance == "psis":
            pool = max(POOL * draws, LEAST_POOL)
            weighted = self._weigh(compiled, *self.draw_unconstrained(pool, rng))
            chosen = _resample(weighted, draws, rng, force)
        else:
            points, component = self.draw_unconstrained(draws, rng)
            chosen = weighted = self._weigh_if_possible(compiled, points, component)
            if weighted.log_p is not None:
                chosen = draw_inside(self.mixture, weighted, compiled.log_density, rng)
        values = compiled.constrained(chosen.points)
        trace = traces.to_trace(compiled.model, values)
        if not return_inferencedata:
            return trace
        tree = traces.to_datatree(compiled.model, trace, **kwargs)
        tree["sample_stats"] = traces.sample_stats(chosen)
        return self._add_groups(tree, compiled, weighted)

    @one_blas_thread()
    def diagnostics(self, draws=4000, *, random_seed=None, n_probes=20):
        """Say whether to trust this approximation, by importance weights of fresh draws.

        Parameters
        ----------
        draws : int
        random_seed : int or Generator, optional
        n_probes : int
            Ascents of the log density from spread starts, to find modes where the approximation
            has no mass, which weights of its own draws cannot show; 0 leaves them out.

        Returns
        -------
        Diagnostics
            Prints as a table; ``to_dataset()`` has the figures. Scalars: ``elbo`` and
            ``log_evidence`` with ``elbo_se`` and ``log_evidence_se``, nats; Pareto ``khat`` and
            ``good_k``, up to which it is good; ``importance_ess``, draws; ``n_draws``,
            ``n_nonfinite``; ``missing_mass``, the share of the posterior that the ascents found
            outside. By ``mode``: ``mode_weight``, and ``mode_mass`` after reweighting with
            ``mode_mass_se``. By ``unconstrained`` dimension: ``mean``, ``sd``, ``mean_reweighted``,
            ``sd_reweighted``, and ``mean_shift`` in standard errors. Beside it ``verdict``
            (``"good"``, ``"doubtful"`` or ``"bad"``) and ``advice``.

        Raises
        ------
        ValueError
            If the model's log density is random and not by ``pm.Minibatch`` alone, whose full data
            are used.
        """
        check_count("draws", draws)
        check_count("n_probes", n_probes, least=0)
        rng, compiled = self._generator(random_seed), self.compiled_model()
        weighted = self._weigh(compiled, *self.draw_unconstrained(draws, rng))
        missing = np.nan
        if n_probes:
            missing = missing_mass.missing_mass(
                compiled, self.mixture, weighted.importance.log_evidence, n_probes, rng
            )
        return self._diagnose(weighted, missing)

    def closing_line(self, n_steps):
        """Say in one line how a fit ended: ELBO, Pareto k-hat, modes, seconds.

        Without the first three where they would take long (a log density with a loop) or mean
        nothing (minibatches).
        """
        try:
            figures = ""
            if self.compiled_model().is_quick:
                report = self.diagnostics(LINE_DRAWS, random_seed=0, n_probes=0)
                figures = table.figures_in_words(report)
        except Exception as error:  # a fit must not fail by the line that reports it
            figures = f"No diagnostics ({error})."
        return table.closing_line(self.history, n_steps, figures)

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
        files.write(
            path,
            files.Saved(
                mixture=self.mixture,
                variables=self.space.describe(),
                labels=self.space.labels,
                history=self.history or History(),
                hist=np.asarray(getattr(self, "hist", ())),
                random_state=self.rng.get_state(legacy=False),
            ),
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

    def compiled_model(self):
        """Return functions of the model, of the context's or else the fitted one, compiled once.

        Returns
        -------
        CompiledModel
            ``log_density``, ``log_density_and_gradient`` and ``constrained``, each a function of
            unconstrained points (S, d).
        """
        space = self.space_of_context()
        model = space.model
        # what is added to the model later is seen
        key = (id(model), *(id(v) for v in (*model.basic_RVs, *model.deterministics)))
        key += tuple(id(potential) for potential in model.potentials)
        cached = self.__dict__.setdefault("_compiled", {})
        if key not in cached:
            backend = "" if self.history is None else self.history.backend
            means = self.mixture.means
            cached[key] = CompiledModel(space, means.dtype.name, backend, len(means))
        return cached[key]

    def _weigh(self, compiled, points, component):
        return weigh(self.mixture, points, component, compiled.log_density(points))

    def _weigh_if_possible(self, compiled, points, component):
        """Weigh draws; without the model's density where that would be of a minibatch, or fails."""
        if not compiled.subsamples:
            try:
                return self._weigh(compiled, points, component)
            except Exception as error:  # draws must not depend on a statistic of them
                logger.info(f"no log density of the draws: {error}")
        return weigh(self.mixture, points, component)

    def _diagnose(self, weighted, missing=np.nan):
        return verdict.diagnose(
            self.mixture,
            weighted,
            self.space.labels,
            history=self.history,
            missing_mass=missing,
        )

    def _add_groups(self, tree, compiled, weighted):
        weight = None if weighted.importance is None else weighted.importance.weight
        tree["isomix"] = components.to_dataset(
            self.space,
            self.mixture,
            compiled.constrained,
            weighted.responsibilities,
            weight,
        )
        if self.history is not None:
            tree["fit"] = self.history.to_dataset()
        if weight is not None:
            tree["diagnostics"] = self._diagnose(weighted).to_dataset()
        return tree


def _resample(weighted, draws, rng, force):
    khat = weighted.importance.khat
    if not khat <= 1 and not (force and np.isfinite(khat)):  # NaN, of too few draws, is not good
        raise ValueError(
            f'importance="psis" needs a Pareto k-hat of at most 1; it is {khat:.2f}, so that a few '
            "draws would stand for all. Improve the fit (approx.diagnostics() says how), or pass "
            "force=True"
        )
    return resample_draws(weighted, draws, rng)
