"""The errors a user can meet, and the exit code each one ends the command with.

    TinylensError
    ├── DataError            4   images, labels or a data set that cannot be used as given
    ├── RecipeError          2   a recipe or an option that says something impossible
    ├── RunError             2   a run folder in the wrong state: locked, missing, of another recipe
    │   └── TrainingDiverged 6   the loss stopped being a number
    ├── ModelError           5   a model file that is damaged, tampered with or not ours
    └── MissingExtra         3   a library or backend that is not installed

Every message says what was found, what was expected and what to type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinylensError(Exception):
    """Base of every error that tinylens raises on purpose."""

    exit_code = 1


class DataError(TinylensError):
    """Images, labels or a data set cannot be used as given."""

    exit_code = 4


class RecipeError(TinylensError):
    """A recipe or an option says something impossible."""

    exit_code = 2


class RunError(TinylensError):
    """A run folder is in the wrong state for what was asked."""

    exit_code = 2


class TrainingDiverged(RunError):
    """The loss stopped being a number."""

    exit_code = 6


class ModelError(TinylensError):
    """A model file is damaged, tampered with or not one of ours."""

    exit_code = 5


class MissingExtra(TinylensError):
    """A library or backend that this needs is not installed."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean X?" for the nearest known word, or "" when none is near.

    >>> did_you_mean("epoch", ["epochs", "batch_size"])
    ', did you mean epochs?'
    >>> did_you_mean("zebra", ["epochs"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""
