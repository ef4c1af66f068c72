"""The joined result of many fits, with the methods of a single fit."""

import time
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from pymc_isomix.backend.checks import check_seed
from pymc_isomix.ensembles import joining
from pymc_isomix.fitting.record import History
from pymc_isomix.interface import api
from pymc_isomix.interface.approximation import Fitted, IsotropicMixture
from pymc_isomix.interface.checks import given_model
from pymc_isomix.model.compiled import CompiledModel
from pymc_isomix.model.fitted_data import FittedData
from pymc_isomix.model.space import FlatSpace
from pymc_isomix.results import files
from pymc_isomix.results.files import Saved
from pymc_isomix.sites.blocks import BlockMixture
from pymc_isomix.sites.coordinates import CoordinateMap
from pymc_isomix.sites.find import find_coordinates

SHOWN = 5  # weights
COLUMNS = ("weight", "weight_se", "elbo", "khat")


class JoinedMixture(Fitted):
    r"""A weighted union of fits: a mixture whose parts keep their own coordinates.

    :func:`pymc_isomix.fit_ensemble` and :func:`pymc_isomix.join` return it. ``sample``,
    ``diagnostics``, ``sample_nuts`` and ``nuts_init`` are those of :class:`IsotropicMixture`.

    Parameters
    ----------
    model : pymc.Model
    density : BlockMixture
        Blocks and their weights; ``mixture`` is another name for it.
    table : xarray.Dataset
        One row per piece, the part of a fit that covers one mode: ``fit``, ``weight`` and
        ``weight_se``, ``elbo`` of the piece alone, ``khat``, ``n_components``; and attributes.
    history : History
        Seconds of all fits together, and their settings.
    rng : numpy.random.RandomState, optional

    Attributes
    ----------
    fits : dict of int to Saved
        The result of each restart, by its number; empty after loading.
    failures : list of Failure
        Restarts that failed: number, seed and error.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 1)
    ...     fits = [pmi.IsotropicMixture(n_components=2, random_seed=seed) for seed in (1, 2)]
    >>> approx = pmi.join(fits, random_seed=1)
    >>> approx.log_density([[0.0], [1.0]]).shape
    (2,)
    """

    table: xr.Dataset

    def __init__(
        self,
        space: FlatSpace,
        density: BlockMixture,
        table: xr.Dataset,
        history: History,
        rng: np.random.RandomState | None = None,
    ) -> None:
        self.space, self.density, self.table, self.history = space, density, table, history
        self.rng = np.random.RandomState() if rng is None else rng
        self.fits: dict = {}
        self.random_seed: int | None = None
        self.failures: list = []

    @property
    def model(self) -> Any:
        """The model."""
        return self.space.model

    @property
    def mixture(self) -> BlockMixture:
        """Blocks and their weights: another name for ``density``."""
        return self.density

    @property
    def coordinates(self) -> Any:
        """The coordinates y of the heaviest block."""
        return self.density.coordinates

    def _add_groups(self, tree, *about):
        tree = super()._add_groups(tree, *about)
        tree["ensemble"] = self.table
        return tree

    def __str__(self):
        weights = self.mixture.block_weights
        shown = ", ".join(f"{weight:.2g}" for weight in weights[:SHOWN])
        shown += ", ..." if len(weights) > SHOWN else ""
        about = self.table.attrs
        said = f"log evidence {about['log_evidence']:.2f} ± {about['log_evidence_se']:.2f}"
        if self._report is not None:
            said += f", verdict: {self._report.verdict}"
        if self.failures:
            said += f"; {len(self.failures)} restarts failed"
        return (
            f"<JoinedMixture: {len(weights)} of {about['n_fits']} fits with weights {shown}, "
            f"{self.mixture.n_components} components, d = {self.mixture.n_dim}; {said}>"
        )

    __repr__ = __str__

    def _repr_html_(self):
        return f"<p>{escape(str(self))}</p>{self.table._repr_html_()}"


def joined_mixture(
    space: FlatSpace, blocks: Sequence, histories: Sequence, rng: np.random.RandomState
) -> JoinedMixture:
    """Join blocks of fits of one model.

    Parameters
    ----------
    blocks : list of Block
    histories : list of History
        Of the same fits.
    """
    began = time.perf_counter()
    space = space if space.data is not None else space.with_data(FittedData.of(space.model))
    backend = next((h.backend for h in histories if h.backend), "")
    dtype = blocks[0].mixture.means.dtype.name
    compiled = CompiledModel(space, dtype, backend)
    weighted = joining.join(blocks, compiled.log_density, np.random.default_rng(rng.randint(2**30)))
    columns = {name: ("piece", getattr(weighted, name)) for name in COLUMNS}
    columns["fit"] = ("piece", [piece.source for piece in weighted.pieces])
    columns["n_components"] = ("piece", [p.mixture.n_components for p in weighted.pieces])
    attrs = {
        "n_fits": len(histories),
        "n_pieces": weighted.n_pieces,
        "log_evidence": weighted.log_evidence,
        "log_evidence_se": weighted.log_evidence_se,
        "join_seconds": time.perf_counter() - began,
    }
    about = xr.Dataset(columns, attrs=attrs)
    history = History(
        compile_seconds=sum(h.compile_seconds for h in histories),
        run_seconds=sum(h.run_seconds for h in histories),
        stop_reason=f"{len(histories)} fits joined",
        settings=histories[0].settings,
        backend=backend,
        versions=histories[0].versions,
    )
    return JoinedMixture(space, weighted.joined, about, history, rng)


def join_saved(space: FlatSpace, fits: Any, rng: np.random.RandomState) -> Any:
    """Join finished restarts, {number: Saved}."""
    numbers = sorted(fits)
    at = coordinate_map_of(space, fits[numbers[0]])
    blocks = [replace(block, source=r) for r in numbers for block in fits[r].density(at).blocks]
    return joined_mixture(space, blocks, [fits[r].history for r in numbers], rng)


def join(
    approximations: Sequence, *, random_seed: int | np.random.Generator | None = None
) -> JoinedMixture:
    r"""Join fits of one model into one mixture; each fit keeps its own coordinates.

    Each fit is split into its modes. Draws from all modes get the weights :math:`p / q`, where q is
    the density of all modes together. The weights tell how much of the posterior each mode holds,
    and overlapping fits are not counted twice. Modes that add nothing are left out.

    Parameters
    ----------
    approximations : list of IsotropicMixture
        Fits of the same model.
    random_seed : int or Generator, optional

    Returns
    -------
    JoinedMixture

    Raises
    ------
    TypeError
        If an element of the list is not an approximation.
    ValueError
        If the list is empty, if the fits belong to different models, or if no fit has a draw with a
        finite density.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 1)
    ...     fits = [pmi.IsotropicMixture(n_components=2, random_seed=seed) for seed in (1, 2)]
    >>> pmi.join(fits, random_seed=1).sample(10).posterior.sizes["draw"]
    10
    """
    approximations = list(approximations)
    if not approximations:
        raise ValueError("approximations must contain at least one fit; got none")
    for approx in approximations:
        if not isinstance(approx, IsotropicMixture):
            raise TypeError(f"approximations must be a list of IsotropicMixture; got {approx!r}")
    first = approximations[0]
    for approx in approximations[1:]:
        if approx.space.describe() != first.space.describe():
            raise ValueError("approximations must be fits of one model; their variables differ")
    blocks = [
        replace(block, source=source)
        for source, approx in enumerate(approximations)
        for block in approx.density.blocks
    ]
    histories = [approx.history or History() for approx in approximations]
    rng = np.random.RandomState(check_seed(random_seed))
    space = first.space.with_data(first.fitted_data)
    return joined_mixture(space, blocks, histories, rng)


def load(path: str | Path, model: pm.Model | None = None) -> IsotropicMixture | JoinedMixture:
    """Read an approximation from a file that its ``save`` wrote, of one fit or of joined fits.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nc`` (netCDF).
    model : pymc.Model, optional
        A model with the same free variables; the model of the context when not given.

    Returns
    -------
    IsotropicMixture or JoinedMixture
        The approximation, with its parameters, history and random numbers.
        :func:`pymc_isomix.resume` continues a single fit.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or holds no approximation, or if the free variables of the model
        differ in name, shape or transform.
    """
    saved = files.read(path)
    model = given_model(model, ", because a file does not contain the model")
    data = FittedData.of(model)
    space = FlatSpace.of(model).with_data(data)
    files.refuse_other_variables(saved.variables, space.describe())
    files.warn_of_other_data(saved.data, data.digests())
    if saved.table is None:
        return api.approximation_of(saved, model)
    coordinate_map = coordinate_map_of(space, saved)
    rng = np.random.RandomState()
    rng.set_state(saved.random_state)
    return JoinedMixture(space, saved.density(coordinate_map), saved.table, saved.history, rng)


def coordinate_map_of(space: FlatSpace, saved: Saved) -> CoordinateMap:
    """Find the coordinates of a model with the structure of a file."""
    found = find_coordinates(space) if saved.structure["sites"] else CoordinateMap(space)
    files.refuse_other_sites(saved, found)
    return found
