"""Reader and writer for IDX files, the format of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens import files
from tinylens.data.dataset import Dataset, Splits
from tinylens.data.splits import Parts, numbered_names, parts_of
from tinylens.errors import DataError

PREFIXES = {"train": "train", "test": "t10k"}  # our names of the parts → those in the file names
MAX_BYTES = 8_000_000_000

_UINT8 = 0x08
_TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float", 0x0E: "double"}


def read(folder: str | Path) -> Dataset | Splits:
    """Read an MNIST-like dataset: train-images-idx3-ubyte[.gz] and its siblings.

    Raises:
        DataError: naming file and byte, when a file is missing, damaged or of another format.
    """
    return read_parts(folder).published()


def read_parts(
    folder: str | Path,
    class_names: Sequence[str] = (),
    payloads: Mapping[str, str] | None = None,
) -> Parts:
    """Read the splits in `folder`.

    Args:
        folder: holds two files a part; the t10k ones may be missing.
        class_names: one a class; numbers where none are given.
        payloads: the SHA-256 that the content of each file must have, unzipped, by its name
            without .gz.

    Raises:
        DataError: see `read`; or when a content is another than `payloads` says.
    """
    folder = Path(folder)
    found = {}
    for part, prefix in PREFIXES.items():
        images = find_file(folder, f"{prefix}-images-idx3-ubyte")
        labels = find_file(folder, f"{prefix}-labels-idx1-ubyte")
        if images is None and labels is None:
            continue
        if images is None or labels is None:
            raise DataError(
                f"{folder}: found {(images or labels)} but no {'labels' if images else 'images'} "
                f"of {part}; expected {prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte"
            )
        found[part] = (
            _checked(images, 3, payloads),
            _checked(labels, 1, payloads),
            labels,
        )
    if not found:
        raise DataError(
            f"{folder}: no IDX files; expected train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte, with or without .gz"
        )
    highest = max(int(labels.max(initial=0)) for _, labels, _ in found.values())
    names = tuple(class_names) or numbered_names(highest)
    return parts_of(
        {
            part: replace(_dataset(images, labels, names, file), source=str(folder))
            for part, (images, labels, file) in found.items()
        },
        str(folder),
    )


def _dataset(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], names: tuple[str, ...], file: Path
) -> Dataset:
    return Dataset(images, labels.astype(np.int64), names, source=str(file))


def find_file(folder: Path, name: str) -> Path | None:
    """Find `name` in `folder`, gzipped or not; None if missing.

    Some copies write the dot of .idx3 for the hyphen of -idx3.
    """
    dotted = name.replace("-idx", ".idx")
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def read_file(path: str | Path) -> NDArray[np.uint8]:
    """Read a uint8 IDX file; gzip is detected by content.

    Raises:
        DataError: naming file and byte, when it is damaged or of another format.
    """
    return _array(Path(path), _payload(Path(path)))


def write_file(path: Path, array: NDArray[np.uint8]) -> None:
    """Write `array` as IDX, gzipped where the name ends in .gz.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_file(Path(folder, "x.gz"), np.array([[1, 2]], np.uint8))
    ...     read_file(Path(folder, "x.gz")).tolist()
    [[1, 2]]
    """
    header = struct.pack(f">HBB{array.ndim}I", 0, _UINT8, array.ndim, *array.shape)
    payload = header + array.astype(np.uint8).tobytes()
    files.write_bytes(path, gzip.compress(payload, mtime=0) if path.suffix == ".gz" else payload)


def _checked(path: Path, dimensions: int, payloads: Mapping[str, str] | None) -> NDArray[np.uint8]:
    payload = _payload(path)
    if payloads is not None:
        expected = payloads[path.name.removesuffix(".gz").replace(".idx", "-idx")]
        found = hashlib.sha256(payload).hexdigest()
        if found != expected:
            raise DataError(
                f"{path}: hash mismatch: expected {expected}, got {found}; remove the file, and "
                "it is fetched anew"
            )
    array = _array(path, payload)
    if array.ndim != dimensions:
        raise DataError(
            f"{path}: byte 3: {array.ndim} dimensions, expected {dimensions}: "
            f"{'images of (n, height, width)' if dimensions == 3 else 'labels of (n,)'}"
        )
    return array


def _payload(path: Path) -> bytes:
    """Return the unzipped content of `path`, at most one byte more than its header declares."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as source:
            return _declared(path, source)
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(f"{path}: cannot be read: {reason}; fetch the file anew") from error


def _declared(path: Path, source: Any) -> bytes:
    start = source.read(4)
    if len(start) < 4:
        raise DataError(f"{path}: byte {len(start)}: the file ends, expected a magic number of 4")
    zero, kind, dimensions = struct.unpack(">HBB", start)
    if zero != 0 or kind not in _TYPES or not 1 <= dimensions <= 4:
        raise DataError(
            f"{path}: byte 0: starts with {start.hex()}, expected an IDX magic number: 00000803 "
            "for images, 00000801 for labels"
        )
    if kind != _UINT8:
        raise DataError(f"{path}: byte 2: values of type {_TYPES[kind]}, expected uint8 (08)")
    sizes = source.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: byte {4 + len(sizes)}: the file ends within its sizes")
    shape = struct.unpack(f">{dimensions}I", sizes)
    count = 1
    for side in shape:
        count *= side
    if count == 0 or count > MAX_BYTES:
        raise DataError(
            f"{path}: byte 4: sizes {shape}, expected from 1 to {MAX_BYTES:,} values in all"
        )
    values = source.read(count + 1)
    if len(values) != count:
        end = 4 + len(sizes) + len(values)
        found = "the file goes on" if len(values) > count else f"the file ends at byte {end}"
        raise DataError(
            f"{path}: {found}, expected {count:,} values for sizes {shape}, which is "
            f"{4 + len(sizes) + count:,} bytes"
        )
    return bytes(start + sizes + values)


def _array(path: Path, payload: bytes) -> NDArray[np.uint8]:
    dimensions = payload[3]
    shape = struct.unpack_from(f">{dimensions}I", payload, 4)
    return np.frombuffer(payload, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
