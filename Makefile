# The four things a contributor does. Second runs are fast: each step leaves a stamp.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
WORKSPACE ?= quickstart

.PHONY: help quickstart test lint types contract pytest soak bench clean
help:
	@echo "make quickstart  install and go from sample bars to a report"
	@echo "make test        lint, types, import contract, tests"
	@echo "make soak        long sweeps: kills, grids (tables land in benchmarks/results/)"
	@echo "make clean       remove the environment and stamps"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/run: pyproject.toml constraints.txt | $(BIN)/python
	@mkdir -p $(STAMPS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sample]'
	@touch $@

$(STAMPS)/dev: $(STAMPS)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sample,pandas,dev]'
	@touch $@

quickstart: $(STAMPS)/run
	$(BIN)/barcast quickstart --workspace $(WORKSPACE)
	@echo "more commands: source $(BIN)/activate, then barcast --help; or $(BIN)/barcast --help"

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/dev
	$(BIN)/mypy

contract: $(STAMPS)/dev
	$(BIN)/lint-imports

pytest: $(STAMPS)/dev
	$(BIN)/pytest -n 2 --dist loadfile -m 'not soak'

test: lint types contract pytest

soak: $(STAMPS)/dev
	$(BIN)/pytest -m soak -s

clean:
	rm -rf $(VENV) $(STAMPS)
