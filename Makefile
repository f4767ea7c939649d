# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.8
UV := .tools/bin/uv
RUN := .venv/bin/
SYNCED := .venv/.synced
# of tritonclient 2.50; that of 2.57 asks for a newer C library than Debian 12 has
PERF_ANALYZER := .tools/perf_analyzer/bin/perf_analyzer

# uv must not look for a Python elsewhere: the one above makes the environment
export UV_PYTHON_DOWNLOADS := never
# where a container sets this, as many do, every process would compile all that it imports anew
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1

.PHONY: help install parts demo test test-all lint unit component system wheel bench protos format clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(SYNCED) ## the environment in .venv, from the lock file

$(UV):
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' || \
	  { echo "error: Python 3.11 or 3.12 is needed and $(PYTHON) is another; run: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -m venv .tools || \
	  { echo "error: this Python has no venv module; on Debian: apt-get install python3.11-venv" >&2; exit 2; }
	@echo "installing uv $(UV_VERSION)"
	@.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(SYNCED): $(UV) pyproject.toml uv.lock
	@echo "installing the environment (a whole Flink is part of it: about a gigabyte the first time)"
	@$(UV) sync --frozen --all-extras --python "$(PYTHON)"
	@touch $@

demo: install ## everything at once, live; DEMO_SECONDS=180 plays a script and ends by itself
	@$(RUN)ferry-demo

test: parts ## all checks and tests, in some 20 minutes; tells at the end what took the time
	@$(RUN)python -m tests.run lint unit component system

test-all: parts $(PERF_ANALYZER) ## everything at full size, for a night
	@$(RUN)python -m tests.run --full-size --keep-going lint unit component system nightly

lint: install ## ruff, mypy, import-linter
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy
	$(RUN)lint-imports

unit: install ## tests without a socket or a process, in a minute
	@$(RUN)python -m tests.run unit

component: install ## tests on loopback, one server or store for a module, in four minutes
	@$(RUN)python -m tests.run component

system: parts ## tests on a real Kafka, MinIO and Flink, in twelve minutes
	@$(RUN)python -m tests.run system

parts: install ## what the local stack needs: fetched and built once, MinIO for some minutes
	@$(RUN)ferry-stack install

$(PERF_ANALYZER): $(UV)
	@$(UV) pip install --quiet --no-deps --python "$(PYTHON)" --target .tools/perf_analyzer \
	  tritonclient==2.50.0 nvidia-cuda-runtime-cu12==12.9.79 || \
	  echo "perf_analyzer cannot be fetched for this machine: its tests are skipped"

wheel: $(UV) ## the wheel, in dist
	@$(UV) build --quiet --wheel --python "$(PYTHON)" --out-dir dist .
	@ls dist/ferryline-*.whl

bench: install ## benchmarks, each beside its limit
	$(RUN)python -m bench

protos: install ## generate the code of protos/grpc_service.proto again
	$(RUN)python -m ferryline.protos.generate

format: install ## format the code and mend what can be mended
	$(RUN)ruff format .
	$(RUN)ruff check --fix .

clean: ## remove the environment and all caches of tools
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
