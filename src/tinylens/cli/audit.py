"""`tinylens audit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import (
    DataDirOption,
    ImageColumnOption,
    JsonFlag,
    LabelColumnOption,
    StrictOption,
)
from tinylens.errors import MissingExtra

if TYPE_CHECKING:
    from tinylens.auditing.audit import Embed
    from tinylens.data.dataset import Dataset, Splits
    from tinylens.data.encoded import Options
    from tinylens.metrics import Probabilities
    from tinylens.recipe import Recipe
    from tinylens.results import Audit
    from tinylens.run import Run

FoldsOption = Annotated[
    int, typer.Option(help="Train this many networks to find label errors, e.g. 5 (0 = none).")
]


def audit(
    target: Annotated[str, typer.Argument(help="A built-in data set, a path, or a run folder.")],
    folds: FoldsOption = 0,
    recipe: Annotated[str, typer.Option(help="Recipe for the networks of --folds.")] = "fast",
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder (default: the run folder, or runs/NAME-audit)."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Image height and width in pixels, for folders (default: chosen)."),
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find leaks, duplicates, label errors, outliers and broken files in a data set."""
    from tinylens import files
    from tinylens.auditing import audit as auditing
    from tinylens.auditing import label_errors
    from tinylens.recipe import Recipe
    from tinylens.run import Run
    from tinylens.training.train import RUNS

    if folds:
        label_errors.finder()  # if it is missing, that is better said before minutes of training
    run = Run(target)
    if run.started:
        parts, folder = _parts_of(run, data_dir), out or run.path
        answers, network = _own_answers(run, parts), run.keras_model
    else:
        options = frame.options(size, strict, data_dir, image_column, label_column)
        parts = _parts_at(target, options)
        answers, network = {}, None
        folder = out or RUNS / f"{files.slug(target)}-audit"
    if folds:
        runs = _train_folds(parts, Recipe.load(recipe), folds, folder / "folds", backend)
        answers = _answers_of_folds(parts, folder / "folds", runs)
        network = runs[0].keras_model
    embed = None if network is None else _embedding(network, backend)
    with frame.progress("images compared") as progress:
        found = auditing.audit(parts, answers, embed, progress)
    _write(folder, found, parts, run if run.started and folder == run.path else None)
    if as_json:
        frame.print_json({"folder": str(folder), "audit": found.to_json()})
        return
    from rich.console import Console

    from tinylens.reporting import tables

    Console().print(tables.audit(found))
    for name in ("audit.html", "audit.json"):
        typer.echo(f"{name:10}  {folder / name}")


def _parts_of(run: Run, data_dir: Path | None) -> dict[str, Dataset]:
    """Return the parts of a run's data set; that test is looked at goes on record."""
    from tinylens.data.load import reopen
    from tinylens.evaluation.evaluate import record_look

    parts = dict(reopen(run, data_dir=data_dir).items())
    record_look(run, frame.command_line())
    return parts


def _parts_at(source: str, options: Options) -> dict[str, Dataset]:
    """Return the parts that a data set has, none carved out: rows stay where they are."""
    from tinylens.data.load import load_parts

    with frame.progress("decoding") as progress:
        return dict(load_parts(source, replace(options, progress=progress)).items())


def _own_answers(run: Run, parts: dict[str, Dataset]) -> dict[str, Probabilities]:
    """Return what a run's network answered on the parts that it was not trained on."""
    from tinylens.auditing import label_errors

    try:
        label_errors.finder()
    except MissingExtra as error:
        typer.echo(f"labels are not looked at: {error}", err=True)
        return {}
    arrays = run.predictions
    return {
        name: arrays[f"{name}_probabilities"]
        for name in ("val", "test")
        if name in parts and len(arrays.get(f"{name}_labels", ())) == len(parts[name])
    }


def _train_folds(
    parts: dict[str, Dataset], recipe: Recipe, count: int, folder: Path, backend: str | None
) -> list[Run]:
    """Train a network a fold on train and val together; return the runs."""
    from tinylens.progress import on_terminal
    from tinylens.run import Run
    from tinylens.training import series as repeats
    from tinylens.training.train import train

    with on_terminal() as reporter:

        def train_into(data: Splits, recipe: Recipe, folder: Path) -> Run:
            return train(
                data,
                recipe,
                out=folder,
                backend=backend,
                command=frame.command_line(),
                reporter=reporter,
            )

        pool = repeats.pool_of(parts["train"], parts.get("val"))
        series = repeats.train_folds(pool, recipe, count, folder, train_into)
    return [Run(folder / name) for name in series.runs]


def _answers_of_folds(
    parts: dict[str, Dataset], folder: Path, runs: list[Run]
) -> dict[str, Probabilities]:
    """Return each image's probabilities by networks that were not trained on it."""
    from tinylens.training import series as repeats

    pooled, start = repeats.out_of_fold(folder)["probabilities"], 0
    answers: dict[str, Probabilities] = {}
    for name in ("train", "val"):
        if name in parts:
            answers[name] = pooled[start : start + len(parts[name])]
            start += len(parts[name])
    if "test" in parts:
        answers["test"] = repeats.mean_answers(runs, parts["test"].images)
    return answers


def _embedding(network: Path, backend: str | None) -> Embed:
    from tinylens.backend import activate

    activate(backend)
    from tinylens.models.embedding import Embedding

    return Embedding(network)


def _write(folder: Path, found: Audit, parts: dict[str, Dataset], run: Run | None) -> None:
    """Write audit.json and the page; the report of a run tells of them too."""
    from tinylens.reporting import write
    from tinylens.run import Run

    Run(folder).write_audit(found)
    write.write_audit(folder / "audit.html", found, parts)
    if run is not None:
        write.write(run)
