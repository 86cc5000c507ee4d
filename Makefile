# Two commands do all on a bare machine (python3, make, a compiler): `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/digits

.PHONY: help env demo test slow lint coverage docs notebooks dist release clean

help:
	@echo 'make env    make .venv with tested versions'
	@echo 'make demo   train a small ViT on handwritten digits and test it (WORKDIR=runs/digits)'
	@echo 'make test   lint and run the tests'
	@echo 'make slow   run the trials of minutes too'
	@echo 'make coverage   run the tests and say what they reach'
	@echo 'make docs       build the site of docs/ into build/site'
	@echo 'make notebooks  run the notebooks on an installed wheel'
	@echo 'make dist       build wheel and sdist into dist/'
	@echo 'make release REPOSITORY=OWNER/NAME VERSION=X.Y.Z   write a version wherever it is stated'

# The stamp is made last, so that an install cut short is done again.
.venv/stamp: setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("vit_jax needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@echo 'installing packages into .venv: a minute or two'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

env: .venv/stamp

demo: env
	$(BIN)/python -m vit_jax.main --config=configs/vit_digits.py --workdir=$(WORKDIR)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: env
	$(BIN)/python -m pytest -m slow

# Not in `make test`: with coverage's C tracer a part of the tests that computes little in XLA took
# 18.6 s of CPU time in place of 10.3 s. Python 3.12 and later have a quicker core, sysmon.
coverage: env
	COVERAGE_CORE=sysmon $(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: dist
	$(PYTHON) -m venv --clear build/notebooks
	build/notebooks/bin/pip install --quiet --disable-pip-version-check dist/*.whl ipykernel
	VIT_JAX_KERNEL=build/notebooks/bin/python $(BIN)/python -m pytest tests/test_notebooks.py

# RELEASE=OWNER/NAME@vX.Y.Z checks first that all files are of that release.
dist: env
	rm -rf dist
	$(if $(RELEASE),$(BIN)/python release.py --check $(RELEASE))
	$(BIN)/python -c "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"

release: env
	$(BIN)/python release.py $(REPOSITORY) $(VERSION)

clean:
	rm -rf .venv build dist *.egg-info
