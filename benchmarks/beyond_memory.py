"""A set larger than memory: trained from the disk, beside one of the same shape in memory.

Draws shapes of 64×64 pixels, in RGB, until they fill the gigabytes asked for, into a folder of
.npy files. Then a process in a control group whose memory is limited (of version 1 or 2, made here
and removed again; making one takes root) trains two networks of the same recipe, so many steps of
the one and so many of the other, in the order A B B A: one on the whole of that set, from the disk,
and one on as many of its first images as it sees, held in memory. Pages that a file was read into
count in the group, too, and are what it gives back first: the disk is really read. With --whole the
command `tinylens train` itself runs in the group from start to report.
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
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

import machine

SIDE = 64
BASE = 20_000  # images that are drawn; the others are those moved to another place
IMAGE = SIDE * SIDE * 3
GROUP = "tinylens-beyond-memory"
CHUNK = 2_000


def main() -> None:
    """Make the set, train on it from disk and in memory by turns, and compare."""
    parser = machine.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--limit", type=float, default=4.0, help="gigabytes of the control group")
    parser.add_argument("--steps", type=int, default=50, help="before the other one's turn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--folder", type=Path, default=Path("beyond-memory"))
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    parser.add_argument("--whole", action="store_true", help="run the command, too")
    parser.add_argument("--measure", action="store_true")
    requested = parser.parse_args()
    if requested.measure:
        print(json.dumps(measure(requested)))
        return
    try:
        draw(
            requested.folder,
            round((0.2 if requested.quick else requested.gigabytes) * 1e9) // IMAGE,
        )
        compare(requested)
    finally:
        if not requested.keep:
            shutil.rmtree(requested.folder, ignore_errors=True)


def draw(folder: Path, count: int) -> None:
    """Write x_train.npy with `count` images, x_test.npy, and their labels."""
    from tinylens.data.readers.synthetic import CLASS_NAMES, shapes

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


def compare(requested: argparse.Namespace) -> None:
    """Let both train; write and print what was reached."""
    described = machine.describe()
    options = ["--folder", str(requested.folder.absolute()), "--steps", str(requested.steps)]
    options += ["--recipe", requested.recipe, "--backend", requested.backend]
    options += ["--rounds", "2" if requested.quick else str(requested.rounds)]
    with group(requested.limit) as enter:
        printed = _run([sys.executable, __file__, "--measure", *options], enter)
    found = json.loads(printed.splitlines()[-1])
    speeds = found["images_per_second"]
    ratio = machine.ratio(speeds["disk"], speeds["memory"])
    content = {"machine": described, **found, "ratio": ratio, "limit_gigabytes": requested.limit}
    machine.print_table(
        ["images in", "img/s"], [[name, _mean_sd(values)] for name, values in speeds.items()]
    )
    print(f"disk / memory: {ratio}; {found['own_gigabytes']:.2f} GB of the process's own")
    if requested.whole:
        content["whole"] = _whole(requested)
        print(f"tinylens train: {content['whole']}")
    path = machine.write_results("beyond_memory", content)
    print(f"written: benchmarks/results/{path.name}")


def _mean_sd(values: list[float]) -> str:
    return f"{statistics.mean(values):.0f} ± {statistics.stdev(values):.0f}"


def _run(command: list[str], enter: Callable[[], None]) -> str:
    """Run a command in the group that `enter` puts it into, and return what it printed."""
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=enter, check=False)
    if ended.returncode:
        raise RuntimeError(f"exit code {ended.returncode}: {ended.stderr[-2000:]}")
    return ended.stdout


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


def measure(requested: argparse.Namespace) -> dict[str, Any]:
    """Return the speeds of both, turn by turn, and the memory that it took."""
    from tinylens import backend

    choice = backend.activate(requested.backend)
    from tinylens import system
    from tinylens.data.dataset import Splits
    from tinylens.data.readers.arrays import read_parts
    from tinylens.recipe import Recipe
    from tinylens.training import trainer as compiling

    recipe = Recipe.load(requested.recipe)
    batch = recipe.train.batch_size
    _forget_pages(requested.folder / "x_train.npy")
    whole = read_parts(requested.folder).train
    available = system.available()
    parts = {"disk": whole, "memory": whole.subset(np.arange(requested.steps * batch))}
    precision = backend.precision("auto", choice.name)
    trainers = {
        name: compiling.build(Splits(part, None, part), recipe, precision)
        for name, part in parts.items()
    }
    speeds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(requested.rounds + 1):
        for name in sorted(trainers, reverse=number % 2 == 0):
            speeds[name].append(round(_train(trainers[name], number, requested.steps), 1))
    return {
        "images_per_second": {name: values[1:] for name, values in speeds.items()},  # compiled
        "steps": requested.steps,
        "images": {name: len(part) for name, part in parts.items()},
        "gigabytes": whole.images.nbytes / 1e9,
        "streamed": {name: each.stream is not None for name, each in trainers.items()},
        "available_gigabytes": available / 1e9,
        "own_gigabytes": _own_bytes() / 1e9,
    }


def _train(trainer: Any, epoch: int, steps: int) -> float:
    """Take some steps as `tinylens.training.loop` does; return images a second."""
    from tinylens.models.batching import (
        in_batches,  # which imports Keras, once the backend is chosen
    )

    batch = trainer.order.batch_size
    indices = trainer.order.indices(epoch)[: steps * batch]
    draws, labels = trainer.order.draws(epoch, indices), trainer.labels[indices]
    begun = time.perf_counter()
    with trainer.reading_ahead(indices, batch):
        batches = in_batches((indices, draws), labels, batch_size=batch)
        trainer.model.fit(**batches, shuffle=False, verbose=0)
    return len(indices) / (time.perf_counter() - begun)


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


def _whole(requested: argparse.Namespace) -> dict[str, Any]:
    """Run `tinylens train` on the whole set in the group; return its times and its accuracy."""
    count = len(np.load(requested.folder / "y_train.npy", mmap_mode="r"))
    share = min(requested.steps * 128 / count, 1.0)
    changes = [f"train.epoch_share={share}", "train.epochs=2", "train.score_train=10000"]
    run = requested.folder / "run"
    command = [sys.executable, "-m", "tinylens", "train", str(requested.folder), "--json"]
    command += ["--recipe", requested.recipe, "--backend", requested.backend, "--out", str(run)]
    command += [word for change in changes for word in ("--set", change)]
    _forget_pages(requested.folder / "x_train.npy")
    begun = time.perf_counter()
    with group(requested.limit) as enter:
        _run(command, enter)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "phases": json.loads((run / "run.json").read_text("utf-8"))["seconds"],
        "changes": changes,
    }


if __name__ == "__main__":
    main()
