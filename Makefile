# `make demo` and `make test` need only Python 3.11 or later; the first call of either creates .venv.

PYTHON ?= python3
ifeq ($(OS),Windows_NT)
SCRIPTS = Scripts
else
SCRIPTS = bin
endif
BIN = .venv/$(SCRIPTS)
INSTALLED = .venv/installed
WITH_FEATURES = .venv-features
FLOORS = .venv-floors
NEWEST = .venv-install

.PHONY: demo test test-core test-features test-floors test-install test-tensorflow fuzz lint clean

demo: $(INSTALLED)
	$(BIN)/python run.py --modelName self_mm --datasetName demo --seeds 1111 1112 1113 --threads 1 --resume

test: lint test-core test-features

test-core: $(INSTALLED)
	$(BIN)/python -m pytest -q -n auto --dist worksteal --ignore=tests/features

# MediaPipe needs an older numpy, so feature extraction has its own environment, which also tests parity with that numpy.
test-features: $(WITH_FEATURES)/installed
	$(WITH_FEATURES)/$(SCRIPTS)/python -m pytest -q tests/features tests/test_parity.py

# Reads checkpoints that TensorFlow itself has written. Its environment takes half a gigabyte.
test-tensorflow: $(INSTALLED) .venv-tensorflow/installed
	$(BIN)/python -m pytest -q tests/test_convert_bert.py

.venv-tensorflow/installed:
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/$(SCRIPTS)/python -m pip install -q --disable-pip-version-check tensorflow-cpu==2.21.0
	.venv-tensorflow/$(SCRIPTS)/python -c "open('$@', 'w').close()"

# The lowest versions that the requirements allow; pip chooses what these need. On Linux, torch brings several gigabytes of CUDA,
# unless PIP_EXTRA_INDEX_URL names an index of its CPU builds.
test-floors: $(FLOORS)/installed
	$(FLOORS)/$(SCRIPTS)/python run.py --modelName self_mm --datasetName demo --seeds 1111 \
		--model_save_dir $(FLOORS)/demo/models --res_save_dir $(FLOORS)/demo/results --log_dir $(FLOORS)/demo/logs
	$(FLOORS)/$(SCRIPTS)/python -m pytest -q -n auto --ignore=tests/features

$(FLOORS)/installed: requirements.txt requirements/dev.txt
	$(PYTHON) -m venv --clear $(FLOORS)
	sed 's/>=/==/' requirements.txt requirements/dev.txt > $(FLOORS)/floors.txt
	$(FLOORS)/$(SCRIPTS)/python -m pip install -q --disable-pip-version-check -r $(FLOORS)/floors.txt
	$(FLOORS)/$(SCRIPTS)/python -c "open('$@', 'w').close()"

# The newest versions that the requirements allow, installed as the README says: first the program's, then those for feature
# extraction. On Linux this, too, brings several gigabytes of CUDA, so the environment goes at the end. The name of a
# checkpoint's folder may end with its settings, hence the asterisk.
test-install: export SELF_MM_DATA := $(NEWEST)/demo/datasets
test-install:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/$(SCRIPTS)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(NEWEST)/$(SCRIPTS)/python -m pip install -q --disable-pip-version-check -r requirements/features.txt
	$(NEWEST)/$(SCRIPTS)/python -m pip check
	for program in run.py predict.py data/DataPre.py; do $(NEWEST)/$(SCRIPTS)/python $$program --help > $(NEWEST)/help.txt || exit; done
	$(NEWEST)/$(SCRIPTS)/python -c "import av, librosa.feature, pebble, sys; sys.version_info >= (3, 13) or __import__('mediapipe')"
	$(NEWEST)/$(SCRIPTS)/python run.py --datasetName demo --seeds 1111 --max_epochs 2 \
		--model_save_dir $(NEWEST)/demo/models --res_save_dir $(NEWEST)/demo/results --log_dir $(NEWEST)/demo/logs
	$(NEWEST)/$(SCRIPTS)/python predict.py --checkpoint $(NEWEST)/demo/models/self_mm-demo-regression-1111*/ \
		--features $(NEWEST)/demo/datasets/DEMO/Processed/unaligned.pkl > $(NEWEST)/demo/scores.txt
	$(PYTHON) -c "import shutil; shutil.rmtree('$(NEWEST)')"

# Takes some ten minutes; the statistics show how many files were loaded and how many refused.
FUZZ_EXAMPLES ?= 5000

fuzz: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
fuzz: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/test_fuzz*.py --hypothesis-show-statistics

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The constraints pin exact versions, so that every machine tests the same ones; requirements.txt gives ranges.
PINS = requirements/constraints.txt
INSTALL = python -m pip install -q --disable-pip-version-check -r requirements/dev.txt -c $(PINS)

$(INSTALLED): requirements.txt requirements/dev.txt requirements/tensorboard.txt $(PINS) requirements/constraints-core.txt
	$(PYTHON) -m venv .venv
	$(BIN)/$(INSTALL) -c requirements/constraints-core.txt -r requirements.txt -r requirements/tensorboard.txt
	$(BIN)/python -c "open('$@', 'w').close()"

$(WITH_FEATURES)/installed: requirements.txt requirements/dev.txt requirements/features.txt $(PINS) requirements/constraints-features.txt
	$(PYTHON) -m venv $(WITH_FEATURES)
	$(WITH_FEATURES)/$(SCRIPTS)/$(INSTALL) -c requirements/constraints-features.txt -r requirements/features.txt
	$(WITH_FEATURES)/$(SCRIPTS)/python -c "open('$@', 'w').close()"

clean:
	$(PYTHON) -c "import shutil; [shutil.rmtree(name, ignore_errors=True) for name in ('.venv', '$(WITH_FEATURES)', '$(FLOORS)', '$(NEWEST)', '.venv-tensorflow')]"
