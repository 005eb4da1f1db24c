"""TensorBoard event files of a run, where the package tensorboard is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path

Row = dict[str, float]

TAGS = {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}


def available() -> bool:
    """Return whether event files can be written here."""
    return importlib.util.find_spec("tensorboard") is not None


@contextlib.contextmanager
def writer(folder: Path, history: list[Row]) -> Generator[Callable[[Row], None]]:
    """Yield what writes a row of history.csv as events; does nothing without tensorboard.

    The file begins anew with the rows of `history`, so that a resumed run has one whole curve.
    """
    if not available():
        yield lambda _: None
        return
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    events = EventFileWriter(str(folder))
    try:
        for row in history:
            events.add_event(_event(row))
        yield lambda row: _write(events, row)
    finally:
        events.close()


def _write(events: object, row: Row) -> None:
    events.add_event(_event(row))  # type: ignore[attr-defined]
    events.flush()  # type: ignore[attr-defined]


def _event(row: Row) -> object:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=tag, simple_value=row[key]) for key, tag in TAGS.items() if key in row
    ]
    return Event(step=int(row["epoch"]), summary=Summary(value=values))
