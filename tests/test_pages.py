"""The pages: their code runs and prints what they show, and their links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pymc as pm
import pytest

import pymc_isomix as pmi
from pymc_isomix.interface import settings
from pymc_isomix.step import updates

ROOT = Path(__file__).parents[1]
CHEAP = ["README.md", "docs/hierarchies.md"]  # to run with few steps, each time
NOT_IN_TEST = {"docs/bambi.md": "bambi"}  # what a page needs beyond the tests' own packages
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)")  # to a file of the repository


def load_script():
    spec = importlib.util.spec_from_file_location("print_pages", ROOT / "scripts/print_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


print_pages = load_script()
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [str(path.relative_to(ROOT)) for path in print_pages.pages()]


def words_alone(text):
    """Leave out numbers, lines of tables, and how wide they are."""
    text = re.sub(r"-?\d[\d.,]*(e[-+]?\d+)?", "#", text)
    return re.sub(r"[\s━─]+", " ", text).strip()


@pytest.mark.parametrize("page", CHEAP)
@pytest.mark.usefixtures("fast_compile")
def test_printed_code_runs(page, monkeypatch):
    # Twenty steps in place of the thousands that the page asks for; the rest is as printed.
    fit, fit_in_one_call = pm.fit, pmi.fit
    monkeypatch.setattr(pm, "fit", lambda n=0, **kwargs: fit(n=20, **kwargs))
    monkeypatch.setattr(pmi, "fit", lambda **kwargs: fit_in_one_call(n=20, **kwargs))
    namespace, _ = print_pages.run(ROOT / page)
    assert namespace["idata"].posterior.sizes["draw"] == 1000


@pytest.mark.usefixtures("fast_compile")
def test_the_worked_examples_of_additions_run(monkeypatch):
    monkeypatch.setattr(updates, "VARIANCE_UPDATES", updates.VARIANCE_UPDATES.copy())
    monkeypatch.setattr(settings, "VARIANCE_UPDATES", updates.VARIANCE_UPDATES)
    namespace, _ = print_pages.run(ROOT / "docs" / "extending.md")
    assert {"smooth_step", "uncertain_evidence", "skewed"} <= set(namespace)


@pytest.mark.parametrize("page", PAGES)
def test_code_is_python_and_names_exist(page):
    for code, _ in print_pages.blocks(ROOT / page):
        assert code.co_names is not None
    names = re.findall(r"\bpmi\.(\w+)", (ROOT / page).read_text(encoding="utf-8"))
    assert set(names) <= set(pmi.__all__) | {"__version__"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_code_prints_what_the_page_shows(page):
    if page in NOT_IN_TEST:
        pytest.importorskip(NOT_IN_TEST[page])
    for printed, shown in print_pages.run(ROOT / page)[1]:
        if shown is not None:
            assert words_alone(printed) == words_alone(shown), "run scripts/print_pages.py"


@pytest.mark.slow
def test_front_page_finds_both_modes():
    posterior = print_pages.run(ROOT / "docs" / "index.md")[0]["idata"].posterior
    # a and b have one sign, and it is either with the same probability: five standard errors
    assert (posterior["a"] > 0).mean().item() == pytest.approx(0.5, abs=0.08)
    assert (posterior["a"] * posterior["b"]).mean().item() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page):
    text = CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    missing = [
        link for link in LINK.findall(text) if not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert not missing


def test_every_page_is_in_the_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    toctrees = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = {line for tree in toctrees for line in tree.split()} | {"index"}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= listed


def test_output_is_written_into_the_page(tmp_path):
    page = tmp_path / "page.md"
    first = "```python\nx = 2\nprint(x)\nprint(3)\n```\n\n```text\n1\n...\n```\n"
    rest = "```python\nx += 1\n```\n\nso\n\n```python\nprint(x)\n```\n\n```text\n```\n"
    page.write_text(f"{first}\n{rest}")
    outputs = print_pages.run(page)[1]
    assert outputs == [("2\n...\n", "1\n...\n"), ("", None), ("3\n", "")]
    text = print_pages.written(page.read_text(), outputs)
    assert "```text\n2\n...\n```" in text
    assert text.endswith("```text\n3\n```\n")


def test_words_alone_see_another_verdict():
    assert words_alone("Verdict: good. 1.2 ━━━ 3") == words_alone("Verdict: good. 10 ━━ -1e-05")
    assert words_alone("Verdict: good.") != words_alone("Verdict: bad.")


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("predict", "predict"),
        ("hierarchy", "hierarchies"),
        ("slow", "slow"),
        ("doubtful", "doubtful"),
    ],
)
def test_a_search_finds_the_right_page_first(word, page):
    """Sphinx ranks pages with the word in their title first; only one page may have it."""
    titles = {path.stem: path.read_text(encoding="utf-8").split("\n")[0] for path in DOCS}
    assert [stem for stem, title in titles.items() if word in title.lower().split()] == [page]
