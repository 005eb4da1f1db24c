"""`tinylens data`: look at data sets, correct them, and write them in another form."""

from __future__ import annotations

from dataclasses import replace
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
from tinylens.errors import RecipeError

if TYPE_CHECKING:
    from tinylens.data.summary import Summary

SHOWN = 20  # images that were left out


def info(
    dataset: DatasetArgument,
    val: Annotated[float, typer.Option(help="Share of train carved out for val; 0: none.")] = 0.1,
    test: Annotated[float, typer.Option(help="The same for test, where none is given.")] = 0.15,
    size: Annotated[int | None, typer.Option(help="Side in pixels; else chosen.")] = None,
    aspect: Annotated[str, typer.Option(help="stretch, pad or crop to it, or auto.")] = "auto",
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="The contact sheet, a PNG; else DATASET-sheet.png here.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is in a data set: images by class and part, sizes, colours, what is broken."""
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
    fixes: Annotated[Path, typer.Argument(help="The fixes.csv that the page of an audit saved.")],
    out: Annotated[
        Path | None, typer.Option(help="The corrected set, an .npz; else DATASET-corrected.npz.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="As it was audited.")] = None,
    aspect: Annotated[str, typer.Option(help="As it was trained on.")] = "auto",
    groups: Annotated[
        str | None, typer.Option(help="What tells groups, to be kept as the array “groups”.")
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Change labels and drop images as fixes.csv says; writes a new set, changes no file."""
    from tinylens.data import corrections
    from tinylens.data.groups import with_groups
    from tinylens.data.load import aspect_of, load_parts
    from tinylens.data.readers import arrays
    from tinylens.files import slug

    out = out or Path(f"{slug(dataset)}-corrected.npz")
    if out.suffix != ".npz":
        raise RecipeError(f"--out {out}: expected a file .npz, such as {out.with_suffix('.npz')}")
    decided = corrections.read(fixes)
    with frame.progress("decoding") as progress:
        options = frame.options(size, False, data_dir, image_column, label_column)
        options = replace(options, aspect=aspect_of(aspect), progress=progress)
        given = load_parts(dataset, options)
    if groups:
        given = with_groups(given, dataset, groups, options)
    corrected = corrections.apply(given, decided)
    arrays.write_parts(out, corrected)
    before, after = (
        {name: len(part) for name, part in each.items()} for each in (given, corrected)
    )
    if as_json:
        frame.print_json({"out": str(out), "fixes": len(decided), "before": before, "after": after})
        return
    typer.echo(corrected.notes[-1])
    sizes = ", ".join(f"{name} {before[name]:,} → {count:,}" for name, count in after.items())
    typer.echo(f"images  {sizes}\nset       {out}")


def convert(
    source: DatasetArgument,
    destination: Annotated[Path, typer.Argument(help="The new folder; must not be there yet.")],
    form: Annotated[
        str, typer.Option("--format", help="folder, of classes; parquet, as on Hugging Face.")
    ] = "folder",
    groups: Annotated[
        str | None, typer.Option(help="What tells groups, to be kept as the column “group”.")
    ] = None,
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    strict: StrictOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a data set as a folder or Parquet: same bytes in every image, classes and parts."""
    from tinylens.data.convert import convert as convert_data

    with frame.progress("converting") as progress:
        given = frame.options(None, strict, data_dir, image_column, label_column)
        options = replace(given, progress=progress)
        done = convert_data(source, destination, form=form, groups=groups or "", options=options)
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
