# make run: set up and run the example.  make test: add the development tools and run the fast suite.
SHELL := bash
.SHELLFLAGS := -o pipefail -ec
PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.run
STAMP := .venv/.installed
DATA ?= ../shared/data
PIP := $(BIN)/python -m pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What of llama.cpp is compiled, and on how many cores: here and nowhere else.
export CMAKE_ARGS := -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/.ci/llama.cmake
export CMAKE_BUILD_PARALLEL_LEVEL := $(shell getconf _NPROCESSORS_ONLN)

.PHONY: run test test-slow test-lowest test-pythons check docs bench dist clean lock

run: $(RUN)
	$(BIN)/cascade run graphs/support.yaml --input examples/messages.jsonl

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# The fast tests (or ARGS="tests/graph …") with the lowest versions allowed, and on each other Python at hand; need uv.
test-lowest: $(STAMP)
	.ci/versions lowest $(ARGS)

test-pythons: $(STAMP)
	.ci/versions pythons $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cascade check graphs/*.yaml
	$(BIN)/python .ci/audit.py

# The documentation as a site, in build/site; a broken link or reference is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file .mkdocs.yml

bench: $(STAMP)
	$(BIN)/python benchmarks/experts.py --data $(DATA)
	$(BIN)/python benchmarks/support.py --data $(DATA)

# The source distribution and the wheel, in dist/; twine checks what an index would check.
dist: $(STAMP)
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# requirements.lock holds what `make run` needs, requirements-dev.lock everything, requirements-build.lock what
# compiles, all with hashes. Only llama-cpp-python is compiled, once: then pip's wheel cache has it.
$(RUN): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cascade needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@echo "installing what is needed to run; llama.cpp is compiled the first time: 2 to 10 minutes on $(CMAKE_BUILD_PARALLEL_LEVEL) cores"
	bash .ci/install $(BIN)/python requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP): $(RUN) requirements-dev.lock
	bash .ci/install $(BIN)/python requirements-dev.lock
	@touch $@

LOCK := uv pip compile pyproject.toml - --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links
lock:
	printf 'hatchling\n' | $(LOCK) --extra dev -o requirements-dev.lock
	printf 'hatchling\n' | $(LOCK) --extra local --constraint requirements-dev.lock -o requirements.lock
	printf 'scikit-build-core\ncmake\nninja\npathspec\n' | $(subst pyproject.toml ,,$(LOCK)) \
	  --constraint requirements-dev.lock -o requirements-build.lock

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
