"""Parallel image decoding.

Worker processes read, hash and decode chunks of images and write the pixels into one shared file;
only paths and header data cross process boundaries.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinylens.data.images import ImageRule, decode, probe
from tinylens.data.plain_jpeg import decode_into, read_frame
from tinylens.errors import DataError

MAX_FILE_BYTES = 256_000_000  # an uncompressed image of the largest size is a third of it
SMALL_SET = 3_000  # images; fewer are decoded here before processes have started
FORKS = sys.platform == "linux"  # macOS has it too, and libraries that do not bear it
STRETCH = 512  # images that a process takes at once: about 10 ms of work at 32×32
STRETCH_BYTES = 4_000_000  # of pixels, at most, that a process holds before it writes them

Rows = NDArray[np.uint8]  # shape (n, height, width, channels)
Size = tuple[int, int, bool]  # width and height in pixels, and whether it has no colour
CountedSize = tuple[int, int, bool, int]  # the same, and how many images have it
Stamp = tuple[int, int]  # a file's size in bytes, and when it was modified, in ns

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)

UNKNOWN: Stamp = (-1, -1)  # of a file that is not there, or is being written


class Item(NamedTuple):
    """Byte range of one encoded image.

    Attributes:
        path: File path.
        offset: First byte.
        length: Bytes; -1 for the whole file.
    """

    path: str
    offset: int = 0
    length: int = -1

    def content(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: when they cannot be read, or are too many.
        """
        return self.content_and_stamp()[0]

    def content_and_stamp(self) -> tuple[bytes, Stamp]:
        """Return the bytes and the stamp of the file; UNKNOWN if it is being written.

        Raises:
            DataError: when they cannot be read, or are too many.
        """
        try:  # not through a file object: that takes six times longer for a small file
            descriptor = os.open(self.path, _READ)
            try:
                status = os.fstat(descriptor)
                if self.offset:
                    os.lseek(descriptor, self.offset, os.SEEK_SET)
                wanted = status.st_size + 1 if self.length < 0 else self.length
                content = os.read(descriptor, min(wanted, MAX_FILE_BYTES + 1))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"larger than {MAX_FILE_BYTES:,} bytes, too large for an image")
        if self.length < 0 and len(content) != status.st_size:
            return content, UNKNOWN
        return content, (status.st_size, status.st_mtime_ns)  # what changes now shows next time


def stamp_of(path: str) -> Stamp:
    """Return the stamp of a file, UNKNOWN if unavailable."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path takes as long to make as this call
    except OSError:
        return UNKNOWN
    return found.st_size, found.st_mtime_ns


class Target(NamedTuple):
    """Decoding target.

    Attributes:
        rule: Preprocessing rule.
        any_size: Whether to decode images of another size too.
        plain: whether simplejpeg may decode plain JPEGs.
        path: Output .npy file.
    """

    rule: ImageRule
    any_size: bool
    plain: bool
    path: str

    def wants(self, size: Size) -> bool:
        """Return whether to decode an image of that size."""
        return self.any_size or self._fits(size)

    def is_plain(self, size: Size) -> bool:
        """Return whether a plain JPEG of that size becomes its row without another step."""
        return self.plain and self._fits(size)

    def _fits(self, size: Size) -> bool:
        """Return whether the size is that of the rule, and no colour is to be taken away."""
        width, height, grey = size
        rule = self.rule
        return width == rule.width and height == rule.height and (grey or rule.channels == 3)


class Found(NamedTuple):
    """Examination result for a chunk of images.

    Attributes:
        digests: SHA-256 of each image's bytes; "" if unreadable.
        stamps: Stamp of each image's file.
        sizes: Header sizes with their counts.
        broken: (row, reason) of unreadable images.
        left: Rows not decoded yet.
        notes: (row, note) of decoded images.
    """

    digests: list[str]
    stamps: list[Stamp]
    sizes: Counter[Size]
    broken: list[tuple[int, str]]
    left: list[int]
    notes: list[tuple[int, str]]

    def add(self, more: Found) -> None:
        """Append the result of the next chunk."""
        self.digests.extend(more.digests)
        self.stamps.extend(more.stamps)
        self.sizes.update(more.sizes)
        self.broken.extend(more.broken)
        self.left.extend(more.left)
        self.notes.extend(more.notes)

    def counted_sizes(self) -> list[CountedSize]:
        """Return the image count per size."""
        return [(*size, count) for size, count in self.sizes.items()]


def examine(start: int, columns: Sequence[Any], target: Target | None) -> Found:
    """Examine images and decode those that match `target`.

    Args:
        start: the row of the first.
        columns: all paths, all offsets and so on: pickled in half the time that Items take.
        target: None decodes nothing.
    """
    items = list(map(Item, *columns))
    found = Found([], [], Counter(), [], [], [])
    block: Any = [None] * len(items)
    if target is not None:
        block = np.empty((len(items), *target.rule.shape), np.uint8)
    size: Size = (0, 0, False)
    frame, wanting, plain = None, target, False
    for row, (item, pixels) in enumerate(zip(items, block, strict=True), start):
        try:
            content, stamp = item.content_and_stamp()
        except DataError as error:
            found.digests.append("")
            found.stamps.append(stamp_of(item.path))
            found.broken.append((row, str(error)))
            continue
        found.digests.append(hashlib.sha256(content).hexdigest())
        found.stamps.append(stamp)
        before, frame = frame, read_frame(content, frame)
        try:
            if frame is None or frame is not before:
                size = frame[:3] if frame else _probed(content)
                wanting = target if target is not None and target.wants(size) else None
                plain = wanting is not None and frame is not None and wanting.is_plain(size)
            found.sizes[size] += 1
            if wanting is None:
                found.left.append(row)
            elif not (plain and decode_into(content, pixels)):
                decoded = decode(content, wanting.rule)
                pixels[:] = decoded.image
                found.notes.extend((row, note) for note in decoded.notes)
        except DataError as error:
            found.broken.append((row, str(error)))
    if target is not None:
        _write(target.path, start, block)
    return found


def _probed(content: bytes) -> Size:
    probed = probe(content)
    return probed.width, probed.height, probed.grey


def _write(path: str, start: int, block: Rows) -> None:
    """Write rows into a .npy file; a memory map would cost a page fault per page."""
    offset = np.load(path, mmap_mode="r", allow_pickle=False).offset
    with Path(path).open("r+b") as file:
        file.seek(offset + start * block[0].nbytes)
        file.write(block.data)


def available_cores() -> int:
    """Return the available CPU count, capped at 16, where the disk is the bottleneck."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


class Pool:
    """Image decoding pool; starts processes once many images are expected."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def expect(self, count: int) -> None:
        """Start worker processes if `count` images justify it; call as early as possible."""
        workers = self._workers
        if workers is None:
            workers = available_cores() if count >= SMALL_SET else 1
        if workers > 1 and self._executor is None:
            self._workers = workers
            self._start()

    def examine(
        self, items: Sequence[Item], starts: Sequence[int], stretch: int, target: Target | None
    ) -> Iterator[Found]:
        """Yield the result of each chunk, in the order of `starts`.

        Args:
            items: Images.
            starts: First row of each chunk.
            stretch: Images per chunk.
            target: as for `examine`.

        Raises:
            DataError: when a process dies twice, the first time its work is done again; or when
                there is too little memory or disk space.
        """
        columns = [tuple(zip(*items[start : start + stretch], strict=True)) for start in starts]
        if self._executor is None:
            for start, stretch_columns in zip(starts, columns, strict=True):
                yield examine(start, stretch_columns, target)
            return
        done = 0
        for again in (True, False):
            try:
                for future in self._submit(starts[done:], columns[done:], target):
                    yield future.result()
                    done += 1
                return
            except BrokenProcessPool as error:
                self.close()
                if not again:
                    raise DataError(
                        f"a decoding process died, twice, at {columns[done][0][0]} or an image "
                        "soon after it; expected it to answer: look for too little memory or disk "
                        "space, or take these images out"
                    ) from error
                self._start()
            except (OSError, MemoryError) as error:
                raise DataError(
                    f"images cannot be decoded: {error or 'too little memory'}; expected memory "
                    "and disk space for them: free some, or ask for a smaller --size"
                ) from error

    def close(self) -> None:
        """Terminate all worker processes."""
        if self._executor is not None:
            for process in list((self._executor._processes or {}).values()):
                process.kill()  # Executor.kill_workers, from Python 3.14 on
            self._executor.shutdown(cancel_futures=True)

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        with _clean_start():
            if FORKS:  # returns at once; the server imports while files are listed here
                context.set_forkserver_preload([__name__])
                multiprocessing.forkserver.ensure_running()
        self._executor = ProcessPoolExecutor(self._workers, context, initializer=_begin)

    def _submit(
        self, starts: Sequence[int], columns: Sequence[Any], target: Target | None
    ) -> list[Future[Found]]:
        assert self._executor is not None
        with _clean_start():  # a process starts with a submission
            return [
                self._executor.submit(examine, start, stretch, target)
                for start, stretch in zip(starts, columns, strict=True)
            ]


@contextlib.contextmanager
def open_pool(workers: int | None = None) -> Iterator[Pool]:
    """Open a decoding pool.

    Args:
        workers: Process count; 1 decodes in this process. None: one per core, or 1 for a small
            dataset.
    """
    pool = Pool(workers)
    try:
        yield pool
    finally:
        pool.close()


def _begin() -> None:
    """Initialize a worker: ignore Ctrl-C, exit with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _clean_start() -> Iterator[None]:
    """Start processes without importing the user's script (no main guard needed).

    Nor may a file of the current folder stand in for a module.
    """
    main, safe = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.pop("PYTHONSAFEPATH")
        if safe is not None:
            os.environ["PYTHONSAFEPATH"] = safe
