"""The command line: one small function a verb that parses, calls and prints.

The only module that prints or exits. Everything that a verb does is imported inside its function,
so `tinylens --help` loads neither Keras nor onnxruntime.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import tinylens
from tinylens.errors import DataError, RecipeError, TinylensError

if TYPE_CHECKING:
    from tinylens.data.summary import Summary
    from tinylens.run import Run
    from tinylens.scores import Evaluation

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

SPLIT_NAMES = ("train", "val", "test")
MANY = 500  # pictures, which take long enough to want to see how far it is


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


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="A known set (fashion-mnist, …) or a path.")],
    recipe: Annotated[str, typer.Option(help="A built-in recipe or a .toml file.")] = "classic",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: train.epochs=5."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Short for --set train.epochs=N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set train.seed=N.")] = None,
    val: Annotated[float | None, typer.Option(help="Share of train to choose on; 0: none.")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width, for folders.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder, else runs/NAME-N.")] = None,
    backend: Annotated[str | None, typer.Option(help="tensorflow, jax or torch.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or auto.")] = None,
    deterministic: Annotated[
        bool, typer.Option(help="The same weights from the same command, bit for bit.")
    ] = True,
    fresh: Annotated[bool, typer.Option(help="Start anew, never continue a run.")] = False,
    strict: Annotated[bool, typer.Option(help="A broken picture is an error.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data set's files are.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a network; leaves a run folder with model.onnx, its figures and a report."""
    from tinylens import backend as backends
    from tinylens import watching
    from tinylens.data.sources import load
    from tinylens.recipe import Recipe
    from tinylens.training import train as train_network

    short = {
        "train.epochs": epochs,
        "train.seed": seed,
        "train.precision": precision,
        "data.val": val,
        "data.size": size,
    }
    overrides = _parse_changes(changes or []) | {k: v for k, v in short.items() if v is not None}
    resolved = Recipe.load(recipe).override(overrides)
    choice = backends.choose(backend)
    started = time.monotonic()
    with _continuable(), watching.on_terminal() as watcher:
        watcher.phase(f"loading {dataset}")
        splits = load(
            dataset,
            val=resolved.data.val,
            test=resolved.data.test,
            split_seed=resolved.data.split_seed,
            size=resolved.data.size,
            strict=strict,
            data_dir=data_dir,
        )
        load_seconds = time.monotonic() - started
        arithmetic = backends.precision(resolved.train.precision, choice.name)
        watcher.say(
            f"{choice.name} ({choice.reason}) · {arithmetic} · "
            f"{backends.processor_count()} cores · recipe {resolved.name}"
        )
        run = train_network(
            splits,
            resolved,
            out=out,
            backend=backend,
            deterministic=deterministic,
            fresh=fresh,
            command=shlex.join(["tinylens", *sys.argv[1:]]),
            load_seconds=load_seconds,
            watcher=watcher,
        )
    _show_run(run, as_json=as_json)


@contextlib.contextmanager
def _continuable() -> Generator[None]:
    """Say on Ctrl-C that nothing is lost; exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the saved state", err=True)
        raise typer.Exit(130) from None


def _parse_changes(changes: list[str]) -> dict[str, str]:
    pairs = [change.partition("=") for change in changes]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise RecipeError(f"--set {wrong[0]}: expected KEY=VALUE, for example train.epochs=5")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _show_run(run: Run, *, as_json: bool) -> None:
    if as_json:
        paths = {"run": run.path, "model": run.model, "report": run.report}
        figures = run.evaluation.to_json()
        _print_json({name: str(path) for name, path in paths.items()} | {"evaluation": figures})
        return
    from rich.console import Console

    console, info = Console(), run.info
    _print_figures(run.evaluation)
    seconds = " · ".join(f"{name} {value:.0f} s" for name, value in info.seconds.items())
    console.print(f"\nseconds  {seconds}", highlight=False)
    for name, path in (("report", run.report), ("model", run.model), ("run", run.path)):
        console.print(f"{name:8} {path}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.onnx, or the folder of a run.")],
    paths: Annotated[
        list[str], typer.Argument(help="Pictures, folders, patterns; - reads paths, one a line.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many of the likeliest classes.")] = 5,
    csv: Annotated[Path | None, typer.Option(help="Write the rows here, not on stdout.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same, as Parquet.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is in pictures; a broken one is a row with its error."""
    # NumPy does no linear algebra here, and starting the threads for it costs up to 0.1 s
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from tinylens import predicting
    from tinylens.classifier import Classifier

    classifier = Classifier.open(model)
    found = predicting.expand(paths, sys.stdin.buffer)
    to_files = bool(csv or parquet)
    writers = [predicting.csv_file(csv, top)] if csv else []
    writers += [predicting.parquet_file(parquet)] if parquet else []
    if as_json:
        writers.append(predicting.json_list(sys.stdout.buffer))
    elif not to_files:
        writers.append(predicting.lines_for_people(sys.stdout.buffer, classifier.class_names))
    predictions = predicting.predict_paths(classifier, found, top=top)
    with _reader_may_leave():
        shown = _with_progress(predictions, len(found), rows_shown=not to_files)
        answered = predicting.write(shown, writers)
    if to_files and not as_json:
        kept = " and ".join(predicting.printable(str(path)) for path in (csv, parquet) if path)
        typer.echo(f"{answered} of {len(found)} pictures answered, all rows in {kept}")
    if not answered:
        raise typer.Exit(DataError.exit_code)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End well when the reader of our output, such as head, has left; typer would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


def _with_progress(rows: Iterator[Any], total: int, *, rows_shown: bool) -> Iterable[Any]:
    same_terminal = rows_shown and sys.stdout.isatty()
    if total < MANY or not sys.stderr.isatty() or same_terminal:
        return rows
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, "predicting", total=total, console=console, transient=True)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model.onnx, or the folder of a run.")],
    dataset: Annotated[
        str | None, typer.Argument(help="A known set or a path; without it, a run's own figures.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data set's files are.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a model on a data set, every figure with its 95 % interval."""
    from tinylens import evaluation
    from tinylens.run import Run

    if split not in SPLIT_NAMES:
        raise RecipeError(f"--split {split}: expected {', '.join(SPLIT_NAMES)}")
    run = Run(model if model.is_dir() else model.parent)
    if dataset is None:
        _show_evaluation(run.evaluation, split, {"model": str(model)}, as_json=as_json)
        return
    from tinylens.classifier import Classifier
    from tinylens.scores import Calibration, Evaluation

    classifier = Classifier.open(model)
    part = evaluation.load_part(dataset, split, run, classifier.rule, data_dir)
    data = evaluation.in_order_of(classifier.class_names, part)
    if split == "test" and run.started:
        evaluation.record_look(run, shlex.join(["tinylens", *sys.argv[1:]]))
    scores = evaluation.evaluate(classifier.probabilities, data)
    card = classifier.card
    calibration = Calibration(card.temperature, card.chosen_on or "none")
    what = {"model": str(model), "dataset": dataset, "fingerprint": part.fingerprint}
    figures = Evaluation({split: scores}, gap=None, calibration=calibration)
    _show_evaluation(figures, split, what, as_json=as_json)


def _show_evaluation(
    evaluation: Evaluation, split: str, what: dict[str, str], *, as_json: bool
) -> None:
    if as_json:
        _print_json(what | {"evaluation": evaluation.to_json()})
    else:
        _print_figures(evaluation, split)


def _print_figures(evaluation: Evaluation, split: str = "test") -> None:
    from rich.console import Console

    from tinylens.reporting import tables

    console = Console()
    console.print(tables.overview(evaluation), "", tables.per_class(evaluation, split), "")
    if evaluation.gap:
        console.print(evaluation.gap.words, highlight=False, markup=False)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    as_json: JsonFlag = False,
) -> None:
    """Draw a run's plots and write its report anew."""
    from tinylens import reporting
    from tinylens.run import Run

    run = Run(run_folder)
    reporting.write(run)
    if as_json:
        _print_json({"report": str(run.report), "plots": sorted(map(str, run.plots.glob("*.png")))})
    else:
        typer.echo(run.report)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole, as TOML.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the built-in recipes, or show one."""
    from tinylens.recipe import Recipe, builtin_recipes

    chosen = builtin_recipes() if name is None else {name: Recipe.load(name)}
    if as_json:
        _print_json({key: recipe.model_dump() for key, recipe in chosen.items()})
    elif name is not None:
        typer.echo(chosen[name].to_toml(), nl=False)
    else:
        for key, recipe in chosen.items():
            typer.echo(f"{key:20} {recipe.summary}")


data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("info")
def data_info(
    dataset: Annotated[str, typer.Argument(help="A known set (fashion-mnist, …) or a path.")],
    val: Annotated[float, typer.Option(help="Share of train carved out for val; 0: none.")] = 0.1,
    test: Annotated[float, typer.Option(help="The same for test, where none is given.")] = 0.15,
    size: Annotated[int | None, typer.Option(help="Side in pixels to stretch to.")] = None,
    strict: Annotated[bool, typer.Option(help="A broken picture is an error.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where files are looked for, kept.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet, a PNG.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is in a data set: pictures by class and part, sizes, colours, what is broken."""
    from tinylens.data.sources import load
    from tinylens.data.summary import summarize, write_contact_sheet

    with _decoding_progress() as progress:
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
    if sheet is not None:
        write_contact_sheet(splits.train, sheet)
    if as_json:
        _print_json(summary.to_json() | {"sheet": None if sheet is None else str(sheet)})
        return
    _show_summary(summary)
    if sheet is not None:
        typer.echo(f"contact sheet  {sheet}")


@contextlib.contextmanager
def _decoding_progress() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what shows progress on the terminal, or None where there is none to show it on."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("decoding", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_summary(summary: Summary) -> None:
    from rich.console import Console

    console = Console()
    console.print(summary.table())
    for line in summary.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
