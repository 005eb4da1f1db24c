"""Reading and decoding many pictures; also a process that does so for another.

`python -m tinylens.data.decode_worker` reads commands from stdin, and answers each on stdout. Given
pairs of descriptors, `7,10 8,11` for one, it forks a worker for each pair instead, which reads its
commands from the first and answers on the second: what takes long in starting, importing NumPy, is
done once for all. Either ends when stdin does, so none can outlive the process that started it. It
imports little, since nothing is decoded before: Pillow comes with the first picture that needs it.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import signal
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinylens.data.plain_jpeg import Frame, decode_into, read_frame
from tinylens.errors import DataError

MAX_FILE_BYTES = 256_000_000  # an uncompressed picture of the largest size is a third of it
BLOCK_BYTES = 2_000_000  # of pixels: what a core's own cache holds

Command = dict[str, Any]
Answer = dict[str, Any]
Rule = dict[str, Any]  # an ImageRule, as JSON values
Rows = NDArray[np.uint8]  # shape (n, height, width, channels)
Size = tuple[int, int, bool]  # width and height in pixels, and whether it has no colour
CountedSize = tuple[int, int, bool, int]  # the same, and how many pictures have it
Stamp = tuple[int, int]  # a file's size in bytes, and when it was modified, in ns

_LENGTH = struct.Struct("<Q")

UNKNOWN: Stamp = (-1, -1)  # of a file that is not there, or is being written


class Item(NamedTuple):
    """Where the bytes of one picture lie: a whole file, or `length` bytes of it from `offset`.

    Attributes:
        path: of the file.
        offset: of the first byte.
        length: in bytes; -1 is all of the file.
        inflated: bytes that these become when they are inflated (RFC 1951, as in a .zip); -1 where
            they lie as they are.
        checksum: the CRC-32 of the picture; -1 where it is not known.
    """

    path: str
    offset: int = 0
    length: int = -1
    inflated: int = -1
    checksum: int = -1

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
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
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
            raise DataError(f"larger than {MAX_FILE_BYTES:,} bytes, too large for a picture")
        if self.length < 0 and len(content) != status.st_size:
            return content, UNKNOWN
        if self.checksum >= 0 or self.inflated >= 0:
            content = self._unpacked(content)
        return content, (status.st_size, status.st_mtime_ns)  # what changes now shows next time

    def _unpacked(self, content: bytes) -> bytes:
        if self.inflated >= 0:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                content = inflater.decompress(content, min(self.inflated, MAX_FILE_BYTES) + 1)
            except zlib.error as error:
                raise DataError(f"cannot be inflated: {error}") from error
        if self.checksum >= 0 and zlib.crc32(content) != self.checksum:
            raise DataError("damaged in its archive: its checksum is another")
        return content


def stamp_of(path: str) -> Stamp:
    """Return the stamp of the file `path`, UNKNOWN where there is none to be had."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path takes as long to make as this call
    except OSError:
        return UNKNOWN
    return found.st_size, found.st_mtime_ns


class Guess(NamedTuple):
    """What the pictures will most likely become, so that surveying them can decode them as well.

    Attributes:
        rule: an ImageRule, as JSON values.
        any_size: whether pictures of another size become it too; else they show that it is wrong.
        plain: whether simplejpeg may decode plain JPEGs.
        images: the .npy file whose rows are the result.
    """

    rule: Rule
    any_size: bool
    plain: bool
    images: str


class Outcome(NamedTuple):
    """What there is to say of decoded pictures: (row, words), each."""

    broken: list[tuple[int, str]]
    notes: list[tuple[int, str]]


class Survey(NamedTuple):
    """What the bytes and headers of some pictures say.

    Attributes:
        digests: the SHA-256 of each picture's bytes; "" where they cannot be read.
        stamps: of each picture's file.
        sizes: of those that can be read, each size once, with how many have it.
        broken: (row, reason) of those that cannot.
        left: the rows of those that can, and are not decoded yet.
        notes: (row, words) on those that are.
    """

    digests: list[str]
    stamps: list[Stamp]
    sizes: list[CountedSize]
    broken: list[tuple[int, str]]
    left: list[int]
    notes: list[tuple[int, str]]


def survey(items: Sequence[Item], start: int, guess: Guess | None = None) -> Survey:
    """Return what pictures are, and decode those that `guess` fits in the same pass.

    Args:
        items: the pictures of the rows from `start` on.
        start: the row of the first.
        guess: None decodes nothing.
    """
    surveyor = _Surveyor(guess)
    rows = range(start, start + len(items))
    if guess is None:
        for row, item in zip(rows, items, strict=True):
            surveyor.take(row, item)
    else:
        output = _Output(guess.images, len(items))
        block = len(output.pixels)
        for first in range(0, len(items), block):
            some = slice(first, first + block)
            for row, item, pixels in zip(rows[some], items[some], output.pixels, strict=False):
                if not surveyor.take(row, item, pixels):
                    pixels[:] = 0
            output.write(rows[some])
    surveyor.found.sizes.extend((*size, times) for size, times in sorted(surveyor.sizes.items()))
    return surveyor.found


class _Output:
    """Rows of a .npy file, decoded in memory and written a block at a time.

    To write them takes a little less time in all than to decode into a map of the file, which costs
    a fault a page, and a row that was just decoded is still in the processor's cache.

    Attributes:
        pixels: the block, uint8, shape (n, height, width, channels), to be decoded into.
    """

    def __init__(self, path: str, most: int) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self._offset, self._row_bytes = path, mapped.offset, mapped[0].nbytes
        count = max(1, min(most, BLOCK_BYTES // self._row_bytes))
        self.pixels: Rows = np.empty((count, *mapped.shape[1:]), np.uint8)

    def write(self, rows: range) -> None:
        """Put the head of the block into these rows of the file."""
        with open(self._path, "r+b") as file:  # noqa: PTH123 - pathlib is not imported here
            file.seek(self._offset + rows.start * self._row_bytes)
            file.write(self.pixels[: len(rows)].data)


class _Surveyor:
    """Looks at pictures one after the other; remembers the header of the one before."""

    def __init__(self, guess: Guess | None) -> None:
        self.found = Survey([], [], [], [], [], [])
        self.sizes: Counter[Size] = Counter()
        self._guess = guess
        self._frame: Frame | None = None
        self._size = (guess.rule["width"], guess.rule["height"]) if guess else None

    def take(self, row: int, item: Item, pixels: Rows | None = None) -> bool:
        """Note what there is to know of the picture of `row`; decode it if it fits the guess.

        Args:
            row: of the result.
            item: the picture.
            pixels: uint8, shape (height, width, channels), written to; None decodes nothing.

        Returns:
            Whether `pixels` is the picture now.
        """
        found = self.found
        try:
            content, stamp = item.content_and_stamp()
        except DataError as error:
            found.digests.append("")
            found.stamps.append(stamp_of(item.path))
            found.broken.append((row, str(error)))
            return False
        found.digests.append(hashlib.sha256(content).hexdigest())
        found.stamps.append(stamp)
        self._frame = frame = read_frame(content, self._frame)
        try:
            size = (frame.width, frame.height, frame.grey) if frame else _probed(content)
        except DataError as error:
            found.broken.append((row, str(error)))
            return False
        self.sizes[size] += 1
        if pixels is not None and self._decodes(row, content, size, frame is not None, pixels):
            return True
        found.left.append(row)
        return False

    def _decodes(self, row: int, content: bytes, size: Size, plain: bool, pixels: Rows) -> bool:
        guess = self._guess
        if guess is None:
            return False
        as_it_is = size[:2] == self._size
        if not (as_it_is or guess.any_size) or (guess.rule["channels"] == 1 and not size[2]):
            return False
        if plain and as_it_is and guess.plain and decode_into(content, pixels):
            return True
        try:
            notes = _decode_by_pillow(content, guess.rule, pixels)
        except DataError:  # the second pass will meet it again, and say so
            return False
        self.found.notes.extend((row, note) for note in notes)
        return True


def decode(items: Sequence[Item], numbers: Sequence[int], rule: Rule, rows: Rows) -> Outcome:
    """Decode pictures into their rows; a broken picture's stays as it is.

    Args:
        items: the pictures.
        numbers: the row of each.
        rule: an ImageRule as JSON values: what they are to become.
        rows: uint8, shape (n, height, width, channels) of the rule, written to.
    """
    outcome = Outcome([], [])
    for number, item in zip(numbers, items, strict=True):
        try:
            notes = _decode_by_pillow(item.content(), rule, rows[number])
        except DataError as error:
            outcome.broken.append((number, str(error)))
            continue
        outcome.notes.extend((number, note) for note in notes)
    return outcome


def _probed(content: bytes) -> Size:
    from tinylens.data.images import probe  # not above: see the head of this module

    probed = probe(content)
    return probed.width, probed.height, probed.grey


def _decode_by_pillow(content: bytes, rule: Rule, pixels: Rows) -> tuple[str, ...]:
    from tinylens.data import images  # not above: see the head of this module

    decoded = images.decode(content, images.ImageRule.from_json(rule))
    pixels[:] = decoded.image
    return decoded.notes


def open_rows(path: str) -> Rows:
    """Return the array in the .npy file `path`, mapped: what is written to it is in the file."""
    mapped = np.load(path, mmap_mode="r+", allow_pickle=False)
    return np.asarray(mapped)  # a row of a plain array is had ten times sooner than of a memmap


def answer(command: Command) -> Answer:
    """Return the answer to one command; both are what marshal knows, dictionaries and the like."""
    items = list(map(Item, *command["items"]))
    if command["do"] == "survey":
        guess = Guess(*command["guess"]) if command["guess"] else None
        return survey(items, command["start"], guess)._asdict()
    rows = open_rows(command["images"])
    return decode(items, command["numbers"], command["rule"], rows)._asdict()


def send(message: dict[str, Any], pipe: IO[bytes]) -> None:
    """Write a command or an answer, behind its length.

    By marshal, which both ends have in the same version: for lists of paths it takes less than half
    the time of JSON.
    """
    content = marshal.dumps(message)
    pipe.write(_LENGTH.pack(len(content)) + content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> dict[str, Any] | None:
    """Return what `send` wrote at the other end, or None where the pipe ends before it does."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    content = pipe.read(length)
    if len(content) < length:
        return None
    message: dict[str, Any] = marshal.loads(content)
    return message


def work() -> None:
    """Answer the commands on stdin until it ends."""
    while (command := receive(sys.stdin.buffer)) is not None:
        send(answer(command), sys.stdout.buffer)


def fork_workers(pairs: Sequence[tuple[int, int]]) -> None:
    """Fork a worker for each pair of descriptors; when stdin ends, end them all."""
    behind_the_last = max(map(max, pairs)) + 1
    workers = []
    for commands, answers in pairs:
        worker = os.fork()
        if not worker:
            os.dup2(commands, sys.stdin.fileno())
            os.dup2(answers, sys.stdout.fileno())
            os.closerange(3, behind_the_last)  # a dead worker's pipes end when none holds them
            work()
            return
        workers.append(worker)
    os.closerange(3, behind_the_last)
    sys.stdin.buffer.read()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    for worker in workers:
        os.waitpid(worker, 0)


def main() -> None:
    """Be a worker, or start several: see the head of this module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    if sys.argv[1:]:
        split = (argument.split(",") for argument in sys.argv[1:])
        fork_workers([(int(commands), int(answers)) for commands, answers in split])
    else:
        work()


if __name__ == "__main__":
    main()
