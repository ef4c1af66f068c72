"""How to compile what is evaluated only a few times."""

from pytensor.compile.mode import Mode

# Runs NumPy Op by Op: compiles in milliseconds, with no C compiler and no numba
CHEAP = Mode(linker="py", optimizer="fast_compile")
