"""`tinylens explain`."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag, ModelArgument


class Method(enum.StrEnum):
    """How to find out where a network looks."""

    GRAD_CAM = "grad-cam"
    OCCLUSION = "occlusion"


def explain(
    model: ModelArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders or glob patterns (default: the worst mistakes of the run)."
        ),
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Explain this class instead of the predicted one.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="Grad-CAM needs a run; occlusion works with any model.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of confused class pairs to show (default: 6).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the run, if its files have moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output folder for the page (default: the run folder, or one next to it)."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Keras backend: tensorflow, jax or torch.")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show where a network looks, in the worst mistakes of a run or in your own images."""
    from tinylens.explaining.explain import explain as explain_model
    from tinylens.reporting import write
    from tinylens.run import Run

    found = explain_model(
        model,
        images,
        class_name=class_name,
        method=method,
        top=top,
        data=data,
        backend=backend,
        data_dir=data_dir,
        progress=frame.progress,
        describe=lambda words: typer.echo(words, err=True),
        command=frame.command_line(),
        standard_input=sys.stdin.buffer,
    )
    folder = Run(out or (_beside(model) if images else model))
    folder.write_explanations(found)
    write.write_explanations(folder, found)
    if as_json:
        frame.print_json({"folder": str(folder.path), "explanations": found.to_json()})
        return
    from rich.console import Console

    from tinylens.reporting import tables

    Console().print(tables.explanations(found))
    typer.echo(f"\npage  {folder.explanations}")


def _beside(model: Path) -> Path:
    """Return a folder beside a run or a model file."""
    path = model.resolve()
    name = path.name if model.is_dir() else path.stem
    return model.parent / f"{name}-explained"
