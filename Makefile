# Every target makes or refreshes .venv first, which takes a while only the first time and after a
# change of pyproject.toml. Written for GNU make 3.81 (macOS) and later.

VENV := .venv
PYTHON ?=
ARGS :=

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo gallery test lint format types docs package clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=/path/to/python3.12 names the Python for .venv; ARGS='...' goes to pytest."

demo: $(VENV)/.installed-examples ## fit a logistic regression and write breast_cancer.png
	$(BIN)/python examples/breast_cancer.py
	@echo "breast_cancer.png is ready."

gallery: $(VENV)/.installed-examples ## run all examples and write their pages, docs/gallery
	$(BIN)/python scripts/make_gallery.py

test: $(VENV)/.installed-test ## run the tests, doctests and README code (ARGS="-m slow" for the slow ones)
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev ## check style, formatting, and the tables on the pages
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python benchmarks/tables.py --check

format: $(VENV)/.installed-dev ## apply the formatting and the safe style fixes
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# The test dependencies too, so that mypy sees the same packages on every machine.
types: $(VENV)/.installed-dev $(VENV)/.installed-test ## check the types
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-docs ## build the documentation in docs/_build/html; a warning fails it
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html is ready."

package: $(VENV)/.installed-dev $(VENV)/.installed-test ## build wheel and sdist, and run README from the wheel
	$(BIN)/python scripts/check_package.py

clean: ## remove .venv and everything else that these targets make
	rm -rf $(VENV) build dist htmlcov docs/_build .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pymc_isomix tests examples docs -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# An environment whose interpreter has gone (with a Homebrew or pyenv upgrade) is made anew.
ifneq ($(shell $(BIN)/python -c 'print("runs")' 2>/dev/null),runs)
.PHONY: $(VENV)/.created
endif

$(VENV)/.created:
	@sh scripts/make_venv.sh "$(VENV)" "$(PYTHON)"
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.created
	@echo "Installing pymc-isomix[$*] into $(VENV) ..."
	@$(PIP_INSTALL) -e ".[$*]"
	@touch $@
