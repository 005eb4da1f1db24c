"""What supervisor and worker say to each other: a line of JSON a message, over a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

LONGEST_MESSAGE = 16 * 2**20  # bytes of a line

Message = dict[str, Any]


class Channel:
    """One end of a socket pair.

    Args:
        reader: of asyncio.
        writer: of asyncio.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def over(end: socket.socket) -> Channel:
        """Return a channel over a connected socket."""
        return Channel(*await asyncio.open_connection(sock=end, limit=LONGEST_MESSAGE))

    def send(self, **message: Any) -> None:
        """Say something; nothing happens where the other end is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the other end says, until it is gone."""
        try:
            while line := await self._reader.readline():
                yield json.loads(line)
        except ConnectionError:
            return

    async def close(self) -> None:
        """Leave, once all is said."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
