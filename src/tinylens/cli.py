"""The command line: one small function a verb that parses, calls and prints.

The only module that prints or exits. Everything that a verb does is imported inside its function, so
`tinylens --help` loads neither Keras nor onnxruntime.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

import tinylens
from tinylens.errors import TinylensError

app = typer.Typer(
    name="tinylens",
    help="Train, check, explain and ship classifiers for small images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")
]


def main() -> None:
    """Run the command line; a mistake of the user's ends in one sentence and an exit code."""
    try:
        app()
    except TinylensError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _print_error(error: TinylensError) -> None:
    if "--json" in sys.argv:
        _print_json({"error": {"type": type(error).__name__, "message": str(error)}})
    typer.echo(f"error: {error}", err=True)


def _print_json(tree: Any) -> None:
    typer.echo(json.dumps(tree, ensure_ascii=False, indent=1))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinylens {tinylens.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, check, explain and ship classifiers for small images."""
