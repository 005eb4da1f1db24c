"""What the input checks does for photos, and that it leaves ordinary images alone.

Photos are made of Fashion-MNIST's test images, seeded: the thing is cut out, enlarged smoothly to
a third to most of an image of 200 to 800 pixels, set down anywhere in it, on a table, cloth, wood
or floor lit from one side, with noise, and saved as JPEG of quality 60 to 95. On bright and
coloured grounds it is as bright as a camera saw it, which is the negative of Fashion-MNIST, in half
of the photos tinted. Two more kinds have one fault alone and are counted apart. Every photo goes
through `Classifier.read` as a file's content, without and with fix="all", and the ordinary test
images of both data sets through `Classifier.predict`. A network that was trained without a
reference gets the one of its training images.
"""

from __future__ import annotations

import argparse
import colorsys
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import machine
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.load import load
from tinylens.inference.classifier import Classifier, map_ahead
from tinylens.inference.input_checks.study import study
from tinylens.metrics import wilson_interval
from tinylens.system import core_count
from tinylens.training.train import train

CIFAR = machine.ROOT.parent / "shared" / "data" / "cifar10"
SEEDS = 3
QUICK_PHOTOS, QUICK_IMAGES = 350, 1_000


def main() -> None:
    """Make photos, predict them without and with the input checks, and write down how that went."""
    parser = machine.parser(__doc__)
    parser.add_argument("--runs", nargs="+", type=Path, help="trained on Fashion-MNIST already")
    parser.add_argument("--cifar-runs", nargs="+", type=Path, help="trained on CIFAR-10 already")
    parser.add_argument("--cifar", type=Path, default=CIFAR, help="the folder of Parquet files")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--photos", type=int, help="how many; else one of each image")
    parser.add_argument("--seed", type=int, default=0, help="of the photos")
    requested = parser.parse_args()
    described = machine.describe()
    fashion = load("fashion-mnist")
    runs = classifiers(fashion, requested.runs, requested)
    rows = photos_judged(runs, getattr(fashion, requested.part), requested)
    ordinary = {"Fashion-MNIST": ordinary_judged(runs, getattr(fashion, requested.part), requested)}
    if requested.cifar_runs or not requested.quick:
        cifar = load(str(requested.cifar.resolve()))
        runs = classifiers(cifar, requested.cifar_runs, requested)
        ordinary["CIFAR-10 (JPEG)"] = ordinary_judged(
            runs, getattr(cifar, requested.part), requested
        )
    show(rows, ordinary)
    results = {"machine": described, "part": requested.part, "photos": rows, "ordinary": ordinary}
    path = machine.write_results("input_checks", results)
    print(f"\nwritten: benchmarks/results/{path.name}")


def classifiers(
    data: Splits, folders: Sequence[Path] | None, requested: argparse.Namespace
) -> list[Classifier]:
    """Return networks that were trained already, or that are trained now, with references."""
    if folders:
        reference = study(data.train.images)
        found = [Classifier.open(folder) for folder in folders]
        return [replace(each, card=replace(each.card, input_checks=reference)) for each in found]
    found = []
    for seed in range(1 if requested.quick else SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            changes: dict[str, Any] = {"train.seed": seed}
            changes |= {"train.epochs": 1} if requested.quick else {}
            run = train(data, recipe="fast", overrides=changes, out=Path(folder) / "run")
            found.append(Classifier.open(run.model))
    return found


def photos_judged(
    runs: Sequence[Classifier], part: Dataset, requested: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return accuracies by kind of photo, a row a kind."""
    count = requested.photos or (QUICK_PHOTOS if requested.quick else len(part))
    kinds = np.arange(count) % len(GROUNDS)
    names = list(GROUNDS)
    contents = [
        photo(
            part.images[row, ..., 0],
            names[kinds[row]],
            np.random.default_rng([requested.seed, row]),
        )
        for row in range(count)
    ]
    labels = part.labels[:count]
    right, findings = {}, Counter()
    for fix in (
        None,
        "all",
    ):  # the networks share a reference, so the input checks sees each photo once
        reads = list(map_ahead(partial(runs[0].read, fix=fix), contents, core_count(), 64))
        images = np.stack([each.image for each in reads])
        right[fix] = np.stack([run.probabilities(images).argmax(axis=1) == labels for run in runs])
        findings.update(
            (names[kinds[row]], finding.kind)
            for row, each in enumerate(reads)
            for finding in each.findings or ()
        )
    groups = {name: kinds == number for number, name in enumerate(names)}
    photos = np.isin(kinds, [names.index(name) for name in PHOTOS])
    rows = [_row(name, where, right, findings) for name, where in groups.items()]
    return [*rows, _row("all five kinds of photos", photos, right, findings)]


def _row(
    name: str,
    where: np.ndarray,
    right: dict[str | None, np.ndarray],
    findings: Counter[tuple[str, str]],
) -> dict[str, Any]:
    without, treated = (right[fix][:, where].mean(axis=1) for fix in (None, "all"))
    return {
        "photos": name,
        "count": int(where.sum()),
        "without": float(without.mean()),
        "with": float(treated.mean()),
        "ratio": float(treated.mean() / without.mean()),
        "without_by_seed": without.tolist(),
        "with_by_seed": treated.tolist(),
        "with_interval": wilson_interval(float(treated.mean() * where.sum()), int(where.sum())),
        "found": {kind: n for (photos, kind), n in sorted(findings.items()) if photos == name},
    }


def ordinary_judged(
    runs: Sequence[Classifier], part: Dataset, requested: argparse.Namespace
) -> dict[str, Any]:
    """Return the accuracy on images as they are in the set, without and with the input checks."""
    count = QUICK_IMAGES if requested.quick else len(part)
    wanted = [part.class_names[label] for label in part.labels[:count]]
    rows = []
    for classifier in runs:
        answers = {
            fix: classifier.predict(part.images[:count], top=1, fix=fix) for fix in (None, "all")
        }
        right = {
            fix: np.array([a.label == b for a, b in zip(found, wanted, strict=True)])
            for fix, found in answers.items()
        }
        found = Counter(f.kind for each in answers["all"] for f in each.findings or ())
        rows.append(
            {
                "without": float(right[None].mean()),
                "with": float(right["all"].mean()),
                "answers that changed": int((right[None] != right["all"]).sum()),
                "found": dict(sorted(found.items())),
            }
        )
    lost = [100 * (row["without"] - row["with"]) for row in rows]
    return {"images": count, "points lost": [round(each, 4) for each in lost], "by seed": rows}


def show(rows: Sequence[dict[str, Any]], ordinary: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = [
        [
            f"{row['photos']} ({row['count']:,})",
            *(f"{row[name]:.4f}" for name in ("without", "with")),
            f"{row['ratio']:.2f}×",
        ]
        for row in rows
    ]
    for name, evaluated in ordinary.items():
        values = [
            float(np.mean([row[key] for row in evaluated["by seed"]]))
            for key in ("without", "with")
        ]
        shown = [f"{value:.4f}" for value in values]
        table.append([f"ordinary {name} ({evaluated['images']:,})", *shown, ""])
    machine.print_table(["accuracy", "without", "fix all", "ratio"], table)


# --- photos


def photo(values: np.ndarray, kind: str, random: np.random.Generator) -> bytes:
    """Return a JPEG of a Fashion-MNIST image, uint8 (28, 28), as a photo of such a kind."""
    short, ratio = int(random.integers(200, 601)), random.choice([1.0, 4 / 3, 3 / 4])
    height, width = (short, round(short * ratio)) if ratio >= 1 else (round(short / ratio), short)
    if kind == "enlarged alone":
        height = width = short
    share = 1.0 if kind == "enlarged alone" else random.uniform(0.35, 0.85)
    ground = GROUNDS[kind](height, width, random)
    thing, covered = _set_down(values, (height, width), share, kind in CAMERA, random)
    sample = ground * (1 - covered) + thing * covered
    if kind in PHOTOS:
        sample = sample * _light(height, width, random)
        sample = sample + random.normal(0, random.uniform(1, 4), sample.shape)
    file = io.BytesIO()
    image = Image.fromarray(np.clip(np.rint(sample), 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=int(random.integers(60, 96)))
    return file.getvalue()


def _set_down(
    values: np.ndarray,
    size: tuple[int, int],
    share: float,
    negative: bool,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the thing somewhere in an image, (h, w, 3), and how much it covers, (h, w, 1)."""
    look, alpha = _cut_out(values)
    look = 255 - look if negative else look
    side = round(share * min(size))
    top, left = (int(random.integers(0, room - side + 1)) for room in size)
    inside = slice(top, top + side), slice(left, left + side)
    thing, covered = np.zeros((*size, 1)), np.zeros((*size, 1))
    for canvas, drawn in ((thing, look), (covered, alpha)):
        large = Image.fromarray(drawn).resize((side, side), Image.Resampling.BICUBIC)
        canvas[(*inside, 0)] = np.asarray(large)
    tint = np.ones(3)
    if negative and random.random() < 0.5:
        tint = random.uniform(0.6, 1.0, 3)
    return thing * tint / tint.max(), covered / 255


def _cut_out(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how bright the thing is, and how much of each pixel it covers, 255 for all.

    Along its outline pixels are mixed with black; there it is as bright as its brightest neighbour.
    """
    around, inner = np.pad(values, 1), np.pad(values > 0, 1)
    places = [np.s_[y : y + 28, x : x + 28] for y in range(3) for x in range(3)]
    whole = np.min([inner[place] for place in places], axis=0)
    brightest = np.max([around[place] for place in places], axis=0)
    alpha = np.where(whole, 255, np.minimum(255, values.astype(int) * 4)).astype(np.uint8)
    return np.where(whole, values, brightest).astype(np.uint8), alpha


def _light(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Return a factor a pixel: up to a fifth brighter on one side and darker on the other."""
    angle, strength = random.uniform(0, 2 * np.pi), random.uniform(0, 0.2)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    return (1 + strength * (np.cos(angle) * x + np.sin(angle) * y) / 1.4)[..., None]


def _one_colour(height: int, width: int, colour: np.ndarray) -> np.ndarray:
    return np.full((height, width, 3), colour)


def _white(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    return _one_colour(height, width, random.uniform(225, 255) * random.uniform(0.96, 1, 3))


def _cloth(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    hue, saturation, value = random.uniform([0, 0.25, 0.35], [1, 0.9, 0.95])
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    return _one_colour(height, width, colour)


def _wood(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    if random.random() < 0.5:
        x, y = y, x
    curvature = 0.15 * np.sin(2 * np.pi * (random.uniform(0.3, 1) * y + random.uniform()))
    rings = enumerate(random.uniform(4, 30, 4), 1)
    grain = sum(
        np.sin(2 * np.pi * (often * (x + curvature / k) + random.uniform())) / k
        for k, often in rings
    )
    tone = np.array([1, random.uniform(0.65, 0.8), random.uniform(0.4, 0.6)])
    planks = 1 + 0.06 * (np.floor(x * random.uniform(2, 4)) % 2)
    light = planks + random.uniform(0.04, 0.1) * grain
    return random.uniform(110, 210) * tone * light[..., None]


def _dark(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    return _one_colour(height, width, random.uniform(10, 60) * random.uniform(0.85, 1, 3))


def _grey(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    return _one_colour(height, width, random.uniform(70, 180) * random.uniform(0.96, 1, 3))


def _black(height: int, width: int, _: np.random.Generator) -> np.ndarray:
    return np.zeros((height, width, 3))


GROUNDS: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "white table": _white,
    "coloured cloth": _cloth,
    "wood": _wood,
    "grey card": _grey,
    "dark floor": _dark,
    "margins alone": _black,
    "enlarged alone": _black,
}
PHOTOS = ("white table", "coloured cloth", "wood", "grey card", "dark floor")
CAMERA = (
    "white table",
    "coloured cloth",
    "wood",
    "grey card",
)  # the rest as Fashion-MNIST shows it

if __name__ == "__main__":
    main()
