"""Short texts, HTML tables and data frames for reprs and notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tinylens.errors import MissingExtra

SHOWN_CLASSES = 4  # in a short text


def shortened(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are.

    >>> shortened(["cat", "dog", "emu", "owl", "yak"])
    'cat, dog, emu, owl and 1 more'
    """
    shown = ", ".join(names[:SHOWN_CLASSES])
    more = len(names) - SHOWN_CLASSES
    return f"{shown} and {more:,} more" if more > 0 else shown


def html_table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows as an HTML table, escaped; the first row is the head.

    >>> html_table([["class"], ["<cat>"]])
    '<table><tr><th>class</th></tr><tr><td>&lt;cat&gt;</td></tr></table>'
    """
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Return a pandas DataFrame of rows.

    Raises:
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtra("to_pandas needs pandas; type: pip install pandas") from None
    return pandas.DataFrame(list(rows), columns=list(columns))
