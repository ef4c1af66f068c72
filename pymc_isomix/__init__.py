"""Variational inference with mixtures of isotropic Gaussians, for PyMC."""

import logging

from pymc_isomix.approximation import IsotropicMixture
from pymc_isomix.fitting import fit
from pymc_isomix.group import IsotropicMixtureGroup
from pymc_isomix.inference import IsoMix
from pymc_isomix.plots import plot_components, plot_elbo, plot_khat, plot_modes
from pymc_isomix.resuming import resume
from pymc_isomix.storage import load

__version__ = "0.1.0"

# as PyMC does: what a fit says is seen unless the application configures logging itself
_logger = logging.getLogger(__name__)
if not logging.root.handlers and not _logger.handlers:
    _logger.setLevel(logging.INFO)
    _logger.addHandler(logging.StreamHandler())

__all__ = [
    "IsoMix",
    "IsotropicMixture",
    "IsotropicMixtureGroup",
    "fit",
    "load",
    "plot_components",
    "plot_elbo",
    "plot_khat",
    "plot_modes",
    "resume",
]
