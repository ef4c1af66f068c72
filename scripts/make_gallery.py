"""Run the examples and write docs/gallery/: a page of each, with its output and figures.

    python scripts/make_gallery.py            # all of them, and the page of thumbnails
    python scripts/make_gallery.py sinusoid   # these, and the page of thumbnails

The pages are committed, so the documentation builds without running anything. An example is a
script in percent format: ``# %% [markdown]`` begins a cell of prose, and ``# %%`` a cell of code.
The output of a code cell is what it prints, the value of its last line, and the figures it leaves
open.
``docs/conf.py`` writes the notebooks, which have no output.
"""

import ast
import contextlib
import io
import json
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

ROOT = Path(__file__).parents[1]
EXAMPLES, GALLERY = ROOT / "examples", ROOT / "docs" / "gallery"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)
DPI = 80
FONT_SIZE = 12  # of figures, which telephones show at half their size
LOGGER = "pymc_isomix"
GROUPS = {  # the page of thumbnails, in this order
    "Regression and classification": ("breast_cancer", "wine_classes", "ordinal_survey"),
    "Several modes": ("sinusoid", "sensor_localisation", "label_switching", "neural_network"),
    "Hierarchies": ("varying_intercepts", "funnel"),
    "Gaussian processes": ("nile_hsgp", "gp_classification"),
    "Incomplete data": ("missing_data", "heart_transplants"),
    "Large data": ("minibatches",),
    "After the fit": ("compare_models", "next_model", "two_groups"),
}
DOWNLOADS = (
    "Download the {{download}}`script <../../examples/{name}.py>` or the "
    "{{download}}`notebook <_notebooks/{name}.ipynb>`."
)


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


def in_order():
    """Return the names of the examples in the order of the page of thumbnails."""
    return [name for group in GROUPS.values() for name in group]


def notebook(script):
    """Return a script in percent format as a notebook without output, JSON of format 4."""
    found = []
    for number, cell in enumerate(cells(script)):
        kind = "markdown" if cell.kind == "prose" else "code"
        own = {} if kind == "markdown" else {"execution_count": None, "outputs": []}
        lines = cell.text.splitlines(keepends=True)
        found.append(
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": lines, **own}
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": found, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_notebooks(folder):
    """Write the notebook of each example into a folder."""
    folder.mkdir(exist_ok=True)
    for path in EXAMPLES.glob("*.py"):
        text = notebook(path.read_text(encoding="utf-8"))
        (folder / f"{path.stem}.ipynb").write_text(text, encoding="utf-8")


def run(found, name):
    """Run the code of cells in one namespace, and keep what they print and draw."""
    from matplotlib import pyplot as plt  # which the documentation's own build need not have

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
            if cell is found[0]:
                lines += [DOWNLOADS.format(name=name), ""]
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
    return "\n".join(lines)


def card(name):
    """Return the card of an example, with its last figure."""
    title, summary = about(name)
    pictures = sorted(GALLERY.glob(f"{name}-*.png"))
    picture = f":img-top: {pictures[-1].name}\n:img-alt: {title}\n" if pictures else ""
    head = f":::{{grid-item-card}} {title}\n:link: {name}\n:link-type: doc\n"
    return f"{head}{picture}\n{summary}\n:::\n"


def index():
    """Return the page of thumbnails."""
    intro = """\
    # Gallery

    Worked examples of models as people write them. Each fit takes less than two minutes on two
    cores. The seed is the only setting unless the page says why. Every page shows the verdict and
    checks the result against the known truth, an exact answer or held-out data. Pages with data
    also have a posterior predictive check. The data come with scikit-learn or statsmodels, or are
    simulated. Each page offers its script and its notebook.

    """
    parts = [textwrap.dedent(intro)]
    for title, names in GROUPS.items():
        cards = "\n".join(map(card, names))
        parts.append(f"## {title}\n\n::::{{grid}} 1 2 2 3\n:gutter: 2\n\n{cards}::::\n\n")
    parts.append("\n".join(["```{toctree}", ":hidden:", "", *in_order(), "```", ""]))
    return "".join(parts)


def main(chosen):
    """Run the chosen examples, all by default, and write their pages."""
    from matplotlib import pyplot as plt

    logging.getLogger().addHandler(logging.NullHandler())  # no copy of the log on the terminal
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    plt.rcParams["font.size"] = FONT_SIZE
    GALLERY.mkdir(exist_ok=True)
    home = Path.cwd()
    for name in chosen or in_order():
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
    (GALLERY / "index.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
