"""Results of a fit: diagnostics, tables and files."""
