# `make demo` and `make test` need python3 (3.11 or newer) and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= elpv
STORE ?= runs/demo
ORDER ?= 1

# Folders of results to check: all, or those that differ from BASE, such as origin/main.
BASE ?=
REPORT ?= results-check.md

.PHONY: demo demo-elpv demo-surfaces test test-slow test-gpu lint typecheck hooks docs docs-serve notebook results-check build \
	release-check clean

# Real images of solar cells; `make demo DATA=surfaces`: procedural ones, and every augmenter.
demo: .venv/installed demo-$(DATA)

demo-elpv: .venv/installed
	$(BIN)/augbench run tune_configs/demo_finetune.yaml --store $(STORE)
	$(BIN)/augbench run tune_configs/demo.yaml --store $(STORE) --verdicts
	$(BIN)/augbench leaderboard $(STORE) --out $(STORE)-page

demo-surfaces: .venv/installed
	$(BIN)/augbench run tune_configs/demo_surfaces.yaml --store $(STORE)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu" --randomly-seed=$(ORDER)

test-slow: .venv/installed
	$(BIN)/python -m pytest -m "slow and not gpu" --randomly-seed=$(ORDER)

# On a machine with a GPU; without one its tests are skipped by name.
test-gpu: .venv/installed
	$(BIN)/python -m pytest tests/gpu -m gpu -rs --randomly-seed=$(ORDER)

lint: .venv/installed typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The packages that pyproject.toml names.
typecheck: .venv/installed
	$(BIN)/mypy

# ruff and mypy before each commit.
hooks: .venv/installed
	$(BIN)/pre-commit install

# The documentation, into site/; a broken link is an error.
docs: .venv/installed
	$(BIN)/mkdocs build --strict

docs-serve: .venv/installed
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

# Runs the notebook in runs/notebook, and leaves a copy with its outputs there.
notebook: .venv/installed
	mkdir -p runs/notebook
	cd runs/notebook && cp ../../notebooks/first_look.ipynb . && ../../$(BIN)/jupyter-execute --inplace first_look.ipynb

# A report in Markdown for reviewers of a pull request; exit status 2 where a folder is refused.
results-check: .venv/installed
	@status=0; : > $(REPORT); \
	for folder in $$($(if $(BASE),git diff --name-only $(BASE)...HEAD -- results,ls -d results/*/) | cut -d/ -f1-2 | sort -u); do \
		if [ -e $$folder/records.jsonl.gz ] || [ -e $$folder/records.jsonl ] || [ -d $$folder/cells ]; then \
			$(BIN)/augbench results check $$folder --format github >> $(REPORT) || status=$$?; fi; \
	done; cat $(REPORT); exit $$status

# Source package and wheel in dist/.
build: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --quiet --installer pip
	$(BIN)/twine check --strict dist/*
	@ls -lh dist

# Before a release: what a user would install, in an environment of its own, outside of this tree. Not in CI: 5 GB.
release-check: build
	PYTHON=$(PYTHON) sh bench/release_check.sh

# Made once; made again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "augbench needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv runs site
