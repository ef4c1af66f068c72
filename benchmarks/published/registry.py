"""The published models by name, and what is known of each."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pymc as pm


@dataclass(frozen=True)
class Published:
    """A model as it was published.

    ``source`` is the collection, the title and the authors. ``report`` names the variables that are
    compared; without it, all free variables and deterministics are. Models whose components may
    swap their labels name those that do not.
    """

    name: str
    group: str
    source: str
    build: Callable[[], pm.Model]
    report: tuple[str, ...]

    @property
    def slug(self):
        """The name as that of a file."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")


MODELS: dict[str, Published] = {}


def published(name, source, *, report=()):
    """Register a function that builds a model; its group is the name of its module."""

    def register(build):
        group = build.__module__.rpartition(".")[2].replace("_", " ")
        assert name not in MODELS, name
        MODELS[name] = Published(name, group, source, build, tuple(report))
        return build

    return register
