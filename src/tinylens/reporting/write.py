"""Run folder → plots/*.png, one self-contained report.html, README.md. Reads only the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tinylens import files
from tinylens.data.dataset import Dataset
from tinylens.errors import MissingExtra
from tinylens.reporting.contents import Contents
from tinylens.results import Audit, Explanations, Scorecard
from tinylens.run import Run


def report(run: Run | str | Path) -> Path:
    """Write the plots, the report and the model card of a finished run; return the report's path.

    Args:
        run: a `Run` or the path of its folder.

    Raises:
        RunError: the run has no evaluation of its test split yet, or its files do not fit together.
        ModelError: its model.onnx was damaged or changed.
        MissingExtra: matplotlib or jinja2 is not installed.

    >>> report("runs/fast-1")  # doctest: +SKIP
    PosixPath('runs/fast-1/report.html')
    """
    opened = run if isinstance(run, Run) else Run(run)
    write(opened)
    return opened.report


def write(run: Run) -> None:
    """Write the plots, the report and the model card of a finished run.

    The plots are curves, confusion_matrix, per_class, reliability and worst_mistakes, each a PNG; a
    run without a history has no curves, and one without a mistake on test no worst mistakes; one
    whose learning curve was measured has a learning_curve. A plot of an earlier report that has no
    successor is removed.

    Raises:
        RunError: the run has no evaluation of its test split yet, or its files do not fit together.
        ModelError: its model.onnx was damaged or changed.
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    with _installed():
        from tinylens.reporting import charts, model_card
        from tinylens.reporting.report import render
    contents = Contents.read(run)
    drawn = charts.of_run(contents)
    for name, figure in drawn.items():
        files.write_bytes(run.plots / f"{name}.png", charts.as_png(figure))
    for name in charts.NAMES - drawn.keys():
        (run.plots / f"{name}.png").unlink(missing_ok=True)
    files.write_text(run.report, render(contents))
    files.write_text(run.model_card, model_card.render(contents))


def write_audit(path: Path, audit: Audit, parts: Mapping[str, Dataset]) -> None:
    """Write audit.html, a page to go through what was found.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    with _installed():
        from tinylens.reporting.audit_page import render
    files.write_text(path, render(audit, parts))


def write_explanations(run: Run, explanations: Explanations) -> None:
    """Write explanations.html and a plot a sheet into a folder, a run's or another one.

    Plots of earlier explanations are removed.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    with _installed():
        from tinylens.reporting.explain_page import write as write_page
    write_page(run.explanations, run.plots, explanations)


def write_scorecard(run: Run, scorecard: Scorecard) -> Path:
    """Write scorecard.json and plots/formats.png of a run; return the plot's path.

    Raises:
        MissingExtra: matplotlib is not installed; scorecard.json is written all the same.
    """
    run.write_scorecard(scorecard.to_json())
    path = run.plots / "formats.png"
    with _installed():
        from tinylens.reporting import charts
    files.write_bytes(path, charts.as_png(charts.formats(scorecard)))
    return path


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    """Turn a missing library into a sentence."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"the report needs {error.name}, which is not installed; "
            "type: pip install 'tinylens[train]'"
        ) from None
