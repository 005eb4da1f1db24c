"""Every reader gives back what was written, and refuses every kind of damage by name."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import builders_data as build
from conformance import READER_CHECKS, ReaderCase, tiny_dataset
from conformance.readers import FILE_DAMAGES, Damage, Read, Write
from tinylens.data import readers
from tinylens.data.dataset import Dataset
from tinylens.data.encoded import Options
from tinylens.data.readers import archive, arrays, cifar, idx, manifest, parquet, webdataset
from tinylens.data.readers import folder as image_folder

KINDS_OF_DAMAGE = 12
NOT_READERS = {"members", "synthetic"}  # modules that have no format of their own


@dataclass(frozen=True)
class Format:
    """A format: its reader, a writer for the tests, what it can hold, and how to damage it."""

    module: str
    read: Callable[..., object]
    write: Write
    data: Dataset
    damages: dict[str, Damage]


def damages_of(inner: str, *without: str) -> dict[str, Damage]:
    """The damages that suit any file, done to the file `inner` of a folder, or to the path."""
    return {
        name: functools.partial(_damage_inner, damage, inner)
        for name, damage in FILE_DAMAGES.items()
        if name not in without
    }


def _damage_inner(damage: Damage, inner: str, path: Path) -> None:
    damage(path / inner if inner else path)


def appended(inner: str, content: bytes) -> Damage:
    return lambda path: (path / inner).write_bytes((path / inner).read_bytes() + content)


def replaced(inner: str, content: bytes) -> Damage:
    return lambda path: (path / inner).write_bytes(content)


def named(data: Dataset, *names: str) -> Dataset:
    return replace(data, class_names=names or tuple(map(str, range(len(data.class_names)))))


# --- IDX

IDX_IMAGES, IDX_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def write_idx(folder: Path, data: Dataset) -> Path:
    idx.write_file(folder / IDX_IMAGES, data.images[..., 0])
    idx.write_file(folder / IDX_LABELS, data.labels.astype(np.uint8))
    return folder


def zipped_idx(array: np.ndarray, kind: int = 0x08) -> bytes:
    return gzip.compress(build.idx_bytes(array, kind))


IDX = Format(
    "idx",
    idx.read,
    write_idx,
    named(tiny_dataset((8, 8, 1), count=12)),
    damages_of(IDX_IMAGES)
    | {
        "no labels": lambda folder: (folder / IDX_LABELS).unlink(),
        "a label too few": replaced(IDX_LABELS, zipped_idx(np.zeros(11, np.uint8))),
        "no images": replaced(IDX_IMAGES, zipped_idx(np.zeros((0, 8, 8), np.uint8))),
        "images of floats": replaced(IDX_IMAGES, zipped_idx(np.zeros((12, 8, 8), "f4"), 0x0D)),
        "images in a row": replaced(IDX_IMAGES, zipped_idx(np.zeros((12, 64), np.uint8))),
        "a byte too many": replaced(
            IDX_IMAGES, gzip.compress(build.idx_bytes(np.zeros((12, 8, 8), np.uint8)) + b"\x00")
        ),
        "a wrong checksum": lambda folder: (folder / IDX_IMAGES).write_bytes(
            (content := (folder / IDX_IMAGES).read_bytes())[:-8]
            + bytes(4 * [content[-8] ^ 0xFF])
            + content[-4:]
        ),
    },
)


# --- CIFAR

TEN = tiny_dataset((32, 32, 3), num_classes=10, count=25)


def _records(data: Dataset) -> np.ndarray:
    pixels = data.images.transpose(0, 3, 1, 2).reshape(len(data), -1)
    return np.concatenate([data.labels[:, None].astype(np.uint8), pixels], axis=1)


def write_cifar10_binary(folder: Path, data: Dataset) -> Path:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    for number, records in enumerate(np.array_split(_records(data), 5), 1):
        (place / f"data_batch_{number}.bin").write_bytes(records.tobytes())
    (place / "test_batch.bin").write_bytes(_records(data)[:10].tobytes())
    (place / "batches.meta.txt").write_text("\n".join(data.class_names))
    return place


def write_cifar10_archive(folder: Path, data: Dataset) -> Path:
    place = write_cifar10_binary(folder, data)
    path = build.archive(place, folder / "cifar-10-binary.tar.gz")
    shutil.rmtree(place)
    return path


def write_cifar100_python(folder: Path, data: Dataset) -> Path:
    place = folder / "cifar-100-python"
    place.mkdir()
    for name in ("train", "test"):
        (place / name).write_bytes(cifar100_pickle(data))
    names = [name.encode() for name in data.class_names]
    (place / "meta").write_bytes(build.cifar_pickle({b"fine_label_names": names}))
    return place


def cifar100_pickle(dataset: Dataset, **changes: object) -> bytes:
    content = {
        "data": _records(dataset)[:, 1:],
        "fine_labels": dataset.labels.tolist(),
        "coarse_labels": [0] * len(dataset),
    }
    content |= changes
    return build.cifar_pickle({name.encode(): value for name, value in content.items()})


def without_a_member(path: Path) -> None:
    place = write_cifar10_binary(path.parent, TEN)
    (place / "data_batch_3.bin").unlink()
    build.archive(place, path)


def with_a_link(path: Path) -> None:
    place = write_cifar10_binary(path.parent, TEN)
    (place / "data_batch_3.bin").unlink()
    (place / "data_batch_3.bin").symlink_to("/etc/passwd")
    build.archive(place, path)


BATCH, HUNDRED = "data_batch_2.bin", tiny_dataset((32, 32, 3), num_classes=100, count=200)
CIFAR10_BINARY = Format(
    "cifar",
    cifar.read,
    write_cifar10_binary,
    TEN,
    # a binary batch has no header: other first bytes are another label, and zeros are an image
    damages_of(BATCH, "overwrite_the_first_bytes", "fill_with_zeros")
    | {
        "a byte too many": appended(BATCH, b"\x00"),
        "a label of no class": replaced(BATCH, b"\x0a" + bytes(3072)),
        "a class name too few": replaced("batches.meta.txt", b"a\nb"),
        "a class name twice": replaced("batches.meta.txt", "\n".join("aabcdefghi").encode()),
        "class names that are no text": replaced("batches.meta.txt", b"\xff\xfe" * 10),
    },
)
CIFAR10_ARCHIVE = Format(
    "cifar",
    cifar.read,
    write_cifar10_archive,
    TEN,
    damages_of("") | {"a member too few": without_a_member, "a link for a member": with_a_link},
)
CIFAR100_PYTHON = Format(
    "cifar",
    functools.partial(cifar.read, trusted=True),
    write_cifar100_python,
    HUNDRED,
    damages_of("train")
    | {
        "no labels": replaced("train", build.cifar_pickle({b"data": np.zeros((2, 3072), "u1")})),
        "a label too few": replaced("train", cifar100_pickle(HUNDRED, fine_labels=[0] * 199)),
        "a label of no class": replaced("train", cifar100_pickle(HUNDRED, fine_labels=[100] * 200)),
        "rows of another length": replaced(
            "train", cifar100_pickle(HUNDRED, data=np.zeros((200, 3071), np.uint8))
        ),
        "pixels of floats": replaced(
            "train", cifar100_pickle(HUNDRED, data=np.zeros((200, 3072), np.float32))
        ),
    },
)


# --- a folder of images


def canonical(data: Dataset) -> Dataset:
    """The images in the order in which sets of encoded images have them."""
    digests = [hashlib.sha256(build.encoded(image)).hexdigest() for image in data.images]
    return data.subset(sorted(range(len(data)), key=digests.__getitem__))


IMAGES = canonical(tiny_dataset((8, 8, 3), count=12))
FIRST = f"{IMAGES.class_names[IMAGES.labels[0]]}/000.png"


def write_folder(folder: Path, data: Dataset) -> Path:
    root = folder / "images"
    for row, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        place = root / data.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:03}.png").write_bytes(build.encoded(image))
    return root


def without_classes(root: Path) -> None:
    for place in root.iterdir():
        shutil.rmtree(place)


IMAGE_FOLDER = Format(
    "folder",
    image_folder.read,
    write_folder,
    IMAGES,
    # an image less, or one that lacks but its end mark, is no damage to a folder
    damages_of(FIRST, "remove", "cut_the_last_bytes", "replace_by_a_folder")
    | {
        "no folder": shutil.rmtree,
        "no classes": without_classes,
        "one class": lambda root: [shutil.rmtree(root / f"pattern {n}") for n in range(1, 4)],
        "a class without images": lambda root: (root / "an empty one").mkdir(),
        "twins": lambda root: shutil.copytree(root / "pattern 0", root / "PATTERN 0"),
        "an image of floats": replaced(FIRST, build.encoded(np.zeros((8, 8), "f4"), "TIFF")),
        "an image too large": replaced(FIRST, build.raw_png(50_000, 50_000, 8, 2, b"")),
    },
)


# --- parquet

ROWS = 12


def write_table(
    folder: Path, data: Dataset, name: str = "train.parquet", **options: object
) -> Path:
    images = options.pop("images", [build.encoded(image) for image in data.images])
    labels = options.pop("labels", data.labels.tolist())
    return build.parquet(folder / name, images, labels, data.class_names, **options)


def rewritten_table(**options: object) -> Damage:
    data = tiny_dataset((8, 8, 3), count=ROWS)
    return lambda path: write_table(path.parent, data, path.name, **options)


TABLE = Format(
    "parquet",
    parquet.read,
    write_table,
    canonical(tiny_dataset((8, 8, 3), count=ROWS)),
    damages_of("")
    | {
        "no column of images": rewritten_table(image_column="thumbnail"),
        "no column of labels": rewritten_table(label_column="answer"),
        "a row without an image": rewritten_table(images=[None, *[build.plain()] * (ROWS - 1)]),
        "a row without a label": rewritten_table(labels=[None, *[0] * (ROWS - 1)]),
        "a label of no class": rewritten_table(labels=[4] * ROWS),
        "a broken image": rewritten_table(images=[b"\x89PNG", *[build.plain()] * (ROWS - 1)]),
        "no rows": rewritten_table(images=[], labels=[]),
    },
)


# --- archives, lists and shards


def files_of(data: Dataset) -> dict[str, bytes]:
    """The files of a folder of classes."""
    return {
        f"{data.class_names[label]}/{row:03}.png": build.encoded(image)
        for row, (image, label) in enumerate(zip(data.images, data.labels, strict=True))
    }


def write_archive(folder: Path, data: Dataset, name: str) -> Path:
    return build.packed(folder / name, files_of(data))


def repacked(**changes: bytes | None) -> Damage:
    """An archive with files more, or without those whose names hold a word that is None."""

    def damage(path: Path) -> None:
        kept = {
            name: content
            for name, content in files_of(IMAGES).items()
            if not any(each is None and word in name for word, each in changes.items())
        }
        build.packed(path, kept | {name: each for name, each in changes.items() if each})

    return damage


ARCHIVE_DAMAGES = damages_of("") | {
    "a name that leads out": repacked(**{"../x.png": build.plain()}),
    "an absolute name": repacked(**{"/tmp/x.png": build.plain()}),
    "a class in letters of another form": repacked(**{"PATTERN 0/x.png": build.plain()}),
    "a broken image": repacked(**{"pattern 0/x.png": b"\x89PNG"}),
    "one class": repacked(**{f"pattern {n}": None for n in range(1, 4)}),
    "no images": repacked(pattern=None),
}
ZIP, TAR, TGZ = (
    Format(
        "archive",
        archive.read,
        functools.partial(write_archive, name=name),
        IMAGES,
        ARCHIVE_DAMAGES,
    )
    for name in ("set.zip", "set.tar", "set.tgz")
)


def write_manifest(folder: Path, data: Dataset) -> Path:
    rows = ["path,label"]
    for name, content in files_of(data).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        rows.append(f"{name},{name.partition('/')[0]}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder / "list.csv"


def row_more(row: str) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes() + row.encode())


MANIFEST = Format(
    "manifest",
    manifest.read,
    write_manifest,
    IMAGES,
    # the first half of a list is a list, unless it ends within a row; its first bytes are a name
    damages_of("", "cut_in_half", "cut_the_last_bytes")
    | {
        "an image that is not there": row_more("pattern 0/x.png,pattern 0\n"),
        "an image twice": row_more(f"{FIRST},pattern 1\n"),
        "a path that leads out": row_more("../x.png,pattern 0\n"),
        "an absolute path": row_more("/etc/passwd,pattern 0\n"),
        "a cell too few": row_more("pattern 0/x.png\n"),
        "a cell too many": row_more("pattern 0/x.png,pattern 0,x\n"),
        "a row without a label": row_more("pattern 0/x.png,\n"),
        "no column of classes": lambda path: path.write_text(f"path\n{FIRST}\n"),
    },
)
SHARD = "train-0.tar"


def write_shards(folder: Path, data: Dataset) -> Path:
    root = folder / "set"
    root.mkdir()
    files: dict[str, bytes] = {}
    for row, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        files |= {f"{row:03}.png": build.encoded(image), f"{row:03}.cls": b"%d" % label}
    build.packed(root / SHARD, files)
    (root / "classnames.txt").write_text("\n".join(data.class_names))
    return root


def shard_with(**files: bytes) -> Damage:
    def damage(root: Path) -> None:
        more = {name.replace("_", "."): content for name, content in files.items()}
        build.packed(root / SHARD, {"x.png": build.plain(), "x.cls": b"0"} | more)

    return damage


WEBDATASET = Format(
    "webdataset",
    webdataset.read,
    write_shards,
    IMAGES,
    damages_of(SHARD)
    | {
        "a label of no class": shard_with(x_cls=b"4"),
        "a label that is no text": shard_with(x_cls=b"\xff"),
        "a name of no class": shard_with(x_cls=b"dog"),
        "an image without a label": shard_with(y_png=build.plain()),
        "a broken image": shard_with(y_png=b"\x89PNG", y_cls=b"1"),
        "a name that leads out": shard_with(**{"/y_png": build.plain()}),
        "class names twice": replaced("classnames.txt", b"a\na\nb\nc"),
        "class names that are no text": replaced("classnames.txt", b"\xff"),
    },
)


# --- arrays


def write_arrays(folder: Path, data: Dataset) -> Path:
    arrays.write(folder / "set.npz", data)
    return folder / "set.npz"


def rewritten_arrays(**changes: object) -> Damage:
    data = tiny_dataset((8, 8, 3), count=12)
    content = {"images": data.images, "labels": data.labels, "class_names": data.class_names}
    content |= changes
    return lambda path: path.write_bytes(_npz(content))


def _npz(content: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in content.items() if value is not None})
    return buffer.getvalue()


ARRAYS = Format(
    "arrays",
    arrays.read,
    write_arrays,
    tiny_dataset((8, 8, 3), count=12),
    damages_of("")
    | {
        "no labels": rewritten_arrays(labels=None),
        "a label too few": rewritten_arrays(labels=np.zeros(11, np.int64)),
        "a label of no class": rewritten_arrays(labels=np.full(12, 4)),
        "a negative label": rewritten_arrays(labels=np.full(12, -1)),
        "images of floats": rewritten_arrays(images=np.zeros((12, 8, 8, 3))),
        "an image of two channels": rewritten_arrays(images=np.zeros((12, 8, 8, 2), np.uint8)),
        "labels that are objects": rewritten_arrays(labels=np.array([None] * 12)),
    },
)

# --- arrays in a folder


def write_array_folder(folder: Path, data: Dataset) -> Path:
    np.save(folder / "images.npy", data.images)
    np.save(folder / "labels.npy", data.labels)
    np.save(folder / "class_names.npy", np.array(data.class_names))
    return folder


def resaved(name: str, content: object) -> Damage:
    return lambda path: np.save(path / f"{name}.npy", content)


ARRAY_FOLDER = Format(
    "arrays",
    arrays.read,
    write_array_folder,
    tiny_dataset((8, 8, 3), count=12),
    damages_of("images.npy")
    | {
        "no labels": lambda path: (path / "labels.npy").unlink(),
        "labels cut short": lambda path: os.truncate(path / "labels.npy", 150),
        "a label too few": resaved("labels", np.zeros(11, np.int64)),
        "a label of no class": resaved("labels", np.full(12, 4)),
        "images of floats": resaved("images", np.zeros((12, 8, 8, 3))),
        "an image of two channels": resaved("images", np.zeros((12, 8, 8, 2), np.uint8)),
        "labels that are objects": resaved("labels", np.array([None] * 12)),
        "names that are numbers": resaved("class_names", np.arange(4)),
        "parts told by an array": resaved("split", np.array(["train"] * 12)),
    },
)

SETS_ASIDE = {"archive", "folder", "manifest", "parquet", "webdataset"}  # unless strict
FORMATS = {
    "idx": IDX,
    "cifar10 binary": CIFAR10_BINARY,
    "cifar10 archive": CIFAR10_ARCHIVE,
    "cifar100 python": CIFAR100_PYTHON,
    "image folder": IMAGE_FOLDER,
    "parquet": TABLE,
    "zip": ZIP,
    "tar": TAR,
    "tgz": TGZ,
    "manifest": MANIFEST,
    "webdataset": WEBDATASET,
    "arrays": ARRAYS,
    "arrays in a folder": ARRAY_FOLDER,
}


def test_every_module_that_reads_a_format_is_checked():
    modules = {path.stem for path in Path(readers.__file__).parent.glob("*.py")} - {"__init__"}
    assert modules - NOT_READERS == {each.module for each in FORMATS.values()}


@pytest.mark.parametrize("name", FORMATS)
def test_at_least_12_kinds_of_damage_are_tried(name):
    assert len(FORMATS[name].damages) >= KINDS_OF_DAMAGE


@pytest.mark.parametrize("check", READER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FORMATS)
def test_reader_conforms(name, check, tmp_path):
    form = FORMATS[name]
    read: Read = form.read
    if form.module in SETS_ASIDE:
        read = functools.partial(
            form.read, options=Options(strict=True, data_dir=tmp_path, workers=1)
        )
    check(ReaderCase(read, form.write, form.damages, form.data))
