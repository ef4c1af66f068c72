"""The family: mixtures of isotropic Gaussians and their coordinates. Pure mathematics."""
