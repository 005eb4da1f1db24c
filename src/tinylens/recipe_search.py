"""The section [search] of a recipe: its keys and values, held against the recipe's own schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from tinylens.errors import did_you_mean
from tinylens.recipe_sections import Searched, Section

OPTIONS = "model.options."  # what follows is the network's own, and checked where Keras is
FIXED = {  # what a search would gain by these is luck, or other pictures to be judged on
    "data": "it decides which pictures are judged",
    "answer": "it changes nothing that is trained",
    "train.seed": "the best of several seeds is luck",
    "train.score_train": "it changes nothing that is trained",
}


def mistakes(space: Mapping[str, Searched], sections: Mapping[str, Any]) -> list[str]:
    """Return everything wrong with the keys of a search space and with their values.

    Args:
        space: by key, "section.key".
        sections: the types of a recipe's sections, by name; what is no section is passed over.
    """
    known = {
        f"{section}.{name}": item
        for section, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for name, item in kind.model_fields.items()
    }
    return [
        mistake for key, searched in space.items() for mistake in _mistakes(key, searched, known)
    ]


def _mistakes(key: str, searched: Searched, known: Mapping[str, Any]) -> Iterator[str]:
    if key.startswith(OPTIONS) and len(key) > len(OPTIONS):
        return
    if key not in known or key == OPTIONS.rstrip("."):
        near = did_you_mean(key, [*known, OPTIONS + "widths", OPTIONS + "dropout"])
        yield f"search.{key}: no such key in a recipe{near or '; write it as section.key'}"
        return
    reason = FIXED.get(key) or FIXED.get(key.partition(".")[0])
    if reason:
        yield f"search.{key}: not to be searched, since {reason}"
        return
    item = known[key]
    annotated: Any = Annotated[(item.annotation, item, *item.metadata)]
    kind: TypeAdapter[Any] = TypeAdapter(annotated)
    for value in searched.values:
        try:
            kind.validate_python(value)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
            yield f"search.{key}: expected {wanted}, got {value!r}"
