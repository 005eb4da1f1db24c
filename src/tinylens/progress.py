"""Progress of long work: a silent reporter, and one for terminals with time left."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class StepProgress:
    """Progress within training: the epochs and, in this epoch, the steps that are done."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


class ProgressReporter:
    """No-op progress reporter, and the base of those that report."""

    def phase(self, name: str) -> None:
        """A phase of the work begins; `name` is in words."""

    def say(self, line: str) -> None:
        """A line that a person should see."""

    def loading(self, done: int, total: int) -> None:
        """So many images of the total are decoded."""

    def step(self, progress: StepProgress) -> None:
        """A training step is done."""

    def epoch(self, row: dict[str, float]) -> None:
        """An epoch is done; `row` is its row of history.csv."""


class TerminalReporter(ProgressReporter):
    """Shows phases, steps and epochs through rich; use `on_terminal` to get one."""

    def __init__(self, console: Console, progress: Progress, task: TaskID) -> None:
        self.console = console
        self.progress = progress
        self.task = task

    def phase(self, name: str) -> None:
        """Name the phase before the bar, which moves only in training."""
        self.progress.update(self.task, phase=name, detail="", visible=True)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, highlight=False, markup=False)

    def loading(self, done: int, total: int) -> None:
        """Move the bar while images are decoded."""
        self.progress.update(self.task, completed=done, total=total)

    def step(self, progress: StepProgress) -> None:
        """Move the bar; rich draws it ten times a second, however often this is called."""
        self.progress.update(
            self.task,
            total=progress.epochs * progress.steps,
            completed=progress.epoch * progress.steps + progress.step,
            phase=f"epoch {progress.epoch + 1} of {progress.epochs}",
            detail=f"loss {progress.loss:.3f} · accuracy {progress.accuracy:.3f} · "
            f"{progress.images_per_second:,.0f} img/s",
        )

    def epoch(self, row: dict[str, float]) -> None:
        """Print a line for the epoch that is done."""
        val = (
            f" · val loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:.4f}"
            if "val_accuracy" in row
            else ""
        )
        if "val_macro_f1" in row:
            val += f", macro-F1 {row['val_macro_f1']:.4f}"
        self.console.print(
            f"epoch {row['epoch']:3.0f} · train loss {row['loss']:.3f}, "
            f"accuracy {row['accuracy']:.4f}{val} · {row['images_per_second']:,.0f} img/s",
            highlight=False,
        )


@contextmanager
def on_terminal() -> Generator[ProgressReporter]:
    """Yield a reporter for stderr: one that shows progress on a terminal, else a silent one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressReporter()
        return
    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, phase="starting", detail="")
        yield TerminalReporter(console, progress, task)
