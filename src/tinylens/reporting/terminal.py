"""How tables look on the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table


def plain_table(caption: str | None = None) -> Table:
    """Return an empty table as all of ours look."""
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=caption,
        caption_justify="left",
    )
