"""How to compile what is evaluated only a few times."""

from pytensor.compile.mode import Mode

# Runs NumPy Op by Op: compiles in milliseconds, with no C compiler and no numba. A recognised Op,
# log-sum-exp for example, would have the default linker compile what is inside it.
CHEAP = Mode(linker="py", optimizer="fast_compile").excluding("symbolic_op_recognition")
