"""Calls for many fits: fit an ensemble, join fits, load what was joined."""

import numpy as np
import pymc as pm

from pymc_isomix.backend.checks import check_seed
from pymc_isomix.ensembles import files
from pymc_isomix.ensembles.blocks import Block, Joined
from pymc_isomix.ensembles.joined import JoinedMixture, joined_mixture
from pymc_isomix.fitting.record import History
from pymc_isomix.interface import api
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.results.files import refuse_other_variables
from pymc_isomix.sites.coordinates import Coordinates
from pymc_isomix.sites.find import find_coordinates
from pymc_isomix.target.space import FlatSpace


def join(approximations, *, random_seed=None):
    r"""Join fits of one model into one mixture, each in coordinates of its own.

    Each fit is split into its modes. Draws of all of these together, weighted by :math:`p / q` with
    the density of all of them together, tell how much of the posterior each has: fits that overlap
    are not counted twice. What adds nothing is left out.

    Parameters
    ----------
    approximations : list of IsotropicMixture
        Of the same model.
    random_seed : int or Generator, optional

    Returns
    -------
    JoinedMixture

    Raises
    ------
    TypeError
        If they are no approximations.
    ValueError
        If there is none, they are of different models, or none has a draw with a finite density.
    """
    approximations = list(approximations)
    if not approximations:
        raise ValueError("approximations must hold at least one; got none")
    for approx in approximations:
        if not isinstance(approx, IsotropicMixture):
            raise TypeError(f"approximations must be of IsotropicMixture; got {approx!r}")
    first = approximations[0]
    for approx in approximations[1:]:
        if approx.space.describe() != first.space.describe():
            raise ValueError("approximations must be of one model; their variables differ")
    blocks = [
        Block(approx.mixture, approx.coordinates, approx.pseudo_values, source)
        for source, approx in enumerate(approximations)
    ]
    histories = [approx.history or History() for approx in approximations]
    rng = np.random.RandomState(check_seed(random_seed))
    return joined_mixture(first.space, blocks, histories, rng)


def load(path, model=None):
    """Read an approximation that its ``save`` wrote, of one fit or joined.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nc`` or ``.zarr``.
    model : pymc.Model, optional
        With the same free variables; the model of the context when not given.

    Returns
    -------
    IsotropicMixture or JoinedMixture
        With the same parameters and ``history``. It samples and diagnoses as before, with the same
        random numbers; :func:`pymc_isomix.resume` fits a single one further.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no whole file of an approximation, or the model's free variables differ in name,
        shape or transform.
    """
    saved = files.read(path)
    if saved is None:
        return api.load(path, model)
    space = FlatSpace.of(pm.modelcontext(model))
    refuse_other_variables(saved.variables, space.describe())
    coordinates = coordinates_of(space, saved.sites)
    blocks = [Block(b.mixture, coordinates, b.pseudo, b.source) for b in saved.blocks]
    mixture = Joined.of(blocks, [b.log_weight for b in saved.blocks])
    rng = np.random.RandomState()
    rng.set_state(saved.random_state)
    return JoinedMixture(space, mixture, saved.table, saved.history, rng)


def coordinates_of(space, sites):
    """Find the sites of a model anew, where fits had any."""
    return find_coordinates(space) if sites else Coordinates(space)
