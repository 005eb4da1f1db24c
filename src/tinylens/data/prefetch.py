"""Prefetching of memory-mapped image batches."""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinylens.data.dataset import Images

READERS = 4  # threads; 16 were as fast on an SSD: what counts is that each asks for a batch at once
AHEAD_BYTES = 64 * 2**20  # of images that wait for their step
MOST_AHEAD = 16  # batches

Indices = NDArray[np.int32]


class Stream:
    """Concatenated view of image arrays with batch prefetching.

    Results do not depend on prefetching: a batch that was not announced is read immediately.

    Args:
        parts: uint8 arrays, each of shape (n, height, width, channels), in memory or mapped.

    >>> stream = Stream([np.zeros((3, 1, 1, 1), np.uint8), np.ones((2, 1, 1, 1), np.uint8)])
    >>> with stream.ahead(np.array([1, 3, 4, 0], np.int32), batch_size=2):
    ...     stream.rows(np.array([1, 3], np.int32)).ravel().tolist()
    [0, 1]
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])
        self.image_shape = self.parts[0].shape[1:]
        self._waiting: deque[tuple[Indices, Future[Images]]] = deque()
        self._later: Iterator[Indices] = iter(())
        self._pool: ThreadPoolExecutor | None = None

    def rows(self, indices: Indices) -> Images:
        """Return images by index across arrays, uint8, shape (n, height, width, channels)."""
        announced = [np.array_equal(each, indices) for each, _ in self._waiting]
        if True not in announced:
            return self._gather(indices)
        for _ in range(announced.index(True)):  # a backend may leave a step out
            self._waiting.popleft()
        _, coming = self._waiting.popleft()
        self._order_more()
        return coming.result()

    @contextlib.contextmanager
    def ahead(self, indices: Indices, batch_size: int) -> Iterator[None]:
        """Prefetch the batches of `indices` within the block."""
        batches = [indices[at : at + batch_size] for at in range(0, len(indices), batch_size)]
        readers = ThreadPoolExecutor(READERS, thread_name_prefix="tinylens images")
        with _read_at_random(self.parts), readers:
            self._pool, self._later = readers, iter(batches)
            self._order_more()
            try:
                yield
            finally:
                self._later = iter(())
                for _, coming in self._waiting:
                    coming.cancel()
                self._waiting.clear()
                self._pool = None

    def _order_more(self) -> None:
        image = int(np.prod(self.image_shape))
        while self._pool is not None and len(self._waiting) < MOST_AHEAD:
            known = sum(len(each) for each, _ in self._waiting) * image
            if known >= AHEAD_BYTES and len(self._waiting) >= 2:
                return
            indices = next(self._later, None)
            if indices is None:
                return
            self._waiting.append((indices, self._pool.submit(self._gather, indices)))

    def _gather(self, indices: Indices) -> Images:
        if len(indices) and not 0 <= indices.min() <= indices.max() < self.starts[-1]:
            raise IndexError(f"images {indices.min()} to {indices.max()} of {self.starts[-1]}")
        found = np.empty((len(indices), *self.image_shape), np.uint8)
        part_of = np.searchsorted(self.starts, indices, side="right") - 1
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(part_of == number)
            rows = indices[mine] - self.starts[number]
            _ask_for(part, rows)
            in_order = np.argsort(rows, kind="stable")  # neighbours on the disk come together
            # unlike part[rows], `take` copies whole images, and lets other threads go on
            found[mine[in_order]] = np.take(part, rows[in_order], axis=0)
        return found


@contextlib.contextmanager
def _read_at_random(parts: Sequence[Images]) -> Iterator[None]:
    """Disable the kernel's read-ahead within the block.

    Read-ahead of 1 MB is 80 times too much for a random 12 kB image and evicts useful pages.
    """
    mappings = [found for found in map(_mapping, parts) if found is not None]
    can = hasattr(mmap, "MADV_RANDOM")
    for mapping in mappings if can else ():
        mapping.madvise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        for mapping in mappings if can else ():
            mapping.madvise(mmap.MADV_NORMAL)


def _ask_for(part: Images, rows: NDArray[np.integer[Any]]) -> None:
    """Announce the next reads of a mapped file to the kernel.

    For random 12 kB images in 12 GB, an SSD gave 5,600 images/s to 16 threads without this and
    44,000 to 4 threads with it.
    """
    mapping = _mapping(part)
    if mapping is None or not hasattr(mmap, "MADV_WILLNEED") or not part.flags.c_contiguous:
        return
    before = part.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    size = part[0].nbytes
    for row in rows.tolist():
        start = before + row * size
        aligned = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, aligned, start + size - aligned)


def _mapping(images: Images) -> mmap.mmap | None:
    """Return the memory map behind an array; None if it is in memory."""
    base: object = images
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
