"""Images that do not fit into memory: put on the disk, and mapped from there."""

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
    """A decoded set from the cache.

    Attributes:
        images: uint8, shape (n, height, width, channels), memory-mapped and read-only.
        labels: int64, shape (n,).
        meta: what was stored with it, JSON values.
    """

    images: Images
    labels: Labels
    meta: dict[str, Any]


def cache_root(data_dir: Path | None = None) -> Path:
    """Return the folder that downloads and decoded sets are kept in, made if it is missing.

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
    """Return a SHA-256 over JSON values, equal exactly when they are.

    >>> key_of("a", 1) == key_of("a", 1) != key_of("a", 2)
    True
    """
    text = json.dumps([_LAYOUT, *values], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def find(root: Path, signature: str) -> Stored | None:
    """Return the set that `signature` was last seen to point to, if it is there and whole."""
    pointer = root / "signatures" / signature
    try:
        key = pointer.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return find_by_key(root, key) if re.fullmatch("[0-9a-f]{64}", key) else None


def find_by_key(root: Path, key: str) -> Stored | None:
    """Return the set stored under `key`, or None; a damaged one is removed and is then not there.

    Damage that sizes show is found, such as a file that a full disk or a copy cut short.
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
    """Return whether any signature that starts with `place` points to a set."""
    return any((root / "signatures").glob(f"{place}-*"))


def point(root: Path, signature: str, key: str) -> None:
    """Remember that `signature` stands for `key`."""
    files.write_text(root / "signatures" / signature, key)


def store(root: Path, key: str, write: Callable[[Path], dict[str, Any]]) -> None:
    """Make the set `key` from what `write` puts into a folder: images.npy and labels.npy.

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
    """Make a .npy file of uint8 with its disk space: writing to a map of a full disk kills.

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
    """Let `work` put files on the disk while the caller goes on: a disk takes 1.5 s for 150 MB.

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
    """Return when all that was given to `later` is done."""
    while _at_work:
        _at_work.pop().join()


def not_kept(root: Path, error: OSError) -> DataError:
    """Return what to raise where the disk cannot take what is put into the cache `root`."""
    return DataError(_no_cache(root, _reason(error)))


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left a day ago or earlier; a younger one may be at work."""
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
    """Return the images at `rows`, in that order: in memory, or on the disk if that is short.

    The file on the disk has no name any more, so that nothing of it is left when the process ends,
    however it does.

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
    """Return what `change` makes of images: in memory, or on the disk if that is short.

    Args:
        images: uint8, shape (n, height, width, channels).
        change: of some images, whatever the others are.
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
    """Yield the slices of `count` rows of so many bytes that are worked on at a time."""
    step = max(BLOCK // size, 1)
    return (slice(start, start + step) for start in range(0, count, step))


def on_disk(shape: tuple[int, ...], data_dir: Path | None = None) -> Images:
    """Return a uint8 array of zeros of that shape, mapped from a file without a name.

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
