"""A cheap load generator: raw sockets, one thread, epoll; what serve.py uses, no benchmark itself.

    python benchmarks/traffic.py PORT BODIES SECONDS CONNECTIONS [RATE]

BODIES is a file with whole HTTP requests, each after its length in 4 bytes. Every request is
written in one call and every answer read in one where the kernel has it all, so a request costs
some 20 µs here. Prints one JSON object.

Without RATE every connection asks again as soon as it is answered (closed loop). With it, requests
come at random times of a Poisson process of so many a second, whether or not the server keeps up
(open loop), as long as a connection is free. Time is counted from the sending of a request, so that
what the generator cannot keep up with is no fault of the server's; "sent" says how many came.
"""

from __future__ import annotations

import collections
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LARGEST_ANSWER = 1 << 20


class Connection:
    """One keep-alive connection; it connects again where the server closes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.begun = 0.0
        self.answer = b""
        self.socket = self._connected()

    def _connected(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def send(self, request: bytes, begun: float) -> None:
        self.begun = begun
        self.socket.sendall(request)

    def status(self) -> int:
        """Return the status once an answer is whole, 0 while it is not, -1 where it was cut."""
        got = self.socket.recv(LARGEST_ANSWER)
        self.answer = self.answer + got if self.answer else got
        head = self.answer.find(b"\r\n\r\n")
        if not got:
            return -1
        if head < 0:
            return 0
        start = self.answer.find(b"ontent-length: ", 0, head)
        length = int(self.answer[start + 15 : self.answer.find(b"\r\n", start)])
        if len(self.answer) < head + 4 + length:
            return 0
        status = int(self.answer[9:12])
        self.closing = b"connection: close" in self.answer[:head].lower()
        self.answer = b""
        return status


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Keep whole HTTP requests in a file for `main`."""
    path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in requests))


def read_requests(path: Path) -> list[bytes]:
    content, place, found = path.read_bytes(), 0, []
    while place < len(content):
        (length,) = struct.unpack_from("<I", content, place)
        found.append(content[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def closed_loop(port: int, requests: list[bytes], seconds: float, connections: int) -> list[Any]:
    """Return (status, seconds, when) of each answer; every connection always waits for one."""
    chooser = selectors.DefaultSelector()
    turn = _forever(requests)
    for _ in range(connections):
        one = Connection(port)
        chooser.register(one.socket, selectors.EVENT_READ, one)
        one.send(next(turn), time.perf_counter())
    found = []
    begun = time.perf_counter()
    end = begun + seconds
    while (now := time.perf_counter()) < end:
        for key, _ in chooser.select(0.1):
            one = key.data
            status = _status(one)
            if not status:
                continue
            now = time.perf_counter()
            found.append((status, now - one.begun, now - begun))
            if status < 0 or one.closing:
                _again(chooser, one)
            one.send(next(turn), now)
    return found


def open_loop(
    port: int, requests: list[bytes], seconds: float, connections: int, rate: float
) -> list[Any]:
    """Return the same for requests that come at random times."""
    chooser = selectors.DefaultSelector()
    free = collections.deque(Connection(port) for _ in range(connections))
    for one in free:
        chooser.register(one.socket, selectors.EVENT_READ, one)
    turn, due = _forever(requests), random.Random(0)
    found: list[Any] = []
    begun = following = time.perf_counter()
    end = begun + seconds
    while (now := time.perf_counter()) < end:
        while following <= now and free:
            free.popleft().send(next(turn), time.perf_counter())
            following += due.expovariate(rate)
        following = max(following, now - 0.01)  # what could not be sent is not sent later
        wait = max(following - time.perf_counter(), 0) if free else 0.1
        for key, _ in chooser.select(wait):
            one = key.data
            status = _status(one)
            if not status:
                continue
            now = time.perf_counter()
            found.append((status, now - one.begun, now - begun))
            if status < 0 or one.closing:
                _again(chooser, one)
            free.append(one)
    return found


def _status(one: Connection) -> int:
    try:
        return one.status()
    except ConnectionError:
        return -1


def _again(chooser: selectors.BaseSelector, one: Connection) -> None:
    chooser.unregister(one.socket)
    one.socket.close()
    one.__init__(one.port)  # type: ignore[misc]
    chooser.register(one.socket, selectors.EVENT_READ, one)


def _forever(requests: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


def summary(found: list[Any], seconds: float) -> dict[str, Any]:
    """Return requests a second and percentiles of milliseconds, for each status."""
    statuses: dict[int, list[float]] = {}
    for status, taken, _ in found:
        statuses.setdefault(status, []).append(1e3 * taken)
    return {
        str(status): {
            "count": len(taken),
            "per_second": len(taken) / seconds,
            **{f"p{share}_ms": _percentile(taken, share) for share in (50, 90, 99)},
            "highest_ms": max(taken),
        }
        for status, taken in sorted(statuses.items())
    }


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share / 100), len(ordered) - 1)]


def main() -> None:
    port, seconds, connections = int(sys.argv[1]), float(sys.argv[3]), int(sys.argv[4])
    requests = read_requests(Path(sys.argv[2]))
    if len(sys.argv) > 5:
        found = open_loop(port, requests, seconds, connections, float(sys.argv[5]))
    else:
        found = closed_loop(port, requests, seconds, connections)
    print(json.dumps(summary(found, seconds)))


if __name__ == "__main__":
    main()
