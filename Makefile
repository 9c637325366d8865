# make train, make test, make check and make bench need nothing but Python 3.10 or newer; all they install goes into .venv

PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test check bench clean

train: .venv/installed
	$(BIN)/python train.py

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto --cov --cov-report=term --cov-fail-under=90

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install -q -e .
	touch $@

.venv/installed-dev: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/pip install -q -e ".[dev]"
	touch $@ .venv/installed
