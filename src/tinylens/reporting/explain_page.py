"""explanations.html and its plots: where a network looked, and what it has seen that is alike."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.reporting import charts
from tinylens.reporting.document import document
from tinylens.reporting.wording import METHODS
from tinylens.results import Explanations

PREFIX = "explained-"  # of the plots


def write(page: Path, plots: Path, explanations: Explanations) -> None:
    """Write the page, and a plot a sheet into the folder `plots`.

    Plots of earlier explanations are removed.
    """
    drawn = {
        f"{PREFIX}{number:02}-{_in_a_name(sheet.title)}.png": charts.as_png(
            charts.explained(sheet, explanations.method)
        )
        for number, sheet in enumerate(explanations.sheets, start=1)
    }
    for name, png in drawn.items():
        files.write_bytes(plots / name, png)
    for old in plots.glob(f"{PREFIX}*.png"):
        if old.name not in drawn:
            old.unlink()
    files.write_text(page, render(explanations))


def render(explanations: Explanations) -> str:
    """Return the page as HTML."""
    return document(
        "explanations.html.jinja",
        styles=("report.css", "explanations.css"),
        found=explanations,
        method=METHODS[explanations.method],
        overlay=charts.overlay,
        scale=_scale(),
    )


def _scale() -> NDArray[np.uint8]:
    """Return the colours from 0 to 1 as an image of one row, uint8, shape (1, 64, 3)."""
    colours = mpl.colormaps[charts.COLOURS](np.linspace(0, 1, 64))[None, :, :3]
    return (255 * colours).round().astype(np.uint8)


def _in_a_name(title: str) -> str:
    """Return a title as a part of a file's name: a class may be called "T-shirt/top"."""
    return files.slug(title.replace("/", "-"))
