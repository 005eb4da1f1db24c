"""Pictures that do not fit into memory: put on the disk, and mapped from there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinylens import files, memory
from tinylens.data.cache import cache_root, not_kept
from tinylens.data.dataset import Images

BLOCK = 64 * 2**20  # bytes that are copied at a time


def gathered(images: Images, rows: NDArray[np.int64], data_dir: Path | None = None) -> Images:
    """Return the pictures at `rows`, in that order: in memory, or on the disk if that is short.

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
    picture = images[0].nbytes
    if memory.fits(len(rows) * picture):
        return images[rows]
    found = on_disk((len(rows), *images.shape[1:]), data_dir)
    step = max(BLOCK // picture, 1)
    for start in range(0, len(rows), step):
        found[start : start + step] = images[rows[start : start + step]]
    return found


def on_disk(shape: tuple[int, ...], data_dir: Path | None = None) -> Images:
    """Return a uint8 array of zeros of that shape, mapped from a file without a name.

    Raises:
        DataError: the disk cannot take it.
    """
    root = cache_root(data_dir)
    size = int(np.prod(shape, dtype=np.int64))
    try:
        with tempfile.TemporaryFile(dir=root, prefix=files.TEMPORARY_PREFIX) as file:
            file.truncate(size)
            # room is taken now: a disk that is full later kills who writes to the mapped file
            _take_room(file.fileno(), size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise not_kept(root, error) from error


def _take_room(descriptor: int, size: int) -> None:
    import os

    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
