"""The command line: one small function a verb that parses, calls and prints.

The only place that prints or exits. Everything that a verb does is imported inside its function,
so `tinylens --help` loads neither Keras nor onnxruntime.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import tinylens
from tinylens.cli import data, frame
from tinylens.cli.audit import audit
from tinylens.cli.compare import compare
from tinylens.cli.evaluate import evaluate, report
from tinylens.cli.explain import explain
from tinylens.cli.export import export, verify
from tinylens.cli.learning_curve import learning_curve
from tinylens.cli.predict import predict
from tinylens.cli.robustness import robustness
from tinylens.cli.serve import serve
from tinylens.cli.train import recipes, train
from tinylens.cli.tune import tune
from tinylens.errors import TinylensError

app = typer.Typer(
    name="tinylens",
    help="Train, check, explain and ship classifiers for small images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
data_app = typer.Typer(help="Inspect, correct and convert data sets.", no_args_is_help=True)

for verb in (
    *(train, tune, predict, evaluate, compare, robustness, audit),
    *(explain, learning_curve, report, recipes, export, verify, serve),
):
    app.command()(verb)
data_app.command()(data.info)
data_app.command()(data.apply)
data_app.command()(data.convert)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; a mistake of the user's ends in one sentence and an exit code."""
    try:
        app()
    except TinylensError as error:
        frame.print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        frame.leave_quietly()
        sys.exit(0)
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(f"error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(1)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"tinylens {tinylens.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train, check, explain and ship classifiers for small images."""
