"""The pages of the API have every public name, and each has an example that the doctests run."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import pymc_isomix as pmi

DOCS = Path(__file__).parents[1] / "docs"
FRONT = (DOCS / "api.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^(api/\w+)$", FRONT, re.M)  # in the order of the contents
PAGES = [(DOCS / f"{name}.md").read_text(encoding="utf-8") for name in LISTED]
DIRECTIVE = re.compile(r"^\.\. auto(?:function|class):: ([\w.]+)(?:\(\))?\n((?:   :.*\n)*)", re.M)


def documented():
    """Object by name, and the names of the members that the page lists."""
    found = {}
    for name, options in DIRECTIVE.findall("".join(PAGES)):
        module, _, last = name.rpartition(".")
        of = importlib.import_module(module) if module else pmi
        members = re.search(r":members: (.*)", options)
        found[last] = getattr(of, last), members[1].split(", ") if members else []
    return found


DOCUMENTED = documented()


BLOCKS = "".join(re.findall(r"^```pycon\n(.*?)^```$", "".join([FRONT, *PAGES]), re.M | re.S))


def has_example(name, thing, of=None):
    """Whether a docstring has an example, or that of its class or the page calls it."""
    if ">>>" in (inspect.getdoc(thing) or ""):
        return True
    elsewhere = "" if of is None else (inspect.getdoc(of) or "").partition(">>>")[2]
    called = rf"\b{name}\b" if inspect.isclass(thing) else rf"[.]{name}\("
    return re.search(called, BLOCKS + elsewhere) is not None


@pytest.mark.usefixtures("fast_compile")
def test_the_page_s_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(BLOCKS, {}, "api.md", "docs/api.md", 0)
    said = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=options).run(test, out=said.append)
    assert test.examples
    assert not said, "".join(said)


def test_every_public_name_has_a_page():
    assert set(pmi.__all__) <= set(DOCUMENTED)
    assert {Path(name).name for name in LISTED} == set(DOCUMENTED)
    assert {path.stem for path in (DOCS / "api").glob("*.md")} == set(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_name_has_an_example(name):
    thing, members = DOCUMENTED[name]
    missing = [] if has_example(name, thing) else [name]
    for member in members:
        found = inspect.getattr_static(thing, member)
        function = inspect.unwrap(getattr(found, "__func__", found))
        if inspect.isfunction(function) and not has_example(member, function, thing):
            missing.append(f"{name}.{member}")
    assert not missing, "an example, `>>> ...`, is missing"


def test_a_missing_example_is_seen():
    assert not has_example("draw", has_example)
    assert has_example("log_density", has_example, DOCUMENTED["Mixture"][0])
    assert not has_example("unwhiten", has_example, DOCUMENTED["Mixture"][0])
