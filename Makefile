# captune: one command each. `make` alone lists them.
#
# The environment .venv is made from nothing when a target needs it, and again when
# pyproject.toml or constraints.txt change. Variables:
#   PYTHON    the Python to make it with                  make test PYTHON=python3.12
#   PIP_ARGS  more arguments for pip install; your own pip configuration counts as well.
#             PyPI's torch for Linux is the CUDA build; the smaller one for CPUs:
#             make setup PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'
#   ARGS      more arguments for pytest                   make test ARGS='-k blip'
#   MODEL     the model that `make serve` serves

PYTHON ?=
PIP_ARGS ?=
ARGS ?=
MODEL ?= captune-demo/run
# Some tests wait for processes, servers and clusters: one worker more than cores keeps both at work. Each file stays with
# one worker, in our order: what it imports and makes is made once.
WORKERS ?= 3
PYTEST := python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

BIN := .venv/bin
STAMP := .venv/captune-ready
# One thread for each worker: more threads than cores are slower.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1

# Compiled modules are kept, whatever the environment wants: each process would compile them again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check lint types in-step bench bench-check parity docs site serve release clean
.DELETE_ON_ERROR:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with captune and everything its tests need

demo: $(STAMP) ## The main job on built-in scenes: no network, about three minutes
	$(BIN)/captune demo --out captune-demo

test: check ## Everything: the checks, then the tests, offline
	$(OFFLINE) $(BIN)/$(PYTEST) $(ARGS)

quick: $(STAMP) ## Laws and unit tests that need no torch: under a minute
	$(OFFLINE) $(BIN)/$(PYTEST) -q --no-torch -m 'not slow' tests/laws tests/unit $(ARGS)

check: $(STAMP) ## Format, lint, types, import contracts, docs in step
	@$(MAKE) --no-print-directory --jobs 2 lint types in-step

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

in-step: $(STAMP)
	$(BIN)/python docs/generate.py --check

bench: $(STAMP) ## Measure against what a user would write instead
	@for file in benchmarks/bench_*.py; do \
	  echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || exit 1; \
	done

bench-check: $(STAMP) ## A quick look whether a ratio has fallen since it was kept (benchmarks/ratios.json)
	@for file in $$(grep -l "^from bench import" benchmarks/bench_*.py); do \
	  echo "== $$file"; $(BIN)/python "$$file" --quick --check || failed=1; \
	done; exit $${failed:-0}

parity: $(STAMP) ## Hold every score against pycocoevalcap's (needs Java)
	$(BIN)/python benchmarks/parity.py $(ARGS)

docs: $(STAMP) ## Fill the generated regions of README.md and docs/
	$(BIN)/python docs/generate.py

site: $(STAMP) ## Build the pages of docs/ as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(STAMP) ## Serve MODEL over REST on 127.0.0.1:8000
	$(BIN)/captune serve --model $(MODEL)

release: $(STAMP) ## The files of a release in dist/, tried in an empty environment; ARGS='--tag v0.1.0'; uploads nothing
	PIP_ARGS='$(PIP_ARGS)' $(BIN)/python tools/release $(ARGS)

clean: ## Remove .venv, caches and the demo's folder
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache captune-demo dist build site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Not compiled: of 30,000 modules a fifth is ever imported, and compiled then.
$(STAMP): pyproject.toml constraints.txt tools/make-venv tools/install-locked
	tools/make-venv .venv "$(PYTHON)"
	tools/install-locked $(BIN)/python $(PIP_ARGS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $@
