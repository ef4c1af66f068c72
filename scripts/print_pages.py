"""Run the Python code that README.md and the pages in docs/ print, and write what it prints.

    python scripts/print_pages.py                   # all pages
    python scripts/print_pages.py docs/verdict.md   # one

A block of ``python`` that is followed by a block of ``text`` prints what that shows; a last line
``...`` leaves out the rest. The blocks of a page share one namespace, and run in an empty folder.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
REST = "...\n"
PROGRESS = re.compile(r"[━╸╺].*[\d-]:[\d-]{2}:[\d-]{2}")


def pages():
    """README and the pages that have code."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path for path in found if CODE.search(path.read_text(encoding="utf-8"))]


def blocks(path):
    """Compiled code and shown output, None where no output is shown, of each block of a page."""
    text = path.read_text(encoding="utf-8")
    for match in CODE.finditer(text):
        above = "\n" * text.count("\n", 0, match.start("code"))  # errors name the page's lines
        yield compile(above + match["code"], path, "exec"), match["shown"]


def run(path):
    """Run the blocks of a page: the namespace, and (printed, shown) of each."""
    namespace, outputs = {"__name__": "__main__"}, []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for code, shown in blocks(path):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            outputs.append((trimmed(printed.getvalue(), shown), shown))
    return namespace, outputs


def trimmed(printed, shown):
    """Leave out progress, and what a page does not show."""
    lines = [line.rstrip() + "\n" for line in printed.splitlines() if not PROGRESS.search(line)]
    if shown and shown.endswith(REST):
        lines[shown.count("\n") - 1 :] = [REST]
    return "".join(lines)


def written(text, outputs):
    """Return a page with its outputs as printed."""
    remaining = iter(outputs)

    def replaced(match):
        printed, shown = next(remaining)
        if shown is None:
            return match[0]
        start, end = (place - match.start() for place in match.span("shown"))
        return match[0][:start] + printed + match[0][end:]

    return CODE.sub(replaced, text)


def main(names):
    """Run and write the pages of these names, all if there are none."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    for path in [ROOT / name for name in names] or pages():
        outputs = run(path)[1]
        path.write_text(written(path.read_text(encoding="utf-8"), outputs), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
