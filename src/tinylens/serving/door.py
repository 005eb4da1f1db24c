"""Where connections come in: accepted by the supervisor, handed to the worker with the fewest.

Workers that accept for themselves from one socket get connections as chance has it: of 16 some
worker may have 8 and another 1, and the slowest percent of answers are those of the first. Handing
one over costs some 8 µs, and it is kept for many requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable

from tinylens.errors import RecipeError
from tinylens.serving.process import Process

BACKLOG = 1024
AT_ONCE = 64  # connections that are taken before anything else is done
HEAD = 8192  # bytes of a request that nobody can answer
HEAD_SECONDS = 2.0
MOST_ALONE = 256  # connections that are answered without a worker at a time
WITHOUT_FILES_SECONDS = 0.1  # until it is tried again where no file descriptor was free
FULL_SECONDS = 0.005  # until it is tried again where workers have not taken the last ones yet
MOST_TRIES = 100  # after which the connection is answered here, as if no worker were


class Door:
    """Listening sockets, and whom to hand connections to.

    Args:
        host: the address to listen on.
        port: 0 for any that is free.
        choose: returns the workers that answer, the one with the fewest connections first.

    Raises:
        RecipeError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, choose: Callable[[], list[Process]]) -> None:
        self._choose = choose
        self._socket = _listen(host, port)
        self._alone: set[asyncio.Task[None]] = set()
        self._held: socket.socket | None = None  # accepted, but nobody could take it yet
        self._tries = 0
        self._ending = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Take what has come so far, and no more."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._ending = True
        if self._held is not None:
            self._pass_on(self._held)
        while self._accept_some():
            pass
        self._socket.close()

    async def finish(self) -> None:
        """Wait until those who were answered here have their answers."""
        if self._alone:
            await asyncio.wait(self._alone)

    def _accept(self) -> None:
        self._accept_some()

    def _accept_some(self) -> bool:
        """Take some connections; return whether there may be more."""
        for _ in range(AT_ONCE):
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                return False
            except ConnectionError:
                continue
            except OSError:  # no file descriptor is free
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(WITHOUT_FILES_SECONDS, self._again)
                return False
            if not self._pass_on(accepted):
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(FULL_SECONDS, self._again)
                return False
        return True

    def _pass_on(self, accepted: socket.socket) -> bool:
        """Hand a connection to a worker; return False where it is to be tried again soon."""
        workers = self._choose()
        self._held = None
        if any(worker.hand(accepted) for worker in workers):
            accepted.close()
        elif workers and self._tries < MOST_TRIES and not self._ending:
            self._held, self._tries = accepted, self._tries + 1
            return False
        else:
            self._answer_alone(accepted)
        self._tries = 0
        return True

    def _again(self) -> None:
        """Go on where it had to be waited; the kernel keeps those who came meanwhile."""
        if self._socket.fileno() < 0:
            return
        if self._held is not None and not self._pass_on(self._held):
            self._loop.call_later(FULL_SECONDS, self._again)
            return
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _answer_alone(self, accepted: socket.socket) -> None:
        if len(self._alone) >= MOST_ALONE:
            accepted.close()
            return
        task = self._loop.create_task(_answer(accepted))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        made = socket.socket(family, kind)
    except OSError as error:
        raise RecipeError(f"--host {host}: {error.strerror}; expected an address") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise RecipeError(
            f"--host {host} --port {port}: {error.strerror}; take another port, or --port 0 for "
            "any that is free"
        ) from None
    return made


async def _answer(accepted: socket.socket) -> None:
    """Answer while no worker can: the server lives, and is not ready."""
    with contextlib.suppress(OSError, asyncio.TimeoutError, ValueError):
        accepted.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=accepted, limit=HEAD)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
            writer.write(_reply(head))
            await asyncio.wait_for(writer.drain(), HEAD_SECONDS)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


def _reply(head: bytes) -> bytes:
    if head.startswith((b"GET /v2/health/live ", b"HEAD /v2/health/live ")):
        line, body = b"200 OK", json.dumps({"live": True}).encode()
    else:
        sentence = "no model answers at the moment; try again in a second"
        line = b"503 Service Unavailable\r\nretry-after: 1"
        body = json.dumps({"error": sentence, "request_id": "none"}).encode()
    return (
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (line, len(body), body)
    )
