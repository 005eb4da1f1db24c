"""Tiny data sets and images that the tests make: small enough to be written in each test."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CIFAR10_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def plain(colour: Sequence[int] = (200, 30, 60), side: int = 8) -> bytes:
    """A PNG of one colour."""
    return encoded(np.full((side, side, 3), colour, np.uint8))


def png_chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def raw_png(  # what Pillow does not write: 16-bit colour, impossible sizes, other chunks
    width: int, height: int, depth: int, colour_type: int, rows: bytes, chunks: bytes = b""
) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + pixels + png_chunk(b"IEND", b"")


def folder(root: Path, content: Mapping[str, Iterable[bytes]]) -> Path:
    """{"train/cat": [b"…"]} → root/train/cat/0.png; the names say PNG whatever the bytes are."""
    for name, images in content.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            (root / name / f"{number}.png").write_bytes(image)
    return root


def two_classes(root: Path, count: int = 3) -> Path:
    cats = [plain((200, 10 * n, 0)) for n in range(count)]
    dogs = [plain((0, 10 * n, 200)) for n in range(count)]
    return folder(root, {"cat": cats, "dog": dogs})


def idx_bytes(array: np.ndarray, kind: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return header + array.tobytes()


def idx_folder(root: Path, n_train: int = 20, n_test: int = 10, side: int = 8) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed, (prefix, count) in enumerate((("train", n_train), ("t10k", n_test))):
        images = noise(count, side, side, seed=seed)
        labels = (np.arange(count) % 5).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            (root / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return root


def cifar_records(count: int, labels: int, label_bytes: int = 1, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 256, (count, label_bytes + 3072), np.uint8)
    rows[:, :label_bytes] = (np.arange(count) % labels)[:, None]
    return rows.tobytes()


def cifar10_binary(root: Path, count: int = 10) -> Path:
    place = root / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    for number in range(1, 6):
        (place / f"data_batch_{number}.bin").write_bytes(cifar_records(count, 10, seed=number))
    (place / "test_batch.bin").write_bytes(cifar_records(count, 10, seed=9))
    (place / "batches.meta.txt").write_text("\n".join(CIFAR10_NAMES) + "\n\n")
    return place


def cifar100_binary(root: Path, count: int = 200) -> Path:
    place = root / "cifar-100-binary"
    place.mkdir(parents=True)
    for seed, name in enumerate(("train.bin", "test.bin")):
        (place / name).write_bytes(cifar_records(count, 100, 2, seed))
    names = "\n".join(f"fine{number:02}" for number in range(100))
    (place / "fine_label_names.txt").write_text(names)
    return place


def cifar_pickle(content: dict[Any, Any]) -> bytes:
    """As the publisher's: protocol 2, bytes for keys."""
    return pickle.dumps(content, protocol=2)


def cifar10_python(root: Path, count: int = 10) -> Path:
    place = root / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for seed, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        labels = [number % 10 for number in range(count)]
        data = noise(count, 3072, seed=seed)
        (place / name).write_bytes(cifar_pickle({b"data": data, b"labels": labels}))
    names = [name.encode() for name in CIFAR10_NAMES]
    (place / "batches.meta").write_bytes(cifar_pickle({b"label_names": names}))
    return place


def cifar100_python(root: Path, count: int = 200) -> Path:
    place = root / "cifar-100-python"
    place.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        fine = [number % 100 for number in range(count)]
        content = {b"data": noise(count, 3072, seed=seed), b"fine_labels": fine}
        content[b"coarse_labels"] = [number // 5 for number in fine]
        (place / name).write_bytes(cifar_pickle(content))
    names = [f"fine{number:02}".encode() for number in range(100)]
    (place / "meta").write_bytes(cifar_pickle({b"fine_label_names": names}))
    return place


def archive(source: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as tar:
        tar.add(source, source.name)
    return target


def archive_of(target: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(target, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | None],
    names: Sequence[str] = ("cat", "dog"),
    image_column: str = "image",
    label_column: str = "label",
    **others: Sequence[Any],
) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [None if p is None else {"bytes": p, "path": None} for p in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {label_column: {"names": list(names), "_type": "ClassLabel"}}
    columns = {image_column: pa.array(cells, kind), label_column: pa.array(labels), **others}
    table = pa.table(columns)
    if names:
        described = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": described})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def files_of_pets(count: int = 3) -> dict[str, bytes]:
    """{"cat/0.png": b"…"}: reddish cats and bluish dogs."""
    found = {f"cat/{n}.png": plain((200, 10 * n, 0)) for n in range(count)}
    return found | {f"dog/{n}.png": plain((0, 10 * n, 200)) for n in range(count)}


def packed(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A .zip, .tar or .tar.gz by its name, with these files."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
