"""What a fit recorded, step by step and as a whole."""

import json
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from pymc_isomix._version import __version__
from pymc_isomix.fitting.random_state import generator_states, restore_generators

PACKAGES = ("pymc", "pytensor", "arviz", "numpy")


@dataclass
class History:
    """What the fits of one approximation recorded; refining it appends.

    Parameters
    ----------
    elbo : (t,) array
        ELBO of each step, nats, on the full data's scale; NaN where the step was refused.
    phase : (t,) array of str
        ``"exploring"``, ``"settling"`` or ``"scheduled"``.
    step_size : (t,) array
    compile_seconds, run_seconds : float
        Apart; the first call of a compiled step counts as compiling, since numba compiles there.
    stop_reason : str
        Of the last fit.
    settings : dict
        Arguments of :class:`pymc_isomix.IsoMix`.
    backend : str
    versions : dict
        By package.
    generators : list of dict
        State of the step's random generators after the last step.
    """

    elbo: np.ndarray = field(default_factory=lambda: np.zeros(0))
    phase: np.ndarray = field(default_factory=lambda: np.zeros(0, "U9"))
    step_size: np.ndarray = field(default_factory=lambda: np.zeros(0))
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    stop_reason: str = "not fitted"
    settings: dict[str, Any] = field(default_factory=dict)
    backend: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    generators: list[dict[str, Any]] = field(default_factory=list)
    _fit_began: float | None = field(default=None, repr=False)
    _to_take_up: bool = field(default=False, repr=False)

    def begin(self):
        """Note that a fit begins, by compiling."""
        self._fit_began = time.perf_counter()

    def resume(self, changes):
        """Have the next fit go on where the last one stopped, with other settings."""
        self.settings |= describe_settings(changes)
        self._to_take_up = True

    def take_up(self, step):
        """Give a compiled step the last fit's random numbers, if it is to go on.

        Returns
        -------
        int
            Steps that it goes on from.
        """
        if not self._to_take_up:
            return 0
        self._to_take_up = False
        restore_generators(step, self.generators)
        return len(self.elbo)

    def append(self, trace, step):
        """Append the steps of one run, a a `Trace`, of a compiled step."""
        self.elbo = np.concatenate([self.elbo, -trace.done])
        self.phase = np.concatenate([self.phase, np.array(trace.phases[: trace.taken], "U9")])
        self.step_size = np.concatenate([self.step_size, trace.step_sizes[: trace.taken]])
        compiling = 0.0 if self._fit_began is None else trace.began - self._fit_began
        self._fit_began = None  # a refinement has nothing to compile
        self.compile_seconds += compiling + trace.first_call_seconds
        self.run_seconds += time.perf_counter() - trace.began - trace.first_call_seconds
        self.stop_reason = trace.reason
        self.versions = versions()
        self.backend = backend_name(step) or self.backend
        self.generators = generator_states(step)

    def to_dataset(self):
        """Return the ``fit`` group of a DataTree; mappings become JSON, which files can hold."""
        return xr.Dataset(
            {
                "elbo": ("step", self.elbo),
                "phase": ("step", self.phase),
                "step_size": ("step", self.step_size),
                "compile_seconds": self.compile_seconds,
                "run_seconds": self.run_seconds,
            },
            coords={"step": np.arange(1, len(self.elbo) + 1)},
            attrs={
                "stop_reason": self.stop_reason,
                "settings": json.dumps(self.settings),
                "versions": json.dumps(self.versions),
                "backend": self.backend,
            },
        )

    @classmethod
    def from_dataset(cls, dataset):
        """Read back what :meth:`to_dataset` wrote."""
        return cls(
            elbo=dataset["elbo"].values,
            phase=dataset["phase"].values.astype("U9"),
            step_size=dataset["step_size"].values,
            compile_seconds=dataset["compile_seconds"].item(),
            run_seconds=dataset["run_seconds"].item(),
            stop_reason=dataset.attrs["stop_reason"],
            settings=json.loads(dataset.attrs["settings"]),
            backend=dataset.attrs["backend"],
            versions=json.loads(dataset.attrs["versions"]),
        )


def describe_settings(arguments):
    """Make arguments of ``IsoMix`` fit for JSON; what is neither number nor text is described.

    Parameters
    ----------
    arguments : dict
        By name; ``model`` is left out.
    """
    return {
        name.removeprefix("_"): value
        if isinstance(value, str | bool | int | float | None)
        else _describe(value)
        for name, value in arguments.items()
        if name not in ("self", "model", "_approx", "__class__")
    }


def _describe(value):
    if callable(value):
        return f"function {getattr(value, '__name__', type(value).__name__)}"
    if isinstance(value, np.number):
        return value.item()
    if isinstance(value, dict):
        return f"values of {', '.join(map(str, value))}"
    return f"{type(value).__name__} of shape {np.shape(value)}"


def versions():
    """Return versions of this package and of those that a fit depends on."""
    return {"pymc_isomix": __version__, **{name: version(name) for name in PACKAGES}}


def backend_name(function):
    """Name the backend that a function is compiled for; empty for one of Python's own."""
    if not hasattr(function, "maker"):
        return ""
    return type(function.maker.mode.linker).__name__.removesuffix("Linker").lower()
