"""Pictures that do not fit into memory: put on the disk, and mapped from there."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
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
    picture = images.shape[1:]
    if memory.fits(len(rows) * math.prod(picture)):
        return images[rows]
    found = on_disk((len(rows), *picture), data_dir)
    for block in _blocks(len(rows), math.prod(picture)):
        found[block] = images[rows[block]]
    return found


def changed(
    images: Images,
    change: Callable[[Images], Images],
    picture: tuple[int, int, int],
    data_dir: Path | None = None,
) -> Images:
    """Return what `change` makes of pictures: in memory, or on the disk if that is short.

    Args:
        images: uint8, shape (n, height, width, channels).
        change: of some pictures, whatever the others are.
        picture: height, width and channels of what it returns.
        data_dir: as for `gathered`.

    Raises:
        DataError: the disk cannot take it.
    """
    if memory.fits(len(images) * math.prod(picture)):
        return change(images)
    found = on_disk((len(images), *picture), data_dir)
    for block in _blocks(len(images), math.prod(picture)):
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
