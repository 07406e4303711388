# Every target makes its own virtual environment: Python 3.11 or later, make and PyPI are all it takes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two test processes keep the memory of several compilers in check; JOBS=8 where there is room.
JOBS ?= 2
TESTS ?= tests
# Programs are compiled once and shared by all test processes, through JAX's cache in a folder of the checkout.
TEST_CACHE := $(CURDIR)/.jax-cache
# One thread a process: the processes already fill the cores.
TEST_ENV := JAX_COMPILATION_CACHE_DIR=$(TEST_CACHE) JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.2 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 JAX_PLATFORMS=cpu \
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
	TF_CPP_MIN_LOG_LEVEL=2 PYTHONDONTWRITEBYTECODE=1

.PHONY: help demo test test-doc test-fast test-slow test-libraries coverage lint docs benchmarks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        fit a real MUSE cube and draw a page of maps, in demo-output/"
	@echo "make test        checkers and tests (make test-slow: the statistical ones)"
	@echo "make coverage    which lines the fast tests run, and which they do not"
	@echo "make lint        ruff, pyright, import-linter"
	@echo "make docs        documentation, in docs/_build/html"
	@echo "make benchmarks  timings beside their baselines"
	@echo "make clean       remove the virtual environment and everything built"

demo: $(VENV)/.stamp-core
	$(BIN)/ifujax demo --directory demo-output --overwrite

# Checkers and examples take one processor each, the tests all of them.
test:
	@$(MAKE) $(VENV)/.stamp-dev
	@$(MAKE) -j 2 lint test-doc
	@$(MAKE) test-fast

# The examples in docstrings.
test-doc: $(VENV)/.stamp-dev
	@$(TEST_ENV) $(BIN)/python -m pytest --doctest-modules --quiet ifujax

# Exit status 5 is pytest's way of saying that nothing was selected.
test-fast: $(VENV)/.stamp-dev
	@status=0; $(TEST_ENV) $(BIN)/python -m pytest $(TESTS) -m "not slow" -n $(JOBS) --dist worksteal $(PYTEST_ARGS) || status=$$?; \
	[ $$status -eq 5 ] || exit $$status

test-slow: $(VENV)/.stamp-dev
	@status=0; $(TEST_ENV) $(BIN)/python -m pytest $(TESTS) -m slow -n $(JOBS) --dist worksteal $(PYTEST_ARGS) || status=$$?; \
	[ $$status -eq 5 ] || exit $$status

# What a new version of a library can break: files (astropy, h5py, xarray), figures (matplotlib, arviz), the command line (typer,
# rich), JAX's interface, solvers and samplers (jaxopt, optax, numpyro), and a fit of each kind. Python 3.11 gets other versions.
LIBRARY_TESTS := tests/test_import.py tests/cli tests/io tests/data tests/plotting tests/images/test_regrid.py \
	tests/inference/test_precision.py tests/inference/test_compilations.py tests/inference/test_minimize.py \
	tests/inference/test_least_squares.py tests/inference/test_linear.py tests/inference/test_cholesky.py \
	tests/inference/sampling/test_arviz.py tests/inference/sampling/test_nuts.py tests/inference/sampling/test_diagnostics.py \
	tests/models/test_voigt.py tests/lines/test_spectrum.py tests/lines/products tests/lines/posteriors/test_sample.py \
	tests/photometry/test_photometry_products.py tests/photometry/test_joint.py

test-libraries:
	@$(MAKE) test-fast TESTS="$(LIBRARY_TESTS)"

coverage: $(VENV)/.stamp-dev
	@$(TEST_ENV) $(BIN)/python -m pytest $(TESTS) -m "not slow" -n $(JOBS) --dist worksteal --cov=ifujax --cov-report=term-missing:skip-covered \
		$(PYTEST_ARGS)

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

docs: $(VENV)/.stamp-docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

benchmarks: $(VENV)/.stamp-dev
	PYTHONPATH=. $(BIN)/python benchmarks/three_lines.py
	$(BIN)/python -m pytest benchmarks -o "addopts=--strict-markers --import-mode=importlib" $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) .venv-* build dist docs/_build docs/gallery docs/generated docs/sg_execution_times.rst demo-output
	rm -rf .jax-cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find ifujax tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed once, and again when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ifujax needs Python 3.11 or later; got $$($(PYTHON) --version 2>&1). Say make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-core

$(VENV)/.stamp-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.stamp-core
