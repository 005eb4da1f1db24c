"""Those who came while all places were taken.

They wait for a moment, so that a burst is answered and not refused. Where more come than can be
answered, nearly all are refused, the longest waiting first, and a place that becomes free goes to
whoever came last: who is answered has then not stood behind those who are refused (adaptive LIFO:
Maurer, "Fail at scale", ACM Queue, 2015).
"""

from __future__ import annotations

import asyncio
import collections
import math
import time
from typing import Protocol

AT_ONCE = 16  # who are refused before others are read
BEHIND_SECONDS = 1.0  # after somebody was refused, the last comes first


class Waiting(Protocol):
    """Somebody in line."""

    def proceed(self) -> None:
        """Take a place, unless it is not wanted any more."""

    def turn_away(self) -> None:
        """Be refused."""


class Line:
    """A line with a bound on its length, and on how long anybody waits in it.

    Args:
        most: who may wait; who is beyond is refused within a turn of the event loop or a few.
        patience: seconds that they wait.
    """

    def __init__(self, most: int, patience: float) -> None:
        self._most, self._patience = most, patience
        self._loop = asyncio.get_running_loop()
        self._waiting: collections.deque[tuple[float, Waiting]] = collections.deque()
        self._next: asyncio.Handle | None = None
        self._refused = -math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, one: Waiting) -> None:
        """Let somebody wait."""
        self._waiting.append((time.monotonic(), one))
        self._look_again()

    def call(self) -> bool:
        """Let one of them proceed; return whether there was anybody."""
        if not self._waiting:
            return False
        behind = time.monotonic() - self._refused < BEHIND_SECONDS
        _, one = self._waiting.pop() if behind else self._waiting.popleft()
        one.proceed()
        return True

    def _look_again(self) -> None:
        """See to it that those whose time is over are refused."""
        if self._next is None and self._waiting:
            self._next = self._loop.call_later(self._wait(), self._refuse)
        elif self._next is not None and len(self._waiting) == self._most + 1:
            self._next.cancel()
            self._next = self._loop.call_soon(self._refuse)

    def _wait(self) -> float:
        """Return seconds until the longest waiting is refused."""
        if len(self._waiting) > self._most:
            return 0.0
        return max(0.0, self._waiting[0][0] + self._patience - time.monotonic())

    def _refuse(self) -> None:
        """Refuse some; then others are read before the next are refused."""
        self._next = None
        for _ in range(AT_ONCE):
            if not self._waiting or self._wait() > 0:
                break
            self._refused = time.monotonic()
            self._waiting.popleft()[1].turn_away()
        self._look_again()
