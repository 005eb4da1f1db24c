"""What run.json says of a training that failed, and of one that is tried again."""

from __future__ import annotations

import math

import keras
import pytest

from conformance import tiny_splits
from tinylens.errors import RunError, TrainingDiverged
from tinylens.recipe import Recipe
from tinylens.reporting import write
from tinylens.run import Run
from tinylens.training.train import train

RECIPE = Recipe(name="states").override(
    {
        "model.options": {"widths": [2], "dense": [], "dropout": 0.0},
        "train.epochs": 1,
        "train.precision": "float32",
    }
)
SPLITS = tiny_splits((8, 8, 1))


@pytest.mark.slow
def test_a_run_that_diverged_says_so_and_another_try_starts_from_its_checkpoint(
    tmp_path, monkeypatch
):
    loss = keras.losses.CategoricalCrossentropy.call
    with monkeypatch.context() as patched, pytest.raises(TrainingDiverged) as caught:
        patched.setattr(
            keras.losses.CategoricalCrossentropy, "call", lambda *given: loss(*given) * math.nan
        )
        train(SPLITS, RECIPE, out=tmp_path)
    failed = Run(tmp_path).info
    assert (failed.state, failed.error) == ("failed", str(caught.value))
    assert failed.finished >= failed.started
    done = train(SPLITS, RECIPE, out=tmp_path)
    assert (done.info.state, done.info.error) == ("done", "")


@pytest.mark.slow
def test_a_run_whose_report_could_not_be_written_is_not_done_and_goes_on(tmp_path, monkeypatch):
    def full(run):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(write, "write", full)
        train(SPLITS, RECIPE, out=tmp_path)
    assert Run(tmp_path).info.state == "running"
    run = train(SPLITS, RECIPE, out=tmp_path)
    assert run.info.state == "done"
    assert run.report.is_file()
    assert run.read_checkpoint() is None


def test_a_run_that_another_process_writes_is_left_alone(tmp_path):
    with Run(tmp_path).lock(), pytest.raises(RunError, match="is being written by process"):
        train(SPLITS, RECIPE, out=tmp_path)
    assert not Run(tmp_path).started
