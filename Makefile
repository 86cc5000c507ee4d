# Two commands do all on a bare machine (python3, make, a compiler): `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/digits

.PHONY: help env demo test slow lint docs clean

help:
	@echo 'make env    make .venv with tested versions'
	@echo 'make demo   train a small ViT on handwritten digits and test it (WORKDIR=runs/digits)'
	@echo 'make test   lint and run the tests'
	@echo 'make slow   run the trials of minutes too'
	@echo 'make docs   build the pages of docs/ into build/site'

# The stamp is made last, so that an install cut short is done again.
.venv/stamp: setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("vit_jax needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
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

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv build *.egg-info
