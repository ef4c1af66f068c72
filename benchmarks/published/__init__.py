"""Models of public collections, as published: in their own writing, priors and sizes.

Each is expressed anew from its public description, which is named. Small data sets that the
description prints are typed in, others come with scikit-learn or statsmodels, and the rest are
simulated from the model's own design and size, with a seed.
"""

from importlib import import_module

from published.registry import MODELS

GROUPS = (
    "regression",
    "hierarchies",
    "time_series",
    "spatial",
    "mixtures",
    "survival",
    "choice",
    "latent_variables",
    "gaussian_processes",
    "ecology",
)
for group in GROUPS:
    import_module(f"published.{group}")

__all__ = ["MODELS"]
