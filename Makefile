# Streamgauge. `make help` lists the targets; `make run` and `make test` install what they need.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Stamps, so that a second `make run` starts at once.
RUN    := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
# The benchmarks' peers (extra `bench`) have an environment of their own: they hold back versions that we ship.
PEERS  := .venv-peers/.installed
# What the TypeScript client is built with.
NODE   := dashboards/client/node_modules/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
LOCK    = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
          --no-emit-find-links --no-header pyproject.toml infra/build-requirements.txt

.DEFAULT_GOAL := help
.PHONY: help run test check test-kafka client bench lock clean
.DELETE_ON_ERROR:

help: ## List the targets
	@echo "make TARGET [ARGS='...']"
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | \
	  while IFS='|' read -r name text; do printf '%-14s%s\n' "$$name" "$$text"; done

run: $(RUN) ## Start everything on this machine with a fleet of real models (ARGS: see `streamgauge up --help`)
	@$(BIN)/streamgauge up $(ARGS)

test: $(DEV) ## Run all tests but those that need Apache Kafka (ARGS: for pytest)
	@$(BIN)/python -m pytest -q -m "not kafka" $(ARGS)

check: $(DEV) ## Lint, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test-kafka: $(DEV) ## Run the broker tests on Apache Kafka, fetched by Maven (needs Java 17 or later)
	@infra/kafka/fetch.sh
	@infra/kafka/run.sh $(BIN)/python -m pytest -q -m kafka $(ARGS)

client: $(NODE) ## Build and test the TypeScript client (needs Node 18 or later)
	@cd dashboards/client && npm test

bench: $(DEV) $(PEERS) ## Run a benchmark (ARGS: its name and --quick; default: throughput)
	@$(BIN)/python -m tests.bench $(or $(ARGS),throughput)

lock: $(DEV) ## Resolve the dependencies anew into the hashed locks (ARGS: --upgrade, or -P package)
	@$(LOCK) $(ARGS) --extra embedded -o requirements.lock
	@$(LOCK) $(ARGS) --extra embedded --extra plot --extra dev -c requirements.lock -o requirements-dev.lock
	@$(LOCK) $(ARGS) -c requirements.lock -o requirements-prod.lock
	@$(LOCK) $(ARGS) --extra bench -o requirements-bench.lock

clean: ## Remove the environment, caches and builds; data in .streamgauge stays
	@rm -rf $(VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN): requirements.lock pyproject.toml
	@$(call install,requirements.lock)
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml
	@$(call install,requirements-dev.lock)
	@touch $(RUN) $@

$(PEERS): requirements-bench.lock
	@echo "Installing $< into .venv-peers, once ..."
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r $< || \
	  echo "The peers could not be installed; the benchmark goes on without them"
	@touch $@

$(NODE): dashboards/client/package-lock.json
	@cd dashboards/client && npm ci --silent --no-audit --no-fund --fetch-retries=1 --fetch-timeout=30000
	@touch $@

# What an environment takes, and what pip needs beside it while it unpacks.
ROOM_MB := 1500
# The lock holds the build's own requirements too, so that nothing without a hash is installed.
define install
set -e; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  { echo "Python 3.11 or later is needed: install it, or name it: make PYTHON=/path/to/python3"; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
  { echo "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }; \
free=$$($(PYTHON) -c 'import shutil; print(shutil.disk_usage(".").free >> 20)'); \
test -x $(BIN)/python -o $$free -ge $(ROOM_MB) || { echo "The disk of $(CURDIR) has $$free MB free, and the environment needs about \
$(ROOM_MB) MB: make room"; exit 1; }; \
echo "Installing $(1) into $(VENV), once ..."; \
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
$(PIP) install --require-hashes -r $(1) && $(PIP) install --no-deps --no-build-isolation -e . || \
  { echo "The installation failed; the lines above say why. Once the package index is within reach and the disk has" \
    "room, run the same command again"; exit 1; }; \
echo "Compiling the kernels, once ..."; \
$(BIN)/python -m agents.warm
endef
