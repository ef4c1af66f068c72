"""How things compile, what JAX is taught, and checks of arguments."""
