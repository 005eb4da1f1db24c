"""Every built-in recipe passes every check, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import pytest

from tinylens import testing
from tinylens.recipe import builtin_recipes

RECIPES = builtin_recipes()


@pytest.mark.backend
@pytest.mark.parametrize("check", testing.RECIPE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipe_conforms(recipe, check):
    check(recipe)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_called_as_its_file(name):
    assert RECIPES[name].name == name
