"""How much memory a training takes, phase by phase, and how often the data set is in it.

A process of its own loads the data set and trains one epoch, as `tinylens train` does; meanwhile
its memory is sampled, and that of the processes that decode for it (their proportional share, Pss).
The peak is the kernel's own figure (ru_maxrss) for the training process. The same is done with half
the images: what the peak of a phase grows by for each byte of images is the number of copies
that were alive then, pages of the cache's file included, which the kernel may take back.

Data: a parquet folder with train.parquet and test.parquet in the Hugging Face layout. Linux only.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from tinylens.progress import ProgressReporter

DATA = machine.ROOT.parent / "shared" / "data" / "cifar10"
TARGET = 3_000  # MB that training on CIFAR-10 may take at most
SAMPLE_SECONDS = 0.02
KINDS = ("total", "own", "files", "helpers")


@dataclass(frozen=True)
class Sample:
    """The memory of a process at a time of the clock.

    Attributes:
        at: seconds of the monotonic clock.
        megabytes: by kind: "own" that no file stands behind, pages of "files" such as libraries and
            the decoded set, what the "helpers" hold, and the "total".
    """

    at: float
    megabytes: Mapping[str, float]


class PhaseTimes(ProgressReporter):
    """A reporter that prints when each phase begins."""

    def phase(self, name: str) -> None:
        """Print the phase and the time."""
        print(json.dumps({"phase": name, "at": time.monotonic()}), flush=True)


def train(data: str, recipe: str, folder: str) -> None:
    """Load and train for one epoch, everything written into `folder`; print what happens when."""
    reporter = PhaseTimes()
    reporter.phase("importing tinylens")
    import tinylens

    reporter.phase("loading the data")
    splits = tinylens.load(data, data_dir=Path(folder) / "cache")
    reporter.phase("importing the backend")
    out = Path(folder) / "run"
    tinylens.train(splits, recipe, out=out, overrides={"train.epochs": 1}, reporter=reporter)
    images = sum(part.images.nbytes for _, part in splits.items())
    print(json.dumps({"phase": "end", "at": time.monotonic(), "bytes": images}), flush=True)


def watch(data: Path, recipe: str) -> dict[str, Any]:
    """Run `train` in a process and return its memory: "peak", and "phases" by name, in MB."""
    with tempfile.TemporaryDirectory(prefix="tinylens-memory-") as folder:
        errors = Path(folder) / "errors.txt"
        with errors.open("w") as file:
            command = [sys.executable, __file__, "--train", str(data), recipe, folder]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True)
            samples, status, usage = _sample_until_it_ends(child.pid)
            child.returncode = status  # it was waited for here, which Popen cannot know
        printed = [json.loads(line) for line in child.stdout or ()]
        if status:
            raise RuntimeError(f"training on {data.name} failed: {errors.read_text()[-2000:]}")
    return {
        "peak": round(usage.ru_maxrss * 1024 / 1e6, 1),
        "bytes": printed[-1]["bytes"],
        "phases": _by_phase(samples, printed),
    }


def _sample_until_it_ends(pid: int) -> tuple[list[Sample], int, Any]:
    samples = []
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return samples, status, usage
        samples.append(Sample(time.monotonic(), _memory(_family(pid))))
        time.sleep(SAMPLE_SECONDS)


def _family(pid: int) -> list[int]:
    """Return a process and all that it and its children started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2]
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(after_name.split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _memory(family: list[int]) -> dict[str, float]:
    """Return the memory of a process and its helpers in MB, by kind."""
    own, *helpers = [_rollup(pid) for pid in family]
    resident, anonymous = own.get("Rss", 0.0), own.get("Anonymous", 0.0)
    helping = sum(each.get("Pss", 0.0) for each in helpers)
    total = resident + helping
    return dict(zip(KINDS, (total, anonymous, resident - anonymous, helping), strict=True))


def _rollup(pid: int) -> dict[str, float]:
    """Return the kernel's sums over a process's pages in MB; {} where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    amounts = (line.partition(":") for line in text.splitlines()[1:])
    return {name: int(amount.split()[0]) * 1024 / 1e6 for name, _, amount in amounts}


def _by_phase(samples: list[Sample], printed: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return seconds and peaks of each phase, in the order they came."""
    phases = {}
    for begun, ended in itertools.pairwise(printed):
        mine = [each for each in samples if begun["at"] <= each.at < ended["at"]]
        peaks = {
            kind: round(max((each.megabytes[kind] for each in mine), default=0.0), 1)
            for kind in KINDS
        }
        phases[begun["phase"]] = {"seconds": round(ended["at"] - begun["at"], 2), **peaks}
    return phases


def halve(data: Path, folder: Path) -> Path:
    """Write the first half of the rows of each parquet file into `folder`, and return it."""
    import pyarrow.parquet

    for file in sorted(data.glob("*.parquet")):
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(table.slice(0, len(table) // 2), folder / file.name)
    return folder


def measure(data: Path, recipe: str, rounds: int) -> dict[str, Any]:
    """Watch trainings on all and on half the images in turn; with 0 rounds one on all alone."""
    if not rounds:
        return {"whole": [watch(data, recipe)], "half": []}
    rows: dict[str, list[dict[str, Any]]] = {"whole": [], "half": []}
    with tempfile.TemporaryDirectory(prefix="tinylens-half-") as folder:
        sources = {"whole": data, "half": halve(data, Path(folder))}
        for number in range(rounds):
            for name in list(sources)[:: 1 if number % 2 == 0 else -1]:
                rows[name].append(watch(sources[name], recipe))
    return rows


def summary(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the peak, and by phase the medians and the copies of the data set."""
    whole, half = rows["whole"], rows["half"]
    phases = {}
    for phase in whole[0]["phases"]:
        row = {
            key: statistics.median(each["phases"][phase][key] for each in whole)
            for key in ("seconds", *KINDS)
        }
        if half:
            row["copies"] = round(_copies(phase, whole, half), 2)
        phases[phase] = row
    peaks = [each["peak"] for each in whole]
    return {
        "peak_megabytes": {"median": statistics.median(peaks), "high": max(peaks)},
        "share_of_target": round(max(peaks) / TARGET, 3),
        "data_megabytes": whole[0]["bytes"] / 1e6,
        "phases": phases,
        "rounds": rows,
    }


def _copies(phase: str, whole: list[dict[str, Any]], half: list[dict[str, Any]]) -> float:
    return statistics.median(
        (one["phases"][phase]["total"] - other["phases"][phase]["total"])
        / ((one["bytes"] - other["bytes"]) / 1e6)
        for one, other in zip(whole, half, strict=True)
    )


def show(found: dict[str, Any]) -> None:
    rows = [
        (
            phase,
            f"{row['seconds']:.1f}",
            *(f"{row[kind]:,.0f}" for kind in KINDS),
            f"{row['copies']:.1f}" if "copies" in row else "–",
        )
        for phase, row in found["phases"].items()
    ]
    headings = ("phase", "seconds", "peak MB", "own", "files", "helpers", "copies of the data")
    machine.print_table(headings, rows)
    print(
        f"peak {found['peak_megabytes']['high']:,.0f} MB, {found['share_of_target']:.2f} of the "
        f"{TARGET:,} MB aimed at; the images are {found['data_megabytes']:,.0f} MB"
    )


def main() -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder of parquet files")
    parser.add_argument("--recipe", default="classic-augmented")
    parser.add_argument("--train", nargs=3, help="for its own use: DATA RECIPE FOLDER")
    arguments = parser.parse_args()
    if arguments.train:
        train(*arguments.train)
        return
    if not arguments.data.is_dir():
        print(f"no data set at {arguments.data}: name one with --data; nothing was measured")
        return
    described = machine.describe()
    rows = measure(arguments.data, arguments.recipe, rounds=0 if arguments.quick else 2)
    found = {"recipe": arguments.recipe, "data": arguments.data.name, **summary(rows)}
    show(found)
    path = machine.write_results("memory", {"machine": described, **found})
    print(path.relative_to(machine.ROOT))


if __name__ == "__main__":
    main()
