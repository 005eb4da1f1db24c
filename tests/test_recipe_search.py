"""The section [search] of a recipe: what may stand in it, and what is said where it may not."""

from __future__ import annotations

import pytest

from tinylens.errors import RecipeError
from tinylens.recipe import Recipe, builtin_recipes

RATE = {"low": 1e-4, "high": 1e-2, "log": True}


def searching(**space):
    return Recipe.from_dict({"name": "mine", "search": space})


def test_a_search_space_is_written_and_read_again():
    recipe = Recipe.from_toml(
        'name = "mine"\n[search]\n'
        '"optimizer.learning_rate" = {low = 1e-4, high = 1e-2, log = true}\n'
        '"augment.shift" = {low = 0, high = 4, step = 2}\n'
        '"model.options.widths" = {choices = [[8], [16, 32]]}\n'
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    words = [each.words for each in recipe.search.values()]
    assert words == ["0.0001 to 0.01, by factors", "0 to 4 by 2", "[8], [16, 32]"]
    assert [each.whole for each in recipe.search.values()] == [False, True, False]


def test_a_recipe_that_searches_nothing_is_written_as_before():
    assert "search" not in Recipe(name="mine").to_toml()
    assert (
        "search"
        not in searching(**{"train.epochs": {"low": 1, "high": 9}}).without_search().to_toml()
    )


@pytest.mark.parametrize(
    ("key", "searched", "said"),
    [
        ("optimizer.learning_rat", RATE, "did you mean optimizer.learning_rate?"),
        ("learning_rate", RATE, "search.learning_rate: no such key in a recipe"),
        ("data.val", {"low": 0.1, "high": 0.2}, "not to be searched, since it decides which"),
        ("train.seed", {"low": 0, "high": 9}, "the best of several seeds is luck"),
        ("optimizer.learning_rate", {"low": 1, "high": 99}, "less than or equal to 10, got 99"),
        ("optimizer.name", {"choices": ["adam", "adan"]}, "got 'adan'"),
        ("train.batch_size", {"low": 64}, "expected low and high, or choices"),
        ("train.batch_size", {"low": 64, "high": 64}, "low below high; low is 64, high 64"),
        ("train.batch_size", {"low": 0, "high": 8, "log": True}, "low above 0 and no step"),
        ("train.batch_size", {"low": 1, "high": 8, "step": 9}, "a step above 0 that fits between"),
        ("train.batch_size", {"choices": [8, 8]}, "one choice or more, none of them twice"),
        ("train.batch_size", {"choices": [8], "low": 1}, "low and high, or choices, not both"),
        ("train.batch_size", {"low": 1, "high": 8, "lag": True}, "search.train.batch_size.lag"),
    ],
)
def test_a_wrong_search_space_is_refused_with_the_reason(key, searched, said):
    with pytest.raises(RecipeError) as raised:
        searching(**{key: searched})
    assert said in str(raised.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(RecipeError) as raised:
        searching(**{"train.seed": {"low": 0, "high": 9}, "optimizer.nam": {"choices": ["adam"]}})
    assert str(raised.value).count("\n") == 2


@pytest.mark.parametrize("name", ["classic", "fast"])
def test_built_in_recipes_search_keys_that_hold_their_own_values(name):
    recipe = builtin_recipes()[name]
    assert len(recipe.search) >= 8
    for key in recipe.search:
        assert not key.startswith(("data.", "answer.")) and key != "train.seed"
