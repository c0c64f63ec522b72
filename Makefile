# The commands that the project keeps; `make help` lists them. Everything that is made lands in build/ and .venv/.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DURATION ?= 20
ARGS ?=
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

SOURCES := $(shell git ls-files -co --exclude-standard -- '*.py' '*.pyi' '*.pyx' '*.pxd' '*.c' '*.h' '*.build' pyproject.toml VERSION 2>/dev/null)
INSTALLED := build/installed.stamp

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench format clean system build

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the whole pipeline on this host: make demo DURATION=20 ARGS="--tls"
	$(Q)$(BIN)/tickpath demo --duration $(DURATION) $(ARGS)

test: build ## unit, property and namespace tests: make test ARGS="-k ring"
	$(Q)$(BIN)/pytest -q -n 2 --dist loadfile $(ARGS)

lint: build ## formatting, typing, compiler warnings, import direction
	$(Q)VENV=$(VENV) tools/lint

format: build ## let the formatters rewrite the tree
	$(Q)$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q . ; git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r $(BIN)/clang-format -i

system: ## the system packages: listed, installed when root
	$(Q)tools/system-packages

$(BIN)/python: | system
	$(Q)$(PYTHON) -m venv $(VENV)
	$(Q)tools/retry $(BIN)/python -m pip install -q --upgrade pip

build/dependencies.stamp: pyproject.toml tools/dependencies | $(BIN)/python
	$(Q)mkdir -p build
	$(Q)tools/retry $(BIN)/python -m pip install -q $$($(BIN)/python tools/dependencies)
	$(Q)touch $@

$(INSTALLED): build/dependencies.stamp $(SOURCES)
	$(Q)PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install -q --no-deps --no-build-isolation --force-reinstall --no-index -Cbuild-dir=build/native . > build/install.log 2>&1 || { cat build/install.log; exit 1; }
	$(Q)touch $@

build: $(INSTALLED)

clean: ## remove what was made
	$(Q)rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
