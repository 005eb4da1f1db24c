"""Dataset formats on disk (`KINDS`) and their detection."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylens.data.encoded import Options, Source, read_encoded
from tinylens.data.readers import (
    archive,
    arrays,
    cifar,
    folder,
    idx,
    manifest,
    members,
    parquet,
    webdataset,
)
from tinylens.data.readers.folder import IMAGE_SUFFIXES
from tinylens.data.readers.manifest import MANIFEST_NAMES
from tinylens.data.splits import Parts
from tinylens.data.validation import no_set
from tinylens.errors import DataError

Cells = Mapping[str, Any]

_FIRST_NAMES = 3  # of an archive: whoever made CIFAR's put its folder first


@dataclass(frozen=True)
class ArrayKind:
    """Dataset format that stores decoded pixels.

    Attributes:
        looks_like: Description of how the format is recognized.
        matches: Whether a path has this format.
        read_parts: Reader of the splits.
    """

    looks_like: str
    matches: Callable[[Path], bool]
    read_parts: Callable[[Path], Parts]

    def read(self, path: Path, _: Options) -> Parts:
        """Read the splits as stored."""
        return self.read_parts(path)

    def read_column(self, path: Path, column: str, _: Options) -> Cells | None:
        """Return None: images in arrays have no names."""


@dataclass(frozen=True)
class EncodedKind:
    """Dataset format that stores encoded images.

    Attributes:
        looks_like: Description of how the format is recognized.
        matches: Whether a path has this format.
        source: Factory of the image source.
        column: Reader of a column by image name, or None.
    """

    looks_like: str
    matches: Callable[[Path], bool]
    source: Callable[[Path, Options], Source]
    column: Callable[[Path, str, Options], Cells | None]

    def read(self, path: Path, options: Options) -> Parts:
        """Read the splits as stored."""
        return read_encoded(self.source(path, options), options)

    def read_column(self, path: Path, column: str, options: Options) -> Cells | None:
        """Read a column by image name; None if there is no such column."""
        return self.column(path, column, options)


Kind = ArrayKind | EncodedKind


def find_kind(path: Path) -> Kind:
    """Detect the dataset format of `path`.

    Raises:
        DataError: when it is none of KINDS.
        OSError: when it cannot be looked at.
    """
    matching = next((each for each in KINDS if each.matches(path)), None)
    if matching is None:
        looked_for = "; ".join(each.looks_like for each in KINDS)
        what = no_set(path, IMAGE_SUFFIXES)
        raise DataError(f"{path}: no data set that is known here; {what}looked for {looked_for}")
    return matching


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


def _is_parquet(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == ".parquet"
    return any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))


def _is_cifar(path: Path) -> bool:
    if path.is_file():
        if not path.name.lower().endswith(members.TAR_SUFFIXES):
            return False
        folders = {layout.folder for layout in cifar.LAYOUTS}
        names = members.read_names(path, _FIRST_NAMES)
        return any(name.removeprefix("./").partition("/")[0] in folders for name in names)
    return cifar.find_layout(path) is not None


def _is_idx(path: Path) -> bool:
    return any(idx.find_file(path, f"{part}-images-idx3-ubyte") for part in idx.PREFIXES.values())


def _has_folders(path: Path) -> bool:
    if not path.is_dir():
        return False
    return any(each.is_dir() or each.name.lower() in MANIFEST_NAMES for each in path.iterdir())


def _shard_column(path: Path, column: str, _: Options) -> Cells | None:
    with tempfile.TemporaryDirectory() as workspace:
        return webdataset.read_column(path, column, Path(workspace))


KINDS: tuple[Kind, ...] = (
    ArrayKind("a file .npz", _is_npz, arrays.read_parts),
    ArrayKind("a folder with x_train.npy and y_train.npy", arrays.is_folder, arrays.read_parts),
    EncodedKind(
        "a file .parquet, or a folder of them",
        _is_parquet,
        parquet.source,
        lambda path, column, _: parquet.read_column(path, column),
    ),
    ArrayKind(
        "a CIFAR archive .tar.gz, or its folder such as cifar-10-batches-py",
        _is_cifar,
        cifar.read_parts,
    ),
    ArrayKind("a folder with train-images-idx3-ubyte[.gz]", _is_idx, idx.read_parts),
    EncodedKind(
        "a list of images .csv, .tsv or .jsonl",
        manifest.is_manifest,
        manifest.source,
        manifest.read_column,
    ),
    EncodedKind(
        "an archive .zip, .tar, .tar.gz or .tgz of images",
        members.is_archive,
        archive.source,
        archive.read_column,
    ),
    EncodedKind(
        "a folder of WebDataset shards .tar",
        webdataset.has_shards,
        webdataset.source,
        _shard_column,
    ),
    EncodedKind(
        "a folder with a folder of images for each class, or with a metadata.csv",
        _has_folders,
        folder.source,
        folder.read_column,
    ),
)
