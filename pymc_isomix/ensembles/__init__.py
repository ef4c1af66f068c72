"""Many fits: ensembles over processes and clusters, joined into one mixture."""
