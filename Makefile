# Everything runs in .venv, which `make env` makes from requirements.lock. `make help` lists the targets.

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
# Set this to take PyTorch from another index, for example its CPU builds:
#   make env TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=
# Processes side by side: scans, notebooks, tests.
WORKERS ?= 2

# Waiting OpenMP threads must not spin: on a busy machine they slow small runs several times over.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help env book bundle test test-processors test-full benchmark ablations trained-ablations bench bench-scale linkcheck structure lint clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP)  ## the virtual environment .venv, from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make env PYTHON=python3.11" \
		if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install "$$(grep '^torch==' requirements.lock)" \
		$(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
	$(PY) -m pip install -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	@touch $@

book: PROFILE ?= demo
book: env  ## the benchmark with the shipped weights, all notebooks, then the site in _build/html (PROFILE=demo)
	$(PY) -m pddm_utils benchmark --profile $(PROFILE) --weights shipped --jobs $(WORKERS)
	rm -rf _build/html _build/.doctrees _build/.jupyter_cache
	PDDM_PROFILE=$(PROFILE) $(PY) book/execute_notebooks.py $(WORKERS)
	$(PY) -m pddm_utils.publish playground
	PDDM_PROFILE=$(PROFILE) .venv/bin/jupyter-book build . -W -n --keep-going

bundle: env  ## what a GPU machine without a network needs, in _build/bundle: wheels, packed scans, a script
	$(PY) -m pddm_utils bundle --out _build/bundle --jobs $(WORKERS)

# Notebooks and site first, then every test that looks at them beside the others.
TESTS = $(PY) tests/browser.py && export OMP_NUM_THREADS=1 && $(PY) tests/book_build.py $(WORKERS) && \
	PDDM_EXECUTED=_build/test/notebooks PDDM_SITE=_build/test/site/_build/html \
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

test: env  ## all tests but the slow ones, in a real browser too
	$(TESTS) -m "not slow"

# Kernels of processors with AVX2 but no AVX-512, and with neither: of torch, oneDNN, MKL, OpenBLAS and numpy.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell \
	NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"
PLAIN := ATEN_CPU_CAPABILITY=default NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4 AVX512_ICL AVX512_SPR"

test-processors: env  ## `make test` three times: with this processor's own kernels, those of AVX2 and the plainest
	$(MAKE) test
	$(AVX2) $(MAKE) test
	$(PLAIN) $(MAKE) test

test-full: env  ## all tests, the slow ones included
	$(TESTS)

benchmark: PROFILE ?= laptop
benchmark: WEIGHTS ?= train
benchmark: env  ## train and compare all methods (PROFILE=smoke, demo, laptop or real; WEIGHTS=train or shipped)
	$(PY) -m pddm_utils benchmark --profile $(PROFILE) --weights $(WEIGHTS)

ablations: env  ## one part of the method changed at a time, shipped models, about an hour; what is there is kept
	OMP_NUM_THREADS=1 $(PY) -m pddm_utils ablations

trained-ablations: env  ## one part of the training changed at a time, about a quarter of an hour for each model
	OMP_NUM_THREADS=1 $(PY) -m pddm_utils trained-ablations

bench: env  ## the speed and memory figures, from one run; writes results/speed.json
	$(PY) tests/bench.py results/speed.json

bench-scale: env  ## peak memory with 10, 100 and 1,000 simulated subjects
	$(PY) tests/bench_scale.py

linkcheck: env  ## every link of the book to another site; needs the network
	.venv/bin/jupyter-book build . --builder linkcheck

structure:  ## rooms, lines and imports of the package
	$(PYTHON) tests/rooms.py

lint: env  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:  ## remove what was built or cached; .venv and runs/ stay
	rm -rf _build dist .pytest_cache .hypothesis .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
