# make train, make test, make check and make bench need nothing but Python 3.10 or newer; all they install goes into .venv

PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-lowest check bench clean

train: .venv/installed
	$(BIN)/python train.py

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --cov --cov-report=term --cov-fail-under=90

# The lowest versions that setup.cfg promises, in .venv-lowest. They have wheels for Python 3.10 to 3.12: `make test-lowest
# PYTHON=python3.10`. Deprecations are ignored, since old libraries call what newer ones, which they bring along, have deprecated.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest -n auto -W ignore::DeprecationWarning

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

%/bin/python:
	$(PYTHON) -m venv $*

.venv/installed: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install -q -e .
	touch $@

.venv/installed-dev: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install -q -e ".[dev]"
	touch $@ .venv/installed

.venv-lowest/installed: .venv-lowest/bin/python setup.cfg pyproject.toml constraints-lowest.txt
	.venv-lowest/bin/pip install -q -c constraints-lowest.txt -e ".[test]"
	touch $@
