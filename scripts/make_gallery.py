"""Run the examples and write docs/gallery/: a page of each, with its output and figures.

    python scripts/make_gallery.py            # all of them, and the page of thumbnails
    python scripts/make_gallery.py sinusoid   # these, and the page of thumbnails

The pages are committed, so that the documentation builds without running anything. An example is a
script in percent format: ``# %% [markdown]`` begins a cell of prose, ``# %%`` one of code. What a
code cell prints, the value of its last line, and the figures that it leaves open are its output.
Asserts are for the tests: pages leave them out, and so does the notebook beside each page.
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

from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
EXAMPLES, GALLERY = ROOT / "examples", ROOT / "docs" / "gallery"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)
DPI = 80
FONT_SIZE = 12  # of figures, which telephones show at half their size
LOGGER = "pymc_isomix"
# in the order of the page of thumbnails; with each, the guide that goes on from there
GROUPS = {
    "Regression": ("five_minutes", ("breast_cancer", "neural_network", "minibatches")),
    "Hierarchies": ("hierarchies", ("varying_intercepts", "funnel", "two_groups")),
    "Time series and Gaussian processes": (
        "which_method",
        ("nile_hsgp", "air_passengers", "gp_classification"),
    ),
    "Maps and places": ("several_modes", ("disease_map", "sensor_localisation")),
    "Choices and rankings": ("verdict", ("bradley_terry", "ordinal_survey", "wine_classes")),
    "Survival and missing data": ("verdict", ("heart_transplants", "missing_data")),
    "Several modes": ("several_modes", ("sinusoid", "label_switching")),
    "On to the next model": ("into_nuts", ("compare_models", "next_model")),
}


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
    order = [name for _, members in GROUPS.values() for name in members]
    return sorted(names, key=order.index)


def shown(code):
    """Code without its asserts, and without what has nothing but asserts in it.

    One branch of several cannot have nothing but asserts: a SyntaxError.
    """
    lines, dropped = code.splitlines(), set()

    def drop(node):
        """Whether a statement goes; its lines are noted, or those of what goes within it."""
        parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        gone = [drop(part) for part in parts]
        if isinstance(node, ast.Assert) or (parts and all(gone)):
            dropped.update(range(node.lineno - 1, node.end_lineno))
            return True
        return False

    for node in ast.parse(code).body:
        drop(node)
    kept = "\n".join(line for i, line in enumerate(lines) if i not in dropped)
    ast.parse(kept)
    return re.sub(r"\n{4,}", "\n\n\n", kept).strip("\n")


def notebook(found):
    """Return the cells as a notebook that has not run, in JSON."""
    entries = []
    for number, cell in enumerate(found):
        prose = cell.kind == "prose"
        text = cell.text if prose else shown(cell.text)
        entry = {"cell_type": "markdown" if prose else "code", "id": f"cell-{number}"}
        entry |= {"metadata": {}, "source": text.splitlines(keepends=True)}
        if text:
            entries.append(entry if prose else entry | {"execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    head = {"metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps({"cells": entries} | head, indent=1, ensure_ascii=False) + "\n"


def footer(name):
    """Say where to go from the page of an example."""
    guide, members = next(group for group in GROUPS.values() if name in group[1])
    beside = [f"[]({other}.md)" for other in members if other != name]
    onward = ", ".join([f"[](../{guide}.md)", *beside])
    return (
        f"**Where to go next:** {onward}.\n\n"
        f"Download the {{download}}`script <../../examples/{name}.py>` or the "
        f"{{download}}`notebook <{name}.ipynb>`."
    )


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
        if code := shown(cell.text):
            lines += ["```python", code, "```", ""]
        if cell.output:
            lines += ["```text", cell.output, "```", ""]
        for figure in cell.figures:
            number += 1
            picture = f"{name}-{number}.png"
            figure.savefig(GALLERY / picture, dpi=DPI)
            title = found[0].text.splitlines()[0].removeprefix("# ")
            lines += ["{.painted}", f"![{title}]({picture})", ""]  # on white; see pages.css
    lines += [footer(name), ""]
    return "\n".join(lines)


def card(name, picture):
    """Return the thumbnail of an example."""
    title, summary = about(name)
    return (
        f":::{{grid-item-card}} {title}\n:link: {name}\n:link-type: doc\n"
        f":img-top: {picture}\n:img-alt: {title}\n\n{summary}\n:::\n"
    )


def index(names):
    """Return the page of thumbnails by groups; each shows the last figure of its example."""
    pictures = {name: sorted(GALLERY.glob(f"{name}-*.png")) for name in names}
    intro = """\
    # Gallery

    Worked examples of models as people write them. Each fit takes less than two minutes on two
    cores. The seed is the only setting unless the page says why. Every page shows the verdict and
    checks the result against the known truth, an exact answer or held-out data. Pages with data
    also have a posterior predictive check. The data come with scikit-learn or statsmodels, or are
    simulated. Each page offers its script and its notebook.
    """
    parts, pages = [textwrap.dedent(intro)], []
    for group, (_, members) in GROUPS.items():
        drawn = [name for name in members if pictures.get(name)]
        cards = "\n".join(card(name, pictures[name][-1].name) for name in drawn)
        if drawn:
            grid = "::::{grid} 1 2 2 3\n:gutter: 2\n\n" + cards + "::::\n"
            parts.append(f"## {group}\n\n{grid}")
            pages += drawn
    parts.append("\n".join(["```{toctree}", ":hidden:", "", *pages, "```", ""]))
    return "\n".join(parts)


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
        (GALLERY / f"{name}.ipynb").write_text(notebook(found), encoding="utf-8")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    (GALLERY / "index.md").write_text(index(names), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
