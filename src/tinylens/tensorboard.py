"""TensorBoard event files of a run, where the package tensorboard is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

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
    # tensorboard's EventFileWriter would import TensorFlow on every backend
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    now = time.time()
    with (folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}").open("wb") as file:
        records = RecordWriter(file)

        def write(row: Row) -> None:
            records.write(_event(row).SerializeToString())
            records.flush()

        records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for row in history:
            write(row)
        yield write


def _event(row: Row) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=tag, simple_value=row[key]) for key, tag in TAGS.items() if key in row
    ]
    return Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values))
