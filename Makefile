# Two commands for a newcomer: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export KEDRO_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export WANDB_MODE ?= offline
export WANDB_ERROR_REPORTING := false
export GOMP_SPINCOUNT ?= 5000

.DEFAULT_GOAL := help
.PHONY: help install demo map viz viz-page repro dvc test test-slow lint format types lock clean dvc-lock verify

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

install: $(VENV)/.installed ## make the environment in .venv from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "a2mae needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## run the whole chain on the simulated Earth
	$(BIN)/kedro run
	@echo
	@echo "Report:  open data/08_reporting/report.html in a browser (one file, works offline)"
	@echo "Map:     make map   (data/08_reporting/map.html, likewise)"
	@echo "DAG:     make viz   (serves http://127.0.0.1:4141)"

map: ## open the map page in the browser (ROOT=data/mine: of an environment of your own)
	$(PYTHON) -m webbrowser -t "file://$(abspath $(or $(ROOT),data))/08_reporting/map.html"

viz: install ## serve the DAG on http://127.0.0.1:4141 (ENV=mine: of an environment of your own)
	$(BIN)/kedro viz run --no-browser --include-hooks $(if $(ENV),--env=$(ENV))

viz-page: install ## the DAG as a page in build/ that needs no network: for any web server
	$(BIN)/python -m a2mae.viz $(if $(ENV),--env=$(ENV))

repro: install ## the same chain through DVC: only what changed is run again
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

verify: install ## name the stages whose outputs are not those of the committed dvc.lock
	$(BIN)/python -m a2mae.dvc_lock

dvc-lock: install ## dvc.lock from a whole run of the last commit in a fresh clone; commit it as it is
	$(BIN)/python -m a2mae.dvc_lock --write

dvc: install ## write dvc.yaml from the pipeline registry, the catalog and the nodes' imports
	$(BIN)/python -m a2mae.dvc

test: install ## lint, types, architecture laws and tests (offline, CPU)
	$(BIN)/ruff check src tests benchmarks notebooks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: install ## the long forms of the tests
	$(BIN)/pytest -m "slow and not gpu"

format: install ## format and fix what ruff can
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

lock: ## write requirements.lock anew, for every Python and system, with the hashes of all files
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv && .lock-venv/bin/pip install --quiet uv
	.lock-venv/bin/uv pip compile requirements.in pyproject.toml --universal --python-version 3.11.5 --upgrade --generate-hashes \
	  $(addprefix --extra ,pipeline repro viz bench docs dev) --no-header --no-annotate --no-emit-package a2mae -o requirements.lock --quiet
	rm -rf .lock-venv

clean: ## remove everything the pipelines wrote (keeps the environment)
	git clean -fdX data
