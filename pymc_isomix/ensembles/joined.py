"""The joined result of many fits: samples, diagnoses, saves and starts NUTS as one fit does."""

from html import escape
from typing import Any

import numpy as np
import xarray as xr

from pymc_isomix.ensembles import files
from pymc_isomix.ensembles.joining import join
from pymc_isomix.fitting.record import History
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.target.compiled import CompiledModel

groups_of_one: Any = IsotropicMixture._add_groups

SHOWN = 5  # weights
COLUMNS = ("weight", "weight_se", "elbo", "khat")


class JoinedMixture:
    r"""A weighted union of fits, each in coordinates of its own: an exact mixture.

    :func:`pymc_isomix.fit_ensemble` and :func:`pymc_isomix.join` make it. ``sample``,
    ``diagnostics``, ``sample_nuts`` and ``nuts_init`` are those of :class:`IsotropicMixture`.

    Parameters
    ----------
    model : pymc.Model
    mixture : Joined
        Blocks and their weights.
    table : xarray.Dataset
        What is known of each piece, that is of what one fit has of one mode: ``fit``, ``weight``
        and ``weight_se``, ``elbo`` of the piece alone, ``khat``, ``n_components``; and attributes.
    history : History
        Seconds of all fits together, and their settings.
    rng : numpy.random.RandomState, optional

    Attributes
    ----------
    fits : dict of int to Saved
        What each restart ended with, by its number; empty after loading.
    failures : list of Failure
        Restarts that ended without a fit: number, seed and error.
    """

    sample = IsotropicMixture.sample
    diagnostics = IsotropicMixture.diagnostics
    sample_nuts = IsotropicMixture.sample_nuts
    nuts_init = IsotropicMixture.nuts_init
    compiled_model = IsotropicMixture.compiled_model
    space_of_context = IsotropicMixture.space_of_context
    __getstate__ = IsotropicMixture.__getstate__
    _generator, _move = IsotropicMixture._generator, IsotropicMixture._move
    _report = None

    def __init__(self, space, mixture, table, history, rng=None):
        self.space, self.mixture, self.table, self.history = space, mixture, table, history
        self.rng = np.random.RandomState() if rng is None else rng
        self.fits: dict = {}
        self.failures: list = []

    @property
    def model(self):
        """The model."""
        return self.space.model

    @property
    def coordinates(self):
        """The map between the coordinates of the heaviest block and unconstrained space."""
        return self.mixture.blocks[0].coordinates

    @property
    def pseudo(self):
        """The pseudo-observations of the heaviest block, arrays by name."""
        return self.mixture.blocks[0].pseudo

    def to_unconstrained(self, points):
        """Map points y (S, d), of the heaviest block, to z (S, d) and log |dz/dy| (S,)."""
        return self.mixture.blocks[0].to_unconstrained(points)

    def draw_unconstrained(self, draws, rng):
        """Draw points (draws, d) in unconstrained space, and their components (draws,)."""
        points, component = self.mixture.draw(draws, rng)
        return self.to_unconstrained(points)[0], component

    def log_density(self, points):
        """Log density (S,) at unconstrained points (S, d), exact."""
        return self.mixture.evaluate_unconstrained(np.asarray(points))[0]

    def save(self, path):
        """Write the joined mixture to a file, for :func:`pymc_isomix.load`.

        Parameters
        ----------
        path : str or Path
            Ends in ``.nc`` (netCDF) or ``.zarr``.
        """
        files.write(path, self)

    def _add_groups(self, tree, compiled, weighted, moved=None):
        tree = groups_of_one(self, tree, compiled, weighted, moved)
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


def joined_mixture(space, blocks, histories, rng):
    """Join blocks of fits of one model.

    Parameters
    ----------
    space : FlatSpace
    blocks : list of Block
    histories : list of History
        Of the same fits.
    rng : numpy.random.RandomState

    Returns
    -------
    JoinedMixture
    """
    backend = next((h.backend for h in histories if h.backend), "")
    dtype = blocks[0].mixture.means.dtype.name
    n_components = max(block.mixture.n_components for block in blocks)
    compiled = CompiledModel(space, dtype, backend, n_components)
    weighted = join(blocks, compiled.log_density, np.random.default_rng(rng.randint(2**30)))
    columns = {name: ("piece", getattr(weighted, name)) for name in COLUMNS}
    columns["fit"] = ("piece", [piece.source for piece in weighted.pieces])
    columns["n_components"] = ("piece", [p.mixture.n_components for p in weighted.pieces])
    attrs = {
        "n_fits": len(blocks),
        "n_pieces": weighted.n_pieces,
        "log_evidence": weighted.log_evidence,
        "log_evidence_se": weighted.log_evidence_se,
    }
    about = xr.Dataset(columns, attrs=attrs)
    history = History(
        compile_seconds=sum(h.compile_seconds for h in histories),
        run_seconds=sum(h.run_seconds for h in histories),
        stop_reason=f"{len(blocks)} fits joined",
        settings=histories[0].settings,
        backend=backend,
        versions=histories[0].versions,
    )
    return JoinedMixture(space, weighted.joined, about, history, rng)
