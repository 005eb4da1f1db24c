"""`tinylens data`: look at data sets, correct them, and write them in another form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import (
    DataDirOption,
    DatasetArgument,
    ImageColumnOption,
    JsonFlag,
    LabelColumnOption,
    StrictOption,
)

if TYPE_CHECKING:
    from tinylens.data.summary import Summary

SHOWN = 20  # images that were left out


def info(
    dataset: DatasetArgument,
    val: Annotated[
        float, typer.Option(help="Share of train held out for val if the set has none (0 = none).")
    ] = 0.1,
    test: Annotated[
        float, typer.Option(help="Share of train held out for test if the set has none (0 = none).")
    ] = 0.15,
    size: Annotated[
        int | None,
        typer.Option(help="Image height and width in pixels (default: chosen from the images)."),
    ] = None,
    aspect: Annotated[
        str,
        typer.Option(
            help="How images of another aspect ratio are fitted: stretch, pad, crop or auto."
        ),
    ] = "auto",
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write (default: DATASET-sheet.png).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show image counts by class and split, sizes, colours and unreadable files."""
    from tinylens.data.load import load
    from tinylens.data.summary import summarize, write_contact_sheet
    from tinylens.files import slug

    with frame.progress("decoding") as progress:
        splits = load(
            dataset,
            val=val,
            test=test,
            size=size,
            aspect=aspect,
            image_column=image_column or "",
            label_column=label_column or "",
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


def apply(
    dataset: DatasetArgument,
    fixes: Annotated[
        Path, typer.Argument(help="The fixes.csv that you saved from the audit page.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Corrected data set to write (default: DATASET-corrected.npz)."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Image size of the audit.")] = None,
    aspect: Annotated[
        str,
        typer.Option(help="Aspect option of the audit or training: stretch, pad, crop or auto."),
    ] = "auto",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups to keep, as array 'groups': a column, an array, or a path pattern."
        ),
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply fixes.csv: relabel and drop images. Writes a new set and leaves the old one alone."""
    from tinylens.data.corrections import apply_fixes
    from tinylens.files import slug

    out = out or Path(f"{slug(dataset)}-corrected.npz")
    with frame.progress("decoding") as progress:
        done = apply_fixes(
            dataset,
            fixes,
            out,
            size=size,
            aspect=aspect,
            groups=groups or "",
            image_column=image_column or "",
            label_column=label_column or "",
            data_dir=data_dir,
            progress=progress,
        )
    before, after = done.before, done.after
    if as_json:
        frame.print_json({"out": str(out), "fixes": done.fixes, "before": before, "after": after})
        return
    typer.echo(done.parts.notes[-1])
    sizes = ", ".join(f"{name} {before[name]:,} → {count:,}" for name, count in after.items())
    typer.echo(f"images  {sizes}\nset       {out}")


def convert(
    source: DatasetArgument,
    destination: Annotated[Path, typer.Argument(help="Output folder; must not exist yet.")],
    form: Annotated[
        str,
        typer.Option("--format", help="folder (one per class) or parquet (Hugging Face layout)."),
    ] = "folder",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups to keep, as column 'group': a column, an array, or a path pattern."
        ),
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Convert a data set to a folder or Parquet; image bytes, classes and splits stay the same."""
    from tinylens.data.convert import convert as convert_data

    with frame.progress("converting") as progress:
        done = convert_data(
            source,
            destination,
            form=form,
            groups=groups or "",
            image_column=image_column or "",
            label_column=label_column or "",
            strict=strict,
            data_dir=data_dir,
            progress=progress,
        )
    if as_json:
        frame.print_json(done.to_json())
        return
    counts = ", ".join(f"{name} {count:,}" for name, count in done.images.items())
    typer.echo(f"images  {counts}, {len(done.class_names):,} classes")
    if done.groups:
        typer.echo(f"groups    {done.groups:,}")
    for path, reason in done.skipped[:SHOWN]:
        typer.echo(f"left out  {path}: {reason}")
    if len(done.skipped) > SHOWN:
        typer.echo(f"left out  and {len(done.skipped) - SHOWN:,} more")
    typer.echo(f"set       {done.destination}")


def _show_summary(summary: Summary) -> None:
    from rich.console import Console

    console = Console()
    console.print(summary.table())
    for line in summary.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
