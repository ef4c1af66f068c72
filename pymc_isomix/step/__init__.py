"""One step of the fit."""
