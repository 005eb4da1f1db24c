"""explanations.html and its plots: where a network looked, and what it has seen that is alike."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinylens import files
from tinylens.heatmaps import Heatmaps, upsampled
from tinylens.reporting.document import document
from tinylens.reporting.plots import STYLE, as_png, new_figure
from tinylens.reporting.wording import shortened
from tinylens.results import Explained, Explanations, Sheet, percent

SIDE = 96  # pixels at least of a picture with its heatmap, so that the map has no steps
COLOURS = "inferno"  # from dark to bright for every eye, and also when printed in grey
LIGHTEST, STRONGEST = 0.1, 0.8  # share of the colour where the map is 0, and where it is 1
PREFIX = "explained-"  # of the plots

METHODS = {"grad-cam": "Grad-CAM", "occlusion": "Occlusion"}


def write(page: Path, plots: Path, explanations: Explanations) -> None:
    """Write the page, and a plot a sheet into the folder `plots`.

    Plots of earlier explanations are removed.
    """
    drawn = {
        f"{PREFIX}{number:02}-{_in_a_name(sheet.title)}.png": draw(sheet, explanations.method)
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
        overlay=overlay,
        scale=_scale(),
    )


def overlay(image: NDArray[np.uint8], heat: Heatmaps) -> NDArray[np.uint8]:
    """Return a picture in grey with its heatmap over it, uint8, shape (h, w, 3).

    It is as many times as large as the picture as makes it at least SIDE pixels wide.

    Args:
        image: uint8, shape (height, width, channels).
        heat: float32, shape (height, width), from 0 to 1.
    """
    times = -(-SIDE // min(image.shape[:2]))
    grey = image.mean(axis=2).repeat(times, axis=0).repeat(times, axis=1)
    smooth = np.clip(upsampled(heat[None], grey.shape)[0], 0, 1)
    colours = mpl.colormaps[COLOURS](smooth)[..., :3]
    share = (LIGHTEST + (STRONGEST - LIGHTEST) * smooth)[..., None]
    blended: NDArray[np.float64] = (1 - share) * grey[..., None] + share * 255 * colours
    return blended.round().astype(np.uint8)


def _scale() -> NDArray[np.uint8]:
    """Return the colours from 0 to 1 as a picture of one row, uint8, shape (1, 64, 3)."""
    colours = mpl.colormaps[COLOURS](np.linspace(0, 1, 64))[None, :, :3]
    return (255 * colours).round().astype(np.uint8)


# --- the plots


def _in_a_name(title: str) -> str:
    """Return a title as a part of a file's name: a class may be called "T-shirt/top"."""
    return files.slug(title.replace("/", "-"))


def draw(sheet: Sheet, method: str) -> bytes:
    """Return a sheet as a PNG: a line a picture, with its heatmaps and its nearest pictures."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a class name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return as_png(_sheet(sheet, method))


def _sheet(sheet: Sheet, method: str) -> Figure:
    lines = len(sheet.pictures)
    first = sheet.pictures[0]
    columns = 1 + len(first.heats) + len(first.neighbours)
    figure = new_figure(max(1.35 * columns, 4), 1.62 * lines + 0.5)
    figure.suptitle(f"{sheet.title}: {METHODS[method]}", fontsize=11, weight="bold")
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, picture in zip(panels, sheet.pictures, strict=True):
        _line(axes, picture, method)
    return figure


def _line(panels: NDArray[np.object_], picture: Explained, method: str) -> None:
    name = shortened(Path(picture.name).name, 18)
    answer = f"{shortened(picture.answer, 12)}, {percent(picture.confidence)} %"
    shown = [(picture.image, f"{name}\n{answer}")]
    for heat in picture.heats:
        words = f"for {shortened(heat.class_name, 14)}\n{percent(heat.probability)} %"
        words += f", −{heat.largest:.2f}" if method == "occlusion" else ""
        shown.append((overlay(picture.image, heat.map), words))
    for each in picture.neighbours:
        words = f"{shortened(each.label, 16)}\nat {each.distance:.2f}"
        shown.append((each.image, words))
    for axes, (image, words) in zip(panels, shown, strict=True):
        _picture(axes, image, words)


def _picture(axes: Axes, image: NDArray[np.uint8], words: str) -> None:
    grey = image.shape[2] == 1
    axes.set_axis_off()
    axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_title(words, fontsize=8, weight="normal", loc="center")
