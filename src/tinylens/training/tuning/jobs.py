"""Trainings of a search as jobs: a JSON description, done when its record was renamed into place.

Each place is a `ProcessPoolExecutor` of one process that keeps to its share of the processors and
holds train and val, and nothing of test. A process that dies takes its own job along, no other.
"""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylens.errors import RecipeError, RunError, TinylensError
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.training.tuning.folder import Folder

if TYPE_CHECKING:
    import optuna

    from tinylens.data.dataset import Splits
    from tinylens.training.time_budget import Pace

MOST_DEATHS = 3  # of processes in a row, none of which finished a training
LOOKS = 4
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A recipe to be trained.

    Attributes:
        name: of its record, never used twice.
        recipe: what is trained.
        seconds: that it may take, from which its epochs follow; None for the recipe's own.
        trial: the identity in Optuna's storage of what is reported to it; None for no reports.
    """

    name: str
    recipe: Recipe
    seconds: float | None
    trial: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the description that a process is given."""
        return {**vars(self), "recipe": self.recipe.model_dump(mode="json")}


# --- where jobs are done


class Places:
    """Processes that share the processors fairly and do jobs; a dead one is replaced."""

    def __init__(self, settings: Mapping[str, Any], jobs: int) -> None:
        self.settings = settings
        self.shares = shares(jobs)
        self.log = Path(settings["folder"]) / "log"
        self.log.mkdir(parents=True, exist_ok=True)
        self.deaths = 0
        self._context = multiprocessing.get_context("spawn")
        # each process waits for the end of it, which comes with `close` or with our own death
        self._lifeline, self._ours = self._context.Pipe(duplex=False)
        self._pools = [self._pool(place) for place in range(len(self.shares))]
        self._busy: dict[Future[Outcome], tuple[Job, int]] = {}

    @property
    def idle(self) -> list[int]:
        """The places that have nothing to do."""
        busy = {place for _, place in self._busy.values()}
        return [place for place in range(len(self._pools)) if place not in busy]

    def start(self, job: Job) -> None:
        """Let an idle place do a job."""
        place = self.idle[0]
        with _interrupts_held():
            try:
                future = self._pools[place].submit(_do, job.to_json())
            except BrokenProcessPool:  # it died while it had nothing to do
                self._pools[place] = self._pool(place)
                future = self._pools[place].submit(_do, job.to_json())
        self._busy[future] = (job, place)

    def next(self, seconds: float) -> tuple[Job, Outcome] | None:
        """Return a job that ended and its outcome; None where none did in time.

        The outcome's "event" is "done", "pruned", "failed" or, of a process that died, "died".

        Raises:
            RunError: several died, one after the other.
        """
        ended, _ = wait(self._busy, seconds, FIRST_COMPLETED)
        if not ended:
            return None
        future = ended.pop()
        job, place = self._busy.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            self._replace(place)
            return job, {"event": "died", "message": "its process died"}
        self.deaths = 0
        return job, outcome

    def close(self) -> None:
        """End all processes, whatever they are at."""
        self._ours.close()
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        self._lifeline.close()

    def _pool(self, place: int) -> ProcessPoolExecutor:
        log = str(self.log / f"{place + 1}.log")
        arguments = (dict(self.settings), self.shares[place], log, self._lifeline)
        return ProcessPoolExecutor(1, self._context, _begin, arguments)

    def _replace(self, place: int) -> None:
        self.deaths += 1
        self._pools[place].shutdown()
        if self.deaths >= MOST_DEATHS:
            last = _last_line(self.log / f"{place + 1}.log")
            raise RunError(
                f"{self.deaths} processes that try recipes died one after the other, the last "
                f"with: {last}; is there enough memory? fewer at a time: --jobs 1"
            )
        self._pools[place] = self._pool(place)


def shares(jobs: int) -> list[list[int]]:
    """Return the processors of each of so many processes: as many for each, neighbours together.

    Raises:
        RecipeError: fewer than 1, or more than there are processors.
    """
    if hasattr(os, "sched_getaffinity"):
        numbers = sorted(os.sched_getaffinity(0))
    else:
        numbers = list(range(os.cpu_count() or 1))
    if not 1 <= jobs <= len(numbers):
        raise RecipeError(f"--jobs {jobs}: expected 1 to {len(numbers)}, a processor for each")
    size = len(numbers) // jobs
    return [numbers[place * size : (place + 1) * size] for place in range(jobs)]


def _last_line(log: Path) -> str:
    text = log.read_text("utf-8", errors="replace") if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "not a word"


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes that begin in the block never hear of Ctrl-C, which is for the search."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- what a process does

_bench: Bench | None = None


def _begin(
    settings: Mapping[str, Any], processors: list[int], log: str, lifeline: Connection
) -> None:
    """Prepare this process: its processors, its log, the backend, the data."""
    global _bench  # noqa: PLW0603  # a pool's initializer has nowhere else to leave it
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(len(processors))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _bench = Bench(settings)


def _end_with(lifeline: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(0)  # whoever asked is gone


def _do(described: dict[str, Any]) -> Outcome:
    assert _bench is not None  # set by `_begin`
    return _bench.do(described)


class Bench:
    """Trains recipes on train and judges them on val."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from tinylens.backend import activate
        from tinylens.training.train import make_deterministic

        activate(settings["backend"])
        make_deterministic(settings["backend"])
        self.folder = Folder(Path(settings["folder"]))
        self.precision: str = settings["precision"]
        self.data: Splits = self.folder.read_data()
        self.paces: dict[str, Pace] = {}

    def do(self, described: Mapping[str, Any]) -> Outcome:
        """Do a job, write its record where it came to its end, and return the outcome."""
        scratch = self.folder.path / "under-way" / described["name"]
        try:
            outcome = self._train(described, scratch)
        except TinylensError as error:
            return {"event": "failed", "kind": type(error).__name__, "message": str(error)}
        except Exception as error:  # a fault of ours or of a library: the search goes on without it
            traceback.print_exc()
            return {"event": "failed", "kind": type(error).__name__, "message": str(error)}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if outcome["event"] == "done":
            self.folder.write(f"trials/{described['name']}", outcome)
        return outcome

    def _train(self, described: Mapping[str, Any], scratch: Path) -> Outcome:
        from tinylens.run import Run
        from tinylens.training import trainer as compiling
        from tinylens.training.loop import fit

        begun = time.monotonic()
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        compiling.forget()
        recipe = self._of_length(Recipe.from_dict(described["recipe"]), described["seconds"])
        trainer = compiling.build(self.data, recipe, self.precision)
        trial = None
        if described["trial"] is not None:
            from tinylens.training.tuning import pruning

            trial = pruning.reporting_trial(self.folder, described["trial"], len(self.data.test))
        reports = _Reports(trial, recipe.train.epochs)
        state = fit(trainer, Run(scratch), reports, lambda: reports.given_up)
        if not state.finished:
            return {"event": "pruned"}
        right = self._right_on_val(trainer)
        columns = ("epoch", "loss", "val_accuracy", "images_per_second")
        return {
            "event": "done",
            "value": float(right.mean()),
            "right": _packed(right),
            "passes": round(recipe.train.epochs * recipe.train.epoch_share, 3),
            "seconds": round(time.monotonic() - begun, 2),
            "history": [{key: row[key] for key in columns if key in row} for row in state.history],
        }

    def _of_length(self, recipe: Recipe, seconds: float | None) -> Recipe:
        """Return the recipe with as many epochs as the seconds allow, and looks at val among them.

        Its own epochs where no time was given.
        """
        from tinylens.training import time_budget

        if seconds is not None:
            key = json.dumps([recipe.model.model_dump(), recipe.train.batch_size], sort_keys=True)
            if key not in self.paces:
                self.paces[key] = time_budget.probe(self.data, recipe, self.precision)
            recipe = time_budget.lengthened(recipe, self.data, self.paces[key], seconds, LOOKS)
        often = max(recipe.train.epochs // LOOKS, 1)
        return recipe.override({"train.val_every": min(recipe.train.val_every, often)})

    def _right_on_val(self, trainer: Any) -> Any:
        """Return which images of val what would ship answers right; bool, (n_val,)."""
        from tinylens.models.build import ship
        from tinylens.training import finalize

        val = self.data.test  # val stands there: see `Folder.read_data`
        shipped = ship(trainer.network, tta_views=trainer.recipe.model.tta_views)
        return finalize.predict(shipped, val.images).argmax(axis=1) == val.labels


class _Reports(ProgressReporter):
    """Reports val accuracy to Optuna, whose pruner may give the trial up."""

    def __init__(self, trial: optuna.Trial | None, epochs: int) -> None:
        self.trial, self.epochs = trial, epochs
        self.looks, self.given_up = 0, False

    def epoch(self, row: dict[str, float]) -> None:
        """Report a look at val, of which there are LOOKS: trials differ in length."""
        look, value = int(LOOKS * row["epoch"] // self.epochs), row.get("val_accuracy")
        if self.trial is None or value is None or not self.looks < look < LOOKS:
            return
        self.looks = look
        self.trial.report(value, look)
        self.given_up = self.trial.should_prune()


def _packed(right: Any) -> str:
    import numpy as np

    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")
