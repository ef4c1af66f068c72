"""Doctests of the package compile as little as the tests do."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # before anything imports matplotlib

import pytensor
import pytest


@pytest.fixture(autouse=True)
def quick_doctests(request):
    """Run examples without a compiler: what they print is the same."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    with pytensor.config.change_flags(mode="FAST_COMPILE", cxx=""):
        yield
