"""Uneven classes: what each way to make up for them brings on a long-tailed Fashion-MNIST.

Of the training images each class keeps fewer than the one before, 6,000 down to 60 (an imbalance
of 100, exponential, as Cui et al. 2019 have it), others for each seed; a tenth of every class
becomes val. The test split stays whole and even. `tinylens.train` trains with every value of
train.balance, and the macro-F1 on test is that of the run's own evaluation. "auto" chooses by
images of train and val alone; its time is that of its trials and of its training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import machine

IMBALANCE = 100
LARGEST = 6_000
CUT = 0x7A11  # of the images that are kept, beside the seed
WAYS = ("none", "weights", "sampling", "logits", "auto")


def main() -> None:
    """Train every way with every seed, and compare on test."""
    parser = machine.parser(__doc__)
    parser.add_argument("--recipes", nargs="+", default=["classic"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--measure", nargs=3, metavar=("RECIPE", "WAY", "SEED"))
    requested = parser.parse_args()
    if requested.measure:
        recipe, way, seed = requested.measure
        print(json.dumps(measure(recipe, way, int(seed), quick=requested.quick)))
    else:
        compare(requested)


def compare(requested: argparse.Namespace) -> None:
    """Run everything, each training in a process of its own; write and print what came out."""
    described = machine.describe()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for recipe in requested.recipes:
        found[recipe] = {way: [] for way in requested.ways}
        for seed in range(
            requested.first_seed, requested.first_seed + (1 if requested.quick else requested.seeds)
        ):
            for way in requested.ways:
                words = ["--measure", recipe, way, str(seed), *(["--quick"] * requested.quick)]
                command = [sys.executable, __file__, *words]
                row = machine.run_contender(machine.Contender(way, command))
                found[recipe][way].append(row)
                print(f"{recipe}, {way}, seed {seed}: {json.dumps(row)}", file=sys.stderr)
        _print(recipe, found[recipe])
        path = machine.write_results("long_tail", {"machine": described, "recipes": found})
    print(f"\nwritten: benchmarks/results/{path.name}")


def measure(recipe: str, way: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """Train one way and return the figures on test, and what auto chose."""
    import tinylens

    data = long_tailed(seed)
    changes: dict[str, Any] = {"train.balance": way, "train.seed": seed}
    if quick:
        changes["train.epochs"] = 2
    with tempfile.TemporaryDirectory() as folder:
        run = tinylens.train(data, recipe, overrides=changes, out=Path(folder) / "run")
        test, info = run.evaluation.splits["test"], run.info
    recalls = [each.recall.value for each in test.per_class]
    return {
        "macro_f1": test.f1_macro.value,
        "accuracy": test.accuracy.value,
        "recall_of_the_rarest_three": statistics.mean(recalls[-3:]),
        "balance": info.balance,
        "seconds": {name: info.seconds.get(name, 0.0) for name in ("balance", "train")},
    }


def long_tailed(seed: int) -> Any:
    """Return Splits whose train and val splits together hold 6,000 … 60 images a class."""
    from tinylens.data.dataset import Splits, stratified_split
    from tinylens.data.load import load

    whole = load("fashion-mnist", val=0)
    random = np.random.default_rng([seed, CUT])
    classes = len(whole.class_names)
    kept = []
    for label in range(classes):
        count = round(LARGEST * IMBALANCE ** (-label / (classes - 1)))
        rows = np.flatnonzero(whole.train.labels == label)
        kept.append(random.permutation(rows)[:count])
    cut = whole.train.subset(np.sort(np.concatenate(kept)))
    rest, val = stratified_split(cut.labels, 0.1, seed=0)
    parts = cut.split({"train": rest, "val": val})
    return Splits(parts["train"], parts["val"], whole.test)


def _print(recipe: str, found: dict[str, list[dict[str, Any]]]) -> None:
    rows = []
    for way, runs in found.items():
        gains = [
            100 * (run["macro_f1"] - none["macro_f1"])
            for run, none in zip(runs, found.get("none", []), strict=False)
        ]
        seconds = [sum(run["seconds"].values()) for run in runs]
        chosen = " ".join(run["balance"].get("chosen", "") for run in runs)
        rows.append(
            [
                way,
                _mean_sd([100 * run["macro_f1"] for run in runs]),
                _mean_sd(gains) if gains and way != "none" else "",
                _mean_sd([100 * run["accuracy"] for run in runs]),
                _mean_sd([100 * run["recall_of_the_rarest_three"] for run in runs]),
                f"{statistics.mean(seconds):.0f}",
                chosen,
            ]
        )
    print(f"\n{recipe}")
    headings = ["balance", "macro-F1 %", "gain", "accuracy %", "recall of 3", "seconds", "chosen"]
    machine.print_table(headings, rows)


def _mean_sd(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    main()
