# muster, from a fresh clone: `make demo` shows it, `make test` proves it. Every target installs
# what it needs into this checkout (.venv, and node_modules for Azurite) and nothing elsewhere.
#
#   make PYTHON=python3.12 setup      uses another Python than the first fitting one
#   make test ARGS="-k ledger -x"     hands arguments to pytest

PYTHON ?=
ARGS ?=
# Tests wait for processes about as long as they compute: one more than two cores.
JOBS ?= 3
# Of make up: Prefect's port, your own muster.toml instead of a sandbox, and who hears of what.
PORT ?= 4200
CONFIG ?=
NOTIFY ?=
# The share of statements and branches that the tests must reach, per package.
FLOOR ?= 80

VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
AZURITE := $(VENV)/.azurite
AZ_VENV := .venv-az
AZ_READY := $(AZ_VENV)/.ready
AZ_CLI := azure-cli==2.91.0
PIP_QUIET := --quiet --no-input --disable-pip-version-check --progress-bar off

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up down test coverage check stress bench docs clean test-az

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(READY) $(AZURITE) ## install everything that is needed, into this checkout

# The interpreter is looked for only when the environment has to be made.
$(LOCKED): requirements.lock
	@command -v git >/dev/null || { \
	  echo "error: git is missing; muster keeps its ledger in Git."; \
	  echo "  next:  install git (Debian: apt-get install git)"; exit 1; } >&2
	@fits() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    >/dev/null 2>&1; }; \
	found=""; \
	for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if fits "$$candidate"; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then { \
	  echo "error: no fitting Python: muster runs on Python 3.11, 3.12 and 3.13."; \
	  echo "  where: looked for $(or $(PYTHON),python3 python3.13 python3.12 python3.11)"; \
	  echo "  next:  install one of them, or name it: make PYTHON=/path/to/python3.12 setup"; \
	  } >&2; exit 1; fi; \
	if [ -x $(BIN)/python ] && ! fits $(BIN)/python; then \
	  echo "the environment in $(VENV) is of another Python: making it anew"; rm -rf $(VENV); \
	fi; \
	if [ ! -x $(BIN)/pip ]; then \
	  echo "making $(VENV) with $$found"; \
	  "$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: $$found cannot make a virtual environment."; \
	    echo "  next:  install its venv module (Debian: apt-get install python3-venv)"; \
	    exit 1; } >&2; \
	fi
	@echo "installing what requirements.lock names"
	@# No dependency is resolved here: the lock is complete, and older pips refuse extras in
	@# hash mode (docs/decisions/0002-pinned-versions.md).
	@$(BIN)/python -m pip install $(PIP_QUIET) --no-deps --require-hashes -r requirements.lock
	@touch $@

$(READY): $(LOCKED) pyproject.toml muster/__init__.py
	@$(BIN)/python -m pip install $(PIP_QUIET) --no-deps --no-build-isolation --editable .
	@touch $@

# Azurite is an npm package; Node.js comes from the lock, as a wheel.
$(AZURITE): $(LOCKED) drills/sandbox/blob/package-lock.json drills/sandbox/blob/install.py
	@$(BIN)/python -m drills.sandbox.blob.install
	@touch $@

demo: setup ## the whole story in minutes, against a local Azure
	@$(BIN)/muster demo $(ARGS)

up: setup ## Prefect with a worker, the deployments and a sandbox, on this machine
	@$(BIN)/python -m flows.local_stack up --port $(PORT) $(if $(CONFIG),--config "$(CONFIG)") \
	  $(if $(NOTIFY),--notify "$(NOTIFY)") $(ARGS)

down: $(READY) ## end exactly what `make up` started
	@$(BIN)/python -m flows.local_stack down $(ARGS)

test: setup ## unit, contract and story tests
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# Following every branch in every process doubles the tests' processor time, hence its own target.
coverage: setup ## the same tests, with the floor on coverage of snapshots and drills
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -n $(JOBS) --timeout=600 --cov --cov-report= $(ARGS)
	@for package in snapshots drills; do \
	  $(BIN)/python -m coverage report --include="$$package/*" --format=total >.covered \
	    || { echo "error: no coverage of $$package was measured" >&2; exit 1; }; \
	  echo "coverage of $$package/: $$(cat .covered)% (floor: $(FLOOR)%)"; \
	  if [ "$$(cat .covered)" -lt $(FLOOR) ]; then \
	    $(BIN)/python -m coverage report --include="$$package/*" >&2; \
	    echo "error: coverage of $$package/ is below its floor" >&2; exit 1; \
	  fi; \
	done

check: setup ## formatting, lint, types, import rules, documentation
	@$(BIN)/ruff format --check --quiet . || { \
	  echo "error: not formatted; next: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/python docs/decisions/list.py --check
	@$(BIN)/python docs/check.py

stress: setup ## the long tests: full kill counts, fault storms, large estates
	@MUSTER_STRESS=1 $(BIN)/python -m pytest -n $(JOBS) --timeout=3600 \
	  -m "not azure_verified and not az" $(ARGS)

bench: setup ## measure, and keep the figures in bench/out
	@mkdir -p bench/out
	@missed=""; for file in bench/bench_*.py; do \
	  [ -e "$$file" ] || { echo "there is nothing to measure"; break; }; \
	  echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || missed="$$missed $$file"; \
	done; \
	[ -z "$$missed" ] || { echo "error: a limit was missed in$$missed" >&2; exit 1; }

docs: setup ## check the documentation: links, commands, targets
	@$(BIN)/python docs/decisions/list.py --check
	@$(BIN)/python docs/check.py

# azure-cli has 150 dependencies of its own (700 MB), so it gets an environment of its own.
$(AZ_READY): $(LOCKED)
	@$(BIN)/python -m venv $(AZ_VENV)
	@echo "installing $(AZ_CLI), 700 MB, in $(AZ_VENV)"
	@$(AZ_VENV)/bin/python -m pip install $(PIP_QUIET) "$(AZ_CLI)"
	@touch $@

test-az: setup $(AZ_READY) ## Microsoft's azure-cli against the sandbox (downloads 700 MB once)
	@MUSTER_AZ="$(CURDIR)/$(AZ_VENV)/bin/az" $(BIN)/python -m pytest -m az tests/az $(ARGS)

clean: ## remove everything that make made
	@if [ -x $(BIN)/python ] && [ -e .up/processes.json ]; then \
	  $(BIN)/python -m flows.local_stack down || exit 1; fi
	@rm -rf $(VENV) $(AZ_VENV) drills/sandbox/blob/node_modules drills/sandbox/blob/.azurite
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@rm -rf .coverage .coverage.* htmlcov build dist *.egg-info .demo .state .up bench/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
