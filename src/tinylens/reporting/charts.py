"""Charts of a run, an export, a search, a comparison and explanations, as SVG and PNG.

Only matplotlib's object-oriented interface: no window, no state that a caller's own plots share.
"""

from __future__ import annotations

import contextlib
import functools
import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from tinylens.evaluation.compare import SIGNIFICANT, Pair
from tinylens.evaluation.robustness import CORRUPTIONS
from tinylens.heatmaps import Heatmaps, upsampled
from tinylens.metrics import calibration_bins, wilson_interval
from tinylens.reporting.contents import Contents
from tinylens.reporting.wording import METHODS, shortened
from tinylens.results import (
    Difference,
    Explained,
    LearningCurve,
    Robustness,
    Score,
    Scorecard,
    Sheet,
    percent,
)

Arguments = ParamSpec("Arguments")
Rows = Sequence[Mapping[str, Any]]

DOTS_PER_INCH = 120
MOST_NUMBERED = 20  # classes of which a confusion matrix has room for the counts
MOST_MISTAKES = 24
NAME_LENGTH = 22

# Okabe & Ito 2008: told apart under every common colour blindness
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"

STYLE: Any = {  # matplotlib's own type lists every key there is
    "axes.axisbelow": True,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a plot is the same everywhere
    "font.size": 9.5,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "tinylens",  # else its ids are random
    "text.parse_math": False,  # a class may be called "$x^"
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
}

THEME = {  # variables of the page, which follow light and dark, and what they stand for
    "train": (BLUE,),
    "val": (ORANGE,),
    "test": (GREEN,),
    "wrong": (VERMILION,),
    "muted": (GREY, "#4b5563"),
    "paper": ("#ffffff",),
    "ink": ("#000000", "#111827"),
    "line": ("#9ca3af", "#e5e7eb"),
}
UNWANTED = re.compile(  # of an SVG file within a page
    r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>"
    r'| clip-path="[^"]*"|(?<=\n)\s+',
    re.DOTALL,
)
NO_DIFFERENCE = 1e-8  # drawn for 0, which a logarithmic scale lacks
SIDE = 96  # pixels at least of an image with its heatmap, so that the map has no steps
COLOURS = "inferno"  # from dark to bright for every eye, and also when printed in grey
LIGHTEST, STRONGEST = 0.1, 0.8  # share of the colour where the map is 0, and where it is 1


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a class name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    @functools.wraps(draw)
    def styled(*args: Arguments.args, **options: Arguments.kwargs) -> Figure:
        with _style():
            return draw(*args, **options)

    return styled


def as_png(figure: Figure) -> bytes:
    """Return a chart as the bytes of a PNG."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def as_svg(figure: Figure, name: str, description: str) -> str:
    """Return a chart as an element of a page, in the page's own colours.

    Args:
        figure: to draw; the same figure gives the same text.
        name: letters and digits; the element's ids start with it.
        description: what a reader who cannot see the chart is told.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = UNWANTED.sub("", buffer.getvalue())
    # positions to a hundredth of a point; what stands between tags is words
    text = re.sub(r"(\.\d\d)\d+(?=[^<>]*>)", r"\1", text)
    text = re.sub(r'(\bid="|href="#)', rf"\1{name}-", text)
    for variable, colours in THEME.items():
        for colour in colours:
            text = text.replace(colour.lower(), f"var(--{variable})")
    box, inside = re.findall(r'<svg [^>]*(viewBox="[^"]*")[^>]*>(.*</svg>)', text, re.DOTALL)[0]
    return f'<svg {box} role="img" aria-label="{html.escape(description)}">{inside}'


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a width and a height in inches."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


# --- a run


def of_run(contents: Contents) -> dict[str, Figure]:
    """Return the charts of a run by name; what there is nothing of is left out."""
    figures = {
        "confusion_matrix": confusion_matrix(contents),
        "per_class": per_class(contents),
        "reliability": reliability(contents),
    }
    if contents.history:
        figures["curves"] = curves(contents)
    if contents.robustness:
        figures["robustness"] = robustness(contents.robustness)
    if contents.learning_curve:
        figures["learning_curve"] = learning_curve(contents.learning_curve)
    if contents.mistakes:
        figures["worst_mistakes"] = worst_mistakes(contents)
    return figures


NAMES = frozenset(
    {
        *("curves", "confusion_matrix", "learning_curve", "per_class"),
        *("reliability", "robustness", "worst_mistakes"),
    }
)


@_styled
def curves(contents: Contents) -> Figure:
    """Loss and accuracy by epoch."""
    figure = new_figure(9, 3.6)
    panels: tuple[Axes, Axes] = tuple(figure.subplots(1, 2))
    for axes, key, title in zip(panels, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        lines = (("train", key, BLUE, "o"), ("val", f"val_{key}", ORANGE, "s"))
        for name, column, colour, marker in lines:
            points = [(row["epoch"], row[column]) for row in contents.history if column in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    label=name,
                )
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


@_styled
def confusion_matrix(contents: Contents) -> Figure:
    """Confusion matrix of test."""
    names = [shortened(name, NAME_LENGTH) for name in contents.class_names]
    counts = np.array(contents.test.confusion, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(names)
    side = min(3.2 + 0.42 * classes, 15)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    root = PowerNorm(0.5, vmin=0, vmax=1)  # a confusion of 1 % can be seen beside 95 % right
    image = axes.imshow(shares, cmap="Blues", norm=root, interpolation="nearest")
    size = 9 if classes <= 25 else 5.5
    axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.grid(visible=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Confusion matrix of test")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    if classes <= MOST_NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.4 else "#111827"
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    return figure


@_styled
def per_class(contents: Contents) -> Figure:
    """Precision and recall of each class with their intervals."""
    rows = sorted(contents.test.per_class, key=lambda row: row.f1.value or 0)
    figure = new_figure(7.5, min(1.4 + 0.36 * len(rows), 24))
    axes = figure.subplots()
    kinds = (("precision", BLUE, "o", 0.18), ("recall", ORANGE, "s", -0.18))
    for field, colour, marker, offset in kinds:
        scores: list[Score] = [getattr(row, field) for row in rows]
        values = np.array([score.value or 0 for score in scores])
        ends = np.array([score.ci95 or (0, 1) for score in scores])
        axes.errorbar(
            100 * values,
            np.arange(len(rows)) + offset,
            xerr=100 * np.abs(ends - values[:, None]).T,
            fmt=marker,
            markersize=4.5,
            color=colour,
            elinewidth=1.4,
            label=field,
        )
    axes.set_yticks(range(len(rows)), [shortened(row.name, NAME_LENGTH) for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("% of test, with 95 % intervals")
    axes.set_title("Precision and recall by class")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


@_styled
def reliability(contents: Contents) -> Figure:
    """Reliability diagram of test, over a histogram of the confidence."""
    figure = new_figure(5.6, 6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    bins = calibration_bins(contents.probabilities, contents.labels)
    counts = zip(bins.accuracy * bins.count, bins.count, strict=True)
    ends = np.array([wilson_interval(round(right), int(count)) for right, count in counts])
    upper.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfect")
    upper.errorbar(
        100 * bins.confidence,
        100 * bins.accuracy,
        yerr=100 * np.abs(ends - bins.accuracy[:, None]).T,
        fmt="o-",
        markersize=4.5,
        color=BLUE,
        elinewidth=1.2,
        label=f"{len(bins.count)} bins of equal size",
    )
    upper.set_title(f"Reliability on test: calibration error {percent(bins.error)} %")
    upper.set_ylabel("right, %")
    upper.legend(loc="upper left")
    confidence = 100 * contents.probabilities.max(axis=1)
    right = contents.probabilities.argmax(axis=1) == contents.labels
    lower.hist(
        [confidence[right], confidence[~right]],
        bins=np.linspace(0, 100, 41).tolist(),
        stacked=True,
        color=[GREEN, VERMILION],
        label=["right", "wrong"],
    )
    lower.set_yscale("symlog", linthresh=10)  # nearly all images are in the last bar
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.set_ylabel("images")
    lower.set_xlabel("confidence, %")
    lower.legend(loc="upper left", ncols=2)
    return figure


@_styled
def robustness(found: Robustness) -> Figure:
    """Accuracy by strength of each corruption."""
    figure = new_figure(9, 6)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    families = sorted({each.family for each in CORRUPTIONS.values()})
    for axes, family in zip(panels.ravel(), families, strict=True):
        names = [name for name in found.corruptions if CORRUPTIONS[name].family == family]
        for name, colour, marker in zip(
            names, (BLUE, ORANGE, GREEN, VERMILION), "osD^", strict=False
        ):
            shares = [100 * (score.value or 0) for score in found.corruptions[name]]
            axes.plot(
                range(1, len(shares) + 1),
                shares,
                color=colour,
                marker=marker,
                markersize=4,
                label=name.replace("_", " "),
            )
        axes.axhline(100 * (found.clean.value or 0), color=GREY, linestyle="--", linewidth=1)
        axes.set_title(family)
        axes.set_ylim(0, 100)
        axes.legend(loc="lower left")
    for axes in panels[1]:
        axes.set_xlabel("strength")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels[:, 0]:
        axes.set_ylabel("right, %")
    return figure


@_styled
def learning_curve(curve: LearningCurve) -> Figure:
    """Error by training images on two logarithmic scales: a power law is straight there."""
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    measured = [(point.images, point.error) for point in curve.points]
    expected = [(point.images, point.error) for point in curve.fitted]
    for rows, name, colour in ((expected, "power law", GREY), (measured, "val", ORANGE)):
        images = [n for n, _ in rows]
        middle = np.array([100 * (error.value or 0) for _, error in rows])
        ends = 100 * np.array([error.ci95 or (0, 0) for _, error in rows]).reshape(-1, 2)
        if name == "val":
            reach = np.abs(ends - middle[:, None]).T
            axes.errorbar(images, middle, reach, fmt="s", capsize=3, color=colour, label=name)
        elif rows:
            axes.plot(images, middle, color=colour, label=name)
            axes.fill_between(images, ends[:, 0], ends[:, 1], color=colour, alpha=0.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())  # errors seldom span a power of ten
    most = curve.points[-1].images
    places = [*(point.images for point in curve.points), 2 * most]
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("Wrong by training images")
    axes.set_xlabel("training images")
    axes.set_ylabel("wrong, %")
    axes.legend()
    return figure


@_styled
def worst_mistakes(contents: Contents) -> Figure:
    """Most confident mistakes on test."""
    mistakes = contents.mistakes[:MOST_MISTAKES]
    columns = min(6, len(mistakes))
    lines = -(-len(mistakes) // columns)
    figure = new_figure(max(1.5 * columns, 4), 1.95 * lines + 0.4)
    figure.suptitle("Most confident mistakes on test: true → predicted", fontsize=11, weight="bold")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, mistake in zip(panels, mistakes, strict=False):  # the last line may be short
        grey = mistake.image.shape[2] == 1
        image = mistake.image[..., 0] if grey else mistake.image
        axes.imshow(image, cmap="gray" if grey else None, vmin=0, vmax=255)
        words = f"{shortened(mistake.label, 16)} →\n{shortened(mistake.answer, 16)}"
        axes.set_title(
            f"{words}\n{percent(mistake.confidence)} %", fontsize=8, weight="normal", loc="center"
        )
    return figure


# --- exports, searches, comparisons


@_styled
def formats(scorecard: Scorecard) -> Figure:
    """Difference from Keras, size and speed of each exported file."""
    rows = scorecard.rows[::-1]  # the first on top
    names = [row.format + (" ✗" if row.failures else "") for row in rows]
    colours = [ORANGE if row.integers else BLUE for row in rows]
    figure = new_figure(12, 1.2 + 0.42 * len(rows))
    panels = figure.subplots(1, 4, sharey=True)
    speeds = [row.speed for row in rows]
    one = [each.one_p50_ms if each else 0.0 for each in speeds]
    tails = [each.one_p95_ms - each.one_p50_ms if each else 0.0 for each in speeds]
    apart = [max(row.largest_difference, NO_DIFFERENCE) for row in rows]
    panels[0].barh(names, apart, color=colours)
    panels[0].set_xscale("log")
    panels[0].set_xlim(NO_DIFFERENCE, 1)
    panels[0].set_xticks([1e-6, 1e-4, 1e-2, 1])
    panels[0].xaxis.set_major_formatter("{x:g}")  # matplotlib's own is written in TeX
    panels[0].xaxis.set_minor_formatter(NullFormatter())
    panels[1].barh(names, [row.size / 1e6 for row in rows], color=colours)
    panels[2].barh(names, one, xerr=[[0.0] * len(rows), tails], color=colours, capsize=2)
    panels[3].barh(names, [s.many_per_second if s else 0.0 for s in speeds], color=colours)
    panels[3].xaxis.set_major_formatter("{x:,.0f}")
    titles = {
        "Apart from Keras, at most": "probability",
        "Size": "MB",
        "One image, p50 to p95": "ms",
        f"{scorecard.batch} at once": "images a second",
    }
    for axes, (title, unit) in zip(panels, titles.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel(unit)
    return figure


@_styled
def trials(rows: Rows) -> Figure:
    """Accuracy on val of a search's trials, and the best so far.

    Args:
        rows: with "number", "state" and "value", from 0 to 1; at least one is complete.
    """
    finished = [row for row in rows if row["state"] == "complete"]
    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    given_up = [row for row in rows if row["state"] == "pruned" and row["value"] is not None]
    best = np.maximum.accumulate([100 * row["value"] for row in finished])
    lowest = min(100 * row["value"] for row in finished)
    bottom = max(lowest - 0.5 * (best[-1] - lowest) - 0.5, 0)
    for some, colour, marker, label in (
        (finished, BLUE, "o", "finished"),
        (given_up, GREY, "x", "given up; on the axis: below it"),
    ):
        if some:
            numbers = [row["number"] for row in some]
            values = [max(100 * row["value"], bottom) for row in some]  # else out of sight
            axes.plot(
                numbers, values, marker, color=colour, markersize=5, label=label, clip_on=False
            )
    axes.step(
        [row["number"] for row in finished], best, where="post", color=ORANGE, label="best so far"
    )
    axes.set_ylim(bottom=bottom)
    axes.set_title("Trials")
    axes.set_xlabel("trial; the first is the default recipe")
    axes.set_ylabel("accuracy on val, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@_styled
def importance(shares: Mapping[str, float]) -> Figure:
    """How much each key of a search decides."""
    keys = list(shares)[::-1]
    figure = new_figure(7.5, 1.2 + 0.32 * len(keys))
    axes = figure.subplots()
    axes.barh(keys, [100 * shares[key] for key in keys], color=BLUE)
    axes.grid(visible=False, axis="y")
    axes.set_title("What decided")
    axes.set_xlabel("share of the importance, %")
    return figure


@_styled
def differences(pair: Pair) -> Figure:
    """Differences in accuracy between two runs, over all and class by class."""
    rows: list[tuple[str, Difference, bool]] = [
        (shortened(each.name, NAME_LENGTH), each.recall, each.p_value < SIGNIFICANT)
        for each in sorted(pair.classes, key=lambda each: each.recall.value)
    ]
    rows.append(("all classes", pair.accuracy, pair.better is not None))
    figure = new_figure(7.5, min(1.6 + 0.36 * len(rows), 24))
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    for place, (_, found, sure) in enumerate(rows):
        colour = GREY if not sure else BLUE if found.value > 0 else VERMILION
        low, high = found.ci95
        axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=1.8)
        axes.plot(100 * found.value, place, marker="o", markersize=6, color=colour)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    names = [shortened(name, 40) for name in (pair.second, pair.first)]
    axes.set_xlabel(
        f"points of accuracy on test, {names[0]} minus {names[1]}\n"
        "with 95 % intervals; grey where it may be chance"
    )
    axes.set_title(f"{percent(abs(pair.accuracy.value))} points apart: {_short_verdict(pair)}")
    return figure


def _short_verdict(pair: Pair) -> str:
    return "no difference can be shown" if pair.better is None else f"{pair.better} is better"


# --- explanations


def overlay(image: NDArray[np.uint8], heat: Heatmaps) -> NDArray[np.uint8]:
    """Return an image in grey with its heatmap over it, uint8, shape (h, w, 3).

    It is as many times as large as the image as makes it at least SIDE pixels wide.

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


@_styled
def explained(sheet: Sheet, method: str) -> Figure:
    """A line an image, with its heatmaps and its nearest training images.

    Args:
        sheet: to draw.
        method: of the heatmaps, "grad-cam" or "occlusion".
    """
    lines = len(sheet.images)
    first = sheet.images[0]
    columns = 1 + len(first.heats) + len(first.neighbours)
    figure = new_figure(max(1.35 * columns, 4), 1.62 * lines + 0.5)
    figure.suptitle(f"{sheet.title}: {METHODS[method]}", fontsize=11, weight="bold")
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes, image in zip(panels, sheet.images, strict=True):
        _line(axes, image, method)
    return figure


def _line(panels: NDArray[np.object_], sample: Explained, method: str) -> None:
    name = shortened(Path(sample.name).name, 18)
    answer = f"{shortened(sample.answer, 12)}, {percent(sample.confidence)} %"
    shown = [(sample.image, f"{name}\n{answer}")]
    for heat in sample.heats:
        words = f"for {shortened(heat.class_name, 14)}\n{percent(heat.probability)} %"
        words += f", −{heat.largest:.2f}" if method == "occlusion" else ""
        shown.append((overlay(sample.image, heat.map), words))
    for each in sample.neighbours:
        words = f"{shortened(each.label, 16)}\nat {each.distance:.2f}"
        shown.append((each.image, words))
    for axes, (image, words) in zip(panels, shown, strict=True):
        _image(axes, image, words)


def _image(axes: Axes, image: NDArray[np.uint8], words: str) -> None:
    grey = image.shape[2] == 1
    axes.set_axis_off()
    axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_title(words, fontsize=8, weight="normal", loc="center")
