"""The plots of a run as PNG, for slides and papers; the report draws its own.

Only matplotlib's object-oriented interface: no window, no state that a caller's own plots share.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from tinylens.corruptions import CORRUPTIONS
from tinylens.metrics import calibration_bins, wilson_interval
from tinylens.reporting.contents import Contents
from tinylens.reporting.wording import shortened
from tinylens.results import Score, percent

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
    "text.parse_math": False,  # a class may be called "$x^"
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
}


def draw(contents: Contents) -> dict[str, bytes]:
    """Return each plot as the bytes of a PNG, by name; what there is nothing of is left out."""
    plots: dict[str, Callable[[Contents], Figure]] = {
        "confusion_matrix": _confusion_matrix,
        "per_class": _per_class,
        "reliability": _reliability,
    }
    if contents.history:
        plots["curves"] = _curves
    if contents.robustness:
        plots["robustness"] = _robustness
    if contents.learning_curve:
        plots["learning_curve"] = _learning_curve
    if contents.mistakes:
        plots["worst_mistakes"] = _worst_mistakes
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # a class name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return {name: as_png(plot(contents)) for name, plot in plots.items()}


NAMES = frozenset(
    {
        *("curves", "confusion_matrix", "learning_curve", "per_class"),
        *("reliability", "robustness", "worst_mistakes"),
    }
)


def as_png(figure: Figure) -> bytes:
    """Return a drawn figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a width and a height in inches."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def _curves(contents: Contents) -> Figure:
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


def _confusion_matrix(contents: Contents) -> Figure:
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


def _per_class(contents: Contents) -> Figure:
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


def _reliability(contents: Contents) -> Figure:
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
    lower.set_yscale("symlog", linthresh=10)  # nearly all pictures are in the last bar
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.set_ylabel("pictures")
    lower.set_xlabel("confidence, %")
    lower.legend(loc="upper left", ncols=2)
    return figure


def _robustness(contents: Contents) -> Figure:
    assert contents.robustness is not None  # else it is not among the plots
    found = contents.robustness
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


def _learning_curve(contents: Contents) -> Figure:
    """Draw error against pictures on two logarithmic scales: a power law is straight there."""
    curve = contents.learning_curve
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    if curve is None:
        return figure
    measured = [(point.pictures, point.error) for point in curve.points]
    expected = [(point.pictures, point.error) for point in curve.fitted]
    for rows, name, colour in ((expected, "power law", GREY), (measured, "val", ORANGE)):
        pictures = [n for n, _ in rows]
        middle = np.array([100 * (error.value or 0) for _, error in rows])
        ends = 100 * np.array([error.ci95 or (0, 0) for _, error in rows]).reshape(-1, 2)
        if name == "val":
            reach = np.abs(ends - middle[:, None]).T
            axes.errorbar(pictures, middle, reach, fmt="s", capsize=3, color=colour, label=name)
        elif rows:
            axes.plot(pictures, middle, color=colour, label=name)
            axes.fill_between(pictures, ends[:, 0], ends[:, 1], color=colour, alpha=0.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())  # errors seldom span a power of ten
    most = curve.points[-1].pictures
    places = [*(point.pictures for point in curve.points), 2 * most]
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("Wrong by training pictures")
    axes.set_xlabel("training pictures")
    axes.set_ylabel("wrong, %")
    axes.legend()
    return figure


def _worst_mistakes(contents: Contents) -> Figure:
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
        picture = mistake.image[..., 0] if grey else mistake.image
        axes.imshow(picture, cmap="gray" if grey else None, vmin=0, vmax=255)
        words = f"{shortened(mistake.label, 16)} →\n{shortened(mistake.answer, 16)}"
        axes.set_title(
            f"{words}\n{percent(mistake.confidence)} %", fontsize=8, weight="normal", loc="center"
        )
    return figure
