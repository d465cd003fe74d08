# Every target makes its own .venv, once. Another Python: make demo PYTHON=python3.12
# Other wheels, such as torch without CUDA: make demo PIP_ARGS="--extra-index-url ..."
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
DEMO := runs/demo

.PHONY: help demo docs reference test test-unit test-slow test-all compat dist check format lint type floors clean

help:
	@echo "make demo       train, prune and evaluate PPO on CartPole: a few minutes"
	@echo "make test       lint, types, floors and all tests but the slow ones: what CI runs"
	@echo "make test-unit  the tests that need no Ray"
	@echo "make test-slow  the tests that train for minutes"
	@echo "make test-all   everything: the slow ones, and all algorithms by nets by granularities"
	@echo "make compat     fast tests with the newest and the lowest versions that pyproject.toml allows"
	@echo "make dist       wheel and sdist in dist/"
	@echo "make check      lint, types, floors and test-unit: before a commit"
	@echo "make format     rewrite the code in the house's form"
	@echo "make docs       the pages of docs/ as a site that opens from disk: build/site/index.html"
	@echo "make reference  write docs/reference and the YAML's schema anew from the code"
	@echo "make clean      remove .venv and the tools' caches; runs/ stays"

# A demo that was interrupted goes on; one that is done stays, and the next gets its own directory.
demo: $(VENV)/.rllib
	@out=$(DEMO); resume=; \
	if [ -f $$out/config.yaml ] && [ ! -f $$out/summary.json ]; then resume=--resume; \
	elif [ -n "$$(ls -A $$out 2>/dev/null)" ]; then out=$$out-$$(date +%Y%m%d-%H%M%S); fi; \
	set -x; $(BIN)/rayprune train ppo_cartpole --out $$out $$resume

docs: $(VENV)/.docs
	$(BIN)/python -m tools.docs site

reference: $(VENV)/.dev
	$(BIN)/python -m tools.docs reference
	$(BIN)/rayprune schema --fresh --out tune_configs/schema.json

# Two at a time, each with a Ray of its own; a file stays together, for its tests share fixtures,
# and the files stay in tests/conftest.py's order: the longest first.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint type floors
	$(PYTEST) -m "not slow and not matrix"

test-unit: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit tests/configs

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

test-all: lint type floors
	$(PYTEST)

compat: $(VENV)/.dev
	$(BIN)/mypy --python-version 3.10 --disable-error-code no-any-return \
	  --no-warn-unused-ignores --cache-dir .compat/mypy
	COMPAT_PYTHON=$(PYTHON) .ci/compat

dist: $(VENV)/.rllib
	$(INSTALL) build
	rm -rf dist
	$(BIN)/python -m build --outdir dist

check: lint type floors test-unit

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

type: $(VENV)/.dev
	$(BIN)/mypy

floors: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache  # a stale cache names modules that are gone

clean:
	rm -rf $(VENV) .compat build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Stamps: a second call is quick, a changed requirement installs again.
$(VENV)/.rllib: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "rayprune needs Python 3.10 or newer, and $(PYTHON) is older: make ... PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) -e ".[rllib]"
	@touch $@

$(VENV)/.dev: $(VENV)/.rllib
	$(INSTALL) -e ".[rllib,dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.rllib
	$(INSTALL) -e ".[rllib,docs]"
	@touch $@
