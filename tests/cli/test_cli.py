"""The command line as a person meets it: real processes, real exit codes, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

TINY = (
    "--set", "model.options.widths=[4]", "--set", "model.options.dense=[8]",
    "--set", "train.batch_size=50",
)  # fmt: skip


def tinylens(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tinylens", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small data set in it: stripes.npz, 600 images of 16×16, 4 classes."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 600)
    images = random.integers(0, 120, (600, 16, 16), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 100
    np.savez(
        tmp_path / "stripes.npz",
        x_train=images[:500],
        y_train=labels[:500],
        x_test=images[500:],
        y_test=labels[500:],
    )
    return tmp_path


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tinylens", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "shapez"], 4, "did you mean shapes?"),
        (["train", "shapes", "--recipe", "clasic"], 2, "did you mean classic?"),
        (["train", "shapes", "--recipe", "mine.toml"], 2, "no recipe file mine.toml"),
        (["train", "shapes", "--set", "train.epoch=3"], 2, "did you mean train.epochs?"),
        (["train", "shapes", "--set", "train.epochs"], 2, "expected KEY=VALUE"),
        (["train", "shapes", "--epochs", "0"], 2, "train.epochs: expected greater than"),
        (["train", "shapes", "--seeds", "1"], 2, "--seeds 1: expected 2 to 100"),
        (["train", "shapes", "--seeds", "3", "--folds", "3"], 2, "expected one of them"),
        (["train", "shapes", "--seeds", "3", "--budget", "5m"], 2, "plans for one training"),
        (["train", "shapes", "--ensemble", "1"], 2, "--ensemble 1: expected 2 to 100"),
        (["train", "shapes", "--ensemble", "3", "--seeds", "3"], 2, "--ensemble and --seeds"),
        (["train", "shapes", "--distil", "nowhere"], 5, "no model file nowhere"),
        (["train", "shapes", "--backend", "jaxx"], 2, "did you mean jax?"),
        (["train"], 2, "Missing argument"),
        (["recipes", "clasic"], 2, "did you mean classic?"),
        (["report", "nowhere"], 2, "no run folder nowhere"),
        (["predict", "nowhere.onnx", "x.png"], 5, "nowhere.onnx"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_a_code(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = tinylens(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert list(tmp_path.iterdir()) == []


def test_errors_speak_json_too(tmp_path: Path) -> None:
    result = tinylens("train", "shapez", "--json", cwd=tmp_path)
    assert result.returncode == 4
    assert json.loads(result.stdout)["error"]["type"] == "DataError"


def test_a_wrong_network_option_is_named_before_anything_is_written(tmp_path: Path) -> None:
    result = tinylens("train", "shapes", "--set", "model.options.width=[4]", cwd=tmp_path)
    assert result.returncode == 2
    assert "model.options.width: classic has no such option, did you mean widths?" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_recipes_are_listed_and_shown_whole(tmp_path: Path) -> None:
    assert "classic" in tinylens("recipes", cwd=tmp_path).stdout
    shown = json.loads(tinylens("recipes", "classic", "--json", cwd=tmp_path).stdout)
    assert shown["classic"]["optimizer"]["name"] == "adam"


@pytest.mark.slow
def test_training_leaves_the_whole_run_folder(folder: Path) -> None:
    result = tinylens("train", "stripes.npz", "--epochs", "1", *TINY, "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    run = folder / said["run"]
    assert run.name == "stripes-classic-1"
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "recipe.toml", "run.json", "history.csv", "events", "model.keras", "model.onnx",
        "evaluation.json", "predictions.npz", "plots", "report.html",
    }  # fmt: skip
    info = json.loads((run / "run.json").read_text())
    assert info["state"] == "done"
    assert [opening["command"] for opening in info["test_opened"]] == [info["command"]]
    assert set(info["seconds"]) == {"load", "train", "evaluate", "ood", "export", "total"}
    assert said["evaluation"] == json.loads((run / "evaluation.json").read_text())


@pytest.mark.slow
def test_what_is_shipped_does_not_tell_where_it_was_trained(folder: Path) -> None:
    given = (str(folder / "stripes.npz"), "--epochs", "1", *TINY, "--json")
    result = tinylens("train", *given, cwd=folder)
    assert result.returncode == 0, result.stderr
    model = (folder / json.loads(result.stdout)["run"] / "model.onnx").read_bytes()
    assert b"stripes.npz" in model and folder.name.encode() not in model


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(
    folder: Path, number: signal.Signals, code: int
) -> None:
    command = ("train", "stripes.npz", "--epochs", "40", *TINY)
    process = start(*command, cwd=folder)
    wait_for(folder / "runs/stripes-classic-1/checkpoints/00001-*.npz")
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in said
    run = folder / "runs/stripes-classic-1"
    assert json.loads((run / "run.json").read_text())["state"] == "running"

    short = ("--set", "train.early_stopping=1")  # another recipe: it must not continue that run
    other = tinylens("train", "stripes.npz", "--epochs", "1", *TINY, *short, "--json", cwd=folder)
    assert json.loads(other.stdout)["run"].endswith("stripes-classic-2")
    again = tinylens(*command, "--json", cwd=folder)
    assert json.loads(again.stdout)["run"].endswith("stripes-classic-1")
    assert len((run / "history.csv").read_text().splitlines()) == 41


@pytest.mark.slow
@pytest.mark.slow
def test_seeds_and_folds_leave_a_series_with_a_summary(folder: Path) -> None:
    command = ("train", "stripes.npz", "--epochs", "1", *TINY)
    result = tinylens(*command, "--seeds", "2", "--json", cwd=folder)
    tree = json.loads(result.stdout)
    assert tree["runs"] == ["seed-0", "seed-1"]
    series = folder / tree["folder"]
    assert series.name == "stripes-classic-seeds-1"
    assert len(tree["figures"]["accuracy"]["values"]) == 2
    assert json.loads((series / "seed-1" / "run.json").read_text())["seed"] == 1
    result = tinylens(*command, "--folds", "2", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "2 folds of 500 images in all" in " ".join(result.stdout.split())
    with np.load(folder / "runs" / "stripes-classic-folds-1" / "out_of_fold.npz") as kept:
        assert kept["probabilities"].shape == (500, 4)


@pytest.mark.slow
def test_two_processes_never_write_one_run(folder: Path) -> None:
    command = ("train", "stripes.npz", "--epochs", "200", *TINY, "--out", "mine")
    first = start(*command, cwd=folder)
    try:
        wait_for(folder / "mine/checkpoints/00001-*.npz")
        second = tinylens(*command, cwd=folder)
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=120)
    assert second.returncode == 2
    assert f"is being written by process {first.pid} on" in second.stderr


@pytest.mark.slow
def test_divergence_stops_with_step_and_rate(folder: Path) -> None:
    # a decay of 0.9 at a rate of 10 multiplies every weight by -8 a step
    wild = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 10,
        "optimizer.warmup": 0,
        "optimizer.schedule": "constant",
        "optimizer.weight_decay": 0.9,
        "train.precision": "float32",
    }
    changes = [word for key, value in wild.items() for word in ("--set", f"{key}={value}")]
    result = tinylens("train", "stripes.npz", "--epochs", "40", *TINY, *changes, cwd=folder)
    assert result.returncode == 6, result.stdout
    assert "the loss stopped being a number by step" in result.stderr
    assert "learning rate 10" in result.stderr
    info = json.loads((folder / "runs/stripes-classic-1/run.json").read_text())
    assert info["state"] == "failed"
    assert "learning rate" in info["error"]
