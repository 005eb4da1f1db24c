"""`tinylens robustness`."""

from __future__ import annotations

from typing import Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag, ModelArgument


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
    from tinylens.evaluation.robustness import robustness as measure
    from tinylens.reporting import write
    from tinylens.run import Run

    run = Run(model if model.is_dir() else model.parent)
    with frame.progress("changes judged") as progress:
        found = measure(
            model,
            dataset,
            images=images,
            seed=seed,
            data_dir=data_dir,
            progress=progress,
            command=frame.command_line(),
        )
    kept = dataset is None  # the report of a run is about its own images
    if kept:
        write.report(run)
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
