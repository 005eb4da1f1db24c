# Every target makes the environment that it needs, in .venv; nothing has to be installed before.
#
#   make demo             train on Fashion-MNIST; ends with the figures, the report and the model
#   make test             the fast tests, on TensorFlow
#   make test-backends    the tests that mean something on every backend, on JAX and on PyTorch
#   make test-slow        the tests that train, kill, or measure
#   make test-docs        the examples in docstrings
#   make lint             style, format, types, import layers
#   make docs             write docs/cli.md from the command line itself
#   make bench            run benchmarks/*.py
#   make wheel-smoke      install the wheel without Keras, and predict with it
#   make clean            remove what was built; the environment too
#
# Other Python, other place: make PYTHON=python3.12 VENV=.venv-3.12 test

PYTHON ?= python3
VENV ?= .venv

environment = $(PYTHON) scripts/make_environment.py --venv $(VENV)
bin = $(VENV)/bin

.PHONY: demo test test-backends test-slow test-docs lint docs bench wheel-smoke clean

demo:
	@$(environment) train
	$(bin)/tinylens train fashion-mnist --recipe classic

test:
	@$(environment) dev
	$(bin)/pytest -m "not slow"

test-backends:
	@$(environment) dev jax torch
	KERAS_BACKEND=jax $(bin)/pytest -m backend
	KERAS_BACKEND=torch $(bin)/pytest -m backend

test-slow:
	@$(environment) dev
	$(bin)/pytest -m slow

test-docs:
	@$(environment) dev
	$(bin)/pytest --doctest-modules src/tinylens

lint:
	@$(environment) dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

docs:
	@$(environment) dev
	$(bin)/typer tinylens.cli utils docs --name tinylens --output docs/cli.md

bench:
	@$(environment) dev
	@set -e; for script in $(wildcard benchmarks/*.py); do echo "$$script"; $(bin)/python "$$script"; done
	@$(if $(wildcard benchmarks/*.py),,echo "no benchmarks yet")

wheel-smoke:
	@$(environment) dev
	$(bin)/python scripts/wheel_smoke.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
