# What people do here: make demo, make test. Everything else is in `make help`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# Two workers halve the time on two cores; each keeps to one thread. More than four would only import torch more often.
PYTEST ?= -n auto --maxprocesses 4 --dist loadfile

VENV := .venv
# Tests that hold figures against libraries which nothing else here needs.
COMPARED := tests/evaluation/corruptions/test_agreement.py tests/evaluation/fidelity/test_agreement.py \
	tests/evaluation/fidelity/test_published.py tests/evaluation/ood/test_agreement.py tests/evaluation/test_calibration.py \
	tests/benchmarks/test_evaluate.py tests/methods/test_picture_operations.py tests/methods/test_diffaug_page.py
BIN := $(VENV)/bin
# Further extras beside `dev`, such as ,corruptions,vision.
EXTRAS ?=
KEY := $(shell { echo '$(TORCH) $(EXTRAS)'; cat pyproject.toml constraints.txt; } | cksum | cut -d ' ' -f 1)
CORE := $(VENV)/.core-$(KEY)
DEV := $(VENV)/.dev-$(KEY)

.PHONY: help demo test agreement lint clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo    the main job on bundled models and real digits: learn, generate, train with and without, report'
	@echo 'make test    the tests (PYTEST="--slow ..." for more of them)'
	@echo 'make agreement  figures against other libraries, in an environment of its own ($(VENV)/agreement, 3 GB)'
	@echo 'make lint    ruff, mypy --strict and the layer contracts'
	@echo 'make clean   remove the environment and the caches; runs and reports stay'
	@echo
	@echo 'The first of them makes $(VENV) with $(PYTHON) (PYTHON=python3.12 for another) and installs $(TORCH) (TORCH=...) and the rest;'
	@echo 'mirrors, proxies and indexes come from the configuration of pip itself. PyPI serves Linux a torch with CUDA (3 GB); for the'
	@echo 'processor build (0.2 GB) point pip to its index or name its wheel, for instance TORCH="torch @ file:///.../torch.whl".'

demo: $(CORE)
	@$(BIN)/rediffuse demo

test: $(DEV)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

# In an environment of its own, because a torchvision of another build of torch breaks what looks for one.
agreement:
	@$(MAKE) --no-print-directory test VENV=$(VENV)/agreement EXTRAS=,corruptions,vision PYTEST='-q -rs $(COMPARED)'

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is up to date when it carries the stamp of this torch, pyproject.toml and constraints.txt.
$(CORE): | $(BIN)/python
	$(call install,.)
	@rm -f $(VENV)/.core-* $(VENV)/.dev-*
	@touch $@

$(DEV): | $(BIN)/python
	$(call install,.[dev$(EXTRAS)])
	@rm -f $(VENV)/.core-* $(VENV)/.dev-*
	@touch $(CORE) $@

# torch first: alone, its build is the one that pip is told to take; the second call then holds it, so that nothing replaces it.
define install
	@echo 'Into $(VENV) goes what is not there yet (2 GB in all). Downloads: $(TORCH), 0.2 GB or with CUDA 3 GB; then libraries, 0.25 GB.'
	@$(BIN)/python -m pip install --disable-pip-version-check '$(TORCH)'
	@$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > $(VENV)/torch.txt
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -c $(VENV)/torch.txt -e '$(1)'
endef

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo 'No $(PYTHON) here. Install Python 3.11 or newer, or name one: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old: 3.11 or newer is needed. Name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
		{ echo 'This Python cannot make environments: the package python3-venv is missing (Debian, Ubuntu: sudo apt install python3-venv)'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
