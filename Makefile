# `make demo` and `make test` need nothing but Python 3.11 or later; the first call of either makes .venv.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN = .venv/Scripts
else
BIN = .venv/bin
endif
INSTALLED = .venv/installed

.PHONY: demo test fuzz lint clean

demo: $(INSTALLED)
	$(BIN)/python run.py --modelName self_mm --datasetName demo --seeds 1111 1112 1113

test: lint
	$(BIN)/python -m pytest -q -n auto

# Some ten minutes; the counts of what was loaded and what refused stand in the statistics that it prints.
FUZZ_EXAMPLES ?= 5000

fuzz: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
fuzz: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/test_fuzz*.py --hypothesis-show-statistics

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Exact versions stand in constraints.txt, so that every machine tests the same; requirements.txt gives the ranges.
$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -c "open('$(INSTALLED)', 'w').close()"

clean:
	$(PYTHON) -c "import shutil; shutil.rmtree('.venv', ignore_errors=True)"
