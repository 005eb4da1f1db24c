"""On-disk cache of decoded, memory-mapped images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from tinylens import files, system
from tinylens.data.dataset import Images, Labels
from tinylens.errors import DataError

ENVIRONMENT = "TINYLENS_CACHE"

_NAMES = ("images.npy", "labels.npy")
LEFTOVER_SECONDS = 86_400.0
_LAYOUT = 2  # of a folder; another number is another key, so that old folders are left alone


@dataclass(frozen=True, eq=False)
class Stored:
    """Cached decoded dataset.

    Attributes:
        images: uint8, shape (n, height, width, channels), memory-mapped and read-only.
        labels: int64, shape (n,).
        meta: Stored metadata, JSON values.
    """

    images: Images
    labels: Labels
    meta: dict[str, Any]


def cache_root(data_dir: Path | None = None) -> Path:
    """Return the cache folder for downloads and decoded datasets; create it if missing.

    That is `data_dir`, else what TINYLENS_CACHE says, else the user's cache folder.

    Raises:
        DataError: when nothing can be written there. A temporary folder is never taken instead:
            it would be filled anew at each start.
    """
    given = data_dir or os.environ.get(ENVIRONMENT)
    try:
        root = Path(given or platformdirs.user_cache_dir("tinylens")).expanduser().absolute()
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise DataError(_no_cache(given or "the user's cache", _reason(error))) from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise DataError(_no_cache(root, "not writable"))
    return root


def key_of(*values: Any) -> str:
    """Return the SHA-256 of JSON values.

    >>> key_of("a", 1) == key_of("a", 1) != key_of("a", 2)
    True
    """
    text = json.dumps([_LAYOUT, *values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find(root: Path, signature: str) -> Stored | None:
    """Return the cached dataset for `signature`, or None if missing or damaged."""
    pointer = root / "signatures" / signature
    try:
        key = pointer.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return find_by_key(root, key) if re.fullmatch("[0-9a-f]{64}", key) else None


def find_by_key(root: Path, key: str) -> Stored | None:
    """Return the dataset stored under `key`, or None; remove it if damaged.

    Truncation is detected by file size.
    """
    folder = root / "decoded" / key
    if not folder.is_dir():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        if any((folder / name).stat().st_size != meta["sizes"][name] for name in _NAMES):
            raise ValueError("a size is not as it was written")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise ValueError("not what was written")
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Stored(images, labels, meta)


def knows(root: Path, place: str) -> bool:
    """Return whether any signature starting with `place` is cached."""
    return any((root / "signatures").glob(f"{place}-*"))


def point(root: Path, signature: str, key: str) -> None:
    """Map `signature` to `key`."""
    files.write_text(root / "signatures" / signature, key)


def store(root: Path, key: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """Store a dataset under `key`: images.npy and labels.npy, written by `write`.

    Args:
        root: the cache.
        key: what the set is found by.
        write: fills the folder, and returns what is to be stored with it, as JSON values.

    Raises:
        DataError: when the disk cannot take it; nothing is left then.
    """
    try:
        for folder in (root, root / "decoded"):
            _remove_leftovers(folder)
        with files.new_folder(root / "decoded" / key) as folder:
            meta = write(folder)
            sizes = {name: (folder / name).stat().st_size for name in _NAMES}
            files.write_text(folder / "meta.json", json.dumps({**meta, "sizes": sizes}))
    except OSError as error:
        raise not_kept(root, error) from error


def make_blank(path: Path, shape: tuple[int, ...]) -> None:
    """Preallocate a uint8 .npy file: writing to a memory map on a full disk kills.

    Args:
        path: in a folder of the cache.
        shape: of the array.

    Raises:
        DataError: the disk cannot take it.
    """
    try:
        path.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise not_kept(path.parent.parent, error) from error


_at_work: list[threading.Thread] = []


def later(work: Callable[[], None]) -> None:
    """Run `work` in the background: writing 150 MB takes 1.5 s.

    Python waits for it before it ends, and `settle` does so earlier. A disk that cannot take the
    files is a warning: who called has the images.
    """

    def warn_of_errors() -> None:
        try:
            work()
        except (DataError, OSError) as error:
            warnings.warn(f"{error}; the set will be decoded again next time", stacklevel=2)

    thread = threading.Thread(target=warn_of_errors, name="tinylens cache")
    _at_work.append(thread)
    thread.start()


def settle() -> None:
    """Wait for all background writes of `later`."""
    while _at_work:
        _at_work.pop().join()


def not_kept(root: Path, error: OSError) -> DataError:
    """Return the error for a failed write to the cache `root`."""
    return DataError(_no_cache(root, _reason(error)))


def _remove_leftovers(folder: Path) -> None:
    """Remove leftovers of killed processes that are at least a day old."""
    for leftover in folder.glob(f"{files.TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def _no_cache(where: object, why: str) -> str:
    return (
        f"cannot keep data in {where}: {why}; expected a folder that can be written: "
        f"name one with --data-dir FOLDER or in the environment as {ENVIRONMENT}"
    )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


BLOCK = 64 * 2**20  # bytes that are copied at a time


def gathered(images: Images, rows: NDArray[np.int64], data_dir: Path | None = None) -> Images:
    """Gather the images at `rows`, in memory or in an unlinked file if memory is short.

    The unlinked file disappears with the process.

    Args:
        images: uint8, shape (n, height, width, channels), in memory or mapped.
        rows: int64, shape (m,).
        data_dir: where the file goes; None is the cache of `cache_root`.

    Returns:
        uint8, shape (m, height, width, channels).

    Raises:
        DataError: the disk cannot take it.
    """
    image = images.shape[1:]
    if system.fits(len(rows) * math.prod(image)):
        return images[rows]
    found = on_disk((len(rows), *image), data_dir)
    for block in _blocks(len(rows), math.prod(image)):
        found[block] = images[rows[block]]
    return found


def changed(
    images: Images,
    change: Callable[[Images], Images],
    image: tuple[int, int, int],
    data_dir: Path | None = None,
) -> Images:
    """Apply `change` to images, in memory or on disk if memory is short.

    Args:
        images: uint8, shape (n, height, width, channels).
        change: Batch-independent function of images.
        image: height, width and channels of what it returns.
        data_dir: as for `gathered`.

    Raises:
        DataError: the disk cannot take it.
    """
    if system.fits(len(images) * math.prod(image)):
        return change(images)
    found = on_disk((len(images), *image), data_dir)
    for block in _blocks(len(images), math.prod(image)):
        found[block] = change(images[block])
    return found


def _blocks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `count` rows, sized for block-wise processing."""
    step = max(BLOCK // size, 1)
    return (slice(start, start + step) for start in range(0, count, step))


def on_disk(shape: tuple[int, ...], data_dir: Path | None = None) -> Images:
    """Return a zeroed uint8 array mapped from an unlinked file.

    Raises:
        DataError: the disk cannot take it.
    """
    root = cache_root(data_dir)
    size = math.prod(shape)
    try:
        with tempfile.TemporaryFile(dir=root, prefix=files.TEMPORARY_PREFIX) as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):
                # a disk that is full later would kill whoever writes to the mapped file
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise not_kept(root, error) from error
