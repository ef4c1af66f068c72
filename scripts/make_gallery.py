"""Run the examples and write docs/gallery/: a page of each, with its output and figures.

    python scripts/make_gallery.py            # all of them, and the page of thumbnails
    python scripts/make_gallery.py sinusoid   # these, and the page of thumbnails

The pages are committed, so that the documentation builds without running anything. An example is a
script in percent format: ``# %% [markdown]`` begins a cell of prose, ``# %%`` one of code. What a
code cell prints, the value of its last line, and the figures that it leaves open are its output.
"""

import ast
import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("COLUMNS", "100")  # of tables

from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
EXAMPLES, GALLERY = ROOT / "examples", ROOT / "docs" / "gallery"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)
DPI = 80
FONT_SIZE = 12  # of figures, which telephones show at half their size
LOGGER = "pymc_isomix"
FIRST = ("breast_cancer",)  # in the order of the page of thumbnails; the rest by their titles


@dataclass
class Cell:
    """A cell of an example: prose, or code with what it printed and drew."""

    kind: str
    text: str
    output: str = ""
    figures: list = field(default_factory=list)


def cells(script):
    """Split a script in percent format into cells."""
    parts = CELL.split(script)[1:]
    found = []
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        prose = "[markdown]" in heading
        if prose:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
        found.append(Cell("prose" if prose else "code", text.strip("\n")))
    return found


def title_and_summary(script):
    """Title of an example, and the paragraph below it."""
    title, _, rest = cells(script)[0].text.partition("\n")
    return title.removeprefix("# "), " ".join(rest.strip().split("\n\n")[0].split())


def about(name):
    """Title and summary of an example by its name."""
    return title_and_summary((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))


def in_order(names):
    """Put names of examples into the order of the page of thumbnails."""
    return sorted(names, key=lambda name: (name not in FIRST, about(name)[0]))


def run(found, name):
    """Run the code of cells in one namespace, and keep what they print and draw."""
    namespace: dict = {"__name__": "__main__"}
    plt.close("all")
    for cell in found:
        if cell.kind == "prose":
            continue
        tree = ast.parse(cell.text)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with printing() as text:
            exec(compile(tree, name, "exec"), namespace)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
                if value is not None and not plt.get_fignums():  # not what an axis returns
                    print(value)
        cell.output = text.getvalue().rstrip()
        cell.figures = [plt.figure(number) for number in plt.get_fignums()]
        for figure in cell.figures:
            plt.close(figure)


@contextlib.contextmanager
def printing():
    """Collect what is printed, and what the package logs."""
    text = io.StringIO()
    handler, logger = logging.StreamHandler(text), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    with contextlib.redirect_stdout(text), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*non-interactive")
        try:
            yield text
        finally:
            logger.removeHandler(handler)


def page(found, name):
    """Write the figures, and return the page."""
    for old in GALLERY.glob(f"{name}-*.png"):
        old.unlink()
    lines, number = [], 0
    for cell in found:
        if cell.kind == "prose":
            lines += [cell.text, ""]
            continue
        lines += ["```python", cell.text, "```", ""]
        if cell.output:
            lines += ["```text", cell.output, "```", ""]
        for figure in cell.figures:
            number += 1
            picture = f"{name}-{number}.png"
            figure.savefig(GALLERY / picture, dpi=DPI)
            title = found[0].text.splitlines()[0].removeprefix("# ")
            lines += ["{.painted}", f"![{title}]({picture})", ""]  # on white; see pages.css
    lines += [f"The script: `examples/{name}.py`.", ""]
    return "\n".join(lines)


def index(names):
    """Return the page of thumbnails, of the last figure of each example."""
    entries, pages = [], []
    for name in names:
        title, summary = about(name)
        pictures = sorted(GALLERY.glob(f"{name}-*.png"))
        if not pictures:
            continue
        pages.append(name)
        entries.append(
            f":::{{grid-item-card}} {title}\n:link: {name}\n:link-type: doc\n"
            f":img-top: {pictures[-1].name}\n:img-alt: {title}\n\n{summary}\n:::\n"
        )
    intro = """\
    # Gallery

    Models as people write them, each fitted in less than two minutes on two cores, with nothing set
    but the seed unless the page says why. Every page has the verdict, a check of the result (the
    known truth, an exact answer, held-out data) and, where there are data, a posterior predictive
    check. The data come with scikit-learn or statsmodels, or are simulated with a seed.

    """
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *pages, "```", ""])
    grid = "::::{grid} 1 2 2 3\n:gutter: 2\n\n" + "\n".join(entries) + "::::\n"
    return textwrap.dedent(intro) + grid + "\n" + toctree


def main(chosen):
    logging.getLogger().addHandler(logging.NullHandler())  # no copy of the log on the terminal
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    plt.rcParams["font.size"] = FONT_SIZE
    names = in_order(path.stem for path in EXAMPLES.glob("*.py"))
    GALLERY.mkdir(exist_ok=True)
    home = Path.cwd()
    for name in chosen or names:
        began = time.perf_counter()
        found = cells((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                run(found, name)
            finally:
                os.chdir(home)
        (GALLERY / f"{name}.md").write_text(page(found, name), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    (GALLERY / "index.md").write_text(index(names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
