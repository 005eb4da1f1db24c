"""The folder of a search: the only module that knows the file names in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylens import files
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RunError
from tinylens.recipe import Recipe, Searched
from tinylens.system import core_count

PARTS = ("train", "val")  # what is given to the processes that try recipes: test is not
MOST_JOBS = 8  # by default; of more the estimator hears too late to learn from them
# at val on the way, at which a trial may be given up
GPU = Path("/dev/nvidia0")


def default_jobs() -> int:
    """Return how many trainings at a time make the best of this machine.

    One a core: side by side small networks train on more images a second than one after the
    other on all cores (benchmarks/tune_jobs.py). A GPU is for one at a time.
    """
    return 1 if GPU.exists() else max(min(core_count(), MOST_JOBS), 1)


@dataclass(frozen=True)
class Folder:
    """What a search keeps, so that it can go on.

    | file | what it is |
    |---|---|
    | tune.json | what was asked for; who asks for something else gets another folder |
    | study.db | Optuna's study: all trials, with what was seen of them on the way |
    | trials/ | a record of each training that was finished |
    | spent.json | seconds that earlier processes have spent on the search |
    | data/ | train and val, while the search lasts |
    | log/ | what the processes wrote to stderr, while the search lasts |
    | under-way/ | trainings in flight |
    | choice.json | which trial was chosen, and why |
    | best.toml, run/, summary.json, plots/ | what comes out |
    """

    path: Path

    @property
    def best(self) -> Path:
        """The recipe that was found, complete."""
        return self.path / "best.toml"

    @property
    def storage(self) -> str:
        """The address of the study's database."""
        return f"sqlite:///{(self.path / 'study.db').absolute()}"

    def read(self, name: str) -> dict[str, Any] | None:
        """Return what NAME.json holds, or None where it is not there yet.

        Raises:
            RunError: it is damaged.
        """
        path = self.path / f"{name}.json"
        try:
            return dict(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error}; remove it, or start anew") from None

    def write(self, name: str, tree: Mapping[str, Any]) -> None:
        """Write NAME.json, whole or not at all."""
        text = json.dumps(tree, indent=1, ensure_ascii=False)
        files.write_text(self.path / f"{name}.json", text + "\n")

    def write_data(self, data: Splits) -> None:
        """Write train and val for the processes that try recipes; test is not among them."""
        if (self.path / "data" / "names.json").is_file():
            return
        for name, part in (("train", data.train), ("val", data.val)):
            if part is None:
                continue
            for what, array in (("images", part.images), ("labels", part.labels)):
                path = self.path / "data" / f"{name}-{what}.npy"
                with files.new_file(path) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        described = {"names": list(data.class_names), "source": data.source}
        self.write("data/names", described)

    def read_data(self) -> Splits:
        """Return train and val, memory-mapped; val stands where a test split would."""
        described, folder = self.read("data/names") or {}, self.path / "data"
        train, val = (
            Dataset(
                np.load(folder / f"{name}-images.npy", mmap_mode="r"),
                np.load(folder / f"{name}-labels.npy"),
                tuple(described["names"]),
                described["source"],
            )
            for name in PARTS
        )
        return Splits(train, val, val)

    def remove_working_files(self) -> None:
        """Remove what only an unfinished search needs."""
        for name in ("data", "log", "under-way"):
            shutil.rmtree(self.path / name, ignore_errors=True)


def unfinished(root: Path, stem: str, settings: Mapping[str, Any]) -> Folder | None:
    """Return the newest folder `root/stem-N` of this very search that has not come to its end."""
    wanted = json.loads(json.dumps(settings))
    for _, path in sorted(files.numbered(root, stem), reverse=True):
        folder = Folder(path)
        if folder.read("tune") == wanted and folder.read("summary") is None:
            return folder
    return None


# --- the search that is under way


@dataclass(frozen=True)
class PredictOptions:
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
        requested: how long is searched, and how.
        settings: what the processes are told.
        spent: seconds that earlier processes have spent on it.
    """

    folder: Folder
    data: Splits
    recipe: Recipe
    space: dict[str, Searched]
    requested: PredictOptions
    settings: Mapping[str, Any]
    spent: float

    @property
    def jobs(self) -> int:
        """Trainings at a time."""
        return self.requested.jobs or default_jobs()

    def note_time(self) -> float:
        """Write down what was spent so far, and return it."""
        spent = self.spent + time.monotonic() - self.requested.started
        self.folder.write("spent", {"seconds": round(spent, 1)})
        return spent
