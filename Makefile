# Every target first makes what it needs in .venv, from Python 3.11 or newer with pip and nothing else.
# PYTHON=python3.12 make test      another interpreter
# make test ARGS="-k suspend"      more for the program behind a target
# make test JOBS=0                 the tests in one process, for a debugger

PYTHON ?=
JOBS ?= auto
ARGS ?=
RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest --numprocesses $(JOBS) --dist loadgroup

export PYTHON
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check e2e bench storm docs format clean lint types floors tidy

help: ## show this
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## index the standard library with a durable program whose workers are killed on the way
	@scripts/environment core
	@$(RUN) examples/index_stdlib/main.py $(ARGS)

test: ## run the test suite
	@scripts/environment dev
	@$(PYTEST) $(ARGS)

check: lint types floors tidy ## lint, format, types, floors and tidiness

e2e: ## test against official clients, with the Node that they need
	@scripts/environment e2e
	@KEPT_REQUIRE_SERVERS=1 $(PYTEST) tests/e2e $(ARGS)

bench: ## measure, and print the table
	@scripts/environment core
	@$(RUN) -m benchmarks $(ARGS)

storm: ## a million events, five times each at most, against workers that are killed (ARGS="--events 20000")
	@scripts/environment core
	@$(RUN) -m benchmarks.storm $(ARGS)

docs: ## write the generated sections of the documents anew
	@scripts/environment dev
	@$(RUN) scripts/documents.py

format: ## put the code into the house's format
	@scripts/environment dev
	@$(RUN) -m ruff check --fix-only --quiet
	@$(RUN) -m ruff format

clean: ## remove the environment, caches and builds
	@rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint:
	@scripts/environment dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

types:
	@scripts/environment dev
	$(RUN) -m mypy

floors:
	@scripts/environment dev
	.venv/bin/lint-imports --no-logo

tidy:
	@scripts/environment dev
	$(RUN) -m pytest -q tests/tidy
