"""The record of a fit, per step and as a whole."""

import json
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from pymc_isomix._version import __version__

GAUSSIAN, TAILS = "gaussian", "tails"  # the phases before any mixture, and after it
CONVERGED = "converged"  # why a fit stopped by itself
PACKAGES = ("pymc", "pytensor", "arviz", "numpy")


@dataclass
class History:
    """The record of the fits of one approximation; further fits append to it.

    Parameters
    ----------
    elbo : (t,) array
        ELBO per step, nats, on the scale of the full data; NaN for a refused step.
    phase : (t,) array of str
        ``"gaussian"``, ``"exploring"``, ``"settling"`` or ``"scheduled"``.
    step_size : (t,) array
    compile_seconds, run_seconds : float
        The first call of a compiled step counts as compiling, because numba compiles then.
    stop_reason : str
        Of the last fit.
    settings : dict
        Arguments of :class:`pymc_isomix.IsoMix`.
    backend : str
    versions : dict
        By package.
    generators : list of dict
        State of the step's random generators after the last step.
    n_gradients : dict
        Evaluations of the model's gradient by phase.

    Examples
    --------
    >>> import pymc as pm, pymc_isomix as pmi
    >>> with pm.Model():
    ...     mu = pm.Normal("mu")
    ...     approx = pmi.IsoMix(2, convergence=None, random_seed=1).fit(20, progressbar=False)
    >>> approx.history.elbo.shape, approx.history.settings["n_components"]
    ((20,), 2)
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
    n_gradients: dict[str, int] = field(default_factory=dict)

    @property
    def elbo_of_last_rule(self) -> np.ndarray:
        """ELBO of the steps that one stopping rule has seen, the last.

        Gaussians have their own rules and start several times. Once these let a fit end, no step is
        left to judge.
        """
        mixture = self.phase != GAUSSIAN
        if not len(self.phase) or (self.stop_reason != CONVERGED and not mixture.any()):
            return self.elbo
        return self.elbo[mixture]

    def append(self, trace: Any, *, backend: str, generators: list) -> None:
        """Append the steps of one run.

        Parameters
        ----------
        trace : Trace
        backend : str
            Empty to keep the earlier one.
        generators : list of dict
        """
        self.elbo = np.concatenate([self.elbo, -trace.done])
        self.phase = np.concatenate([self.phase, np.array(trace.phases[: trace.taken], "U9")])
        self.step_size = np.concatenate([self.step_size, trace.step_sizes[: trace.taken]])
        self.compile_seconds += trace.compile_seconds
        self.run_seconds += max(time.perf_counter() - trace.began - trace.compile_seconds, 0.0)
        for phase, n in trace.n_gradients.items():
            self.n_gradients[phase] = self.n_gradients.get(phase, 0) + n
        self.stop_reason = trace.reason
        self.versions = versions()
        self.backend = backend or self.backend
        self.generators = generators

    def to_dataset(self) -> xr.Dataset:
        """Return the ``fit`` group of a DataTree, with mappings as JSON."""
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
                "n_gradients": sum(self.n_gradients.values()),
                "n_gradients_by_phase": json.dumps(self.n_gradients),
            },
        )

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> "History":
        """Undo :meth:`to_dataset`."""
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
            n_gradients=json.loads(dataset.attrs.get("n_gradients_by_phase", "{}")),
        )


def versions() -> dict:
    """Return versions of this package and of those that a fit depends on."""
    return {"pymc_isomix": __version__, **{name: version(name) for name in PACKAGES}}
