"""What to do with images whose sides have many ratios: stretch, pad or crop them.

Two sets whose ratios differ are made of known ones: Fashion-MNIST, each image cut to the smallest
box around its thing, as photographs of products are; and CIFAR-10 (JPEG), of each image a window
at a random place, its ratio from 1:2 to 2:1. Each is trained on by the `classic` recipe in one
size, once a way and seed, and judged on val alone. All ways have the same val images, written as
such: carved parts go by what the files hold, and a padded one holds something else.
"white" is what `pad` would be with a constant colour: squares that were padded before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import machine
from tinylens.data.load import load

WAYS = ("stretch", "pad", "crop", "white")
SETS = {"fashion-mnist": "Fashion-MNIST, cut close", "cifar10": "CIFAR-10 (JPEG), windows"}
CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
IMAGES = 12_000
INK = 16  # of 255: what is darker is ground
SHARES = {"val": 0.25, "test": 0.05}  # of the images; test is looked at by no one

ImageInput = NDArray[np.uint8]  # shape (height, width, channels)


def main() -> None:
    """Train every way on every set with every seed, and tell."""
    parser = machine.parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--side", type=int, default=24, help="of all, in pixels: alike in work")
    requested = parser.parse_args()
    count, seeds = (600, 1) if requested.quick else (IMAGES, requested.seeds)
    rows = []
    for name in requested.sets:
        with tempfile.TemporaryDirectory() as folder:
            source = str(requested.cifar.resolve()) if name == "cifar10" else name
            write_sets(name, source, Path(folder), count)
            for seed in range(seeds):
                for way in WAYS:
                    row = trained(Path(folder), way, seed, requested.epochs, requested.side)
                    rows.append({"set": name, **row})
                    print(rows[-1], file=sys.stderr)
    show(rows)
    described = {"machine": machine.describe(), "images": count, "epochs": requested.epochs}
    path = machine.write_results("aspect", {**described, "rows": rows})
    print(f"\nwritten: benchmarks/results/{path.name}")


def write_sets(name: str, source: str, folder: Path, count: int) -> None:
    """Write cut images as folder/cut/PART/CLASS/ROW.png, and squares of them as folder/white."""
    train = load(source, val=0).train
    random = np.random.default_rng(0)
    rows = random.permutation(len(train))[:count]
    first, second = np.cumsum([round(share * count) for share in SHARES.values()])
    parts = dict.fromkeys(rows[:first].tolist(), "val")
    parts |= dict.fromkeys(rows[first:second].tolist(), "test")
    for row in np.sort(rows).tolist():
        cut = (
            close(train.images[row])
            if name == "fashion-mnist"
            else window(train.images[row], random)
        )
        for kind, image in (("cut", cut), ("white", on_white(cut))):
            place = folder / kind / parts.get(row, "train") / f"{train.labels[row]}"
            place.mkdir(parents=True, exist_ok=True)
            squeezed = image[..., 0] if image.shape[2] == 1 else image
            Image.fromarray(squeezed).save(place / f"{row:06}.png")


def close(image: ImageInput) -> ImageInput:
    """Return the smallest part that holds all that is brighter than the ground."""
    rows, columns, _ = np.nonzero(image > INK)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def window(image: ImageInput, random: np.random.Generator) -> ImageInput:
    """Return a part of random ratio and place, as large as it can be."""
    side = image.shape[0]
    ratio = 2 ** random.uniform(-1, 1)
    width, height = (round(side * min(ratio, 1)), round(side * min(1 / ratio, 1)))
    left, top = random.integers(0, side - width + 1), random.integers(0, side - height + 1)
    return image[top : top + height, left : left + width]


def on_white(image: ImageInput) -> ImageInput:
    """Return an image in the middle of a white square."""
    height, width, channels = image.shape
    side = max(height, width)
    square = np.full((side, side, channels), 255, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def trained(folder: Path, way: str, seed: int, epochs: int, side: int) -> dict[str, Any]:
    """Train once and return what val says."""
    data, aspect = ("white", "stretch") if way == "white" else ("cut", way)
    out = folder / f"{way}-{seed}"
    words = ["train", data, "--aspect", aspect, "--seed", str(seed), "--epochs", str(epochs)]
    words += ["--out", str(out), "--size", str(side), "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "tinylens", *words],
        cwd=folder,
        env={**os.environ, "TINYLENS_CACHE": str(folder / "cache")},
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(f"tinylens {' '.join(words)}: {ended.stderr[-2000:]}")
    info = json.loads((out / "run.json").read_text("utf-8"))
    val = json.loads(ended.stdout)["evaluation"]["splits"]["val"]
    return {
        "way": way,
        "seed": seed,
        "image": info["image"],
        "val_images": info["splits"]["val"]["size"],
        "val_accuracy": val["accuracy"]["value"],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print a row a set and way: mean and standard deviation over the seeds."""
    table = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for way in WAYS:
            mine = [row for row in rows if (row["set"], row["way"]) == (name, way)]
            found = np.array([row["val_accuracy"] for row in mine])
            spread = found.std(ddof=1) if len(found) > 1 else 0.0
            side = str(mine[0]["image"]["height"])
            table.append([SETS[name], way, side, f"{found.mean():.4f} ± {spread:.4f}"])
    machine.print_table(["set", "aspect", "side", "val accuracy"], table)


if __name__ == "__main__":
    main()
