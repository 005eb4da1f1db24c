"""`tinylens evaluate` and `tinylens report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag, ModelArgument
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.results import Diagnosis, Evaluation
    from tinylens.run import Run

SPLIT_NAMES = ("train", "val", "test")


def evaluate(
    model: ModelArgument,
    dataset: Annotated[
        str | None,
        typer.Argument(help="A built-in data set or a path (default: show the run's own metrics)."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to evaluate: train, val or test.")] = "test",
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute metrics of a model on a data set, each with a 95 % confidence interval."""
    from tinylens.evaluation.evaluate import evaluate_on
    from tinylens.run import Run

    if split not in SPLIT_NAMES:
        raise RecipeError(f"--split {split}: expected {', '.join(SPLIT_NAMES)}")
    what = {"model": str(model)}
    if dataset is None:
        _show_run(Run(model if model.is_dir() else model.parent), split, what, as_json=as_json)
        return
    figures, part = evaluate_on(
        model, dataset, split=split, data_dir=data_dir, command=frame.command_line()
    )
    what |= {"dataset": dataset, "fingerprint": part.fingerprint}
    _show_evaluation(figures, split, what, as_json=as_json)


def _show_run(run: Run, split: str, what: dict[str, str], *, as_json: bool) -> None:
    from tinylens.evaluation.diagnosis import diagnose

    evaluated = run.evaluation
    explained = diagnose(run, evaluated)
    if as_json:
        frame.print_json(what | {"evaluation": evaluated.to_json()} | explanation_json(explained))
    else:
        print_figures(evaluated, split)
        print_advice(explained)


def explanation_json(explained: Diagnosis | None) -> dict[str, Any]:
    """Return the gap in parts and the advice, ready for JSON."""
    return {"explained": None if explained is None else explained.to_json()}


def print_advice(explained: Diagnosis | None) -> None:
    """Print the gap in parts and what to do about it."""
    if explained is None:
        return
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print("", tables.gap_parts(explained.parts), "\nWhat to do, the most to win first:")
    for number, each in enumerate(explained.advice, start=1):
        console.print(f"{number}. {each.words}", highlight=False, markup=False)


def _show_evaluation(
    evaluation: Evaluation, split: str, what: dict[str, str], *, as_json: bool
) -> None:
    if as_json:
        frame.print_json(what | {"evaluation": evaluation.to_json()})
    else:
        print_figures(evaluation, split)


def print_figures(evaluation: Evaluation, split: str = "test") -> None:
    """Print the tables of an evaluation and the gap in words."""
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print(tables.overview(evaluation), "", tables.per_class(evaluation, split), "")
    if evaluation.gap:
        console.print(evaluation.gap.words, highlight=False, markup=False)


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Regenerate the plots, report and model card of a run."""
    from tinylens.reporting.write import report as write_report
    from tinylens.run import Run

    run = Run(run_folder)
    write_report(run)
    if as_json:
        plots = sorted(map(str, run.plots.glob("*.png")))
        written = {"report": str(run.report), "model_card": str(run.model_card)}
        frame.print_json(written | {"plots": plots})
    else:
        typer.echo(run.report)
