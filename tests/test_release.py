"""Version and dependencies are the same wherever they are written."""

import re
import tomllib
from pathlib import Path

import pymc_isomix as pmi

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "conda" / "recipe" / "meta.yaml").read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == pmi.__version__
    assert re.search(r'set version = "(.*)"', RECIPE)[1] == pmi.__version__


def test_the_recipe_has_the_dependencies_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {requirement.replace(" ", "") for requirement in project["dependencies"]}
    run = re.search(r"^  run:\n((?:    - .*\n)*)", RECIPE, re.M)[1]
    found = {line.strip("- ").replace(" ", "") for line in run.splitlines()}
    assert found - {f"python{project['requires-python']}"} == wanted
    assert f"python{project['requires-python']}" in found
