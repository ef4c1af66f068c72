"""The iterations of a fit: loop, phases, record."""
