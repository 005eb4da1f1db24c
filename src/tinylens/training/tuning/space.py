"""What a search may change: the space of a recipe, checked, and recipes that are drawn from it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tinylens.errors import RecipeError
from tinylens.recipe import OPTIONS, Recipe, Searched, builtin_recipes

if TYPE_CHECKING:
    import optuna

Space = Mapping[str, Searched]
Parameters = Mapping[str, Any]

BY_NETWORK = {"classic": "classic", "whitened": "fast"}  # recipes whose options others may search
RATE_FACTOR = 8  # the learning rate is searched from an eighth of the recipe's to 8 times as much
BORROWED = ("augment.", "train.label_smoothing")  # how the keys begin that other recipes lend
LENGTH = ("train.epochs", "train.epoch_share")


def space_of(recipe: Recipe, changes: Space, *, budget: bool) -> dict[str, Searched]:
    """Return what is searched: the recipe's [search] or its network's, with `changes` over it.

    Args:
        recipe: where the search starts.
        changes: from --search.
        budget: whether the epochs follow from a time, so that they cannot be searched.

    Raises:
        RecipeError: keys or values that the recipe or its network does not take; all at once.
    """
    space = {**(recipe.search or default_space(recipe)), **changes}
    checked = Recipe.from_dict(
        {**recipe.model_dump(), "search": {key: each.model_dump() for key, each in space.items()}},
        where=f"the search space of recipe {recipe.name}",
    )
    mistakes = _wrong_options(recipe, space)
    if budget:
        mistakes += [
            f"search.{key}: not with --budget, from which the length of a training follows; "
            "search it with --trials"
            for key in LENGTH
            if key in space
        ]
    if mistakes:
        raise RecipeError("\n  ".join(["the search space has mistakes:", *mistakes]))
    return dict(checked.search)


def default_space(recipe: Recipe) -> dict[str, Searched]:
    """Return the space of a recipe that has none: by its network, around its learning rate.

    >>> list(default_space(Recipe.load("classic-augmented")))[:2]
    ['optimizer.learning_rate', 'augment.flip']
    """
    rate = recipe.optimizer.learning_rate
    low, high = rate / RATE_FACTOR, min(rate * RATE_FACTOR, 10.0)
    general = {
        "optimizer.learning_rate": Searched(low=low, high=high, log=True),
        "augment.flip": Searched(choices=["none", "alternating"]),
        "augment.shift": Searched(low=0, high=3),
        "augment.cutout": Searched(low=0, high=8, step=4),
        "train.batch_size": Searched(choices=[64, 128, 256, 512]),
        "train.label_smoothing": Searched(low=0.0, high=0.2),
    }
    source = BY_NETWORK.get(recipe.model.name)
    known = Recipe.load(source).search if source else {}
    return general | {key: each for key, each in known.items() if key.startswith(OPTIONS)}


def parse(texts: Sequence[str]) -> dict[str, Searched]:
    """Return what was typed after --search, "KEY=LOW..HIGH[:log|:STEP]" or "KEY=a,b,c".

    Raises:
        RecipeError: something that is neither; all mistakes at once.

    >>> parse(["optimizer.learning_rate=1e-4..1e-2:log"])["optimizer.learning_rate"].words
    '0.0001 to 0.01, by factors'
    >>> parse(["model.options.widths=[16,32],[32,64]"])["model.options.widths"].choices
    [[16, 32], [32, 64]]
    """
    found, mistakes = {}, []
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            if not equals or not value.strip():
                raise ValueError("expected KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=a,b,c")
            found[key.strip()] = _searched(value.strip())
        except ValueError as error:
            mistakes.append(f"--search {text}: {_reason(error)}")
    if mistakes:
        raise RecipeError("\n  ".join(["the search space has mistakes:", *mistakes]))
    return found


def _reason(error: ValueError) -> str:
    described = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return described.removeprefix("Value error, ")


def recipe_with(recipe: Recipe, space: Space, parameters: Parameters) -> Recipe:
    """Return the recipe with the values of a trial.

    Raises:
        RecipeError: values that do not go together.
    """
    values = {key: _value(space[key], parameters[key]) for key in parameters}
    # override takes a string for TOML, in which a word such as true is none
    return recipe.without_search().override(
        {
            key: json.dumps(value) if isinstance(value, str) else value
            for key, value in values.items()
        }
    )


def parameters_of(recipe: Recipe, space: Space) -> dict[str, Any]:
    """Return the recipe's own values of the keys that are searched; those outside are left out."""
    found = {}
    for key, searched in space.items():
        value = _own_value(recipe, key)
        if _holds(searched, value):
            found[key] = _text(value)
    return found


def borrowed(recipe: Recipe, space: Space) -> list[dict[str, Any]]:
    """Return the recipe's own values with what other built-in recipes do to images and labels.

    That suits images rather than a network, so it may well suit this one, too; no two are alike.

    >>> recipe = Recipe.load("classic")
    >>> [each["augment.shift"] for each in borrowed(recipe, recipe.search)]
    [2, 2, 3]
    """
    own = parameters_of(recipe, space)
    keys = {key: each for key, each in space.items() if key.startswith(BORROWED)}
    found = [own]
    for other in builtin_recipes().values():
        tried = own | parameters_of(other, keys)
        if tried not in found:
            found.append(tried)
    return found[1:]


def suggest(trial: optuna.Trial, key: str, searched: Searched) -> Any:
    """Let a trial draw a value; a list among choices as its JSON, since Optuna knows none."""
    if searched.choices is not None:
        return trial.suggest_categorical(key, [_text(choice) for choice in searched.choices])
    low, high = _ends(searched)
    if searched.whole:
        step = int(searched.step or 1)
        return trial.suggest_int(key, int(low), int(high), log=searched.log, step=step)
    return trial.suggest_float(key, low, high, log=searched.log, step=searched.step)


def _searched(text: str) -> Searched:
    """Return a range or choices; numbers and lists are read as TOML does, all else as words."""
    if ".." in text:
        ends, _, kind = text.partition(":")
        low, _, high = ends.partition("..")
        ranged = {"low": _number(low), "high": _number(high)}
        if kind == "log":
            return Searched(**ranged, log=True)
        return Searched(**ranged, step=_number(kind)) if kind else Searched(**ranged)
    try:
        choices = tomllib.loads(f"value = [{text}]")["value"]
    except tomllib.TOMLDecodeError:
        choices = [word.strip() for word in text.split(",")]
    return Searched(choices=choices)


def _number(text: str) -> int | float:
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {text!r}")
    return value


def _wrong_options(recipe: Recipe, space: Space) -> list[str]:
    """Return what the network of the recipe does not take, a sentence each."""
    from tinylens.models.build import check_options

    mistakes: dict[str, None] = {}
    for key, searched in space.items():
        if not key.startswith(OPTIONS):
            continue
        for value in searched.values:
            try:
                check_options(recipe.model.name, {key.removeprefix(OPTIONS): value})
            except RecipeError as error:
                mistakes |= dict.fromkeys(
                    line.strip().replace("model.options", "search.model.options", 1)
                    for line in str(error).splitlines()[1:]
                )
    return list(mistakes)


def _own_value(recipe: Recipe, key: str) -> Any:
    if key.startswith(OPTIONS):
        from tinylens.models.build import defaults

        options = defaults(recipe.model.name) | recipe.model.options
        return options[key.removeprefix(OPTIONS)]
    section, name = key.split(".")
    return getattr(getattr(recipe, section), name)


def _holds(searched: Searched, value: Any) -> bool:
    if searched.choices is not None:
        return value in searched.choices
    low, high = _ends(searched)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        return False
    steps = (value - low) / searched.step if searched.step else 0.0
    return abs(steps - round(steps)) < 1e-9


def _ends(searched: Searched) -> tuple[float, float]:
    assert searched.low is not None and searched.high is not None  # checked by Searched
    return searched.low, searched.high


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _value(searched: Searched, drawn: Any) -> Any:
    if searched.choices is None:
        return drawn
    return next(choice for choice in searched.choices if _text(choice) == drawn)
