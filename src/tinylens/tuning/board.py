"""How far a search is, as a live table on a terminal."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tinylens.tuning.study import Standing, Watch


@contextmanager
def on_terminal() -> Generator[Watch]:
    """Yield what shows a standing on stderr: a live table on a terminal, else nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with Live(console=console, transient=True, refresh_per_second=2) as live:
        yield lambda standing: live.update(picture(standing))


def picture(standing: Standing) -> Group:
    """Return a standing as rich draws it."""
    table = Table.grid(padding=(0, 2))
    trials = f"{standing.done} finished, {standing.pruned} given up"
    if standing.failed:
        trials += f", {standing.failed} failed"
    if standing.wanted is not None:
        trials += f", of {standing.wanted}"
    table.add_row("trials", trials)
    if standing.best is not None:
        table.add_row("best on val", f"{100 * standing.best[0]:.2f} %")
    if standing.ends is not None:
        left = max(standing.ends - time.monotonic(), 0)
        table.add_row("time left", f"{left // 60:.0f} min {left % 60:.0f} s of searching")
    for name, (epoch, epochs, value) in list(standing.running.items()):
        seen = f" · val {100 * value:.2f} %" if value is not None else ""
        table.add_row(name, f"epoch {epoch} of {epochs}{seen}")
    return Group(Text(standing.stage, style="bold"), table)
