PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/small
ARGS ?=

.PHONY: compare test lint parity benchmark cost gallery clean

# Trains and evaluates every scheme on two CPU cores, then prints the table and the report's path.
compare: $(VENV)/installed
	$(BIN)/python launch.py --config=configs/extrapolation.py:small --workdir=$(WORKDIR) $(ARGS)

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Compares with transformers itself, which `make test` does only through the arrays it gave.
parity: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[parity]"
	$(BIN)/python -m pytest parity $(ARGS)

benchmark: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[benchmark]"
	$(BIN)/python -m benchmarks.train $(ARGS)

# What each encoding adds to a training step.
cost: $(VENV)/installed
	$(BIN)/python -m benchmarks.cost $(ARGS)

# One page that shows what each encoding does to attention.
gallery: $(VENV)/installed
	$(BIN)/python -m experiments.gallery $(ARGS)

# The environment, made anew when what it is made of changes.
$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
