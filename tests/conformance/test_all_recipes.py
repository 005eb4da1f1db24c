"""Every built-in recipe passes every check, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import pytest

import conformance
from tinylens.recipe import builtin_recipes

RECIPES = builtin_recipes()
SLOW = {"accurate", "backbone", "classic-augmented", "fast", "small"}  # 9 to 24 s each


def cases():
    for name in RECIPES:
        for check in conformance.RECIPE_CHECKS:
            slow = name in SLOW and check.__name__ == "check_learns_and_resumes_to_the_same_weights"
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(name, check, id=f"{name}-{check.__name__}", marks=marks)


@pytest.mark.backend
@pytest.mark.parametrize(("name", "check"), list(cases()))
def test_recipe_conforms(name, check):
    check(RECIPES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_called_as_its_file(name):
    assert RECIPES[name].name == name
