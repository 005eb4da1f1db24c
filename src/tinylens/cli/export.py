"""`tinylens export` and `tinylens verify`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinylens.cli import frame
from tinylens.cli.frame import DataDirOption, JsonFlag
from tinylens.errors import MissingExtra, ModelError, RecipeError

if TYPE_CHECKING:
    from tinylens.exporting.export import Exported
    from tinylens.exporting.webpage.page import Page
    from tinylens.results import Scorecard
    from tinylens.run import Run

DataOption = Annotated[
    str | None, typer.Option(help="Data set of the run, if its files have moved.")
]
SecondsOption = Annotated[float, typer.Option(min=0, help="Seconds of timing per file.")]
FormatOption = Annotated[
    list[str],
    typer.Option(
        "--format",
        help="onnx, onnx-int8, litert, litert-int8, saved-model, openvino, keras, all, web "
        "(repeatable).",
    ),
]


def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    formats: FormatOption = ["all"],  # noqa: B006 - typer wants a list
    out: Annotated[
        Path | None, typer.Option(help="Output folder (default: exports/ in the run folder).")
    ] = None,
    seconds: SecondsOption = 1.0,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web",
            metavar="FOLDER",
            help="Unpacked onnxruntime-web package for --format web (default: fetched by npm).",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Export to other formats. Files that disagree with Keras are discarded."""
    from tinylens.backend import activate
    from tinylens.exporting.formats import WEB, check_installed, requested
    from tinylens.run import Run

    names = [name for name in formats if name != WEB]
    wanted = requested(names)
    check_installed(wanted, writing=True)
    if onnxruntime_web is not None and WEB not in formats:
        raise RecipeError(f"--onnxruntime-web is for --format {WEB}, which was not asked for")
    run = Run(run_folder)
    page = _export_page(run, out, onnxruntime_web) if WEB in formats else None
    if not names:
        _show_export(run, [], None, page, as_json=as_json)
        return
    # TensorFlow writes some formats whatever the run was trained on; else any backend will do
    needs_tensorflow = any("tensorflow" in each.writes_with for each in wanted)
    activate("tensorflow" if needs_tensorflow else None)
    from tinylens.data.load import reopen
    from tinylens.exporting import export as every

    splits = reopen(run, data, data_dir)
    with frame.progress("formats") as progress:
        found, scorecard = every.export(
            run, names, out=out, data=splits, seconds=seconds, progress=progress
        )
    _show_export(run, found, scorecard, page, as_json=as_json)


def _export_page(run: Run, out: Path | None, onnxruntime_web: Path | None) -> Page:
    from tinylens.exporting.formats import WEB
    from tinylens.exporting.webpage.page import write_page
    from tinylens.exporting.webpage.runtime import runtime_files

    runtime = runtime_files(onnxruntime_web, lambda words: typer.echo(words, err=True))
    with run.lock():
        return write_page(run.model, (out or run.exports) / WEB, runtime)


def _show_export(
    run: Run,
    found: list[Exported],
    scorecard: Scorecard | None,
    page: Page | None,
    *,
    as_json: bool,
) -> None:
    errors = [each.error for each in found if each.error]
    if as_json:
        formats = [{**asdict(each), "path": each.path and str(each.path)} for each in found]
        tree = {
            "run": str(run.path),
            "formats": formats,
            "scorecard": scorecard and scorecard.to_json(),
            "page": page and {**asdict(page), "path": str(page.path)},
        }
        frame.print_json({**tree, "passed": not errors})
    elif scorecard is not None and scorecard.rows:
        _print_table(scorecard)
        typer.echo("")
        for each in found:
            if each.path is not None:
                typer.echo(f"{each.format:12} {each.path}")
    if page is not None and not as_json:
        _show_page(page)
    _fail(errors)


def _show_page(page: Page) -> None:
    folder = shlex.quote(str(page.path.parent))
    typer.echo(f"{'web':12} {page.path}  {page.size / 1e6:.1f} MB")
    typer.echo(
        "Open it by a double click, or put the folder on any file host. To see it as from a host, "
        f"type\n  python3 -m http.server --bind 127.0.0.1 --directory {folder} 8000\n"
        "and open http://127.0.0.1:8000"
    )


def verify(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL…",
            help="Model files of any format, or a run folder for all of its files.",
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Run that the files were exported from (default: found by path)."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to compare on: train, val or test.")] = "test",
    images: Annotated[
        int | None, typer.Option(help="Maximum number of images, sampled evenly from the split.")
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            help="Minimum share of equal predictions, for all files (default: 0.9999, float files "
            "only)."
        ),
    ] = None,
    max_difference: Annotated[
        float, typer.Option(help="Maximum difference between probabilities, for float files.")
    ] = 1e-4,
    max_loss: Annotated[
        float, typer.Option(help="Maximum loss of accuracy for int8 files, as a fraction.")
    ] = 0.003,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of inference threads (default: one per core).")
    ] = None,
    seconds: SecondsOption = 2.0,
    data: DataOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare exported files with Keras: agreement, accuracy, size and speed."""
    from tinylens.data.load import reopen
    from tinylens.evaluation.evaluate import record_look
    from tinylens.exporting import verify as verification
    from tinylens.exporting.runtimes import open_model
    from tinylens.reporting import write
    from tinylens.system import core_count

    limits = verification.Limits(min_agreement, max_difference, max_loss)
    _check_limits(limits)
    run = _run_of(models, against)
    paths = _files_of(models)
    splits = reopen(run, data, data_dir)
    keras_answers = verification.reference(run, splits, split, labels=True, images=images)
    used = threads or core_count()
    opened = [open_model(path, used) for path in paths]
    if split == "test":  # whoever picks a format by its accuracy there has chosen by test
        record_look(run, frame.command_line())
    with frame.progress("files judged") as progress:
        found = verification.verify(
            opened, keras_answers, limits, threads=used, seconds=seconds, progress=progress
        )
    plot: Path | None = None
    try:
        plot = write.write_scorecard(run, found)
    except MissingExtra as error:  # whoever verifies where it is served has no need of plots
        typer.echo(f"no plot is drawn: {error}", err=True)
    _show_scorecard(run, found, plot, as_json=as_json)


def _check_limits(limits: Any) -> None:
    for option, value in (
        ("--min-agreement", limits.agreement),
        ("--max-difference", limits.difference),
        ("--max-loss", limits.accuracy_lost),
    ):
        if value is not None and not 0 <= value <= 1:
            raise RecipeError(f"{option} {value:g}: expected a share from 0 to 1")


def _run_of(models: list[Path], against: Path | None) -> Run:
    """Return the run that was named, or the one that all models lie in.

    Raises:
        RecipeError: none was, and they lie in no run or in several.
    """
    from tinylens.run import Run

    if against is not None:
        return Run(against)
    homes = {_home(path.resolve()) for path in models}
    if len(homes) != 1 or None in homes:
        raise RecipeError(
            f"{', '.join(map(str, models))}: not in the folder of one run, so what Keras answered "
            "is not known; say it with --against RUN"
        )
    return Run(next(iter(homes)) or Path())


def _home(path: Path) -> Path | None:
    from tinylens.run import Run

    return next((each for each in (path, *path.parents) if Run(each).started), None)


def _files_of(models: list[Path]) -> list[Path]:
    """Return the model files that are meant; a run means its own and all in its exports folder."""
    from tinylens.exporting.formats import FORMATS
    from tinylens.run import Run

    found: list[Path] = []
    for path in models:
        run = Run(path)
        if not run.started:
            found.append(path)
            continue
        exported = [run.exports / each.file for each in FORMATS.values()]
        found += [run.model, *(each for each in exported if each.exists())]
    return list(dict.fromkeys(found))


def _show_scorecard(run: Run, found: Scorecard, plot: Path | None, *, as_json: bool) -> None:
    failures = found.failures
    if as_json:
        tree = {"run": str(run.path), "scorecard": found.to_json(), "plot": plot and str(plot)}
        frame.print_json({**tree, "passed": not failures})
    else:
        _print_table(found)
        if plot is not None:
            typer.echo(f"\nplot  {plot}")
    _fail(failures)


def _print_table(scorecard: Scorecard) -> None:
    from rich.console import Console

    from tinylens.reporting import tables

    Console().print(tables.formats(scorecard))


def _fail(errors: list[str]) -> None:
    """End with the exit code of a bad model file, once all has been printed."""
    for error in errors:
        typer.echo(f"error: {error}", err=True)
    if errors:
        raise typer.Exit(ModelError.exit_code)
