PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Without this, setuptools warns at every installation of a checkout.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
WORKDIR ?= runs/small
# How many processes share the work: one for each core that may be used, at most four.
WORKERS ?= $(shell $(PYTHON) -c "import os; cores = getattr(os, 'sched_getaffinity', \
	lambda _: range(os.cpu_count())); print(min(4, len(cores(0))))")
ARGS ?=
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

.PHONY: compare demo test test-slow lint parity benchmark tpu-test tpu-check gallery results \
	report site clean

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

# Rebuilds all pages from the results in docs/data and records, without training: in build/results
# the atlas, the ledger of claims, the ladder and the leaderboard; in docs the guide, tables, figures
# and data.
results: export JAX_PLATFORMS = cpu
results: $(VENV)/experiments
	$(INSTALL) -e ".[packages]"
	$(BIN)/python -m experiments.training.packages
	for name in answers ladder; do $(BIN)/python -m experiments.results.archive \
		--restore=docs/data/$$name.tar.xz --workdir=build/results || exit; done
	for name in images learned pointing story video; do $(BIN)/python -m experiments.results.archive \
		--restore=docs/data/$$name.tar.xz --workdir=build/results/$$name || exit; done
	for name in claims atlas ladder; do $(BIN)/python launch.py \
		--config=configs/$$name.py:small --workdir=build/results --report || exit; done
	$(BIN)/python launch.py --config=configs/learned.py:small --workdir=build/results/learned --report
	cp build/results/learned/learned.csv docs/data
	cd build/results/atlas && cp *.csv.gz atlas.json *.svg $(CURDIR)/docs/atlas
	cd build/results/claims && cp claims.csv claims.json $(CURDIR)/docs/claims
	cd build/results && cp ladder.csv ladder.json window.svg by_tokens.svg $(CURDIR)/docs/ladder
	$(BIN)/python -m experiments.results.reports.leaderboard_page
	$(BIN)/python -m experiments.results.reports
	$(BIN)/python -m experiments.results.reports.croissant

# Writes the technical report, a PDF, from the same results: build/report.pdf.
report: results
	$(INSTALL) -e ".[report]"
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.results.reports.technical_report

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
