"""`train`: Splits and a recipe become a run: build, fit, calibrate, save, export, evaluate, report.

Keras is imported only inside functions: the backend is chosen first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylens import backend as backends
from tinylens import beginning, distilling, stopping, transferring
from tinylens.beginning import Setting
from tinylens.data.checking import check_trainable
from tinylens.data.dataset import Splits
from tinylens.environment import now
from tinylens.errors import RecipeError, TinylensError
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.run_info import RunInfo
from tinylens.silent import Silent

if TYPE_CHECKING:
    from tinylens.compiling import Start, Trainer
    from tinylens.fitting import Watcher


def train(
    data: Splits,
    recipe: str | Path | Recipe = "classic",
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    backend: str | None = None,
    budget: float | None = None,
    deadline: float = math.inf,
    teacher: str | Path | None = None,
    source: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    probe: bool = False,
    deterministic: bool = True,
    fresh: bool = False,
    report: bool = True,
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
        teacher: a run, or a model.onnx, whose answers on train are learnt as the recipe's section
            distil says: see `tinylens.distilling`.
        source: a run, whose network's body this one starts with, under a new head; the recipe's
            section transfer says how it is trained on: see `tinylens.transferring`.
        backbone: in the place of a run, a network of keras.applications, such as "MobileNetV2".
        weights: a file of that network's weights; None for those of ImageNet, downloaded.
        probe: keep that body as it is, and fit the head alone: see `tinylens.probing`.
        deterministic: the same weights, bit for bit, from the same command on the same machine.
        fresh: start anew even where a half-done run could be continued.
        report: write report.html, plots and README.md; `tinylens report` writes them later, too.
        command: what was typed, for the record.
        load_seconds: what loading the data took, for the record.
        watcher: told of every phase, step and epoch.

    Raises:
        DataError: all pictures are the same, or there are too many classes.
        RecipeError: the recipe says something impossible.
        RunError: `out` holds another run, or a live process is writing it.
        TrainingDiverged: the loss stopped being a number.
        MissingExtra: the backend is not installed.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.
    """
    called, watcher = time.monotonic(), watcher or Silent()
    check_trainable(data)
    resolved = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    resolved = resolved.override(overrides or {}).without_search()
    transferring.asked(source, backbone, weights, probe=probe)
    choice = backends.activate(backend)
    from tinylens import models

    origin = _origin(source, backbone, weights, data, resolved, budget)
    if origin is not None:
        resolved = transferring.with_body(resolved, origin)

    _check_possible(resolved, data, budget)
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
        source=origin,
        probe=probe,
    )
    if teacher is not None:
        setting = replace(setting, lesson=distilling.lesson(teacher, data, watcher.phase))
    if budget is not None:
        resolved, setting = _planned(data, resolved, setting, called, budget, watcher)
    run = beginning.open_run(
        data, resolved, setting, None if out is None else Path(out), fresh=fresh
    )
    if run.started and run.info.state == "done":
        return run
    with run.lock():
        _train_in(run, data, resolved, setting, watcher)
        end(run, watcher, report=report)
    return run


def _origin(
    path: str | Path | None,
    backbone: str | None,
    weights: str | Path | None,
    data: Splits,
    recipe: Recipe,
    budget: float | None,
) -> transferring.Source | None:
    """Return the source of the body, checked to be of use here."""
    if path is None and backbone is None:
        return None
    transferring.check(recipe, budget)
    if path is not None:
        found = transferring.source_of(path)
        transferring.check_size(found, data)
        return found
    from tinylens import backbones

    options = recipe.model.options if recipe.model.name == "backbone" else {}
    return backbones.source_of(backbone or "", weights, data, options)


def _check_possible(recipe: Recipe, data: Splits, budget: float | None) -> None:
    """Raise a RecipeError where parts of the recipe need what is not there."""
    if recipe.answer.max_error and data.val is None:
        raise RecipeError(
            f"answer.max_error {recipe.answer.max_error:g} is kept by a confidence that is "
            "chosen on val, and there is no val part; train with --val 0.1, or without --max-error"
        )
    if recipe.answer.refused and data.val is None:
        raise RecipeError(
            f"answer.refused {recipe.answer.refused:g}: which pictures are ordinary is learned "
            "from val, and there is no val part; train with --val 0.1, or without "
            "--refuse-strangers"
        )
    if budget is not None and recipe.train.balance == "auto":
        raise RecipeError(
            "--budget plans for one training, and balance auto tries out several; name one, such "
            "as --balance logits, or leave the budget out"
        )


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


def _balanced(
    run: Run, data: Splits, recipe: Recipe, setting: Setting, watcher: Watcher, info: RunInfo
) -> Recipe:
    """Return the recipe with a balance of its own for "auto", and write both into the run."""
    from tinylens import balancing

    if recipe.train.balance == "none" and (hint := balancing.hint(data)):
        watcher.say(hint)
    if recipe.train.balance != "auto":
        return recipe
    if not info.balance:
        with stopping.stop_signals() as asked:
            choice = balancing.choose(data, recipe, setting.precision, watcher, asked.is_set)
        if asked.is_set():
            raise KeyboardInterrupt
        info.balance = choice.to_json()
        info.seconds["balance"] = choice.seconds
        info.notes.append(choice.words)
        watcher.say(choice.words)
        run.write_info(info)
    chosen = beginning.with_choice(recipe, info)
    run.write_recipe(chosen)
    return chosen


def _train_in(run: Run, data: Splits, recipe: Recipe, setting: Setting, watcher: Watcher) -> None:
    """Do everything in the locked run, and write into it how that ended."""
    if not run.started:
        run.write_recipe(recipe)
        run.write_info(beginning.first_info(data, recipe, setting))
    info = run.info
    info.state, info.error = "running", ""  # a run that failed is tried again
    info.seconds["load"] = round(setting.load_seconds, 3)
    run.write_info(info)
    with outcome_recorded(run, info):
        _fit_and_finish(run, data, recipe, setting, watcher, info)


@contextlib.contextmanager
def outcome_recorded(run: Run, info: RunInfo) -> Generator[None]:
    """Write into the run when the block ended and what it took, or why it failed."""
    try:
        yield
    except TinylensError as error:
        info.state, info.error, info.finished = "failed", str(error), now()
        run.write_info(info)
        raise
    info.finished = now()
    info.seconds["total"] = round(sum(info.seconds.values()), 3)
    run.write_info(info)


def end(run: Run, watcher: Watcher, *, report: bool) -> None:
    """Write the report, where one is wanted, and say that the run is done."""
    if report:
        from tinylens import reporting

        watcher.phase("writing the report")
        reporting.write(run)
    info = run.info
    info.state = "done"  # not before: a kill while reporting leaves a run that is continued
    run.write_info(info)
    run.remove_checkpoints()


def _fit_and_finish(
    run: Run, data: Splits, recipe: Recipe, setting: Setting, watcher: Watcher, info: RunInfo
) -> None:
    from tinylens import compiling, finishing

    if setting.deterministic:
        make_deterministic(setting.backend)
    recipe = _balanced(run, data, recipe, setting, watcher, info)
    watcher.phase("building the network")
    taught = None if setting.lesson is None else setting.lesson.probabilities
    start = _start(data, setting, watcher, info)
    trainer = compiling.build(data, recipe, setting.precision, taught, start)
    if not setting.probe:
        _fit(run, trainer, recipe, setting, watcher, info)
    finishing.finish(run, data, trainer.network, recipe, info, watcher)


def _start(data: Splits, setting: Setting, watcher: Watcher, info: RunInfo) -> Start | None:
    """Return the body and the head to start with, if a body is named; the head is a probe's."""
    if setting.source is None:
        return None
    from tinylens import compiling, probing

    watcher.phase("fitting a head on the source's embeddings")
    head = probing.fit(data, setting.source.path, setting.source.sha256)
    info.seconds["probe"] = round(head.seconds, 3)
    info.source |= {"strength": head.strength, "log_loss": round(head.log_loss, 4)}
    watcher.say(
        f"linear probe in {head.seconds:.1f} s: C = {head.strength:g}, log loss {head.log_loss:.3f}"
    )
    return compiling.Start(setting.source.path, head)


def _fit(
    run: Run, trainer: Trainer, recipe: Recipe, setting: Setting, watcher: Watcher, info: RunInfo
) -> None:
    """Train, and write into `info` what it took; a wish to stop becomes a KeyboardInterrupt."""
    from tinylens import fitting

    watcher.phase("training")
    with stopping.stop_signals() as asked:
        state = fitting.fit(trainer, run, watcher, asked.is_set, setting.deadline)
    if asked.is_set() or not state.finished:  # also when Ctrl-C came at the last step of all
        raise KeyboardInterrupt
    info.seconds["train"] = round(state.seconds, 3)
    if state.dropped:
        info.notes.append(
            f"to keep the budget, {state.dropped} of the {recipe.train.epochs} epochs planned were "
            "dropped"
        )


def make_deterministic(backend: str) -> None:
    """Make the backend's own operations give the same bits every time."""
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(mode=True)
