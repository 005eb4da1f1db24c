"""Reading and decoding many images, with all cores.

The processes of a `ProcessPoolExecutor` read, hash and decode stretches of images, and write the
pixels into their rows of one file: what goes between processes is paths and what the headers say.
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
    """Where the bytes of one image lie: a whole file, or `length` bytes of it from `offset`.

    Attributes:
        path: of the file.
        offset: of the first byte.
        length: in bytes; -1 is all of the file.
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
    """Return the stamp of the file `path`, UNKNOWN where there is none to be had."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path takes as long to make as this call
    except OSError:
        return UNKNOWN
    return found.st_size, found.st_mtime_ns


class Target(NamedTuple):
    """What images are decoded into.

    Attributes:
        rule: what they become.
        any_size: whether those of another size are decoded too, else they are left.
        plain: whether simplejpeg may decode plain JPEGs.
        path: the .npy file whose rows are the result.
    """

    rule: ImageRule
    any_size: bool
    plain: bool
    path: str

    def wants(self, size: Size) -> bool:
        """Return whether an image of that size is to be decoded."""
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
    """What a stretch of images is.

    Attributes:
        digests: the SHA-256 of each image's bytes; "" where they cannot be read.
        stamps: of each image's file.
        sizes: of those with a header, with how many have it.
        broken: (row, reason) of those that cannot be read.
        left: the rows of those that are not decoded yet.
        notes: (row, words) on those that are.
    """

    digests: list[str]
    stamps: list[Stamp]
    sizes: Counter[Size]
    broken: list[tuple[int, str]]
    left: list[int]
    notes: list[tuple[int, str]]

    def add(self, more: Found) -> None:
        """Take in what the images that follow are."""
        self.digests.extend(more.digests)
        self.stamps.extend(more.stamps)
        self.sizes.update(more.sizes)
        self.broken.extend(more.broken)
        self.left.extend(more.left)
        self.notes.extend(more.notes)

    def counted_sizes(self) -> list[CountedSize]:
        """Return each size with how many images have it."""
        return [(*size, count) for size, count in self.sizes.items()]


def examine(start: int, columns: Sequence[Any], target: Target | None) -> Found:
    """Return what images are, and decode those that `target` is for.

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
    """Write rows into a .npy file; decoding into a map of it would cost a fault a page."""
    offset = np.load(path, mmap_mode="r", allow_pickle=False).offset
    with Path(path).open("r+b") as file:
        file.seek(offset + start * block[0].nbytes)
        file.write(block.data)


def available_cores() -> int:
    """Return how many processors this process may use, at most 16: the disk is then the limit."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


class Pool:
    """Examines images, in processes once many are expected; made by `open_pool`."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def expect(self, count: int) -> None:
        """Prepare processes if `count` images are worth it: called as early as they are known."""
        workers = self._workers
        if workers is None:
            workers = available_cores() if count >= SMALL_SET else 1
        if workers > 1 and self._executor is None:
            self._workers = workers
            self._start()

    def examine(
        self, items: Sequence[Item], starts: Sequence[int], stretch: int, target: Target | None
    ) -> Iterator[Found]:
        """Yield what the images of each stretch are, in the order of `starts`.

        Args:
            items: all images.
            starts: the row that each stretch begins with.
            stretch: how many images one has.
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
        """End all processes; what they were at has been written, or is not wanted any more."""
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
    """Yield a pool.

    Args:
        workers: how many processes; 1 decodes in this one. None: as many as there are cores, or 1
            for a small set.
    """
    pool = Pool(workers)
    try:
        yield pool
    finally:
        pool.close()


def _begin() -> None:
    """Prepare a process: Ctrl-C is for its parent, and it ends when that does, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _clean_start() -> Iterator[None]:
    """Let processes start without the user's script, which would need a main guard.

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
