"""A recipe: everything that decides a training run except the data, as typed data in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from tinylens import recipe_search
from tinylens.errors import RecipeError, did_you_mean
from tinylens.recipe_sections import (
    AnswerSection,
    AugmentSection,
    DataSection,
    DistilSection,
    ModelSection,
    OptimizerSection,
    Searched,
    Section,
    TrainSection,
    TransferSection,
)


class Recipe(Section):
    """Everything that decides a training run except the data.

    >>> recipe = Recipe(name="mine").override({"train.epochs": 3})
    >>> recipe.train.epochs
    3
    >>> Recipe.from_toml(recipe.to_toml()) == recipe
    True
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    summary: str = ""
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    train: TrainSection = TrainSection()
    answer: AnswerSection = AnswerSection()
    distil: DistilSection = DistilSection()
    transfer: TransferSection = TransferSection()
    search: dict[str, Searched] = Field(default_factory=dict)

    @field_validator("search")
    @classmethod
    def _searches_keys_that_there_are(cls, space: dict[str, Searched]) -> dict[str, Searched]:
        sections = {name: item.annotation for name, item in cls.model_fields.items()}
        mistakes = recipe_search.mistakes(space, sections)
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return space

    @model_serializer(mode="wrap")
    def _without_empty_search(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = dump(self)
        if not self.search:  # recipes that search nothing are written as they were before
            tree.pop("search", None)
        return tree

    @staticmethod
    def load(name_or_path: str | Path) -> Recipe:
        """Return the built-in recipe of that name, or the one in that TOML file.

        Raises:
            RecipeError: no such recipe, or it does not parse; all mistakes are named at once.
        """
        path = Path(name_or_path)
        if path.suffix == ".toml":
            if not path.is_file():
                raise RecipeError(f"no recipe file {path}; built-in recipes: {_listed()}")
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(f"{path} cannot be read as a recipe: {error}") from None
            return Recipe.from_toml(text, where=str(path))
        builtin = _builtin_files().get(str(name_or_path))
        if builtin is None:
            near = did_you_mean(str(name_or_path), _builtin_files())
            raise RecipeError(
                f"no recipe {str(name_or_path)!r}{near}; built-in recipes: {_listed()}; "
                "a recipe of your own is a path that ends in .toml"
            )
        return Recipe.from_toml(builtin.read_text(encoding="utf-8"), where=str(name_or_path))

    @staticmethod
    def from_toml(text: str, where: str = "recipe") -> Recipe:
        """Parse a recipe; `where` names it in an error.

        Raises:
            RecipeError: it is not TOML, or says something impossible; all mistakes at once.
        """
        try:
            return Recipe.from_dict(tomllib.loads(text), where)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{where} is not a TOML file: {error}") from None

    @staticmethod
    def from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check `values` and return them as a recipe; errors as in `from_toml`."""
        try:
            return Recipe.model_validate(dict(values))
        except ValidationError as error:
            # an option that fits no type is one mistake, though pydantic tells one a type
            mistakes = "\n  ".join(dict.fromkeys(map(_explain, error.errors())))
            raise RecipeError(f"{where} has mistakes:\n  {mistakes}") from None

    def override(self, values: Mapping[str, Any]) -> Recipe:
        """Return a copy with `values` set, keys as "section.key"; strings are read as TOML.

        Raises:
            RecipeError: an unknown key or an impossible value; all mistakes at once.
        """
        tree = self.model_dump()
        for dotted, value in values.items():
            *parents, key = dotted.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise RecipeError(f"{dotted}: {parent} is a value, not a section")
            place[key] = _parse_value(value) if isinstance(value, str) else value
        return Recipe.from_dict(tree, where=f"recipe {self.name} with changes")

    def without_search(self) -> Recipe:
        """Return the recipe without [search], which says nothing of a training."""
        return self.model_copy(update={"search": {}}) if self.search else self

    def to_toml(self) -> str:
        """Return the recipe as TOML, complete: also what stands at its default."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def differences(self, other: Recipe) -> list[str]:
        """Return "section.key: mine → theirs" for every value that differs."""
        mine, theirs = _flat(self.model_dump()), _flat(other.model_dump())
        return [
            f"{key}: {mine.get(key)} → {theirs.get(key)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def builtin_recipes() -> dict[str, Recipe]:
    """Return the recipes that come with tinylens, by name."""
    return {name: Recipe.load(name) for name in _builtin_files()}


def _builtin_files() -> dict[str, Any]:
    folder = resources.files("tinylens") / "recipes"
    found = {
        item.name.removesuffix(".toml"): item
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def _listed() -> str:
    return ", ".join(_builtin_files())


def _parse_value(text: str) -> Any:
    """Read `text` as a TOML value; what is not one is a plain string, so quotes may be left off."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    if location[:2] == ["model", "options"] and len(location) > 2:
        return (
            f"{'.'.join(location[:3])}: expected a number, a word, true, false or a list of "
            f"numbers, got {item['input']!r}"
        )
    dotted = ".".join(location)
    if item["type"] == "extra_forbidden":
        parents, key = location[:-1], location[-1]
        return f"{dotted}: unknown key{_near_key(parents, key)}"
    if item["type"] == "missing":
        return f"{dotted}: missing"
    if location == ["search"] and item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    reason = str(item["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    if isinstance(item["input"], Mapping) and item["type"] == "value_error":
        return f"{dotted}: expected {reason}"  # of a whole section, which says itself what it got
    return f"{dotted}: expected {reason}, got {item['input']!r}"


def _near_key(parents: list[str], key: str) -> str:
    section: type[BaseModel] = Recipe
    if parents[:1] == ["search"]:
        section, parents = Searched, parents[2:]
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        section = annotation
    near = did_you_mean(key, section.model_fields)
    prefix = "".join(f"{parent}." for parent in parents)
    return near.replace("did you mean ", f"did you mean {prefix}") or (
        f"; {prefix.rstrip('.') or 'a recipe'} has {', '.join(section.model_fields)}"
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
