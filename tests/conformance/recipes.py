"""Checks that every recipe passes, on the Keras backend that runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.datasets import tiny_splits
from tinylens.errors import RecipeError
from tinylens.models.build import check_options
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import trainer as compiling
from tinylens.training.loop import State, fit

QUICK = {"train.epochs": 2, "train.batch_size": 8}  # 16 steps


def check_says_what_it_is(recipe: Recipe) -> None:
    """It has a summary for the list of recipes."""
    assert recipe.summary.strip(), "the summary is empty"


def check_survives_toml(recipe: Recipe) -> None:
    """Written as TOML and read again it is the same recipe."""
    assert Recipe.from_toml(recipe.to_toml()) == recipe, "its TOML is another recipe"


def check_names_an_unknown_key(recipe: Recipe) -> None:
    """A misspelt key is refused with the right one."""
    with pytest.raises(RecipeError, match=r"did you mean train\.epochs"):
        recipe.override({"train.epoch": 1})


def check_network_takes_its_options(recipe: Recipe) -> None:
    """The network exists and has the options that the recipe gives it."""
    check_options(recipe.model.name, recipe.model.options)


def check_learns_and_resumes_to_the_same_weights(recipe: Recipe) -> None:
    """Two quick epochs lower the loss; stopped in the middle and resumed they end the same."""
    quick = recipe.override(QUICK)
    weights, state = _train(quick, stop_after=None)
    losses = [row["loss"] for row in state.history]
    assert losses[-1] < losses[0], f"the loss does not fall: {losses}"
    resumed, again = _train(quick, stop_after=3)
    assert again.finished and again.epoch == state.epoch, "the resumed training is shorter"
    assert all(map(np.array_equal, weights, resumed)), "resumed, it ends with other weights"


RECIPE_CHECKS: tuple[Callable[[Recipe], None], ...] = (
    check_says_what_it_is,
    check_survives_toml,
    check_names_an_unknown_key,
    check_network_takes_its_options,
    check_learns_and_resumes_to_the_same_weights,
)


def _train(recipe: Recipe, stop_after: int | None) -> tuple[list[NDArray[Any]], State]:
    """Train on tiny images, stopping once on the way where asked; return the last weights."""
    trainer = compiling.build(tiny_splits((16, 16, 3)), recipe, "float32")
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        if stop_after is not None:
            steps = iter(range(stop_after))
            fit(trainer, run, ProgressReporter(), lambda: next(steps, None) is None)
            trainer = compiling.build(tiny_splits((16, 16, 3)), recipe, "float32")
        state = fit(trainer, run, ProgressReporter(), lambda: False)
    return trainer.network.get_weights(), state
