PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    ?= demo

# Also for what builds the package itself, which pip fetches apart.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)

.PHONY: setup demo test check audit bench clean
.DEFAULT_GOAL := test

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)      ## simulate a drifting world, replay it day by day, write the report
	$(BIN)/acclimate demo --out $(OUT) --overwrite

test: $(READY)      ## every test, warnings as errors, in two processes
	$(BIN)/python -c 'from acclimate.kernels.warm import warm_up; warm_up()'  # compiled once for both
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)     ## lint, types, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

audit:              ## known vulnerabilities of the pinned versions, where their service can be reached
	PYTHON=$(PYTHON) .ci/audit

bench: $(READY)     ## the core beside others' in one run, then alone; figures are printed, never asserted
	$(BIN)/python -m benchmarks.peers --out bench.md --json bench.json --plot bench.svg
	$(BIN)/python -m benchmarks.speed

clean:
	rm -rf $(VENV) .audit docs/_build demo
