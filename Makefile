# Needs python3 (3.11 or newer, with venv) and make; everything else is set up by the targets.

# The first that is new enough: python3 of some systems is older than another one beside it.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
  then echo $$python; exit; fi; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
# A .venv whose making was killed may have Python and no pip.
HAVE_PIP := $(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip >&2
ARGS ?=
PYTEST_ARGS ?=
# Of the tests; each has engines of its own, and most of the time they wait.
TEST_PROCESSES ?= 2
BENCHES ?= ingest storage assess api
SCENARIOS ?= mixed-faults dc-hubs roaming-vehicles quiet-city
SEEDS ?= 20

# A half-made .venv must not pass for a whole one.
.DELETE_ON_ERROR:

.PHONY: help demo setup check lint types layers test evaluate bench constraints services-start services-stop clean

help: ## What the targets do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: $(VENV)/.installed-demo ## A simulated city on this machine: prints an address and a log-in
	@$(BIN)/chargewatch demo $(ARGS)

setup: $(VENV)/.installed-all ## .venv and system packages for development and all tests
	@scripts/system_packages
	@scripts/services prepare || echo "setup: going on without TimescaleDB; its tests will not run" >&2

check: setup lint types layers ## Lint, types, layers

test: check ## Everything: check, then all tests on real engines, in TEST_PROCESSES=2 processes
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

evaluate: setup ## The engine's figures over 20 seeds of each scenario
	@for scenario in $(SCENARIOS); do \
	  echo "== $$scenario"; \
	  $(BIN)/chargewatch evaluate --scenario $$scenario --seeds $(SEEDS) --oracle all $(ARGS) || exit 1; done
	@echo "== steps"
	@$(BIN)/chargewatch evaluate --scenario steps --seeds 3 --steps $(ARGS)

bench: evaluate ## The benchmarks, on real TimescaleDB and Mosquitto, and the engine's figures
	@scripts/services start
	@trap 'scripts/services stop' EXIT INT TERM; \
	  eval "$$(scripts/services env)"; \
	  $(BIN)/chargewatch migrate && \
	  for bench in $(BENCHES); do $(BIN)/chargewatch bench $$bench $(ARGS) || exit 1; done

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-all
	$(BIN)/mypy -p chargewatch

layers: $(VENV)/.installed-all
	$(BIN)/lint-imports --no-logo

constraints: $(VENV)/.installed-all ## Pin what is installed now in constraints.txt
	@{ echo "# Exact versions that were tested together; pip install -c constraints.txt. Made by 'make constraints'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^py-spy==' | sort -f; } > constraints.new
	@mv constraints.new constraints.txt

services-start: ## Real TimescaleDB and Mosquitto, without Docker
	@scripts/services start

services-stop: ## End them and delete their data
	@scripts/services stop

clean: ## Delete what the targets made in the checkout
	-@scripts/services stop
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "there is no $(PYTHON): install Python 3.11 or newer, or name it, make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11: name a newer one, make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) has no venv: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(VENV) could not be made in $(CURDIR): may you write there, and is the disk full?" >&2; exit 1; }

# Each stamp is as old as the newest of what it was made from, so repeating costs nothing.
$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing chargewatch into $(VENV)" >&2
	@$(HAVE_PIP)
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing chargewatch and its tools into $(VENV)" >&2
	@$(HAVE_PIP)
	@$(PIP) install -c constraints.txt -e '.[test]'
	@touch $(VENV)/.installed-demo $@
