# `make demo` and `make test` need nothing but Python 3.11 or later; the first call of either makes .venv.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
SCRIPTS = Scripts
else
SCRIPTS = bin
endif
BIN = .venv/$(SCRIPTS)
INSTALLED = .venv/installed
WITH_FEATURES = .venv-features

.PHONY: demo test test-core test-features test-tensorflow fuzz lint clean

demo: $(INSTALLED)
	$(BIN)/python run.py --modelName self_mm --datasetName demo --seeds 1111 1112 1113

test: lint test-core test-features

test-core: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --ignore=tests/features

# What extracts features needs packages that want an older numpy, so it has an environment of its own, which tries the
# program's core with that numpy too.
test-features: $(WITH_FEATURES)/installed
	$(WITH_FEATURES)/$(SCRIPTS)/python -m pytest -q tests/features tests/test_parity.py

# TensorFlow itself writes the checkpoints that utils/convert_bert.py reads; it is an environment of half a gigabyte.
test-tensorflow: $(INSTALLED) .venv-tensorflow/installed
	$(BIN)/python -m pytest -q tests/test_convert_bert.py

.venv-tensorflow/installed:
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/$(SCRIPTS)/python -m pip install -q --disable-pip-version-check tensorflow-cpu==2.21.0
	.venv-tensorflow/$(SCRIPTS)/python -c "open('$@', 'w').close()"

# Some ten minutes; the counts of what was loaded and what refused stand in the statistics that it prints.
FUZZ_EXAMPLES ?= 5000

fuzz: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
fuzz: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/test_fuzz*.py --hypothesis-show-statistics

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Exact versions stand in constraints.txt, so that every machine tests the same; requirements.txt gives the ranges.
INSTALL = python -m pip install -q --disable-pip-version-check -c constraints.txt

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt constraints-core.txt
	$(PYTHON) -m venv .venv
	$(BIN)/$(INSTALL) -c constraints-core.txt -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -c "open('$@', 'w').close()"

$(WITH_FEATURES)/installed: requirements.txt requirements-dev.txt requirements-features.txt constraints.txt constraints-features.txt
	$(PYTHON) -m venv $(WITH_FEATURES)
	$(WITH_FEATURES)/$(SCRIPTS)/$(INSTALL) -c constraints-features.txt -r requirements.txt -r requirements-dev.txt -r requirements-features.txt
	$(WITH_FEATURES)/$(SCRIPTS)/python -c "open('$@', 'w').close()"

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(name, ignore_errors=True) for name in ('.venv', '$(WITH_FEATURES)', '.venv-tensorflow')]"
