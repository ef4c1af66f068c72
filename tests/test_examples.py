"""The examples run, with the checks that they make themselves, and each has its page."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs" / "gallery"
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
QUICK = ("sinusoid",)  # in the default run
CODE = re.compile(r"^```python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def make_gallery():
    spec = importlib.util.spec_from_file_location("make_gallery", ROOT / "scripts/make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES]
)
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_page_is_of_the_example_as_it_is(name, make_gallery):
    script = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    cells = make_gallery.cells(script)
    page = (GALLERY / f"{name}.md").read_text(encoding="utf-8")
    advice = f"run scripts/make_gallery.py {name}"
    code = [make_gallery.shown(c.text) for c in cells if c.kind == "code"]
    assert CODE.findall(page) == [text for text in code if text], advice
    assert "assert " not in "".join(code)
    assert all(cell.text in page for cell in cells if cell.kind == "prose"), advice
    for picture in re.findall(r"\]\((.*?\.png)\)", page):
        assert (GALLERY / picture).exists()
    assert make_gallery.footer(name) in page, advice
    notebook = (GALLERY / f"{name}.ipynb").read_text(encoding="utf-8")
    assert notebook == make_gallery.notebook(cells), advice


def test_the_page_of_thumbnails_is_that_of_the_examples(make_gallery):
    index = (GALLERY / "index.md").read_text(encoding="utf-8")
    assert index == make_gallery.index(make_gallery.in_order(EXAMPLES))


def test_every_example_has_one_group_and_its_guide(make_gallery):
    members = [name for _, names in make_gallery.GROUPS.values() for name in names]
    assert sorted(members) == EXAMPLES
    assert all(
        (ROOT / "docs" / f"{guide}.md").exists() for guide, _ in make_gallery.GROUPS.values()
    )


def test_asserts_are_not_shown(make_gallery):
    code = """x = 1
assert x == 1, (
    "two lines"
)
for i in range(3):
    assert i < 3
for i in range(3):
    print(i)
    assert i < 3


def check():
    assert x
    return x"""
    expected = """x = 1
for i in range(3):
    print(i)


def check():
    return x"""
    assert make_gallery.shown("assert 1") == ""
    assert make_gallery.shown(code) == expected
    with pytest.raises(SyntaxError):
        make_gallery.shown("if x:\n    assert x\nelse:\n    y = 1")


def test_a_notebook_has_the_cells(make_gallery):
    script = "# %% [markdown]\n# # Title\n\n# %%\nx = 1\nassert x\n\n# %%\nassert x\n"
    book = json.loads(make_gallery.notebook(make_gallery.cells(script)))
    assert [cell["cell_type"] for cell in book["cells"]] == ["markdown", "code"]
    assert [cell["source"] for cell in book["cells"]] == [["# Title"], ["x = 1"]]


def test_cells_of_a_script(make_gallery):
    script = "# %% [markdown]\n# # Title\n#\n# Some\n# words.\n#\n# More.\n\n# %%\n\nx = 1\nx\n"
    prose, code = make_gallery.cells(script)
    assert (prose.kind, prose.text) == ("prose", "# Title\n\nSome\nwords.\n\nMore.")
    assert (code.kind, code.text) == ("code", "x = 1\nx")
    assert make_gallery.title_and_summary(script) == ("Title", "Some words.")


def test_what_a_cell_prints_and_draws_is_kept(make_gallery):
    drawing = "import matplotlib.pyplot as plt\nplt.figure()\nplt.title('x')"
    script = f"# %%\nprint('said')\n1 + 1\n# %%\n{drawing}"
    cells = make_gallery.cells(script)
    make_gallery.run(cells, "example")
    assert [cell.output for cell in cells] == ["said\n2", ""]
    assert [len(cell.figures) for cell in cells] == [0, 1]
