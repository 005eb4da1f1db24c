"""`tinylens learning-curve`, and what `train --learning-curve` does after the training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.evaluate import print_advice
from tinylens.cli.frame import DataDirOption, JsonFlag

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits
    from tinylens.results import LearningCurve
    from tinylens.run import Run


def learning_curve(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: Annotated[
        str | None,
        typer.Option(help="Data set of the run, if its files have moved."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate the accuracy gain from doubling the training set, measured on val."""
    from tinylens.evaluation.diagnosis import diagnose
    from tinylens.run import Run

    run = Run(run_folder)
    curve = add_curve(run, data, backend, data_dir)
    if as_json:
        frame.print_json(
            {"run": str(run.path), "report": str(run.report), "learning_curve": curve.to_json()}
        )
        return
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print(tables.learning_curve(curve), "")
    console.print(curve.words, highlight=False, markup=False)
    print_advice(diagnose(run, run.evaluation))
    console.print(f"\nreport  {run.report}", highlight=False, markup=False, soft_wrap=True)


def check_curve(data: Splits) -> None:
    """Refuse data of which no learning curve can be made, before minutes of training."""
    from tinylens.training.learning_curve import check

    check(data)


def add_curve(
    run: Run, data: Splits | str | None, backend: str | None, data_dir: Path | None = None
) -> LearningCurve:
    """Measure a run's learning curve, and write its report anew."""
    from tinylens.progress import on_terminal
    from tinylens.training.learning_curve import learning_curve as measure

    try:
        with on_terminal() as reporter:
            return measure(run, data, backend=backend, data_dir=data_dir, reporter=reporter)
    except KeyboardInterrupt:
        typer.echo(f"stopped; tinylens learning-curve {run.path} goes on from there", err=True)
        raise typer.Exit(130) from None
