"""The user's settings, and the meaning of ``"auto"`` and ``None``."""

import logging
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pymc_isomix.backend.checks import check_choice, check_count, check_number, check_seed
from pymc_isomix.family.metric import KINDS
from pymc_isomix.family.mixture import COMPONENT_VARIANCES, Mixture
from pymc_isomix.fitting.schedules import check_schedule
from pymc_isomix.model.starts import INITS
from pymc_isomix.step.bounds import StepRule
from pymc_isomix.step.updates import VARIANCE_UPDATES

logger = logging.getLogger(__name__)

STEP_SIZE = 0.3
# largest dense metrics: steps of a mixture cost O(d^3) and learn it from few draws;
# second-order steps, at the start of a default fit, learn it from batches of 3 d draws
DENSE_UP_TO, DENSE_AT_START = 500, 2000
FEWEST_DRAWS = 150  # per step: with fewer, noise keeps small mixtures from their optimum
LARGE_SITES = 500  # elements: their coordinates have little noise, and draws are expensive
FEWEST_OF_MANY = 50  # draws per step then
NOT_RECORDED = "not recorded"
# settings that the paper's algorithm fixes
PAPER: dict = {
    "metric": "identity",
    "coordinates": "affine",
    "weights": "uniform",
    "absolute_step": True,
}
# settings that an existing approximation fixes
OF_THE_START = (
    "n_components",
    "component_variances",
    "metric",
    "coordinates",
    "start",
    "start_sigma",
    "init",
    "init_width",
    "random_seed",
)


@dataclass(frozen=True)
class Settings:
    """Arguments of :class:`pymc_isomix.IsoMix`, which documents them.

    ``absolute_step`` belongs to :meth:`pymc_isomix.IsoMix.paper`.

    Raises
    ------
    ValueError
        If one breaks its rule.
    """

    n_components: int = 50
    component_variances: str = "auto"
    variance_update: str = "mirror"
    shared_variance: bool = False
    metric: str = "auto"
    coordinates: str = "auto"
    weights: str = "learned"
    step_size: Any = "auto"
    schedule: Any = "auto"
    n_samples: int | None = None
    start: Any = None
    start_sigma: Any = None
    init: str = "jitter"
    init_width: float = 1.0
    random_seed: Any = None
    convergence: str | None = "auto"
    absolute_step: bool = False

    def __post_init__(self):
        object.__setattr__(self, "random_seed", check_seed(self.random_seed))
        check_choice(
            "component_variances", self.component_variances, ("auto", *COMPONENT_VARIANCES)
        )
        check_choice("variance_update", self.variance_update, tuple(VARIANCE_UPDATES))
        check_choice("metric", self.metric, ("auto", *KINDS))
        check_choice("coordinates", self.coordinates, ("auto", "affine"))
        check_choice("weights", self.weights, ("learned", "uniform"))
        check_choice("convergence", self.convergence, ("auto", None))
        check_choice("init", self.init, INITS)
        check_count("n_components", self.n_components)
        check_count("n_samples", self.draws_of_each())
        check_schedule(self.first_step, self.schedule)
        check_number("init_width", self.init_width, zero=True)

    @property
    def first_step(self) -> float:
        """The user's step size, or that of ``"auto"``."""
        auto = isinstance(self.step_size, str) and self.step_size == "auto"
        return STEP_SIZE if auto else self.step_size

    @property
    def starts_warm(self) -> bool:
        """Whether a fit begins with Gaussians by second-order steps."""
        return (
            self.schedule == "auto"
            and self.weights == "learned"
            and self.metric != "identity"
            and self.variance_update != "fixed"
            and not self.absolute_step
        )

    def draws_of_each(self, n_elements: int = 0) -> int:
        """Draws per component and step, B, for sites with so many elements."""
        if self.n_samples is not None:
            return self.n_samples
        if n_elements > LARGE_SITES:
            return math.ceil(FEWEST_OF_MANY / self.n_components)
        return max(3, math.ceil(FEWEST_DRAWS / self.n_components))

    def rule(self, n_elements: int = 0) -> StepRule:
        """Return the settings of a step, for sites with so many elements."""
        return StepRule(
            variance_update=self.variance_update,
            shared_variance=self.shared_variance,
            learn_weights=self.weights == "learned",
            absolute_step=self.absolute_step,
            n_samples=self.draws_of_each(n_elements),
        )

    @property
    def for_the_group(self) -> dict:
        """Arguments of a new :class:`pymc_isomix.IsotropicMixtureGroup`, by name."""
        dense_up_to = DENSE_AT_START if self.starts_warm else DENSE_UP_TO
        return {name: getattr(self, name) for name in OF_THE_START} | {"dense_up_to": dense_up_to}

    def record(self) -> dict:
        """Describe the settings for JSON."""
        return self.record_of(field.name for field in fields(self))

    def record_of(self, names: Any) -> dict:
        """Describe some of the settings."""
        return {name: _describe(getattr(self, name)) for name in names}

    @classmethod
    def from_record(cls, record: dict, **changes: Any) -> "Settings":
        """Undo :meth:`record`, with some settings changed.

        Raises
        ------
        ValueError
            If ``changes`` name a setting that an approximation fixes, or lack one that is not
            recorded.
        """
        if fixed := sorted(set(changes) & {*OF_THE_START, "model"}):
            raise ValueError(f"{', '.join(fixed)} cannot change: the approximation fixes it")
        known = {field.name for field in fields(cls)}
        settings = {
            name: value
            for name, value in record.items()
            if name in known and name not in OF_THE_START
        } | changes
        for name, value in settings.items():
            if isinstance(value, dict) and NOT_RECORDED in value:
                raise ValueError(
                    f"{name} was a {value[NOT_RECORDED]}, which is not recorded: pass {name}= again"
                )
        return cls(**settings)

    def of(self, mixture: Mixture) -> "Settings":
        """Return the settings with those that a mixture fixes."""
        return replace(
            self,
            n_components=mixture.n_components,
            component_variances=COMPONENT_VARIANCES[mixture.log_variances.ndim - 1],
            metric=KINDS[mixture.metric.ndim],
        )


def metric_kind(given: str, n_dim: int, dense_up_to: int = DENSE_UP_TO) -> str:
    """Return the kind of metric, and log the choice for ``"auto"``."""
    if given != "auto":
        return given
    chosen = "dense" if n_dim <= dense_up_to else "diag"
    logger.info(f"metric='auto': {chosen}, for {n_dim} dimensions")
    return chosen


def _describe(value):
    if isinstance(value, str | bool | int | float | None):
        return value
    if isinstance(value, np.number):
        return value.item()
    if callable(value):
        return {NOT_RECORDED: f"function {getattr(value, '__name__', type(value).__name__)}"}
    if isinstance(value, dict):
        return {NOT_RECORDED: f"dict of {', '.join(map(str, value))}"}
    return {NOT_RECORDED: f"{type(value).__name__} of shape {np.shape(value)}"}
