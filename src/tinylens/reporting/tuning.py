"""The plots of a search, and its table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from tinylens.reporting.plots import BLUE, GREY, ORANGE, STYLE, as_png, new_figure
from tinylens.reporting.terminal import plain_table

Rows = Sequence[Mapping[str, Any]]


def history(rows: Rows) -> bytes | None:
    """Return the trials and the best so far as a PNG; None where none was finished.

    Args:
        rows: with "number", "state" and "value", the accuracy on val from 0 to 1.
    """
    finished = [row for row in rows if row["state"] == "complete"]
    if not finished:
        return None
    with mpl.rc_context(STYLE):
        return as_png(_history(rows, finished))


def importance(shares: Mapping[str, float]) -> bytes | None:
    """Return how much each key decided as a PNG; None where there is nothing to draw."""
    if not shares:
        return None
    with mpl.rc_context(STYLE):
        return as_png(_importance(shares))


def second_looks(looks: Rows, changed: Mapping[str, Any]) -> Table:
    """Return what the second look came to, a row a recipe, the default first.

    Args:
        looks: with "trial", "first", "value" and "seconds".
        changed: what the chosen recipe changes of the default.
    """
    said = ", ".join(f"{key} = {_short(value)}" for key, value in changed.items())
    table = plain_table(caption=said or None)
    for title in ("Trial", "Val % in the search", "again, another seed", "Seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for place, look in enumerate(looks):
        name = "default" if place == 0 else str(look["trial"])
        values = (f"{100 * look['first']:.2f}", f"{100 * look['value']:.2f}")
        table.add_row(name, *values, f"{look['seconds']:.0f}")
    return table


def _history(rows: Rows, finished: Rows) -> Figure:
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


def _importance(shares: Mapping[str, float]) -> Figure:
    keys = list(shares)[::-1]
    figure = new_figure(7.5, 1.2 + 0.32 * len(keys))
    axes = figure.subplots()
    axes.barh(keys, [100 * shares[key] for key in keys], color=BLUE)
    axes.grid(visible=False, axis="y")
    axes.set_title("What decided")
    axes.set_xlabel("share of the importance, %")
    return figure


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
