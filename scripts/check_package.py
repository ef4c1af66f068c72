"""Build sdist and wheel, check them, and run README's code from the wheel in a fresh environment.

    python scripts/check_package.py

The dependencies are those of the environment that runs this; only the package itself is installed
anew, so that this takes seconds.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
RUN_README = """
import sys
from pathlib import Path

import pymc_isomix as pmi

installed = Path(pmi.__file__)
assert installed.is_relative_to(sys.prefix), f"{installed} is not that of the wheel"
assert all(hasattr(pmi, name) for name in pmi.__all__)
sys.path.insert(0, sys.argv[2])
import print_pages

namespace, _ = print_pages.run(Path(sys.argv[1]))
assert namespace["idata"].posterior.sizes["draw"] == 1000
print("README runs with", pmi.__version__, "from the wheel")
"""


def run(*command, **options):
    """Run a command, and stop at a failure."""
    subprocess.run([str(part) for part in command], check=True, **options)


def fresh_environment(folder):
    """Make an environment without the package that sees the dependencies of this one."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    answer = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    # Such paths are searched last, and .pth files in them, of editable installs, are not read.
    paths = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    Path(answer.stdout.strip(), "dependencies.pth").write_text("\n".join(sorted(paths)) + "\n")
    return python


def main():
    """Build, check, install and run."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    names = zipfile.ZipFile(wheel).namelist()
    assert "pymc_isomix/py.typed" in names, "the wheel lacks py.typed"
    assert not [name for name in names if name.startswith("tests")], "the wheel has tests"
    with tempfile.TemporaryDirectory() as folder:
        python = fresh_environment(Path(folder).resolve() / "environment")
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
        program = (python, "-c", RUN_README, ROOT / "README.md", ROOT / "scripts")
        run(*program, cwd=folder, env={**os.environ, "MPLBACKEND": "Agg"})


if __name__ == "__main__":
    main()
