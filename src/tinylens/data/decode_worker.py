"""Looking at and decoding many pictures; also a process that does so for another.

`python -m tinylens.data.decode_worker ITEMS` reads the list of pictures in the file ITEMS, then a
command a line from stdin, and answers each with a line on stdout. It ends when stdin does, so it
cannot outlive the process that started it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinylens.data import images
from tinylens.data.images import ImageRule, Pixels
from tinylens.errors import DataError

MAX_FILE_BYTES = 256_000_000  # an uncompressed picture of the largest size is a third of it


@dataclass(frozen=True)
class Item:
    """Where the bytes of one picture lie: a whole file, or `length` bytes of it from `offset`."""

    path: str
    offset: int = 0
    length: int = -1

    def content(self) -> bytes:
        """Return the bytes.

        Raises:
            DataError: when they cannot be read, or are too many.
        """
        try:  # not through a file object: that takes six times longer for a small file
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                content = self._read(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error
        if len(content) > MAX_FILE_BYTES:
            raise DataError(f"larger than {MAX_FILE_BYTES:,} bytes, too large for a picture")
        return content

    def _read(self, descriptor: int) -> bytes:
        wanted = os.fstat(descriptor).st_size if self.length < 0 else self.length
        if self.offset:
            os.lseek(descriptor, self.offset, os.SEEK_SET)
        return os.read(descriptor, min(wanted, MAX_FILE_BYTES + 1))


class Surveyed(NamedTuple):
    """What one picture's bytes and header say; `reason` where there is no reading them."""

    digest: str = ""
    width: int = 0
    height: int = 0
    grey: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What there is to say of the pictures of a stretch: (row, words), each."""

    broken: list[tuple[int, str]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)


def survey(items: Sequence[Item]) -> list[Surveyed]:
    """Return the SHA-256 of each picture's bytes, and what its header says."""
    return [_surveyed(item) for item in items]


def decode(items: Sequence[Item], start: int, stop: int, rule: ImageRule, rows: Pixels) -> Outcome:
    """Decode items `start` to `stop` into the same rows of `rows`; a broken picture's stay black.

    Args:
        items: all pictures of the set.
        start: the first to decode.
        stop: one after the last.
        rule: what they are to become.
        rows: uint8, shape (n, height, width, channels) of the rule, written to.
    """
    outcome = Outcome()
    for row in range(start, stop):
        try:
            decoded = images.decode(items[row].content(), rule)
        except DataError as error:
            outcome.broken.append((row, str(error)))
            continue
        rows[row] = decoded.image
        outcome.notes.extend((row, note) for note in decoded.notes)
    return outcome


def _surveyed(item: Item) -> Surveyed:
    try:
        content = item.content()
    except DataError as error:
        return Surveyed(reason=str(error))
    digest = hashlib.sha256(content).hexdigest()
    try:
        probed = images.probe(content)
    except DataError as error:
        return Surveyed(digest, reason=str(error))
    return Surveyed(digest, probed.width, probed.height, probed.grey)


def answer(items: Sequence[Item], command: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one command, both as JSON values."""
    start, stop = command["start"], command["stop"]
    if command["do"] == "survey":
        return {"surveyed": survey(items[start:stop])}
    rule = ImageRule.from_json(command["rule"])
    rows = np.load(command["images"], mmap_mode="r+", allow_pickle=False)
    return asdict(decode(items, start, stop, rule, rows))


def main() -> None:
    """Answer the commands on stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    listed = json.loads(Path(sys.argv[1]).read_text("ascii"))
    items = [Item(*values) for values in listed]
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(items, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
