"""Run folder → plots/*.png and one self-contained report.html. Reads only the run."""

from __future__ import annotations

from tinylens import files
from tinylens.errors import MissingExtra
from tinylens.reporting.contents import Contents
from tinylens.run import Run


def write(run: Run) -> None:
    """Write the plots and the report of a finished run.

    The plots are curves, confusion_matrix, per_class, reliability and worst_mistakes, each a PNG; a
    run without a history has no curves, and one without a mistake on test no worst mistakes. A plot
    of an earlier report that has no successor is removed.

    Raises:
        RunError: the run has no evaluation of its test part yet, or its files do not fit together.
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    try:
        from tinylens.reporting.page import render
        from tinylens.reporting.plots import NAMES, draw
    except ImportError as error:
        raise MissingExtra(
            f"the report needs {error.name}, which is not installed; "
            "type: pip install 'tinylens[train]'"
        ) from None
    contents = Contents.read(run)
    drawn = draw(contents)
    for name, png in drawn.items():
        files.write_bytes(run.plots / f"{name}.png", png)
    for name in NAMES - drawn.keys():
        (run.plots / f"{name}.png").unlink(missing_ok=True)
    files.write_text(run.report, render(contents))
