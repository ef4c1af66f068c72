"""The Python code that README.md and pages of docs/ print runs."""

import re
from pathlib import Path

import pymc as pm
import pytest

import pymc_isomix as pmi

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/start.md", "docs/hierarchies.md"]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_python_blocks(page):
    """Run the blocks of one page in order, in one namespace, and return it."""
    path = ROOT / page
    blocks = PYTHON_BLOCK.findall(path.read_text(encoding="utf-8"))
    assert blocks, f"{page} has no Python code"
    namespace = {"__name__": "__main__"}
    exec(compile("\n".join(blocks), path, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("fast_compile")
def test_printed_code_runs(page, monkeypatch):
    # Twenty steps in place of the thousands that the page asks for; the rest is as printed.
    fit, fit_in_one_call = pm.fit, pmi.fit
    monkeypatch.setattr(pm, "fit", lambda n, **kwargs: fit(n=20, **kwargs))
    monkeypatch.setattr(pmi, "fit", lambda **kwargs: fit_in_one_call(n=20, **kwargs))
    namespace = run_python_blocks(page)
    assert namespace["approx"].hist.shape == (20,)
    assert namespace["idata"].posterior.sizes["draw"] == 1000


@pytest.mark.slow
def test_readme_example_finds_both_modes():
    theta = run_python_blocks("README.md")["idata"].posterior["theta"]
    # The posterior is symmetric, with its modes near -2 and 2.
    assert abs(theta).mean().item() == pytest.approx(2.0, abs=0.1)
    assert 0.35 < (theta > 0).mean().item() < 0.65
