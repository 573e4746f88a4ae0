PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without this, setuptools warns at every installation of a checkout.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
NEWEST ?= $(shell for python in python3.14 python3.13 python3.12 python3; \
	do $$python -c "import ensurepip" 2> /dev/null && echo $$python && break; done)
WORKDIR ?= runs/small
# How many processes share the work: one for each core that may be used, at most four.
WORKERS ?= $(shell $(PYTHON) -c "import os; cores = getattr(os, 'sched_getaffinity', \
	lambda _: range(os.cpu_count())); print(min(4, len(cores(0))))")
ARGS ?=
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: compare demo test test-slow oldest newest lint parity benchmark tpu-test tpu-check gallery \
	results site clean

# Trains and evaluates fifteen schemes, then prints the table and the report's path.
compare: $(VENV)/experiments
	JAX_PLATFORMS=cpu $(BIN)/python launch.py --config=configs/extrapolation.py:small \
		--workdir=$(WORKDIR) --workers=$(WORKERS) $(ARGS)

# Runs six schemes with one seed, and opens the report in a browser if there is one.
demo: $(VENV)/experiments
	JAX_PLATFORMS=cpu $(BIN)/python launch.py --config=configs/extrapolation.py:demo \
		--workdir=runs/demo --workers=$(WORKERS) $(ARGS)
	$(BIN)/python -m webbrowser -t "file://$(CURDIR)/runs/demo/report.html"

# Runs the whole suite. What kills programs, joins many of them, looks at pages in a browser or
# compiles for TPUs is in test-slow, which CI runs too.
test: $(VENV)/installed lint
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/installed tpu-test
	$(PYTEST) -m slow $(ARGS)

# Installs the wheel beside the oldest packages that setup.py allows, or beside the newest ones under
# the newest Python of this machine. Runs README's first example, and the two tests of attention over
# meshes, which depends most on JAX's version.
oldest: PINS := jax==0.10.1 jaxlib==0.10.1 flax==0.12.4
newest: PYTHON := $(NEWEST)
oldest newest: MESHES := tests/attention/test_meshes.py
oldest newest:
	test -d build/$@ || $(PYTHON) -m venv build/$@
	PYTHONWARNINGS=ignore build/$@/bin/pip install --quiet . pytest $(PINS)
	awk '/^```/ { if (inside) exit; inside = /python/; next } inside' README.md > build/$@/example.py
	cd build/$@ && JAX_PLATFORMS=cpu bin/python example.py && bin/posenc --version
	build/$@/bin/python -m pytest -q $(MESHES)::test_meshes $(MESHES)::test_values_and_gradients

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Compares with transformers itself; `make test` compares with arrays that were saved from it.
parity: $(VENV)/installed
	$(INSTALL) -e ".[parity]"
	$(BIN)/python -m pytest parity $(ARGS)

benchmark: $(VENV)/experiments
	$(INSTALL) -e ".[benchmark]"
	$(BIN)/python -m benchmarks.train $(ARGS)

# The tests that compile for TPUs without a TPU; they are skipped where the wheel libtpu is missing.
tpu-test: $(VENV)/installed $(VENV)/libtpu
	PYTHONPATH=$(VENV)/libtpu $(BIN)/python -m pytest tests/benchmarks/test_tpu_check.py -rs $(ARGS)

# Compiles attention and training steps for TPU pods, without a TPU.
tpu-check: $(VENV)/experiments $(VENV)/libtpu
	JAX_PLATFORMS=cpu PYTHONPATH=$(VENV)/libtpu $(BIN)/python -m benchmarks.tpu_check $(ARGS)

# Writes one page that shows what each encoding does to attention.
gallery: $(VENV)/experiments
	$(BIN)/python -m experiments.studies.gallery $(ARGS)

# Makes the tables of docs/data and the figures of docs/figures from the archives, without training,
# and puts the tables into the pages.
results: export JAX_PLATFORMS = cpu
results: $(VENV)/installed
	$(INSTALL) -e ".[packages,images,icons,video]"
	$(BIN)/python -m experiments.training.packages
	$(BIN)/python -m experiments.studies.kept $(ARGS)
	$(BIN)/python -m experiments.studies.census
	$(BIN)/python -m cogapp -rP README.md docs/*.md docs/data/*.md

# Builds the site, which needs no network to be read: open build/site/index.html in a browser.
site: $(VENV)/site
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet \
		--jobs=$(WORKERS) --doctree-dir=build/doctrees docs build/site

# Packages are installed in two stages: for experiments, and for tests. Each stage is installed anew
# when setup.py changes.
$(VENV)/experiments: setup.py | $(BIN)/pip
	$(INSTALL) -e ".[experiments]"
	touch $@

$(VENV)/installed: setup.py | $(BIN)/pip
	$(INSTALL) -e ".[test]"
	touch $@

$(VENV)/site: setup.py | $(BIN)/pip
	$(INSTALL) -e ".[site]"
	touch $@

# Apart from the environment, where all other programs would look for a TPU at every start.
$(VENV)/libtpu: | $(BIN)/pip
	-$(INSTALL) --no-deps --target=$@ libtpu

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

clean:
	rm -rf $(VENV) runs build *.egg-info
