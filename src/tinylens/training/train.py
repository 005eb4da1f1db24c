"""`train`: from Splits and a recipe to a finished run.

Keras is imported only inside functions: the backend is chosen first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinylens import backend as backends
from tinylens import files, system, tensorboard
from tinylens.data.dataset import Splits
from tinylens.data.images import rule_of
from tinylens.data.validation import check_trainable
from tinylens.errors import RecipeError, RunError, TinylensError
from tinylens.progress import ProgressReporter
from tinylens.recipe import Recipe
from tinylens.run import Run, RunInfo
from tinylens.system import now
from tinylens.training import distillation, transfer
from tinylens.training.distillation import Lesson
from tinylens.training.transfer import Source

if TYPE_CHECKING:
    from tinylens.training.trainer import Start, Trainer


RUNS = Path("runs")


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
    lesson: Lesson | None = None
    source: Source | None = None
    probe: bool = False


def open_run(
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
    differences = with_choice(run.recipe, info).differences(with_choice(recipe, info))
    for name, before, after in (
        ("data", info.fingerprint[:12], data.fingerprint[:12]),
        ("backend", info.backend, setting.backend),
        ("deterministic", info.deterministic, setting.deterministic),
        ("teacher", info.teacher.get("sha256", "none")[:12], _sha256_of(setting.lesson)[:12]),
        ("source", info.source.get("sha256", "none")[:12], _source_sha256(setting)[:12]),
        ("probe", info.source.get("used") == "probe", setting.probe),
    ):
        if before != after:
            differences.append(f"{name}: {before} → {after}")
    if differences:
        raise RunError(
            f"{run.path} was started with other settings:\n  "
            + "\n  ".join(differences)
            + "\ngive the same settings to continue it, or another --out to start anew"
        )


def with_choice(recipe: Recipe, info: RunInfo) -> Recipe:
    """Return the recipe with what a run has chosen already in the place of "auto"."""
    if recipe.train.balance != "auto" or not info.balance:
        return recipe
    return recipe.override({"train.balance": info.balance["chosen"]})


def _sha256_of(lesson: Lesson | None) -> str:
    return "none" if lesson is None else lesson.teacher.sha256


def _source_sha256(setting: Setting) -> str:
    return "none" if setting.source is None else setting.source.sha256


def _source_record(setting: Setting) -> dict[str, Any]:
    """Return what run.json says of a body that was trained before."""
    if setting.source is None:
        return {}
    return {**setting.source.to_json(), "used": "probe" if setting.probe else "trained on"}


def first_info(data: Splits, recipe: Recipe, setting: Setting) -> RunInfo:
    """Return what run.json says when a training starts."""
    notes = list(data.notes)
    if data.val is None:
        notes.append(
            "no val split: nothing was chosen, so neither early stopping, best weights nor "
            "calibration was used"
        )
    if setting.lesson is not None:
        notes += distillation.notes(setting.lesson.teacher, data)
    if setting.source is not None:
        notes += transfer.notes(setting.source, data, probe=setting.probe)
    if not tensorboard.available():
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
        image=rule_of(data.train).to_json(),
        notes=notes,
        plan=dict(setting.plan),
        teacher={} if setting.lesson is None else setting.lesson.teacher.to_json(),
        source=_source_record(setting),
        started=now(),
        versions=system.versions(),
        hardware=system.hardware(),
    )


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
    reporter: ProgressReporter | None = None,
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
            epochs are chosen so that it is kept: see `tinylens.training.time_budget`. If the
            machine gets slower than it was when the plan was made, epochs are dropped.
        deadline: on the clock of `time.monotonic`, for training alone: epochs for which it leaves
            no time are dropped. For those who have planned already, instead of `budget`.
        teacher: a run, or a model.onnx, whose answers on train are learnt as the recipe's section
            distil says: see `tinylens.training.distillation`.
        source: a run, whose network's body this one starts with, under a new head; the recipe's
            section transfer says how it is trained on: see `tinylens.training.transfer`.
        backbone: in the place of a run, a network of keras.applications, such as "MobileNetV2".
        weights: a file of that network's weights; None for those of ImageNet, downloaded.
        probe: keep that body as it is, and fit the head alone: see `tinylens.training.transfer`.
        deterministic: the same weights, bit for bit, from the same command on the same machine.
        fresh: start anew even where a half-done run could be continued.
        report: write report.html, plots and README.md; `tinylens report` writes them later, too.
        command: what was typed, for the record.
        load_seconds: what loading the data took, for the record.
        reporter: told of every phase, step and epoch.

    Raises:
        DataError: all images are the same, or there are too many classes.
        RecipeError: the recipe says something impossible.
        RunError: `out` holds another run, or a live process is writing it.
        TrainingDiverged: the loss stopped being a number.
        MissingExtra: the backend is not installed.
        KeyboardInterrupt: Ctrl-C came; the step was finished and the state saved before.
    """
    called, reporter = time.monotonic(), reporter or ProgressReporter()
    check_trainable(data)
    resolved = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    resolved = resolved.override(overrides or {}).without_search()
    transfer.requested(source, backbone, weights, probe=probe)
    choice = backends.activate(backend)
    from tinylens.models.build import check_options

    origin = _origin(source, backbone, weights, data, resolved, budget)
    if origin is not None:
        resolved = transfer.with_body(resolved, origin)

    _check_possible(resolved, data, budget)
    check_options(resolved.model.name, resolved.model.options)
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
        setting = replace(setting, lesson=distillation.lesson(teacher, data, reporter.phase))
    if budget is not None:
        resolved, setting = _planned(data, resolved, setting, called, budget, reporter)
    run = open_run(data, resolved, setting, None if out is None else Path(out), fresh=fresh)
    if run.started and run.info.state == "done":
        return run
    with run.lock():
        _train_in(run, data, resolved, setting, reporter)
        end(run, reporter, report=report)
    return run


def _origin(
    path: str | Path | None,
    backbone: str | None,
    weights: str | Path | None,
    data: Splits,
    recipe: Recipe,
    budget: float | None,
) -> transfer.Source | None:
    """Return the source of the body, checked to be of use here."""
    if path is None and backbone is None:
        return None
    transfer.check(recipe, budget)
    if path is not None:
        found = transfer.source_of(path)
        transfer.check_size(found, data)
        return found
    from tinylens.training import backbone as backbones

    options = recipe.model.options if recipe.model.name == "backbone" else {}
    return backbones.pretrained_source(backbone or "", weights, data, options)


def _check_possible(recipe: Recipe, data: Splits, budget: float | None) -> None:
    """Raise a RecipeError where parts of the recipe need what is not there."""
    if recipe.answer.max_error and data.val is None:
        raise RecipeError(
            f"answer.max_error {recipe.answer.max_error:g} is kept by a confidence that is "
            "chosen on val, and there is no val split; train with --val 0.1, or without --max-error"
        )
    if recipe.answer.refused and data.val is None:
        raise RecipeError(
            f"answer.refused {recipe.answer.refused:g}: which images are ordinary is learned "
            "from val, and there is no val split; train with --val 0.1, or without "
            "--reject-ood"
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
    reporter: ProgressReporter,
) -> tuple[Recipe, Setting]:
    """Return recipe and setting for a training that ends `budget` seconds after `called`."""
    from tinylens.training import time_budget

    reporter.phase("planning")
    left = called + budget - time.monotonic()
    plan = time_budget.plan(data, recipe, left, setting.precision, reporter)
    reporter.say(plan.words)
    deadline = called + budget - plan.finish_seconds
    record = {"budget": budget, **plan.to_json()}
    return plan.recipe, replace(setting, deadline=deadline, plan=record)


def _balanced(
    run: Run,
    data: Splits,
    recipe: Recipe,
    setting: Setting,
    reporter: ProgressReporter,
    info: RunInfo,
) -> Recipe:
    """Return the recipe with a balance of its own for "auto", and write both into the run."""
    from tinylens.training import choose_balance

    if recipe.train.balance == "none" and (hint := choose_balance.hint(data)):
        reporter.say(hint)
    if recipe.train.balance != "auto":
        return recipe
    if not info.balance:
        with system.stop_signals() as requested:
            choice = choose_balance.choose(
                data, recipe, setting.precision, reporter, requested.is_set
            )
        if requested.is_set():
            raise KeyboardInterrupt
        info.balance = choice.to_json()
        info.seconds["balance"] = choice.seconds
        info.notes.append(choice.words)
        reporter.say(choice.words)
        run.write_info(info)
    chosen = with_choice(recipe, info)
    run.write_recipe(chosen)
    return chosen


def _train_in(
    run: Run, data: Splits, recipe: Recipe, setting: Setting, reporter: ProgressReporter
) -> None:
    """Do everything in the locked run, and write into it how that ended."""
    if not run.started:
        run.write_recipe(recipe)
        run.write_info(first_info(data, recipe, setting))
    info = run.info
    info.state, info.error = "running", ""  # a run that failed is tried again
    info.seconds["load"] = round(setting.load_seconds, 3)
    run.write_info(info)
    with outcome_recorded(run, info):
        _fit_and_finish(run, data, recipe, setting, reporter, info)


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


def end(run: Run, reporter: ProgressReporter, *, report: bool) -> None:
    """Write the report, where one is wanted, and say that the run is done."""
    if report:
        from tinylens.reporting import write

        reporter.phase("writing the report")
        write.write(run)
    info = run.info
    info.state = "done"  # not before: a kill while reporting leaves a run that is continued
    run.write_info(info)
    run.remove_checkpoints()


def _fit_and_finish(
    run: Run,
    data: Splits,
    recipe: Recipe,
    setting: Setting,
    reporter: ProgressReporter,
    info: RunInfo,
) -> None:
    from tinylens.training import finalize
    from tinylens.training import trainer as compiling

    if setting.deterministic:
        make_deterministic(setting.backend)
    recipe = _balanced(run, data, recipe, setting, reporter, info)
    reporter.phase("building the network")
    distilled = None if setting.lesson is None else setting.lesson.probabilities
    start = _start(data, setting, reporter, info)
    trainer = compiling.build(data, recipe, setting.precision, distilled, start)
    if not setting.probe:
        _fit(run, trainer, recipe, setting, reporter, info)
    finalize.finish(run, data, trainer.network, recipe, info, reporter)


def _start(
    data: Splits, setting: Setting, reporter: ProgressReporter, info: RunInfo
) -> Start | None:
    """Return the body and the head to start with, if a body is named; the head is a probe's."""
    if setting.source is None:
        return None
    from tinylens.training import trainer as compiling
    from tinylens.training.transfer import fit

    reporter.phase("fitting a head on the source's embeddings")
    head = fit(data, setting.source.path, setting.source.sha256)
    info.seconds["probe"] = round(head.seconds, 3)
    info.source |= {"strength": head.strength, "log_loss": round(head.log_loss, 4)}
    reporter.say(
        f"linear probe in {head.seconds:.1f} s: C = {head.strength:g}, log loss {head.log_loss:.3f}"
    )
    return compiling.Start(setting.source.path, head)


def _fit(
    run: Run,
    trainer: Trainer,
    recipe: Recipe,
    setting: Setting,
    reporter: ProgressReporter,
    info: RunInfo,
) -> None:
    """Train, and write into `info` what it took; a wish to stop becomes a KeyboardInterrupt."""
    from tinylens.training import loop

    reporter.phase("training")
    with system.stop_signals() as requested:
        state = loop.fit(trainer, run, reporter, requested.is_set, setting.deadline)
    if requested.is_set() or not state.finished:  # also when Ctrl-C came at the last step of all
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
