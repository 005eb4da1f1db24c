"""What a request to /predict asks for, from its query string."""

from __future__ import annotations

import functools
import urllib.parse
from dataclasses import dataclass

from tinylens.errors import RecipeError, did_you_mean
from tinylens.inference.input_checks.fixes import allowed_kinds
from tinylens.serving.options import NAME

MOST_TOP = 10_000
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")
_KNOWN = ("top", "look", "seen", "fix", "model")


class BadQuestion(ValueError):
    """A query string that asks for nothing that is known."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        top: how many of the likeliest classes.
        look: whether to say where the model looked.
        seen: whether to give the small image back that the model saw.
        fix: which findings of the input checks may be put right: "all", kinds of them, or "" for
            none; None where it is not to look at all.
        model: the name of one, or "" for the first.
    """

    top: int = 5
    look: bool = False
    seen: bool = False
    fix: str | None = None
    model: str = ""


@functools.lru_cache(maxsize=256)  # clients ask the same again and again; parsing takes 5 µs
def parse(query: bytes) -> Question:
    """Return what a query string asks for.

    Raises:
        BadQuestion: it has an unknown word, one twice, or a value that cannot be.

    >>> parse(b"top=3&seen=true")
    Question(top=3, look=False, seen=True, fix=None, model='')
    """
    try:
        pairs = urllib.parse.parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16
        )
    except ValueError:
        raise BadQuestion("the query string cannot be read, expected such as ?top=3") from None
    given = dict(pairs)
    for name in given:
        if name not in _KNOWN:
            near = did_you_mean(name, _KNOWN)
            raise BadQuestion(
                f"unknown parameter {_short(name)}{near}; there are {', '.join(_KNOWN)}"
            )
    if len(given) < len(pairs):
        raise BadQuestion("a parameter is given twice, expected each once")
    return Question(
        top=_top(given.get("top", "5")),
        look=_yes_or_no("look", given.get("look", "")),
        seen=_yes_or_no("seen", given.get("seen", "")),
        fix=_fix(given.get("fix")),
        model=_model(given.get("model", "")),
    )


def _top(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST_TOP):
        raise BadQuestion(f"top={_short(text)}: expected a whole number from 1 to {MOST_TOP}")
    return int(text)


def _yes_or_no(name: str, text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise BadQuestion(f"{name}={_short(text)}: expected true or false")
    return text.lower() in _TRUE


def _fix(text: str | None) -> str | None:
    try:
        allowed_kinds((text or "")[:200])
    except RecipeError as error:
        raise BadQuestion(str(error)) from None
    return text


def _model(text: str) -> str:
    if text and not NAME.fullmatch(text):
        raise BadQuestion(f"model={_short(text)}: no model can be called so")
    return text


def _short(text: str) -> str:
    return ascii(text[:40])
