"""What a search may change: typed, checked, drawn, and put into recipes."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinylens.errors import RecipeError
from tinylens.recipe import Recipe
from tinylens.training.tuning.space import (
    borrowed,
    default_space,
    parameters_of,
    parse,
    recipe_with,
    space_of,
    suggest,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.learning_rate=1e-4..1e-2:log", "0.0001 to 0.01, by factors"),
        ("augment.cutout=0..8:4", "0 to 8 by 4"),
        ("train.label_smoothing=0.0..0.2", "0 to 0.2"),
        ("optimizer.name=adam, adamw", "adam, adamw"),
        ("train.batch_size=64,128", "64, 128"),
        ("train.best_weights=true,false", "True, False"),
    ],
)
def test_what_is_typed_is_read(text, words):
    [(key, searched)] = parse([text]).items()
    assert (key, searched.words) == (text.partition("=")[0], words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.batch_size", "expected KEY=LOW..HIGH"),
        ("train.batch_size=", "expected KEY=LOW..HIGH"),
        ("train.batch_size=a..b", "expected a number, got 'a'"),
        ("train.batch_size=8..1", "low below high; low is 8, high 1"),
        ("train.batch_size=1..8:logs", "expected a number, got 'logs'"),
    ],
)
def test_what_cannot_be_read_is_named(text, said):
    with pytest.raises(RecipeError, match="the search space has mistakes") as raised:
        parse([text])
    assert f"--search {text}" in str(raised.value) and said in str(raised.value)


def test_the_command_line_goes_over_the_recipe():
    space = space_of(Recipe.load("classic"), parse(["augment.shift=0..1"]), budget=True)
    assert space["augment.shift"].words == "0 to 1"
    assert len(space) == len(Recipe.load("classic").search)


def test_options_are_held_against_the_network():
    typed = parse(["model.options.width=8,16", "model.options.dropout=0.1..1.5"])
    with pytest.raises(RecipeError) as raised:
        space_of(Recipe.load("classic"), typed, budget=False)
    assert "search.model.options.width: classic has no such option" in str(raised.value)
    assert "search.model.options.dropout: expected less than 1, got 1.5" in str(raised.value)


def test_with_a_budget_the_epochs_are_not_searched():
    typed = parse(["train.epochs=2..9"])
    assert "train.epochs" in space_of(Recipe.load("classic"), typed, budget=False)
    with pytest.raises(RecipeError, match="not with --budget"):
        space_of(Recipe.load("classic"), typed, budget=True)


def test_a_recipe_without_a_space_gets_one_of_its_network():
    recipe = Recipe.load("classic-augmented")
    space = default_space(recipe)
    assert space["optimizer.learning_rate"].low == recipe.optimizer.learning_rate / 8
    assert "model.options.widths" in space
    assert space_of(recipe, {}, budget=True) == space


def test_the_default_is_a_point_of_its_own_space():
    """As far as it lies within: adam, which takes no weight decay, is no choice of the search."""
    recipe = Recipe.load("classic")
    drawn = parameters_of(recipe, recipe.search)
    assert recipe_with(recipe, recipe.search, drawn) == recipe.without_search()
    assert drawn["model.options.widths"] == "[16, 32, 64]" and "optimizer.name" not in drawn


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["classic", "fast", "classic-augmented"]))
def test_every_draw_makes_a_recipe_with_these_values(seed, name):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recipe = Recipe.load(name)
    space = space_of(recipe, {}, budget=True)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    drawn = {key: suggest(trial, key, searched) for key, searched in space.items()}
    made = recipe_with(recipe, space, drawn)
    assert parameters_of(made, space) == drawn
    assert made.data == recipe.data and made.train.seed == recipe.train.seed


@pytest.mark.parametrize("name", ["classic", "fast", "small"])
def test_what_is_borrowed_is_done_to_images_and_labels_alone(name):
    recipe = Recipe.load(name)
    space = space_of(recipe, {}, budget=False)
    own, others = parameters_of(recipe, space), borrowed(recipe, space)
    for tried in others:
        changed = {key for key in tried if tried[key] != own.get(key)}
        assert changed
        assert all(key.startswith(("augment.", "train.label_smoothing")) for key in changed)
        assert others.count(tried) == 1
