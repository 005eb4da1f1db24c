"""Whether `tinylens audit` finds faults that were planted in real data sets.

Copies: 500 images of train take the place of test images; 100 as they are, 200 saved again as
JPEG, 200 moved by up to two pixels or changed in brightness and contrast. A test image counts as
found where the audit says that it leaks; those that it names in the untouched set, too, are left
out. Flips: 5 % of the labels of train are changed to another class at random, and labels are
doubted with --folds 5. The command is run as a user types it, in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import machine
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.load import load
from tinylens.data.readers import arrays

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
SETS = {"fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}
COPIES, EXACT, JPEG = 500, 100, 200
FLIPPED = 0.05
RECALL = 0.75


def main() -> None:
    """Plant, audit, and count what was found."""
    parser = machine.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--faults", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--flip-sets", nargs="+", choices=SETS, default=["fashion-mnist"])
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--seeds", type=int, default=1)
    requested = parser.parse_args()
    if requested.quick:
        requested.faults, requested.sets = requested.faults[:1], requested.sets[:1]
    rows: list[dict[str, Any]] = []
    for fault in requested.faults:
        for name in requested.flip_sets if fault == "flips" else requested.sets:
            data = load(str(requested.cifar.resolve()) if name == "cifar10" else name, val=0)
            for seed in range(requested.seeds):
                rows.append({"set": name, "fault": fault, "seed": seed})
                rows[-1] |= MEASURES[fault](data, np.random.default_rng(seed), requested)
                print(rows[-1], file=sys.stderr)
    headings = ["planted faults", "found", "precision", "recall", "s"]
    table = [
        [
            f"{SETS[row['set']]}, {row['fault']}",
            f"{row['found']:,} of {row['planted']:,}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    machine.print_table(headings, table)
    kept = [] if requested.quick else _kept(requested.faults)
    path = machine.write_results("faults", {"machine": machine.describe(), "rows": kept + rows})
    print(f"\nwritten: benchmarks/results/{path.name}")


def _kept(measured: list[str]) -> list[dict[str, Any]]:
    """Return the rows of faults that are not measured now."""
    path = machine.RESULTS / "faults.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    return [row for row in rows if row["fault"] not in measured]


def copies(data: Splits, random: np.random.Generator, _: argparse.Namespace) -> dict[str, Any]:
    """Plant copies of train in test, and count the test images that are said to leak."""
    sources = random.choice(len(data.train), COPIES, replace=False)
    places = random.choice(len(data.test), COPIES, replace=False)
    images = np.array(data.test.images)
    kinds = []
    for number, (source, place) in enumerate(zip(sources, places, strict=True)):
        kind, change = _changes(number)
        images[place] = change(data.train.images[source], random)
        kinds.append(kind)
    untouched, _ = audit(data.train, data.test)
    found, seconds = audit(data.train, replace(data.test, images=images))
    known = _leaking(untouched) - set(places.tolist())
    leaking, planted = _leaking(found) - known, set(places.tolist())
    missed = [kind for kind, place in zip(kinds, places, strict=True) if place not in leaking]
    return {
        "planted": COPIES,
        "found": len(leaking & planted),
        "precision": len(leaking & planted) / max(len(leaking), 1),
        "recall": len(leaking & planted) / COPIES,
        "missed": {kind: missed.count(kind) for kind in sorted(set(missed))},
        "named in the untouched set": len(_leaking(untouched)),
        "seconds": round(seconds, 1),
    }


def flips(
    data: Splits, random: np.random.Generator, requested: argparse.Namespace
) -> dict[str, Any]:
    """Flip labels of train, and count those that are doubted."""
    labels, classes = data.train.labels.copy(), len(data.class_names)
    flipped = random.choice(len(labels), int(FLIPPED * len(labels)), replace=False)
    labels[flipped] = (labels[flipped] + random.integers(1, classes, len(flipped))) % classes
    found, seconds = audit(replace(data.train, labels=labels), data.test, "--folds", "5")
    doubted = {row["index"] for row in found["label_issues"] if row["split"] == "train"}
    right = doubted & set(flipped.tolist())
    proposals = {
        row["index"]: row["proposed"] for row in found["label_issues"] if row["split"] == "train"
    }
    named = sum(proposals[row] == data.class_names[data.train.labels[row]] for row in sorted(right))
    ranked = [row["index"] for row in found["label_issues"] if row["split"] == "train"]
    hits = np.cumsum(np.isin(ranked, flipped))
    enough = np.flatnonzero(hits >= RECALL * len(flipped))  # reading from the most doubtful on
    return {
        "planted": len(flipped),
        "found": len(right),
        "precision": len(right) / max(len(doubted), 1),
        "recall": len(right) / len(flipped),
        f"precision at recall {RECALL}": (
            float(hits[enough[0]] / (enough[0] + 1)) if len(enough) else None
        ),
        "proposed the label as it was": named / max(len(right), 1),
        "seconds": round(seconds, 1),
    }


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"copies": copies, "flips": flips}


def audit(train: Dataset, test: Dataset, *options: str) -> tuple[dict[str, Any], float]:
    """Return what the command finds in the two parts, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as folder:
        arrays.write(f"{folder}/planted.npz", Splits(train, None, test))
        words = ["audit", f"{folder}/planted.npz", "--out", f"{folder}/audit", *options, "--json"]
        begun = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", "tinylens", *words], check=False, capture_output=True, text=True
        )
        seconds = time.perf_counter() - begun
        if ended.returncode:
            raise RuntimeError(f"tinylens {' '.join(words)}: {ended.stderr[-2000:]}")
        return json.loads(ended.stdout)["audit"], seconds


def _leaking(found: dict[str, Any]) -> set[int]:
    """Return the rows of test that are in train, too."""
    rows = set()
    for twin in found["duplicates"]:
        ends = dict(zip(twin["splits"], (twin["a"], twin["b"]), strict=True))
        if set(ends) == {"train", "test"}:
            rows.add(ends["test"])
    return rows


# --- how a copy differs

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _changes(number: int) -> tuple[str, Change]:
    if number < EXACT:
        return "exact", lambda image, _: image
    if number < EXACT + JPEG:
        return "JPEG", _saved_again
    return ("moved", _moved) if number % 2 else ("brightened", _brightened)


def _saved_again(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    grey = image.shape[2] == 1
    sample = Image.fromarray(image[..., 0] if grey else image)
    sample.save(file, "JPEG", quality=int(random.integers(60, 96)))
    pixels = np.asarray(Image.open(file))
    return pixels[..., None] if grey else pixels


def _moved(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    down, right = 0, 0
    while down == right == 0:
        down, right = random.integers(-2, 3, 2)
    rows, columns = (np.arange(side) for side in image.shape[:2])
    from_rows = np.clip(rows - down, 0, len(rows) - 1)
    return image[from_rows[:, None], np.clip(columns - right, 0, len(columns) - 1)]


def _brightened(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    changed = image * random.uniform(0.85, 1.15) + random.uniform(-20, 20)
    return np.clip(changed, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
