# Everything a newcomer types. PYTHON is the interpreter, VENV the folder of the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

TEXT ?= Hello there. This sentence was made in a single step, on this very computer.
VOICES := src/stepflow_tts/weights/voices
VOICE ?= $(firstword $(wildcard $(VOICES)/*.wav $(VOICES)/*.flac $(VOICES)/*.safetensors))
OUT ?= hello.wav

# Folders count too: their time changes when a file in them is removed.
SOURCES := pyproject.toml README.md LICENSE $(shell find src -not -name '*.pyc' -not -name __pycache__)

# --no-compile: torch brings 15 000 Python files; compiling them makes 1 minute 3 on two cores.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
# The value of a variable as one shell word, whatever quotes and dollars it holds.
quoted = '$(subst ','\'',$(value $(1)))'

.DELETE_ON_ERROR:
.PHONY: help say test test-all test-lowest lint docs serve format wheel clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Two stamps, so that the first sound does not wait for the tools of the tests.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing into $(VENV): PyTorch is large, this can take some minutes ..."
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) ".[dev]"
	@touch $@

$(VENV)/.installed-serve: $(VENV)/.installed
	$(INSTALL) ".[serve]"
	@touch $@

say: $(VENV)/.installed  ## speak into hello.wav: make say TEXT="Any text." VOICE=me.wav OUT=out.wav
	@$(BIN)/stepflow-tts say --voice '$(VOICE)' -o $(call quoted,OUT) -- $(call quoted,TEXT)

test: $(VENV)/.installed-dev  ## run the tests on the installed package, under 5 minutes
	$(BIN)/python -m pytest

test-all: $(VENV)/.installed-dev  ## run the slow tests too
	$(BIN)/python -m pytest -m ""

test-lowest:  ## run the quick tests with the lowest versions that pyproject.toml allows
	PYTHON=$(PYTHON) .ci/lowest

lint: $(VENV)/.installed-dev  ## run ruff, mypy and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(VENV)/.installed-serve  ## a page to type and listen, and OpenAI's speech API, on http://127.0.0.1:8000/
	$(BIN)/stepflow-tts serve

docs: $(VENV)/.installed-dev  ## build the pages of docs/ into site/; a broken reference is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

format: $(VENV)/.installed-dev  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-dev  ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove what was built, but not the environment
	rm -rf build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
