# `make demo` and `make test` need python3 (3.11 or newer) and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
DATA ?= elpv
STORE ?= runs/demo
ORDER ?= 1

.PHONY: demo demo-elpv demo-surfaces test test-slow test-gpu lint docs docs-serve clean

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

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The documentation, into site/; a broken link is an error.
docs: .venv/installed
	$(BIN)/mkdocs build --strict --quiet

docs-serve: .venv/installed
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

# Made once; made again when the dependencies change.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "augbench needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv runs site
