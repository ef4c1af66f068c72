"""A PyMC model as the fit sees it."""
