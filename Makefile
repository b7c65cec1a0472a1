# `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

# `make simulate SEEDS=10000 FROM=1001`: how many seeds of the simulation to run, and the first of them.
SEEDS  ?= 1000
FROM   ?= 1

.PHONY: demo test lint bench simulate clean

$(STAMP): pyproject.toml hatch_build.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev --editable ".[server,fast,svg,encryption,nkeys,postgres]"
	touch $@

demo: $(STAMP)
	$(BIN)/statewright demo

test: $(STAMP)
	$(BIN)/pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m tests.benchmarks.run

simulate: $(STAMP)
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --from $(FROM)

clean:
	rm -rf $(VENV) .ns
