"""`tinylens predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tinylens.cli import frame
from tinylens.cli.frame import JsonFlag, MaxErrorOption, ModelArgument, RefuseOption
from tinylens.errors import DataError

MANY = 500  # images, which take long enough to want to see how far it is

_NO_INPUT_CHECKS = (
    "--fix: the model does not know what its training images were like, so nothing is judged or "
    "fixed; train again to have that in the file"
)


def predict(
    model: ModelArgument,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders or glob patterns; - reads one path per line from stdin."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of most likely classes to return.")] = 5,
    max_error: MaxErrorOption = None,
    refused: RefuseOption = None,
    coverage: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Return a set of classes that contains the right one this often, e.g. 95%.",
        ),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            metavar="all|KIND,…",
            help="Correct before predicting: rotation, colour, inverted, background, margins, "
            "upscaled.",
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a CSV file instead of printing to stdout.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write a Parquet file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Classify images. Unreadable files are reported, not fatal."""
    # NumPy does no linear algebra here, and starting the threads for it costs up to 0.1 s
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tinylens.inference import batch_predict
    from tinylens.inference.classifier import Classifier
    from tinylens.inference.input_checks.fixes import allowed_kinds

    allowed_kinds(fix or "")  # a wrong kind is told before anything is written
    classifier = Classifier.open(model)
    found = batch_predict.expand(paths, sys.stdin.buffer)
    to_files = bool(csv or parquet)
    columns = {"sets": coverage is not None, "findings": fix is not None}
    writers = [batch_predict.csv_file(csv, top, **columns)] if csv else []
    writers += [batch_predict.parquet_file(parquet, **columns)] if parquet else []
    if as_json:
        writers.append(batch_predict.json_list(sys.stdout.buffer))
    elif not to_files:
        writers.append(batch_predict.lines_for_people(sys.stdout.buffer, classifier.class_names))
    predictions = batch_predict.predict_paths(
        classifier,
        found,
        top=top,
        coverage=frame.share("--coverage", coverage),
        fix=fix or "",
        **frame.when_to_answer(max_error, refused),
    )
    if fix and classifier.card.input_checks is None:
        typer.echo(_NO_INPUT_CHECKS, err=True)
    with frame.reader_may_leave():
        shown = _with_progress(predictions, len(found), rows_shown=not to_files)
        answered = batch_predict.write(shown, writers)
    if to_files and not as_json:
        kept = " and ".join(batch_predict.printable(str(path)) for path in (csv, parquet) if path)
        typer.echo(f"{answered} of {len(found)} images answered, all rows in {kept}")
    if not answered:
        raise typer.Exit(DataError.exit_code)


def _with_progress(rows: Iterator[Any], total: int, *, rows_shown: bool) -> Iterable[Any]:
    same_terminal = rows_shown and sys.stdout.isatty()
    if total < MANY or not sys.stderr.isatty() or same_terminal:
        return rows
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, "predicting", total=total, console=console, transient=True)
