"""The scorecard of exported files: a table for the terminal, and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tinylens.reporting.terminal import plain_table
from tinylens.results import FormatRow, Scorecard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_DIFFERENCE = 1e-8  # drawn for 0, which a logarithmic scale lacks


def table(scorecard: Scorecard) -> Table:
    """Return a line a file."""
    parts = {(row.part, row.pictures) for row in scorecard.rows}
    judged = " and ".join(f"{count:,} pictures of {part}" for part, count in sorted(parts))
    found = plain_table(
        caption=f"against Keras on {judged}: same answers, largest difference between "
        "probabilities, points of accuracy with 95 % interval; milliseconds for one picture, "
        "median and 95th percentile; pictures a second, "
        f"{scorecard.batch} at once, {scorecard.threads} threads"
    )
    found.add_column("Format", no_wrap=True)
    for title in ("Same %", "Apart", "Points", "MB", "ms, p95", "A second"):
        found.add_column(title, justify="right", no_wrap=True)
    for row in scorecard.rows:
        mark = " ✗" if row.failures else ""
        found.add_row(Text(row.format + mark), *_cells(row))
    return found


def _cells(row: FormatRow) -> list[str]:
    points = "–"
    if row.accuracy_difference is not None:
        low, high = row.accuracy_difference.ci95
        value = row.accuracy_difference.value
        points = f"{100 * value:+.2f} ({100 * low:+.2f} {100 * high:+.2f})"
    cells = [f"{100 * row.agreement:.2f}", f"{row.largest_difference:.1g}", points]
    cells.append(f"{row.size / 1e6:.2f}")
    if row.speed is None:
        return [*cells, "–", "–"]
    one = f"{row.speed.one_p50_ms:.2f} {row.speed.one_p95_ms:.2f}"
    return [*cells, one, f"{row.speed.many_per_second:,.0f}"]


def plot(scorecard: Scorecard) -> bytes:
    """Return difference from Keras, size and speed of each file, as a PNG."""
    import matplotlib as mpl  # the table is for those, too, who do not have it

    from tinylens.reporting.plots import STYLE, as_png

    with mpl.rc_context(STYLE):
        return as_png(_bars(scorecard))


def _bars(scorecard: Scorecard) -> Figure:
    from matplotlib.ticker import NullFormatter

    from tinylens.reporting.plots import BLUE, ORANGE, new_figure

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
        "One picture, p50 to p95": "ms",
        f"{scorecard.batch} at once": "pictures a second",
    }
    for axes, (title, unit) in zip(panels, titles.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel(unit)
    return figure
