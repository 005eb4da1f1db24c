"""Event files that TensorBoard can read, with one whole curve after every resume."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tinylens import tensorboard

ROWS = [
    {"epoch": 1.0, "loss": 0.5, "val_accuracy": 0.75, "seconds": 3.0},
    {"epoch": 2.0, "loss": 0.25, "val_accuracy": 0.875, "seconds": 3.0},
]


def read(folder):
    """What TensorBoard's own reader finds: (step, tag, value), in order."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    found = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
    assert found[0].file_version == "brain.Event:2"
    assert all(event.wall_time > 1_700_000_000 for event in found)
    return [
        (event.step, value.tag, value.simple_value)
        for event in found[1:]
        for value in event.summary.value
    ]


EXPECTED = [
    (1, "train/loss", 0.5),
    (1, "val/accuracy", 0.75),
    (2, "train/loss", 0.25),
    (2, "val/accuracy", 0.875),
]


def test_rows_come_back_as_tensorboard_reads_them(tmp_path):
    with tensorboard.writer(tmp_path / "events", []) as write:
        for row in ROWS:
            write(row)
        assert read(tmp_path / "events") == EXPECTED  # at once, for whoever watches
    assert read(tmp_path / "events") == EXPECTED


def test_a_resumed_run_has_one_whole_curve_in_one_file(tmp_path):
    with tensorboard.writer(tmp_path, []) as write:
        write(ROWS[0])
        write({"epoch": 2.0, "loss": 9.0})  # of an epoch that was not saved
    with tensorboard.writer(tmp_path, ROWS[:1]) as write:
        write(ROWS[1])
    assert read(tmp_path) == EXPECTED


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not tensorboard.available()
    with tensorboard.writer(tmp_path, ROWS) as write:
        write(ROWS[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_writing_events_does_not_import_tensorflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tinylens import tensorboard as events\n"
        "with events.writer(Path(sys.argv[1]), [{'epoch': 1.0, 'loss': 1.0}]): pass\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
