"""Variational inference with mixtures of isotropic Gaussians, for PyMC."""

from pymc_isomix.approximation import IsotropicMixture
from pymc_isomix.fitting import fit
from pymc_isomix.group import IsotropicMixtureGroup
from pymc_isomix.inference import IsoMix

__version__ = "0.1.0"

__all__ = ["IsoMix", "IsotropicMixture", "IsotropicMixtureGroup", "fit"]
