"""`kill -9` at any moment, also while saving: the same command goes on, to the same weights.

TINYLENS_KILLS says how many (3 if it says nothing, 20 before a release); `pytest -s` prints them.
"""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from tinylens import files
from tinylens.run import Run

KILLS = int(os.environ.get("TINYLENS_KILLS", "3"))
SCRIPT = Path(__file__).with_name("kill_run.py")
IMPORTED = (Path(files.__file__).parents[1], Path(__file__).parents[1])  # tinylens and conformance
MOMENTS = ("before training", "in training", "while saving", "after training")
PHASES_AFTER = ("calibrating", "judging", "exporting", "writing the report")


@dataclass(frozen=True)
class Alone:
    """The run that was left alone: its last weights, and how long it took, in seconds."""

    weights: dict[str, np.ndarray]
    seconds: float


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    begun = time.monotonic()
    finish(out)
    return Alone(weights(out), time.monotonic() - begun)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_polite_signal_saves_the_step_in_hand_and_the_run_goes_on(tmp_path, alone, number, code):
    with start(tmp_path) as process:
        wait_for_line(process, "epoch 2")
        process.send_signal(number)
        assert process.wait(timeout=60) == code  # -2: Python ends by the signal it did not catch
    _, state = Run(tmp_path).read_checkpoint()
    assert (state["epoch"], state["finished"]) == (2, False)
    assert 0 < state["step"] < 16
    assert not leftovers_of_a_write(tmp_path)
    finish(tmp_path)
    assert same(weights(tmp_path), alone.weights)


@pytest.mark.slow
def test_killed_runs_end_with_the_weights_of_one_that_was_left_alone(tmp_path, alone):
    dice = random.Random(0)
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(KILLS)]
    dice.shuffle(moments)
    out, runs = tmp_path / "killed-1", 1
    amid_a_write: set[str] = set()
    described: list[str] = []
    for moment in moments:
        while not kill_at(
            moment, start(out), out, dice, alone.seconds
        ):  # it was quicker, and is done
            assert same(weights(out), alone.weights)
            runs += 1
            out = tmp_path / f"killed-{runs}"
        left = leftovers_of_a_write(out)
        amid_a_write.update(left)
        described.append(f"killed {moment}, run {runs}: {describe(out)}; left over: {left}")
        assert_every_file_is_whole(out)
    finish(out)
    assert same(weights(out), alone.weights)
    assert Run(out).info.state == "done"
    assert not leftovers_of_a_write(out)
    described.append(
        f"{KILLS} kills in {runs} runs, {len(amid_a_write)} amid a write; all weights equal"
    )
    sys.stdout.write("\n".join(["", *described, ""]))


def finish(out: Path) -> None:
    with start(out) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0


def start(out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, IMPORTED))},
    )


def kill_at(
    moment: str, process: subprocess.Popen, out: Path, dice: random.Random, whole: float
) -> bool:
    """Kill at some moment of that kind; False when the process had ended well before it."""
    if moment == "before training":
        time.sleep(dice.uniform(0, whole / 2))
    elif moment == "in training":
        wait_for_line(process, "training")
        time.sleep(dice.uniform(0, whole / 2))
    elif moment == "while saving":
        wait_for_line(process, "training")
        for _ in range(dice.randint(1, 3)):  # the first save, or a later one
            wait_until_a_write_begins(process, out / "checkpoints")
    else:
        wait_for_line(process, dice.choice(PHASES_AFTER))
        time.sleep(dice.uniform(0, 0.5))
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    code = process.wait()
    assert code in (0, -signal.SIGKILL)
    return code != 0


def wait_for_line(process: subprocess.Popen, beginning: str) -> None:
    for line in process.stdout:
        if line.startswith(beginning):
            return


def wait_until_a_write_begins(process: subprocess.Popen, folder: Path) -> None:
    known = set(folder.glob(f"{files.TEMPORARY_PREFIX}*"))
    while process.poll() is None:
        if set(folder.glob(f"{files.TEMPORARY_PREFIX}*")) - known:
            return
        time.sleep(0.0005)


def assert_every_file_is_whole(out: Path) -> None:
    """Whatever has a name of its own can be read to its end."""
    run = Run(out)
    assert not run.locked()
    if run.started:
        assert run.info.state in {"running", "done"}
        assert run.recipe.name == "kill"
    for checkpoint in (out / "checkpoints").glob("[0-9]*.npz"):
        with np.load(checkpoint) as content:
            assert all(content[name] is not None for name in content.files)
    epochs = [row["epoch"] for row in run.history]
    assert epochs == sorted(set(epochs))
    for path in (run.keras_model, out / "predictions.npz"):
        if path.exists():
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None


def describe(out: Path) -> str:
    newest = sorted(path.stem for path in (out / "checkpoints").glob("[0-9]*.npz"))
    state = Run(out).info.state if Run(out).started else "not begun"
    return f"{state}, checkpoint {newest[-1] if newest else 'none'}"


def leftovers_of_a_write(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob(f"{files.TEMPORARY_PREFIX}*"))


def weights(out: Path) -> dict[str, np.ndarray]:
    """The weights in model.keras, by name."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.array(item)

    with zipfile.ZipFile(out / "model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(keep)
    assert found
    return found


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )
