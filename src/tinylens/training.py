"""`train`: Splits and a recipe become a run: build, fit, calibrate, save, export, evaluate, report.

Keras is imported only inside functions: the backend is chosen first.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tinylens import backend as backends
from tinylens import environment, events, files
from tinylens.data.dataset import Splits
from tinylens.environment import now
from tinylens.errors import RecipeError, RunError, TinylensError
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.run_info import RunInfo

if TYPE_CHECKING:
    from tinylens.fitting import Progress, Watcher

RUNS = Path("runs")


class Silent:
    """A watcher that says nothing."""

    def phase(self, name: str) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def loading(self, done: int, total: int) -> None:
        """Say nothing."""

    def step(self, progress: Progress) -> None:
        """Say nothing."""

    def epoch(self, row: dict[str, float]) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Setting:
    """Where and how a training runs, apart from data and recipe."""

    backend: str
    precision: str
    deterministic: bool
    command: str
    load_seconds: float
    deadline: float = math.inf
    plan: Mapping[str, Any] = field(default_factory=dict[str, Any])


def train(
    data: Splits,
    recipe: str | Path | Recipe = "classic",
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    backend: str | None = None,
    budget: float | None = None,
    deadline: float = math.inf,
    deterministic: bool = True,
    fresh: bool = False,
    command: str = "",
    load_seconds: float = 0.0,
    watcher: Watcher | None = None,
) -> Run:
    """Train a network and leave a run folder with the model, its figures and a report.

    A run of the same data, recipe and backend that was stopped half-way is continued.

    Args:
        data: what `load` gives.
        recipe: a built-in recipe's name, a path to a TOML file, or a Recipe.
        out: the run's folder; None takes the next free runs/DATASET-RECIPE-N.
        overrides: changes to the recipe, such as {"train.epochs": 3}.
        backend: "tensorflow", "jax" or "torch"; None as `tinylens.backend.choose` says.
        budget: seconds from this call to the end of the report. The network's widths and the
            epochs are chosen so that it is kept: see `tinylens.planning`. If the machine gets
            slower than it was when the plan was made, epochs are dropped.
        deadline: on the clock of `time.monotonic`, for training alone: epochs for which it leaves
            no time are dropped. For those who have planned already, instead of `budget`.
        deterministic: the same weights, bit for bit, from the same command on the same machine.
        fresh: start anew even where a half-done run could be continued.
        command: what was typed, for the record.
        load_seconds: what loading the data took, for the record.
        watcher: told of every phase, step and epoch.

    Raises:
        RecipeError: the recipe says something impossible.
        RunError: `out` holds another run, or a live process is writing it.
        TrainingDiverged: the loss stopped being a number.
        MissingExtra: the backend is not installed.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.
    """
    called, watcher = time.monotonic(), watcher or Silent()
    resolved = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    resolved = resolved.override(overrides or {}).without_search()
    choice = backends.activate(backend)
    from tinylens import models

    if resolved.answer.max_error and data.val is None:
        raise RecipeError(
            f"answer.max_error {resolved.answer.max_error:g} is kept by a confidence that is "
            "chosen on val, and there is no val part; train with --val 0.1, or without --max-error"
        )
    if resolved.answer.refused and data.val is None:
        raise RecipeError(
            f"answer.refused {resolved.answer.refused:g}: which pictures are ordinary is learned "
            "from val, and there is no val part; train with --val 0.1, or without "
            "--refuse-strangers"
        )
    models.check_options(resolved.model.name, resolved.model.options)
    precision = backends.precision(resolved.train.precision, choice.name)
    resolved = resolved.override({"train.precision": precision})
    setting = Setting(
        choice.name,
        precision,
        deterministic,
        command or f"tinylens.train(recipe={resolved.name!r})",
        load_seconds,
        deadline,
    )
    if budget is not None:
        resolved, setting = _planned(data, resolved, setting, called, budget, watcher)
    run = _open_run(data, resolved, setting, None if out is None else Path(out), fresh=fresh)
    if run.started and run.info.state == "done":
        return run
    with run.lock():
        _train_in(run, data, resolved, setting, watcher)
    return run


def _planned(
    data: Splits,
    recipe: Recipe,
    setting: Setting,
    called: float,
    budget: float,
    watcher: Watcher,
) -> tuple[Recipe, Setting]:
    """Return recipe and setting for a training that ends `budget` seconds after `called`."""
    from tinylens import planning

    watcher.phase("planning")
    left = called + budget - time.monotonic()
    plan = planning.plan(data, recipe, left, setting.precision, watcher)
    watcher.say(plan.words)
    deadline = called + budget - plan.finish_seconds
    record = {"budget": budget, **plan.to_json()}
    return plan.recipe, replace(setting, deadline=deadline, plan=record)


def _open_run(
    data: Splits, recipe: Recipe, setting: Setting, out: Path | None, *, fresh: bool
) -> Run:
    """Return the half-done run that this continues, or a new folder."""
    if out is not None:
        run = Run(out)
        if run.started and fresh:
            raise RunError(f"{out} holds a run already; --fresh needs another --out, or none")
        if run.started:
            _check_same(run, data, recipe, setting)
        out.mkdir(parents=True, exist_ok=True)
        return run
    stem = f"{files.slug(data.source)}-{recipe.name}"
    for run in () if fresh else Run.existing(RUNS, stem):
        with contextlib.suppress(RunError):
            if run.info.state == "running" and not run.locked():
                _check_same(run, data, recipe, setting)
                return run
    return Run.create(RUNS, stem)


def _check_same(run: Run, data: Splits, recipe: Recipe, setting: Setting) -> None:
    """Raise a RunError that says in what `run` differs from what is asked for now."""
    info = run.info
    differences = run.recipe.differences(recipe)
    for name, before, after in (
        ("data", info.fingerprint[:12], data.fingerprint[:12]),
        ("backend", info.backend, setting.backend),
        ("deterministic", info.deterministic, setting.deterministic),
    ):
        if before != after:
            differences.append(f"{name}: {before} → {after}")
    if differences:
        raise RunError(
            f"{run.path} was started with other settings:\n  "
            + "\n  ".join(differences)
            + "\ngive the same settings to continue it, or another --out to start anew"
        )


def _train_in(run: Run, data: Splits, recipe: Recipe, setting: Setting, watcher: Watcher) -> None:
    """Do everything in the locked run, and write into it how that ended."""
    if not run.started:
        run.write_recipe(recipe)
        run.write_info(_first_info(data, recipe, setting))
    info = run.info
    info.state, info.error = "running", ""  # a run that failed is tried again
    info.seconds["load"] = round(setting.load_seconds, 3)
    run.write_info(info)
    try:
        _fit_and_finish(run, data, recipe, setting, watcher, info)
    except TinylensError as error:
        info.state, info.error, info.finished = "failed", str(error), now()
        run.write_info(info)
        raise
    info.finished = now()
    info.seconds["total"] = round(sum(info.seconds.values()), 3)
    run.write_info(info)
    watcher.phase("writing the report")
    from tinylens import reporting

    reporting.write(run)
    info.state = "done"  # not before: a kill while reporting leaves a run that is continued
    run.write_info(info)
    run.remove_checkpoints()


def _fit_and_finish(
    run: Run, data: Splits, recipe: Recipe, setting: Setting, watcher: Watcher, info: RunInfo
) -> None:
    from tinylens import compiling, finishing, fitting

    watcher.phase("building the network")
    if setting.deterministic:
        make_deterministic(setting.backend)
    trainer = compiling.build(data, recipe, setting.precision)
    watcher.phase("training")
    with stop_signals() as asked:
        state = fitting.fit(trainer, run, watcher, asked.is_set, setting.deadline)
    if asked.is_set() or not state.finished:  # also when Ctrl-C came at the last step of all
        raise KeyboardInterrupt
    info.seconds["train"] = round(state.seconds, 3)
    if state.dropped:
        info.notes.append(
            f"to keep the budget, {state.dropped} of the {recipe.train.epochs} epochs planned were "
            "dropped"
        )
    finishing.finish(run, data, trainer.network, recipe, info, watcher)


def _first_info(data: Splits, recipe: Recipe, setting: Setting) -> RunInfo:
    notes = list(data.notes)
    if data.val is None:
        notes.append(
            "no val part: nothing was chosen, so neither early stopping, best weights nor "
            "calibration was used"
        )
    if not events.available():
        notes.append("no TensorBoard events: pip install 'tinylens[track]'")
    return RunInfo(
        command=setting.command,
        seed=recipe.train.seed,
        backend=setting.backend,
        precision=setting.precision,
        deterministic=setting.deterministic,
        dataset=data.source,
        fingerprint=data.fingerprint,
        class_names=list(data.class_names),
        splits={
            name: {"size": len(part), "sha256": part.fingerprint} for name, part in data.items()
        },
        notes=notes,
        plan=dict(setting.plan),
        started=now(),
        versions=environment.versions(),
        hardware=environment.hardware(),
    )


def make_deterministic(backend: str) -> None:
    """Make the backend's own operations give the same bits every time."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(mode=True)


@contextlib.contextmanager
def stop_signals() -> Generator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second one acts at once.

    After the block a wish becomes what the signal means: KeyboardInterrupt, or exit code 143.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may catch signals
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came == [signal.SIGTERM]:
        sys.exit(128 + signal.SIGTERM)
