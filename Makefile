# One small set of commands, the same on a laptop and in CI. Each target does its own set-up.
#   make paint PROMPT="星夜下的静谧村庄，梵高风格，厚重的笔触"
#   make open · make test · make check

PROMPT ?= 星夜下的静谧村庄，梵高风格，厚重的笔触
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# Debian packages the tests read our files with, as "command:package".
TOOLS  := exiftool:libimage-exiftool-perl
# The prompt reaches the shell through the environment, unexpanded, so that quotes and $$ in a line of poetry stay text.
override export PROMPT := $(value PROMPT)

.PHONY: paint open test check format tools clean

paint: $(BIN)/.painting
	@$(BIN)/starry paint "$$PROMPT"

open: $(BIN)/.painting
	@$(BIN)/starry open

test: $(BIN)/.testing tools
	@$(BIN)/python -m pytest

check: $(BIN)/.testing
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(BIN)/.testing
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

$(BIN)/python:
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: a looser wish may fetch gigabytes of CUDA, and the rest must not replace it.
$(BIN)/.torch: constraints.txt | $(BIN)/python
	@$(BIN)/pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(BIN)/.painting: pyproject.toml constraints.txt $(BIN)/.torch
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(BIN)/.testing: pyproject.toml constraints.txt $(BIN)/.torch
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(BIN)/.painting

tools:
	@for tool in $(TOOLS); do \
	  command -v $${tool%%:*} >/dev/null && continue; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && apt-get install -qq -y $${tool##*:} >/dev/null; \
	  else \
	    echo "The tests read our files with $${tool%%:*}; install it first: sudo apt-get install $${tool##*:}"; exit 1; \
	  fi; \
	done

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
