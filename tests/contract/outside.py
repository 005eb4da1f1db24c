"""Commands typed from outside, and the files that they read; nothing here imports tinylens."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = {"train": 160, "val": 40, "test": 80}
NAMES = ("disc", "frame", "stripe", "wedge")
COMMAND = [sys.executable, "-m", "tinylens"]
TINY = {
    "classic": ["--epochs", 4, "--set", "model.options.widths=[8,8]", "--set",
                "model.options.dense=[16]", "--set", "train.batch_size=20"],
    "fast": ["--epochs", 4, "--set", "model.options.widths=[8,16,16]", "--set",
             "train.batch_size=40"],
}  # fmt: skip


@dataclass
class Ended:
    """A command that came to its end."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stdout holds: one document, and nothing beside it."""
        return json.loads(self.out)


@dataclass
class Shell:
    """Types commands in a folder of its own, with a cache of its own."""

    folder: Path

    def start(self, *words: Any, **environment: str) -> subprocess.Popen[str]:
        own = {"XDG_CACHE_HOME": str(self.folder / "cache"), "COLUMNS": "200", "NO_COLOR": "1"}
        return subprocess.Popen(
            [*COMMAND, *map(str, words)],
            cwd=self.folder,
            env={**os.environ, **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self, process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in out + err, err
        return Ended(process.returncode, out, err)

    def __call__(self, *words: Any, **environment: str) -> Ended:
        return self.wait(self.start(*words, **environment))

    def ok(self, *words: Any) -> Any:
        """Return what the command printed as JSON."""
        ended = self(*words, "--json")
        assert ended.code == 0, ended.err
        return ended.json


def training(recipe: str, data: Path, out: Path, *more: Any) -> list[Any]:
    """Return the words of a training of seconds."""
    same = ["--set", "train.precision=float32", "--threads", 1, "--out", out, "--json"]
    return ["train", data, "--recipe", recipe, *TINY[recipe], *same, *more]


def drawn(count: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 16, 16, 3) of four figures in any colour, and their labels.

    They stand in the order that every kind of file is put in: by the SHA-256 of their bytes.
    """
    labels = np.arange(count) % len(NAMES)
    images = random.randint(0, 60, (count, 16, 16, 3))
    rows, columns = np.mgrid[:16, :16] - 8
    for image, label, (down, right) in zip(
        images, labels, random.randint(-2, 3, (count, 2)), strict=True
    ):
        y, x = rows - down, columns - right
        figure = [y * y + x * x < 20, np.maximum(abs(y), abs(x)) == 5, x % 4 < 2, y > x][label]
        image[figure] += random.randint(90, 180, 3)
    order = sorted(range(count), key=lambda row: hashlib.sha256(png(images[row])).hexdigest())
    return images[order].astype(np.uint8), labels[order]


def png(image: np.ndarray) -> bytes:
    """Return a PNG that is not compressed, so that its bytes are the same on every machine."""
    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in image)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 0)),
        (b"IEND", b""),
    )
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@dataclass
class Kinds:
    """The same images in every kind of file; `arrays` is what they hold."""

    folder: Path
    arrays: dict[str, np.ndarray]

    def files(self, split: str) -> list[Path]:
        """Return the files of a split in the order of its arrays."""
        return sorted((self.folder / "folder" / split).glob("*/*.png"), key=lambda path: path.name)


KINDS = ("images.npz", "folder", "zipped.zip", "tarred.tar", "listed.csv", "table")


def written(folder: Path) -> Kinds:
    import pyarrow
    import pyarrow.parquet

    random = np.random.RandomState(7)  # whose numbers NumPy promises never to change
    arrays: dict[str, np.ndarray] = {}
    rows: list[tuple[str, str, str, bytes]] = []
    for split, count in SPLITS.items():
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"] = drawn(count, random)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = NAMES[label]
            rows.append((f"{split}/{name}/{number:04}.png", name, split, png(image)))
    np.savez(folder / "images.npz", class_names=np.array(NAMES), **arrays)
    for path, _, _, content in rows:
        target = folder / "folder" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        for path, _, _, content in rows:
            archive.writestr(path, content)
    with tarfile.open(folder / "tarred.tar", "w") as tar:
        tar.add(folder / "folder", arcname="inside")
    with (folder / "listed.csv").open("w", newline="") as file:
        listed = [(f"folder/{path}", name, split) for path, name, split, _ in rows]
        csv.writer(file).writerows([("path", "label", "split"), *listed])
    (folder / "table").mkdir()
    for split in SPLITS:
        own = [row for row in rows if row[2] == split]
        columns = {
            "image": [{"bytes": content, "path": path} for path, _, _, content in own],
            "label": [name for _, name, _, _ in own],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "table" / f"{split}.parquet")
    return Kinds(folder, arrays)
