"""Whether `tinylens train --budget` ends in time, and what more time gains.

Each budget is a run of the command as a user types it, in a process of its own: the clock runs from
the start of the process to its end. Compared are the seconds that were planned and those that it
took, and the accuracies on test from budget to budget: each must beat the one before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from tinylens.cli.train import parse_seconds

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
SETS = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}


def main() -> None:
    """Train with every budget on every set, and tell."""
    parser = machine.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--budgets", nargs="+", default=["60s", "5m", "20m"])
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--seeds", type=int, default=1)
    requested = parser.parse_args()
    budgets = requested.budgets[:1] if requested.quick else requested.budgets
    described = machine.describe()
    rows = []
    for name in requested.sets:
        for budget in budgets:
            for seed in range(requested.seeds):
                rows.append(measure(name, budget, seed, requested))
                print(rows[-1], file=sys.stderr)
    show(rows)
    path = machine.write_results("budget", {"machine": described, "rows": rows})
    print(f"\nwritten: benchmarks/results/{path.name}")


def measure(name: str, budget: str, seed: int, requested: argparse.Namespace) -> dict[str, Any]:
    """Train once and return what was planned and what came of it."""
    data = str(requested.cifar.resolve()) if name == "cifar10" else name
    words = ["train", data, "--budget", budget, "--seed", str(seed), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "tinylens", *words],
            cwd=folder,
            env=dict(os.environ),
            check=False,
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - begun
        if ended.returncode:
            raise RuntimeError(f"tinylens {' '.join(words)}: {ended.stderr[-2000:]}")
        answer = json.loads(ended.stdout)
        info = json.loads((Path(folder) / answer["run"] / "run.json").read_text("utf-8"))
    test = answer["evaluation"]["splits"]["test"]["accuracy"]
    return {
        "set": name,
        "budget": budget,
        "seed": seed,
        "seconds": round(seconds, 1),
        "within": seconds <= parse_seconds(budget),
        "accuracy": test["value"],
        "plan": info["plan"],
        "measured": info["seconds"],
        "notes": [note for note in info["notes"] if "budget" in note],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print a row a run: planned against taken."""
    table = []
    for row in rows:
        planned, taken = row["plan"]["fit_seconds"], row["measured"]["train"]
        table.append(
            [
                f"{SETS[row['set']]}, {row['budget']}",
                f"{row['seconds']:.0f}",
                "yes" if row["within"] else "NO",
                f"{planned:.0f}",
                f"{taken:.0f}",
                f"{100 * (taken / planned - 1):+.0f} %",
                str(row["plan"]["widths"]),
                f"{row['plan']['passes']:.1f}",
                f"{row['accuracy']:.4f}",
            ]
        )
    headings = ["budget", "s in all", "within", "s planned", "s trained", "off by"]
    machine.print_table([*headings, "widths", "passes", "test"], table)


if __name__ == "__main__":
    main()
