"""Draw the rooms of the package, with an arrow to each room that a room imports from.

Arrows that follow from others are left out. Writes docs/_static/house.svg, which is committed;
needs Graphviz's ``dot``. Run it after a change of the rooms: ``python scripts/draw_house.py``.
"""

import ast
import subprocess
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pymc_isomix"
PICTURE = ROOT / "docs" / "_static" / "house.svg"
FONT = "Helvetica,Arial,sans-serif"


def rooms():
    """First lines of the docstrings, by the name of the room."""
    inits = sorted(PACKAGE.glob("*/__init__.py"))
    return {path.parent.name: ast.get_docstring(_parsed(path)).splitlines()[0] for path in inits}


def imports():
    """Rooms that each room imports from."""
    found = {name: set() for name in rooms()}
    for path in PACKAGE.glob("*/*.py"):
        for node in ast.walk(_parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pymc_isomix."):
                found[path.parent.name].add(node.module.split(".")[1])
    return {name: others & set(found) - {name} for name, others in found.items()}


def arrows():
    """Pairs of rooms, importer first, without those that follow from others."""
    direct = imports()

    def below(room):
        return direct[room].union(*(below(other) for other in direct[room]))

    return {
        (room, other)
        for room, others in direct.items()
        for other in others
        if not any(other in below(between) for between in others - {other})
    }


def graph():
    """Return the drawing in Graphviz's language."""
    lines = [
        "digraph house {",
        f'  node [shape=box, style="rounded,filled", fillcolor="#eef3fa", fontname="{FONT}"]',
        '  graph [bgcolor="white", ranksep=0.35]; edge [color="#5a6b80"]',
    ]
    for name, line in rooms().items():
        says = "<BR/>".join(textwrap.wrap(line, 30))
        lines.append(f'  {name} [label=<<B>{name}</B><BR/><FONT POINT-SIZE="11">{says}</FONT>>]')
    lines += [f"  {above} -> {below}" for above, below in sorted(arrows())]
    return "\n".join([*lines, "}"])


def _parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    picture = subprocess.run(["dot", "-Tsvg"], input=graph(), capture_output=True, text=True)
    picture.check_returncode()
    PICTURE.write_text(picture.stdout, encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
