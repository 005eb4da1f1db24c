"""A recipe says all its mistakes at once, with the near name, and survives TOML."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import builds, from_type, none

from tinylens.errors import RecipeError
from tinylens.recipe import (
    AugmentSection,
    DataSection,
    ModelSection,
    OptimizerSection,
    Recipe,
    TrainSection,
    builtin_recipes,
)

MINE = Recipe(name="mine")
SENSIBLE = st.floats(1e-6, 0.9)
OPTIONS = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.integers(-(2**53), 2**53)),
    st.lists(st.floats(allow_nan=False), min_size=1),
)
RECIPES = builds(
    Recipe,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True),
    summary=st.text(),
    data=builds(DataSection, val=SENSIBLE, test=SENSIBLE, size=none() | st.integers(8, 256)),
    model=builds(ModelSection, name=st.text(), options=st.dictionaries(st.text(), OPTIONS)),
    augment=builds(AugmentSection, flip=st.sampled_from(["none", "random", "alternating"])),
    optimizer=builds(OptimizerSection, name=st.just("sgd"), weight_decay=SENSIBLE, warmup=SENSIBLE),
    train=builds(
        TrainSection, epochs=st.integers(1, 10_000), ema=SENSIBLE, best_weights=from_type(bool)
    ),
)


def mistakes_of(function, *arguments):
    with pytest.raises(RecipeError) as caught:
        function(*arguments)
    return str(caught.value)


@given(RECIPES)
def test_toml_round_trip(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@given(RECIPES, RECIPES)
def test_no_differences_means_equal(one, other):
    assert one.differences(one) == []
    assert bool(one.differences(other)) == (one != other)


def test_all_mistakes_are_told_at_once():
    text = """
name = "Bad Name"
colour = "red"
[data]
val = 1.5
[optimizer]
learning_rat = 0.1
[train]
epochs = "many"
batch_size = 0
"""
    assert mistakes_of(Recipe.from_toml, text, "bad.toml") == (
        "bad.toml has mistakes:\n"
        "  name: expected String should match pattern '^[a-z0-9][a-z0-9._-]{0,63}$', "
        "got 'Bad Name'\n"
        "  data.val: expected less than 1, got 1.5\n"
        "  optimizer.learning_rat: unknown key, did you mean optimizer.learning_rate?\n"
        "  train.epochs: expected a valid integer, unable to parse string as an integer, "
        "got 'many'\n"
        "  train.batch_size: expected greater than or equal to 1, got 0\n"
        "  colour: unknown key; a recipe has name, summary, data, model, augment, optimizer, "
        "train, answer, distil, transfer, search"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("train.epoch", "train.epoch: unknown key, did you mean train.epochs?"),
        ("trian.epochs", "trian: unknown key, did you mean train?"),
        ("train.boolean", "train.boolean: unknown key; train has epochs, "),
        ("augment.zebra", "augment.zebra: unknown key; augment has flip, shift, "),
    ],
)
def test_an_unknown_key_gets_the_near_one_or_the_list(key, hint):
    assert hint in mistakes_of(MINE.override, {key: 1})


def test_a_missing_name_is_told():
    assert mistakes_of(Recipe.from_toml, "") == "recipe has mistakes:\n  name: missing"


def test_an_option_of_no_known_type_is_one_mistake():
    text = 'name = "x"\n[model.options]\nwidth = {a = 1}\n'
    assert mistakes_of(Recipe.from_toml, text) == (
        "recipe has mistakes:\n  model.options.width: expected a number, a word, true, false or "
        "a list of numbers, got {'a': 1}"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0.0", '"fast"'])
def test_a_learning_rate_that_is_none_is_refused(value):
    text = f'name = "x"\n[optimizer]\nlearning_rate = {value}\n'
    assert "optimizer.learning_rate: expected" in mistakes_of(Recipe.from_toml, text)


def test_weight_decay_with_adam_is_refused_since_it_would_not_be_decoupled():
    described = mistakes_of(MINE.override, {"optimizer.weight_decay": 0.01})
    assert (
        "optimizer.weight_decay: expected 0 with adam; adamw, sgd and muon take it, got 0.01"
        in described
    )
    for name in ("adamw", "sgd"):
        changed = MINE.override({"optimizer.name": name, "optimizer.weight_decay": 0.01})
        assert changed.optimizer.weight_decay == 0.01


def test_text_that_is_not_toml_is_told_with_its_place():
    described = mistakes_of(Recipe.from_toml, "name = 'x'\nepochs = =\n", "x.toml")
    assert described == "x.toml is not a TOML file: Invalid value (at line 2, column 10)"


def test_a_section_that_is_a_value_is_told():
    assert "data: expected a valid dictionary" in mistakes_of(Recipe.from_toml, 'name="x"\ndata=3')


@pytest.mark.parametrize(
    ("key", "typed", "section", "expected"),
    [
        ("train.epochs", "3", "train", 3),
        ("train.epochs", 3, "train", 3),
        ("optimizer.learning_rate", "1e-2", "optimizer", 0.01),
        ("train.best_weights", "false", "train", False),
        ("augment.flip", "random", "augment", "random"),
        ("augment.flip", '"random"', "augment", "random"),
    ],
)
def test_override_reads_strings_as_toml(key, typed, section, expected):
    changed = MINE.override({key: typed})
    assert getattr(getattr(changed, section), key.split(".")[1]) == expected


def test_override_sets_options_and_leaves_the_recipe_as_it_is():
    changed = MINE.override({"model.options.widths": "[8, 16]", "model.options.dropout": "0.5"})
    assert changed.model.options == {"widths": [8, 16], "dropout": 0.5}
    assert MINE.model.options == {}
    assert changed.differences(MINE) == [
        "model.options.dropout: 0.5 → None",
        "model.options.widths: [8, 16] → None",
    ]


def test_override_below_a_value_is_refused():
    described = mistakes_of(MINE.override, {"train.epochs.more": 1})
    assert described == "train.epochs.more: epochs is a value, not a section"


def test_all_mistakes_of_overrides_are_told_at_once():
    described = mistakes_of(MINE.override, {"train.epochs": 0, "data.val": 2})
    assert described == (
        "recipe mine with changes has mistakes:\n"
        "  data.val: expected less than 1, got 2\n"
        "  train.epochs: expected greater than or equal to 1, got 0"
    )


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        MINE.train.epochs = 3


def test_toml_holds_the_defaults_too():
    tree = tomllib.loads(MINE.to_toml())
    assert tree["train"]["epochs"] == 10
    assert tree["optimizer"]["name"] == "adam"


def test_load_finds_built_in_recipes_and_files(tmp_path):
    assert Recipe.load("classic").name == "classic"
    path = tmp_path / "own.toml"
    path.write_text(MINE.override({"train.epochs": 7}).to_toml(), encoding="utf-8")
    assert Recipe.load(path).train.epochs == 7
    assert Recipe.load(str(path)) == Recipe.load(path)


def test_load_of_an_unknown_name_offers_the_near_one():
    described = mistakes_of(Recipe.load, "clasic")
    assert described.startswith(
        "no recipe 'clasic', did you mean classic?; built-in recipes: accurate, "
    )
    assert described.endswith("a recipe of your own is a path that ends in .toml")


def test_load_of_a_missing_file_lists_the_built_in_recipes(tmp_path):
    described = mistakes_of(Recipe.load, tmp_path / "none.toml")
    assert described.startswith(
        f"no recipe file {tmp_path / 'none.toml'}; built-in recipes: accurate, "
    )


def test_load_of_a_file_that_is_no_text_names_it(tmp_path):
    path = tmp_path / "image.toml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert str(path) in mistakes_of(Recipe.load, path)


def test_built_in_recipes_come_by_name_in_order():
    assert list(builtin_recipes()) == sorted(builtin_recipes())
