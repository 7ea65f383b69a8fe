# make demo: set up everything and run the demo recipe; make test: set up everything and run the tests.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTHON_202611 ?= python3.12
BIN := $(abspath $(VENV))/bin

# Tests that train, or work as on a cluster: the slow ones.
SLOW := $(addprefix tests/,test_recipe.py test_setup_recipe.py test_cluster.py test_train_demo_asr.py)

.PHONY: help setup demo lint test fast test-202611 docs clean

help:
	@echo "make setup   virtual environment in $(VENV) with everything (some 5 GB, a few minutes)"
	@echo "make demo    egs2/meeting_demo: simulate, train, separate, score, report (6 minutes)"
	@echo "make lint    layout and rules of the code (ruff)"
	@echo "make test    lint, then all tests"
	@echo "make fast    the tests without the slow ones"
	@echo "make test-202611   make fast with espnet 202611 and $(PYTHON_202611), in an environment of its own, .venv-202611"
	@echo "make docs    docs/api: the API reference"
	@echo "make clean   remove the environments and what the demo wrote"

setup: $(VENV)/.installed

# pip 26.3 refuses ci_sdr, which espnet requires: an optional extra of it names a git address.
$(VENV)/.installed: setup.py $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check "pip<26.3"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check \
		--constraint $(CONSTRAINTS) --editable ".[demo,test,docs]"
	touch $@

demo: setup
	cd egs2/meeting_demo/enh1 && PATH="$(BIN):$$PATH" ./run.sh

lint: setup
	"$(BIN)/ruff" format --check --quiet . || { echo "run: $(VENV)/bin/ruff format ." >&2; exit 1; }
	"$(BIN)/ruff" check --quiet .

test: lint
	# Two files at a time; the longest begins first.
	"$(BIN)/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/test_recipe.py tests

fast: setup
	"$(BIN)/python" -m pytest -n 2 --dist loadfile $(filter-out $(SLOW),$(wildcard tests/test_*.py tests/*/test_*.py))

test-202611:
	$(MAKE) fast VENV=.venv-202611 PYTHON=$(PYTHON_202611) CONSTRAINTS=constraints-202611.txt

docs: setup
	"$(BIN)/python" docs/api_reference.py --out_dir docs/api

clean:
	rm -rf $(VENV) .venv-202611 $(addprefix egs2/meeting_demo/enh1/,data dump exp/train_enh_m2m_tfgridnet_small)
