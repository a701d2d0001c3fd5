# Everything in a virtual environment in .venv, made on first use.
#   make demo                     fit a model of the zoo and look at the answer
#   make demo PYTHON=python3.13   the same with another Python
#   make bench TABLES=posteriors  one table of benchmarks/tables.py
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One stamp a Python: another PYTHON makes the environment anew.
PYTHON_STAMP := $(VENV)/made-with-$(subst /,-,$(PYTHON)).stamp

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help bench demo docs gallery test test-slow test-ray lint clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/zoo.stamp ## fit eight schools, print the answer, write a report to out/
	@echo '$$ ngvi fit eight_schools'
	@# Exit code 1 says that the answer is not to be trusted in full: still an answer.
	@$(BIN)/ngvi fit eight_schools --out out/eight_schools || test $$? -eq 1

test: $(VENV)/test.stamp ## run the tests, without the slow ones
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/test.stamp ## run the slow tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

test-ray: $(VENV)/ray.stamp ## run the tests that need Ray, which this installs
	$(BIN)/python -m pytest tests/executors

docs: $(VENV)/docs.stamp ## build the documentation into site/ (python3 -m http.server -d site)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gallery: $(VENV)/test.stamp ## run all examples and make docs/gallery.md anew (half an hour)
	$(BIN)/python docs/tools/gallery.py

bench: $(VENV)/bench.stamp ## run TABLES (all: hours) beside the peers, write docs/results/
	$(BIN)/python benchmarks/publish.py $(TABLES)

lint: $(VENV)/dev.stamp ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove the environment, outputs and caches
	rm -rf $(VENV) out site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_STAMP):
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/zoo.stamp: EXTRAS := zoo,plots
$(VENV)/bench.stamp: EXTRAS := bench
$(VENV)/docs.stamp: EXTRAS := docs
$(VENV)/test.stamp: EXTRAS := test
$(VENV)/ray.stamp: EXTRAS := ray
$(VENV)/dev.stamp: EXTRAS := dev
$(VENV)/%.stamp: pyproject.toml $(PYTHON_STAMP)
	@echo 'Installing ngvi[$(EXTRAS)] into $(VENV) (the first time takes a few minutes) …'
	@$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@
