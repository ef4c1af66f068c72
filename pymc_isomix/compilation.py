"""How to compile what is evaluated only a few times."""

from functools import wraps

import pytensor
from pytensor.compile.mode import Mode

# Runs NumPy Op by Op: compiles in milliseconds, with no C compiler and no numba. A recognised Op,
# log-sum-exp for example, would have the default linker compile what is inside it.
CHEAP = Mode(linker="py", optimizer="fast_compile").excluding("symbolic_op_recognition")


def without_c(function):
    """Decorate what compiles cheaply: an Op with a graph inside would compile C all the same.

    PyMC writes log-sum-exp as such an Op; its C takes seconds.
    """

    @wraps(function)
    def wrapped(*args, **kwargs):
        with pytensor.config.change_flags(cxx=""):  # a context of its own: they may be nested
            return function(*args, **kwargs)

    return wrapped
