"""A server in a second process, and a client that says exactly what it is told to."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shipped import RULE, some_images

TOKEN = "a-token-of-24-characters"


def png(seed: int = 3, rule=RULE) -> bytes:
    """Return an image of noise as the network wants it."""
    return encoded(some_images(1, rule, seed=seed)[0])


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, kind, **options)
    return file.getvalue()


def form(*files: tuple[str, bytes], boundary: str = "xYzZY") -> tuple[bytes, str]:
    """Return a body with files, and its content type."""
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    whole = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return whole, f"multipart/form-data; boundary={boundary}"


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`tinylens serve` in a process of its own."""

    def __init__(
        self, *words: Any, environment: dict[str, str] | None = None, port: int = 0
    ) -> None:
        command = [sys.executable, "-m", "tinylens", "serve", *map(str, words)]
        self.process = subprocess.Popen(
            [*command, "--json", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self._errors: list[bytes] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        lines = []
        while line := self.process.stdout.readline():
            lines.append(line)
            if line.rstrip() == b"}":
                break
        try:
            self.described = json.loads(b"".join(lines))
            self.port = int(self.described["url"].rstrip("/").rpartition(":")[2])
        except (ValueError, KeyError):
            self.process.wait(10)
            raise AssertionError(f"no server: {lines} {self.errors}") from None

    def _read_errors(self) -> None:
        for line in self.process.stderr:
            self._errors.append(line)

    @property
    def errors(self) -> str:
        """What it wrote on stderr so far."""
        return b"".join(self._errors).decode(errors="replace")

    @property
    def workers(self) -> list[int]:
        return self.described["workers"]

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str | None = None,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Answer:
        """Ask once; words of headers are joined by _ for -."""
        used = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        method = method or ("GET" if body is None else "POST")
        used.request(method, path, body, named)
        answer = used.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        if connection is None:
            used.close()
        return found

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def socket(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def raw(self, sent: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes, and return all that comes until the server closes."""
        with self.socket() as made:
            with contextlib.suppress(ConnectionError):
                made.sendall(sent)
                if half_close:
                    made.shutdown(socket.SHUT_WR)
            return read_all(made)

    def metric(self, name: str, **labels: str) -> float:
        """Return a value of /metrics, 0 where it is not there."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.ask("/metrics").body.decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def memory(self) -> int:
        """Return the bytes that its processes have in memory."""
        return sum(resident(pid) for pid in (self.process.pid, *self.workers))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def read_all(made: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionError, TimeoutError):
        while piece := made.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def until(true, seconds: float = 20.0, pause: float = 0.02) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(pause)


@contextlib.contextmanager
def running(*words: Any, **more: Any) -> Generator[Server]:
    server = Server(*words, **more)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.stop()
