"""`tinylens robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag, ModelArgument
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.data.dataset import Dataset
    from tinylens.inference.classifier import Classifier
    from tinylens.run import Run


def robustness(
    model: ModelArgument,
    dataset: Annotated[
        str | None, typer.Argument(help="A built-in data set or a path (default: the run's own).")
    ] = None,
    images: Annotated[int, typer.Option(help="Number of test images to corrupt.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Random seed for sampling and corruptions.")] = 0,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure accuracy under noise, blur, shifts, rotation and JPEG compression."""
    from tinylens.evaluation.evaluate import in_order_of, record_look
    from tinylens.evaluation.robustness import measure
    from tinylens.inference.classifier import Classifier
    from tinylens.reporting import write
    from tinylens.run import Run

    run = Run(model if model.is_dir() else model.parent)
    classifier = Classifier.open(model)
    part = _test_part(run, dataset, classifier, data_dir)
    data = in_order_of(classifier.class_names, part)
    if run.started:
        record_look(run, frame.command_line())
    with frame.progress("changes judged") as progress:
        found = measure(classifier.probabilities, data, images=images, seed=seed, progress=progress)
    kept = dataset is None  # the report of a run is about its own images
    if kept:
        run.write_robustness(found)
        write.write(run)
    if as_json:
        report = str(run.report) if kept else None
        frame.print_json({"model": str(model), "report": report, "robustness": found.to_json()})
        return
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print(tables.corruptions(found), "", tables.small_changes(found))
    if kept:
        typer.echo(f"\nreport  {run.report}")


def _test_part(
    run: Run, dataset: str | None, classifier: Classifier, data_dir: Path | None
) -> Dataset:
    """Return the test split of a data set, or of the run's own."""
    if dataset is not None:
        from tinylens.evaluation.evaluate import load_part

        return load_part(dataset, "test", run, classifier.rule, data_dir)
    if not run.started:
        raise RecipeError(
            f"{run.path} is no run, so its test images are not known; name a data set: "
            "tinylens robustness MODEL DATASET"
        )
    from tinylens.data.load import reopen

    return reopen(run, data_dir=data_dir).test
