"""The view that a fit has of a PyMC model."""
