# The commands that the project keeps; `make help` lists them. Everything that is made lands in build/ and .venv/.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DURATION ?= 20
SEED ?= 1
ARGS ?=
# V=1 shows every command and all of its output.
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

SOURCES := $(shell git ls-files -co --exclude-standard -- '*.py' '*.pyi' '*.pyx' '*.pxd' '*.c' '*.h' '*.build' pyproject.toml VERSION 2>/dev/null)
INSTALLED := build/installed.stamp
SANITIZED := build/sanitize.stamp
# What runs on sanitized parts: proof, fuzz and the window of pings bring their own sanitizers; truth, faults, bench and
# the comparison of pingers measure or take minutes.
PING_TESTS := $(filter-out %_beside.py %_window.py,$(wildcard tests/ping/test_*.py))
UNIT_TESTS := $(addprefix tests/,library correlator exporter feed wire shuttle simulator demo dpdk) $(PING_TESTS)
# Its name says for which Python, made where, it is: where one of these changed, the file is missing.
ENVIRONMENT := $(VENV)/made-for-$(shell { $(PYTHON) -VV; command -v $(PYTHON); pwd; } 2>&1 | cksum | cut -d' ' -f1)
QUIETLY := V=$(V) tools/quietly

.DEFAULT_GOAL := help
.PHONY: help demo test truth blame ping sanitize fuzz faults lint bench dashboards pictures format clean system build wanted test-vm test-stack soak

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the whole pipeline on this host: make demo DURATION=20 ARGS="--tls"
	$(Q)$(BIN)/tickpath demo --duration $(DURATION) $(ARGS)

test: wanted build ## unit, property and namespace tests: make test ARGS="-k ring"
	$(Q)$(BIN)/pytest -q -n 2 --dist loadfile $(ARGS)

test-vm: build ## the kernel probe in guests, rung by kernel, in software emulation: make test-vm ARGS="--only 6.1 -v"
	$(Q)tools/system-packages vm
	$(Q)$(BIN)/python -P tests/vm/matrix.py --json build/vm.json $(ARGS)

truth: build ## 100,000 messages over the truth wire, each against a naive model; JSON in build/truth.json
	$(Q)$(BIN)/python -P tests/truth/table.py --factor 6 --json build/truth.json $(ARGS)

blame: build ## a stall in each step of a paced stream, and which part of the time it moved
	$(Q)$(BIN)/python -P tests/blame/table.py $(ARGS)

ping: wanted build ## tickpath ping beside ping, fping and a naive pinger over the truth wire; JSON in build/ping.json
	$(Q)$(BIN)/python -P tests/ping/table.py --json build/ping.json $(ARGS)

test-stack: build ## docker compose up in an engine of its own, asked through a real Prometheus (root; several minutes the first time)
	$(Q)tools/system-packages stack
	$(Q)TICKPATH_STACK=1 $(BIN)/pytest -q tests/stack tests/rules/test_live.py tests/rules/test_lasting.py $(ARGS)

soak: DURATION := 3600
soak: build ## no alarm may fire in an hour of the stack's demo: make soak DURATION=1500
	$(Q)tools/system-packages stack
	$(Q)TICKPATH_STACK=1 TICKPATH_QUIET_SECONDS=$(DURATION) $(BIN)/pytest -q tests/stack/test_quiet.py $(ARGS)

sanitize: wanted build $(SANITIZED) ## the same under address and undefined-behaviour sanitizers: make sanitize ARGS="-k ring"
	$(Q)tools/sanitized $(BIN)/pytest -q -n 2 --dist loadfile $(UNIT_TESTS) $(ARGS)

fuzz: wanted build ## each fuzzer for so many seconds: make fuzz DURATION=600
	$(Q)PYTHONPATH=tests $(BIN)/python -P tests/fuzzing.py $(DURATION)

faults: build ## kill every process at random for so many seconds: make faults DURATION=300 SEED=7
	$(Q)FAULTS_SECONDS=$(DURATION) FAULTS_SEED=$(SEED) $(BIN)/pytest -q -s tests/faults/test_kills.py $(ARGS)

bench: build ## tickpath's own costs beside their yardsticks: make bench ARGS="--only ring"
	$(Q)$(BIN)/tickpath bench $(ARGS)

lint: build ## formatting, typing, compiler warnings, import direction
	$(Q)VENV=$(VENV) tools/lint

dashboards: build ## write the dashboards' JSON from their source, dashboards/boards
	$(Q)PYTHONPATH=dashboards $(BIN)/python -P -m boards

pictures: build ## every dashboard drawn by Grafana's panel components, from a live pipeline, in build/pictures (root, npm, chromium)
	$(Q)$(BIN)/python -P tests/dashboards/pictures/draw.py $(ARGS)

format: build ## let the formatters rewrite the tree
	$(Q)$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q . ; git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r $(BIN)/clang-format -i

system: ## the system packages: listed, installed when root
	$(Q)tools/system-packages

wanted:
	$(Q)tools/system-packages tests

# A virtual environment knows where it stands and which Python made it: one that was moved, or whose Python went away or
# was changed for another, is made anew, and so is what was compiled for it.
$(ENVIRONMENT): | system
	$(Q)tools/python-version $(PYTHON)
	$(Q)echo "tickpath: making the environment $(VENV)" >&2
	$(Q)rm -rf $(VENV) build
	$(Q)$(PYTHON) -m venv $(VENV)
	$(Q)mkdir -p build
	$(Q)$(QUIETLY) tools/retry $(BIN)/python -m pip install --upgrade pip
	$(Q)touch $@

build/dependencies.stamp: pyproject.toml tools/dependencies $(ENVIRONMENT)
	$(Q)echo "tickpath: installing what pyproject.toml names" >&2
	$(Q)$(QUIETLY) tools/retry $(BIN)/python -m pip install $$($(BIN)/python tools/dependencies)
	$(Q)touch $@

$(INSTALLED): build/dependencies.stamp $(SOURCES)
	$(Q)echo "tickpath: building" >&2
	$(Q)PATH="$(CURDIR)/$(BIN):$$PATH" $(QUIETLY) $(BIN)/python -m pip install --no-deps --no-build-isolation --force-reinstall --no-index -Cbuild-dir=build/native .
	$(Q)touch $@

# Every C and Cython part once more, beside the virtual environment and before it in the path.
$(SANITIZED): build/dependencies.stamp tools/sanitized $(SOURCES)
	$(Q)rm -rf build/sanitize/site && mkdir -p build/sanitize
	$(Q)echo "tickpath: building with sanitizers" >&2
	$(Q)PATH="$(CURDIR)/$(BIN):$$PATH" $(QUIETLY) $(BIN)/python -m pip install --no-deps --no-build-isolation --no-index --target build/sanitize/site -Cbuild-dir=build/sanitize/native -Csetup-args=-Db_sanitize=address,undefined -Csetup-args=-Dbuildtype=debugoptimized .
	$(Q)touch $@

build: $(INSTALLED)

clean: ## remove what was made
	$(Q)rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
