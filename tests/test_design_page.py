"""docs/design.md and its picture know the package as it is."""

import html
import importlib.util
import re
from pathlib import Path

import pytest
from test_house import ROOMS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "draw_house.py"


@pytest.fixture(scope="module")
def draw_house():
    spec = importlib.util.spec_from_file_location("draw_house", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_has_the_rooms_and_their_arrows(draw_house):
    drawn = draw_house.PICTURE.read_text(encoding="utf-8")
    titles = [html.unescape(t) for t in re.findall(r"<title>(.*?)</title>", drawn)][1:]
    arrows = {tuple(title.split("->")) for title in titles if "->" in title}
    assert {title for title in titles if "->" not in title} == set(ROOMS)
    assert arrows == draw_house.arrows(), f"run {SCRIPT.relative_to(ROOT)}"


def test_arrows_that_are_left_out_follow_from_others(draw_house, monkeypatch):
    direct = {"c": {"a", "b"}, "b": {"a"}, "a": set()}
    monkeypatch.setattr(draw_house, "imports", lambda: direct)
    assert draw_house.arrows() == {("c", "b"), ("b", "a")}


def test_the_table_names_every_module_in_its_room():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = page[page.index("| room and module |") : page.index("## Nouns")]
    named, room = set(), None
    for line in table.splitlines()[2:]:
        first = line.split("|")[1] if line else ""
        if heading := re.search(r"\*\*(\w+)\*\*", first):
            room = heading[1]
        named |= {f"{room}/{name}" for name in re.findall(r"`(\w+\.py)`", first)}
    package = ROOT / "pymc_isomix"
    modules = {str(p.relative_to(package)) for p in package.glob("*/*.py") if p.stem != "__init__"}
    assert named == modules
