# Every target makes the environment that it needs, in .venv; nothing has to be installed before.
#
#   make demo             train on Fashion-MNIST; ends with the figures, the report and the model
#   make test             the fast tests, on TensorFlow
#   make test-backends    the tests that mean something on every backend, on JAX and on PyTorch
#   make test-slow        the tests that train, kill or compare backends
#   make test-docs        the examples in docstrings
#   make lint             style, types and layers: ruff, mypy, import-linter
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

.PHONY: demo test test-backends test-jax test-torch test-slow test-docs lint style types layers docs bench wheel-smoke clean

demo:
	@$(environment) train
	$(bin)/tinylens train fashion-mnist --recipe classic

# Measured with two workers: 170 and 175 s on 2 cores, 153 s on 4.
test:
	@$(environment) dev
	$(bin)/pytest -m "not slow" -n 2 --dist worksteal

test-backends: test-jax test-torch

test-jax test-torch: test-%:
	@$(environment) dev $*
	KERAS_BACKEND=$* $(bin)/pytest -m backend

test-slow:
	@$(environment) dev jax torch
	$(bin)/pytest -m slow

test-docs:
	@$(environment) dev
	$(bin)/pytest --doctest-modules src/tinylens

lint: style types layers

style:
	@$(environment) dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types:
	@$(environment) dev
	$(bin)/mypy

layers:
	@$(environment) dev
	$(bin)/lint-imports

docs:
	@$(environment) dev
	$(bin)/typer tinylens.cli utils docs --name tinylens --output docs/cli.md

bench:
	@$(environment) dev
	@set -e; for script in $(filter-out benchmarks/machine.py benchmarks/traffic.py,$(wildcard benchmarks/*.py)); do \
	  echo "$$script"; $(bin)/python "$$script"; done

wheel-smoke:
	@$(environment) dev
	$(bin)/python scripts/wheel_smoke.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
