# make demo    train, evaluate and draw a small ION on synthetic scenes
# make test    run the test suite, on up to four cores
# make test-fast    the same without what starts programs and trains
# make lint    check style, formatting and types
# make docs    the pages of the Python interface, in output/docs
# make clean   remove .venv and caches
#
# Each sets up everything it needs in $(VENV), once. An interrupted set-up is finished by running the command again.
# An environment of your own: `make test VENV=path`; its PyTorch and Detectron2 are kept if they can be imported.

PYTHON ?= python3
VENV ?= .venv
# The tested pair. Its Linux build runs with and without a GPU.
TORCH ?= torch==2.11.0 torchvision==0.26.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
STAMPS := $(VENV)/.ion_d2

.PHONY: demo test test-fast lint docs setup clean
.DELETE_ON_ERROR:

demo: setup
	@$(BIN)/python tools/make_scenes.py output/demo/scenes
	@$(BIN)/python train_net.py --config-file configs/ion_demo.yaml
	@echo "Detections beside ground truth: output/demo/ion/pictures"

# A file's tests share fixtures that take long, and so a process.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test: setup
	@$(PYTEST)

test-fast: setup
	@$(PYTEST) -m "not slow"

lint: setup
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

docs: setup
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs/api output/docs

setup: $(STAMPS)/detectron2

$(STAMPS)/venv:
	@test -x $(BIN)/python || echo "Creating the virtual environment $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	@$(BIN)/python -c "import torch, torchvision" 2>/dev/null || \
		{ echo "Installing $(TORCH) (a minute or more)"; $(PIP) install $(TORCH); }
	@touch $@

$(STAMPS)/project: setup.py pyproject.toml $(STAMPS)/torch
	@echo "Installing ion_d2 and its requirements"
	@$(PIP) install -e '.[dev]'
	@touch $@

$(STAMPS)/detectron2: tools/install_detectron2.py tools/detectron2_pure.py $(STAMPS)/project
	@echo "Looking for Detectron2"
	@$(BIN)/python tools/install_detectron2.py
	@touch $@

clean:
	@rm -rf .venv build ion_d2.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
