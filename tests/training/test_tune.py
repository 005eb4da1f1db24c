"""The verb `tune` in processes of its own: to its end, killed and gone on, stopped politely."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinylens.recipe import Recipe
from tinylens.run import Run

WORDS = (
    *("tune", "small.npz", "--recipe", "small.toml", "--out", "search", "--jobs", "2"),
    *("--search", "optimizer.learning_rate=1e-4..1e-1:log", "--search", "train.batch_size=32,64"),
)
RECIPE = """
name = "small"
[model]
name = "classic"
options = {widths = [8, 16], dense = [], dropout = 0.0}
[train]
epochs = 4
precision = "float32"
"""


@pytest.fixture
def folder(tmp_path):
    from tinylens.data.readers import arrays
    from tinylens.data.readers.synthetic import shapes
    from tinylens.data.splits import Parts

    drawn = shapes(n_train=600, n_test=100)
    arrays.write_parts(tmp_path / "small.npz", Parts(drawn.train, drawn.val, drawn.test))
    (tmp_path / "small.toml").write_text(RECIPE, "utf-8")
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tinylens", *WORDS, *words],
        cwd=folder,
        env={**os.environ, "TINYLENS_CACHE": str(folder / "cache"), "KERAS_BACKEND": "torch"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder: Path, *words: str) -> dict[str, object]:
    with start(folder, *words, "--json") as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def wait_for_trials(folder: Path, count: int) -> None:
    records, until = folder / "search" / "trials", time.monotonic() + 120
    while len(list(records.glob("trial-*.json"))) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def states(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "search" / "study.db") as database:
        return [state for (state,) in database.execute("select state from trials order by number")]


def children(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a search has started, and those that these have."""
    requested = ["ps", "-eo", "pid=,ppid="]
    listed = subprocess.run(requested, capture_output=True, text=True, check=True).stdout
    parents = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [process.pid]
    for pid in found:  # which grows on the way
        found += [child for child, parent in parents if parent == pid]
    return found[1:]


def assert_gone(pids: list[int]) -> None:
    """Check that none of these is alive after a moment: a zombie has no command line."""
    until = time.monotonic() + 10
    while alive := [pid for pid in pids if command_line(pid)]:
        assert time.monotonic() < until, alive
        time.sleep(0.1)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_and_loses_what_was_in_flight_alone(folder):
    with start(folder, "--trials", "6") as process:
        wait_for_trials(folder, 2)
        kept = {each.name for each in (folder / "search" / "data").iterdir()}
        started = children(process)
        process.kill()
        process.wait()  # not communicate: its processes hold the pipes for a moment
    assert len(started) >= 2
    assert_gone(started)
    records = (folder / "search" / "trials").glob("trial-*.json")
    recorded = [int(each.stem.removeprefix("trial-")) for each in records]
    parts = [f"{part}-{what}.npy" for part in ("train", "val") for what in ("images", "labels")]
    assert kept == {*parts, "names.json"}  # nothing of test lies there
    summary = finish(folder, "--trials", "6")
    ended = states(folder)
    assert ended.count("COMPLETE") + ended.count("PRUNED") == 6
    assert len(recorded) >= 2 and all(ended[number] == "COMPLETE" for number in recorded)
    assert ended.count("FAIL") <= 2 and "RUNNING" not in ended
    assert summary["trials"]["done"] + summary["trials"]["pruned"] == 6
    assert summary["epochs"] == {"run": 4, "recipe": 4}
    run = Run(folder / summary["run"])
    assert run.info.state == "done" and len(run.info.test_opened) == 1  # by the run itself
    best = Recipe.load(folder / summary["best"])
    assert run.recipe.differences(best) == [] and not best.search
    default, *others = summary["choice"]["looks"]
    assert default["parameters"]["optimizer.learning_rate"] == 1e-3
    assert "train.batch_size" not in default["parameters"]  # the recipe's 128 is no choice
    assert 1 <= len(others) <= 3
    assert (folder / "search" / "plots" / "history.png").stat().st_size > 5_000
    assert not (folder / "search" / "data").exists()
    assert finish(folder, "--trials", "6")["words"] == summary["words"]  # there is nothing to do


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_signal_ends_the_search_and_its_processes(folder, number, code):
    with start(folder, "--trials", "50") as process:
        wait_for_trials(folder, 1)
        started = children(process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert len(started) >= 2
    assert_gone(started)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "expected --budget, such as 30m, or --trials, such as 50, one of them"),
        (("--trials", "5", "--budget", "5m"), "one of them"),
        (("--trials", "1"), "--trials 1: expected 2 or more"),
        (("--trials", "5", "--val", "0"), "a search judges on val"),
        (("--budget", "soon"), "--budget soon: expected a time"),
        (("--trials", "5", "--search", "train.seed=1,2"), "the best of several seeds is luck"),
        (("--trials", "5", "--search", "optimizer.rate=1,2"), "no such key in a recipe"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    type_in, tmp_path, words, said
):
    code, out, err = type_in("tune", "shapes", "--out", tmp_path / "search", *words)
    assert code in (2, 4) and out == ""
    assert err.startswith("error: ") and said in err
    assert not (tmp_path / "search").exists()
