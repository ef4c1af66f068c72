"""Variational inference with mixtures of isotropic Gaussians, for PyMC."""

from pymc_isomix.approximation import IsotropicMixture, IsotropicMixtureGroup
from pymc_isomix.fitting import fit
from pymc_isomix.inference import IsoMix
from pymc_isomix.plots import plot_components, plot_elbo, plot_khat, plot_modes

__version__ = "0.1.0"

__all__ = [
    "IsoMix",
    "IsotropicMixture",
    "IsotropicMixtureGroup",
    "fit",
    "plot_components",
    "plot_elbo",
    "plot_khat",
    "plot_modes",
]
