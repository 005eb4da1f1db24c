"""A number that a worker writes and its supervisor reads, without a message between them.

The supervisor hands connections to the worker with the fewest, and clients open a dozen at once. A
count that came with each beat was up to a quarter of a second old: of sixteen new connections all
went to the worker that had been heard of after the old ones had closed.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import tempfile
from collections.abc import Generator
from typing import IO

_NUMBER = struct.Struct("=Q")


class Tally:
    """A count in shared memory, of what has happened so far.

    Args:
        file: an open file of `open_file`, or its descriptor inherited from another process.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, _NUMBER.size)

    @property
    def count(self) -> int:
        """How often it has happened."""
        return int(_NUMBER.unpack_from(self._memory)[0])

    def add(self) -> None:
        """Count once more; for one thread of one process."""
        _NUMBER.pack_into(self._memory, 0, self.count + 1)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


@contextlib.contextmanager
def open_file() -> Generator[IO[bytes]]:
    """Yield a file for a tally, which is gone once nobody has it open or mapped."""
    with tempfile.TemporaryFile(prefix="tinylens-") as file:
        file.truncate(_NUMBER.size)
        yield file
