"""A worker as its supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tinylens.serving import tally
from tinylens.serving.channel import Channel
from tinylens.serving.counters import Counts
from tinylens.serving.tally import Tally


@dataclass(eq=False)
class Process:
    """A worker.

    Attributes:
        process: of the operating system.
        channel: to it.
        handing: the socket that connections go over.
        models: SHA-256 of the models that it was started with, by name.
        ready: whether it answers.
        beat: when it was last heard of.
        ended: counts the connections that it has let go of.
        handed: connections that it was given.
        stuck: seconds that its slowest engine has been at one batch.
        counts: that it told last.
    """

    process: asyncio.subprocess.Process
    channel: Channel
    handing: socket.socket
    models: dict[str, str]
    ended: Tally
    ready: bool = False
    beat: float = field(default_factory=time.monotonic)
    handed: int = 0
    stuck: float = 0.0
    counts: Counts = field(default_factory=dict)

    def load(self) -> int:
        """Return how many connections it has, or is about to have."""
        return self.handed - self.ended.count

    def hand(self, accepted: socket.socket) -> bool:
        """Pass a connection on; return whether the worker has it."""
        try:
            socket.send_fds(self.handing, [b"c"], [accepted.fileno()])
        except OSError:  # its buffer is full, or it is gone
            return False
        self.handed += 1
        return True

    def heard(self, message: dict[str, Any]) -> None:
        """Keep what it tells of itself."""
        self.beat, self.stuck = time.monotonic(), message["stuck"]
        self.counts = message["counts"]

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def close(self) -> None:
        """Let go of the socket to it, and of the memory."""
        self.handing.close()
        self.ended.close()


async def start(options: dict[str, Any], paths: dict[str, str], models: dict[str, str]) -> Process:
    """Start a worker.

    Args:
        options: of the server, as JSON.
        paths: of the models' files, by name.
        models: their SHA-256, by name.
    """
    ours, theirs = socket.socketpair()
    handing, taking = socket.socketpair()
    handing.setblocking(False)
    with theirs, taking, tally.open_file() as count:
        inherited = theirs.fileno(), taking.fileno(), count.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tinylens.serving.worker", *map(str, inherited)),
            pass_fds=inherited,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # NumPy does no linear algebra there
        )
        ended = Tally(count.fileno())
    channel = await Channel.over(ours)
    channel.send(options=options, paths=paths)
    return Process(process, channel, handing, models, ended)
