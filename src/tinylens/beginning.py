"""How a run begins: in a folder of its own, or as the continuation of one of the same settings."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinylens import distilling, environment, events, files, transferring
from tinylens.data.dataset import Splits
from tinylens.data.images import rule_of
from tinylens.distilling import Lesson
from tinylens.environment import now
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.run import Run
from tinylens.run_info import RunInfo
from tinylens.transferring import Source

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
            "no val part: nothing was chosen, so neither early stopping, best weights nor "
            "calibration was used"
        )
    if setting.lesson is not None:
        notes += distilling.notes(setting.lesson.teacher, data)
    if setting.source is not None:
        notes += transferring.notes(setting.source, data, probe=setting.probe)
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
        image=rule_of(data.train).to_json(),
        notes=notes,
        plan=dict(setting.plan),
        teacher={} if setting.lesson is None else setting.lesson.teacher.to_json(),
        source=_source_record(setting),
        started=now(),
        versions=environment.versions(),
        hardware=environment.hardware(),
    )
