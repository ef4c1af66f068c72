"""Where the benchmarks' figures lie, and how a page shows them: JSON to Markdown."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
# not that of a version
LEADING_ZERO = re.compile(r"(?<![\d.])0(?=\.\d+(?!\.?\d))")
NEGATIVE_ZERO = re.compile(r"-(?=\.0+\b)")


def write(name, content):
    """Write a result: a line for each entry, and for each record of a table."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    parts = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(record) for record in value) + "\n ]"
        parts.append(f"{json.dumps(key)}: {text}")
    path.write_text("{\n " + ",\n ".join(parts) + "\n}\n")


def read(name):
    """Return what a benchmark wrote, None where it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def grouped(records, keys):
    """Lists of records with the same values of the keys, in order of appearance."""
    groups = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def summary(records):
    """Median, ``_worst`` (largest), ``_least`` and ``_sum`` of numbers; ``_all`` lists texts."""
    found = {}
    for key in records[0]:
        values = [record[key] for record in records if key in record]
        number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        found[key] = np.median(values) if number and len(values) > 1 else values[0]
        if number:
            found |= {f"{key}_worst": max(values), f"{key}_least": min(values)}
            found[f"{key}_sum"] = sum(values)
        else:
            found[f"{key}_all"] = ", ".join(map(str, values))
    return found


@dataclass
class Listing:
    """A row for each group of records with the same values of the keys ``by``.

    ``row`` is written as the row shall look, "heading {cell} | heading {cell}", with the names of
    :func:`summary` in its cells.
    """

    source: str
    records: str
    by: str
    row: str
    others: tuple = ()

    def rows(self):
        """Headings and rows."""
        groups = grouped(read(self.source)[self.records], self.by.split()).values()
        cells = [cell.partition("{") for cell in self.row.split(" | ")]
        headings = [heading.strip() for heading, _, _ in cells]
        formats = [brace + cell for _, brace, cell in cells]
        return headings, [[cell.format_map(summary(group)) for cell in formats] for group in groups]


@dataclass
class Computed:
    """Headings and rows by a function of the result; ``others`` are results that it reads, too."""

    source: str
    make: object
    others: tuple = ()

    def rows(self):
        """Headings and rows."""
        return self.make(read(self.source))


def markdown(block):
    """Render a block; numbers without the zero before the point: .05, -.02."""
    for source in (block.source, *block.others):
        if read(source) is None:
            return f"Not measured yet: `{source}`.\n"
    headings, rows = block.rows()
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        cells = [LEADING_ZERO.sub("", str(cell)) for cell in row]
        lines.append([NEGATIVE_ZERO.sub("", cell) for cell in cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
