"""`tinylens data`: look at data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, DatasetArgument, JsonFlag, StrictOption

if TYPE_CHECKING:
    from tinylens.data.summary import Summary


def info(
    dataset: DatasetArgument,
    val: Annotated[float, typer.Option(help="Share of train carved out for val; 0: none.")] = 0.1,
    test: Annotated[float, typer.Option(help="The same for test, where none is given.")] = 0.15,
    size: Annotated[int | None, typer.Option(help="Side in pixels to stretch to.")] = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="The contact sheet, a PNG; else DATASET-sheet.png here.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is in a data set: pictures by class and part, sizes, colours, what is broken."""
    from tinylens.data.sources import load
    from tinylens.data.summary import summarize, write_contact_sheet
    from tinylens.files import slug

    with frame.progress("decoding") as progress:
        splits = load(
            dataset,
            val=val,
            test=test,
            size=size,
            strict=strict,
            data_dir=data_dir,
            progress=progress,
        )
    summary = summarize(splits)
    sheet = sheet or Path(f"{slug(splits.source)}-sheet.png")
    write_contact_sheet(splits.train, sheet)
    if as_json:
        frame.print_json(summary.to_json() | {"sheet": str(sheet)})
        return
    _show_summary(summary)
    typer.echo(f"contact sheet  {sheet}")


def _show_summary(summary: Summary) -> None:
    from rich.console import Console

    console = Console()
    console.print(summary.table())
    for line in summary.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
