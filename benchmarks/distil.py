"""What a small network gains from a teacher, on Fashion-MNIST: recipe `small` with and without one.

The teacher is `accurate` with six views (test-time augmentation), trained once; the students have
the same epochs, seeds and parts, chosen on val, judged on test. Each training is a run of its own,
which a second call finds finished. Answers are timed in a process of its own on one core, which
`os.sched_setaffinity` ties it to as taskset would: model.onnx as it ships, one thread of
onnxruntime, one image in memory, files in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import machine

DATASET = "fashion-mnist"
TEACHER = ("accurate", {"model.tta_views": 6})
STUDENT = "small"
KINDS = ("alone", "taught")
RUNS = machine.ROOT / "runs" / "benchmark-distil"


def main() -> None:
    """Train the teacher and all students, time them, and compare."""
    parser = machine.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs are, or will be")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--core", type=int, help="that answers are timed on; else the last one")
    parser.add_argument("--train", metavar="NAME", help="for its own use: train one run")
    parser.add_argument("--time", nargs="+", metavar="RUN", help="for its own use: time runs")
    requested = parser.parse_args()
    requested.runs = requested.runs.absolute()
    if requested.train:
        print(json.dumps(train(requested.train, requested)))
    elif requested.time:
        print(json.dumps(time_answers(requested)))
    else:
        compare(requested)


def compare(requested: argparse.Namespace) -> None:
    described = machine.describe()
    if requested.quick:  # of other lengths than those that are published
        requested.runs = requested.runs / "quick"
    seeds = range(1 if requested.quick else requested.seeds)
    names = [f"{kind}-{seed}" for seed in seeds for kind in KINDS[:: 1 if seed % 2 else -1]]
    found = {
        name: _in_a_process("--train", name, requested=requested) for name in ("teacher", *names)
    }
    times = _in_a_process("--time", *found, requested=requested)
    for name, row in found.items():
        row["one_p50_ms"] = times[name]
    results = {
        "machine": described,
        "teacher": found["teacher"],
        "students": {kind: _spread([found[f"{kind}-{seed}"] for seed in seeds]) for kind in KINDS},
    }
    _print(results)
    print(f"\nwritten: benchmarks/results/{machine.write_results('distil', results).name}")


def _in_a_process(option: str, *words: str, requested: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--runs", str(requested.runs), option, *words]
    command += ["--quick"] if requested.quick else []
    command += [] if requested.core is None else ["--core", str(requested.core)]
    return machine.run_contender(machine.Contender(" ".join(words), command))


def _spread(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of the accuracies of several seeds, and the rows."""
    found: dict[str, Any] = {}
    for part in ("val", "test"):
        values = [row[part] for row in rows]
        found[f"{part}_mean"] = statistics.mean(values)
        found[f"{part}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return {**found, "seeds": rows}


def _print(results: dict[str, Any]) -> None:
    rows = [_row("teacher", [results["teacher"]])]
    rows += [_row(f"small, {kind}", results["students"][kind]["seeds"]) for kind in KINDS]
    headings = ["", "weights", "ONNX kB", "val %", "test %", "± sd", "ms an image"]
    machine.print_table(headings, rows)


def _row(name: str, rows: list[dict[str, Any]]) -> list[str]:
    tests = [100 * row["test"] for row in rows]
    return [
        name,
        f"{rows[0]['parameters']:,}",
        f"{max(row['bytes'] for row in rows) / 1000:.0f}",
        f"{100 * statistics.mean(row['val'] for row in rows):.2f}",
        f"{statistics.mean(tests):.2f}",
        f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "–",
        f"{statistics.median(row['one_p50_ms'] for row in rows):.4f}",
    ]


# --- one of them


def train(name: str, requested: argparse.Namespace) -> dict[str, Any]:
    """Train a run, or take the finished one, and return its figures."""
    from tinylens.data.load import load
    from tinylens.exporting import verify
    from tinylens.training import train as training

    kind, _, seed = name.partition("-")
    recipe, changes = TEACHER if kind == "teacher" else (STUDENT, {"train.seed": int(seed)})
    quick = {"train.epochs": 2} if requested.quick else {}
    teacher = requested.runs / "teacher" if kind == "taught" else None
    run = training.train(
        load(DATASET),
        recipe,
        overrides={**changes, **quick},
        teacher=teacher,
        out=requested.runs / name,
        command=f"python benchmarks/distil.py --train {name}",
    )
    scores = run.evaluation.splits
    return {
        "parameters": verify.parameters(run.model.read_bytes()),
        "bytes": run.model.stat().st_size,
        **{part: scores[part].accuracy.value for part in ("train", "val", "test")},
        "log_loss": scores["test"].log_loss.value,
        "train_seconds": run.info.seconds["train"],
    }


def time_answers(requested: argparse.Namespace) -> dict[str, float]:
    """Return the median milliseconds of an answer on one core, by the run's name."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1] if requested.core is None else requested.core})
    from tinylens.exporting import verify
    from tinylens.run import Run

    paths = {name: requested.runs / name for name in requested.time}
    seconds = 2.0 if requested.quick else 8.0
    rows = verify.compare(paths, Run(paths["teacher"]), seconds)
    return {row.name: row.one_p50_ms for row in rows}


if __name__ == "__main__":
    main()
