"""`tune`: a search for a better recipe, and a run that is trained from what was found.

Optuna's estimator says what to try (Bergstra et al. 2011; Watanabe 2023, arXiv:2304.11127), trials
that fall behind are given up, val judges. The best trials get a second look with another seed,
beside the default; only what is better by more than chance takes its place. Test stays sealed: the
processes that try recipes are given train and val alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylens import backend as backends
from tinylens import files, system
from tinylens.data.dataset import Splits
from tinylens.errors import DataError, MissingExtra, RecipeError
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.training import series
from tinylens.training.train import RUNS, train
from tinylens.training.tuning.folder import Folder, PredictOptions, Search, unfinished
from tinylens.training.tuning.jobs import Places, shares
from tinylens.training.tuning.space import recipe_with, space_of

if TYPE_CHECKING:
    from tinylens.progress import ProgressReporter
    from tinylens.training.tuning.select import Choice
    from tinylens.training.tuning.study import Lengths

FEWEST_TRIALS = 2  # the default, and one other
MIN_STEPS = 20  # of a trial, with fewer of which it says nothing


@contextlib.contextmanager
def opened(
    data: Splits, recipe: Recipe, requested: PredictOptions, *, out: Path | None, fresh: bool
) -> Generator[Search]:
    """Yield a search: the unfinished one of the same settings, or a new one; it is locked.

    Raises:
        RecipeError: a search space that the recipe does not take, or too few trials.
        DataError: there is no val split to judge on.
        RunError: `out` holds another search, or another process is at it.
        MissingExtra: Optuna or the backend is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtra("a search needs Optuna; type: pip install 'tinylens[tune]'")
    if data.val is None:
        raise DataError(
            "a search judges on val, since test stays sealed, and there is no val split; "
            "leave out --val 0"
        )
    if requested.trials is not None and requested.trials < FEWEST_TRIALS:
        raise RecipeError(
            f"--trials {requested.trials}: expected {FEWEST_TRIALS} or more, such as 50; the first "
            "is the default recipe's own"
        )
    shares(requested.jobs or 1)
    choice = backends.activate(requested.backend)
    precision = backends.precision(recipe.train.precision, choice.name)
    recipe = recipe.override({"train.precision": precision})
    space = space_of(recipe, requested.changes, budget=requested.budget is not None)
    recipe = recipe.without_search()
    settings = {
        "recipe": recipe.model_dump(mode="json"),
        "space": {key: each.model_dump(mode="json") for key, each in space.items()},
        "trials": requested.trials,
        "budget": requested.budget,
        "backend": choice.name,
        "fingerprint": data.fingerprint,
    }
    folder = _folder(data, recipe, settings, out, fresh=fresh)
    series.claim(folder.path / "tune.json", settings, "search")
    described = {"folder": str(folder.path), "backend": choice.name, "precision": precision}
    with Run(folder.path).lock():
        spent = (folder.read("spent") or {}).get("seconds", 0.0)
        yield Search(folder, data, recipe, space, requested, described, spent)


def find(search: Search, reporter: ProgressReporter) -> Choice:
    """Search, look again at the best, and return what was chosen; what was done before is kept.

    Raises:
        RecipeError: the recipe itself cannot be trained, or the time is too short.
        RunError: the processes that train die.
        KeyboardInterrupt: Ctrl-C came; the same search can be opened again, and goes on.
    """
    from tinylens.training.tuning import select

    kept = search.folder.read("choice")
    if kept is not None:
        return select.Choice.from_json(kept)
    lengths = _lengths(search)
    search.folder.write_data(search.data)
    stopped = False
    with system.stop_signals() as requested:
        try:
            choice = _find(search, lengths, requested.is_set, reporter)
        except KeyboardInterrupt:  # caught, so that SIGTERM ends with its own exit code
            stopped = True
        finally:
            search.note_time()
    if stopped or requested.is_set():
        raise KeyboardInterrupt
    search.folder.write("choice", choice.to_json())
    return choice


def finish(
    search: Search, choice: Choice, command: str, reporter: ProgressReporter
) -> dict[str, Any]:
    """Write best.toml, train the run from it, and return what summary.json holds.

    Args:
        search: that has found.
        choice: what it found.
        command: what was typed, for the record.
        reporter: told of every phase, step and epoch of the run.

    Raises:
        KeyboardInterrupt: Ctrl-C came; the state was saved.
    """
    from tinylens.training.tuning import select

    folder = search.folder
    before = folder.read("summary")
    if before is not None:
        return before
    deadline = _write_best(search, choice, reporter)
    run = train(
        search.data,
        Recipe.load(folder.best),
        out=folder.path / "run",
        backend=search.requested.backend,
        deadline=deadline,
        command=command,
        reporter=reporter,
    )
    summary = select.summarize(search, choice, run)
    folder.write("summary", summary)
    folder.remove_working_files()
    return summary


def _folder(
    data: Splits, recipe: Recipe, settings: Mapping[str, Any], out: Path | None, *, fresh: bool
) -> Folder:
    """Return the folder to search in: `out`, the one that is unfinished, or the next free one."""
    if out is not None:
        return Folder(out)
    stem = f"{files.slug(data.source)}-{recipe.name}-tune"
    known = None if fresh else unfinished(RUNS, stem, settings)
    return known or Folder(Run.create(RUNS, stem).path)


def _lengths(search: Search) -> Lengths:
    """Return how long trials may take: the recipe's own epochs where no budget was given."""
    from tinylens.training import time_budget
    from tinylens.training.tuning.study import Lengths, share_out

    budget = search.requested.budget
    if budget is None:
        return Lengths()
    pace = time_budget.probe(search.data, search.recipe, search.settings["precision"])
    finish_seconds = time_budget.finish_seconds(search.recipe, search.data, pace)
    lengths = share_out(search.requested.started, budget, search.spent, search.jobs, finish_seconds)
    step = pace.train * search.recipe.train.batch_size
    if lengths.trial is None or lengths.trial < 2 * pace.start + MIN_STEPS * step:
        raise RecipeError(
            f"--budget: {budget:.0f} s are too few to try several recipes on "
            f"{len(search.data.train):,} images and to train a run; give more time"
        )
    return lengths


def _find(
    search: Search, lengths: Lengths, should_stop: Callable[[], bool], reporter: ProgressReporter
) -> Choice:
    from tinylens.training.tuning import select, study

    val = search.data.val
    assert val is not None  # `opened` refuses a set without
    opened_study = study.open_study(search.folder, search.recipe.train.seed)
    with contextlib.closing(Places(search.settings, search.jobs)) as places:
        going = study.Going(search, opened_study, places, lengths, should_stop, reporter)
        study.try_recipes(going)
        looks = select.look_again(going)
    return select.choose(search.folder, looks, len(val))


def _write_best(search: Search, choice: Choice, reporter: ProgressReporter) -> float:
    """Write best.toml where it is not there yet; return until when the run may train."""
    from tinylens.training import time_budget
    from tinylens.training.tuning.study import share_out

    recipe = search.recipe
    if choice.tuned:
        summary = f"{recipe.name}, tuned on {files.slug(search.data.source)}"
        recipe = recipe_with(recipe, search.space, choice.parameters)
        recipe = recipe.override({"name": f"{recipe.name[:58]}-tuned", "summary": f'"{summary}"'})
    budget = search.requested.budget
    if budget is None:
        files.write_text(search.folder.best, recipe.to_toml())
        return math.inf
    reporter.phase("timing the recipe that was found")
    pace = time_budget.probe(search.data, recipe, search.settings["precision"])
    finish_seconds = time_budget.finish_seconds(recipe, search.data, pace)
    end = share_out(search.requested.started, budget, search.spent, search.jobs, 0.0).end
    deadline = (end or math.inf) - finish_seconds
    if not search.folder.best.is_file():
        if choice.tuned:
            left = deadline - time.monotonic()
            recipe = time_budget.lengthened(recipe, search.data, pace, left)
        files.write_text(search.folder.best, recipe.to_toml())
    return deadline
