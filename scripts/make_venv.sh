#!/bin/sh
# Make a virtual environment with a Python that PyMC supports.
# usage: make_venv.sh DIRECTORY [PYTHON]
#
# An environment that is there already is kept if it will do. A candidate counts only if it runs:
# pyenv's shims and the Windows Store's stubs are found on the PATH and then fail.
set -eu

venv=$1
preferred=${2-}

right_version='import sys
v = sys.version_info
sys.exit(not ((3, 12) <= v[:2] < (3, 15) and sys.implementation.name == "cpython"))'
version='import platform
print(platform.python_implementation(), platform.python_version())'

if [ -f "$venv/pyvenv.cfg" ]; then
    if "$venv/bin/python" -c "$right_version" 2>/dev/null </dev/null &&
        "$venv/bin/python" -c 'import pip' 2>/dev/null </dev/null; then
        exit 0
    fi
elif [ -e "$venv" ]; then
    echo "$venv is there already and is not a virtual environment: move it away." >&2
    exit 1
fi

seen=''         # every Python that runs, for the message
without_pip=''  # the first one of the right version that lacks venv or ensurepip

make_venv_with() {
    echo "Making $venv with $1 ($("$1" -c "$version")) ..."
    rm -rf "$venv"
    "$1" -m venv "$venv"
    exit 0
}

# Use this Python if it will do, else return.
try() {
    found=$("$1" -c "$version" 2>/dev/null </dev/null) || return 0
    seen="$seen
  $1: $found"
    "$1" -c "$right_version" 2>/dev/null </dev/null || return 0
    if "$1" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then
        make_venv_with "$1"
    fi
    without_pip=${without_pip:-$1}
}

# Try every program of this name on the PATH, not only the first.
try_on_path() {
    old_ifs=$IFS
    IFS=:
    for directory in $PATH; do
        IFS=$old_ifs
        if [ -f "${directory:-.}/$1" ] && [ -x "${directory:-.}/$1" ]; then
            try "${directory:-.}/$1"
        fi
    done
    IFS=$old_ifs
}

if [ -n "$preferred" ]; then
    case $preferred in
        */*) try "$preferred" ;;
        *) try_on_path "$preferred" ;;
    esac
    echo "PYTHON=$preferred cannot be used (it must run, be CPython 3.12, 3.13 or 3.14, and have" \
        "venv and ensurepip); looking for another." >&2
fi

for name in python3.14 python3.13 python3.12 python3 python; do
    try_on_path "$name"
done

# pyenv hides the versions that .python-version does not name.
if command -v pyenv >/dev/null 2>&1; then
    for name in $(pyenv versions --bare 2>/dev/null </dev/null); do
        try "$(pyenv root)/versions/$name/bin/python"
    done
fi

if command -v uv >/dev/null 2>&1; then
    echo "Making $venv with uv ..."
    rm -rf "$venv"
    if uv venv --quiet --seed --python "${without_pip:-3.12}" "$venv"; then
        exit 0
    fi
fi

if [ -n "$without_pip" ]; then
    minor=$("$without_pip" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    cat >&2 <<EOF
$without_pip has the right version but not the modules venv and ensurepip, which make $venv.
Debian and Ubuntu ship them apart:

  sudo apt install python3-venv        (or python$minor-venv)

Then run make again.
EOF
    exit 1
fi

cat >&2 <<EOF
No usable Python was found: PyMC needs CPython 3.12, 3.13 or 3.14.
These run, but are not one of them:${seen:-" (none)"}

Ways to get one:
  Debian 13, Ubuntu 24.04 or later   sudo apt install python3 python3-venv
  Fedora                             sudo dnf install python3.12
  macOS (Homebrew)                   brew install python@3.12
  pyenv                              pyenv install 3.12
  conda                              conda create -n isomix python=3.12 && conda activate isomix
  uv, on any platform                install uv; it fetches the Python that make asks it for

Then run make again. A Python that is not on the PATH can be named: make test PYTHON=/path/to/python
EOF
exit 1
