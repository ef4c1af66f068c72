"""docs/api.md has every public name, and its examples run."""

import doctest
import re
from pathlib import Path

import pytest

import pymc_isomix as pmi

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class):: ([\w.]+)", re.M)
BLOCKS = "".join(re.findall(r"^```pycon\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.mark.usefixtures("fast_compile")
def test_the_page_s_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(BLOCKS, {}, "api.md", "docs/api.md", 0)
    said = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=options).run(test, out=said.append)
    assert test.examples
    assert not said, "".join(said)


def test_every_public_name_is_on_the_page():
    documented = {name.rpartition(".")[2] for name in DIRECTIVE.findall(PAGE)}
    assert set(pmi.__all__) <= documented
