"""The downloader against a real server on this machine that cuts, stalls and lies."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from builders_data import noise
from tinylens.data.builtin import Patience, Remote, fetch
from tinylens.errors import DataError

CONTENT = noise(300_000).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(timeout=0.5, tries=3, pause=0.01)

Behaviour = Callable[[http.server.BaseHTTPRequestHandler, int], None]


class Server:
    """Answers each request as `behave` says; keeps what was asked for."""

    def __init__(self) -> None:
        self.behave: Behaviour = whole
        self.requested: list[str] = []
        self.release = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            server_outer = self

            def do_GET(self) -> None:
                outer.requested.append(self.path)
                outer.behave(self, len(outer.requested))

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(handler, status: int, body: bytes, claimed: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if claimed is None else claimed))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler, _: int) -> None:
    send(handler, 200, CONTENT)


def cut_twice(handler, number: int) -> None:
    send(handler, 200, CONTENT[:100_000] if number < 3 else CONTENT, len(CONTENT))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    running = Server()
    yield running
    running.close()


def remote(*urls: str, **options) -> Remote:
    return Remote("file", SHA256, urls, **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(server, tmp_path):
    path = fetch(remote(server.url), tmp_path, QUICK)
    assert path.read_bytes() == CONTENT
    assert fetch(remote(server.url), tmp_path, QUICK) == path
    assert server.requested == ["/file"]
    assert names(tmp_path) == ["file"]


def test_a_cut_connection_is_tried_again(server, tmp_path):
    server.behave = cut_twice
    assert fetch(remote(server.url), tmp_path, QUICK).read_bytes() == CONTENT
    assert len(server.requested) == 3
    assert names(tmp_path) == ["file"]


def test_a_connection_that_is_always_cut_is_given_up_and_nothing_is_left(server, tmp_path):
    server.behave = lambda handler, _: cut_twice(handler, 0)
    with pytest.raises(DataError, match=r"Connection broken: IncompleteRead\(100000 bytes read"):
        fetch(remote(server.url), tmp_path, Patience(0.5, tries=2, pause=0.01))
    assert len(server.requested) == 2
    assert names(tmp_path) == []


def test_a_wrong_hash_removes_the_file_and_tries_the_next_address(server, tmp_path):
    lies = server.url + "?lies"
    server.behave = lambda h, _: (
        send(h, 200, b"something else") if "lies" in h.path else whole(h, 0)
    )
    assert fetch(remote(lies, server.url), tmp_path, QUICK).read_bytes() == CONTENT
    assert len(server.requested) == 2


def test_a_wrong_hash_everywhere_is_told_with_both_and_nothing_is_left(server, tmp_path):
    server.behave = lambda handler, _: send(handler, 200, b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(DataError, match=f"hash mismatch: expected {SHA256}, got {found}") as raised:
        fetch(remote(server.url), tmp_path, QUICK)
    assert f"By hand: put the file from {server.url} into {tmp_path}" in str(raised.value)
    assert names(tmp_path) == []
    assert raised.value.exit_code == 4


def test_a_server_that_stalls_is_given_up_after_the_timeout(server, tmp_path):
    def stall(handler, _):
        send(handler, 200, CONTENT[:1000], len(CONTENT))
        handler.wfile.flush()
        server.release.wait(20)

    server.behave = stall
    started = time.monotonic()
    with pytest.raises(DataError, match="the server stopped answering"):
        fetch(remote(server.url), tmp_path, Patience(timeout=0.2, tries=3, pause=0.01))
    assert len(server.requested) == 3
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_an_answer_is_tried_again_where_that_can_help(server, tmp_path, status, tries):
    server.behave = lambda handler, _: send(handler, status, b"")
    with pytest.raises(DataError, match=f"the server answers {status}"):
        fetch(remote(server.url), tmp_path, QUICK)
    assert len(server.requested) == tries
    assert names(tmp_path) == []


def test_a_server_that_sends_without_end_is_cut_off(server, tmp_path):
    with pytest.raises(DataError, match="more than 100,000 bytes"):
        fetch(remote(server.url, max_bytes=100_000), tmp_path, Patience(0.5, 1))
    assert names(tmp_path) == []


def test_no_server_at_all_is_one_sentence_that_says_what_to_do_by_hand(server, tmp_path):
    url = "http://127.0.0.1:9/file"  # the port of discard: nobody listens
    with pytest.raises(DataError, match="Connection refused") as raised:
        fetch(remote(url), tmp_path, QUICK)
    assert str(raised.value).endswith(f"By hand: put the file from {url} into {tmp_path}")
    assert "\n" not in str(raised.value)


def test_a_name_that_is_nowhere_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    started = time.monotonic()
    with pytest.raises(DataError, match="cannot fetch file"):
        fetch(remote("http://nowhere.invalid/file"), tmp_path, Patience(5, 3, pause=30))
    assert time.monotonic() - started < 20


def test_a_zipped_file_is_known_by_what_is_in_it(server, tmp_path):
    zipped = gzip.compress(CONTENT, 1)
    server.behave = lambda handler, _: send(handler, 200, zipped)
    path = fetch(remote(server.url, unzipped=True), tmp_path, QUICK)
    assert path.read_bytes() == zipped


@pytest.mark.parametrize(
    "body",
    [b"<html>no such page</html>", gzip.compress(b"something else"), gzip.compress(CONTENT)[:-20]],
    ids=["a page", "another file", "cut short"],  # gzip writes the time into its bytes
)
def test_a_zipped_file_of_something_else_is_refused(server, tmp_path, body):
    server.behave = lambda handler, _: send(handler, 200, body)
    with pytest.raises(DataError, match="hash mismatch"):
        fetch(remote(server.url, unzipped=True), tmp_path, QUICK)
    assert names(tmp_path) == []


def test_a_file_on_the_disk_that_is_wrong_is_fetched_anew(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:-1])  # as a killed program of another kind leaves it
    assert fetch(remote(server.url), tmp_path, QUICK).read_bytes() == CONTENT


def test_two_processes_that_fetch_at_once_both_succeed_and_ask_once(server, tmp_path):
    def slowly(handler, number):
        time.sleep(0.3)
        whole(handler, number)

    server.behave = slowly
    script = (
        "from pathlib import Path; from tinylens.data.builtin import *; "
        f"fetch(Remote('file', {SHA256!r}, [{server.url!r}]), Path({str(tmp_path)!r}))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert server.requested == ["/file"]
    assert (tmp_path / "file").read_bytes() == CONTENT
