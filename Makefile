# edgebook: `make run` starts the system, `make test` tests it. A bare machine needs Python 3.11 or newer, nothing else.

SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
ARGS  ?=

# The first interpreter that is new enough; another one by: make run PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL  = $(PIP) install --require-hashes -r $(1) && $(PIP) install --no-deps --no-build-isolation --editable .

.PHONY: help run flow test check bench lock deps clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-12s %s\n' "$$t" "$$d"; done

run: $(VENV)/.installed ## start the system on the simulated market; more: make run ARGS="--speed 600 --until 2026-02-01"
	@$(BIN)/edgebook run $(ARGS)

flow: $(VENV)/.installed ## start the system, inject packets, only query: arrived, or died at which stage; some: make flow ARGS="F1 F7"
	@$(BIN)/edgebook flow $(ARGS)

test: $(VENV)/.installed-dev ## every test and doctest; some: make test ARGS="tests/unit/engine -x"
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev ## the gate: lint, format, types, every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

bench: $(VENV)/.installed-dev ## every script in bench/, each against its named peer
	@set -e; set -- bench/*.py; \
	if [ ! -e "$$1" ]; then echo "bench: there is no script in bench/ yet" >&2; exit 1; fi; \
	for script in "$$@"; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS); done

deps: $(VENV)/.installed-dev ## every dependency is declared, every declared one is used
	$(BIN)/deptry src

lock: ## compile the two lock files anew from pyproject.toml; newest versions: make lock ARGS=--upgrade
	@PYTHON='$(PYTHON)' tools/lock $(ARGS)

clean: ## remove the environment and every cache; databases stay
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------ the environment, made once and again only when a lock changes

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.created
	@echo "installing edgebook into $(VENV) (once, about a minute)"
	@$(call INSTALL,requirements.lock)
	@touch $@

# The development lock holds everything in the runtime lock, so installing it serves `make run` too.
$(VENV)/.installed-dev: requirements-dev.lock requirements.lock pyproject.toml | $(VENV)/.created
	@echo "installing edgebook and its test tools into $(VENV) (once, about a minute)"
	@$(call INSTALL,requirements-dev.lock)
	@touch $(VENV)/.installed $@

$(VENV)/.created:
	@if [ -z '$(PYTHON)' ]; then \
	  echo "edgebook needs Python 3.11 or newer and found none: install it (Debian, Ubuntu: apt install python3 python3-venv) and run make again" >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
	  v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "edgebook needs the venv module of $(PYTHON) $$v, and it is not complete: install it (Debian, Ubuntu: apt install python3-venv or python$$v-venv) and run make again" >&2; exit 1; fi
	@if ! $(PYTHON) -m venv $(VENV); then \
	  echo "edgebook could not create $(VENV) with '$(PYTHON) -m venv': is the directory writable?" >&2; exit 1; fi
	@touch $@
