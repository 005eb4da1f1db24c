"""What is asked of a search, and the search that is under way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinylens.data.dataset import Splits
from tinylens.recipe import Recipe
from tinylens.recipe_sections import Searched
from tinylens.tuning.crew import default_jobs
from tinylens.tuning.folder import Folder


@dataclass(frozen=True)
class Asked:
    """What is asked of a search.

    Attributes:
        trials: finished or given up, the default's among them; None with a budget.
        budget: seconds for everything, the run too; None with a number of trials.
        started: when they began to count, on the clock of `time.monotonic`.
        jobs: trainings at a time; None for as many as are fast here.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        changes: of the search space, over what the recipe says.
    """

    trials: int | None
    budget: float | None
    started: float
    jobs: int | None
    backend: str | None
    changes: Mapping[str, Searched]


@dataclass(frozen=True)
class Search:
    """A search that is under way in a folder that is held for it.

    Attributes:
        folder: of the search.
        data: train and val are tried on.
        recipe: where the search starts.
        space: what may change.
        asked: how long is searched, and how.
        settings: what the processes are told.
        spent: seconds that earlier processes have spent on it.
    """

    folder: Folder
    data: Splits
    recipe: Recipe
    space: dict[str, Searched]
    asked: Asked
    settings: Mapping[str, Any]
    spent: float

    @property
    def jobs(self) -> int:
        """Trainings at a time."""
        return self.asked.jobs or default_jobs()

    def note_time(self) -> float:
        """Write down what was spent so far, and return it."""
        spent = self.spent + time.monotonic() - self.asked.started
        self.folder.write_spent(spent)
        return spent
