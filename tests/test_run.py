"""A run folder has one writer at a time, and every file in it is whole or refused by name."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from tinylens import files
from tinylens.errors import RunError
from tinylens.recipe import Recipe
from tinylens.results import Calibration, Evaluation
from tinylens.run import Run, RunInfo

HOLD_THE_LOCK = """
import sys, time
from tinylens.run import Run

with Run(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(600)
"""
ARRAYS = {"network/0000": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7)}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def holder(run):
    """A live process that holds the run's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_checkpoints(run, *steps):
    for step in steps:
        state = {"epoch": 0, "step": step, "history": [{"loss": 0.5}]}
        run.write_checkpoint({**ARRAYS, "step": np.array(step)}, state)


def checkpoint_files(run):
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


# --- the lock


def test_a_run_that_another_process_writes_is_refused_with_its_number(run, holder):
    assert run.locked()
    with pytest.raises(RunError) as caught, run.lock():
        pass
    assert f"is being written by process {holder.pid} on " in str(caught.value)
    assert "give this run a folder of its own with --out" in str(caught.value)


def test_the_lock_goes_with_a_process_that_is_killed(run, holder):
    holder.kill()
    holder.wait()
    assert not run.locked()
    with run.lock():
        assert (run.path / ".lock").read_text().startswith("process ")


def test_the_lock_can_be_taken_again_after_it_was_let_go(run):
    assert not run.locked()
    for _ in range(2):
        with run.lock():
            assert run.locked()
    assert not run.locked()


def test_whoever_takes_the_lock_removes_what_a_killed_process_left(run):
    for folder in (run.path, run.path / "checkpoints", run.plots):
        folder.mkdir(exist_ok=True)
        (folder / f"{files.TEMPORARY_PREFIX}123-x").write_text("half")
        (folder / "kept").write_text("whole")
    with run.lock():
        pass
    names = {path.name for path in run.path.rglob("*") if path.is_file()}
    assert names == {"kept", ".lock"}


# --- numbers


def test_runs_are_numbered_from_1_and_a_gap_stays(tmp_path):
    assert Run.create(tmp_path / "runs", "x").path.name == "x-1"
    (tmp_path / "runs" / "x-7").mkdir()
    (tmp_path / "runs" / "x-a").mkdir()
    (tmp_path / "runs" / "x-y-9").mkdir()
    assert Run.create(tmp_path / "runs", "x").path.name == "x-8"
    assert Run.create(tmp_path / "runs", "x-y").path.name == "x-y-10"


def _create(root):
    return [Run.create(root, "x").path.name for _ in range(20)]


def test_processes_that_create_runs_at_once_get_numbers_of_their_own(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        created = [name for names in pool.map(_create, [tmp_path] * 3) for name in names]
    assert sorted(created) == sorted(f"x-{number}" for number in range(1, 61))


def test_existing_runs_come_newest_first_and_only_those_that_were_started(tmp_path):
    for _ in range(10):
        Run.create(tmp_path, "x").write_info(RunInfo())
    Run.create(tmp_path, "x")
    assert [run.path.name for run in Run.existing(tmp_path, "x")] == [
        f"x-{number}" for number in range(10, 0, -1)
    ]
    assert Run.existing(tmp_path / "none", "x") == []


# --- checkpoints


def test_a_checkpoint_comes_back_as_it_was(run):
    state = {"epoch": 3, "step": 5, "best_loss": float("inf"), "history": [{"loss": 0.1 + 0.2}]}
    run.write_checkpoint(ARRAYS, state)
    arrays, found = run.read_checkpoint()
    assert found == state
    assert arrays.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype
        assert np.array_equal(arrays[name], values)


def test_without_checkpoints_there_is_none(run):
    assert run.read_checkpoint() is None


def test_the_newest_two_checkpoints_are_kept(run):
    write_checkpoints(run, 9, 10, 100)
    run.write_checkpoint(ARRAYS, {"epoch": 1, "step": 0})
    assert checkpoint_files(run) == ["00000-0000100.npz", "00001-0000000.npz"]
    assert run.read_checkpoint()[1]["epoch"] == 1


def test_a_later_epoch_is_newer_than_a_later_step(run):
    run.write_checkpoint(ARRAYS, {"epoch": 2, "step": 0})
    run.write_checkpoint(ARRAYS, {"epoch": 1, "step": 99})
    assert run.read_checkpoint()[1] == {"epoch": 2, "step": 0}


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "zeros", "text"])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_read(run, damage):
    write_checkpoints(run, 1, 2)
    path = run.path / "checkpoints" / "00000-0000002.npz"
    content = path.read_bytes()
    middle = content.index(ARRAYS["network/0000"].tobytes()[4:]) + 5
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:-1],
            "bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "zeros": b"\x00" * len(content),
            "text": b"<html>",
        }[damage]
    )
    described = []
    assert run.read_checkpoint(described.append)[1]["step"] == 1
    [line] = described
    assert path.name in line and line.endswith("the checkpoint before it is tried")


def test_no_flipped_byte_is_read_as_another_checkpoint_or_as_another_error(run):
    write_checkpoints(run, 1)
    (path,) = (run.path / "checkpoints").iterdir()
    good, expected = path.read_bytes(), run.read_checkpoint()
    read = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            arrays, state = run.read_checkpoint()
        except RunError:
            continue
        read += 1  # a date, or the like
        assert state == expected[1]
        assert arrays.keys() == expected[0].keys()
        assert all(np.array_equal(arrays[name], expected[0][name]) for name in arrays)
    assert read < len(good) / 2


def test_where_no_checkpoint_can_be_read_training_does_not_silently_start_anew(run):
    write_checkpoints(run, 1, 2)
    for path in (run.path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match="none of the 2 checkpoints can be read; remove that folder"):
        run.read_checkpoint()


def test_checkpoints_are_removed_with_their_folder(run):
    write_checkpoints(run, 1, 2)
    run.remove_checkpoints()
    assert not (run.path / "checkpoints").exists()
    run.remove_checkpoints()


# --- the other files


def test_info_comes_back_as_it_was(run):
    info = RunInfo(
        command="tinylens train x",
        class_names=["ä", "b"],
        splits={"train": {"size": 3, "sha256": "00"}},
        seconds={"train": 1.5},
        test_opened=[{"time": "2026-05-04T03:02:01Z", "command": "c"}],
    )
    run.write_info(info)
    assert run.info == info
    assert run.started


def test_info_of_a_newer_version_is_refused_with_the_unknown_words(run):
    run.write_info(RunInfo())
    tree = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**tree, "zebra": 1, "aardvark": 2}))
    with pytest.raises(RunError, match=r"run\.json holds aardvark, zebra, which this version"):
        _ = run.info


def test_history_comes_back_to_the_last_digit(run):
    rows = [{"epoch": 1.0, "loss": 0.1 + 0.2}, {"epoch": 2.0, "loss": 1e-300}]
    assert run.history == []
    run.write_history(rows)
    assert run.history == rows
    assert (
        (run.path / "history.csv").read_text().startswith("epoch,loss\n1.0,0.30000000000000004\n")
    )


def test_predictions_come_back_as_they_were(run):
    arrays = {"test_probabilities": np.eye(3, dtype=np.float32), "test_labels": np.arange(3)}
    run.write_predictions(arrays)
    assert all(np.array_equal(run.predictions[name], arrays[name]) for name in arrays)


def test_recipe_and_evaluation_come_back_as_they_were(run):
    recipe = Recipe(name="x").override({"model.options.widths": [1, 2]})
    evaluation = Evaluation({}, None, Calibration(1.5, "val", 0.4, 0.3))
    run.write_recipe(recipe)
    run.write_evaluation(evaluation)
    assert (run.recipe, run.evaluation) == (recipe, evaluation)


@pytest.mark.parametrize("name", ["info", "evaluation", "predictions", "recipe"])
def test_what_is_not_there_yet_is_told(run, name):
    with pytest.raises(RunError, match="training has not come that far; the command that started"):
        getattr(run, name)
    gone = Run(run.path / "none")
    with pytest.raises(RunError, match=r"no run folder .*none; `tinylens train DATASET` makes one"):
        getattr(gone, name)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        *(("info", "run.json", content) for content in (b"", b"{", b"[1, 2]", b"\xff")),
        *(("evaluation", "evaluation.json", content) for content in (b"", b"{}", b"1", b"\xff")),
        *(("history", "history.csv", content) for content in (b"a\nx\n", b"a,b\n1\n", b"\xff")),
        *(("predictions", "predictions.npz", content) for content in (b"", b"PK\3\4", b"\xff")),
    ],
)
def test_a_damaged_file_is_refused_by_name(run, name, file, content):
    (run.path / file).write_bytes(content)
    with pytest.raises(RunError, match=f"{file} is damaged: "):
        getattr(run, name)


def test_the_files_have_the_names_of_the_contract(run):
    assert {
        path.relative_to(run.path).as_posix()
        for path in (run.model, run.keras_model, run.report, run.plots, run.events)
    } == {"model.onnx", "model.keras", "report.html", "plots", "events"}
