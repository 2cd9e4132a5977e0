# `make demo` and `make test` do all the set-up on a fresh machine with Python and make; `make help` lists the rest.
#
# torch is installed first, by pip as it is configured here (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, pip.conf).
# `make demo TORCH_INDEX=<url>` takes it from another index: the one of its small CPU build where there is no NVIDIA GPU.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
RUN := $(VENV)/bin/python -m
PIPELINE := $(VENV)/bin/pipeline

.DEFAULT_GOAL := help
.PHONY: help demo test check build clean

help: ## List what there is to make
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /:/' | awk -F: '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.runtime ## Install, train on brain-perfusion phantoms, draw the lesions found (DEMO="--budget 10m")
	$(PIPELINE) demo $(DEMO)

test: $(VENV)/.dev ## Install, run all tests (TEST="tests/cli -k help")
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses=auto --maxprocesses=8 --max-worker-restart=0 \
		--dist=loadfile --no-loadscope-reorder $(TEST)

check: $(VENV)/.dev ## Lint, format, types, which room imports which, generated configs up to date
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports
	$(PIPELINE) build --check

build: $(VENV)/.dev ## Generate the bundles' configs, then the wheel in dist/
	$(PIPELINE) build
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

clean: ## Remove the environment, caches and built files (not runs, not demo)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp of each environment is newer than what it was made from, so that a second `make` installs nothing.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and "Python 3.10 to 3.13 is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ -z "$(TORCH_INDEX)" ]; then \
		echo "No NVIDIA GPU found: torch comes as pip is configured; TORCH_INDEX=<url of its CPU index> saves a large download."; \
	fi
	$(PIP) install --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.runtime: $(VENV)/.torch pyproject.toml
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@
