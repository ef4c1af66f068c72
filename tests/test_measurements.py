"""The tables on the pages are what the benchmarks' JSON gives."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "benchmarks" / "tables.py"
PAGES = ("README.md", "docs/measurements.md", "docs/which_method.md")


def check(root):
    command = [sys.executable, str(TABLES), "--check", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True)


def test_pages_agree_with_results():
    answer = check(ROOT)
    assert answer.returncode == 0, f"run python benchmarks/tables.py\n{answer.stdout}"


@pytest.mark.parametrize("page", PAGES)
def test_altered_figure_is_found(page, tmp_path):
    (tmp_path / "docs").mkdir()
    for name in PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    lines = (tmp_path / page).read_text(encoding="utf-8").splitlines(keepends=True)
    table = next(i for i, line in enumerate(lines) if line.startswith("<!-- table"))
    row = next(i for i in range(table + 3, len(lines)) if re.search(r"\.\d", lines[i]))
    lines[row] = re.sub(r"\.(\d)", r".9\1", lines[row], count=1)
    (tmp_path / page).write_text("".join(lines), encoding="utf-8")
    answer = check(tmp_path)
    assert answer.returncode == 1
    assert lines[row].strip() in answer.stdout
