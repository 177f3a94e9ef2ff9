# What a developer types. `make` alone lists it.

PYTHON ?= python3
STATE_DIR ?= .run/state
ARGS ?=
AGAINST ?= HEAD

BIN := .venv/bin
STAMP := .venv/.installed
# protoc looks for its plugins on the path.
GENERATE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/gen_protos.py

.DEFAULT_GOAL := help
.PHONY: help .venv run test torture load bench lint protos breaking clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z.]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP) ## install everything a developer needs into .venv
	@:

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("rexec needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@echo 'Installing into .venv; the first time takes a minute.'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP) ## run a server for development: gRPC on 127.0.0.1:50051, page and JSON on :3000 (STATE_DIR=DIR, ARGS='--max-running 1')
	@exec $(BIN)/rexec-server --dev --state-dir "$(STATE_DIR)" $(ARGS)

test: $(STAMP) ## run the tests (ARGS='-k name')
	@$(BIN)/pytest --numprocesses 4 --dist loadfile $(ARGS)

load: $(STAMP) ## 1,000 commands, 10,000 followers, 10,000 runs, 20 GB of output: what each costs, what grows (ARGS='--only soak')
	@$(BIN)/python -m tests.load $(ARGS)

torture: $(STAMP) ## kill, stop, fill and cut for a long time, and judge every execution (ARGS='--seed N --executions 5000 --kills 500')
	@$(BIN)/python -m tests.torture $(ARGS)

bench: $(STAMP)-bench ## measure beside ssh and others, in 35 minutes (ARGS='run-to-end', ARGS=--short)
	@$(BIN)/python -m bench $(ARGS)

$(STAMP)-bench: $(STAMP)
	@echo 'Installing what it compares with.'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

lint: $(STAMP) ## style, types, the import law, the contract, stale generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && $(GENERATE) "$$out" && \
	diff -r -x '*.proto' -x buf.yaml -x __init__.py -x __pycache__ -x py.typed "$$out" protos || \
	{ echo 'The generated code is stale: make protos' >&2; exit 1; }

protos: $(STAMP) ## generate the Python code of protos/ again
	@$(GENERATE)

breaking: $(STAMP) ## does protos/ break callers of an older version? (AGAINST=REF, default HEAD)
	@old=$$(mktemp -d) && trap 'rm -rf "$$old"' EXIT && \
	git archive --output "$$old/old.tar" "$(AGAINST)" protos && tar -xf "$$old/old.tar" -C "$$old" && \
	$(BIN)/buf breaking protos --against "$$old/protos"

clean: ## remove what was built and installed; keeps the state in .run
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache examples/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
