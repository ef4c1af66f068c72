"""Variational inference with mixtures of isotropic Gaussians, for PyMC."""

import logging

from pymc_isomix._version import __version__  # noqa: F401
from pymc_isomix.ensembles.ensemble import fit_ensemble
from pymc_isomix.ensembles.joined import JoinedMixture, join, load
from pymc_isomix.ensembles.many import fit_many
from pymc_isomix.interface.api import fit, resume
from pymc_isomix.interface.approximation import IsotropicMixture
from pymc_isomix.interface.group import IsotropicMixtureGroup
from pymc_isomix.interface.inference import IsoMix
from pymc_isomix.plots.public import plot_components, plot_elbo, plot_khat, plot_modes
from pymc_isomix.plots.shares import plot_shares
from pymc_isomix.sampling.prior import as_prior

# as PyMC does: log lines show unless the application configures logging itself
_logger = logging.getLogger(__name__)
if not logging.root.handlers and not _logger.handlers:
    _logger.setLevel(logging.INFO)
    _handler = logging.StreamHandler()
    _handler.addFilter(lambda record: not logging.root.handlers)  # the application may do so later
    _logger.addHandler(_handler)

__all__ = [
    "IsoMix",
    "IsotropicMixture",
    "IsotropicMixtureGroup",
    "JoinedMixture",
    "as_prior",
    "fit",
    "fit_ensemble",
    "fit_many",
    "join",
    "load",
    "plot_components",
    "plot_elbo",
    "plot_khat",
    "plot_modes",
    "plot_shares",
    "resume",
]


def __dir__():
    return __all__
