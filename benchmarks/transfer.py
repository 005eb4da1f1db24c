"""What a body trained on other classes is worth where images are few, on CIFAR-10 (JPEG).

A seed draws five of the ten classes; recipe `fast` trains the source on all their images. Of each
of the other five classes 100 images of train are drawn. Three runs see them, without a val split,
and are judged on the test images of these five classes: trained on from the source (--from), a
linear probe (--probe), and from scratch by the same recipe, with as many epochs more as the
probe's seconds have room for, rounded up. Each is a run of its own, which a second call finds
finished.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import machine

if TYPE_CHECKING:
    from tinylens.data.dataset import Splits

RECIPE = "fast"
# an epoch of 500 images in steps of 500 would be a single step
FEW = {
    "train.batch_size": 50,
    "train.hard_example_fraction": 1.0,
    "train.progressive_resize_scale": 1.0,
    "train.score_train": 0,
}
CLASSES, IMAGES = 5, 100
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided, by the number of seeds
WARM_UP = 3  # epochs of which the median pace is taken for those from scratch


def main() -> None:
    """Train all runs, compare them and write the results."""
    parser = machine.parser(__doc__)
    parser.add_argument("data", help="CIFAR-10 as images: a folder of parquet files, say")
    parser.add_argument("--runs", type=Path, default=machine.ROOT / "runs" / "benchmark-transfer")
    parser.add_argument("--sources", type=Path, help="with runs source-run-SEED of these classes")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--source-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12, help="of --from")
    requested = parser.parse_args()
    if requested.quick:
        requested.seeds, requested.source_epochs, requested.epochs = 2, 1, 2
    from tinylens.data.load import load

    described, data = machine.describe(), load(requested.data, val=0)
    rows = [of_seed(data, seed, requested) for seed in range(requested.seeds)]
    results = {
        "machine": described,
        "recipe": RECIPE,
        "changes": FEW,
        "sources": "trained here" if requested.sources is None else "trained before",
        "source_epochs": requested.source_epochs,
        "epochs": requested.epochs,
        "seeds": rows,
        "from_minus_scratch": interval([row["from"] - row["scratch"] for row in rows]),
        "probe_minus_scratch": interval([row["probe"] - row["scratch"] for row in rows]),
    }
    _print(results)
    print(f"\nwritten: benchmarks/results/{machine.write_results('transfer', results).name}")


def of_seed(data: Splits, seed: int, requested: argparse.Namespace) -> dict[str, Any]:
    """Train the four runs of a seed and return their figures."""
    drawn = np.random.default_rng(seed).permutation(len(data.class_names))
    first, others = np.sort(drawn[:CLASSES]), np.sort(drawn[CLASSES:])
    folder = requested.runs / f"seed-{seed}"

    def train(kind: str, part: Splits, epochs: int, **options: Any) -> Any:
        from tinylens.training import train as training

        changes = {"train.epochs": epochs, "train.seed": seed}
        changes |= {} if kind == "source" else FEW
        command = f"python benchmarks/transfer.py (seed {seed}, {kind})"
        return training.train(
            part,
            RECIPE,
            overrides=changes,
            out=folder / kind,
            command=command,
            report=False,
            **options,
        )

    if requested.sources is None:
        source = train("source", of_classes(data, first), requested.source_epochs).path
    else:
        source = requested.sources / f"source-run-{seed}"
    few = of_classes(data, others, IMAGES, seed)
    tuned = train("from", few, requested.epochs, source=source)
    probe = train("probe", few, requested.epochs, source=source, probe=True)
    seconds = tuned.info.seconds["train"] + tuned.info.seconds["probe"]
    paces = [row["seconds"] for row in tuned.history[1:]][-WARM_UP:]
    # compiling takes both alike, so the probe's seconds alone are made up for, in whole epochs
    epochs = requested.epochs + math.ceil(tuned.info.seconds["probe"] / statistics.median(paces))
    scratch = train("scratch", few, epochs)
    runs = {"from": tuned, "probe": probe, "scratch": scratch}
    return {
        "classes": [data.class_names[each] for each in others],
        **{name: run.evaluation.splits["test"].accuracy.value for name, run in runs.items()},
        "from_seconds": seconds,
        "probe_seconds": probe.info.seconds["probe"],
        "scratch_seconds": scratch.info.seconds["train"],
        "scratch_epochs": epochs,
    }


def of_classes(
    data: Splits, classes: np.ndarray, images: int | None = None, seed: int = 0
) -> Splits:
    """Return train and test of some classes, of train so many images a class."""
    from tinylens.data.dataset import Dataset, Splits

    names = tuple(data.class_names[each] for each in classes)
    draw = np.random.default_rng([seed, 1])
    parts = {}
    for name, part in (("train", data.train), ("test", data.test)):
        rows = np.flatnonzero(np.isin(part.labels, classes))
        if images is not None and name == "train":
            rows = np.concatenate(
                [
                    draw.choice(np.flatnonzero(part.labels == each), images, replace=False)
                    for each in classes
                ]
            )
        labels = np.searchsorted(classes, part.labels[rows])
        parts[name] = Dataset(part.images[rows], labels, names, source="cifar10-part")
    return Splits(parts["train"], None, parts["test"])


def interval(differences: list[float]) -> dict[str, Any]:
    """Return the mean of paired differences with its 95 % interval by Student's t."""
    mean, count = statistics.mean(differences), len(differences)
    half = T_95[count] * statistics.stdev(differences) / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _print(results: dict[str, Any]) -> None:
    kinds = ("from", "probe", "scratch")
    rows = [
        [
            kind,
            *(f"{100 * row[kind]:.1f}" for row in results["seeds"]),
            f"{100 * statistics.mean(row[kind] for row in results['seeds']):.2f}",
            f"{statistics.mean(row[f'{kind}_seconds'] for row in results['seeds']):.1f}",
        ]
        for kind in kinds
    ]
    seeds = [f"seed {number} %" for number in range(len(results["seeds"]))]
    machine.print_table(["", *seeds, "mean %", "seconds"], rows)
    for kind in kinds[:2]:
        found = results[f"{kind}_minus_scratch"]
        print(
            f"{kind} - scratch: {100 * found['mean']:+.2f} points "
            f"({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"
        )


if __name__ == "__main__":
    main()
