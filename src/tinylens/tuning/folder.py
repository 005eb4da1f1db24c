"""The folder of a search: the only module that knows the file names in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinylens import files
from tinylens.data.dataset import Dataset, Splits
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.recipe_sections import Searched
from tinylens.run import Run

PARTS = ("train", "val")  # what is given to the processes that try recipes: test is not


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
    | choice.json | which trial was chosen, and why |
    | best.toml, run/, summary.json, plots/ | what comes out |
    """

    path: Path

    @property
    def best(self) -> Path:
        """The recipe that was found, complete."""
        return self.path / "best.toml"

    @property
    def run(self) -> Run:
        """The run that was trained from it."""
        return Run(self.path / "run")

    @property
    def storage(self) -> str:
        """The address of the study's database."""
        return f"sqlite:///{(self.path / 'study.db').absolute()}"

    @property
    def log(self) -> Path:
        """The folder of what processes wrote to stderr."""
        return self.path / "log"

    @property
    def data(self) -> Path:
        """The folder of the arrays that are tried on."""
        return self.path / "data"

    @property
    def scratch(self) -> Path:
        """The folder of trainings that are under way."""
        return self.path / "under-way"

    @property
    def plots(self) -> Path:
        """The folder of PNG plots."""
        return self.path / "plots"

    @property
    def summary(self) -> dict[str, Any] | None:
        """What came out, or None before the end."""
        return _read(self.path / "summary.json")

    def write_summary(self, tree: Mapping[str, Any]) -> None:
        """Write summary.json."""
        _write(self.path / "summary.json", tree)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Take the folder for a search, or check that it is this one that goes on.

        Raises:
            RunError: it holds another search.
        """
        before = _read(self.path / "tune.json")
        if before is None:
            self.path.mkdir(parents=True, exist_ok=True)
            _write(self.path / "tune.json", settings)
            return
        different = [name for name, value in settings.items() if before.get(name) != value]
        if different:
            raise RunError(
                f"{self.path} holds another search, of another {', '.join(different)}; give the "
                "same settings to continue it, or another --out to start anew"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; the lock goes with the process, however that ends.

        Raises:
            RunError: another process holds it.
        """
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not files.lock_descriptor(descriptor):
                raise RunError(f"{self.path} is being searched by another process; wait for it")
            yield
        finally:
            os.close(descriptor)

    @property
    def spent(self) -> float:
        """Seconds that earlier processes have spent here."""
        return float((_read(self.path / "spent.json") or {}).get("seconds", 0.0))

    def write_spent(self, seconds: float) -> None:
        """Write spent.json."""
        _write(self.path / "spent.json", {"seconds": round(seconds, 1)})

    # --- what finished trainings left

    def record(self, name: str) -> dict[str, Any] | None:
        """Return what a training left, or None where it was not finished."""
        return _read(self.path / "trials" / f"{name}.json")

    def write_record(self, name: str, tree: Mapping[str, Any]) -> None:
        """Write what a training left."""
        _write(self.path / "trials" / f"{name}.json", tree)

    # --- the pictures

    def write_data(self, data: Splits) -> None:
        """Write train and val for the processes that try recipes; test is not among them."""
        if (self.data / "names.json").is_file():
            return
        for name, part in (("train", data.train), ("val", data.val)):
            if part is None:
                continue
            for what, array in (("images", part.images), ("labels", part.labels)):
                path = self.data / f"{name}-{what}.npy"
                with files.new_file(path) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        _write(self.data / "names.json", {"names": list(data.class_names), "source": data.source})

    def read_data(self) -> Splits:
        """Return train and val, memory-mapped; val stands where a test part would."""
        told = _read(self.data / "names.json") or {}
        train, val = (
            Dataset(
                np.load(self.data / f"{name}-images.npy", mmap_mode="r"),
                np.load(self.data / f"{name}-labels.npy"),
                tuple(told["names"]),
                told["source"],
            )
            for name in PARTS
        )
        return Splits(train, val, val)

    def remove_working_files(self) -> None:
        """Remove what only an unfinished search needs."""
        for path in (self.data, self.log, self.scratch):
            shutil.rmtree(path, ignore_errors=True)

    @property
    def choice(self) -> dict[str, Any] | None:
        """What was chosen, or None before that."""
        return _read(self.path / "choice.json")

    def write_choice(self, tree: Mapping[str, Any]) -> None:
        """Write choice.json."""
        _write(self.path / "choice.json", tree)

    def write_best(self, recipe: Recipe) -> None:
        """Write best.toml."""
        files.write_text(self.best, recipe.to_toml())


def unfinished(root: Path, stem: str, settings: Mapping[str, Any]) -> Folder | None:
    """Return the newest folder `root/stem-N` of this very search that has not come to its end."""
    wanted = json.loads(json.dumps(settings))
    for _, path in sorted(files.numbered(root, stem), reverse=True):
        folder = Folder(path)
        if _read(path / "tune.json") == wanted and folder.summary is None:
            return folder
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error}; remove it, or start anew") from None


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    files.write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


# --- the search that is under way


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
        from tinylens.tuning.jobs import default_jobs

        return self.asked.jobs or default_jobs()

    def note_time(self) -> float:
        """Write down what was spent so far, and return it."""
        spent = self.spent + time.monotonic() - self.asked.started
        self.folder.write_spent(spent)
        return spent
