"""A set larger than memory: trained from the disk, beside one of the same shape in memory.

Draws shapes of 64×64 pixels, in RGB, until they fill the gigabytes asked for, into a folder of
.npy files. Then one process at a time, in turns, trains the same network for so many steps: "disk"
on the whole of that set, in a control group whose memory is limited (of version 1 or 2, made here
and removed again; making one takes root), and "memory" on as many of its first pictures as the
steps see, without the limit and held in an array. Pages that a file was read into count in the
group, too, and are what it gives back first: the disk is really read. With --whole the command
`tinylens train` itself runs in the group from start to report.

Pictures a second are those of the steps after the first epoch, which compiles.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

import machine

SIDE = 64
BASE = 20_000  # pictures that are drawn; the others are those moved to another place
PICTURE = SIDE * SIDE * 3
GROUP = "tinylens-beyond-memory"
CHUNK = 2_000


def main() -> None:
    """Make the set, train on it from disk and in memory by turns, and compare."""
    parser = machine.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--limit", type=float, default=4.0, help="gigabytes of the control group")
    parser.add_argument("--steps", type=int, default=100, help="of an epoch; two are timed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--folder", type=Path, default=Path("beyond-memory"))
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    parser.add_argument("--whole", action="store_true", help="run the command, too")
    parser.add_argument("--measure", choices=["disk", "memory"])
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked)))
        return
    try:
        draw(asked.folder, round((0.2 if asked.quick else asked.gigabytes) * 1e9) // PICTURE)
        compare(asked)
    finally:
        if not asked.keep:
            shutil.rmtree(asked.folder, ignore_errors=True)


def draw(folder: Path, count: int) -> None:
    """Write x_train.npy with `count` pictures, x_test.npy, and their labels."""
    from tinylens.data.synthetic import CLASS_NAMES, shapes

    if (folder / "y_train.npy").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = shapes(n_train=min(BASE, count), n_test=1_000, size=SIDE)
    np.save(folder / "class_names.npy", np.array(CLASS_NAMES))
    np.save(folder / "x_test.npy", drawn.test.images)
    np.save(folder / "y_test.npy", drawn.test.labels)
    random = np.random.default_rng(0)
    rows = np.arange(count) % len(drawn.train)
    labels = drawn.train.labels[rows]
    path = folder / "x_train.npy"
    whole = np.lib.format.open_memmap(path, "w+", np.uint8, (count, SIDE, SIDE, 3))
    for start in range(0, count, CHUNK):
        moved = np.roll(drawn.train.images[rows[start : start + CHUNK]], random.integers(SIDE), 1)
        whole[start : start + CHUNK] = np.roll(moved, random.integers(SIDE), 2)
    whole.flush()
    np.save(folder / "y_train.npy", labels)


def compare(asked: argparse.Namespace) -> None:
    """Train in turns; write and print what was reached."""
    described = machine.describe()
    found: dict[str, list[dict[str, Any]]] = {"memory": [], "disk": []}
    for turn in range(1 if asked.quick else asked.turns):
        for name in found if turn % 2 == 0 else list(found)[::-1]:
            row = _in_a_process(name, asked)
            found[name].append(row)
            print(f"{name}, turn {turn}: {json.dumps(row)}", file=sys.stderr)
    speeds = {n: [row["images_per_second"] for row in rows] for n, rows in found.items()}
    ratios = [a / b for a, b in zip(speeds["disk"], speeds["memory"], strict=True)]
    content: dict[str, Any] = {"machine": described, "turns": found, "ratios": ratios}
    content |= {"limit": asked.limit, "gigabytes": _size(asked.folder) / 1e9}
    if asked.whole:
        content["whole"] = _whole(asked)
    rows = [
        [n, mean_sd(speed), f"{found[n][-1]['own_gigabytes']:.2f}"] for n, speed in speeds.items()
    ]
    machine.print_table(["pictures in", "img/s", "GB of its own"], rows)
    print(f"disk / memory: {mean_sd(ratios, 3)}")
    path = machine.write_results("beyond_memory", content)
    print(f"written: benchmarks/results/{path.name}")


def mean_sd(values: list[float], digits: int = 0) -> str:
    """Return mean and standard deviation in words."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _in_a_process(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one contender in a process of its own, "disk" within the control group."""
    options = ["--folder", str(asked.folder.absolute()), "--steps", str(asked.steps)]
    options += ["--recipe", asked.recipe, "--backend", asked.backend]
    command = [sys.executable, __file__, "--measure", name, *options]
    if name == "memory":
        return _last_line(command, lambda: None)
    with group(asked.limit) as enter:
        return _last_line(command, enter)


def _last_line(command: list[str], enter: Callable[[], None]) -> dict[str, Any]:
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=enter, check=False)
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr[-2000:]}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


@contextlib.contextmanager
def group(gigabytes: float) -> Generator[Callable[[], None]]:
    """Make a control group with so much memory; yield what puts the calling process into it."""
    version_1 = Path("/sys/fs/cgroup/memory")
    root = version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")
    limit = "memory.limit_in_bytes" if version_1.is_dir() else "memory.max"
    folder = root / GROUP
    folder.mkdir()
    try:
        (folder / limit).write_text(str(round(gigabytes * 1e9)))
        yield lambda: (folder / "cgroup.procs").write_text(str(os.getpid())) and None
    finally:
        folder.rmdir()


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Train for twice the steps and return the speed of the second half, and the memory taken."""
    from tinylens import backend

    choice = backend.activate(asked.backend)
    from tinylens import compiling, fitting, memory
    from tinylens.data.arrays import read_parts
    from tinylens.data.dataset import Splits
    from tinylens.recipe import Recipe
    from tinylens.run import Run
    from tinylens.training import Silent

    recipe = Recipe.load(asked.recipe).override({"train.epochs": 2, "train.best_weights": False})
    seen = asked.steps * recipe.train.batch_size
    _forget_pages(asked.folder / "x_train.npy")
    train = read_parts(asked.folder).train
    if asked.measure == "memory":
        train = train.subset(np.arange(seen))
    share = min(seen / len(train) * (1 + 1e-9), 1.0)
    recipe = recipe.override({"train.epoch_share": share})
    available = memory.available()
    trainer = compiling.build(
        Splits(train, None, train), recipe, backend.precision("auto", choice.name)
    )
    with tempfile.TemporaryDirectory() as folder:
        state = fitting.fit(trainer, Run(folder), Silent(), lambda: False)
    return {
        "images_per_second": round(state.history[-1]["images_per_second"], 1),
        "steps": trainer.steps_of(1),
        "pictures": len(train),
        "streamed": trainer.stream is not None,
        "available_gigabytes": round(available / 1e9, 2),
        "own_gigabytes": _own_bytes() / 1e9,
    }


def _forget_pages(path: Path) -> None:
    """Let the system forget what it keeps of a file, which it did outside the control group."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _own_bytes() -> int:
    """Return the memory of this process that is of no file: it cannot be given back."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    found = next(line for line in lines if line.startswith("RssAnon"))
    return int(found.split()[1]) * 1024


def _whole(asked: argparse.Namespace) -> dict[str, Any]:
    """Run `tinylens train` on the whole set in the group; return its times and its accuracy."""
    count = len(np.load(asked.folder / "y_train.npy", mmap_mode="r"))
    share = min(asked.steps * 128 / count, 1.0)
    changes = [f"train.epoch_share={share}", "train.epochs=2", "train.score_train=10000"]
    run = asked.folder / "run"
    command = [sys.executable, "-m", "tinylens", "train", str(asked.folder), "--json"]
    command += ["--recipe", asked.recipe, "--backend", asked.backend, "--out", str(run)]
    command += [word for change in changes for word in ("--set", change)]
    _forget_pages(asked.folder / "x_train.npy")
    begun = time.perf_counter()
    with group(asked.limit) as enter:
        _last_line(command, enter)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "phases": json.loads((run / "run.json").read_text("utf-8"))["seconds"],
        "changes": changes,
    }


if __name__ == "__main__":
    main()
