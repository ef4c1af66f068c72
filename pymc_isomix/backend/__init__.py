"""Compilation, Ops for JAX, and checks of arguments."""
