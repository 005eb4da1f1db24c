"""`tinylens compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag
from tinylens.errors import DataError

if TYPE_CHECKING:
    from tinylens.data.dataset import Dataset
    from tinylens.evaluation.compare import Comparison
    from tinylens.run import Run

LONGEST_NAME = 100  # of a folder; systems allow 255


def compare(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN…", help="Two or more run folders.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Data set with the images (default: the one of the first run)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder for the page (default: next to the first run)."),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Test which run is better on the test images, by how much, and if it may be chance."""
    from tinylens.evaluation import compare as comparison
    from tinylens.evaluation.evaluate import record_look
    from tinylens.reporting import compare_page
    from tinylens.run import Run

    runs = [Run(folder) for folder in run_folders]
    found = comparison.compare(runs)
    for run in runs:  # whoever picks the better one has chosen by test
        record_look(run, frame.command_line())
    test, note = _images(runs[0], data, data_dir)
    beside = "-vs-".join(run.path.resolve().name for run in runs)[:LONGEST_NAME]
    folder = out or runs[0].path.parent / f"compare-{beside}"
    evaluated = compare_page.evaluated(runs, found)
    written = compare_page.write(folder, found, evaluated, test)
    if as_json:
        paths = {name: str(path) for name, path in written.items()}
        frame.print_json({**found.to_json(), "files": paths, "notes": [note] if note else []})
        return
    _show(found)
    if note:
        typer.echo(note, err=True)
    typer.echo(f"\npage  {written['report']}")


def _images(run: Run, data: str | None, data_dir: Path | None) -> tuple[Dataset | None, str]:
    """Return the test split and "", or None and why its images cannot be shown."""
    from tinylens.data.load import reopen

    try:
        return reopen(run, data, data_dir).test, ""
    except DataError as error:
        if data is not None:
            raise
        return None, f"the page shows no images: {error}"


def _show(found: Comparison) -> None:
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    for pair in found.pairs:
        console.print(tables.differences(pair), "")
        console.print(pair.words, highlight=False, markup=False)
