# The project's commands. Each prints what it does; none needs anything but Python ≥ 3.11, make and a package index.
# `make test` also wants Go (it builds OPA), PostgreSQL and libfaketime; without them it says what it leaves out.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGES := treaty controlplane node_agent policies
LOCK_OPTIONS := --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
CODE   := $(PACKAGES) tests bench tools examples

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types arrows generated format generate bench bench-federation parts locks clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/uv: locks/uv.txt
	@echo "creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed; set PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	@touch $@

# The newer of the two stamps says what is installed; `dev` holds everything that `demo` does.
$(VENV)/dev.stamp: $(BIN)/uv locks/dev.txt pyproject.toml
	@echo "installing from locks/dev.txt"
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes locks/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(VENV)/demo.stamp $@

$(VENV)/demo.stamp: $(BIN)/uv locks/demo.txt pyproject.toml
	@echo "installing from locks/demo.txt"
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes locks/demo.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/demo.stamp ## run the whole main job on a real model and real text
	@$(BIN)/python -m examples.demo

test: $(VENV)/dev.stamp parts ## run every test; in CI a missing real part is a failure
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --ignore=tests/e2e
	@# Whole treaties of real processes: one at a time, or their deadlines would measure the machine.
	@$(BIN)/python -m pytest tests/e2e

# In CI a missing part is a failure; elsewhere the tests that need it are left out and say how to get it.
parts: $(VENV)/dev.stamp ## build or find the real parts of the tests (OPA, PostgreSQL, libfaketime)
	@$(BIN)/python tools/parts.py opa postgres faketime || test "$$CI" != true

check: lint types arrows generated ## everything that reads the code without running it

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

types: $(VENV)/dev.stamp
	@$(BIN)/mypy $(PACKAGES) tools

arrows: $(VENV)/dev.stamp
	@$(BIN)/lint-imports

generated: $(VENV)/dev.stamp
	@$(BIN)/python tools/parts.py opa buf
	@buf=$$($(BIN)/python -c 'from tools.parts import find; print(find("buf"))') && "$$buf" lint proto
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/proto.py --check
	@$(BIN)/python tools/policies.py --check
	@$(BIN)/python tools/settings.py --check

generate: $(VENV)/dev.stamp ## write the generated code, the compiled policies and the settings' tables
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/proto.py
	@$(BIN)/python tools/policies.py
	@$(BIN)/python tools/settings.py

format: $(VENV)/dev.stamp ## format the code
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(VENV)/dev.stamp ## measure each speed target beside its peer or floor
	@$(BIN)/python -m bench

bench-federation: $(VENV)/demo.stamp ## is federation worth it? an honest table
	@$(BIN)/python -m bench.federation

locks: $(BIN)/uv ## compute the locks anew
	@$(BIN)/uv pip compile pyproject.toml locks/build.in --extra dev $(LOCK_OPTIONS) -o locks/dev.txt
	@$(BIN)/uv pip compile pyproject.toml locks/build.in --extra demo -c locks/dev.txt $(LOCK_OPTIONS) -o locks/demo.txt
	@echo 'uv==0.12.24' | $(BIN)/uv pip compile - -c locks/dev.txt $(LOCK_OPTIONS) -o locks/uv.txt

clean: ## remove what the commands made, the demo's data included
	rm -rf $(VENV) .demo .parts build dist
