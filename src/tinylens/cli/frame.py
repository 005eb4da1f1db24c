"""What all verbs share: JSON on stdout, errors, and readers that leave early."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinylens.errors import RecipeError, TinylensError

if TYPE_CHECKING:
    from tinylens.data.encoded import Options

STARTED = time.monotonic()  # as good as the start of the process: this is imported first

DatasetArgument = Annotated[
    str, typer.Argument(help="A built-in data set (fashion-mnist, …) or a path.")
]
ModelArgument = Annotated[Path, typer.Argument(help="A model.onnx or a run folder.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option(help="Folder for data set files: searched first, then used for downloads."),
]
ImageColumnOption = Annotated[
    str | None,
    typer.Option(help="Table column with the images or their paths (default: detected)."),
]
LabelColumnOption = Annotated[
    str | None, typer.Option(help="Table column with the class labels (default: detected).")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail on unreadable images instead of skipping them.")
]
MaxErrorOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE",
        help="Answer 'unknown' when unsure, so that at most this share of answers is "
        "wrong, e.g. 1%.",
    ),
]
RefuseOption = Annotated[
    str | None,
    typer.Option(
        "--reject-ood",
        metavar="SHARE",
        help="Answer 'unknown' if unlike the training set; costs this share of normal images, "
        "e.g. 1%.",
    ),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]


def options(
    size: int | None,
    strict: bool,
    data_dir: Path | None,
    image_column: str | None,
    label_column: str | None,
) -> Options:
    """Return how a data set is read, by the options that were typed."""
    from tinylens.data.encoded import Options
    from tinylens.data.splits import Columns

    columns = Columns(image_column or "", label_column or "")
    return Options(size=size, strict=strict, data_dir=data_dir, columns=columns)


def share(option: str, text: str | None) -> float | None:
    """Return "1%" as 0.01.

    Raises:
        RecipeError: it is no percentage between 0 and 100.
    """
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise RecipeError(f"{option} {text}: expected a share such as 1%")
    return value


def when_to_answer(max_error: str | None, refused: str | None) -> dict[str, float | None]:
    """Return the shares that were typed for --max-error and --reject-ood.

    Raises:
        RecipeError: one is no share.
    """
    return {
        "max_error": share("--max-error", max_error),
        "refused": share("--reject-ood", refused),
    }


def command_line() -> str:
    """Return what was typed, for the record."""
    return shlex.join(["tinylens", *sys.argv[1:]])


def print_json(tree: Any) -> None:
    """Print a tree of plain values as JSON."""
    typer.echo(json.dumps(tree, ensure_ascii=False, indent=1))


def print_error(error: TinylensError) -> None:
    """Print an error as a sentence on stderr, and as JSON where that was asked for."""
    if "--json" in sys.argv:
        print_json({"error": {"type": type(error).__name__, "message": str(error)}})
    typer.echo(f"error: {error}", err=True)


def leave_quietly() -> None:
    """Let nothing be written to a pipe whose reader, such as head, has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def reader_may_leave() -> Generator[None]:
    """End well when the reader of our output has left; typer would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        leave_quietly()
        raise typer.Exit from None


@contextlib.contextmanager
def progress(what: str) -> Generator[Callable[[int, int], None] | None]:
    """Yield what shows progress on the terminal, or None where there is none to show it on."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
